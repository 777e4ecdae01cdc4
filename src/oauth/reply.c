#include "reply.h"

#include "../base/quote.h"
#include "../base/secret.h"
#include "form.h"

#include <stdio.h>
#include <string.h>

static bool has_field(const cJSON *body, const char *name)
{
  return cJSON_GetObjectItemCaseSensitive(body, name) != NULL;
}

cJSON *reply_read_body(const struct reply *reply)
{
  if (!reply->body)
    return NULL;
  cJSON *body = json_read(reply->body, reply->length);
  if (cJSON_IsObject(body))
    return body;
  json_free(body);
  body = reply->whole ? form_read(reply->body, reply->length) : NULL;
  if (has_field(body, "access_token") || has_field(body, "refresh_token") || has_field(body, "error"))
    return body;
  json_free(body);
  return NULL;
}

bool reply_is_page(const struct reply *reply, const cJSON *body)
{
  size_t at = 0;
  while (at < reply->length && reply->body && strchr(" \t\r\n", reply->body[at]))
    at++;
  return !body && reply->body && at < reply->length;
}

/* ---- the error in an answer ---- */

static bool says_something(const cJSON *item)
{
  bool empty =
      (cJSON_IsString(item) && !*item->valuestring) || ((cJSON_IsArray(item) || cJSON_IsObject(item)) && !item->child);
  return item && !cJSON_IsNull(item) && !cJSON_IsFalse(item) && !empty;
}

/* The same word, in any case and with any separator between its parts. */
static bool is_word(const char *text, const char *word)
{
  for (; *word; word++) {
    if (*word == '_')
      continue;
    while (*text && strchr("_- .", *text))
      text++;
    if ((*text | 0x20) != *word)
      return false;
    text++;
  }
  return *text == '\0';
}

static const struct reply_meaning *meaning_of(const cJSON *name)
{
  static const struct reply_meaning meanings[] = {
      {"invalid_grant", ANSWER_REFUSAL, CODE_INVALID_GRANT},
      {"bad_refresh_token", ANSWER_REFUSAL, CODE_INVALID_GRANT},
      {"expired_token", ANSWER_REFUSAL, CODE_INVALID_GRANT},
      {"token_expired", ANSWER_REFUSAL, CODE_INVALID_GRANT},
      {"invalid_refresh_token", ANSWER_REFUSAL, CODE_INVALID_GRANT},
      {"invalid_client", ANSWER_REFUSAL, CODE_INVALID_CLIENT},
      {"unauthorized_client", ANSWER_REFUSAL, CODE_BAD_RESPONSE},
      {"incorrect_client_credentials", ANSWER_REFUSAL, CODE_INVALID_CLIENT},
      {"temporarily_unavailable", ANSWER_NOT_SPENT, CODE_SERVER_ERROR},
      {"slow_down", ANSWER_NOT_SPENT, CODE_RATE_LIMITED},
  };
  const char *word = json_text_of(name);
  for (size_t i = 0; word && i < sizeof meanings / sizeof *meanings; i++)
    if (is_word(word, meanings[i].error))
      return &meanings[i];
  return NULL;
}

/* The first name that is known, else the first string, else the first item. */
static void take_name(struct reply_error *found, const cJSON *name)
{
  if (!says_something(name) || cJSON_IsArray(name) || cJSON_IsObject(name))
    return;
  const struct reply_meaning *meaning = meaning_of(name);
  bool better = !found->name || (!found->meaning && meaning) || (!cJSON_IsString(found->name) && cJSON_IsString(name));
  if (found->meaning || !better)
    return;
  found->name = name;
  found->meaning = meaning;
}

static void take_text(struct reply_error *found, const cJSON *object)
{
  static const char *const names[] = {"error_description", "errorDescription", "message", "description", "detail"};
  for (size_t i = 0; !found->text && i < sizeof names / sizeof *names; i++)
    found->text = json_string(object, names[i]);
}

static void take_names(struct reply_error *found, const cJSON *object)
{
  static const char *const names[] = {"error",      "code", "errorType", "errorCode",
                                      "error_code", "type", "status",    "reason"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    take_name(found, cJSON_GetObjectItemCaseSensitive(object, names[i]));
}

/* An error by itself: a name, an object with one, or a list of either. */
static void take_error(struct reply_error *found, const cJSON *error)
{
  if (cJSON_IsArray(error))
    error = error->child;
  if (!cJSON_IsObject(error)) {
    take_name(found, error);
    return;
  }
  take_names(found, error);
  take_text(found, error);
}

struct reply_error reply_error(const cJSON *body)
{
  struct reply_error found = {0};
  const cJSON *error = cJSON_GetObjectItemCaseSensitive(body, "error");
  const cJSON *errors = cJSON_GetObjectItemCaseSensitive(body, "errors");
  found.said = says_something(error) || says_something(errors);
  if (says_something(error))
    take_error(&found, error);
  if (says_something(errors))
    take_error(&found, errors);
  if (!found.said)
    take_names(&found, body);
  if (!found.text)
    take_text(&found, body);
  return found;
}

/* ---- the parts of it that may be shown ---- */

bool reply_is_safe(const char *text, const cJSON *body, const struct answer_context *context)
{
  const struct quote_secrets secrets = {context->secrets, sizeof context->secrets / sizeof *context->secrets, body};
  bool safe = quote_is_safe(text, &secrets);
  for (const char *const *p = context->parameters; safe && p && *p; p += 2)
    safe = quote_is_safe(text, &(struct quote_secrets){&p[1], 1, NULL});
  return safe;
}

bool reply_may_show(const char *name, const cJSON *body, const struct answer_context *context)
{
  return quote_is_name(name) && reply_is_safe(name, body, context);
}

/* The first bytes of a text. */
static void cut(char out[QUOTE_LIMIT + 1], const char *text, size_t limit)
{
  snprintf(out, limit < QUOTE_LIMIT ? limit + 1 : QUOTE_LIMIT + 1, "%s", text);
}

/* False: there is a name that may not be shown. */
static bool add_name(char detail[REPLY_DETAIL], size_t *used, const struct reply_error *error)
{
  size_t end = strlen(detail);
  char *name = !error->name                  ? NULL
               : cJSON_IsString(error->name) ? secret_copy(error->name->valuestring)
                                             : json_write(error->name);
  bool shown = name && (error->meaning || quote_is_name(name));
  if (shown) {
    const char *word = error->meaning ? error->meaning->error : name;
    const char *mark = error->meaning || !cJSON_IsString(error->name) ? "" : "\"";
    *used = strlen(word);
    snprintf(detail + end, REPLY_DETAIL - end, ", %s%s%s", mark, word, mark);
  }
  secret_free(name);
  return shown || !error->name;
}

/* False: there is a description that may not be shown. */
static bool add_description(char detail[REPLY_DETAIL], size_t used, const struct reply_error *error)
{
  size_t end = strlen(detail);
  char text[QUOTE_LIMIT + 1];
  if (!error->text || !*error->text)
    return true;
  cut(text, error->text, QUOTE_LIMIT - used);
  bool shown = quote_is_prose(text);
  if (shown)
    snprintf(detail + end, REPLY_DETAIL - end, ": \"%s%s\"", text, strlen(error->text) > strlen(text) ? "..." : "");
  secret_wipe(text, sizeof text);
  return shown;
}

/* Each part is checked together with the text in front of it: the message must not put together a secret that the
 * server sent in parts. */
void reply_describe(char detail[REPLY_DETAIL], const struct reply *reply, const cJSON *body,
                    const struct answer_context *context)
{
  struct reply_error error = reply_error(body);
  size_t used = 0, end = (size_t)snprintf(detail, REPLY_DETAIL, "HTTP %d", reply->status);
  bool named = add_name(detail, &used, &error) && (!detail[end] || reply_is_safe(detail, body, context));
  if (!named)
    detail[end] = '\0';
  end = strlen(detail);
  bool told =
      add_description(detail, named ? used : 0, &error) && (!detail[end] || reply_is_safe(detail, body, context));
  if (!told)
    detail[end] = '\0';
  end = strlen(detail);
  if (!named || !told)
    snprintf(detail + end, REPLY_DETAIL - end, " " QUOTE_LEFT_OUT);
}

enum code reply_failure(char message[ANSWER_MESSAGE], const char *endpoint, const struct reply *reply,
                        const struct answer_context *context)
{
  static const char *const sentences[2][2] = {
      {"the connection to the %s was lost before its answer was complete%s%s", "the %s did not answer in time%s%s"},
      {"the %s could not be reached%s%s", "the %s could not be reached in time%s%s"},
  };
  char words[QUOTE_LIMIT + 1] = "";
  const char *before = "";
  if (reply->error && *reply->error) {
    cut(words, reply->error, QUOTE_LIMIT);
    bool shown = quote_is_report(words) && reply_is_safe(words, NULL, context);
    before = shown ? ": " : " ";
    if (!shown)
      snprintf(words, sizeof words, "%s", QUOTE_LEFT_OUT);
  }
  const char *sentence = sentences[reply->delivery == REPLY_NOT_SENT][reply->timed_out];
  snprintf(message, ANSWER_MESSAGE, sentence, endpoint, before, words);
  return reply->timed_out ? CODE_TIMEOUT : CODE_NETWORK;
}
