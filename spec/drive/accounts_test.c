/* Accounts by their names. */
#define _GNU_SOURCE
#include "../../src/client/client.h"
#include "scene.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static lucidauth *client_of_the_folder(void)
{
  lucidauth_options options = scene_options(false);
  options.storage = LUCIDAUTH_DIRECTORY;
  options.path = scene.folder;
  return scene_open(&options);
}

/* Both share a file: with a flow each, one would spend what the other has spent. */
static void an_account_without_a_name_is_the_default_one(void **state)
{
  (void)state;
  lucidauth *client = client_of_the_folder();
  lucidauth_account *account = lucidauth_get_account(client, NULL, NULL);
  assert_non_null(account);
  assert_ptr_equal(lucidauth_get_account(client, "", NULL), account);
  assert_ptr_equal(lucidauth_get_account(client, "default", NULL), account);
  scene_assert_token(lucidauth_token(client, "", NULL), "A1");
  scene_assert_token(lucidauth_token(client, NULL, NULL), "A1");
  lucidauth_close(client);
  client = scene_client(false);
  assert_non_null(lucidauth_get_account(client, "", NULL));
  lucidauth_close(client);
}

/* ---- many of them ---- */

static long comparisons;

int __real_strcmp(const char *one, const char *other);

/* Libraries call it too. */
__attribute__((visibility("default"))) int __wrap_strcmp(const char *one, const char *other);

int __wrap_strcmp(const char *one, const char *other)
{
  comparisons++;
  return __real_strcmp(one, other);
}

static void an_account_is_found_without_a_look_at_all_of_them(void **state)
{
  (void)state;
  enum { MANY = 5000 };
  static lucidauth_account *accounts[MANY];
  char name[32];
  lucidauth_options options = scene_options(false);
  options.storage = LUCIDAUTH_MEMORY;
  lucidauth *client = scene_open(&options);
  comparisons = 0;
  for (int i = 0; i < MANY; i++) {
    snprintf(name, sizeof name, "user-%d", i);
    accounts[i] = lucidauth_get_account(client, name, NULL);
    assert_non_null(accounts[i]);
  }
  for (int i = 0; i < MANY; i++) {
    snprintf(name, sizeof name, "user-%d", i);
    if (lucidauth_get_account(client, name, NULL) != accounts[i])
      fail_msg("%s is another account now", name);
  }
  assert_true(comparisons < 20L * MANY);
  lucidauth_close(client);
}

/* ---- lucidauth_get_status ---- */

static void a_status_is_filled_as_far_as_the_program_knows_it(void **state)
{
  (void)state;
  struct {
    lucidauth_status known;
    char later[8];
  } status = {.known = LUCIDAUTH_STATUS_INIT, .later = "later"};
  lucidauth_error error = {.code = LUCIDAUTH_OK};
  lucidauth *client = scene_client(false);
  scene_assert_token(lucidauth_token(client, NULL, NULL), "A1");
  status.known.size = sizeof status;
  assert_true(lucidauth_get_status(client, NULL, &status.known, NULL));
  assert_string_equal(status.known.state, "ready");
  assert_int_equal(status.known.size, sizeof status);
  assert_string_equal(status.later, "later");
  status.known = (lucidauth_status){.state = "mine"};
  assert_false(lucidauth_get_status(client, NULL, &status.known, &error));
  assert_int_equal(error.code, LUCIDAUTH_CONFIG);
  assert_non_null(strstr(error.message, "LUCIDAUTH_STATUS_INIT"));
  assert_string_equal(status.known.state, "mine");
  lucidauth_close(client);
}

static void an_account_that_there_is_no_room_for_has_no_status(void **state)
{
  (void)state;
  lucidauth_status status = LUCIDAUTH_STATUS_INIT;
  lucidauth_error error = {.code = LUCIDAUTH_OK};
  lucidauth *client = scene_client(false);
  assert_false(lucidauth_get_status(client, "another", &status, &error));
  assert_int_equal(error.code, LUCIDAUTH_CONFIG);
  assert_non_null(strstr(error.message, "another"));
  lucidauth_close(client);
}

/* ---- lucidauth_reject ---- */

static void a_rejection_says_whether_it_was_heard(void **state)
{
  (void)state;
  lucidauth_error error = {.code = LUCIDAUTH_OK};
  lucidauth *client = scene_client(false);
  scene_assert_token(lucidauth_token(client, NULL, NULL), "A1");
  assert_true(lucidauth_reject(client, NULL, "A1", &error));
  scene_assert_token(lucidauth_token(client, NULL, NULL), "A2");
  assert_true(lucidauth_reject(client, NULL, "A1", NULL));
  scene_assert_token(lucidauth_token(client, NULL, NULL), "A2");
  assert_false(lucidauth_reject(client, "another", "A2", &error));
  assert_int_equal(error.code, LUCIDAUTH_CONFIG);
  assert_non_null(strstr(error.message, "another"));
  scene_assert_token(lucidauth_token(client, NULL, NULL), "A2");
  lucidauth_close(client);
}

static void a_rejection_of_nothing_changes_nothing(void **state)
{
  (void)state;
  static const char *const nothing[] = {NULL, ""};
  lucidauth *client = scene_client(false);
  scene_assert_token(lucidauth_token(client, NULL, NULL), "A1");
  for (int i = 0; i < 2; i++) {
    lucidauth_error error = {.code = LUCIDAUTH_OK};
    assert_false(lucidauth_reject(client, NULL, nothing[i], &error));
    assert_int_equal(error.code, LUCIDAUTH_CONFIG);
    assert_false(lucidauth_reject(client, NULL, nothing[i], NULL));
  }
  scene_assert_token(lucidauth_token(client, NULL, NULL), "A1");
  lucidauth_close(client);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scene_set_up, scene_tear_down)

int main(void)
{
  alarm(2 * ENDPOINT_PATIENCE);
  const struct CMUnitTest tests[] = {
      TEST(an_account_without_a_name_is_the_default_one),
      TEST(an_account_is_found_without_a_look_at_all_of_them),
      TEST(a_status_is_filled_as_far_as_the_program_knows_it),
      TEST(an_account_that_there_is_no_room_for_has_no_status),
      TEST(a_rejection_says_whether_it_was_heard),
      TEST(a_rejection_of_nothing_changes_nothing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
