/* The thread of the background, and those who wait for it, at the moments that no sandbox can be made to meet. */
#define _GNU_SOURCE
#include "../../src/account/parts.h"
#include "../system/clock.h"
#include "fixture.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct {
  pthread_t caller;
  atomic_bool hold_ends, let_end; /* a flight that has ended goes no further before it is told to */
  const char *slow_account;
  atomic_bool disk_goes_on;
  bool no_threads;
  int tries; /* to start one meanwhile */
  atomic_int freeze;
  _Atomic double ahead; /* seconds that the library's clock is ahead of the machine's */
} world;

struct moment __real_clock_now(void);
struct moment __wrap_clock_now(void);

struct moment __wrap_clock_now(void)
{
  return moment_after(__real_clock_now(), atomic_load(&world.ahead));
}

/* The caller is stopped while it waits, and so is everybody else; only when it waits again has the endpoint had time. */
static void freeze(void)
{
  if (world.freeze == 1)
    endpoint_go_on();
  else
    atomic_store(&world.ahead, atomic_load(&world.ahead) + 1000);
  world.freeze--;
}

void __real_clock_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, double until);
void __wrap_clock_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, double until);

void __wrap_clock_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, double until)
{
  if (world.freeze && pthread_equal(pthread_self(), world.caller)) {
    freeze();
    return;
  }
  __real_clock_wait(condition, mutex, until - atomic_load(&world.ahead));
}

static int set_up(void **state)
{
  memset(&world, 0, sizeof world);
  world.caller = pthread_self();
  return fixture_set_up(state);
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

/* ---- between the end of a flight and the next one ---- */

char *__real_turn_end(struct lucidauth_account *account, uint64_t *serial, lucidauth_error *error);
char *__wrap_turn_end(struct lucidauth_account *account, uint64_t *serial, lucidauth_error *error);

char *__wrap_turn_end(struct lucidauth_account *account, uint64_t *serial, lucidauth_error *error)
{
  char *token = __real_turn_end(account, serial, error);
  if (!pthread_equal(pthread_self(), world.caller) && atomic_exchange(&world.hold_ends, false))
    fixture_wait_for(&world.let_end);
  return token;
}

/* A refresh is asked for after the end of the one before, and before the thread has turned away from that. */
static void refresh_at_the_end_of_another(lucidauth_account *account)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_ticket first = {.refresh = true}, second = {.refresh = true};
  atomic_store(&world.hold_ends, true);
  fixture_assert_token(poll_for(account, &first, &error), "A1");
  endpoint_hold();
  assert_null(lucidauth_poll(account, &second, true, NULL, &error));
  assert_int_equal(error.code, LUCIDAUTH_NOT_READY);
  atomic_store(&world.let_end, true);
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
  lucidauth *client = fixture_client(true);
  refresh_at_the_end_of_another(lucidauth_get_account(client, NULL, NULL));
  assert_int_equal(pthread_create(&thread, NULL, answer_in_a_while, NULL), 0);
  lucidauth_close(client);
  assert_int_equal(endpoint->answered, 2);
  assert_true(fixture_stored("\"A2\""));
  assert_false(fixture_stored("pending"));
  assert_int_equal(pthread_join(thread, NULL), 0);
}

static void a_flight_that_follows_at_once_is_not_called_ended(void **state)
{
  (void)state;
  lucidauth *client = fixture_client(true);
  refresh_at_the_end_of_another(lucidauth_get_account(client, NULL, NULL));
  assert_false(lucidauth_leave(client));
  endpoint_go_on();
  lucidauth_close(client);
  assert_true(fixture_stored("\"A2\""));
}

/* ---- how long a caller waits ---- */

void __real_flight_step(struct flight *flight, const struct flow_action *action, struct flight_event *came);
void __wrap_flight_step(struct flight *flight, const struct flow_action *action, struct flight_event *came);

/* A disk that is slow for one account. */
void __wrap_flight_step(struct flight *flight, const struct flow_action *action, struct flight_event *came)
{
  const struct lucidauth_account *account =
      (const void *)((const char *)flight - offsetof(struct lucidauth_account, flight));
  if (world.slow_account && strcmp(account->name, world.slow_account) == 0)
    fixture_wait_for(&world.disk_goes_on);
  __real_flight_step(flight, action, came);
}

/* A token that lives is stored, the refresh is at the server and stays there. */
static void a_token_that_lives_is_served_in_the_first_flight(void **state)
{
  (void)state;
  lucidauth_options chosen = fixture_options(true);
  chosen.refresh_wait = 0.05;
  fixture_store(100);
  endpoint_hold();
  lucidauth *client = fixture_open(&chosen);
  fixture_assert_token(lucidauth_token(client, NULL, NULL), "A0");
  assert_true(endpoint_has_seen(1));
  assert_int_equal(endpoint->answered, 0);
  endpoint_go_on();
  lucidauth_close(client);
  assert_true(fixture_stored("\"R1\""));
}

static void *ask(void *client)
{
  return lucidauth_token(client, NULL, NULL);
}

static void a_thread_that_waits_is_served_in_another_ones_first_flight(void **state)
{
  (void)state;
  pthread_t thread;
  void *token;
  lucidauth_options chosen = fixture_options(false);
  chosen.refresh_wait = 0.05;
  fixture_store(100);
  endpoint_hold();
  lucidauth *client = fixture_open(&chosen);
  assert_int_equal(pthread_create(&thread, NULL, ask, client), 0);
  assert_true(endpoint_has_seen(1));
  fixture_assert_token(lucidauth_token(client, NULL, NULL), "A0");
  assert_int_equal(endpoint->answered, 0);
  endpoint_go_on();
  assert_int_equal(pthread_join(thread, &token), 0);
  fixture_assert_token(token, "A1");
  lucidauth_close(client);
}

static void a_token_that_was_rejected_is_not_served_so(void **state)
{
  (void)state;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_ticket ticket = LUCIDAUTH_TICKET_INIT;
  lucidauth_options chosen = fixture_options(true);
  chosen.refresh_wait = 0;
  fixture_store(100);
  endpoint_hold();
  lucidauth *client = fixture_open(&chosen);
  lucidauth_account *account = lucidauth_get_account(client, NULL, NULL);
  world.slow_account = "default";
  assert_null(lucidauth_poll(account, &ticket, true, NULL, &error));
  (void)lucidauth_reject(client, NULL, "A0", NULL);
  atomic_store(&world.disk_goes_on, true);
  assert_true(endpoint_has_seen(1));
  assert_null(lucidauth_poll(account, &ticket, true, NULL, &error));
  assert_int_equal(error.code, LUCIDAUTH_NOT_READY);
  endpoint_go_on();
  fixture_assert_token(poll_for(account, &ticket, &error), "A1");
  lucidauth_close(client);
}

/* Who cannot come back has it from the file, at once; what is no record is not waited for, nor read again and again. */
static void who_has_no_patience_is_served_from_the_file(void **state)
{
  (void)state;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_ticket damaged = LUCIDAUTH_TICKET_INIT, first = LUCIDAUTH_TICKET_INIT, later = LUCIDAUTH_TICKET_INIT;
  lucidauth_account *account;
  fixture_store_account("token", "{\"access_tok");
  world.no_threads = true;
  lucidauth *client = fixture_client(true);
  account = lucidauth_get_account(client, NULL, NULL);
  assert_null(lucidauth_poll(account, &damaged, false, NULL, &error));
  assert_int_equal(error.code, LUCIDAUTH_NOT_READY);
  fixture_store(3000);
  assert_null(lucidauth_poll(account, &first, false, NULL, &error));
  atomic_store(&world.ahead, 1);
  fixture_assert_token(lucidauth_poll(account, &later, false, NULL, &error), "A0");
  world.no_threads = false;
  lucidauth_close(client);
}

static void nor_is_one_that_another_process_may_have_spent(void **state)
{
  (void)state;
  lucidauth_options chosen = fixture_options(true);
  chosen.refresh_wait = 0;
  fixture_store_unfinished(100);
  lucidauth *client = fixture_open(&chosen);
  endpoint_hold();
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_ticket ticket = LUCIDAUTH_TICKET_INIT;
  lucidauth_account *account = lucidauth_get_account(client, NULL, NULL);
  assert_null(lucidauth_poll(account, &ticket, false, NULL, &error));
  assert_true(endpoint_has_seen(1));
  assert_null(lucidauth_poll(account, &ticket, false, NULL, &error));
  assert_int_equal(endpoint->asked, 1);
  endpoint_go_on();
  fixture_assert_token(poll_for(account, &ticket, &error), "A1");
  lucidauth_close(client);
}

/* A client that has a token in use, which has fallen due; nobody has noticed yet, and the endpoint does not answer. */
static lucidauth *client_with_a_due_token(lucidauth_storage storage, double refresh_wait, uint64_t *serial)
{
  lucidauth_options chosen = fixture_options(true);
  chosen.refresh_wait = refresh_wait;
  chosen.storage = storage;
  lucidauth *client = fixture_open(&chosen);
  fixture_assert_token(lucidauth_token_of(lucidauth_get_account(client, NULL, NULL), serial, NULL), "A1");
  endpoint_hold();
  atomic_store(&world.ahead, 3500);
  return client;
}

static void who_finds_the_token_due_waits_for_the_next(lucidauth_storage storage)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  uint64_t serial;
  lucidauth_ticket ticket = LUCIDAUTH_TICKET_INIT, another = LUCIDAUTH_TICKET_INIT, hurried = LUCIDAUTH_TICKET_INIT;
  lucidauth *client = client_with_a_due_token(storage, ENDPOINT_PATIENCE, &serial);
  lucidauth_account *account = lucidauth_get_account(client, NULL, NULL);
  assert_null(lucidauth_poll(account, &ticket, true, NULL, &error));
  assert_int_equal(error.code, LUCIDAUTH_NOT_READY);
  assert_true(endpoint_has_seen(2));
  assert_null(lucidauth_poll(account, &ticket, true, NULL, &error));
  assert_null(lucidauth_poll(account, &another, true, NULL, &error));
  assert_false(lucidauth_is_current(account, serial));
  fixture_assert_token(lucidauth_poll(account, &hurried, false, NULL, &error), "A1");
  endpoint_go_on();
  fixture_assert_token(poll_for(account, &ticket, &error), "A2");
  fixture_assert_token(poll_for(account, &another, &error), "A2");
  lucidauth_close(client);
}

static void a_token_that_is_being_refreshed_is_not_handed_out(void **state)
{
  (void)state;
  who_finds_the_token_due_waits_for_the_next(LUCIDAUTH_FILE);
}

static void nor_is_one_whose_refresh_is_not_announced(void **state)
{
  (void)state;
  who_finds_the_token_due_waits_for_the_next(LUCIDAUTH_MEMORY);
}

static void but_for_a_flight_that_was_waited_for_long_enough(void **state)
{
  (void)state;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  uint64_t serial;
  lucidauth_ticket ticket = LUCIDAUTH_TICKET_INIT, another = LUCIDAUTH_TICKET_INIT;
  lucidauth *client = client_with_a_due_token(LUCIDAUTH_FILE, 0.05, &serial);
  lucidauth_account *account = lucidauth_get_account(client, NULL, NULL);
  assert_null(lucidauth_poll(account, &ticket, true, NULL, &error));
  assert_true(endpoint_has_seen(2)); /* it has been announced: this is the flight that is waited for */
  fixture_assert_token(poll_for(account, &ticket, &error), "A1");
  fixture_assert_token(lucidauth_poll(account, &another, true, NULL, &error), "A1");
  endpoint_go_on();
  lucidauth_close(client);
}

static double time_until_timeout(lucidauth *client)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  double began = endpoint_now();
  assert_null(lucidauth_token(client, NULL, &error));
  assert_int_equal(error.code, LUCIDAUTH_TIMEOUT);
  return endpoint_now() - began;
}

/* But for an answer whose refresh was sent: that long again. */
static void nobody_waits_for_longer_than_the_timeout(void **state)
{
  (void)state;
  lucidauth_options chosen = fixture_options(true);
  chosen.timeout = 2;
  endpoint_hold();
  lucidauth *client = fixture_open(&chosen);
  double sent = time_until_timeout(client);
  endpoint_go_on();
  lucidauth_close(client);
  assert_true(fixture_stored("\"R1\""));

  world.slow_account = "default";
  client = fixture_open(&chosen);
  double unsent = time_until_timeout(client);
  atomic_store(&world.disk_goes_on, true);
  lucidauth_close(client);
  assert_true(unsent >= 1.9 && sent >= 3.9);
  assert_true(unsent < 0.8 * sent);
}

/* ---- what a login gave ---- */

static void what_a_login_gave_is_refreshed_ahead_of_need(void **state)
{
  (void)state;
  static const char answer[] = "{\"access_token\":\"A0\",\"refresh_token\":\"R0\",\"expires_in\":3600}";
  lucidauth *client = fixture_client(true);
  assert_true(lucidauth_store(client, NULL, answer, sizeof answer - 1, 0, NULL));
  atomic_store(&world.ahead, 3500);
  assert_true(endpoint_has_seen(1)); /* nobody has asked for a token */
  lucidauth_close(client);
  assert_true(fixture_stored("\"R1\""));
}

/* ---- after a freeze ---- */

static lucidauth *client_to_freeze(bool background)
{
  lucidauth_options chosen = fixture_options(background);
  chosen.timeout = ENDPOINT_PATIENCE;
  endpoint_hold();
  return fixture_open(&chosen);
}

static void a_caller_that_was_frozen_looks_first(void **state)
{
  (void)state;
  lucidauth *client = client_to_freeze(true);
  world.freeze = 2;
  fixture_assert_token(lucidauth_token(client, NULL, NULL), "A1");
  lucidauth_close(client);
}

static void so_does_one_that_waits_for_another_thread(void **state)
{
  (void)state;
  pthread_t thread;
  void *token;
  lucidauth *client = client_to_freeze(false);
  assert_int_equal(pthread_create(&thread, NULL, ask, client), 0);
  assert_true(endpoint_has_seen(1));
  world.freeze = 2;
  fixture_assert_token(lucidauth_token(client, NULL, NULL), "A1");
  assert_int_equal(pthread_join(thread, &token), 0);
  fixture_assert_token(token, "A1");
  lucidauth_close(client);
}

static void *ask_and_forget(void *client)
{
  lucidauth_free_token(lucidauth_token(client, NULL, NULL));
  return NULL;
}

static void end_with_a_flight_under_way(bool background)
{
  pthread_t thread;
  lucidauth_ticket ticket = LUCIDAUTH_TICKET_INIT;
  alarm(ENDPOINT_PATIENCE);
  lucidauth *client = client_to_freeze(background);
  if (background)
    lucidauth_poll(lucidauth_get_account(client, NULL, NULL), &ticket, true, NULL, NULL);
  else
    (void)(pthread_create(&thread, NULL, ask_and_forget, client) == 0 && pthread_detach(thread) == 0);
  endpoint_has_seen(1);
  world.freeze = 2;
  exit(0);
}

/* With a client that works in the background, and without. */
static void so_does_a_process_that_ends(void **state)
{
  (void)state;
  for (int background = 0; background < 2; background++) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
      end_with_a_flight_under_way(background != 0);
    assert_int_equal(fixture_status(child), 0);
    assert_true(fixture_stored("\"R1\""));
    assert_false(fixture_stored("pending"));
    fixture_store(-1);
    atomic_store(&endpoint->rotation, 0);
    atomic_store(&endpoint->posts, 0);
  }
}

/* ---- accounts side by side ---- */

static void a_slow_disk_holds_up_its_own_account_alone(void **state)
{
  (void)state;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_ticket ticket = LUCIDAUTH_TICKET_INIT;
  lucidauth_options chosen = fixture_options(true);
  chosen.storage = LUCIDAUTH_DIRECTORY;
  chosen.path = fixture.folder;
  fixture_store_account("slow", "{\"access_token\": \"S\", \"refresh_token\": \"RS\", \"expires_at\": 9999999999}");
  fixture_store_account("fast", "{\"refresh_token\": \"R0\"}");
  world.slow_account = "slow";
  lucidauth *client = fixture_open(&chosen);
  lucidauth_account *slow = lucidauth_get_account(client, "slow", NULL);
  assert_null(lucidauth_poll(slow, &ticket, true, NULL, &error));
  fixture_assert_token(lucidauth_token(client, "fast", NULL), "A1");
  fixture_assert_token(lucidauth_refresh(client, "fast", NULL), "A2");
  assert_null(lucidauth_poll(slow, &ticket, true, NULL, &error));
  assert_int_equal(error.code, LUCIDAUTH_NOT_READY);
  atomic_store(&world.disk_goes_on, true);
  fixture_assert_token(poll_for(slow, &ticket, &error), "S");
  lucidauth_close(client);
}

/* ---- the status ---- */

static lucidauth_status status_when(lucidauth *client, const char *state)
{
  lucidauth_status status = LUCIDAUTH_STATUS_INIT;
  double deadline = endpoint_now() + ENDPOINT_PATIENCE;
  do {
    endpoint_pause();
    assert_true(lucidauth_get_status(client, NULL, &status, NULL));
  } while (strcmp(status.state, state) != 0 && endpoint_now() < deadline);
  assert_string_equal(status.state, state);
  return status;
}

static void the_status_shows_what_is_stored_without_waiting_for_the_disk(void **state)
{
  (void)state;
  lucidauth_status status = LUCIDAUTH_STATUS_INIT;
  fixture_store(3000);
  world.slow_account = "default";
  lucidauth *client = fixture_client(true);
  assert_true(lucidauth_get_status(client, NULL, &status, NULL));
  assert_string_equal(status.state, "empty");
  assert_true(lucidauth_get_status(client, NULL, &status, NULL));
  atomic_store(&world.disk_goes_on, true);
  status = status_when(client, "ready");
  assert_true(status.expires_in > 2900 && status.expires_in <= 3000);
  assert_int_equal(status.past_count, 0);
  assert_int_equal(endpoint->posts, 0);
  fixture_assert_token(lucidauth_token(client, NULL, NULL), "A0");
  lucidauth_close(client);
}

static void the_status_shows_what_others_have_stored_since(void **state)
{
  (void)state;
  lucidauth *client = fixture_client(true);
  status_when(client, "empty");
  fixture_store(3000);
  status_when(client, "ready");
  assert_int_equal(endpoint->posts, 0);
  lucidauth_close(client);
}

static void a_caller_who_meets_a_look_gets_a_token_all_the_same(void **state)
{
  (void)state;
  lucidauth_status status = LUCIDAUTH_STATUS_INIT;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_ticket ticket = LUCIDAUTH_TICKET_INIT;
  fixture_store(3000);
  world.slow_account = "default";
  lucidauth *client = fixture_client(true);
  lucidauth_account *account = lucidauth_get_account(client, NULL, NULL);
  assert_true(lucidauth_get_status(client, NULL, &status, NULL));
  assert_null(lucidauth_poll(account, &ticket, true, NULL, &error));
  atomic_store(&world.disk_goes_on, true);
  fixture_assert_token(poll_for(account, &ticket, &error), "A0");
  lucidauth_close(client);
}

/* ---- no thread to be had ---- */

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *data);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *data);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *data)
{
  if (!world.no_threads)
    return __real_pthread_create(thread, attributes, body, data);
  world.tries++;
  return EAGAIN;
}

static void a_caller_that_may_wait_refreshes_by_itself(void **state)
{
  (void)state;
  lucidauth *client = fixture_client(true);
  fixture_store(3000);
  world.no_threads = true;
  fixture_assert_token(lucidauth_token(client, NULL, NULL), "A0");
  fixture_assert_token(lucidauth_refresh(client, NULL, NULL), "A1");
  fixture_assert_token(lucidauth_token(client, NULL, NULL), "A1");
  assert_in_range(world.tries, 1, 5);
  assert_true(fixture_stored("\"R1\""));
  world.no_threads = false;
  fixture_assert_token(lucidauth_refresh(client, NULL, NULL), "A2");
  lucidauth_close(client);
}

static void a_caller_that_may_not_is_told_why(void **state)
{
  (void)state;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_ticket ticket = LUCIDAUTH_TICKET_INIT, again = LUCIDAUTH_TICKET_INIT;
  lucidauth_options chosen = fixture_options(true);
  chosen.timeout = 2;
  lucidauth *client = fixture_open(&chosen);
  lucidauth_account *account = lucidauth_get_account(client, NULL, NULL);
  world.no_threads = true;
  assert_null(lucidauth_poll(account, &ticket, true, NULL, &error));
  assert_int_equal(error.code, LUCIDAUTH_NOT_READY);
  assert_non_null(strstr(error.message, "thread"));
  assert_null(poll_for(account, &ticket, &error));
  assert_int_equal(error.code, LUCIDAUTH_TIMEOUT);
  assert_non_null(strstr(error.message, "thread"));
  assert_int_equal(endpoint->posts, 0);
  world.no_threads = false;
  fixture_assert_token(poll_for(account, &again, &error), "A1");
  lucidauth_close(client);
}

/* The lock stays with tokens that could not be saved, in whichever thread the next flight is. */
static void a_lock_that_is_kept_is_not_forgotten_for_lack_of_a_thread(void **state)
{
  (void)state;
  pthread_t thread;
  void *token;
  char aside[96];
  lucidauth_ticket ticket = LUCIDAUTH_TICKET_INIT;
  lucidauth_options chosen = fixture_options(true);
  snprintf(aside, sizeof aside, "%s.aside", fixture.path);
  chosen.timeout = 2;
  lucidauth *client = fixture_open(&chosen);
  world.no_threads = true;
  endpoint_hold();
  assert_int_equal(__real_pthread_create(&thread, NULL, ask, client), 0);
  assert_true(endpoint_has_seen(1));
  assert_true(rename(fixture.path, aside) == 0 && mkdir(fixture.path, 0700) == 0); /* stops even root */
  endpoint_go_on();
  assert_int_equal(pthread_join(thread, &token), 0);
  fixture_assert_token(token, "A1");
  assert_false(fixture_stored("\"R1\""));
  fixture_assert_token(lucidauth_poll(lucidauth_get_account(client, NULL, NULL), &ticket, false, NULL, NULL), "A1");
  assert_true(rmdir(fixture.path) == 0 && rename(aside, fixture.path) == 0);
  world.no_threads = false;
  fixture_assert_token(lucidauth_refresh(client, NULL, NULL), "A2");
  assert_true(fixture_stored("\"R2\""));
  lucidauth_close(client);
}

/* A program of any release: the ticket is read and written up to its end in this one. */
static void a_ticket_may_start_from_zero_or_be_larger(void **state)
{
  (void)state;
  const size_t sizes[] = {sizeof(lucidauth_ticket), 0, sizeof(lucidauth_ticket) + 8};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    struct {
      lucidauth_ticket ticket;
      char behind[8];
    } given = {.ticket = {.size = sizes[i], .refresh = true}, .behind = "behind"};
    lucidauth_error error = LUCIDAUTH_ERROR_INIT;
    lucidauth *client = fixture_client(true);
    char *token = poll_for(lucidauth_get_account(client, NULL, NULL), &given.ticket, &error);
    if (!token)
      fail_msg("%s", error.message);
    lucidauth_free_token(token);
    assert_true(given.ticket.size == sizes[i] && given.ticket.refresh);
    assert_string_equal(given.behind, "behind");
    lucidauth_close(client);
  }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, fixture_tear_down)

int main(void)
{
  const struct CMUnitTest tests[] = {
      TEST(a_flight_that_follows_at_once_is_waited_for_by_close),
      TEST(a_flight_that_follows_at_once_is_not_called_ended),
      TEST(a_token_that_lives_is_served_in_the_first_flight),
      TEST(a_thread_that_waits_is_served_in_another_ones_first_flight),
      TEST(a_token_that_was_rejected_is_not_served_so),
      TEST(who_has_no_patience_is_served_from_the_file),
      TEST(nor_is_one_that_another_process_may_have_spent),
      TEST(a_token_that_is_being_refreshed_is_not_handed_out),
      TEST(nor_is_one_whose_refresh_is_not_announced),
      TEST(but_for_a_flight_that_was_waited_for_long_enough),
      TEST(nobody_waits_for_longer_than_the_timeout),
      TEST(what_a_login_gave_is_refreshed_ahead_of_need),
      TEST(a_caller_that_was_frozen_looks_first),
      TEST(so_does_one_that_waits_for_another_thread),
      TEST(so_does_a_process_that_ends),
      TEST(a_slow_disk_holds_up_its_own_account_alone),
      TEST(the_status_shows_what_is_stored_without_waiting_for_the_disk),
      TEST(the_status_shows_what_others_have_stored_since),
      TEST(a_caller_who_meets_a_look_gets_a_token_all_the_same),
      TEST(a_caller_that_may_wait_refreshes_by_itself),
      TEST(a_caller_that_may_not_is_told_why),
      TEST(a_lock_that_is_kept_is_not_forgotten_for_lack_of_a_thread),
      TEST(a_ticket_may_start_from_zero_or_be_larger),
  };
  alarm(3 * ENDPOINT_PATIENCE);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
