/* The clocks and the calendar of this machine. */
#ifndef CLOCK_H
#define CLOCK_H

#include "../core/world.h"

#include <pthread.h>
#include <stdint.h>
#include <time.h>

struct moment clock_now(void);

/* The wall clock's second. The cheapest clock there is: one load, where the system calls have a page of their own. */
static inline int64_t clock_second(void)
{
  return (int64_t)time(NULL);
}

/* Nanoseconds of a steady clock that costs next to nothing to read and moves in steps of a few milliseconds. */
uint64_t clock_coarse(void);

/* world.to_local and world.from_local by the C library's time zone data. Thread-safe. */
bool clock_to_local(double epoch, struct civil *local);
double clock_from_local(const struct civil *local);

/* Sleep; goes on after signals. Negative and NaN: not at all. */
void clock_sleep(double seconds);

/* A condition variable for clock_wait. */
void clock_init_condition(pthread_cond_t *condition);

/* Wait for a condition until the steady clock reads `until`. */
void clock_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, double until);

/* Lock a mutex that nobody holds for long. False: it is not to be had, since its holder is this very thread,
 * interrupted by a signal. */
bool clock_lock(pthread_mutex_t *mutex);

#endif
