/* lucidauth_close, and what on_event may do meanwhile. */
#define _GNU_SOURCE
#include "fixture.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct {
  lucidauth *client;
  lucidauth_account *account;
  bool closing;
  int events;
  char names[200];
} world;

/* Every function that a program may call here, while the client is closed around it. */
static void take_event(void *unused, const lucidauth_event *event)
{
  (void)unused;
  size_t length = strlen(world.names);
  snprintf(world.names + length, sizeof world.names - length, "%s ", lucidauth_event_name(event->kind));
  if (!world.closing)
    return;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_status status = LUCIDAUTH_STATUS_INIT;
  lucidauth_ticket ticket = {.refresh = true};
  assert_false(lucidauth_get_status(world.client, event->account, &status, NULL));
  assert_null(lucidauth_get_account(world.client, NULL, &error));
  assert_int_equal(error.code, LUCIDAUTH_NOT_READY);
  assert_null(lucidauth_refresh(world.client, NULL, &error));
  assert_int_equal(error.code, LUCIDAUTH_NOT_READY);
  char *token = lucidauth_poll(world.account, &ticket, true, NULL, &error);
  assert_null(token);
  (void)lucidauth_is_current(world.account, 1);
  (void)lucidauth_reject(world.client, NULL, "A7", NULL);
  lucidauth_deliver_events(world.client);
  world.events++;
}

static void open_client(bool background)
{
  lucidauth_options options = fixture_options(background);
  memset(&world, 0, sizeof world);
  options.on_event = take_event;
  world.client = fixture_open(&options);
  world.account = lucidauth_get_account(world.client, NULL, NULL);
  assert_non_null(world.account);
}

static void close_client(void)
{
  world.closing = true;
  lucidauth_close(world.client);
}

static void events_of_the_last_flight_are_given_while_the_client_is_still_there(void **state)
{
  (void)state;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_ticket ticket = LUCIDAUTH_TICKET_INIT;
  open_client(true);
  endpoint_hold();
  assert_null(lucidauth_poll(world.account, &ticket, true, NULL, &error));
  assert_true(endpoint_has_seen(1));
  endpoint_go_on();
  close_client();
  assert_string_equal(world.names, "refreshed ");
  assert_int_equal(world.events, 1);
  assert_int_equal(endpoint->posts, 1);
  assert_true(fixture_stored("\"R1\""));
}

static void *refresh(void *unused)
{
  (void)unused;
  lucidauth_free_token(lucidauth_refresh(world.client, NULL, NULL));
  return NULL;
}

static void what_is_saved_at_the_last_moment_is_told(void **state)
{
  (void)state;
  for (int background = 0; background < 2; background++) {
    char aside[96];
    snprintf(aside, sizeof aside, "%s.aside", fixture.path);
    atomic_store(&endpoint->posts, 0);
    atomic_store(&endpoint->rotation, 0);
    fixture_store(-10);
    open_client(background);
    pthread_t thread;
    endpoint_hold();
    assert_int_equal(pthread_create(&thread, NULL, refresh, NULL), 0);
    assert_true(endpoint_has_seen(1));
    assert_true(rename(fixture.path, aside) == 0 && mkdir(fixture.path, 0700) == 0); /* stops even root */
    endpoint_go_on();
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_string_equal(world.names, "refreshed save_failed ");
    assert_true(rmdir(fixture.path) == 0 && rename(aside, fixture.path) == 0);
    close_client();
    assert_string_equal(world.names, "refreshed save_failed saved ");
    assert_int_equal(world.events, 1);
    assert_true(fixture_stored("\"R1\""));
  }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_set_up, fixture_tear_down)

int main(void)
{
  alarm(ENDPOINT_PATIENCE);
  const struct CMUnitTest tests[] = {
      TEST(events_of_the_last_flight_are_given_while_the_client_is_still_there),
      TEST(what_is_saved_at_the_last_moment_is_told),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
