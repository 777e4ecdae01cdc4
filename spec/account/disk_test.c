/* A disk that hangs holds up nobody who has a good token. */
#define _GNU_SOURCE
#include "fixture.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct {
  const char *file; /* part of its name */
  atomic_bool hangs, hanging, goes_on;
} disk;

int __real_lstat(const char *path, struct stat *found);
int __wrap_lstat(const char *path, struct stat *found);

int __wrap_lstat(const char *path, struct stat *found)
{
  if (atomic_load(&disk.hangs) && strstr(path, disk.file) && atomic_exchange(&disk.hangs, false)) {
    atomic_store(&disk.hanging, true);
    fixture_wait_for(&disk.goes_on);
  }
  return __real_lstat(path, found);
}

/* Seconds that the clock of the library is ahead. */
static atomic_int ahead;

time_t __real_time(time_t *second);

/* Libraries call it too. */
__attribute__((visibility("default"))) time_t __wrap_time(time_t *second);

time_t __wrap_time(time_t *second)
{
  time_t now = __real_time(NULL) + atomic_load(&ahead);
  if (second)
    *second = now;
  return now;
}

static int set_up(void **state)
{
  memset(&disk, 0, sizeof disk);
  disk.file = "";
  return fixture_set_up(state);
}

static void *ask(void *client)
{
  return lucidauth_token(client, NULL, NULL);
}

static void *refresh(void *client)
{
  return lucidauth_refresh(client, NULL, NULL);
}

/* A second has passed, and it is in the middle of asking whether another program has rewritten the file. */
static pthread_t start_hanging(lucidauth *client)
{
  pthread_t thread;
  atomic_fetch_add(&ahead, 1);
  atomic_store(&disk.hangs, true);
  assert_int_equal(pthread_create(&thread, NULL, ask, client), 0);
  assert_true(fixture_wait_for(&disk.hanging));
  return thread;
}

static void assert_got(pthread_t thread, const char *expected)
{
  void *token;
  assert_int_equal(pthread_join(thread, &token), 0);
  fixture_assert_token(token, expected);
}

static void others_get_the_token_in_use(void **state)
{
  (void)state;
  uint64_t serial;
  lucidauth *client = fixture_client(false);
  lucidauth_account *account = lucidauth_get_account(client, NULL, NULL);
  lucidauth_status status = LUCIDAUTH_STATUS_INIT;
  fixture_assert_token(lucidauth_token_of(account, &serial, NULL), "A1");
  pthread_t thread = start_hanging(client);
  fixture_assert_token(lucidauth_token(client, NULL, NULL), "A1");
  assert_true(lucidauth_is_current(account, serial));
  assert_true(lucidauth_get_status(client, NULL, &status, NULL));
  assert_string_equal(status.state, "ready");
  atomic_store(&disk.goes_on, true);
  assert_got(thread, "A1");
  assert_int_equal(endpoint->posts, 1);
  lucidauth_close(client);
}

static void a_refresh_waits_for_it(void **state)
{
  (void)state;
  pthread_t refreshes;
  lucidauth *client = fixture_client(false);
  fixture_assert_token(lucidauth_token(client, NULL, NULL), "A1");
  pthread_t thread = start_hanging(client);
  assert_int_equal(pthread_create(&refreshes, NULL, refresh, client), 0);
  for (int i = 0; i < 20; i++) /* it waits by now; nothing depends on it */
    endpoint_pause();
  assert_int_equal(endpoint->posts, 1);
  atomic_store(&disk.goes_on, true);
  void *token;
  assert_int_equal(pthread_join(thread, &token), 0);
  assert_non_null(token);
  lucidauth_free_token(token);
  assert_got(refreshes, "A2");
  lucidauth_close(client);
}

static void a_rejection_meanwhile_is_heard(void **state)
{
  (void)state;
  lucidauth *client = fixture_client(false);
  fixture_assert_token(lucidauth_token(client, NULL, NULL), "A1");
  pthread_t thread = start_hanging(client);
  assert_true(lucidauth_reject(client, NULL, "A1", NULL));
  atomic_store(&disk.goes_on, true);
  assert_got(thread, "A2");
  assert_int_equal(endpoint->posts, 2);
  lucidauth_close(client);
}

/* The background's thread asks about every account once a second. */
static void in_the_background_it_holds_up_its_own_account_alone(void **state)
{
  (void)state;
  lucidauth_options options = fixture_options(true);
  options.storage = LUCIDAUTH_DIRECTORY;
  options.path = fixture.folder;
  fixture_store_account("slow", "{\"access_token\": \"S\", \"refresh_token\": \"RS\", \"expires_at\": 9999999999}");
  fixture_store_account("fast", "{\"refresh_token\": \"R0\"}");
  lucidauth *client = fixture_open(&options);
  fixture_assert_token(lucidauth_token(client, "slow", NULL), "S");
  disk.file = "slow.json";
  atomic_store(&disk.hangs, true);
  assert_true(fixture_wait_for(&disk.hanging));
  fixture_assert_token(lucidauth_token(client, "fast", NULL), "A1");
  fixture_assert_token(lucidauth_refresh(client, "fast", NULL), "A2");
  fixture_assert_token(lucidauth_token(client, "slow", NULL), "S");
  assert_false(lucidauth_leave(client));
  atomic_store(&disk.goes_on, true);
  lucidauth_close(client);
}

/* The storage is used by one thread at a time. */
static void and_a_flight_of_that_account_waits_for_it(void **state)
{
  (void)state;
  pthread_t thread;
  lucidauth *client = fixture_client(true);
  fixture_assert_token(lucidauth_token(client, NULL, NULL), "A1");
  disk.file = "token.json";
  atomic_store(&disk.hangs, true);
  assert_true(fixture_wait_for(&disk.hanging));
  assert_int_equal(pthread_create(&thread, NULL, refresh, client), 0);
  for (int i = 0; i < 50; i++) /* it waits by now; nothing depends on it */
    endpoint_pause();
  assert_int_equal(endpoint->posts, 1);
  atomic_store(&disk.goes_on, true);
  assert_got(thread, "A2");
  lucidauth_close(client);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, fixture_tear_down)

int main(void)
{
  alarm(ENDPOINT_PATIENCE);
  const struct CMUnitTest tests[] = {
      TEST(others_get_the_token_in_use),
      TEST(a_refresh_waits_for_it),
      TEST(a_rejection_meanwhile_is_heard),
      TEST(in_the_background_it_holds_up_its_own_account_alone),
      TEST(and_a_flight_of_that_account_waits_for_it),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
