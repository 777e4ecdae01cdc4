#include "clock.h"

#include "../base/calendar.h"

#include <errno.h>
#include <math.h>
#include <time.h>

enum { LOCK_TRIES = 200 };

static double read_clock(clockid_t clock)
{
  struct timespec time;
  clock_gettime(clock, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

struct moment clock_now(void)
{
  return (struct moment){.wall = read_clock(CLOCK_REALTIME), .steady = read_clock(CLOCK_MONOTONIC)};
}

uint64_t clock_coarse(void)
{
  struct timespec time;
#if defined(CLOCK_MONOTONIC_COARSE)
  clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
#else
  clock_gettime(CLOCK_MONOTONIC, &time);
#endif
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

bool clock_to_local(double epoch, struct civil *local)
{
  struct tm tm;
  if (!(fabs(epoch) < 1e11))
    return false;
  double micros = floor(epoch * 1e6 + 0.5), whole = floor(micros / 1e6);
  time_t seconds = (time_t)whole;
  if (!localtime_r(&seconds, &tm) || tm.tm_year + 1900 > 9999)
    return false;
  *local = (struct civil){.year = tm.tm_year + 1900,
                          .month = tm.tm_mon + 1,
                          .day = tm.tm_mday,
                          .hour = tm.tm_hour,
                          .minute = tm.tm_min,
                          .second = tm.tm_sec,
                          .microsecond = (int)(micros - whole * 1e6)};
  return true;
}

/* Seconds that local clocks are ahead of UTC at a moment. */
static double offset_at(double epoch)
{
  struct civil local;
  return clock_to_local(floor(epoch), &local) ? calendar_epoch(&local) - floor(epoch) : NAN;
}

double clock_from_local(const struct civil *local)
{
  const double day = 86400;
  double reading = calendar_epoch(local);
  double before = reading - offset_at(reading - day), after = reading - offset_at(reading + day);
  double first = fmin(before, after), second = fmax(before, after);
  if (first + offset_at(first) == reading)
    return first;
  /* a reading that the clock skipped: count on from the time before the step */
  return second + offset_at(second) == reading ? second : before;
}

void clock_sleep(double seconds)
{
  if (!(seconds > 0))
    return;
  struct timespec left = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - floor(seconds)) * 1e9)};
  while (nanosleep(&left, &left) != 0 && errno == EINTR)
    continue;
}

void patience_look(struct patience *patience, double steady, double pause)
{
  double gap = patience->looked > 0 ? fmax(0, steady - patience->looked) : 0;
  /* a machine that is always that slow comes to an end, too */
  patience->woke = gap > PATIENCE_GAP && !patience->woke;
  patience->waited += fmin(gap, PATIENCE_GAP + pause);
  patience->looked = steady;
}

bool patience_ends(const struct patience *patience, double seconds)
{
  return patience->waited >= seconds && !patience->woke;
}

double patience_until(const struct patience *patience, double seconds)
{
  double left = seconds - patience->waited;
  return patience->looked + (left > 0 ? fmin(left, PATIENCE_PAUSE) : PATIENCE_PAUSE);
}

double ran_look(struct ran *ran, double steady, double within)
{
  double gap = ran->looked > 0 ? fmax(0, steady - ran->looked) : 0;
  bool late = ran->due > 0 && steady - ran->due > PATIENCE_GAP;
  /* a machine that is always that slow comes to an end, too */
  if (late)
    gap = ran->due - ran->looked + (ran->late ? PATIENCE_GAP : 0);
  ran->seconds += gap;
  ran->late = late;
  ran->looked = steady;
  if (ran->due <= steady)
    ran->due = 0;
  if (within >= 0)
    ran->due = ran->due > 0 ? fmin(ran->due, steady + within) : steady + within;
  return ran->seconds;
}

bool clock_lock(pthread_mutex_t *mutex)
{
  for (int i = 0; i < LOCK_TRIES; i++) {
    if (pthread_mutex_trylock(mutex) == 0)
      return true;
    clock_sleep(0.001);
  }
  return false;
}

void clock_init_condition(pthread_cond_t *condition)
{
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
#if !defined(__APPLE__)
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
#endif
  pthread_cond_init(condition, &attributes);
  pthread_condattr_destroy(&attributes);
}

void clock_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, double until)
{
#if defined(__APPLE__)
  struct moment now = clock_now();
  until += now.wall - now.steady;
#endif
  struct timespec time = {.tv_sec = (time_t)until, .tv_nsec = (long)((until - floor(until)) * 1e9)};
  pthread_cond_timedwait(condition, mutex, &time);
}
