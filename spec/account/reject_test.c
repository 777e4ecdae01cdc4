/* A token that is rejected during a flight: it is not handed out again, however the flight ends. */
#define _GNU_SOURCE
#include "fixture.h"
#include "next_action.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

struct call {
  pthread_t thread;
  lucidauth *client;
  char *token;
  lucidauth_error error;
};

static void *ask(void *data)
{
  struct call *call = data;
  call->token = lucidauth_token(call->client, NULL, &call->error);
  return NULL;
}

/* A token that lives is due; the refresh is at the server, which then answers with this status. */
static void reject_during_the_flight(struct call *call, bool background, int status)
{
  fixture_store(100);
  endpoint_hold();
  atomic_store(&endpoint->status, status);
  lucidauth_options options = fixture_options(background);
  options.refresh_wait = ENDPOINT_PATIENCE; /* or it is handed out before it is rejected */
  *call = (struct call){.client = fixture_open(&options)};
  assert_int_equal(pthread_create(&call->thread, NULL, ask, call), 0);
  assert_true(endpoint_has_seen(1));
  (void)lucidauth_reject(call->client, NULL, "A0", NULL);
  endpoint_go_on();
  assert_int_equal(pthread_join(call->thread, NULL), 0);
}

static void assert_not_handed_out(bool background)
{
  struct call call;
  reject_during_the_flight(&call, background, 503);
  assert_null(call.token);
  assert_int_equal(call.error.code, LUCIDAUTH_SERVER_ERROR);
  assert_true(call.error.message[0] != '\0');
  lucidauth_close(call.client);
}

static void a_flight_that_fails_does_not_hand_it_out(void **state)
{
  (void)state;
  assert_not_handed_out(false);
}

static void nor_does_one_in_the_background(void **state)
{
  (void)state;
  assert_not_handed_out(true);
}

static void a_flight_that_succeeds_brings_another(void **state)
{
  (void)state;
  for (int background = 0; background < 2; background++) {
    struct call call;
    atomic_store(&endpoint->rotation, 0);
    atomic_store(&endpoint->posts, 0);
    reject_during_the_flight(&call, background, 200);
    fixture_assert_token(call.token, "A1");
    assert_int_equal(endpoint->posts, 1);
    lucidauth_close(call.client);
  }
}

static void the_header_names_it_as_well(void **state)
{
  (void)state;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  fixture_store(100);
  lucidauth *client = fixture_client(false);
  assert_false(lucidauth_reject(client, NULL, NULL, &error));
  assert_false(lucidauth_reject(client, NULL, " Bearer ", &error));
  assert_int_equal(error.code, LUCIDAUTH_CONFIG);
  assert_true(lucidauth_reject(client, NULL, "bearer A0\r\n", &error));
  fixture_assert_token(lucidauth_token(client, NULL, &error), "A1");
  lucidauth_close(client);
}

/* ---- of the program's own ---- */

static void a_flight_of_its_own_does_not_return_it(void **state)
{
  (void)state;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_options options = fixture_own_storage();
  lucidauth *client = fixture_open(&options);
  lucidauth_account *account = lucidauth_get_account(client, NULL, NULL);
  lucidauth_flight *flight = lucidauth_flight_begin(account, false, NULL, NULL);
  lucidauth_action action = next_action(flight, LUCIDAUTH_RESULT_OK, NULL);
  while (action.step != LUCIDAUTH_STEP_DONE)
    action = fixture_step(flight, &action);
  (void)lucidauth_reject(client, NULL, "A1", NULL);
  assert_null(lucidauth_flight_end(flight, NULL, &error));
  assert_int_equal(error.code, LUCIDAUTH_NOT_READY);
  assert_true(error.message[0] != '\0');
  lucidauth_close(client);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_set_up, fixture_tear_down)

int main(void)
{
  alarm(ENDPOINT_PATIENCE);
  const struct CMUnitTest tests[] = {
      TEST(a_flight_that_fails_does_not_hand_it_out), TEST(nor_does_one_in_the_background),
      TEST(a_flight_that_succeeds_brings_another),    TEST(the_header_names_it_as_well),
      TEST(a_flight_of_its_own_does_not_return_it),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
