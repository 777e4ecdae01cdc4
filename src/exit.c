#include "exit.h"

#include "account.h"
#include "fork.h"

#include <pthread.h>
#include <stdlib.h>

static void settle_all(void)
{
  fork_visit_accounts(account_settle);
}

static void watch(void)
{
  (void)atexit(settle_all);
}

void exit_watch(void)
{
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, watch);
}
