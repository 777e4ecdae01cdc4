/* The inverse of calendar_epoch: the simulation's local time is UTC. */
#ifndef CALENDAR_OF_H
#define CALENDAR_OF_H

#include "../base/calendar.h"

bool calendar_of_epoch(double epoch, struct civil *utc);

#endif
