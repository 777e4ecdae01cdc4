#include "calendar.h"

/* Years are counted from March, so that the leap day comes last. */
long calendar_days(int year, int month, int day)
{
  long y = month > 2 ? year : year - 1;
  long day_of_year = (153L * ((month + 9) % 12) + 2) / 5 + day - 1;
  return 365 * y + y / 4 - y / 100 + y / 400 + day_of_year - 719468;
}

double calendar_epoch(const struct civil *utc)
{
  return 86400.0 * (double)calendar_days(utc->year, utc->month, utc->day) + 3600.0 * utc->hour + 60.0 * utc->minute +
         utc->second + utc->microsecond / 1e6;
}
