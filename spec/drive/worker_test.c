/* The thread of the background, and those who wait for it, at the moments that no sandbox can be made to meet. */
#define _GNU_SOURCE
#include "../account.h"
#include "../lucidauth.h"
#include "endpoint.h"

#include <dirent.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct {
  char folder[64], path[80];
  pthread_t caller;
  atomic_bool hold_landings, let_land; /* a flight that has landed goes no further before it is told to */
} world;

static lucidauth_options options(void)
{
  lucidauth_options chosen = LUCIDAUTH_OPTIONS_INIT;
  chosen.client_id = chosen.client_secret = "x";
  chosen.refresh_token = "R0";
  chosen.api_url = "http://127.0.0.1:1";
  chosen.path = world.path;
  chosen.background = true;
  return chosen;
}

static lucidauth *client_with(const lucidauth_options *chosen)
{
  lucidauth_error error;
  lucidauth *client = lucidauth_new(chosen, &error);
  if (!client)
    fail_msg("%s", error.message);
  return client;
}

static lucidauth *new_client(void)
{
  lucidauth_options chosen = options();
  return client_with(&chosen);
}

static int set_up(void **state)
{
  (void)state;
  memset(&world, 0, sizeof world);
  world.caller = pthread_self();
  snprintf(world.folder, sizeof world.folder, "/tmp/lucidauth-worker-XXXXXX");
  if (!mkdtemp(world.folder))
    return -1;
  snprintf(world.path, sizeof world.path, "%s/token.json", world.folder);
  endpoint_start();
  return 0;
}

static int tear_down(void **state)
{
  char command[96];
  (void)state;
  endpoint_stop();
  snprintf(command, sizeof command, "rm -r '%s'", world.folder);
  return system(command);
}

static bool wait_for(atomic_bool *flag)
{
  double deadline = endpoint_now() + ENDPOINT_PATIENCE;
  while (!atomic_load(flag) && endpoint_now() < deadline)
    endpoint_pause();
  return atomic_load(flag);
}

static bool record_holds(const char *text)
{
  char record[4096] = "";
  FILE *file = fopen(world.path, "r");
  if (!file)
    return false;
  record[fread(record, 1, sizeof record - 1, file)] = '\0';
  fclose(file);
  return strstr(record, text) != NULL;
}

/* Ask until there is an answer. */
static char *poll_for(lucidauth_account *account, lucidauth_ticket *ticket, lucidauth_error *error)
{
  double deadline = endpoint_now() + ENDPOINT_PATIENCE;
  char *token = lucidauth_poll(account, ticket, true, NULL, error);
  while (!token && error->code == LUCIDAUTH_NOT_READY && endpoint_now() < deadline) {
    endpoint_pause();
    token = lucidauth_poll(account, ticket, true, NULL, error);
  }
  return token;
}

static void assert_token(char *token, const char *expected)
{
  assert_non_null(token);
  assert_string_equal(token, expected);
  lucidauth_free_token(token);
}

/* ---- between a landing and the next flight ---- */

char *__real_account_land(struct lucidauth_account *account, uint64_t *serial, lucidauth_error *error);
char *__wrap_account_land(struct lucidauth_account *account, uint64_t *serial, lucidauth_error *error);

char *__wrap_account_land(struct lucidauth_account *account, uint64_t *serial, lucidauth_error *error)
{
  char *token = __real_account_land(account, serial, error);
  if (!pthread_equal(pthread_self(), world.caller) && atomic_exchange(&world.hold_landings, false))
    wait_for(&world.let_land);
  return token;
}

/* A refresh is boarded after the landing of the one before, and before the thread has turned away from that. */
static void board_at_the_landing(lucidauth_account *account)
{
  lucidauth_error error;
  lucidauth_ticket first = {.refresh = true}, second = {.refresh = true};
  atomic_store(&world.hold_landings, true);
  assert_token(poll_for(account, &first, &error), "A1");
  endpoint_hold();
  assert_null(lucidauth_poll(account, &second, true, NULL, &error));
  assert_int_equal(error.code, LUCIDAUTH_NOT_READY);
  atomic_store(&world.let_land, true);
  assert_true(endpoint_has_seen(2));
}

static void *answer_in_a_while(void *unused)
{
  (void)unused;
  for (int i = 0; i < 50; i++)
    endpoint_pause();
  endpoint_go_on();
  return NULL;
}

static void a_flight_that_follows_at_once_is_waited_for_by_close(void **state)
{
  (void)state;
  pthread_t thread;
  lucidauth *client = new_client();
  board_at_the_landing(lucidauth_get_account(client, NULL, NULL));
  assert_int_equal(pthread_create(&thread, NULL, answer_in_a_while, NULL), 0);
  lucidauth_close(client);
  assert_int_equal(endpoint->answered, 2);
  assert_true(record_holds("\"A2\""));
  assert_false(record_holds("pending"));
  assert_int_equal(pthread_join(thread, NULL), 0);
}

static void a_flight_that_follows_at_once_is_not_called_landed(void **state)
{
  (void)state;
  lucidauth *client = new_client();
  board_at_the_landing(lucidauth_get_account(client, NULL, NULL));
  assert_false(lucidauth_leave(client));
  endpoint_go_on();
  lucidauth_close(client);
  assert_true(record_holds("\"A2\""));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
  const struct CMUnitTest tests[] = {
      TEST(a_flight_that_follows_at_once_is_waited_for_by_close),
      TEST(a_flight_that_follows_at_once_is_not_called_landed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
