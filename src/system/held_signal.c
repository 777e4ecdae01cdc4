#define _GNU_SOURCE
#include "held_signal.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

/* Seconds: a signal sent again after this long is meant. */
#define INSISTS_AFTER 1.0

static sigset_t only(int number)
{
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, number);
  return set;
}

static int last_signal(void)
{
#if defined(SIGRTMAX)
  return SIGRTMAX;
#else
  return NSIG - 1;
#endif
}

/* The number of one that is on its way, which it then is no more; 0: none is. */
static int take_pending(const sigset_t *set)
{
#ifdef __APPLE__
  /* sigtimedwait is missing; a signal that is pending for every thread that could take it is there at once */
  sigset_t pending;
  sigpending(&pending);
  for (int number = 1; number <= last_signal(); number++) {
    sigset_t one = only(number);
    int taken = 0;
    if (sigismember(set, number) == 1 && sigismember(&pending, number) == 1 && sigwait(&one, &taken) == 0)
      return taken;
  }
  return 0;
#else
  int number;
  do
    number = sigtimedwait(set, NULL, &(struct timespec){0, 0});
  while (number < 0 && errno == EINTR);
  return number > 0 ? number : 0;
#endif
}

static void block_held(struct held_signal *held)
{
  sigemptyset(&held->came);
  held->first = 0;
  held->holding = true;
  pthread_sigmask(SIG_BLOCK, &held->held, &held->mask);
}

/* ---- one of no use ---- */

static bool is_pending(int number)
{
  sigset_t pending;
  return sigpending(&pending) == 0 && sigismember(&pending, number) == 1;
}

void held_signal_begin(struct held_signal *held, int number)
{
  sigset_t set = only(number);
  held->held = set;
  block_held(held);
  if (is_pending(number))
    sigemptyset(&held->held);
}

void held_signal_end(const struct held_signal *held)
{
  while (take_pending(&held->held))
    continue;
  pthread_sigmask(SIG_SETMASK, &held->mask, NULL);
}

/* ---- those that would end the process ---- */

bool held_signal_is_of_a_fault(int number)
{
  return number == SIGSEGV || number == SIGBUS || number == SIGFPE || number == SIGILL || number == SIGTRAP ||
         number == SIGSYS || number == SIGABRT;
}

/* The signal's default action in a process that has set none. */
static bool ends_by_default(int number)
{
  static const int others[] = {SIGCHLD, SIGCONT, SIGURG,  SIGWINCH, SIGTSTP,
#ifdef __APPLE__
                               SIGINFO, SIGIO,
#endif
                               SIGTTIN, SIGTTOU, SIGKILL, SIGSTOP};
  for (size_t i = 0; i < sizeof others / sizeof *others; i++)
    if (number == others[i])
      return false;
  return true;
}

static bool is_left_to_the_system(int number)
{
  struct sigaction action;
  return sigaction(number, NULL, &action) == 0 && !(action.sa_flags & SA_SIGINFO) && action.sa_handler == SIG_DFL;
}

void held_signals_begin(struct held_signal *held)
{
  sigset_t blocked;
  if (held->holding)
    return;
  pthread_sigmask(SIG_BLOCK, NULL, &blocked);
  sigemptyset(&held->held);
  for (int number = 1; number <= last_signal(); number++)
    if (!held_signal_is_of_a_fault(number) && ends_by_default(number) && sigismember(&blocked, number) == 0 &&
        is_left_to_the_system(number))
      sigaddset(&held->held, number);
  block_held(held);
}

/* Should the process live on, the program handles it by now. */
static void obey(int number)
{
  sigset_t set = only(number);
  raise(number);
  pthread_sigmask(SIG_UNBLOCK, &set, NULL);
  pthread_sigmask(SIG_BLOCK, &set, NULL);
}

void held_signals_look(struct held_signal *held, double steady)
{
  int number;
  while (held->holding && (number = take_pending(&held->held)) != 0) {
    if (held->first > 0 && steady - held->first >= INSISTS_AFTER) {
      obey(number);
      continue;
    }
    sigaddset(&held->came, number);
    if (!(held->first > 0))
      held->first = steady;
  }
}

void held_signals_let_go(struct held_signal *held)
{
  int number;
  if (!held->holding)
    return;
  while ((number = take_pending(&held->held)) != 0)
    sigaddset(&held->came, number);
  held->holding = false;
  pthread_sigmask(SIG_SETMASK, &held->mask, NULL);
}

void held_signals_pass_on(struct held_signal *held)
{
  held_signals_let_go(held);
  for (int number = 1; number <= last_signal(); number++)
    if (sigismember(&held->came, number) == 1)
      raise(number);
  sigemptyset(&held->came);
}
