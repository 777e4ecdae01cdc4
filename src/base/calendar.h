/* Dates of the proleptic Gregorian calendar, by arithmetic alone. */
#ifndef BASE_CALENDAR_H
#define BASE_CALENDAR_H

#include "world.h"

/* Days since 1970-01-01; month and day count from 1. */
long calendar_days(int year, int month, int day);

/* A UTC time as epoch seconds. */
double calendar_epoch(const struct civil *utc);

/* And back, to the microsecond; not before 1970. */
void calendar_civil(double epoch, struct civil *utc);

#endif
