/* Any bytes as the answer of a server. The first byte picks the status, the rest is the body, and serves as headers and
 * the transport's words as well. Build with clang -fsanitize=fuzzer,address,undefined. */
#include "../base/character.h"
#include "../base/json.h"
#include "../base/secret.h"
#include "answer.h"
#include "given.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SECRET "the-client-secret"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
  if (!holds)
    abort();
}

/* What is written reads as the same tree, and is then written the same. */
static void check_round_trip(const cJSON *tree)
{
  char *text = json_write(tree);
  require(text != NULL);
  cJSON *again = json_read_whole(text, strlen(text));
  require(again != NULL);
  char *text_again = json_write(again);
  require(text_again && strcmp(text, text_again) == 0);
  secret_free(text);
  secret_free(text_again);
  json_free(again);
}

static void check_message(const char *message)
{
  require(strlen(message) < ANSWER_MESSAGE - 1);
  require(strstr(message, SECRET) == NULL);
  for (size_t length; *message; message += length) {
    length = utf8_length(message, UTF8_LONGEST);
    require(length > 0 && (unsigned char)*message >= 0x20 && *message != 0x7F);
  }
}

static void check_answer(const struct answer *answer)
{
  check_message(answer->message);
  require((answer->code == CODE_OK) == (*answer->message == '\0'));
  require((answer->fields != NULL) == (answer->kind == ANSWER_TOKENS));
  require(!isnan(answer->retry_after));
  if (answer->kind != ANSWER_TOKENS)
    return;
  require(answer->lifetime > 0 && answer->lifetime <= ANSWER_LIFETIME_CAP);
  require(json_string(answer->fields, "access_token") || json_string(answer->fields, "refresh_token"));
  require(answer->code != CODE_OK || json_string(answer->fields, "access_token"));
  check_round_trip(answer->fields);
}

static void check_reply(const struct reply *reply)
{
  static const struct answer_context context = {.now = 1.7e9, .default_lifetime = 3600, .secrets = {SECRET}};
  struct answer answer;
  answer_read(&answer, reply, &context);
  check_answer(&answer);
  answer_free(&answer);
  struct introspection found = answer_introspection(reply, &context);
  require((found.said == INTROSPECTION_NONE) == (found.code != CODE_OK));
  check_message(found.message);
}

/* RFC 6749 appendix A. */
static void check_token(const char *token)
{
  for (; token && *token; token++)
    require(*token >= 0x20 && *token < 0x7F);
}

/* The same bytes as what a program stores. */
static void check_given(const char *text, size_t length)
{
  static const struct answer_context context = {.now = 1.7e9, .default_lifetime = 3600};
  struct answer answer;
  const char *flaw = given_read(&answer, text, length, &context);
  require((answer.fields == NULL) == (flaw != NULL));
  if (!flaw) {
    require(answer.kind == ANSWER_TOKENS);
    require(json_string(answer.fields, "access_token") || json_string(answer.fields, "refresh_token"));
    check_token(json_string(answer.fields, "access_token"));
    check_token(json_string(answer.fields, "refresh_token"));
    check_round_trip(answer.fields);
  }
  answer_free(&answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  static const int statuses[] = {200, 200, 200, 200, 400, 400, 403, 302, 429, 503, 500, 408, 101, 0};
  if (size == 0)
    return 0;
  const char *body = (const char *)data + 1;
  size_t length = size - 1;
  char *header = malloc(length + 1);
  require(header != NULL);
  memcpy(header, body, length);
  header[length] = '\0';
  struct reply reply = {.delivery = data[0] & 0x80 ? REPLY_LOST : REPLY_RECEIVED,
                        .whole = !(data[0] & 0x40),
                        .status = statuses[data[0] % (sizeof statuses / sizeof statuses[0])],
                        .body = body,
                        .length = length,
                        .retry_after = header,
                        .location = header,
                        .error = header};
  check_reply(&reply);
  check_given(body, length);
  cJSON *tree = json_read(body, length);
  if (tree)
    check_round_trip(tree);
  json_free(tree);
  free(header);
  return 0;
}
