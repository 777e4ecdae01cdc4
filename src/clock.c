#include "clock.h"

#include <errno.h>
#include <math.h>
#include <time.h>

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

static bool same_reading(const struct tm *tm, const struct civil *local)
{
  return tm->tm_mday == local->day && tm->tm_hour == local->hour && tm->tm_min == local->minute;
}

/* mktime, told whether daylight saving is in force. An answer that reads otherwise on the clock is no answer. */
static double try_local(const struct civil *local, int daylight, bool exact)
{
  struct tm tm = {.tm_year = local->year - 1900,
                  .tm_mon = local->month - 1,
                  .tm_mday = local->day,
                  .tm_hour = local->hour,
                  .tm_min = local->minute,
                  .tm_sec = local->second,
                  .tm_isdst = daylight};
  time_t seconds = mktime(&tm);
  if (seconds == (time_t)-1 || (exact && !same_reading(&tm, local)))
    return NAN;
  return (double)seconds + local->microsecond / 1e6;
}

double clock_from_local(const struct civil *local)
{
  double found = fmin(try_local(local, 1, true), try_local(local, 0, true));
  /* a reading that the clock skipped: count on from the time before the step */
  return isnan(found) ? try_local(local, 0, false) : found;
}

void clock_sleep(double seconds)
{
  if (!(seconds > 0))
    return;
  struct timespec left = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - floor(seconds)) * 1e9)};
  while (nanosleep(&left, &left) != 0 && errno == EINTR)
    continue;
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
