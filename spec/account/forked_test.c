/* fork() while another thread is in the very middle of changing what a flight owns. */
#define _GNU_SOURCE
#include "../account/waiting.h"
#include "../base/secret.h"
#include "fixture.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include <cmocka.h>

static struct {
  lucidauth *client;
  char *token;
  pthread_t stopping_thread;
  atomic_int
      marked_texts; /* this many of them are freed before the thread stops, with a pointer to the last still there */
  atomic_bool flying, stopped, forked;
} world;

/* ---- the thread stops where it has freed a text, and not yet put another one in its place ---- */

void __real_secret_free(char *text);
void __wrap_secret_free(char *text);

void __wrap_secret_free(char *text)
{
  bool stop = text && atomic_load(&world.flying) && pthread_equal(pthread_self(), world.stopping_thread) &&
              strstr(text, "\"pending\"") && atomic_fetch_sub(&world.marked_texts, 1) == 1;
  __real_secret_free(text);
  if (!stop)
    return;
  atomic_store(&world.stopped, true);
  fixture_wait_for(&world.forked);
}

static void *fly(void *unused)
{
  (void)unused;
  world.stopping_thread = pthread_self();
  atomic_store(&world.flying, true);
  world.token = lucidauth_token(world.client, NULL, NULL);
  return NULL;
}

static void report(bool good)
{
  _exit(good ? 0 : 1);
}

static void close_client(void)
{
  lucidauth_close(world.client);
  report(true);
}

static void get_a1_and_close(void)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  char *token = lucidauth_token(world.client, NULL, &error);
  bool good = token && strcmp(token, "A1") == 0;
  fputs(error.message, stderr);
  lucidauth_free_token(token);
  lucidauth_close(world.client);
  report(good);
}

/* Its record was in the memory that is left behind, and the configured refresh token is spent. */
static void get_nothing_and_close(void)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  char *token = lucidauth_token(world.client, NULL, &error);
  lucidauth_close(world.client);
  report(!token && error.code == LUCIDAUTH_INVALID_GRANT);
}

static void fork_in_the_middle(lucidauth_storage storage, int marked_texts, void (*body)(void))
{
  pthread_t thread;
  lucidauth_options options = fixture_options(false);
  options.storage = storage;
  memset(&world, 0, sizeof world);
  atomic_store(&world.marked_texts, marked_texts);
  world.client = fixture_open(&options);
  assert_int_equal(pthread_create(&thread, NULL, fly, NULL), 0);
  assert_true(fixture_wait_for(&world.stopped));
  fflush(stdout);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    alarm(ENDPOINT_PATIENCE);
    body();
  }
  atomic_store(&world.forked, true);
  assert_int_equal(pthread_join(thread, NULL), 0);
  fixture_assert_token(world.token, "A1");
  assert_int_equal(fixture_status(child), 0);
  lucidauth_close(world.client);
}

static void a_child_closes_a_client_whose_flow_was_being_changed(void **state)
{
  (void)state;
  fork_in_the_middle(LUCIDAUTH_FILE, 1, close_client);
}

static void a_child_uses_a_client_whose_flow_was_being_changed(void **state)
{
  (void)state;
  fork_in_the_middle(LUCIDAUTH_FILE, 1, get_a1_and_close);
  assert_int_equal(endpoint->posts, 1);
}

static void a_child_closes_a_client_whose_storage_was_being_changed(void **state)
{
  (void)state;
  fork_in_the_middle(LUCIDAUTH_MEMORY, 2, close_client);
}

static void a_child_uses_a_client_whose_storage_was_being_changed(void **state)
{
  (void)state;
  fork_in_the_middle(LUCIDAUTH_MEMORY, 2, get_nothing_and_close);
}

/* ---- in the background ---- */

/* ThreadSanitizer knows no child that starts a thread. */
#if defined(__SANITIZE_THREAD__)
enum { FORKED_CHILD_HAS_THREADS = false };
#else
enum { FORKED_CHILD_HAS_THREADS = true };
#endif

static void poll_on(lucidauth_ticket *ticket)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_account *account = lucidauth_get_account(world.client, NULL, NULL);
  char *token = lucidauth_poll(account, ticket, true, NULL, &error);
  while (!token && error.code == LUCIDAUTH_NOT_READY) {
    endpoint_pause();
    token = lucidauth_poll(account, ticket, true, NULL, &error);
  }
  fputs(error.message, stderr);
  bool good = token && strcmp(token, ticket->refresh ? "A2" : "A1") == 0;
  lucidauth_free_token(token);
  lucidauth_close(world.client);
  report(good);
}

/* The flight that the ticket was for is the parent's; the child has to fly by itself. */
static void a_ticket_is_good_on_both_sides_of_a_fork(void **state)
{
  (void)state;
  if (!FORKED_CHILD_HAS_THREADS)
    skip();
  for (int refresh = 0; refresh < 2; refresh++) {
    lucidauth_error error = LUCIDAUTH_ERROR_INIT;
    lucidauth_ticket ticket = {.refresh = refresh};
    fixture_store(refresh ? 3000 : -10);
    atomic_store(&endpoint->rotation, 0);
    atomic_store(&endpoint->posts, 0);
    world.client = fixture_client(true);
    lucidauth_account *account = lucidauth_get_account(world.client, NULL, NULL);
    if (refresh)
      fixture_assert_token(lucidauth_token(world.client, NULL, NULL), "A0");
    endpoint_hold();
    while (!waiting_has_joined(&ticket)) /* the thread may be having a look of its own */
      assert_null(lucidauth_poll(account, &ticket, true, NULL, &error));
    assert_true(endpoint_has_seen(1));
    fflush(stdout);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
      alarm(ENDPOINT_PATIENCE);
      poll_on(&ticket);
    }
    endpoint_go_on();
    assert_int_equal(fixture_status(child), 0);
    assert_int_equal(endpoint->posts, 1 + refresh);
    lucidauth_close(world.client);
  }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_set_up, fixture_tear_down)

int main(void)
{
  alarm(3 * ENDPOINT_PATIENCE);
  const struct CMUnitTest tests[] = {
      TEST(a_child_closes_a_client_whose_flow_was_being_changed),
      TEST(a_child_uses_a_client_whose_flow_was_being_changed),
      TEST(a_child_closes_a_client_whose_storage_was_being_changed),
      TEST(a_child_uses_a_client_whose_storage_was_being_changed),
      TEST(a_ticket_is_good_on_both_sides_of_a_fork),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
