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
  lucidauth_error error;
  lucidauth *client = lucidauth_new(options, &error);
  if (!client)
    fail_msg("%s", error.message);
  return client;
}

/* ---- whom the client's secret and the refresh token are sent to ---- */

static void assert_endpoints(const lucidauth_options *options, const char *token, const char *introspection)
{
  lucidauth *client = open_client(options);
  assert_string_equal(client->options.token_url, token);
  assert_string_equal(client->options.introspection_url, introspection);
  assert_int_equal(client->options.flow.introspection, *introspection != '\0');
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

#define TEST(name) cmocka_unit_test_setup(name, set_up)

int main(void)
{
  const struct CMUnitTest tests[] = {
      TEST(another_providers_secrets_are_not_sent_to_lucid),
      TEST(endpoints_are_below_the_api),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
