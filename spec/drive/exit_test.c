/* The end of the process, and what other threads and the program's own last steps do meanwhile. Each test's process is
 * a child. What has to be said of it is its exit status, a number of the list below. */
#define _GNU_SOURCE
#include "scene.h"

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
  lucidauth_error error;
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
  client = scene_client(background);
  if (!lucidauth_token(client, NULL, NULL))
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
  assert_int_equal(scene_status(start_child(refresh_late_in_the_foreground)), NO_TOKEN + LUCIDAUTH_NOT_READY);
  assert_int_equal(endpoint->posts, 1);
  assert_true(scene_stored("\"R1\""));
  assert_false(scene_stored("pending"));
}

static void nor_in_the_background(void **state)
{
  (void)state;
  assert_int_equal(scene_status(start_child(refresh_late_in_the_background)), NO_TOKEN + LUCIDAUTH_NOT_READY);
  assert_int_equal(endpoint->posts, 1);
  assert_false(scene_stored("pending"));
}

static void ask_late(void)
{
  lucidauth_error error;
  char *token = lucidauth_token(client, NULL, &error);
  report(token, &error);
}

static void ask_late_for_what_lives(void)
{
  (void)atexit(ask_late);
  client = scene_client(false);
  if (!lucidauth_refresh(client, NULL, NULL))
    _exit(1);
}

static void what_lives_is_still_handed_out(void **state)
{
  (void)state;
  assert_int_equal(scene_status(start_child(ask_late_for_what_lives)), TOKEN_A1);
}

/* By another program: the token in use is due, but lives. */
static void ask_late_for_what_is_due(void)
{
  (void)atexit(ask_late);
  client = scene_client(false);
  if (!lucidauth_refresh(client, NULL, NULL))
    _exit(1);
  scene_store(100);
}

static void what_is_due_is_not_refreshed_any_more(void **state)
{
  (void)state;
  assert_int_equal(scene_status(start_child(ask_late_for_what_is_due)), TOKEN_A0);
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
  lucidauth_error error;
  lucidauth_ticket ticket = {0};
  client = scene_client(true);
  endpoint_hold();
  if (lucidauth_poll(lucidauth_get_account(client, NULL, NULL), &ticket, true, NULL, &error) || !endpoint_has_seen(1) ||
      pthread_create(&thread, NULL, close_client, &closing) != 0 || pthread_detach(thread) != 0 ||
      !scene_wait_for(&closing))
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
  assert_int_equal(scene_status(child), 0);
  assert_true(scene_stored("\"R1\""));
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
  lucidauth_error error;
  no_atexit = true;
  client = scene_client(false);
  char *token = lucidauth_token(client, NULL, &error);
  report(token, &error);
}

static void nothing_is_spent_where_the_end_could_not_be_waited_for(void **state)
{
  (void)state;
  assert_int_equal(scene_status(start_child(ask_unheard)), NO_TOKEN + LUCIDAUTH_NOT_READY);
  assert_int_equal(endpoint->posts, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scene_set_up, scene_tear_down)

int main(void)
{
  const struct CMUnitTest tests[] = {
      TEST(no_refresh_begins_when_the_process_has_said_good_bye),
      TEST(nor_in_the_background),
      TEST(what_lives_is_still_handed_out),
      TEST(what_is_due_is_not_refreshed_any_more),
      TEST(a_flight_of_a_client_that_is_being_closed_is_waited_for),
      TEST(nothing_is_spent_where_the_end_could_not_be_waited_for),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
