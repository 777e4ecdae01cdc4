#define _GNU_SOURCE
#include "thread.h"

#include "held_signal.h"

#include <signal.h>
#include <stddef.h>
#include <sys/resource.h>

/* musl's own is 128 KiB; an answer that is nested a thousand levels deep takes more to read. */
enum { STACK = 1024 * 1024 };

bool thread_start(pthread_t *thread, void *(*body)(void *), bool joined)
{
  sigset_t blocked, before;
  pthread_attr_t attributes;
  sigfillset(&blocked);
  for (int number = 1; number < NSIG; number++)
    if (held_signal_is_of_a_fault(number))
      sigdelset(&blocked, number);
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, STACK);
  pthread_attr_setdetachstate(&attributes, joined ? PTHREAD_CREATE_JOINABLE : PTHREAD_CREATE_DETACHED);
  pthread_sigmask(SIG_SETMASK, &blocked, &before);
  bool created = pthread_create(thread, &attributes, body, NULL) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  return created;
}

bool thread_is_forbidden(void)
{
  struct rlimit limit;
  return getrlimit(RLIMIT_NPROC, &limit) == 0 && limit.rlim_cur == 0;
}
