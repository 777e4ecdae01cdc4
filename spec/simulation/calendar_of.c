#include "calendar_of.h"

#include <math.h>

/* http://howardhinnant.github.io/date_algorithms.html, civil_from_days */
bool calendar_of_epoch(double epoch, struct civil *utc)
{
  double whole = floor(epoch);
  long days = (long)floor(whole / 86400);
  int seconds = (int)(whole - (double)days * 86400);
  long z = days + 719468, era = z / 146097, of_era = z - era * 146097;
  long year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
  long of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  long shifted = (5 * of_year + 2) / 153;
  *utc = (struct civil){.day = (int)(of_year - (153 * shifted + 2) / 5 + 1),
                        .month = (int)(shifted < 10 ? shifted + 3 : shifted - 9),
                        .hour = seconds / 3600,
                        .minute = seconds / 60 % 60,
                        .second = seconds % 60,
                        .microsecond = (int)((epoch - whole) * 1e6)};
  utc->year = (int)(year_of_era + era * 400) + (utc->month <= 2);
  return true;
}
