/* Whatever a server sends, what is done with it takes time in proportion to its length: ten times the bytes, not much
 * more than ten times the time. The bound is a ratio within one run, of processor time, the best of several tries. */
#include "../base/secret.h"
#include "../record/record.h"
#include "answer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define RATIO_MOST 15.0

/* Where it takes longer than this, under valgrind for one, a fifth of the size will do; seconds for the smaller one. */
#define SLOW 0.05

enum { TIMES = 10, PART = 3, SMALL = 100 * 1024, SMALLEST = SMALL / 5, TRIES = 8 };

#define OLD_REFRESH "oauth2-refresh/old+1"
#define PAIR "\"access_token\":\"at\",\"refresh_token\":\"rt\""
#define OBJECT(member) "{" PAIR ",\"x\":" member
#define ERROR(text) "{\"error\":\"invalid_grant\",\"error_description\":\"" text

static const struct shape {
  const char *name, *head, *unit, *tail; /* a %d in the unit makes them differ */
} shapes[] = {
    {"distinct members", "{" PAIR, ",\"member%07d\":1", "}"},
    {"distinct members with long names", "{" PAIR, ",\"a name that is as good as the one before it %07d\":\"%07d\"",
     "}"},
    {"equal members", "{" PAIR, ",\"x\":1", "}"},
    {"members without a name", "{" PAIR, ",\"\":\"\"", "}"},
    {"tokens again and again", "{\"x\":1", "," PAIR, "}"},
    {"distinct members behind each other backwards", "{" PAIR, ",\"%07dx\":{}", "}"},
    {"objects in objects", "{\"a\":", "{\"access_token\":\"x\",\"b\":", "1"},
    {"arrays too deep", OBJECT(""), "[", ""},
    {"arrays", OBJECT("["), "[],", "[]]}"},
    {"arrays, nested", OBJECT("["), "[[[[[[[[1]]]]]]]],", "[]]}"},
    {"objects with tokens", OBJECT("["), "{" PAIR "},", "{}]}"},
    {"objects with tokens one level down", "{\"x\":[", "{" PAIR "},", "{}]}"},
    {"numbers", OBJECT("["), "1.25,", "1]}"},
    {"numbers that keep their text", OBJECT("["), "0.1234567890123456789,", "1]}"},
    {"a long number", OBJECT("1"), "7", "}"},
    {"a long fraction", OBJECT("0."), "07", "}"},
    {"a long exponent", OBJECT("1e"), "9", "}"},
    {"a long expiry", "{" PAIR ",\"expires_in\":\"", "1", "\"}"},
    {"a long string", OBJECT("\""), "x", "\"}"},
    {"a string with escapes", OBJECT("\""), "\\u0041\\n\\\"\\/", "\"}"},
    {"a string with surrogates", OBJECT("\""), "\\ud83d\\ude00\\ud83d", "\"}"},
    {"a string with unknown escapes", OBJECT("\""), "\\q", "\"}"},
    {"a string that is no UTF-8", OBJECT("\""), "\xFF\xE2\x82", "\"}"},
    {"a long access token", "{\"refresh_token\":\"r\",\"access_token\":\"", "a", "\"}"},
    {"a long refresh token", "{\"access_token\":\"a\",\"refresh_token\":\"", "r\\/", "\"}"},
    {"a long type", "{" PAIR ",\"token_type\":\"", "mac ", "\"}"},
    {"a long name", "{" PAIR ",\"", "x", "\":1}"},
    {"space between", "{" PAIR, " \t\r\n", "}"},
    {"space in front", "", " ", "{" PAIR "}"},
    {"space alone", "", "\r\n", ""},
    {"byte order marks", "", "\xEF\xBB\xBF", "{" PAIR "}"},
    {"quotes", "", "\"", ""},
    {"backslashes", "{\"x\":\"", "\\", ""},
    {"quotes in quotes", "{\"x\":\"", "\\\"", ""},
    {"braces", "", "{", ""},
    {"markup", "", "<", ""},
    {"prose", "", "An error occurred. ", ""},
    {"names of tokens", "{", "\"refresh_token\":", ""},
    {"names of tokens in escapes", "{", "\"refr\\u0065sh_token\":\"x%07d\",", ""},
    {"tokens that were sent", "{", "\"refresh_token\":\"" OLD_REFRESH "\",", ""},
    {"a token's name and colons", "{\"refresh_token\"", "::", ""},
    {"a token that never ends", "{\"refresh_token\":\"", "\\\\", ""},
    {"an error with quotes", ERROR(""), "\\\"'", "\"}"},
    {"an error with a token's beginnings", ERROR(""), "oauth2-refresh/old+", "\"}"},
    {"an error with tokens", ERROR(""), OLD_REFRESH, "\"}"},
    {"an error with percent signs", ERROR(""), "%%25", "\"}"},
    {"an error with backslashes", ERROR(""), "\\\\\\\\", "\"}"},
    {"an error with control characters", ERROR(""), "\\u0001\\u009f", "\"}"},
    {"an error beside a long token", "{\"error\":\"aaaaaaaaaaaaaaaaaaaaaaaab\",\"refresh_token\":\"", "a", "\"}"},
    {"an error beside many tokens", ERROR("aaaaaaaaaaaa aaaaaaaaa\",\"x\":[1"),
     ",{\"access_token\":\"aaaaaaaaaaaaaaaac\"}", "]}"},
    {"an error in an object", "{\"error\":{\"code\":[", "{\"a\":\"b\"},", "1]}}"},
    {"errors", "{\"errors\":[", "{\"errorType\":\"x\"},", "{}]}"},
    {"a long code", "{\"message\":\"m\",\"code\":\"", "c", "\"}"},
    {"a form", "access_token=a&refresh_token=r", "&name%07d=1", ""},
    {"a form with equal names", "access_token=a&refresh_token=r", "&x=1", ""},
    {"a form of ampersands", "access_token=a&refresh_token=r", "&", "&x=1"},
    {"a form of equals signs", "access_token=a&refresh_token=r", "=", "&x=1"},
    {"a form with percent signs", "access_token=a&refresh_token=r&x=", "%%41", ""},
    {"a form with halves of them", "access_token=a&refresh_token=r&x=", "%%4", ""},
    {"a form with quotes", "access_token=a&refresh_token=r&x=", "\"\\", ""},
    {"a form with a long name", "access_token=a&refresh_token=r&", "%%78", "=1"},
    {"a form with an error", "error=", "x+", ""},
};

/* ---- a world without zones ---- */

static bool to_local(double epoch, struct civil *local)
{
  (void)epoch, (void)local;
  return false;
}

static double from_local(const struct civil *local)
{
  (void)local;
  return NAN;
}

static void digest(const void *data, size_t size, unsigned char out[32])
{
  (void)data;
  memset(out, (int)(size & 0xFF), 32);
}

static const struct world world = {to_local, from_local, digest};

/* ---- what is done with an answer ---- */

static struct record read_record(const char *text)
{
  struct record record;
  assert_true(record_read(&record, text, &world));
  return record;
}

/* Over a record that is as long, too. */
static void keep(struct record *record, struct answer *answer, const struct reply *reply,
                 const struct answer_context *context)
{
  assert_true(record_rotate(record, answer, 1, &world));
  char *text = record_write(record);
  assert_non_null(text);
  struct record again = read_record(text);
  answer_free(answer);
  answer_read(answer, reply, context);
  assert_true(record_rotate(&again, answer, 1, &world));
  secret_free(text);
  record_free(&again);
}

static void doubt(struct record *record, const struct reply *reply)
{
  struct pending mark = {.since = 1};
  char *raw = calloc(1, reply->length + 1);
  assert_non_null(raw);
  for (size_t i = 0; i < reply->length; i++)
    raw[i] = reply->body[i] ? reply->body[i] : ' ';
  record_hash(&world, record->refresh_token, mark.refresh_token);
  assert_true(record_mark(record, &mark, raw));
  (void)record_salvage(record);
  secret_free(raw);
}

static void handle(const struct reply *reply)
{
  struct record record = read_record("{\"access_token\":\"oauth2-access-old\",\"refresh_token\":\"" OLD_REFRESH "\"}");
  struct answer_context context = {.now = 1, .default_lifetime = 3600, .sent = record.refresh_token};
  context.secrets[0] = record.refresh_token;
  context.secrets[1] = record.access_token;
  struct answer answer;
  answer_read(&answer, reply, &context);
  if (answer.kind == ANSWER_TOKENS)
    keep(&record, &answer, reply, &context);
  else
    doubt(&record, reply);
  answer_free(&answer);
  (void)answer_introspection(reply, &context);
  record_free(&record);
}

/* ---- how long it takes ---- */

struct sized {
  char *text;
  size_t length;
};

/* The text of a shape, `size` bytes or a little less. */
static struct sized fill(const struct shape *shape, size_t size)
{
  struct sized filled = {malloc(size + 1), 0};
  assert_non_null(filled.text);
  size_t end = (size_t)sprintf(filled.text, "%s", shape->head), most = size - strlen(shape->tail);
  for (int i = 0; end < most; i++) {
    char unit[200];
    size_t room = (size_t)snprintf(unit, sizeof unit, shape->unit, i, i);
    if (end + room > most)
      break;
    memcpy(filled.text + end, unit, room);
    end += room;
  }
  filled.length = end + (size_t)sprintf(filled.text + end, "%s", shape->tail);
  return filled;
}

static double seconds(const struct reply *reply)
{
  clock_t start = clock();
  handle(reply);
  return (double)(clock() - start) / CLOCKS_PER_SEC;
}

/* How many times as long the large one takes as the small one does just before. */
static double compare(struct reply *reply, const struct sized *small, const struct sized *large)
{
  double of_small = 0;
  reply->body = small->text;
  reply->length = small->length;
  for (int i = 0; i < PART; i++)
    of_small += seconds(reply) / PART;
  reply->body = large->text;
  reply->length = large->length;
  return seconds(reply) / fmax(of_small, 1.0 / CLOCKS_PER_SEC);
}

static bool is_slow(struct reply *reply, const struct sized *small)
{
  reply->body = small->text;
  reply->length = small->length;
  return seconds(reply) > SLOW;
}

static void time_is_in_proportion(void **state)
{
  const struct shape *shape = *state;
  bool refusal = strstr(shape->head, "error") || strstr(shape->head, "message");
  struct reply reply = {.delivery = REPLY_RECEIVED, .status = refusal ? 400 : 200, .whole = true};
  struct sized small = fill(shape, SMALL);
  size_t size = is_slow(&reply, &small) ? SMALLEST : SMALL;
  if (size != SMALL) {
    free(small.text);
    small = fill(shape, size);
  }
  struct sized large = fill(shape, TIMES * size);
  double ratio = compare(&reply, &small, &large);
  for (int i = 1; i < TRIES && !(ratio < RATIO_MOST); i++)
    ratio = fmin(ratio, compare(&reply, &small, &large));
  if (getenv("TIMES"))
    print_message("%-50s %5.1f times\n", shape->name, ratio);
  if (!(ratio < RATIO_MOST))
    fail_msg("ten times as much takes %.1f times as long", ratio);
  free(small.text);
  free(large.text);
}

int main(void)
{
  static struct CMUnitTest tests[COUNT(shapes)];
  for (size_t i = 0; i < COUNT(shapes); i++)
    tests[i] = (struct CMUnitTest){shapes[i].name, time_is_in_proportion, NULL, NULL, (void *)(uintptr_t)&shapes[i]};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
