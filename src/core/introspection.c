#include "reply.h"

#include <stdio.h>
#include <string.h>

static const char endpoint[] = "introspection endpoint";

/* `active` is a boolean; servers also send it as a string or a number. */
static enum introspection read_active(const cJSON *body)
{
  const cJSON *active = cJSON_GetObjectItemCaseSensitive(body, "active");
  const char *word = cJSON_GetStringValue(active);
  double number;
  if (cJSON_IsTrue(active) || (word && strcmp(word, "true") == 0))
    return INTROSPECTION_ACTIVE;
  if (cJSON_IsFalse(active) || (word && strcmp(word, "false") == 0))
    return INTROSPECTION_INACTIVE;
  if (!json_number(body, "active", &number) || (number != 0 && number != 1))
    return INTROSPECTION_NONE;
  return number == 1 ? INTROSPECTION_ACTIVE : INTROSPECTION_INACTIVE;
}

static enum code failure_code(int status, const cJSON *body)
{
  const struct reply_meaning *meaning = reply_meaning(reply_error(body));
  if (status == 401 || status == 403 || (meaning && meaning->code == CODE_INVALID_CLIENT))
    return CODE_INVALID_CLIENT;
  if (status == 408)
    return CODE_TIMEOUT;
  if (status == 429)
    return CODE_RATE_LIMITED;
  return status >= 500 && status < 600 ? CODE_SERVER_ERROR : CODE_BAD_RESPONSE;
}

static const char *failure_words(enum code code)
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
    return "does not say whether the token is active";
  }
}

static enum introspection read_answer(const struct reply *reply, const struct answer_context *context, enum code *code,
                                      char message[ANSWER_MESSAGE])
{
  char detail[REPLY_DETAIL];
  cJSON *body = reply_read_body(reply);
  bool success = reply->status >= 200 && reply->status < 300;
  enum introspection found = success ? read_active(body) : INTROSPECTION_NONE;
  if (found == INTROSPECTION_NONE) {
    *code = failure_code(reply->status, body);
    reply_describe(detail, reply, body, context);
    snprintf(message, ANSWER_MESSAGE, "the %s %s (%s)", endpoint, failure_words(*code), detail);
  }
  json_free(body);
  return found;
}

enum introspection answer_introspection(const struct reply *reply, const struct answer_context *context,
                                        enum code *code, char message[ANSWER_MESSAGE])
{
  *code = CODE_OK;
  *message = '\0';
  if (reply->delivery == REPLY_RECEIVED && !reply->cut)
    return read_answer(reply, context, code, message);
  if (reply->delivery != REPLY_RECEIVED) {
    *code = reply_failure(message, endpoint, reply, context);
  } else {
    *code = CODE_BAD_RESPONSE;
    snprintf(message, ANSWER_MESSAGE, "the %s's answer is far too long (HTTP %d)", endpoint, reply->status);
  }
  return INTROSPECTION_NONE;
}
