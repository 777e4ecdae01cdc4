/* fork() while other threads make and drop the pages of accounts. */
#define _GNU_SOURCE
#include "../../src/lucidauth.h"
#include "scratch.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { THREADS = 3, ACCOUNTS = 50, FORKS = 500, PATIENCE = 20 };

static atomic_bool done;

static lucidauth *open_client(const struct scratch *scratch)
{
  lucidauth_error error;
  lucidauth_options options = LUCIDAUTH_OPTIONS_INIT;
  options.storage = LUCIDAUTH_DIRECTORY;
  options.path = scratch->folder;
  return lucidauth_new(&options, &error);
}

static void use_accounts(const struct scratch *scratch, int count)
{
  lucidauth_error error;
  lucidauth *client = open_client(scratch);
  for (int i = 0; i < count; i++) {
    char account[16];
    snprintf(account, sizeof account, "a%d", i);
    EXPECT(lucidauth_get_account(client, account, &error) != NULL);
  }
  lucidauth_close(client);
}

static void *come_and_go(void *scratch)
{
  while (!atomic_load(&done))
    use_accounts(scratch, ACCOUNTS);
  return NULL;
}

/* A child that waits for a lock which no thread of its own will ever give back is ended by its alarm. */
static void use_an_account(const struct scratch *scratch)
{
  alarm(PATIENCE);
  use_accounts(scratch, 1);
}

static void a_child_is_not_locked_out_of_its_pages(void **state)
{
  pthread_t threads[THREADS];
  int status = 0;
  for (int i = 0; i < THREADS; i++)
    assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, *state), 0);
  for (int i = 0; i < FORKS && status == 0; i++)
    status = run_child(use_an_account, *state);
  atomic_store(&done, true);
  for (int i = 0; i < THREADS; i++)
    pthread_join(threads[i], NULL);
  assert_int_equal(status, 0);
}

#define SPEC(name) cmocka_unit_test_setup_teardown(name, scratch_make, scratch_remove)

int main(void)
{
  const struct CMUnitTest tests[] = {
      SPEC(a_child_is_not_locked_out_of_its_pages),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
