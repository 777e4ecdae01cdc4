/* The clocks and the calendar of this machine. */
#ifndef CLOCK_H
#define CLOCK_H

#include "../base/world.h"

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

/* A wait that counts only the time in which this process ran. A process that was stopped (SIGSTOP, a debugger, a
 * machine that slept) finds its time over when it goes on, though the others had no time at all. It then checks its
 * condition once more, and lets others run, before it gives up. Starts as {0}. */
struct patience {
  double waited; /* seconds */
  double looked; /* steady seconds: last; 0: never */
  bool woke;     /* between the last two looks the process did not run, it seems */
};

/* A waiting thread looks at least this often, in seconds. More time than this between two looks does not count. */
#define PATIENCE_PAUSE 0.25
#define PATIENCE_GAP 1.0

/* A look; `steady` is the steady clock's reading. `pause`: the thread sleeps this long between two looks on purpose. */
void patience_look(struct patience *patience, double steady, double pause);

/* Whether so many seconds have been waited. */
bool patience_ends(const struct patience *patience, double seconds);

/* When to look again at the latest, for clock_wait. */
double patience_until(const struct patience *patience, double seconds);

/* Seconds that this process ran, as far as the threads that look can tell. A thread that is about to sleep says when it
 * looks again. If no thread has looked by a second after that, the process was stopped. Starts as {0}. */
struct ran {
  double seconds;
  double looked, due; /* steady seconds: last; the next look that was announced. 0: none */
  bool late;          /* the last look came after that */
};

/* A look, now that the steady clock reads this. `within`: the next one comes in so many seconds; negative: unknown. */
double ran_look(struct ran *ran, double steady, double within);

/* Lock a mutex that is never held for long. False: it is not to be had, since its holder is this very thread,
 * interrupted by a signal. */
bool clock_lock(pthread_mutex_t *mutex);

#endif
