/* What lucidauth_new makes of its options. */
#define _GNU_SOURCE
#include "client.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int set_up(void **state)
{
  (void)state;
  unsetenv("LUCID_CLIENT_ID");
  unsetenv("LUCID_API_URL");
  return 0;
}

static lucidauth *open_client(const lucidauth_options *options)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth *client = lucidauth_new(options, &error);
  if (!client)
    fail_msg("%s", error.message);
  return client;
}

static void assert_refused(const lucidauth_options *options, const char *name)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth *client = lucidauth_new(options, &error);
  if (client)
    fail_msg("%s is accepted", name);
  assert_int_equal(error.code, LUCIDAUTH_CONFIG);
  if (!strstr(error.message, name))
    fail_msg("%s is not named in: %s", name, error.message);
}

/* ---- whom the client's secret and the refresh token are sent to ---- */

static void assert_endpoints(const lucidauth_options *options, const char *token, const char *introspection)
{
  lucidauth *client = open_client(options);
  assert_string_equal(client->options.accounts.endpoints.token_url, token);
  assert_string_equal(client->options.accounts.endpoints.introspection_url, introspection);
  assert_int_equal(client->options.accounts.flow.introspection, *introspection != '\0');
  lucidauth_close(client);
}

static void another_providers_secrets_are_not_sent_to_lucid(void **state)
{
  (void)state;
  lucidauth_options options = LUCIDAUTH_OPTIONS_INIT;
  options.token_url = "https://another.example/token";
  assert_endpoints(&options, "https://another.example/token", "");
  options.api_url = "https://api.another.example";
  assert_endpoints(&options, "https://another.example/token", "");
  options.introspection_url = "https://another.example/introspect";
  assert_endpoints(&options, "https://another.example/token", "https://another.example/introspect");
}

static void endpoints_are_below_the_api(void **state)
{
  (void)state;
  lucidauth_options options = LUCIDAUTH_OPTIONS_INIT;
  assert_endpoints(&options, "https://api.lucid.co/oauth2/token", "https://api.lucid.co/oauth2/token/introspect");
  options.api_url = "https://api.example/";
  assert_endpoints(&options, "https://api.example/oauth2/token", "https://api.example/oauth2/token/introspect");
  options.introspection_url = "";
  assert_endpoints(&options, "https://api.example/oauth2/token", "");
}

/* ---- how they are sent ---- */

static void assert_style(const lucidauth_options *options, enum request_style style, bool another)
{
  lucidauth *client = open_client(options);
  assert_int_equal(client->options.accounts.flow.credentials.style, style);
  assert_int_equal(client->options.accounts.flow.another_provider, another);
  lucidauth_close(client);
}

static void another_provider_gets_a_form(void **state)
{
  (void)state;
  lucidauth_options options = LUCIDAUTH_OPTIONS_INIT;
  assert_style(&options, REQUEST_JSON, false);
  options.api_url = "https://api.example";
  assert_style(&options, REQUEST_JSON, false);
  options.token_url = "https://api.lucid.co/oauth2/token";
  assert_style(&options, REQUEST_JSON, false);
  options.token_url = "https://another.example/token";
  assert_style(&options, REQUEST_FORM, true);
  options.token_request = LUCIDAUTH_BASIC;
  assert_style(&options, REQUEST_BASIC, true);
  options.token_request = LUCIDAUTH_JSON;
  assert_style(&options, REQUEST_JSON, true);
}

static void parameters_are_copied(void **state)
{
  (void)state;
  char value[] = "https://a.example";
  const char *given[] = {"audience", value, NULL};
  lucidauth_options options = LUCIDAUTH_OPTIONS_INIT;
  options.token_parameters = given;
  lucidauth *client = open_client(&options);
  value[0] = 'X';
  given[0] = "other";
  const char *const *kept = client->options.accounts.flow.credentials.parameters;
  assert_string_equal(kept[0], "audience");
  assert_string_equal(kept[1], "https://a.example");
  assert_null(kept[2]);
  lucidauth_close(client);
}

static void parameters_that_cannot_be_sent_are_refused(void **state)
{
  static const char *const wrong[][3] = {
      {"", "x"}, {"a b", "x"}, {"client_id", "x"}, {"Client_Secret", "x"}, {"audience", ""}, {"audience", NULL}};
  (void)state;
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    lucidauth_options options = LUCIDAUTH_OPTIONS_INIT;
    options.token_parameters = wrong[i];
    assert_refused(&options, "option token_parameters");
  }
}

/* ---- what cannot be meant ---- */

static void options_that_were_not_started_from_the_macro_are_refused(void **state)
{
  (void)state;
  lucidauth_options options = {.client_id = "mine", .timeout = 30};
  assert_refused(&options, "LUCIDAUTH_OPTIONS_INIT");
  options.size = offsetof(lucidauth_options, on_event_data);
  assert_refused(&options, "LUCIDAUTH_OPTIONS_INIT");
}

static void options_of_a_later_header_are_taken_as_far_as_they_are_known(void **state)
{
  (void)state;
  struct {
    lucidauth_options known;
    char later[64];
  } options = {.known = LUCIDAUTH_OPTIONS_INIT};
  options.known.size = sizeof options;
  options.known.timeout = 7;
  lucidauth *client = open_client(&options.known);
  assert_true(client->options.accounts.flow.timeout == 7);
  lucidauth_close(client);
}

static void choices_that_do_not_exist_are_refused(void **state)
{
  (void)state;
  for (int wrong = -1; wrong <= 99; wrong += 100) {
    lucidauth_options options = LUCIDAUTH_OPTIONS_INIT;
    options.storage = (lucidauth_storage)wrong;
    assert_refused(&options, "option storage");
  }
  for (int wrong = -1; wrong <= 99; wrong += 100) {
    lucidauth_options options = LUCIDAUTH_OPTIONS_INIT;
    options.token_request = (lucidauth_token_request)wrong;
    assert_refused(&options, "option token_request");
  }
}

static void an_empty_client_id_is_refused(void **state)
{
  (void)state;
  lucidauth_options options = LUCIDAUTH_OPTIONS_INIT;
  options.client_id = "";
  assert_refused(&options, "option client_id");
}

static void no_account_at_all_is_refused(void **state)
{
  (void)state;
  lucidauth_options options = LUCIDAUTH_OPTIONS_INIT;
  options.max_accounts = 0;
  assert_refused(&options, "option max_accounts");
  options.max_accounts = 1;
  lucidauth_close(open_client(&options));
}

/* Of a program that was built before there was such an option. */
static void what_an_older_program_does_not_say_has_its_default(void **state)
{
  (void)state;
  lucidauth_options options = LUCIDAUTH_OPTIONS_INIT;
  options.size = offsetof(lucidauth_options, max_accounts);
  options.max_accounts = 0;
  lucidauth *client = open_client(&options);
  assert_int_equal(client->options.max_accounts, 10000);
  lucidauth_close(client);
}

static void seconds_that_no_clock_can_count_are_refused(void **state)
{
  (void)state;
  static const struct {
    size_t place;
    const char *name;
  } times[] = {{offsetof(lucidauth_options, refresh_before), "option refresh_before"},
               {offsetof(lucidauth_options, refresh_wait), "option refresh_wait"},
               {offsetof(lucidauth_options, timeout), "option timeout"},
               {offsetof(lucidauth_options, lock_timeout), "option lock_timeout"},
               {offsetof(lucidauth_options, default_lifetime), "option default_lifetime"}};
  static const double wrong[] = {-1, -0.001, 1e300, 1e10, INFINITY, NAN};
  for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
    lucidauth_options options = LUCIDAUTH_OPTIONS_INIT;
    double *option = (double *)((char *)&options + times[i].place);
    for (size_t j = 0; j < sizeof wrong / sizeof *wrong; j++) {
      *option = wrong[j];
      assert_refused(&options, times[i].name);
    }
    *option = 365.0 * 86400;
    lucidauth_close(open_client(&options));
    *option = 0;
    lucidauth_close(open_client(&options));
  }
}

/* ---- structs of programs that were built against another header ---- */

/* Whatever stands in a struct that nobody has initialised. */
static void an_error_is_filled_in_whatever_its_size_says(void **state)
{
  (void)state;
  const size_t sizes[] = {sizeof(lucidauth_error), 0, 1, offsetof(lucidauth_error, message) + 1, SIZE_MAX};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    struct {
      lucidauth_error error;
      char behind[8];
    } given = {.error = {.size = sizes[i]}, .behind = "behind"};
    lucidauth_options options = LUCIDAUTH_OPTIONS_INIT;
    options.max_accounts = 0;
    assert_null(lucidauth_new(&options, &given.error));
    assert_int_equal(given.error.code, LUCIDAUTH_CONFIG);
    assert_non_null(strstr(given.error.message, "max_accounts"));
    assert_true(given.error.size == sizes[i]);
    assert_string_equal(given.behind, "behind");
  }
}

/* The longest message there is. */
static void a_message_ends_within_its_error(void **state)
{
  (void)state;
  struct {
    lucidauth_error error;
    char behind[8];
  } given = {.error = LUCIDAUTH_ERROR_INIT, .behind = "behind"};
  char name[4000];
  memset(name, 'n', sizeof name - 1);
  name[sizeof name - 1] = '\0';
  error_set(&given.error, LUCIDAUTH_CONFIG, "%s", name);
  assert_int_equal(strlen(given.error.message), sizeof given.error.message - 1);
  lucidauth_error copy = LUCIDAUTH_ERROR_INIT;
  copy.size = 7;
  error_copy(&copy, &given.error);
  assert_string_equal(copy.message, given.error.message);
  assert_int_equal(copy.size, 7);
  assert_string_equal(given.behind, "behind");
  error_copy(NULL, &copy);
}

/* Neither what a later option is, nor any address at all. */
static void nothing_behind_the_size_of_options_is_read(void **state)
{
  (void)state;
  lucidauth_options options = LUCIDAUTH_OPTIONS_INIT;
  const size_t size = offsetof(lucidauth_options, hold_signals);
  memset((char *)&options + size, 0x5A, sizeof options - size);
  options.size = size;
  lucidauth *client = open_client(&options);
  assert_int_equal(client->options.max_accounts, 10000);
  assert_true(client->options.accounts.hold_signals);
  assert_null(client->options.token_parameters);
  lucidauth_close(client);
}

#define TEST(name) cmocka_unit_test_setup(name, set_up)

int main(void)
{
  const struct CMUnitTest tests[] = {
      TEST(another_providers_secrets_are_not_sent_to_lucid),
      TEST(endpoints_are_below_the_api),
      TEST(another_provider_gets_a_form),
      TEST(parameters_are_copied),
      TEST(parameters_that_cannot_be_sent_are_refused),
      TEST(options_that_were_not_started_from_the_macro_are_refused),
      TEST(options_of_a_later_header_are_taken_as_far_as_they_are_known),
      TEST(choices_that_do_not_exist_are_refused),
      TEST(an_empty_client_id_is_refused),
      TEST(no_account_at_all_is_refused),
      TEST(what_an_older_program_does_not_say_has_its_default),
      TEST(seconds_that_no_clock_can_count_are_refused),
      TEST(an_error_is_filled_in_whatever_its_size_says),
      TEST(a_message_ends_within_its_error),
      TEST(nothing_behind_the_size_of_options_is_read),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
