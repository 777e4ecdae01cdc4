#include "reply.h"

#include "form.h"
#include "quote.h"
#include "secret.h"

#include <stdio.h>
#include <string.h>

/* Fewer bytes of a description than this say nothing. */
enum { DESCRIPTION_MIN = 20 };

static bool has(const cJSON *body, const char *name)
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
  if (has(body, "access_token") || has(body, "refresh_token") || has(body, "error"))
    return body;
  json_free(body);
  return NULL;
}

const cJSON *reply_error(const cJSON *body)
{
  const cJSON *error = cJSON_GetObjectItemCaseSensitive(body, "error");
  bool says_nothing = cJSON_IsNull(error) || cJSON_IsFalse(error) || (cJSON_IsString(error) && !*error->valuestring);
  return says_nothing ? NULL : error;
}

const struct reply_meaning *reply_meaning(const cJSON *error)
{
  static const struct reply_meaning meanings[] = {
      {"invalid_grant", ANSWER_REFUSAL, CODE_INVALID_GRANT},
      {"bad_refresh_token", ANSWER_REFUSAL, CODE_INVALID_GRANT},
      {"expired_token", ANSWER_REFUSAL, CODE_INVALID_GRANT},
      {"token_expired", ANSWER_REFUSAL, CODE_INVALID_GRANT},
      {"invalid_refresh_token", ANSWER_REFUSAL, CODE_INVALID_GRANT},
      {"invalid_client", ANSWER_REFUSAL, CODE_INVALID_CLIENT},
      {"unauthorized_client", ANSWER_REFUSAL, CODE_INVALID_CLIENT},
      {"incorrect_client_credentials", ANSWER_REFUSAL, CODE_INVALID_CLIENT},
      {"temporarily_unavailable", ANSWER_NOT_SPENT, CODE_SERVER_ERROR},
      {"slow_down", ANSWER_NOT_SPENT, CODE_RATE_LIMITED},
  };
  const char *name = cJSON_GetStringValue(error);
  for (size_t i = 0; name && i < sizeof meanings / sizeof meanings[0]; i++)
    if (strcmp(name, meanings[i].error) == 0)
      return &meanings[i];
  return NULL;
}

size_t reply_quote(char *out, const char *text, size_t limit, const cJSON *body, const struct answer_context *context)
{
  const struct quote_secrets secrets = {context->secrets, sizeof context->secrets / sizeof context->secrets[0], body};
  return quote(out, text, limit, &secrets);
}

/* A string as it is, anything else as JSON; to be given to secret_free. */
static char *as_text(const cJSON *item)
{
  return cJSON_IsString(item) ? secret_copy(item->valuestring) : json_write(item);
}

/* OAuth names an error `error` and describes it in `error_description`; Lucid's API says `code` and `message`. */
static const cJSON *error_or_code(const cJSON *body)
{
  const cJSON *error = reply_error(body);
  return error ? error : cJSON_GetObjectItemCaseSensitive(body, "code");
}

static const char *description(const cJSON *body)
{
  const char *text = json_string(body, "error_description");
  return text ? text : json_string(body, "message");
}

void reply_describe(char detail[REPLY_DETAIL], const struct reply *reply, const cJSON *body,
                    const struct answer_context *context)
{
  char quoted[QUOTE_SIZE];
  size_t used = 0, end = (size_t)snprintf(detail, REPLY_DETAIL, "HTTP %d", reply->status);
  const cJSON *error = error_or_code(body);
  char *name = error ? as_text(error) : NULL;
  if (name && *name) {
    const char *mark = reply_meaning(error) || !cJSON_IsString(error) ? "" : "\"";
    used = reply_quote(quoted, name, QUOTE_LIMIT, body, context);
    end += (size_t)snprintf(detail + end, REPLY_DETAIL - end, ", %s%s%s", mark, quoted, mark);
  }
  secret_free(name);
  const char *text = description(body);
  if (text && *text && used + DESCRIPTION_MIN <= QUOTE_LIMIT) {
    reply_quote(quoted, text, QUOTE_LIMIT - used, body, context);
    snprintf(detail + end, REPLY_DETAIL - end, ": \"%s\"", quoted);
  }
}

enum code reply_failure(char message[ANSWER_MESSAGE], const char *endpoint, const struct reply *reply,
                        const struct answer_context *context)
{
  static const char *const sentences[2][2] = {
      {"the connection to the %s was lost before its answer was complete%s%s", "the %s did not answer in time%s%s"},
      {"the %s could not be reached%s%s", "the %s could not be reached in time%s%s"},
  };
  char words[QUOTE_SIZE] = "";
  if (reply->error)
    reply_quote(words, reply->error, QUOTE_LIMIT, NULL, context);
  const char *sentence = sentences[reply->delivery == REPLY_NOT_SENT][reply->timed_out];
  snprintf(message, ANSWER_MESSAGE, sentence, endpoint, *words ? ": " : "", words);
  return reply->timed_out ? CODE_TIMEOUT : CODE_NETWORK;
}
