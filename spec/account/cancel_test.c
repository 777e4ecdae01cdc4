/* Threads that are cancelled inside the library: the call that they are in goes on to its end. */
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

/* What a thread calls, and what it got. */
struct call {
  pthread_t thread;
  lucidauth *client;
  lucidauth_flight *flight;
  char *token;
};

static void *ask(void *data)
{
  struct call *call = data;
  call->token = lucidauth_token(call->client, NULL, NULL);
  pthread_testcancel();
  return NULL;
}

static void *close_client(void *data)
{
  struct call *call = data;
  lucidauth_close(call->client);
  pthread_testcancel();
  return NULL;
}

static void *end_flight(void *data)
{
  struct call *call = data;
  lucidauth_free_token(lucidauth_flight_end(call->flight, NULL, NULL));
  pthread_testcancel();
  return NULL;
}

static void *post_flight(void *data)
{
  struct call *call = data;
  lucidauth_flight_post(call->flight);
  pthread_testcancel();
  return NULL;
}

static void start(struct call *call, void *(*body)(void *), lucidauth *client)
{
  call->client = client;
  assert_int_equal(pthread_create(&call->thread, NULL, body, call), 0);
}

static void join_cancelled(const struct call *call)
{
  void *result;
  assert_int_equal(pthread_join(call->thread, &result), 0);
  assert_ptr_equal(result, PTHREAD_CANCELED);
}

static void a_refresh_goes_on(bool background)
{
  struct call call = {0};
  lucidauth *client = fixture_client(background);
  endpoint_hold();
  start(&call, ask, client);
  assert_true(endpoint_has_seen(1));
  assert_int_equal(pthread_cancel(call.thread), 0);
  endpoint_go_on();
  join_cancelled(&call);
  fixture_assert_token(call.token, "A1");
  assert_true(fixture_stored("\"R1\""));
  fixture_assert_token(lucidauth_token(client, NULL, NULL), "A1");
  assert_int_equal(endpoint->posts, 1);
  lucidauth_close(client);
}

static void a_refresh_goes_on_to_its_end(void **state)
{
  (void)state;
  a_refresh_goes_on(false);
}

static void and_so_does_a_wait_for_the_background(void **state)
{
  (void)state;
  a_refresh_goes_on(true);
}

/* Once the one waits, the other may be cancelled; that it waits already cannot be seen, and nothing depends on it. */
static void a_thread_that_waits_for_another_holds_nothing_up(void **state)
{
  (void)state;
  struct call refreshes = {0}, waits = {0};
  lucidauth *client = fixture_client(false);
  endpoint_hold();
  start(&refreshes, ask, client);
  assert_true(endpoint_has_seen(1));
  start(&waits, ask, client);
  for (int i = 0; i < 20; i++)
    endpoint_pause();
  assert_int_equal(pthread_cancel(waits.thread), 0);
  endpoint_go_on();
  join_cancelled(&waits);
  assert_int_equal(pthread_join(refreshes.thread, NULL), 0);
  fixture_assert_token(refreshes.token, "A1");
  lucidauth_free_token(waits.token);
  fixture_assert_token(lucidauth_token(client, NULL, NULL), "A1");
  lucidauth_close(client);
}

static void a_close_waits_for_the_flight_all_the_same(void **state)
{
  (void)state;
  struct call call = {0};
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_ticket ticket = {.refresh = true};
  lucidauth *client = fixture_client(true);
  endpoint_hold();
  assert_null(lucidauth_poll(lucidauth_get_account(client, NULL, NULL), &ticket, true, NULL, &error));
  assert_true(endpoint_has_seen(1));
  start(&call, close_client, client);
  assert_int_equal(pthread_cancel(call.thread), 0);
  endpoint_go_on();
  join_cancelled(&call);
  assert_true(fixture_stored("\"R1\""));
  assert_false(fixture_stored("pending"));
}

/* ---- flights in the program's own hands ---- */

static lucidauth *own_storage(void)
{
  lucidauth_options options = fixture_own_storage();
  return fixture_open(&options);
}

static lucidauth_flight *go_on_to_post(lucidauth *client)
{
  lucidauth_flight *flight = lucidauth_flight_begin(lucidauth_get_account(client, NULL, NULL), false, NULL, NULL);
  lucidauth_action action = next_action(flight, LUCIDAUTH_RESULT_OK, NULL);
  while (action.step != LUCIDAUTH_STEP_POST)
    action = fixture_step(flight, &action);
  return flight;
}

static bool is_unsaved(lucidauth *client)
{
  lucidauth_status status = LUCIDAUTH_STATUS_INIT;
  return lucidauth_get_status(client, NULL, &status, NULL) && status.unsaved;
}

static void an_answer_to_a_flight_of_its_own_is_still_heard(void **state)
{
  (void)state;
  lucidauth *client = own_storage();
  struct call call = {.flight = go_on_to_post(client)};
  endpoint_hold();
  lucidauth_flight_start_post(call.flight);
  assert_true(endpoint_has_seen(1));
  start(&call, end_flight, client);
  assert_int_equal(pthread_cancel(call.thread), 0);
  endpoint_go_on();
  join_cancelled(&call);
  assert_true(is_unsaved(client));
  lucidauth_close(client);
}

static void and_so_is_one_that_blocks(void **state)
{
  (void)state;
  lucidauth *client = own_storage();
  struct call call = {.flight = go_on_to_post(client)};
  endpoint_hold();
  start(&call, post_flight, client);
  assert_true(endpoint_has_seen(1));
  assert_int_equal(pthread_cancel(call.thread), 0);
  endpoint_go_on();
  join_cancelled(&call);
  lucidauth_action action = next_action(call.flight, LUCIDAUTH_RESULT_OK, NULL);
  assert_int_equal(action.step, LUCIDAUTH_STEP_SAVE);
  lucidauth_free_token(lucidauth_flight_end(call.flight, NULL, NULL));
  assert_true(is_unsaved(client));
  lucidauth_close(client);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_set_up, fixture_tear_down)

int main(void)
{
  alarm(1 * ENDPOINT_PATIENCE);
  const struct CMUnitTest tests[] = {
      TEST(a_refresh_goes_on_to_its_end),
      TEST(and_so_does_a_wait_for_the_background),
      TEST(a_thread_that_waits_for_another_holds_nothing_up),
      TEST(a_close_waits_for_the_flight_all_the_same),
      TEST(an_answer_to_a_flight_of_its_own_is_still_heard),
      TEST(and_so_is_one_that_blocks),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
