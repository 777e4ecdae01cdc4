/* Any few bytes, again and again: what is done with 200 KB of them takes in proportion to what 20 KB take. The first byte
 * says how much of the input stands before what is repeated, the second one how much behind. */
#include "../base/json.h"
#include "../base/secret.h"
#include "answer.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SMALL = 20 * 1024, TIMES = 10, TRIES = 8 };

/* Ten times as much is allowed to take this many times as long; a quadratic step makes a hundred of it. */
#define RATIO_MOST 30.0
/* Shorter than that (seconds) is no measure, and no trouble. */
#define TOO_SHORT 0.02

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct text {
  char *bytes;
  size_t length;
};

static struct text repeat(const char *head, size_t before, const char *unit, size_t length, size_t behind, size_t size)
{
  struct text text = {malloc(before + size + length + behind + 1), before};
  if (!text.bytes)
    abort();
  memcpy(text.bytes, head, before);
  while (text.length < size) {
    memcpy(text.bytes + text.length, unit, length);
    text.length += length;
  }
  memcpy(text.bytes + text.length, unit + length, behind);
  text.length += behind;
  return text;
}

static void handle(const struct text *text, int status)
{
  static const struct answer_context context = {
      .now = 1.7e9, .default_lifetime = 3600, .secrets = {"the-client-secret"}, .sent = "the-refresh-token"};
  struct reply reply = {
      .delivery = REPLY_RECEIVED, .whole = true, .status = status, .body = text->bytes, .length = text->length};
  struct answer answer;
  answer_read(&answer, &reply, &context);
  if (answer.fields) {
    char *written = json_write(answer.fields);
    secret_free(written);
  }
  answer_free(&answer);
  secret_free(answer_salvage(text->bytes, text->length, context.sent));
  (void)answer_introspection(&reply, &context);
}

static double seconds(const struct text *text, int status)
{
  clock_t start = clock();
  handle(text, status);
  return (double)(clock() - start) / CLOCKS_PER_SEC;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  if (size < 4)
    return 0;
  size_t left = size - 3, before = data[0] % left, behind = data[1] % (left - before), length = left - before - behind;
  const char *head = (const char *)data + 3, *unit = head + before;
  int status = data[2] & 1 ? 400 : 200;
  struct text small = repeat(head, before, unit, length, behind, SMALL);
  struct text large = repeat(head, before, unit, length, behind, TIMES * SMALL);
  double of_small = 1, of_large = 1;
  for (int i = 0; i < TRIES && (i == 0 || of_large > RATIO_MOST * of_small) && of_large > TOO_SHORT; i++) {
    double now = seconds(&small, status);
    of_small = now < of_small ? now : of_small;
    now = seconds(&large, status);
    of_large = now < of_large ? now : of_large;
  }
  if (of_large > TOO_SHORT && of_large > RATIO_MOST * of_small)
    abort();
  free(small.bytes);
  free(large.bytes);
  return 0;
}
