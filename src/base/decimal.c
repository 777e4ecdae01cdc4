#include "decimal.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Far outside the range of a double, and small enough that counting digits on top does not overflow. */
enum { EXPONENT_MAX = 10000000 };

static bool is_digit(const char *text, const char *end)
{
  return text < end && *text >= '0' && *text <= '9';
}

static void add_digit(struct decimal *decimal, char digit, bool fraction)
{
  if (fraction)
    decimal->exponent--;
  if (decimal->count == 0 && digit == '0')
    return;
  if (decimal->count < DECIMAL_DIGITS) {
    decimal->digits[decimal->count++] = digit;
    return;
  }
  decimal->exponent++;
  if (digit != '0' && decimal->digits[DECIMAL_DIGITS - 1] == '0')
    decimal->digits[DECIMAL_DIGITS - 1] = '1';
}

static const char *read_digits(const char *text, const char *end, struct decimal *decimal, bool fraction)
{
  for (; is_digit(text, end); text++)
    add_digit(decimal, *text, fraction);
  return text;
}

static const char *read_exponent(const char *text, const char *end, struct decimal *decimal)
{
  const char *p = text;
  if (p == end || (*p != 'e' && *p != 'E'))
    return text;
  p++;
  bool negative = p < end && *p == '-';
  if (p < end && (*p == '-' || *p == '+'))
    p++;
  if (!is_digit(p, end))
    return text;
  long exponent = 0;
  for (; is_digit(p, end); p++)
    if (exponent < EXPONENT_MAX)
      exponent = exponent * 10 + (*p - '0');
  decimal->exponent += negative ? -exponent : exponent;
  return p;
}

static void drop_zeros_behind(struct decimal *decimal)
{
  while (decimal->count > 0 && decimal->digits[decimal->count - 1] == '0') {
    decimal->count--;
    decimal->exponent++;
  }
  if (decimal->count == 0)
    decimal->exponent = 0;
  decimal->digits[decimal->count] = '\0';
}

const char *decimal_read(const char *text, const char *end, struct decimal *decimal)
{
  *decimal = (struct decimal){.negative = text < end && *text == '-', .json = true};
  const char *start = decimal->negative ? text + 1 : text;
  if (!is_digit(start, end))
    return text;
  const char *p = read_digits(start, end, decimal, false);
  if (*start == '0' && p > start + 1)
    decimal->json = false;
  if (p < end && *p == '.') {
    const char *fraction = p + 1;
    p = read_digits(fraction, end, decimal, true);
    if (p == fraction)
      decimal->json = false;
  }
  p = read_exponent(p, end, decimal);
  drop_zeros_behind(decimal);
  return p;
}

/* A whole number and a power of ten that doubles hold exactly: then the quotient is rounded once, as it should be. */
static bool quick_value(const struct decimal *decimal, double *value)
{
  static const double powers[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
  const int most = sizeof powers / sizeof *powers - 1;
  if (decimal->exponent < -most || decimal->exponent > most || decimal->count + decimal->exponent > most ||
      decimal->count > most)
    return false;
  int64_t whole = 0;
  for (int i = 0; i < decimal->count; i++)
    whole = whole * 10 + (decimal->digits[i] - '0');
  *value =
      decimal->exponent < 0 ? (double)whole / powers[-decimal->exponent] : (double)whole * powers[decimal->exponent];
  if (decimal->negative)
    *value = -*value;
  return true;
}

double decimal_value(const struct decimal *decimal)
{
  double value;
  if (quick_value(decimal, &value))
    return value;
  char text[DECIMAL_DIGITS + 32];
  snprintf(text, sizeof text, "%s%se%ld", decimal->negative ? "-" : "", decimal->count ? decimal->digits : "0",
           decimal->exponent);
  return strtod(text, NULL);
}

/* Take apart the output of printf, with any decimal point. */
static void take_digits(const char *printed, int precision, struct decimal *decimal)
{
  const char *end = strchr(printed, 'e');
  *decimal = (struct decimal){.negative = *printed == '-'};
  for (const char *p = printed; p < end; p++)
    if (is_digit(p, end))
      add_digit(decimal, *p, false);
  decimal->exponent = strtol(end + 1, NULL, 10) - (precision - 1);
  drop_zeros_behind(decimal);
}

/* Times have milliseconds, and few digits. */
static bool quick_digits(double value, struct decimal *decimal)
{
  double thousands = value * 1000;
  if (!(fabs(value) < 1e11) || thousands != floor(thousands) || thousands / 1000 != value)
    return false;
  char backwards[DECIMAL_DIGITS];
  int count = 0;
  for (int64_t left = (int64_t)fabs(thousands); left > 0; left /= 10)
    backwards[count++] = (char)('0' + left % 10);
  *decimal = (struct decimal){.negative = signbit(value) != 0, .count = count, .exponent = -3};
  for (int i = 0; i < count; i++)
    decimal->digits[i] = backwards[count - 1 - i];
  drop_zeros_behind(decimal);
  return true;
}

static void from_double(double value, struct decimal *decimal)
{
  if (quick_digits(value, decimal))
    return;
  char printed[DECIMAL_DIGITS];
  for (int precision = DBL_DIG; precision <= DBL_DECIMAL_DIG; precision++) {
    snprintf(printed, sizeof printed, "%.*e", precision - 1, value);
    take_digits(printed, precision, decimal);
    if (decimal_value(decimal) == value)
      return;
  }
}

bool decimal_survives(const struct decimal *decimal)
{
  struct decimal written;
  /* so few digits always come back from a double, but near the ends of its range */
  if (decimal->count <= DBL_DIG && decimal->exponent > -290 && decimal->exponent < 290)
    return true;
  double value = decimal_value(decimal);
  if (!isfinite(value))
    return false;
  from_double(value, &written);
  return written.negative == decimal->negative && written.exponent == decimal->exponent &&
         strcmp(written.digits, decimal->digits) == 0;
}

bool decimal_parse(const char *text, double *value)
{
  struct decimal decimal;
  const char *start = text + strspn(text, " \t\r\n");
  const char *end = decimal_read(start, start + strlen(start), &decimal);
  if (end == start || end[strspn(end, " \t\r\n")] != '\0')
    return false;
  *value = decimal_value(&decimal);
  return true;
}

size_t decimal_write(double value, char text[DECIMAL_TEXT])
{
  /* whole numbers stay whole for readers that tell 1e20 from an integer, as Python does */
  static const char zeros[] = "00000000000000000000";
  struct decimal decimal;
  from_double(value, &decimal);
  const char *sign = decimal.negative ? "-" : "", *digits = decimal.count ? decimal.digits : "0";
  int exponent = (int)decimal.exponent, whole = decimal.count + exponent, length;
  if (exponent >= 0 && exponent < (int)sizeof zeros)
    length = snprintf(text, DECIMAL_TEXT, "%s%s%.*s", sign, digits, exponent, zeros);
  else if (exponent < 0 && whole > 0)
    length = snprintf(text, DECIMAL_TEXT, "%s%.*s.%s", sign, whole, digits, digits + whole);
  else if (exponent < 0 && whole > -6)
    length = snprintf(text, DECIMAL_TEXT, "%s0.%.*s%s", sign, -whole, zeros, digits);
  else
    length = snprintf(text, DECIMAL_TEXT, "%s%c%s%se%d", sign, *digits, digits[1] ? "." : "", digits + 1, whole - 1);
  return (size_t)length;
}
