#include "backoff.h"

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

double backoff_seconds(int failures, double first, double most, uint64_t *state)
{
  double step = first;
  for (int i = 1; i < failures && step < most; i++)
    step *= 2;
  step = step < most ? step : most;
  return step * (SMALLEST_SHARE + (1 - SMALLEST_SHARE) * uniform(state));
}

void backoff_remember(struct backoff *backoff, const char of[RECORD_HASH], enum code code, const char *message,
                      double server_wait, double now, uint64_t *random)
{
  if (strcmp(backoff->of, of) != 0)
    backoff->failures = 0;
  backoff->failures++;
  backoff->code = code;
  snprintf(backoff->of, sizeof backoff->of, "%s", of);
  snprintf(backoff->message, sizeof backoff->message, "%s", message);
  double wait = backoff_seconds(backoff->failures, STEP_FIRST, STEP_MOST, random);
  if (server_wait > wait)
    wait = server_wait < SERVER_WAIT_MOST ? server_wait : SERVER_WAIT_MOST;
  backoff->until = now + wait;
}

void backoff_take_over(struct backoff *backoff, const char of[RECORD_HASH], enum code code, const char *message,
                       double until, double now)
{
  if (backoff_holds(backoff, of, now) || until <= now)
    return;
  backoff->failures = 1;
  backoff->code = code;
  backoff->until = until < now + SERVER_WAIT_MOST ? until : now + SERVER_WAIT_MOST;
  snprintf(backoff->of, sizeof backoff->of, "%s", of);
  snprintf(backoff->message, sizeof backoff->message, "%s", message);
}

bool backoff_holds(const struct backoff *backoff, const char of[RECORD_HASH], double now)
{
  return backoff->of[0] && strcmp(backoff->of, of) == 0 && now < backoff->until;
}

bool backoff_is_death(const struct backoff *backoff, const char of[RECORD_HASH])
{
  return backoff->of[0] && strcmp(backoff->of, of) == 0 &&
         (backoff->code == CODE_INVALID_GRANT || backoff->code == CODE_LOST_ROTATION);
}

void backoff_forget(struct backoff *backoff)
{
  *backoff = (struct backoff){0};
}
