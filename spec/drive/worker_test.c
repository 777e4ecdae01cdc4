/* The thread of the background, and those who wait for it, at the moments that no sandbox can be made to meet. */
#define _GNU_SOURCE
#include "../account.h"
#include "scene.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct {
  pthread_t caller;
  atomic_bool hold_landings, let_land; /* a flight that has landed goes no further before it is told to */
} world;

static int set_up(void **state)
{
  memset(&world, 0, sizeof world);
  world.caller = pthread_self();
  return scene_set_up(state);
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

/* ---- between a landing and the next flight ---- */

char *__real_account_land(struct lucidauth_account *account, uint64_t *serial, lucidauth_error *error);
char *__wrap_account_land(struct lucidauth_account *account, uint64_t *serial, lucidauth_error *error);

char *__wrap_account_land(struct lucidauth_account *account, uint64_t *serial, lucidauth_error *error)
{
  char *token = __real_account_land(account, serial, error);
  if (!pthread_equal(pthread_self(), world.caller) && atomic_exchange(&world.hold_landings, false))
    scene_wait_for(&world.let_land);
  return token;
}

/* A refresh is boarded after the landing of the one before, and before the thread has turned away from that. */
static void board_at_the_landing(lucidauth_account *account)
{
  lucidauth_error error;
  lucidauth_ticket first = {.refresh = true}, second = {.refresh = true};
  atomic_store(&world.hold_landings, true);
  scene_assert_token(poll_for(account, &first, &error), "A1");
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
  lucidauth *client = scene_client(true);
  board_at_the_landing(lucidauth_get_account(client, NULL, NULL));
  assert_int_equal(pthread_create(&thread, NULL, answer_in_a_while, NULL), 0);
  lucidauth_close(client);
  assert_int_equal(endpoint->answered, 2);
  assert_true(scene_stored("\"A2\""));
  assert_false(scene_stored("pending"));
  assert_int_equal(pthread_join(thread, NULL), 0);
}

static void a_flight_that_follows_at_once_is_not_called_landed(void **state)
{
  (void)state;
  lucidauth *client = scene_client(true);
  board_at_the_landing(lucidauth_get_account(client, NULL, NULL));
  assert_false(lucidauth_leave(client));
  endpoint_go_on();
  lucidauth_close(client);
  assert_true(scene_stored("\"A2\""));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, scene_tear_down)

int main(void)
{
  const struct CMUnitTest tests[] = {
      TEST(a_flight_that_follows_at_once_is_waited_for_by_close),
      TEST(a_flight_that_follows_at_once_is_not_called_landed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
