#include "reply.h"
#include "retry_after.h"

#include <stdio.h>
#include <string.h>

static const char endpoint[] = "introspection endpoint";

/* `active` is a boolean; servers also send it as a string or a number. */
static enum introspection_kind read_active(const cJSON *body)
{
  const cJSON *active = cJSON_GetObjectItemCaseSensitive(body, "active");
  const char *word = json_text_of(active);
  double number;
  if (cJSON_IsTrue(active) || (word && strcmp(word, "true") == 0))
    return INTROSPECTION_ACTIVE;
  if (cJSON_IsFalse(active) || (word && strcmp(word, "false") == 0))
    return INTROSPECTION_INACTIVE;
  if (!json_number(body, "active", &number) || (number != 0 && number != 1))
    return INTROSPECTION_NONE;
  return number == 1 ? INTROSPECTION_ACTIVE : INTROSPECTION_INACTIVE;
}

static enum code failure_code(const struct reply *reply, const cJSON *body)
{
  int status = reply->status;
  const struct reply_meaning *meaning = reply_error(body).meaning;
  bool forbidden = (status == 401 || status == 403) && !reply_is_page(reply, body);
  if (forbidden || (meaning && meaning->code == CODE_INVALID_CLIENT))
    return CODE_INVALID_CLIENT;
  if (status == 408)
    return CODE_TIMEOUT;
  if (status == 429)
    return CODE_RATE_LIMITED;
  return status >= 500 && status < 600 ? CODE_SERVER_ERROR : CODE_BAD_RESPONSE;
}

static const char *failure_words(enum code code, int status)
{
  switch ((int)code) {
  case CODE_INVALID_CLIENT:
    return "does not accept client_id and client_secret";
  case CODE_TIMEOUT:
    return "gave up waiting for the request";
  case CODE_RATE_LIMITED:
    return "asks to slow down";
  case CODE_SERVER_ERROR:
    return "failed";
  default:
    return status == 404 || status == 405 ? "is not there: set the option introspection_url, or to false if the "
                                            "provider has none"
                                          : "does not say whether the token is active";
  }
}

static bool refuses_to_introspect(int status)
{
  return status == 401 || status == 403 || status == 404 || status == 405;
}

/* A refusal stays until an administrator changes the settings. */
static bool is_transient(int status)
{
  return status < 400 || status == 408 || status == 429 || status >= 500;
}

static struct introspection read_introspection(const struct reply *reply, const struct answer_context *context)
{
  char detail[REPLY_DETAIL];
  cJSON *body = reply_read_body(reply);
  bool success = reply->status >= 200 && reply->status < 300;
  struct introspection found = {.said = success ? read_active(body) : INTROSPECTION_NONE};
  if (found.said == INTROSPECTION_NONE) {
    found.code = failure_code(reply, body);
    found.transient = is_transient(reply->status);
    found.refused = refuses_to_introspect(reply->status);
    found.retry_after = retry_after_read(reply->retry_after, context->now);
    reply_describe(detail, reply, body, context);
    snprintf(found.message, sizeof found.message, "the %s %s (%s)", endpoint, failure_words(found.code, reply->status),
             detail);
  }
  json_free(body);
  return found;
}

struct introspection answer_introspection(const struct reply *reply, const struct answer_context *context)
{
  if (reply->delivery == REPLY_RECEIVED && !reply->cut)
    return read_introspection(reply, context);
  struct introspection none = {.said = INTROSPECTION_NONE, .transient = !reply->untrusted, .retry_after = -1};
  if (reply->delivery != REPLY_RECEIVED) {
    none.code = reply_failure(none.message, endpoint, reply, context);
  } else {
    none.code = CODE_BAD_RESPONSE;
    snprintf(none.message, sizeof none.message, "the %s's answer is far too long (HTTP %d)", endpoint, reply->status);
  }
  return none;
}
