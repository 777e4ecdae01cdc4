/* The next action of a flight as a value, for tests that look at one after another. */
#ifndef SPEC_NEXT_ACTION_H
#define SPEC_NEXT_ACTION_H

#include "../lucidauth.h"

static inline lucidauth_action next_action(lucidauth_flight *flight, lucidauth_result result, const char *text)
{
  lucidauth_action action = LUCIDAUTH_ACTION_INIT;
  lucidauth_flight_next(flight, result, text, &action);
  return action;
}

#endif
