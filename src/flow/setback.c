#include "setback.h"

#include <stdio.h>
#include <string.h>

/* Between calls, in seconds. A server that asks for more than an hour is asked again after one. */
#define STEP_FIRST 1.0
#define STEP_MOST 300.0
#define SERVER_WAIT_MOST 3600.0
#define SMALLEST_SHARE 0.1

/* splitmix64 (Steele, Lea, Flood 2014): jitter needs spread, not secrecy */
static double uniform(uint64_t *state)
{
  uint64_t z = *state += 0x9E3779B97F4A7C15u;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
  z = (z ^ z >> 27) * 0x94D049BB133111EBu;
  return (double)((z ^ z >> 31) >> 11) / 9007199254740992.0;
}

double backoff(int failures, double first, double most, uint64_t *state)
{
  double step = first;
  for (int i = 1; i < failures && step < most; i++)
    step *= 2;
  step = step < most ? step : most;
  return step * (SMALLEST_SHARE + (1 - SMALLEST_SHARE) * uniform(state));
}

void setback_remember(struct setback *setback, const char of[RECORD_HASH], enum code code, const char *message,
                      double server_wait, double now, uint64_t *random)
{
  if (strcmp(setback->of, of) != 0)
    setback->failures = 0;
  setback->failures++;
  setback->code = code;
  snprintf(setback->of, sizeof setback->of, "%s", of);
  snprintf(setback->message, sizeof setback->message, "%s", message);
  double wait = backoff(setback->failures, STEP_FIRST, STEP_MOST, random);
  if (server_wait > wait)
    wait = server_wait < SERVER_WAIT_MOST ? server_wait : SERVER_WAIT_MOST;
  setback->until = now + wait;
}

void setback_take_over(struct setback *setback, const char of[RECORD_HASH], enum code code, const char *message,
                       double until, double now)
{
  if (setback_holds(setback, of, now) || until <= now)
    return;
  setback->failures = 1;
  setback->code = code;
  setback->until = until < now + SERVER_WAIT_MOST ? until : now + SERVER_WAIT_MOST;
  snprintf(setback->of, sizeof setback->of, "%s", of);
  snprintf(setback->message, sizeof setback->message, "%s", message);
}

bool setback_holds(const struct setback *setback, const char of[RECORD_HASH], double now)
{
  return setback->of[0] && strcmp(setback->of, of) == 0 && now < setback->until;
}

bool setback_is_death(const struct setback *setback, const char of[RECORD_HASH])
{
  return setback->of[0] && strcmp(setback->of, of) == 0 &&
         (setback->code == CODE_INVALID_GRANT || setback->code == CODE_LOST_ROTATION);
}

void setback_forget(struct setback *setback)
{
  *setback = (struct setback){0};
}
