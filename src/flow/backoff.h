/* The last failure with one refresh token, and when the server may be asked again: a million calls during an
 * outage make one POST a back-off step. */
#ifndef FLOW_BACKOFF_H
#define FLOW_BACKOFF_H

#include "../base/code.h"
#include "../record/record.h"

#include <stdbool.h>
#include <stdint.h>

enum { BACKOFF_MESSAGE = 900 };

struct backoff {
  char of[RECORD_HASH]; /* hash of the refresh token it concerns; empty: there was no failure */
  enum code code;
  char message[BACKOFF_MESSAGE];
  double until; /* seconds of the steady clock */
  int failures; /* in a row */
};

/* Full jitter: a random share of a step that doubles with each failure in a row, in seconds; `state` is the
 * generator's, any value will do. The smallest wait is a tenth of the step, so that bad luck makes no burst. */
double backoff_seconds(int failures, double first, double most, uint64_t *state);

/* Remember a failure. `server_wait`: the pause that the server asked for, in seconds; negative: nothing. */
void backoff_remember(struct backoff *backoff, const char of[RECORD_HASH], enum code code, const char *message,
                      double server_wait, double now, uint64_t *random);

/* Take over another process's backoff, unless there is one of this refresh token already; `until` in seconds
 * of the steady clock. */
void backoff_take_over(struct backoff *backoff, const char of[RECORD_HASH], enum code code, const char *message,
                       double until, double now);

/* Whether a refresh of this token is to wait; `now` in seconds of the steady clock. */
bool backoff_holds(const struct backoff *backoff, const char of[RECORD_HASH], double now);

/* Whether this refresh token is known to be dead: only a new login helps. */
bool backoff_is_death(const struct backoff *backoff, const char of[RECORD_HASH]);

void backoff_forget(struct backoff *backoff);

#endif
