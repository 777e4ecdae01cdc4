/* Accounts by their names. */
#define _GNU_SOURCE
#include "../client.h"
#include "scene.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
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
      TEST(a_rejection_says_whether_it_was_heard),
      TEST(a_rejection_of_nothing_changes_nothing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
