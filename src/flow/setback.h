/* The last failure with one refresh token, and when the server may be asked again: a million calls during an
 * outage make one POST a back-off step. */
#ifndef FLOW_SETBACK_H
#define FLOW_SETBACK_H

#include "../base/code.h"
#include "../record/record.h"

#include <stdbool.h>
#include <stdint.h>

enum { SETBACK_MESSAGE = 900 };

struct setback {
  char of[RECORD_HASH]; /* hash of the refresh token it concerns; empty: there is no setback */
  enum code code;
  char message[SETBACK_MESSAGE];
  double until; /* seconds of the steady clock */
  int failures; /* in a row */
};

/* Full jitter: a random share of a step that doubles with each failure in a row, in seconds; `state` is the
 * generator's, any value will do. The smallest wait is a tenth of the step, so that bad luck makes no burst. */
double backoff(int failures, double first, double most, uint64_t *state);

/* Remember a failure. `server_wait`: the pause that the server asked for, in seconds; negative: nothing. */
void setback_remember(struct setback *setback, const char of[RECORD_HASH], enum code code, const char *message,
                      double server_wait, double now, uint64_t *random);

/* Take over another process's setback, unless there is one of this refresh token already; `until` in seconds
 * of the steady clock. */
void setback_take_over(struct setback *setback, const char of[RECORD_HASH], enum code code, const char *message,
                       double until, double now);

/* Whether a refresh of this token is to wait; `now` in seconds of the steady clock. */
bool setback_holds(const struct setback *setback, const char of[RECORD_HASH], double now);

/* Whether this refresh token is known to be dead: only a new login helps. */
bool setback_is_death(const struct setback *setback, const char of[RECORD_HASH]);

void setback_forget(struct setback *setback);

#endif
