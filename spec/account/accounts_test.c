/* Accounts by their names. */
#define _GNU_SOURCE
#include "../../src/account/parts.h"
#include "../../src/api/client.h"
#include "fixture.h"
#include "next_action.h"

#include <dirent.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static lucidauth *client_that_keeps(size_t max_accounts, bool background)
{
  lucidauth_options options = fixture_options(background);
  options.storage = LUCIDAUTH_DIRECTORY;
  options.path = fixture.folder;
  options.max_accounts = max_accounts;
  return fixture_open(&options);
}

static lucidauth *client_of_the_folder(void)
{
  return client_that_keeps(10000, false);
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
  fixture_assert_token(lucidauth_token(client, "", NULL), "A1");
  fixture_assert_token(lucidauth_token(client, NULL, NULL), "A1");
  lucidauth_close(client);
  client = fixture_client(false);
  assert_non_null(lucidauth_get_account(client, "", NULL));
  lucidauth_close(client);
}

/* ---- many of them ---- */

static atomic_long comparisons;

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
  lucidauth_options options = fixture_options(false);
  options.storage = LUCIDAUTH_MEMORY;
  lucidauth *client = fixture_open(&options);
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

/* ---- those that the storage does not know ---- */

enum { MADE_UP = 200 };

static int files_in_folder(void)
{
  int count = 0;
  DIR *folder = opendir(fixture.folder);
  assert_non_null(folder);
  for (const struct dirent *entry; (entry = readdir(folder)) != NULL;)
    count += entry->d_name[0] != '.';
  closedir(folder);
  return count;
}

typedef void (*use)(lucidauth *client, const char *name);

static void ask(lucidauth *client, const char *name)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  assert_null(lucidauth_token(client, name, &error));
  assert_int_equal(error.code, LUCIDAUTH_CONFIG);
}

static void refresh(lucidauth *client, const char *name)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  assert_null(lucidauth_refresh(client, name, &error));
  assert_int_equal(error.code, LUCIDAUTH_CONFIG);
}

static void reject(lucidauth *client, const char *name)
{
  assert_true(lucidauth_reject(client, name, "A0", NULL));
}

static void get_status(lucidauth *client, const char *name)
{
  lucidauth_status status = LUCIDAUTH_STATUS_INIT;
  assert_true(lucidauth_get_status(client, name, &status, NULL));
  assert_string_equal(status.state, "empty");
}

static void get_handle(lucidauth *client, const char *name)
{
  lucidauth_account *account = lucidauth_get_account(client, name, NULL);
  assert_non_null(account);
  assert_false(lucidauth_is_current(account, 0));
  lucidauth_release_account(account);
}

static void poll_without_patience(lucidauth *client, const char *name)
{
  lucidauth_ticket ticket = {.refresh = false};
  lucidauth_account *account = lucidauth_get_account(client, name, NULL);
  assert_null(lucidauth_poll(account, &ticket, false, NULL, NULL));
  lucidauth_release_account(account);
}

static void make_up_names(lucidauth *client, use of)
{
  char name[32];
  for (int i = 0; i < MADE_UP; i++) {
    snprintf(name, sizeof name, "user-%d", i);
    of(client, name);
  }
}

static void of_made_up_names_nothing_stays(void **state)
{
  (void)state;
  static const use ways[] = {ask, refresh, reject, get_status, get_handle};
  for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
    lucidauth *client = client_of_the_folder();
    make_up_names(client, ways[i]);
    assert_int_equal(client->roster.count, 0);
    assert_int_equal(files_in_folder(), 0);
    lucidauth_close(client);
  }
}

/* Those whose flight is still under way when they are given back leave later. */
static void of_made_up_names_nothing_stays_in_the_background(void **state)
{
  (void)state;
  static const use ways[] = {ask, refresh, get_status, get_handle, poll_without_patience};
  for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
    lucidauth *client = client_that_keeps(10000, true);
    make_up_names(client, ways[i]);
    double deadline = endpoint_now() + ENDPOINT_PATIENCE;
    while (client->roster.count > 1 && endpoint_now() < deadline) {
      get_handle(client, "another");
      endpoint_pause();
    }
    assert_true(client->roster.count <= 1);
    assert_int_equal(files_in_folder(), 0);
    lucidauth_close(client);
  }
}

/* A record that others put there later is found. */
static void an_account_is_known_once_it_is_stored(void **state)
{
  (void)state;
  lucidauth *client = client_of_the_folder();
  ask(client, "anna");
  fixture_store_account("anna", "{\"access_token\": \"A\", \"refresh_token\": \"R\", \"expires_at\": 99999999999}");
  fixture_assert_token(lucidauth_token(client, "anna", NULL), "A");
  assert_int_equal(client->roster.count, 1);
  lucidauth_close(client);
}

/* ---- more than are kept ---- */

static void store_accounts(const char *names)
{
  char name[2] = "", text[120];
  for (; (name[0] = *names) != '\0'; names++) {
    snprintf(text, sizeof text,
             "{\"access_token\": \"token-%s\", \"refresh_token\": \"R\", \"expires_at\": %.0f, \"expires_in\": 3600}",
             name, (double)time(NULL) + 3600);
    fixture_store_account(name, text);
  }
}

static void use_accounts(lucidauth *client, const char *names)
{
  char name[2] = "", token[16];
  for (; (name[0] = *names) != '\0'; names++) {
    snprintf(token, sizeof token, "token-%s", name);
    fixture_assert_token(lucidauth_token(client, name, NULL), token);
  }
}

/* In memory, whatever their order. */
static void assert_kept(const lucidauth *client, const char *names)
{
  size_t count = 0;
  for (const lucidauth_account *account = client->roster.accounts; account; account = account->place.next, count++)
    if (!strstr(names, account->name))
      fail_msg("%s is kept", account->name);
  assert_int_equal(count, strlen(names));
  assert_int_equal(client->roster.count, count);
}

static void the_least_recently_used_account_leaves(void **state)
{
  (void)state;
  store_accounts("abcde");
  for (int background = 0; background <= 1; background++) {
    lucidauth *client = client_that_keeps(3, background);
    use_accounts(client, "abc");
    assert_kept(client, "abc");
    use_accounts(client, "ad");
    assert_kept(client, "acd");
    use_accounts(client, "e");
    assert_kept(client, "ade");
    use_accounts(client, "b");
    assert_kept(client, "bde");
    use_accounts(client, "abcdeabcde");
    assert_kept(client, "cde");
    lucidauth_close(client);
  }
}

static void an_account_whose_handle_is_out_stays(void **state)
{
  (void)state;
  uint64_t serial = 0;
  store_accounts("abcd");
  lucidauth *client = client_that_keeps(2, false);
  lucidauth_account *a = lucidauth_get_account(client, "a", NULL);
  assert_ptr_equal(lucidauth_get_account(client, "a", NULL), a);
  fixture_assert_token(lucidauth_token_of(a, &serial, NULL), "token-a");
  use_accounts(client, "bcd");
  assert_kept(client, "ad");
  lucidauth_release_account(a);
  use_accounts(client, "bcd");
  assert_kept(client, "ad");
  assert_true(lucidauth_is_current(a, serial));
  lucidauth_release_account(a);
  use_accounts(client, "bcd");
  assert_kept(client, "cd");
  lucidauth_release_account(NULL);
  lucidauth_close(client);
}

/* Nobody has to give one back before more can be had; afterwards no more are kept than before. */
static void handles_of_more_accounts_than_are_kept_can_be_had(void **state)
{
  (void)state;
  lucidauth_account *accounts[4];
  store_accounts("abcd");
  lucidauth *client = client_that_keeps(1, false);
  for (int i = 0; i < 4; i++)
    accounts[i] = lucidauth_get_account(client, (char[]){(char)('a' + i), '\0'}, NULL);
  use_accounts(client, "abcd");
  assert_kept(client, "abcd");
  for (int i = 0; i < 4; i++)
    lucidauth_release_account(accounts[i]);
  assert_kept(client, "d");
  lucidauth_close(client);
}

static void the_default_account_stays(void **state)
{
  (void)state;
  store_accounts("abc");
  lucidauth *client = client_that_keeps(1, false);
  fixture_assert_token(lucidauth_token(client, NULL, NULL), "A1");
  use_accounts(client, "abc");
  lucidauth_status status = LUCIDAUTH_STATUS_INIT;
  assert_true(lucidauth_get_status(client, NULL, &status, NULL));
  assert_int_equal(status.refreshes, 1);
  lucidauth_close(client);
}

static void a_rejected_token_does_not_come_back_with_its_account(void **state)
{
  (void)state;
  store_accounts("abcd");
  lucidauth *client = client_that_keeps(1, false);
  use_accounts(client, "a");
  assert_true(lucidauth_reject(client, "a", "token-a", NULL));
  use_accounts(client, "bcd");
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  char *token = lucidauth_token(client, "a", &error);
  assert_true(!token || strcmp(token, "token-a") != 0);
  lucidauth_free_token(token);
  lucidauth_close(client);
}

/* ---- a storage of the program's own ---- */

static const char due[] = "{\"access_token\": \"A0\", \"refresh_token\": \"R0\", \"expires_at\": 1}";

static lucidauth *client_of_an_own_storage(size_t max_accounts)
{
  lucidauth_options options = fixture_own_storage();
  options.max_accounts = max_accounts;
  return fixture_open(&options);
}

/* Carry a flight on to its end, or to this step. `save`: what comes of saving new tokens. */
static void go_on_until(lucidauth_flight *flight, lucidauth_step last, const char *record, lucidauth_result save)
{
  lucidauth_result result = LUCIDAUTH_RESULT_OK;
  const char *text = NULL;
  bool posted = false;
  char kept[4000];
  for (;;) {
    lucidauth_action action = next_action(flight, result, text);
    result = LUCIDAUTH_RESULT_OK;
    text = NULL;
    if (action.step == last || action.step == LUCIDAUTH_STEP_DONE)
      return;
    if (action.step == LUCIDAUTH_STEP_POST) {
      lucidauth_flight_post(flight);
      posted = true;
    } else if (action.step == LUCIDAUTH_STEP_SAVE && posted) {
      result = save;
    } else if (action.step == LUCIDAUTH_STEP_SAVE) {
      snprintf(kept, sizeof kept, "%s", action.record);
      record = kept;
    } else if (action.step == LUCIDAUTH_STEP_LOAD) {
      result = record ? LUCIDAUTH_RESULT_OK : LUCIDAUTH_RESULT_NONE;
      text = record;
    }
  }
}

static lucidauth_flight *begin_flight(lucidauth *client, const char *name)
{
  lucidauth_account *account = lucidauth_get_account(client, name, NULL);
  lucidauth_flight *flight = lucidauth_flight_begin(account, false, NULL, NULL);
  lucidauth_release_account(account);
  assert_non_null(flight);
  return flight;
}

static void look_for_accounts(lucidauth *client)
{
  char name[32];
  for (int i = 0; i < MADE_UP; i++) {
    snprintf(name, sizeof name, "user-%d", i);
    lucidauth_flight *flight = begin_flight(client, name);
    go_on_until(flight, LUCIDAUTH_STEP_DONE, NULL, LUCIDAUTH_RESULT_OK);
    assert_null(lucidauth_flight_end(flight, NULL, NULL));
  }
}

static void of_made_up_names_an_own_storage_leaves_nothing_either(void **state)
{
  (void)state;
  lucidauth *client = client_of_an_own_storage(10000);
  look_for_accounts(client);
  assert_int_equal(client->roster.count, 0);
  lucidauth_close(client);
}

static void unsaved_tokens_stay(void **state)
{
  (void)state;
  lucidauth *client = client_of_an_own_storage(1);
  lucidauth_flight *flight = begin_flight(client, "anna");
  go_on_until(flight, LUCIDAUTH_STEP_DONE, due, LUCIDAUTH_RESULT_FAILED);
  fixture_assert_token(lucidauth_flight_end(flight, NULL, NULL), "A1");
  look_for_accounts(client);
  assert_int_equal(client->roster.count, 1);
  assert_string_equal(client->roster.accounts->name, "anna");
  lucidauth_close(client);
}

/* Also one that its program has left before its end: the next one gives the lock back. */
static void a_flight_stays(void **state)
{
  (void)state;
  lucidauth *client = client_of_an_own_storage(1);
  lucidauth_flight *flight = begin_flight(client, "anna");
  go_on_until(flight, LUCIDAUTH_STEP_POST, due, LUCIDAUTH_RESULT_OK);
  look_for_accounts(client);
  assert_int_equal(client->roster.count, 1);
  assert_null(lucidauth_flight_end(flight, NULL, NULL));
  look_for_accounts(client);
  assert_int_equal(client->roster.count, 1);
  flight = begin_flight(client, "anna");
  assert_int_equal(next_action(flight, LUCIDAUTH_RESULT_OK, NULL).step, LUCIDAUTH_STEP_UNLOCK);
  go_on_until(flight, LUCIDAUTH_STEP_DONE,
              "{\"access_token\": \"A\", \"refresh_token\": \"R\", \"expires_at\": 99999999999}", LUCIDAUTH_RESULT_OK);
  lucidauth_free_token(lucidauth_flight_end(flight, NULL, NULL));
  lucidauth_close(client);
}

/* ---- threads, forks ---- */

enum { THREADS = 4, TURNS = 300 };

static lucidauth *shared;

static void *use_many(void *seed)
{
  char name[2] = "", token[16];
  unsigned turn = (unsigned)(uintptr_t)seed;
  for (int i = 0; i < TURNS; i++) {
    turn = turn * 1103515245u + 12345u;
    name[0] = (char)('a' + turn / 65536 % 16);
    snprintf(token, sizeof token, "token-%s", name);
    lucidauth_account *account = lucidauth_get_account(shared, name, NULL);
    uint64_t serial = 0;
    char *got = lucidauth_token_of(account, &serial, NULL);
    if (!got || strcmp(got, token) != 0)
      return "another token";
    (void)lucidauth_is_current(account, serial);
    lucidauth_free_token(got);
    lucidauth_release_account(account);
    if (i % 8 == 0 && lucidauth_token(shared, "made-up", NULL))
      return "a token for a made-up name";
  }
  return NULL;
}

static void threads_may_use_more_accounts_than_are_kept(void **state)
{
  (void)state;
  store_accounts("abcdefghijklmnop");
  for (int background = 0; background <= 1; background++) {
    pthread_t threads[THREADS];
    shared = client_that_keeps(5, background);
    for (int i = 0; i < THREADS; i++)
      assert_int_equal(pthread_create(&threads[i], NULL, use_many, (void *)(uintptr_t)(i + 1)), 0);
    for (int i = 0; i < THREADS; i++) {
      void *problem;
      pthread_join(threads[i], &problem);
      if (problem)
        fail_msg("%s", (const char *)problem);
    }
    for (int i = 0; i < 2 * THREADS; i++)
      use_accounts(shared, "abc");
    assert_int_equal(shared->roster.count, 5);
    lucidauth_close(shared);
  }
}

static void accounts_come_and_go_in_a_forked_child_too(void **state)
{
#if defined(__SANITIZE_THREAD__) /* it mixes up the child's thread with the parent's */
  const int ways = 1;
#else
  const int ways = 2;
#endif
  (void)state;
  store_accounts("abcdef");
  for (int background = 0; background < ways; background++) {
    lucidauth *client = client_that_keeps(3, background);
    use_accounts(client, "abc");
    int child = fork();
    if (child == 0) {
      use_accounts(client, "defabc");
      bool bounded = client->roster.count == 3;
      lucidauth_close(client);
      _exit(bounded ? 0 : 1);
    }
    assert_int_equal(fixture_status(child), 0);
    use_accounts(client, "def");
    assert_kept(client, "def");
    lucidauth_close(client);
  }
}

/* ---- how often the disk is asked ---- */

static struct store_ops counting;
static bool (*really_changed)(struct store *store);
static int asked;

static bool count_and_ask(struct store *store)
{
  asked++;
  return really_changed(store);
}

/* Whatever way the token is asked for, as long as nothing happens. */
static void the_disk_is_asked_once_a_second(void **state)
{
  (void)state;
  enum { MANY = 20000 };
  lucidauth *client = client_of_the_folder();
  lucidauth_account *account = lucidauth_get_account(client, NULL, NULL);
  fixture_assert_token(lucidauth_token(client, NULL, NULL), "A1");
  counting = *account->flight.store->ops;
  really_changed = counting.changed;
  counting.changed = count_and_ask;
  account->flight.store->ops = &counting;
  double began = endpoint_now();
  for (int i = 0; i < MANY; i++)
    fixture_assert_token(i % 2 ? lucidauth_token(client, NULL, NULL) : lucidauth_token_of(account, NULL, NULL), "A1");
  assert_true(asked <= endpoint_now() - began + 2);
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
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth *client = fixture_client(false);
  fixture_assert_token(lucidauth_token(client, NULL, NULL), "A1");
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
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth *client = fixture_client(false);
  assert_false(lucidauth_get_status(client, "another", &status, &error));
  assert_int_equal(error.code, LUCIDAUTH_CONFIG);
  assert_non_null(strstr(error.message, "another"));
  lucidauth_close(client);
}

/* ---- lucidauth_reject ---- */

static void a_rejection_says_whether_it_was_heard(void **state)
{
  (void)state;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth *client = fixture_client(false);
  fixture_assert_token(lucidauth_token(client, NULL, NULL), "A1");
  assert_true(lucidauth_reject(client, NULL, "A1", &error));
  fixture_assert_token(lucidauth_token(client, NULL, NULL), "A2");
  assert_true(lucidauth_reject(client, NULL, "A1", NULL));
  fixture_assert_token(lucidauth_token(client, NULL, NULL), "A2");
  assert_false(lucidauth_reject(client, "another", "A2", &error));
  assert_int_equal(error.code, LUCIDAUTH_CONFIG);
  assert_non_null(strstr(error.message, "another"));
  fixture_assert_token(lucidauth_token(client, NULL, NULL), "A2");
  lucidauth_close(client);
}

static void a_rejection_of_nothing_changes_nothing(void **state)
{
  (void)state;
  static const char *const nothing[] = {NULL, ""};
  lucidauth *client = fixture_client(false);
  fixture_assert_token(lucidauth_token(client, NULL, NULL), "A1");
  for (int i = 0; i < 2; i++) {
    lucidauth_error error = LUCIDAUTH_ERROR_INIT;
    assert_false(lucidauth_reject(client, NULL, nothing[i], &error));
    assert_int_equal(error.code, LUCIDAUTH_CONFIG);
    assert_false(lucidauth_reject(client, NULL, nothing[i], NULL));
  }
  fixture_assert_token(lucidauth_token(client, NULL, NULL), "A1");
  lucidauth_close(client);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_set_up, fixture_tear_down)

int main(void)
{
  alarm(2 * ENDPOINT_PATIENCE);
  const struct CMUnitTest tests[] = {
      TEST(an_account_without_a_name_is_the_default_one),
      TEST(an_account_is_found_without_a_look_at_all_of_them),
      TEST(of_made_up_names_nothing_stays),
      TEST(of_made_up_names_nothing_stays_in_the_background),
      TEST(an_account_is_known_once_it_is_stored),
      TEST(the_least_recently_used_account_leaves),
      TEST(an_account_whose_handle_is_out_stays),
      TEST(handles_of_more_accounts_than_are_kept_can_be_had),
      TEST(the_default_account_stays),
      TEST(a_rejected_token_does_not_come_back_with_its_account),
      TEST(of_made_up_names_an_own_storage_leaves_nothing_either),
      TEST(unsaved_tokens_stay),
      TEST(a_flight_stays),
      TEST(threads_may_use_more_accounts_than_are_kept),
      TEST(accounts_come_and_go_in_a_forked_child_too),
      TEST(the_disk_is_asked_once_a_second),
      TEST(a_status_is_filled_as_far_as_the_program_knows_it),
      TEST(an_account_that_there_is_no_room_for_has_no_status),
      TEST(a_rejection_says_whether_it_was_heard),
      TEST(a_rejection_of_nothing_changes_nothing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
