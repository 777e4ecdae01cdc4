#include "form.h"

#include "../base/character.h"
#include "../base/secret.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* A form is written as JSON text, so that json_read settles duplicate names, NULs and bytes that are not UTF-8.
 * A pair of one byte, its separator, becomes `"":"",`; any other byte becomes two at most. */
enum { GROWTH = 6, BRACES = 3 };

static bool is_name_character(char c)
{
  return ascii_is_alphanumeric(c) || (c && strchr("_-.~+*%[]", c));
}

/* One byte, decoded; returns where the next one starts. A percent sign without two digits stands for itself. */
static const char *decode_byte(const char *at, const char *end, char *byte)
{
  *byte = *at == '+' ? ' ' : *at;
  if (*at != '%' || end - at < 3 || ascii_hex_digit(at[1]) < 0 || ascii_hex_digit(at[2]) < 0)
    return at + 1;
  *byte = (char)(ascii_hex_digit(at[1]) * 16 + ascii_hex_digit(at[2]));
  return at + 3;
}

static char *put_quoted(char *out, const char *at, const char *end)
{
  *out++ = '"';
  while (at < end) {
    char byte;
    at = decode_byte(at, end, &byte);
    if (byte == '"' || byte == '\\')
      *out++ = '\\';
    *out++ = byte;
  }
  *out++ = '"';
  return out;
}

/* One pair, [at, end); NULL when its name cannot be one. */
static char *put_pair(char *out, const char *at, const char *end)
{
  const char *name_end = at;
  while (name_end < end && *name_end != '=') {
    if (!is_name_character(*name_end))
      return NULL;
    name_end++;
  }
  out = put_quoted(out, at, name_end);
  *out++ = ':';
  return put_quoted(out, name_end < end ? name_end + 1 : end, end);
}

static char *put_pairs(char *out, const char *at, const char *end)
{
  *out++ = '{';
  while (out && at < end) {
    const char *separator = memchr(at, '&', (size_t)(end - at));
    const char *pair_end = separator ? separator : end;
    out = put_pair(out, at, pair_end);
    at = separator ? separator + 1 : end;
    if (out && at < end)
      *out++ = ',';
  }
  if (out)
    *out++ = '}';
  return out;
}

cJSON *form_read(const char *text, size_t length)
{
  ascii_trim(&text, &length);
  if (length >= SIZE_MAX / GROWTH - BRACES)
    return NULL;
  size_t size = GROWTH * length + GROWTH + BRACES;
  char *json = calloc(1, size);
  char *json_end = json ? put_pairs(json, text, text + length) : NULL;
  cJSON *tree = json_end ? json_read(json, (size_t)(json_end - json)) : NULL;
  if (json)
    secret_wipe(json, size);
  free(json);
  return tree;
}
