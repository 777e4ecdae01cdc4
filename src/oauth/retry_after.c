#include "retry_after.h"

#include "../base/calendar.h"
#include "../base/decimal.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { MONTH_NAME = 4 };

/* 1 to 12, or 0. */
static int month_number(const char *name)
{
  static const char names[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
  for (int i = 0; i < 12; i++)
    if (strncmp(name, names + 3 * i, MONTH_NAME - 1) == 0 && name[MONTH_NAME - 1] == '\0')
      return i + 1;
  return 0;
}

static bool in_range(const struct civil *date)
{
  if (date->year < 1 || date->month < 1 || date->day < 1)
    return false;
  return date->day <= calendar_month_length(date->year, date->month) && date->hour >= 0 && date->hour < 24 &&
         date->minute >= 0 && date->minute < 60 && date->second >= 0 && date->second <= 60;
}

/* A two-digit year that seems to lie more than 50 years ahead is of the century before (RFC 9110 section 5.6.7). */
static void complete_year(struct civil *date, double now)
{
  date->year += 1900;
  while (calendar_epoch(date) < now - 50 * 365.25 * 86400 && date->year < 9900)
    date->year += 100;
}

/* The end of a date that `format` describes, or NULL. */
static const char *scan_date(const char *value, const char *format, struct civil *d)
{
  char month[MONTH_NAME];
  int length = 0;
  *d = (struct civil){0};
  (void)sscanf(value, format, &d->day, month, &d->year, &d->hour, &d->minute, &d->second, &length);
  if (length == 0)
    return NULL;
  d->month = month_number(month);
  return value + length;
}

static const char *scan_asctime(const char *value, struct civil *d)
{
  char month[MONTH_NAME];
  int length = 0;
  *d = (struct civil){0};
  (void)sscanf(value, "%*[A-Za-z] %3[A-Za-z] %2d %2d:%2d:%2d %4d%n", month, &d->day, &d->hour, &d->minute, &d->second,
               &d->year, &length);
  if (length == 0)
    return NULL;
  d->month = month_number(month);
  return value + length;
}

static bool read_date(const char *value, double now, double *seconds)
{
  struct civil date;
  const char *end = scan_date(value, "%*[A-Za-z], %2d %3[A-Za-z] %4d %2d:%2d:%2d GMT%n", &date);
  if (!end)
    end = scan_asctime(value, &date);
  if (!end) {
    end = scan_date(value, "%*[A-Za-z], %2d-%3[A-Za-z]-%2d %2d:%2d:%2d GMT%n", &date);
    if (end && date.month > 0)
      complete_year(&date, now);
  }
  if (!end || end[strspn(end, " \t")] != '\0' || !in_range(&date))
    return false;
  *seconds = calendar_epoch(&date) - now;
  return true;
}

double retry_after_read(const char *value, double now)
{
  double seconds;
  if (!value)
    return -1;
  value += strspn(value, " \t");
  bool is_number = *value && strspn(value, "0123456789. \t") == strlen(value);
  if (is_number ? !decimal_parse(value, &seconds) : !read_date(value, now, &seconds))
    return -1;
  if (seconds > RETRY_AFTER_CAP)
    return RETRY_AFTER_CAP;
  return seconds > 0 ? seconds : 0;
}
