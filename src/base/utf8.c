#include "utf8.h"

static size_t expected_length(unsigned char first)
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
static int second_fits(unsigned char first, unsigned char second)
{
  unsigned char low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  unsigned char high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  return second >= low && second <= high;
}

size_t utf8_length(const char *text, size_t length)
{
  const unsigned char *p = (const unsigned char *)text;
  size_t expected = length > 0 ? expected_length(p[0]) : 0;
  if (expected > length)
    return 0;
  for (size_t i = 1; i < expected; i++)
    if (i == 1 ? !second_fits(p[0], p[1]) : (p[i] & 0xC0) != 0x80)
      return 0;
  return expected;
}
