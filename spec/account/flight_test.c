/* Flights in the program's own hands: what is broken off, and what is saved at the end. */
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
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* A storage that is one text, and a client that uses it. */
static struct {
  lucidauth *client;
  lucidauth_account *account;
  char stored[4000];
  bool locked, broken;
  char events[200];
} world;

static void take_event(void *unused, const lucidauth_event *event)
{
  (void)unused;
  assert_int_equal(event->size, sizeof *event);
  size_t length = strlen(world.events);
  snprintf(world.events + length, sizeof world.events - length, "%s ", lucidauth_event_name(event->kind));
}

static lucidauth_options options(void)
{
  lucidauth_options chosen = LUCIDAUTH_OPTIONS_INIT;
  chosen.client_id = chosen.client_secret = "x";
  chosen.refresh_token = "R0";
  chosen.api_url = "http://127.0.0.1:1";
  chosen.storage = LUCIDAUTH_CUSTOM;
  chosen.path = "of the test";
  chosen.on_event = take_event;
  return chosen;
}

static void open_client(void)
{
  lucidauth_options chosen = options();
  world.client = lucidauth_new(&chosen, NULL);
  assert_non_null(world.client);
  world.account = lucidauth_get_account(world.client, NULL, NULL);
  assert_non_null(world.account);
}

static int set_up(void **state)
{
  (void)state;
  memset(&world, 0, sizeof world);
  endpoint_start();
  open_client();
  return 0;
}

static int tear_down(void **state)
{
  (void)state;
  lucidauth_close(world.client);
  endpoint_stop();
  return 0;
}

static lucidauth_action do_step(lucidauth_flight *flight, const lucidauth_action *action)
{
  lucidauth_result result = LUCIDAUTH_RESULT_OK;
  const char *text = NULL;
  if (action->step == LUCIDAUTH_STEP_LOAD) {
    result = world.stored[0] ? LUCIDAUTH_RESULT_OK : LUCIDAUTH_RESULT_NONE;
    text = world.stored;
  } else if (action->step == LUCIDAUTH_STEP_LOCK) {
    result = world.locked ? LUCIDAUTH_RESULT_BUSY : LUCIDAUTH_RESULT_OK;
    world.locked = true;
  } else if (action->step == LUCIDAUTH_STEP_UNLOCK) {
    world.locked = false;
  } else if (action->step == LUCIDAUTH_STEP_SAVE && world.broken) {
    result = LUCIDAUTH_RESULT_FAILED;
    text = "the storage is broken.";
  } else if (action->step == LUCIDAUTH_STEP_SAVE) {
    snprintf(world.stored, sizeof world.stored, "%s", action->record);
  } else if (action->step == LUCIDAUTH_STEP_POST) {
    lucidauth_flight_post(flight);
  }
  return next_action(flight, result, text);
}

static lucidauth_flight *begin(bool refresh)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_flight *flight = lucidauth_flight_begin(world.account, refresh, NULL, &error);
  if (!flight)
    fail_msg("%s", error.message);
  return flight;
}

/* Carry the flight on until it asks for this step. */
static lucidauth_action carry_on_to(lucidauth_flight *flight, lucidauth_step step)
{
  lucidauth_action action = next_action(flight, LUCIDAUTH_RESULT_OK, NULL);
  /* the first POST asks about the configured refresh token, before anything is stored */
  while (action.step != step || (step == LUCIDAUTH_STEP_POST && !world.stored[0])) {
    assert_int_not_equal(action.step, LUCIDAUTH_STEP_DONE);
    action = do_step(flight, &action);
  }
  return action;
}

static char *carry_out(lucidauth_flight *flight, lucidauth_error *error)
{
  carry_on_to(flight, LUCIDAUTH_STEP_DONE);
  return lucidauth_flight_end(flight, NULL, error);
}

static void assert_gets(const char *expected)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  char *token = carry_out(begin(false), &error);
  assert_string_equal(token ? token : error.message, expected);
  lucidauth_free_token(token);
}

static void break_off(lucidauth_flight *flight)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  assert_null(lucidauth_flight_end(flight, NULL, &error));
  assert_int_equal(error.code, LUCIDAUTH_NOT_READY);
}

static bool is_unsaved(void)
{
  lucidauth_status status = LUCIDAUTH_STATUS_INIT;
  assert_true(lucidauth_get_status(world.client, NULL, &status, NULL));
  return status.unsaved;
}

/* ---- an answer that is there when the flight is ended ---- */

static void an_answer_in_hand_outlives_the_end_of_its_flight(void **state)
{
  (void)state;
  lucidauth_flight *flight = begin(false);
  carry_on_to(flight, LUCIDAUTH_STEP_POST);
  lucidauth_flight_post(flight);
  break_off(flight);
  assert_true(is_unsaved());
  assert_gets("A1");
  assert_false(is_unsaved());
  assert_non_null(strstr(world.stored, "\"R1\""));
  assert_false(world.locked);
  assert_int_equal(endpoint->posts, 1);
}

static void an_answer_on_its_way_outlives_the_end_of_its_flight(void **state)
{
  (void)state;
  endpoint_hold();
  lucidauth_flight *flight = begin(false);
  carry_on_to(flight, LUCIDAUTH_STEP_POST);
  lucidauth_flight_start_post(flight);
  assert_true(endpoint_has_seen(1));
  endpoint_go_on();
  break_off(flight);
  assert_gets("A1");
  assert_non_null(strstr(world.stored, "\"R1\""));
  assert_int_equal(endpoint->posts, 1);
}

static void a_senseless_answer_in_hand_is_settled_by_the_next_flight(void **state)
{
  (void)state;
  atomic_store(&endpoint->status, 500);
  lucidauth_flight *flight = begin(false);
  carry_on_to(flight, LUCIDAUTH_STEP_POST);
  lucidauth_flight_post(flight);
  break_off(flight);
  assert_false(is_unsaved());
  atomic_store(&endpoint->status, 200);
  assert_gets("A1");
  assert_int_equal(endpoint->reuses, 0);
}

static void a_flight_that_never_sent_its_post_leaves_the_refresh_token_alive(void **state)
{
  (void)state;
  lucidauth_flight *flight = begin(false);
  carry_on_to(flight, LUCIDAUTH_STEP_POST);
  break_off(flight);
  assert_int_equal(endpoint->posts, 0);
  assert_gets("A1");
  assert_int_equal(endpoint->posts, 1);
}

/* ---- what could not be saved ---- */

static void leave_unsaved(void)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_flight *flight = begin(false);
  carry_on_to(flight, LUCIDAUTH_STEP_POST);
  lucidauth_flight_post(flight);
  lucidauth_action action = next_action(flight, LUCIDAUTH_RESULT_OK, NULL);
  world.broken = true;
  while (action.step != LUCIDAUTH_STEP_DONE)
    action = do_step(flight, &action);
  char *token = lucidauth_flight_end(flight, NULL, &error);
  assert_string_equal(token, "A1");
  lucidauth_free_token(token);
  assert_true(is_unsaved());
  assert_null(strstr(world.stored, "\"R1\""));
}

static void unsaved_tokens_are_saved_by_a_flight_of_their_own(void **state)
{
  (void)state;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  leave_unsaved();
  world.broken = false;
  lucidauth_flight *flight = lucidauth_flight_keep(world.account);
  assert_non_null(flight);
  assert_null(carry_out(flight, &error));
  assert_int_equal(error.code, LUCIDAUTH_OK);
  assert_string_equal(world.events, "refreshed save_failed saved ");
  assert_false(is_unsaved());
  assert_false(world.locked);
  assert_non_null(strstr(world.stored, "\"R1\""));
  assert_null(lucidauth_flight_keep(world.account));
  assert_gets("A1");
  assert_int_equal(endpoint->posts, 1);
}

static void a_storage_that_stays_broken_leaves_them_unsaved(void **state)
{
  (void)state;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  leave_unsaved();
  assert_null(carry_out(lucidauth_flight_keep(world.account), &error));
  assert_int_equal(error.code, LUCIDAUTH_STORAGE);
  assert_non_null(strstr(error.message, "storage is broken"));
  assert_true(is_unsaved());
  world.broken = false;
  assert_gets("A1");
}

static void what_a_flight_left_in_hand_is_saved_at_the_end(void **state)
{
  (void)state;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_flight *flight = begin(false);
  carry_on_to(flight, LUCIDAUTH_STEP_POST);
  lucidauth_flight_start_post(flight);
  assert_null(lucidauth_flight_keep(world.account));
  break_off(flight);
  assert_null(carry_out(lucidauth_flight_keep(world.account), &error));
  assert_int_equal(error.code, LUCIDAUTH_OK);
  lucidauth_close(world.client);
  open_client();
  assert_gets("A1");
  assert_int_equal(endpoint->posts, 1);
}

static void nothing_is_kept_where_nothing_is_unsaved(void **state)
{
  (void)state;
  assert_null(lucidauth_flight_keep(world.account));
  assert_gets("A1");
  assert_null(lucidauth_flight_keep(world.account));
}

/* The parent holds the lock, and may save it. */
static int keep_in_child(void)
{
  lucidauth_flight *flight = lucidauth_flight_keep(world.account);
  if (!flight)
    return 1;
  carry_out(flight, NULL);
  return is_unsaved() && world.locked ? 0 : 2;
}

static void a_child_saves_nothing_while_its_parent_holds_the_lock(void **state)
{
  (void)state;
  int status;
  leave_unsaved();
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0)
    _exit(keep_in_child());
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
  lucidauth_flight *flight = lucidauth_flight_keep(world.account);
  assert_non_null(flight);
  carry_out(flight, NULL);
}

/* ---- two at once ---- */

static void a_second_refresh_is_told_what_is_so(void **state)
{
  (void)state;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  char *token = NULL;
  lucidauth_flight *first = begin(false);
  assert_null(lucidauth_flight_begin(world.account, true, NULL, &error));
  assert_int_equal(error.code, LUCIDAUTH_NOT_READY);
  assert_non_null(strstr(error.message, "there is no token"));
  fixture_assert_token(carry_out(first, NULL), "A1");
  first = begin(true);
  assert_null(lucidauth_flight_begin(world.account, true, NULL, &error));
  assert_int_equal(error.code, LUCIDAUTH_NOT_READY);
  assert_null(strstr(error.message, "there is no token"));
  assert_null(lucidauth_flight_begin(world.account, false, &token, &error));
  assert_int_equal(error.code, LUCIDAUTH_OK);
  fixture_assert_token(token, "A1");
  fixture_assert_token(carry_out(first, NULL), "A2");
}

/* ---- storages that the library uses by itself ---- */

static void no_flight_passes_a_storage_by(void **state)
{
  (void)state;
  static const lucidauth_storage kinds[] = {LUCIDAUTH_FILE, LUCIDAUTH_DIRECTORY, LUCIDAUTH_MEMORY};
  for (int i = 0; i < 6; i++) {
    lucidauth_error error = LUCIDAUTH_ERROR_INIT;
    lucidauth_options chosen = options();
    char *token = NULL;
    chosen.storage = kinds[i / 2];
    chosen.path = "/nowhere/at/all";
    chosen.background = i % 2;
    lucidauth *client = lucidauth_new(&chosen, NULL);
    lucidauth_account *account = lucidauth_get_account(client, NULL, NULL);
    assert_null(lucidauth_flight_begin(account, true, &token, &error));
    assert_int_equal(error.code, LUCIDAUTH_CONFIG);
    assert_null(token);
    assert_null(lucidauth_flight_keep(account));
    lucidauth_close(client);
  }
}

/* Whatever stands in an action that nobody has initialised. */
static void an_action_is_filled_in_whatever_its_size_says(void **state)
{
  (void)state;
  const size_t sizes[] = {sizeof(lucidauth_action), 0, 1, SIZE_MAX};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    struct {
      lucidauth_action action;
      char behind[8];
    } given = {.action = {.size = sizes[i], .step = LUCIDAUTH_STEP_DONE}, .behind = "behind"};
    lucidauth_flight *flight = begin(false);
    lucidauth_flight_next(flight, LUCIDAUTH_RESULT_OK, NULL, &given.action);
    assert_int_equal(given.action.step, LUCIDAUTH_STEP_LOAD);
    assert_true(given.action.size == sizes[i]);
    assert_string_equal(given.behind, "behind");
    lucidauth_free_token(lucidauth_flight_end(flight, NULL, NULL));
  }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
  const struct CMUnitTest tests[] = {
      TEST(an_answer_in_hand_outlives_the_end_of_its_flight),
      TEST(an_answer_on_its_way_outlives_the_end_of_its_flight),
      TEST(a_senseless_answer_in_hand_is_settled_by_the_next_flight),
      TEST(a_flight_that_never_sent_its_post_leaves_the_refresh_token_alive),
      TEST(unsaved_tokens_are_saved_by_a_flight_of_their_own),
      TEST(a_storage_that_stays_broken_leaves_them_unsaved),
      TEST(what_a_flight_left_in_hand_is_saved_at_the_end),
      TEST(nothing_is_kept_where_nothing_is_unsaved),
      TEST(a_child_saves_nothing_while_its_parent_holds_the_lock),
      TEST(a_second_refresh_is_told_what_is_so),
      TEST(no_flight_passes_a_storage_by),
      TEST(an_action_is_filled_in_whatever_its_size_says),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
