/* The characters of ASCII and UTF-8, the same in every locale. The functions of ctype.h depend on the locale. */
#ifndef BASE_CHARACTER_H
#define BASE_CHARACTER_H

#include <stdbool.h>
#include <stddef.h>

static inline char ascii_lower(char c)
{
  return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static inline bool ascii_is_digit(char c)
{
  return c >= '0' && c <= '9';
}

static inline bool ascii_is_alphanumeric(char c)
{
  return ascii_is_digit(c) || (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z');
}

/* White space as JSON and HTTP have it. */
static inline bool ascii_is_space(char c)
{
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Cut white space off both ends. */
static inline void ascii_trim(const char **text, size_t *length)
{
  while (*length > 0 && ascii_is_space(**text)) {
    ++*text;
    --*length;
  }
  while (*length > 0 && ascii_is_space((*text)[*length - 1]))
    --*length;
}

/* The value of a hexadecimal digit; -1: it is none. */
static inline int ascii_hex_digit(char c)
{
  c = ascii_lower(c);
  return ascii_is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Well-formed UTF-8: Unicode 15, table 3-7; RFC 3629. */

/* U+FFFD, which replaces bytes that cannot be read. */
#define UTF8_REPLACEMENT "\xEF\xBF\xBD"

enum { UTF8_LONGEST = 4 };

static inline size_t utf8_expected_length(unsigned char first)
{
  if (first < 0x80)
    return 1;
  if (first >= 0xC2 && first <= 0xDF)
    return 2;
  if (first >= 0xE0 && first <= 0xEF)
    return 3;
  return first >= 0xF0 && first <= 0xF4 ? 4 : 0;
}

/* The second byte decides about overlong forms, surrogates and the upper end. */
static inline bool utf8_second_fits(unsigned char first, unsigned char second)
{
  unsigned char low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  unsigned char high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  return second >= low && second <= high;
}

/* The length in bytes of the character at `text`, or 0 if no well-formed one starts there. Overlong forms, surrogates
 * and code points above U+10FFFF are not well-formed. Looks at `length` bytes at most, and never past a NUL. */
static inline size_t utf8_length(const char *text, size_t length)
{
  const unsigned char *p = (const unsigned char *)text;
  size_t expected = length > 0 ? utf8_expected_length(p[0]) : 0;
  if (expected > length)
    return 0;
  for (size_t i = 1; i < expected; i++)
    if (i == 1 ? !utf8_second_fits(p[0], p[1]) : (p[i] & 0xC0) != 0x80)
      return 0;
  return expected;
}

#endif
