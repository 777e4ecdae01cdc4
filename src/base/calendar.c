#include "calendar.h"

#include <math.h>

/* Dates in seconds are smaller for three thousand years. */
#define MILLISECONDS 1e11

bool calendar_is_date(double number)
{
  return number >= CALENDAR_EARLIEST && number < CALENDAR_LATEST;
}

double calendar_seconds(double date)
{
  return date >= MILLISECONDS ? date / 1000 : date;
}

/* Years are counted from March, so that the leap day comes last. */
long calendar_days(int year, int month, int day)
{
  long y = month > 2 ? year : year - 1;
  long day_of_year = (153L * ((month + 9) % 12) + 2) / 5 + day - 1;
  return 365 * y + y / 4 - y / 100 + y / 400 + day_of_year - 719468;
}

long calendar_month_length(int year, int month)
{
  int next_year = month == 12 ? year + 1 : year;
  return calendar_days(next_year, month % 12 + 1, 1) - calendar_days(year, month, 1);
}

double calendar_epoch(const struct civil *utc)
{
  return 86400.0 * (double)calendar_days(utc->year, utc->month, utc->day) + 3600.0 * utc->hour + 60.0 * utc->minute +
         utc->second + utc->microsecond / 1e6;
}

/* From 0000-03-01, in spans of 400 years: http://howardhinnant.github.io/date_algorithms.html */
static void put_date(long days, struct civil *utc)
{
  long day = (days + 719468) % 146097, span = (days + 719468) / 146097;
  long year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
  long day_of_year = day - (365 * year + year / 4 - year / 100);
  long month = (5 * day_of_year + 2) / 153;
  utc->day = (int)(day_of_year - (153 * month + 2) / 5 + 1);
  utc->month = (int)(month < 10 ? month + 3 : month - 9);
  utc->year = (int)(year + 400 * span) + (utc->month <= 2);
}

void calendar_civil(double epoch, struct civil *utc)
{
  double micros = floor(epoch * 1e6 + 0.5), whole = floor(micros / 1e6), days = floor(whole / 86400);
  int seconds = (int)(whole - 86400 * days);
  put_date((long)days, utc);
  utc->hour = seconds / 3600;
  utc->minute = seconds / 60 % 60;
  utc->second = seconds % 60;
  utc->microsecond = (int)(micros - whole * 1e6);
}
