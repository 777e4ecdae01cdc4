#include "../../src/store/memory.h"

#include "../../src/base/secret.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static int open_store(void **state)
{
  struct store_error error;
  *state = store_memory(&error);
  return *state ? 0 : -1;
}

static int close_store(void **state)
{
  struct store *store = *state;
  store->ops->close(store);
  return 0;
}

static void holds_nothing_at_first(void **state)
{
  struct store *store = *state;
  struct store_error error;
  char *record = (char *)"";
  assert_int_equal(store->ops->load(store, &record, &error), STORE_NONE);
  assert_null(record);
  assert_string_equal(store->name, "memory");
  assert_false(store->repaired);
}

static void gives_copies_of_what_was_saved_last(void **state)
{
  struct store *store = *state;
  struct store_error error;
  char text[] = "{\"n\":1}";
  char *one, *two;
  assert_int_equal(store->ops->save(store, text, &error), STORE_OK);
  memset(text, 'x', sizeof text - 1);
  assert_int_equal(store->ops->load(store, &one, &error), STORE_OK);
  assert_int_equal(store->ops->save(store, "{\"n\":22}", &error), STORE_OK);
  assert_int_equal(store->ops->load(store, &two, &error), STORE_OK);
  assert_string_equal(one, "{\"n\":1}");
  assert_string_equal(two, "{\"n\":22}");
  secret_free(one);
  secret_free(two);
}

static void may_be_saved_from_its_own_load(void **state)
{
  struct store *store = *state;
  struct store_error error;
  char *record;
  assert_int_equal(store->ops->save(store, "{}", &error), STORE_OK);
  assert_int_equal(store->ops->load(store, &record, &error), STORE_OK);
  assert_int_equal(store->ops->save(store, record, &error), STORE_OK);
  secret_free(record);
  assert_int_equal(store->ops->load(store, &record, &error), STORE_OK);
  assert_string_equal(record, "{}");
  secret_free(record);
}

static void is_locked_once(void **state)
{
  struct store *store = *state;
  struct store_error error;
  assert_int_equal(store->ops->lock(store, &error), STORE_OK);
  assert_int_equal(store->ops->lock(store, &error), STORE_BUSY);
  store->ops->unlock(store);
  assert_int_equal(store->ops->lock(store, &error), STORE_OK);
  store->ops->forked(store);
  assert_int_equal(store->ops->lock(store, &error), STORE_OK);
}

static void never_changes_by_itself(void **state)
{
  struct store *store = *state;
  struct store_error error;
  assert_false(store->ops->changed(store));
  assert_int_equal(store->ops->save(store, "{}", &error), STORE_OK);
  assert_false(store->ops->changed(store));
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(holds_nothing_at_first, open_store, close_store),
      cmocka_unit_test_setup_teardown(gives_copies_of_what_was_saved_last, open_store, close_store),
      cmocka_unit_test_setup_teardown(may_be_saved_from_its_own_load, open_store, close_store),
      cmocka_unit_test_setup_teardown(is_locked_once, open_store, close_store),
      cmocka_unit_test_setup_teardown(never_changes_by_itself, open_store, close_store),
  };
  return cmocka_run_group_tests_name("memory store", tests, NULL, NULL);
}
