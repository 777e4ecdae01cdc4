#define _GNU_SOURCE
#include "held_signal.h"

#include <pthread.h>
#include <time.h>

static bool is_pending(int number)
{
  sigset_t pending;
  return sigpending(&pending) == 0 && sigismember(&pending, number) == 1;
}

static sigset_t only(int number)
{
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, number);
  return set;
}

/* False: there was none. */
static bool take(int number)
{
  sigset_t set = only(number);
#ifdef __APPLE__ /* sigtimedwait is missing; a thread's own signal is there at once */
  int taken = 0;
  return sigwait(&set, &taken) == 0;
#else
  return sigtimedwait(&set, NULL, &(struct timespec){0, 0}) == number;
#endif
}

void held_signal_begin(struct held_signal *held, int number)
{
  sigset_t set = only(number);
  held->number = number;
  held->pending = is_pending(number);
  pthread_sigmask(SIG_BLOCK, &set, &held->mask);
}

void held_signal_end(const struct held_signal *held)
{
  while (!held->pending && is_pending(held->number))
    if (!take(held->number))
      break;
  pthread_sigmask(SIG_SETMASK, &held->mask, NULL);
}
