#include "json_text.h"

#include "ascii.h"
#include "cjson.h"
#include "decimal.h"
#include "secret.h"
#include "utf8.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* One byte of input becomes four at most: a digit, in quotes and marked. */
enum { GROWTH = 4 };

struct scan {
  const char *at, *end;
  char *out;
  int depth;
};

static bool scan_value(struct scan *scan);

static char peek(const struct scan *scan)
{
  return scan->at < scan->end ? *scan->at : '\0';
}

static void emit(struct scan *scan, const char *text, size_t length)
{
  memcpy(scan->out, text, length);
  scan->out += length;
}

static void copy(struct scan *scan, size_t length)
{
  emit(scan, scan->at, length);
  scan->at += length;
}

/* Control characters between tokens count as space: so does cJSON see them. */
static void skip_space(struct scan *scan)
{
  while (scan->at < scan->end && (unsigned char)*scan->at <= ' ')
    scan->at++;
}

/* One punctuation character, with space in front of it. */
static bool accept(struct scan *scan, char c)
{
  skip_space(scan);
  if (peek(scan) != c)
    return false;
  copy(scan, 1);
  return true;
}

/* The code unit of a \uXXXX at `at`, or -1. */
static int escaped_unit(const char *at, const char *end)
{
  if (end - at < 6 || at[0] != '\\' || at[1] != 'u')
    return -1;
  int unit = 0;
  for (int i = 2; i < 6; i++) {
    int digit = ascii_hex_digit(at[i]);
    if (digit < 0)
      return -1;
    unit = unit * 16 + digit;
  }
  return unit;
}

static bool is_high_surrogate(int unit)
{
  return unit >= 0xD800 && unit <= 0xDBFF;
}

static bool is_low_surrogate(int unit)
{
  return unit >= 0xDC00 && unit <= 0xDFFF;
}

static void scan_unicode_escape(struct scan *scan, int unit)
{
  if (unit == 0) {
    emit(scan, "\\u0001", 6);
    scan->at += 6;
  } else if (is_high_surrogate(unit) && is_low_surrogate(escaped_unit(scan->at + 6, scan->end))) {
    copy(scan, 12);
  } else if (is_high_surrogate(unit) || is_low_surrogate(unit)) {
    emit(scan, UTF8_REPLACEMENT, 3);
    scan->at += 6;
  } else {
    copy(scan, 6);
  }
}

/* An escape that JSON does not know stands for itself, backslash and all. */
static void scan_escape(struct scan *scan)
{
  int unit = escaped_unit(scan->at, scan->end);
  char next = scan->at + 1 < scan->end ? scan->at[1] : '\0';
  if (unit >= 0) {
    scan_unicode_escape(scan, unit);
  } else if (next && strchr("\"\\/bfnrt", next)) {
    copy(scan, 2);
  } else {
    emit(scan, "\\\\", 2);
    scan->at++;
  }
}

static void scan_character(struct scan *scan)
{
  size_t length = utf8_length(scan->at, (size_t)(scan->end - scan->at));
  if (length == 0 || *scan->at == '\0') {
    emit(scan, length == 0 ? UTF8_REPLACEMENT : "\x01", length == 0 ? 3 : 1);
    scan->at++;
  } else {
    copy(scan, length);
  }
}

static bool stands_for_itself(char c)
{
  return c > 0 && c < 127 && c != '"' && c != '\\';
}

/* How many characters stand for themselves, as nearly all of a token do. */
static size_t plain_run(const struct scan *scan)
{
  const char *p = scan->at;
  while (p < scan->end && stands_for_itself(*p))
    p++;
  return (size_t)(p - scan->at);
}

static bool scan_string(struct scan *scan)
{
  if (!accept(scan, '"'))
    return false;
  while (scan->at < scan->end && *scan->at != '"') {
    copy(scan, plain_run(scan));
    if (scan->at == scan->end || *scan->at == '"')
      break;
    if (*scan->at == '\\')
      scan_escape(scan);
    else
      scan_character(scan);
  }
  return accept(scan, '"');
}

static bool scan_number(struct scan *scan)
{
  static const char mark[] = {'"', JSON_TEXT_NUMBER};
  struct decimal decimal;
  const char *end = decimal_read(scan->at, scan->end, &decimal);
  if (end == scan->at)
    return false;
  emit(scan, mark, sizeof mark);
  copy(scan, (size_t)(end - scan->at));
  emit(scan, "\"", 1);
  return true;
}

static bool scan_word(struct scan *scan)
{
  /* Python writes the last three, where JSON has nothing. */
  static const char *const words[][2] = {{"true", "true"},      {"false", "false"},   {"null", "null"},
                                         {"-Infinity", "null"}, {"Infinity", "null"}, {"NaN", "null"}};
  for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
    size_t length = strlen(words[i][0]);
    if ((size_t)(scan->end - scan->at) >= length && memcmp(scan->at, words[i][0], length) == 0) {
      emit(scan, words[i][1], strlen(words[i][1]));
      scan->at += length;
      return true;
    }
  }
  return false;
}

static bool scan_member(struct scan *scan)
{
  return scan_string(scan) && accept(scan, ':') && scan_value(scan);
}

static bool scan_list(struct scan *scan, bool (*scan_item)(struct scan *), char close)
{
  copy(scan, 1);
  if (accept(scan, close))
    return true;
  do {
    if (!scan_item(scan))
      return false;
  } while (accept(scan, ','));
  return accept(scan, close);
}

static bool scan_nested(struct scan *scan)
{
  if (scan->depth == CJSON_NESTING_LIMIT)
    return false;
  scan->depth++;
  bool complete = *scan->at == '{' ? scan_list(scan, scan_member, '}') : scan_list(scan, scan_value, ']');
  scan->depth--;
  return complete;
}

static bool scan_value(struct scan *scan)
{
  skip_space(scan);
  char first = peek(scan);
  if (first == '"')
    return scan_string(scan);
  if (first == '{' || first == '[')
    return scan_nested(scan);
  return scan_number(scan) || scan_word(scan);
}

static bool only_space_left(const struct scan *scan)
{
  for (const char *p = scan->at; p < scan->end; p++)
    if (*p == '\0' || !strchr(" \t\r\n", *p))
      return false;
  return true;
}

char *json_text_clean(const char *text, size_t length, bool whole)
{
  static const char bom[] = {'\xEF', '\xBB', '\xBF'};
  if (length >= SIZE_MAX / GROWTH)
    return NULL;
  char *clean = malloc(GROWTH * length + 1);
  if (!clean)
    return NULL;
  struct scan scan = {.at = text, .end = text + length, .out = clean};
  if (length >= sizeof bom && memcmp(text, bom, sizeof bom) == 0)
    scan.at += sizeof bom;
  if (scan_value(&scan) && (!whole || only_space_left(&scan))) {
    *scan.out = '\0';
    return clean;
  }
  secret_wipe(clean, (size_t)(scan.out - clean));
  free(clean);
  return NULL;
}
