#include "answer.h"

#include "../base/calendar.h"
#include "../base/quote.h"
#include "reply.h"
#include "retry_after.h"
#include "token.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char endpoint[] = "token endpoint";

/* No access token that is refreshed lives longer than a year (seconds). */
#define PLAUSIBLE (366 * 86400.0)

/* The answer being read, and its context. */
struct reading {
  const struct reply *reply;
  const struct answer_context *context;
  cJSON *body; /* NULL: neither a JSON object nor a form */
  char detail[REPLY_DETAIL];
};

__attribute__((format(printf, 4, 5))) static void conclude(struct answer *answer, enum answer_kind kind, enum code code,
                                                           const char *format, ...)
{
  va_list arguments;
  answer->kind = kind;
  answer->code = code;
  va_start(arguments, format);
  vsnprintf(answer->message, sizeof answer->message, format, arguments);
  va_end(arguments);
}

static double wait_asked(const struct reading *reading)
{
  return retry_after_read(reading->reply->retry_after, reading->context->now);
}

static void conclude_not_spent(struct answer *answer, enum code code, const struct reading *reading)
{
  conclude(answer, ANSWER_NOT_SPENT, code, "the %s %s (%s)", endpoint,
           code == CODE_RATE_LIMITED ? "asks to slow down" : "is temporarily unavailable", reading->detail);
  answer->retry_after = wait_asked(reading);
}

static void conclude_refusal(struct answer *answer, enum code code, const struct reading *reading)
{
  if (code == CODE_INVALID_CLIENT)
    conclude(answer, ANSWER_REFUSAL, code,
             "the %s does not accept client_id and client_secret (%s); they may be wrong, or an admin may have "
             "disabled the app",
             endpoint, reading->detail);
  else
    conclude(answer, ANSWER_REFUSAL, code, "the %s refused the %s (%s)", endpoint,
             code == CODE_INVALID_GRANT ? "refresh token" : "request", reading->detail);
}

/* Whether the error may be about the refresh token, under any name: then a newer one is worth a try. It is not if the
 * server refuses the client's credentials, if another party has answered, or if there is no such endpoint. */
static bool may_be_of_grant(const struct reading *reading, const struct reply_error *error)
{
  int status = reading->reply->status;
  if (error->meaning)
    return error->meaning->code == CODE_INVALID_GRANT || strcmp(error->meaning->error, "unauthorized_client") == 0;
  if (reply_is_page(reading->reply, reading->body))
    return false;
  return error->said || status == 400 || status == 401 || status == 403 || (status < 500 && error->name);
}

static void read_refusal(struct answer *answer, const struct reading *reading)
{
  struct reply_error error = reply_error(reading->body);
  bool forbidden = reading->reply->status == 401 || reading->reply->status == 403;
  bool page = reply_is_page(reading->reply, reading->body);
  if (error.meaning && error.meaning->kind == ANSWER_NOT_SPENT)
    conclude_not_spent(answer, error.meaning->code, reading);
  else if (error.meaning)
    conclude_refusal(answer, error.meaning->code, reading);
  else if (forbidden && page)
    conclude(answer, ANSWER_REFUSAL, CODE_BAD_RESPONSE,
             "something stands in between: instead of the %s's answer came a page of another kind (%s)", endpoint,
             reading->detail);
  else
    conclude_refusal(answer, forbidden && !error.said ? CODE_INVALID_CLIENT : CODE_BAD_RESPONSE, reading);
  answer->refused_grant = answer->kind == ANSWER_REFUSAL && may_be_of_grant(reading, &error);
}

static bool is_usable(const cJSON *body, const char *name)
{
  return token_fits_header(json_string(body, name));
}

/* Seconds until then, of a date as epoch seconds or milliseconds; 0: it is no such date, has passed or is far off. */
static double until(double date, double now)
{
  double seconds = calendar_seconds(date) - now;
  return calendar_is_date(date) && seconds >= 1 && seconds <= PLAUSIBLE ? seconds : 0;
}

/* By the date that stands beside the lifetime; 0: there is none. */
static double until_date(const cJSON *fields, double now)
{
  double date, seconds = 0;
  if (json_number(fields, "expires_at", &date))
    seconds = until(date, now);
  if (seconds <= 0 && json_number(fields, "expires", &date))
    seconds = until(date, now);
  return seconds;
}

/* A number too large for a lifetime is a date. It is milliseconds if a date beside it says so. Else the lifetime is
 * unknown. */
static double lifetime_of(double seconds, const cJSON *fields, const struct answer_context *context)
{
  double told = until_date(fields, context->now);
  bool milliseconds = told > 0 && seconds / 1000 > told / 2 && seconds / 1000 < told * 2;
  if (milliseconds)
    return told;
  if (!(seconds > PLAUSIBLE) || seconds >= CALENDAR_LATEST)
    return seconds;
  double left = until(seconds, context->now);
  return left > 0 ? left : told > 0 ? told : context->default_lifetime;
}

static void settle_lifetime(struct answer *answer, const struct answer_context *context)
{
  double seconds;
  if (json_number(answer->fields, "expires_in", &seconds))
    seconds = lifetime_of(seconds, answer->fields, context);
  else
    seconds = context->default_lifetime;
  answer->expired_at_birth = !(seconds >= 1);
  if (answer->expired_at_birth)
    answer->lifetime = ANSWER_LIFETIME_FLOOR;
  else
    answer->lifetime = seconds > ANSWER_LIFETIME_CAP ? ANSWER_LIFETIME_CAP : seconds;
}

static void read_tokens(struct answer *answer, const struct reading *reading, bool access, bool refresh)
{
  cJSON *body = reading->body;
  const char *type = json_string(body, "token_type");
  answer->kind = ANSWER_TOKENS;
  answer->code = CODE_OK;
  if (!access) {
    conclude(answer, ANSWER_TOKENS, CODE_BAD_RESPONSE, "the %s answered without a usable access token (HTTP %d)",
             endpoint, reading->reply->status);
  } else if (!token_type_is_bearer(type)) {
    bool shown = reply_may_show(type, body, reading->context);
    conclude(answer, ANSWER_TOKENS, CODE_BAD_RESPONSE, "the %s issued a token of %s%s%s, not a Bearer token", endpoint,
             shown ? "the type \"" : "another type ", shown ? type : QUOTE_LEFT_OUT, shown ? "\"" : "");
  }
  if (!access)
    json_remove(body, "access_token");
  if (!refresh)
    json_remove(body, "refresh_token");
  answer->fields = body;
  settle_lifetime(answer, reading->context);
}

/* Some servers repeat the request's refresh token in a refusal. */
static bool is_echo(const struct reading *reading)
{
  const char *sent = reading->context->sent, *found = json_string(reading->body, "refresh_token");
  return reply_error(reading->body).said && sent && found && strcmp(found, sent) == 0;
}

/* ---- tokens that are wrapped into something ---- */

struct pair {
  cJSON *parent, *object;
  int count;
};

/* The objects that hold both tokens, except the refresh token that was sent. */
static void find_pairs(struct pair *pair, cJSON *parent, const char *sent)
{
  for (cJSON *child = parent->child; child && pair->count < 2; child = child->next) {
    const char *refresh = cJSON_IsObject(child) ? json_string(child, "refresh_token") : NULL;
    if (refresh && is_usable(child, "refresh_token") && is_usable(child, "access_token") &&
        !(sent && strcmp(refresh, sent) == 0)) {
      pair->parent = parent;
      pair->object = child;
      pair->count++;
    }
    find_pairs(pair, child, sent);
  }
}

static bool none(const char *name)
{
  (void)name;
  return false;
}

/* {"data":{"access_token":...}}: when a single pair stands somewhere below, its object's fields come to the top. */
static void unwrap(const struct reading *reading)
{
  struct pair pair = {0};
  if (!reading->body || is_usable(reading->body, "access_token") || is_usable(reading->body, "refresh_token"))
    return;
  find_pairs(&pair, reading->body, reading->context->sent);
  if (pair.count != 1)
    return;
  cJSON *object = cJSON_DetachItemViaPointer(pair.parent, pair.object);
  (void)json_overlay(reading->body, object, none);
  json_free(object);
}

static void read_success(struct answer *answer, const struct reading *reading)
{
  unwrap(reading);
  bool access = is_usable(reading->body, "access_token"), refresh = is_usable(reading->body, "refresh_token");
  if (access || (refresh && !is_echo(reading)))
    read_tokens(answer, reading, access, refresh);
  else if (reply_error(reading->body).said)
    read_refusal(answer, reading);
  else
    conclude(answer, ANSWER_DOUBT, CODE_BAD_RESPONSE, "the %s's answer holds no token (%s)", endpoint, reading->detail);
}

/* The host of a URL, without user and port; its length is 0 when the URL names none. */
static const char *find_host(const char *url, size_t *length)
{
  const char *host = url + strcspn(url, "/?#");
  *length = 0;
  if (strncmp(host, "//", 2) != 0)
    return url;
  host += 2;
  const char *end = host + strcspn(host, "/\\?#");
  for (const char *p = host; p < end; p++)
    if (*p == '@')
      host = p + 1;
  *length = strcspn(host, *host == '[' ? "]/\\?#" : ":/\\?#");
  if (host[*length] == ']')
    ++*length;
  return host;
}

static void read_redirect(struct answer *answer, const struct reading *reading)
{
  char host[256];
  const char *to = "another page";
  size_t length = 0;
  const char *start = reading->reply->location ? find_host(reading->reply->location, &length) : NULL;
  if (length > 0) {
    snprintf(host, sizeof host, "%.*s", length < sizeof host ? (int)length : (int)sizeof host, start);
    to = reply_may_show(host, reading->body, reading->context) ? host : "another server " QUOTE_LEFT_OUT;
  }
  conclude(answer, ANSWER_REFUSAL, CODE_BAD_RESPONSE,
           "the %s redirects to %s (HTTP %d); that is not followed, since the secrets would travel along", endpoint, to,
           reading->reply->status);
}

static void read_server_error(struct answer *answer, const struct reading *reading)
{
  if (reading->reply->status == 503 && wait_asked(reading) >= 0)
    conclude_not_spent(answer, CODE_SERVER_ERROR, reading);
  else
    conclude(answer, ANSWER_DOUBT, CODE_SERVER_ERROR, "the %s failed (%s)", endpoint, reading->detail);
}

static void read_status(struct answer *answer, const struct reading *reading)
{
  int status = reading->reply->status;
  if (status >= 200 && status < 300)
    read_success(answer, reading);
  else if (status >= 300 && status < 400)
    read_redirect(answer, reading);
  else if (status == 408)
    conclude(answer, ANSWER_DOUBT, CODE_TIMEOUT, "the %s gave up waiting for the request (%s)", endpoint,
             reading->detail);
  else if (status == 429)
    conclude_not_spent(answer, CODE_RATE_LIMITED, reading);
  else if (status >= 400 && status < 500)
    read_refusal(answer, reading);
  else if (status >= 500 && status < 600)
    read_server_error(answer, reading);
  else
    conclude(answer, ANSWER_DOUBT, CODE_BAD_RESPONSE, "the %s's answer makes no sense (%s)", endpoint, reading->detail);
}

/* The connection ended badly, but all of the tokens had come: a wrong Content-Length, a server that never
 * closes. Only whole JSON will do, since half of a form can be read as well. */
static bool rescue(struct answer *answer, const struct reply *reply, const struct answer_context *context)
{
  if (reply->delivery != REPLY_LOST || !reply->body || reply->status < 200 || reply->status >= 300)
    return false;
  struct reading reading = {.reply = reply, .context = context, .body = json_read_whole(reply->body, reply->length)};
  unwrap(&reading);
  bool access = is_usable(reading.body, "access_token"), refresh = is_usable(reading.body, "refresh_token");
  if (access && refresh)
    read_tokens(answer, &reading, access, refresh);
  else
    json_free(reading.body);
  return answer->fields != NULL;
}

void answer_read(struct answer *answer, const struct reply *reply, const struct answer_context *context)
{
  *answer = (struct answer){.kind = ANSWER_DOUBT, .retry_after = -1};
  if (rescue(answer, reply, context))
    return;
  if (reply->delivery != REPLY_RECEIVED) {
    answer->kind = reply->delivery == REPLY_NOT_SENT ? ANSWER_NOT_SPENT : ANSWER_DOUBT;
    answer->code = reply_failure(answer->message, endpoint, reply, context);
  } else if (reply->cut) {
    conclude(answer, ANSWER_DOUBT, CODE_BAD_RESPONSE, "the %s's answer is far too long (HTTP %d)", endpoint,
             reply->status);
  } else {
    struct reading reading = {.reply = reply, .context = context, .body = reply_read_body(reply)};
    reply_describe(reading.detail, reply, reading.body, context);
    read_status(answer, &reading);
    if (!answer->fields)
      json_free(reading.body);
  }
}

void answer_free(struct answer *answer)
{
  json_free(answer->fields);
  answer->fields = NULL;
}
