/* The end of the process, and what other threads and the program's own last steps do meanwhile. Each test's process is
 * a child. What has to be said of it is its exit status, a number of the list below. */
#define _GNU_SOURCE
#include "fixture.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { NO_TOKEN = 20, TOKEN_A0 = 110, TOKEN_A1, TOKEN_A2, HUNG = 128 + SIGALRM };

static lucidauth *client;

static void report(const char *token, const lucidauth_error *error)
{
  if (!token)
    fprintf(stderr, "%s\n", error->message);
  _exit(token ? TOKEN_A0 + atoi(token + 1) : NO_TOKEN + (int)error->code);
}

static bool is_token(char *token)
{
  bool good = token != NULL;
  lucidauth_free_token(token);
  return good;
}

static pid_t start_child(void (*body)(void))
{
  fflush(stdout);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    alarm(ENDPOINT_PATIENCE);
    body();
    exit(0);
  }
  return child;
}

/* ---- after the library has settled its accounts ---- */

static void *refresh(void *unused)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  (void)unused;
  char *token = lucidauth_refresh(client, NULL, &error);
  report(token, &error);
  return NULL;
}

/* Was registered first, so it is the last one to be called. */
static void let_another_thread_refresh(void)
{
  pthread_t thread;
  if (pthread_create(&thread, NULL, refresh, NULL) == 0)
    pthread_join(thread, NULL);
}

static void refresh_late(bool background)
{
  (void)atexit(let_another_thread_refresh);
  client = fixture_client(background);
  if (!is_token(lucidauth_token(client, NULL, NULL)))
    _exit(1);
}

static void refresh_late_in_the_foreground(void)
{
  refresh_late(false);
}

static void refresh_late_in_the_background(void)
{
  refresh_late(true);
}

static void no_refresh_begins_when_the_process_has_said_good_bye(void **state)
{
  (void)state;
  assert_int_equal(fixture_status(start_child(refresh_late_in_the_foreground)), NO_TOKEN + LUCIDAUTH_NOT_READY);
  assert_int_equal(endpoint->posts, 1);
  assert_true(fixture_stored("\"R1\""));
  assert_false(fixture_stored("pending"));
}

static void nor_in_the_background(void **state)
{
  (void)state;
  assert_int_equal(fixture_status(start_child(refresh_late_in_the_background)), NO_TOKEN + LUCIDAUTH_NOT_READY);
  assert_int_equal(endpoint->posts, 1);
  assert_false(fixture_stored("pending"));
}

static void ask_late(void)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  char *token = lucidauth_token(client, NULL, &error);
  report(token, &error);
}

static void ask_late_for_what_lives(void)
{
  (void)atexit(ask_late);
  client = fixture_client(false);
  if (!is_token(lucidauth_refresh(client, NULL, NULL)))
    _exit(1);
}

static void what_lives_is_still_handed_out(void **state)
{
  (void)state;
  assert_int_equal(fixture_status(start_child(ask_late_for_what_lives)), TOKEN_A1);
}

static int seconds_ahead;

time_t __real_time(time_t *second);

/* Libraries call it too. */
__attribute__((visibility("default"))) time_t __wrap_time(time_t *second);

time_t __wrap_time(time_t *second)
{
  time_t now = __real_time(NULL) + seconds_ahead;
  if (second)
    *second = now;
  return now;
}

/* By another program, a second ago: the token in use is due, but lives. */
static void ask_late_for_what_is_due(void)
{
  (void)atexit(ask_late);
  client = fixture_client(false);
  if (!is_token(lucidauth_refresh(client, NULL, NULL)))
    _exit(1);
  fixture_store(100);
  seconds_ahead = 1;
}

static void what_is_due_is_not_refreshed_any_more(void **state)
{
  (void)state;
  assert_int_equal(fixture_status(start_child(ask_late_for_what_is_due)), TOKEN_A0);
  assert_int_equal(endpoint->posts, 1);
}

/* ---- while another thread closes the client ---- */

static void *close_client(void *closing)
{
  atomic_store((atomic_bool *)closing, true);
  lucidauth_close(client);
  return NULL;
}

static void end_while_it_is_closed(void)
{
  static atomic_bool closing;
  pthread_t thread;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_ticket ticket = LUCIDAUTH_TICKET_INIT;
  client = fixture_client(true);
  endpoint_hold();
  if (lucidauth_poll(lucidauth_get_account(client, NULL, NULL), &ticket, true, NULL, &error) || !endpoint_has_seen(1) ||
      pthread_create(&thread, NULL, close_client, &closing) != 0 || pthread_detach(thread) != 0 ||
      !fixture_wait_for(&closing))
    _exit(1);
}

static void a_flight_of_a_client_that_is_being_closed_is_waited_for(void **state)
{
  (void)state;
  pid_t child = start_child(end_while_it_is_closed);
  assert_true(endpoint_has_seen(1));
  for (int i = 0; i < 100; i++) /* the child is at its end by now; nothing depends on it */
    endpoint_pause();
  endpoint_go_on();
  assert_int_equal(fixture_status(child), 0);
  assert_true(fixture_stored("\"R1\""));
}

/* ---- from a signal's handler, which has interrupted the library ---- */

static bool interrupt;

int __real_pthread_cond_signal(pthread_cond_t *condition);
int __wrap_pthread_cond_signal(pthread_cond_t *condition);

/* The background's lock is held here. */
int __wrap_pthread_cond_signal(pthread_cond_t *condition)
{
  if (interrupt)
    raise(SIGUSR1);
  return __real_pthread_cond_signal(condition);
}

static void end_at_once(int number)
{
  (void)number;
  exit(0);
}

static void end_in_the_middle(void)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_ticket ticket = {.refresh = true};
  client = fixture_client(true);
  if (!is_token(lucidauth_token(client, NULL, NULL)))
    _exit(1);
  signal(SIGUSR1, end_at_once);
  interrupt = true;
  (void)lucidauth_poll(lucidauth_get_account(client, NULL, NULL), &ticket, true, NULL, &error);
  _exit(2);
}

static void a_handler_that_ends_the_process_does_end_it(void **state)
{
  (void)state;
  assert_int_equal(fixture_status(start_child(end_in_the_middle)), 0);
  assert_false(fixture_stored("pending"));
}

/* ---- while another thread adds accounts ---- */

static void *add_accounts(void *adding)
{
  char name[32];
  for (int i = 0; i < 100000; i++) {
    snprintf(name, sizeof name, "account-%d", i);
    (void)lucidauth_get_account(client, name, NULL);
    atomic_store((atomic_bool *)adding, i > 10);
  }
  return NULL;
}

static void end_while_accounts_are_added(void)
{
  static atomic_bool adding;
  pthread_t thread;
  lucidauth_options options = fixture_options(false);
  options.storage = LUCIDAUTH_MEMORY;
  client = fixture_open(&options);
  if (!is_token(lucidauth_token(client, NULL, NULL)) || pthread_create(&thread, NULL, add_accounts, &adding) != 0 ||
      pthread_detach(thread) != 0 || !fixture_wait_for(&adding))
    _exit(1);
}

/* ThreadSanitizer sees whether they do. */
static void accounts_that_are_added_do_not_get_in_the_way(void **state)
{
  (void)state;
  assert_int_equal(fixture_status(start_child(end_while_accounts_are_added)), 0);
}

/* ---- no way to be told of the end ---- */

static bool no_atexit;

int __real_atexit(void (*function)(void));
int __wrap_atexit(void (*function)(void));

int __wrap_atexit(void (*function)(void))
{
  return no_atexit ? -1 : __real_atexit(function);
}

static void ask_unheard(void)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  no_atexit = true;
  client = fixture_client(false);
  char *token = lucidauth_token(client, NULL, &error);
  report(token, &error);
}

static void nothing_is_spent_where_the_end_could_not_be_waited_for(void **state)
{
  (void)state;
  assert_int_equal(fixture_status(start_child(ask_unheard)), NO_TOKEN + LUCIDAUTH_NOT_READY);
  assert_int_equal(endpoint->posts, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_set_up, fixture_tear_down)

int main(void)
{
  const struct CMUnitTest tests[] = {
      TEST(no_refresh_begins_when_the_process_has_said_good_bye),
      TEST(nor_in_the_background),
      TEST(what_lives_is_still_handed_out),
      TEST(what_is_due_is_not_refreshed_any_more),
      TEST(a_flight_of_a_client_that_is_being_closed_is_waited_for),
      TEST(a_handler_that_ends_the_process_does_end_it),
      TEST(accounts_that_are_added_do_not_get_in_the_way),
      TEST(nothing_is_spent_where_the_end_could_not_be_waited_for),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
