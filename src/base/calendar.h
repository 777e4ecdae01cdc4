/* Dates of the proleptic Gregorian calendar, by arithmetic alone. */
#ifndef BASE_CALENDAR_H
#define BASE_CALENDAR_H

#include "world.h"

#include <stdbool.h>

/* Servers and files have dates as epoch seconds or milliseconds. No date is before the first of these, or reaches the
 * second. */
#define CALENDAR_EARLIEST 1e9
#define CALENDAR_LATEST 1e14

/* Whether a number may be such a date; a lifetime in seconds is smaller. */
bool calendar_is_date(double number);

/* Such a date in seconds. */
double calendar_seconds(double date);

/* Days since 1970-01-01; month and day count from 1. */
long calendar_days(int year, int month, int day);

/* How many days the month has; months count from 1. */
long calendar_month_length(int year, int month);

/* A UTC time as epoch seconds. */
double calendar_epoch(const struct civil *utc);

/* And back, to the microsecond; not before 1970. */
void calendar_civil(double epoch, struct civil *utc);

#endif
