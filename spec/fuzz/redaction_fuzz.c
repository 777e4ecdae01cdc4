/* Any answer of a server that knows a secret: no message holds eight bytes of it in a row, and no text that is called
 * safe eight letters or digits. What the fuzzer makes is the
 * answer; a byte 0x80 to 0xBF in it stands for a part of the secret in one of several spellings, and the spelling must
 * not come through either. */
#include "../base/quote.h"
#include "answer.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Nothing of it occurs in our own words. */
#define SECRET "Zq7+Kx9/Wv3Jp5Gd1Rb8Nf4Ty6Hm2Lc0"

enum { PARTS = 8, PART_LENGTH = 24, RUN = 8 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const spellings[] = {SECRET,
                                        "ZQ7+KX9/WV3JP5GD1RB8NF4TY6HM2LC0",
                                        "Zq7+ Kx9/ Wv3J p5Gd 1Rb8 Nf4T",
                                        "WnE3K0t4OS9XdjNKcDVHZDFSYjhOZjRUeTZIbTJMYzA=",
                                        "5a71372b4b78392f5776334a7035476431526238",
                                        "0cL2mH6yT4fN8bR1dG5pJ3vW/9xK+7qZ",
                                        "LJYTOK2LPA4S6V3WGNFHANKHMQYVEYRYJZTDIVDZGZEG2MSMMMYA",
                                        "Zq7\"Kx9'Wv3-Jp5_Gd1.Rb8:Nf4"};

static void require(bool holds)
{
  if (!holds)
    abort();
}

static char lower(char c)
{
  return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* Letters and digits alone. */
static size_t join(char *out, const char *text)
{
  size_t length = 0;
  for (; *text; text++)
    if ((*text >= '0' && *text <= '9') || (lower(*text) >= 'a' && lower(*text) <= 'z'))
      out[length++] = lower(*text);
  out[length] = '\0';
  return length;
}

static void lower_all(char *out, const char *text)
{
  while ((*out++ = lower(*text++)) != '\0')
    ;
}

static bool has_run(const char *text, const char *spelling, size_t length)
{
  size_t whole = strlen(spelling);
  for (size_t at = 0; at + length <= whole; at++) {
    char run[32] = "";
    memcpy(run, spelling + at, length);
    if (strstr(text, run))
      return true;
  }
  return false;
}

/* A run may go on over what is no letter, `joined` bytes of it; our own words around a quote may make it longer by one
 * or two. */
static void check(const char *message, size_t joined)
{
  char text[2 * ANSWER_MESSAGE], spelling[200];
  require(strlen(message) < ANSWER_MESSAGE);
  lower_all(text, message);
  lower_all(spelling, SECRET);
  require(!has_run(text, spelling, RUN));
  for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
    join(text, message);
    join(spelling, spellings[i]);
    require(!has_run(text, spelling, joined));
  }
}

/* The answer, with the parts put in. */
static char *spell(const uint8_t *data, size_t size, size_t *length)
{
  char *text = malloc(size * PART_LENGTH + 1);
  require(text != NULL);
  *length = 0;
  for (size_t i = 0; i < size; i++) {
    if (data[i] < 0x80 || data[i] > 0xBF) {
      text[(*length)++] = (char)data[i];
      continue;
    }
    const char *spelling = spellings[(data[i] >> 3) % PARTS];
    size_t from = (data[i] & 7u) * 2, whole = strlen(spelling);
    for (size_t j = from; j < whole && j < from + PART_LENGTH; j++)
      text[(*length)++] = spelling[j];
  }
  text[*length] = '\0';
  return text;
}

static void check_reply(struct reply reply, const struct answer_context *context)
{
  struct answer answer;
  answer_read(&answer, &reply, context);
  check(answer.message, RUN + 4);
  answer_free(&answer);
  check(answer_introspection(&reply, context).message, RUN + 4);
}

static void check_text(const char *text)
{
  const char *known[] = {SECRET};
  const struct quote_secrets secrets = {known, 1, NULL};
  char shown[64], again[64];
  if (strlen(text) < ANSWER_MESSAGE && quote_is_safe(text, &secrets))
    check(text, RUN);
  quote_escape(shown, sizeof shown, text);
  require(strlen(shown) < sizeof shown);
  for (const char *c = shown; *c; c++)
    require((unsigned char)*c >= ' ' && *c != 0x7F);
  require(strcmp(quote_escape(again, sizeof again, shown), shown) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  static const int statuses[] = {400, 200, 403, 302, 401, 500, 429, 0};
  static const char *const frames[] = {"%.*s",
                                       "{\"error\":\"%.*s\"}",
                                       "{\"error\":\"invalid_grant\",\"error_description\":\"%.*s\"}",
                                       "{\"error\":{\"code\":\"x\",\"message\":\"%.*s\"}}",
                                       "{\"errors\":[{\"errorType\":\"%.*s\"}]}",
                                       "{\"code\":\"c\",\"message\":\"%.*s\"}",
                                       "{\"access_token\":\"a\",\"token_type\":\"%.*s\"}",
                                       "error=x&error_description=%.*s"};
  static const struct answer_context context = {.now = 1.7e9, .default_lifetime = 3600, .secrets = {SECRET}};
  if (size < 1)
    return 0;
  size_t length;
  char *text = spell(data + 1, size - 1, &length), *location = malloc(length + 20), *body = malloc(length + 100);
  require(location && body);
  sprintf(location, "https://%s/", text);
  sprintf(body, frames[data[0] & 7], (int)length, text);
  struct reply reply = {.delivery = data[0] & 0x40 ? REPLY_LOST : REPLY_RECEIVED,
                        .whole = true,
                        .status = statuses[data[0] >> 3 & 7],
                        .body = body,
                        .length = strlen(body),
                        .location = location,
                        .error = text};
  check_reply(reply, &context);
  check_text(text);
  free(body);
  free(location);
  free(text);
  return 0;
}
