/* What a login gave is stored: by a caller that waits, by the background, and by flights in the program's own hands. */
#define _GNU_SOURCE
#include "../lucidauth.h"
#include "fixture.h"
#include "next_action.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define ANSWER(number) \
  "{\"access_token\":\"B" number "\",\"refresh_token\":\"S" number "\",\"expires_in\":3600,\"token_type\":\"bearer\"}"

static const char first[] = ANSWER("1"), second[] = ANSWER("2");

static bool store(lucidauth *client, const char *answer, unsigned flags, lucidauth_error *error)
{
  return lucidauth_store(client, NULL, answer, strlen(answer), flags, error);
}

/* ---- by a caller that waits ---- */

static void an_answer_starts_what_is_empty_and_replaces_what_lives_when_told(bool background)
{
  lucidauth_error error = {.code = LUCIDAUTH_CONFIG};
  lucidauth *client = fixture_client(background);
  assert_true(store(client, first, 0, &error));
  assert_int_equal(error.code, LUCIDAUTH_OK);
  fixture_assert_token(lucidauth_token(client, NULL, NULL), "B1");
  assert_true(fixture_stored("\"S1\""));
  assert_true(store(client, first, 0, &error));
  assert_false(store(client, second, 0, &error));
  assert_int_equal(error.code, LUCIDAUTH_CONFIG);
  assert_non_null(strstr(error.message, "LUCIDAUTH_REPLACE"));
  assert_true(fixture_stored("\"S1\""));
  assert_true(store(client, second, LUCIDAUTH_REPLACE, NULL));
  fixture_assert_token(lucidauth_token(client, "", NULL), "B2");
  assert_int_equal(endpoint->posts, 0);
  assert_int_equal(endpoint->asked, 0);
  lucidauth_close(client);
}

static void on_this_thread_it_starts_and_replaces(void **state)
{
  (void)state;
  an_answer_starts_what_is_empty_and_replaces_what_lives_when_told(false);
}

static void in_the_background_it_starts_and_replaces(void **state)
{
  (void)state;
  an_answer_starts_what_is_empty_and_replaces_what_lives_when_told(true);
}

/* "R0" was rotated away elsewhere: introspection says so, and nothing is spent. */
static void a_dead_grant_is_replaced_as_it_is(void **state)
{
  (void)state;
  for (int background = 0; background < 2; background++) {
    fixture_store(-10);
    atomic_store(&endpoint->rotation, 7);
    lucidauth *client = fixture_client(background);
    assert_true(store(client, first, 0, NULL));
    fixture_assert_token(lucidauth_token(client, NULL, NULL), "B1");
    assert_int_equal(endpoint->posts, 0);
    assert_int_equal(endpoint->asked, 1 + background);
    lucidauth_close(client);
  }
}

static void a_spent_refresh_token_is_refused(void **state)
{
  (void)state;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth *client = fixture_client(false);
  fixture_assert_token(lucidauth_token(client, NULL, NULL), "A1");
  assert_false(store(client, "R0", LUCIDAUTH_REPLACE, &error));
  assert_int_equal(error.code, LUCIDAUTH_INVALID_GRANT);
  fixture_assert_token(lucidauth_refresh(client, NULL, NULL), "A2");
  lucidauth_close(client);
}

static void nothing_is_no_answer(void **state)
{
  (void)state;
  static const struct {
    const char *text;
    size_t length;
  } nothing[] = {{NULL, 0}, {NULL, 7}, {"", 0}, {"S1", 0}, {" \r\n", 3}, {"\0S1", 3}, {"S1\0", 3}};
  for (int background = 0; background < 2; background++) {
    lucidauth *client = fixture_client(background);
    lucidauth_account *account = lucidauth_get_account(client, NULL, NULL);
    for (size_t i = 0; i < sizeof nothing / sizeof *nothing; i++) {
      lucidauth_error error = LUCIDAUTH_ERROR_INIT;
      lucidauth_ticket ticket = LUCIDAUTH_TICKET_INIT;
      assert_false(lucidauth_store(client, "", nothing[i].text, nothing[i].length, 0, &error));
      assert_int_equal(error.code, LUCIDAUTH_CONFIG);
      assert_false(lucidauth_store(client, NULL, nothing[i].text, nothing[i].length, 0, NULL));
      assert_false(lucidauth_poll_store(account, &ticket, nothing[i].text, nothing[i].length, 0, &error));
      assert_int_equal(error.code, LUCIDAUTH_CONFIG);
      assert_false(lucidauth_poll_store(account, &ticket, nothing[i].text, nothing[i].length, 0, NULL));
    }
    assert_false(lucidauth_store(client, "anna", first, sizeof first - 1, 0, NULL)); /* the file holds one account */
    assert_false(fixture_stored(""));
    lucidauth_close(client);
  }
}

static void an_answer_ends_where_its_length_says(void **state)
{
  (void)state;
  lucidauth *client = fixture_client(false);
  assert_true(lucidauth_store(client, NULL, "S1 and more", 2, 0, NULL));
  assert_true(fixture_stored("\"S1\""));
  lucidauth_close(client);
}

/* ---- in the background ---- */

static bool poll_once(lucidauth_account *account, lucidauth_ticket *ticket, const char *answer, lucidauth_error *error)
{
  return lucidauth_poll_store(account, ticket, answer, strlen(answer), 0, error);
}

/* Ask until it is over. */
static bool poll_for(lucidauth_account *account, lucidauth_ticket *ticket, const char *answer, lucidauth_error *error)
{
  double deadline = endpoint_now() + ENDPOINT_PATIENCE;
  bool stored = poll_once(account, ticket, answer, error);
  while (!stored && error->code == LUCIDAUTH_NOT_READY && ticket->within > 0 && endpoint_now() < deadline) {
    endpoint_pause();
    stored = poll_once(account, ticket, answer, error);
  }
  return stored;
}

/* A refresh is at the server, which does not answer. */
static lucidauth *client_in_a_refresh(double timeout, lucidauth_account **account)
{
  lucidauth_ticket ticket = {.refresh = true};
  lucidauth_options chosen = fixture_options(true);
  chosen.timeout = timeout;
  fixture_store(-1);
  endpoint_hold();
  lucidauth *client = fixture_open(&chosen);
  *account = lucidauth_get_account(client, NULL, NULL);
  assert_null(lucidauth_poll(*account, &ticket, true, NULL, NULL));
  assert_true(endpoint_has_seen(1));
  return client;
}

static void polling_waits_for_no_refresh(void **state)
{
  (void)state;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_ticket ticket = LUCIDAUTH_TICKET_INIT;
  lucidauth_account *account;
  lucidauth *client = client_in_a_refresh(ENDPOINT_PATIENCE, &account);
  assert_false(poll_once(account, &ticket, first, &error));
  assert_int_equal(error.code, LUCIDAUTH_NOT_READY);
  assert_non_null(strstr(error.message, "not stored yet"));
  assert_true(ticket.within > 0);
  assert_int_equal(endpoint->answered, 0);
  endpoint_go_on();
  assert_false(poll_for(account, &ticket, first, &error)); /* the refresh has brought a grant that lives */
  assert_int_equal(error.code, LUCIDAUTH_CONFIG);
  fixture_assert_token(lucidauth_token(client, NULL, NULL), "A1");
  lucidauth_close(client);
}

static void nor_for_it_without_an_end(void **state)
{
  (void)state;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_ticket ticket = LUCIDAUTH_TICKET_INIT;
  lucidauth_account *account;
  lucidauth *client = client_in_a_refresh(0.2, &account);
  assert_false(poll_for(account, &ticket, first, &error));
  assert_int_equal(error.code, LUCIDAUTH_TIMEOUT);
  assert_int_equal(endpoint->answered, 0);
  assert_false(lucidauth_store(client, NULL, first, sizeof first - 1, 0, &error));
  assert_int_equal(error.code, LUCIDAUTH_TIMEOUT);
  endpoint_go_on();
  lucidauth_close(client);
  assert_true(fixture_stored("\"R1\""));
}

/* The first caller does not come back with its ticket. */
static void who_comes_again_hears_once_what_came_of_it(void **state)
{
  (void)state;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_ticket lost = LUCIDAUTH_TICKET_INIT, another = LUCIDAUTH_TICKET_INIT, last = LUCIDAUTH_TICKET_INIT,
                   other = LUCIDAUTH_TICKET_INIT;
  lucidauth *client = fixture_client(true);
  lucidauth_account *account = lucidauth_get_account(client, NULL, NULL);
  assert_false(poll_once(account, &lost, first, &error));
  assert_non_null(strstr(error.message, "being stored"));
  assert_true(poll_for(account, &another, first, &error));
  assert_true(poll_for(account, &lost, first, &error)); /* it does after all */
  assert_false(poll_for(account, &other, second, &error));
  assert_int_equal(error.code, LUCIDAUTH_CONFIG);
  assert_false(poll_once(account, &last, first, &error)); /* from here on it is stored once more */
  assert_int_equal(error.code, LUCIDAUTH_NOT_READY);
  assert_true(poll_for(account, &last, first, &error));
  lucidauth_close(client);
}

/* Each ticket hears of its own answer, though others were stored since. */
static void tickets_are_not_mixed_up(void **state)
{
  (void)state;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_ticket one = LUCIDAUTH_TICKET_INIT, two = LUCIDAUTH_TICKET_INIT, three = LUCIDAUTH_TICKET_INIT;
  lucidauth *client = fixture_client(true);
  lucidauth_account *account = lucidauth_get_account(client, NULL, NULL);
  assert_false(poll_once(account, &one, first, &error));
  assert_false(poll_for(account, &two, second, &error));
  assert_int_equal(error.code, LUCIDAUTH_CONFIG);
  assert_false(poll_for(account, &three, "S3", &error));
  assert_true(poll_for(account, &one, first, &error));
  lucidauth_close(client);
}

static void a_client_that_is_closed_meanwhile_has_stored_it(void **state)
{
  (void)state;
  lucidauth_ticket ticket = LUCIDAUTH_TICKET_INIT;
  lucidauth *client = fixture_client(true);
  assert_false(poll_once(lucidauth_get_account(client, NULL, NULL), &ticket, first, NULL));
  lucidauth_close(client);
  assert_true(fixture_stored("\"S1\""));
}

/* Some of its forks come while the thread is at work; whatever it was at, the child comes to an end. */
static int store_in_child(lucidauth *client, lucidauth_account *account, lucidauth_ticket *ticket)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  alarm(ENDPOINT_PATIENCE);
  char *token = lucidauth_token(client, NULL, &error);
  lucidauth_free_token(token);
  (void)poll_for(account, ticket, first, &error);
  lucidauth_ticket anew = LUCIDAUTH_TICKET_INIT;
  return poll_for(account, &anew, first, &error) ? 0 : 1;
}

static void a_child_of_a_fork_does_not_wait_for_its_parents(void **state)
{
  (void)state;
  for (int i = 0; i < 5; i++) {
    lucidauth_error error = LUCIDAUTH_ERROR_INIT;
    lucidauth_ticket ticket = LUCIDAUTH_TICKET_INIT;
    lucidauth_options options = fixture_options(true);
    options.refresh_token = ""; /* the child's token() starts no grant of its own */
    lucidauth *client = fixture_open(&options);
    lucidauth_account *account = lucidauth_get_account(client, NULL, NULL);
    (void)poll_once(account, &ticket, first, &error);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
      _exit(store_in_child(client, account, &ticket));
    assert_true(poll_for(account, &ticket, first, &error));
    assert_int_equal(fixture_status(child), 0);
    lucidauth_close(client);
  }
}

static void only_the_background_is_polled(void **state)
{
  (void)state;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_ticket ticket = LUCIDAUTH_TICKET_INIT;
  lucidauth *client = fixture_client(false);
  assert_false(poll_once(lucidauth_get_account(client, NULL, NULL), &ticket, first, &error));
  assert_int_equal(error.code, LUCIDAUTH_CONFIG);
  assert_true(ticket.within == 0);
  lucidauth_close(client);
}

/* ---- in the program's own hands ---- */

static struct {
  lucidauth *client;
  lucidauth_account *account;
  bool locked;
} own;

static void open_own_storage(void)
{
  lucidauth_options chosen = fixture_own_storage();
  own.client = fixture_open(&chosen);
  own.account = lucidauth_get_account(own.client, NULL, NULL);
  own.locked = false;
}

static lucidauth_flight *fly(const char *answer, unsigned flags)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_flight *flight = lucidauth_flight_store(own.account, answer, strlen(answer), flags, &error);
  if (!flight)
    fail_msg("%s", error.message);
  assert_int_equal(error.code, LUCIDAUTH_OK);
  return flight;
}

static lucidauth_action first_step(lucidauth_flight *flight)
{
  return next_action(flight, LUCIDAUTH_RESULT_OK, NULL);
}

static lucidauth_action do_step(lucidauth_flight *flight, const lucidauth_action *action)
{
  if (action->step == LUCIDAUTH_STEP_LOCK || action->step == LUCIDAUTH_STEP_UNLOCK)
    own.locked = action->step == LUCIDAUTH_STEP_LOCK;
  return fixture_step(flight, action);
}

/* Carry it out; the step before which `skips` others were done fails. Whether it came to that. */
static bool carry_out(lucidauth_flight *flight, int skips)
{
  bool failed = false;
  lucidauth_action action = first_step(flight);
  while (action.step != LUCIDAUTH_STEP_DONE) {
    bool fails = skips-- == 0 && action.step != LUCIDAUTH_STEP_WAIT && action.step != LUCIDAUTH_STEP_UNLOCK;
    failed = failed || fails;
    action = fails ? next_action(flight, LUCIDAUTH_RESULT_FAILED, "the storage is broken.") : do_step(flight, &action);
  }
  return failed;
}

static lucidauth_code end(lucidauth_flight *flight, char message[900])
{
  lucidauth_error error = {.code = LUCIDAUTH_CONFIG};
  lucidauth_free_token(lucidauth_flight_end(flight, NULL, &error));
  memcpy(message, error.message, sizeof error.message);
  return error.code;
}

static void assert_own_token(const char *expected)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  char *token = NULL;
  lucidauth_flight *flight = lucidauth_flight_begin(own.account, false, &token, &error);
  if (flight) {
    carry_out(flight, -1);
    token = lucidauth_flight_end(flight, NULL, NULL);
  }
  fixture_assert_token(token, expected);
}

static void a_flight_stores(void **state)
{
  (void)state;
  char message[900];
  open_own_storage();
  lucidauth_flight *flight = fly(first, 0);
  carry_out(flight, -1);
  assert_int_equal(end(flight, message), LUCIDAUTH_OK);
  assert_own_token("B1");
  flight = fly(second, 0);
  carry_out(flight, -1);
  assert_int_equal(end(flight, message), LUCIDAUTH_CONFIG);
  flight = fly("S2", LUCIDAUTH_REPLACE); /* there is no access token yet, and that is no failure */
  carry_out(flight, -1);
  assert_int_equal(end(flight, message), LUCIDAUTH_OK);
  assert_non_null(strstr(fixture.record, "\"S2\""));
  assert_int_equal(endpoint->posts, 0);
  lucidauth_close(own.client);
}

/* Whichever step fails, what was stored stays, nothing counts as unsaved, and the same answer can be stored later. */
static void a_step_that_fails_changes_nothing(void **state)
{
  (void)state;
  bool failed = true;
  int tried = 0;
  for (int skips = 0; failed; skips++) {
    char message[900], before[sizeof fixture.record];
    lucidauth_status status = LUCIDAUTH_STATUS_INIT;
    open_own_storage();
    carry_out(fly(first, 0), -1);
    lucidauth_close(own.client);
    memcpy(before, fixture.record, sizeof before);
    open_own_storage();
    memcpy(fixture.record, before, sizeof before);
    lucidauth_flight *flight = fly(second, LUCIDAUTH_REPLACE);
    failed = carry_out(flight, skips);
    lucidauth_code code = end(flight, message);
    assert_true(lucidauth_get_status(own.client, NULL, &status, NULL));
    assert_false(status.unsaved);
    assert_false(own.locked);
    if (code != LUCIDAUTH_OK) {
      tried++;
      assert_int_equal(code, LUCIDAUTH_STORAGE);
      assert_non_null(strstr(message, "storage is broken"));
      assert_null(strstr(message, "S2"));
      assert_string_equal(fixture.record, before);
      flight = fly(second, LUCIDAUTH_REPLACE);
      carry_out(flight, -1);
      assert_int_equal(end(flight, message), LUCIDAUTH_OK);
    }
    assert_own_token("B2");
    lucidauth_close(own.client);
  }
  assert_true(tried >= 3);
}

/* Wherever it is broken off, the record is the former one or the new one, and the next flight goes on from there. */
static void a_flight_that_is_broken_off_leaves_the_one_or_the_other(void **state)
{
  (void)state;
  bool done = false;
  for (int steps = 0; !done; steps++) {
    char message[900];
    open_own_storage();
    carry_out(fly(first, 0), -1);
    lucidauth_close(own.client);
    char before[sizeof fixture.record];
    memcpy(before, fixture.record, sizeof before);
    open_own_storage();
    memcpy(fixture.record, before, sizeof before);
    lucidauth_flight *flight = fly(second, LUCIDAUTH_REPLACE);
    lucidauth_action action = first_step(flight);
    for (int i = 0; i < steps && action.step != LUCIDAUTH_STEP_DONE; i++)
      action = do_step(flight, &action);
    done = action.step == LUCIDAUTH_STEP_DONE;
    bool stored = strstr(fixture.record, "\"S2\"") != NULL;
    assert_int_equal(end(flight, message), done ? LUCIDAUTH_OK : LUCIDAUTH_NOT_READY);
    flight = lucidauth_flight_keep(own.account);
    assert_null(flight); /* the answer is with the program, which was told so */
    assert_own_token(stored ? "B2" : "B1");
    flight = fly(second, LUCIDAUTH_REPLACE);
    carry_out(flight, -1);
    assert_int_equal(end(flight, message), LUCIDAUTH_OK);
    assert_own_token("B2");
    lucidauth_close(own.client);
  }
}

static void two_flights_are_not_under_way_at_once(void **state)
{
  (void)state;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  open_own_storage();
  lucidauth_flight *flight = fly(first, 0);
  assert_null(lucidauth_flight_store(own.account, second, sizeof second - 1, 0, &error));
  assert_int_equal(error.code, LUCIDAUTH_NOT_READY);
  assert_non_null(strstr(error.message, "not stored yet"));
  assert_null(lucidauth_flight_begin(own.account, false, NULL, &error));
  assert_int_equal(error.code, LUCIDAUTH_NOT_READY);
  assert_null(lucidauth_flight_keep(own.account));
  carry_out(flight, -1);
  lucidauth_free_token(lucidauth_flight_end(flight, NULL, NULL));
  assert_null(lucidauth_flight_store(own.account, NULL, 3, 0, &error));
  assert_int_equal(error.code, LUCIDAUTH_CONFIG);
  assert_null(lucidauth_flight_store(own.account, "", 0, 0, NULL));
  lucidauth_close(own.client);
}

static void a_flight_that_is_under_way_ends_with_its_client(void **state)
{
  (void)state;
  open_own_storage();
  lucidauth_flight *flight = fly(first, 0);
  (void)first_step(flight);
  lucidauth_close(own.client);
  assert_string_equal(fixture.record, "");
}

static int end_in_child(lucidauth_flight *flight)
{
  char message[900];
  if (next_action(flight, LUCIDAUTH_RESULT_OK, NULL).step != LUCIDAUTH_STEP_DONE)
    return 1;
  if (end(flight, message) != LUCIDAUTH_NOT_READY)
    return 2;
  flight = fly(second, 0);
  carry_out(flight, -1);
  return end(flight, message) == LUCIDAUTH_OK ? 0 : 3;
}

static void a_child_of_a_fork_has_none_of_it(void **state)
{
  (void)state;
  char message[900];
  open_own_storage();
  lucidauth_flight *flight = fly(first, 0);
  lucidauth_action action = first_step(flight);
  fflush(stdout);
  pid_t child = fork();
  if (child == 0)
    _exit(end_in_child(flight));
  assert_int_equal(fixture_status(child), 0);
  while (action.step != LUCIDAUTH_STEP_DONE)
    action = do_step(flight, &action);
  assert_int_equal(end(flight, message), LUCIDAUTH_OK);
  assert_own_token("B1");
  lucidauth_close(own.client);
}

static void a_storage_of_the_librarys_is_passed_by_no_flight(void **state)
{
  (void)state;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth *client = fixture_client(false);
  assert_null(lucidauth_flight_store(lucidauth_get_account(client, NULL, NULL), first, sizeof first - 1, 0, &error));
  assert_int_equal(error.code, LUCIDAUTH_CONFIG);
  lucidauth_close(client);
  open_own_storage();
  assert_false(store(own.client, first, 0, &error));
  assert_int_equal(error.code, LUCIDAUTH_CONFIG);
  lucidauth_close(own.client);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_set_up, fixture_tear_down)

int main(void)
{
  const struct CMUnitTest tests[] = {TEST(on_this_thread_it_starts_and_replaces),
                                     TEST(in_the_background_it_starts_and_replaces),
                                     TEST(a_dead_grant_is_replaced_as_it_is),
                                     TEST(a_spent_refresh_token_is_refused),
                                     TEST(nothing_is_no_answer),
                                     TEST(an_answer_ends_where_its_length_says),
                                     TEST(polling_waits_for_no_refresh),
                                     TEST(nor_for_it_without_an_end),
                                     TEST(who_comes_again_hears_once_what_came_of_it),
                                     TEST(tickets_are_not_mixed_up),
                                     TEST(a_client_that_is_closed_meanwhile_has_stored_it),
                                     TEST(a_child_of_a_fork_does_not_wait_for_its_parents),
                                     TEST(only_the_background_is_polled),
                                     TEST(a_flight_stores),
                                     TEST(a_step_that_fails_changes_nothing),
                                     TEST(a_flight_that_is_broken_off_leaves_the_one_or_the_other),
                                     TEST(two_flights_are_not_under_way_at_once),
                                     TEST(a_flight_that_is_under_way_ends_with_its_client),
                                     TEST(a_child_of_a_fork_has_none_of_it),
                                     TEST(a_storage_of_the_librarys_is_passed_by_no_flight)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
