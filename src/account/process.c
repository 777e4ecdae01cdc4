#include "process.h"

#include "../http/http.h"
#include "../store/mapping.h"
#include "../system/clock.h"
#include "../system/exit.h"
#include "worker.h"

#include <dlfcn.h>
#include <pthread.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct process_watch *watched;

/* ---- the end ---- */

/* A thread that keeps the list for longer than a moment then is not waited for, and no account is settled. */
static void settle_all_accounts(void)
{
  if (!clock_lock(&mutex))
    return;
  for (struct process_watch *watch = watched; watch; watch = watch->next)
    for (struct lucidauth_account *account = NULL; (account = roster_next(watch->roster, account)) != NULL;)
      account_settle(account);
  pthread_mutex_unlock(&mutex);
}

/* ---- fork() ---- */

/* The locks in the order in which they are taken elsewhere. */
static void before_fork(void)
{
  pthread_mutex_lock(&mutex);
  for (struct process_watch *watch = watched; watch; watch = watch->next)
    roster_before_fork(watch->roster);
  for (struct process_watch *watch = watched; watch; watch = watch->next)
    roster_visit(watch->roster, account_before_fork);
  background_before_fork();
  helpers_before_fork();
  for (struct process_watch *watch = watched; watch; watch = watch->next)
    events_before_fork(&watch->roster->client->events);
  http_before_fork();
  mapping_before_fork();
}

static void after_fork(bool child)
{
  mapping_after_fork();
  http_after_fork();
  for (struct process_watch *watch = watched; watch; watch = watch->next)
    events_after_fork(&watch->roster->client->events);
  if (child)
    worker_after_fork();
  helpers_after_fork(child);
  background_after_fork(child);
  for (struct process_watch *watch = watched; watch; watch = watch->next)
    roster_visit(watch->roster, child ? account_after_fork_in_child : account_after_fork_in_parent);
  for (struct process_watch *watch = watched; watch; watch = watch->next)
    roster_after_fork(watch->roster);
  pthread_mutex_unlock(&mutex);
}

static void after_fork_in_parent(void)
{
  after_fork(false);
}

static void after_fork_in_child(void)
{
  after_fork(true);
}

/* The handlers outlive any dlclose: a Lua state may end, and another fork, while the process goes on. */
static void stay_loaded(void)
{
#if defined(RTLD_NODELETE)
  Dl_info self;
  if (dladdr((void *)&mutex, &self) && self.dli_fname)
    (void)dlopen(self.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
#endif
}

static void watch_process(void)
{
  stay_loaded();
  exit_set(settle_all_accounts);
  pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

void process_watch(struct process_watch *watch, struct roster *roster)
{
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, watch_process);
  watch->roster = roster;
  pthread_mutex_lock(&mutex);
  watch->next = watched;
  watched = watch;
  pthread_mutex_unlock(&mutex);
}

void process_forget(struct process_watch *watch)
{
  pthread_mutex_lock(&mutex);
  for (struct process_watch **place = &watched; *place; place = &(*place)->next)
    if (*place == watch) {
      *place = watch->next;
      break;
    }
  pthread_mutex_unlock(&mutex);
}
