#define _GNU_SOURCE
#include "fixture.h"
#include "next_action.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture fixture;

#if defined(__SANITIZE_THREAD__)
/* A mapping that takes another one's place under its readers: the kernel does that at one stroke. */
__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
  return "race:page_share\n";
}
#endif

int fixture_set_up(void **state)
{
  (void)state;
  snprintf(fixture.folder, sizeof fixture.folder, "/tmp/lucidauth-fixture-XXXXXX");
  if (!mkdtemp(fixture.folder))
    return -1;
  snprintf(fixture.path, sizeof fixture.path, "%s/token.json", fixture.folder);
  endpoint_start();
  return 0;
}

int fixture_tear_down(void **state)
{
  char command[96];
  (void)state;
  endpoint_stop();
  snprintf(command, sizeof command, "rm -r '%s'", fixture.folder);
  return system(command);
}

lucidauth_options fixture_options(bool background)
{
  lucidauth_options options = LUCIDAUTH_OPTIONS_INIT;
  options.client_id = options.client_secret = "x";
  options.refresh_token = "R0";
  options.api_url = "http://127.0.0.1:1";
  options.path = fixture.path;
  options.background = background;
  return options;
}

lucidauth_options fixture_own_storage(void)
{
  lucidauth_options options = fixture_options(false);
  options.storage = LUCIDAUTH_CUSTOM;
  options.introspection_url = "";
  fixture.record[0] = '\0';
  return options;
}

lucidauth_action fixture_step(lucidauth_flight *flight, const lucidauth_action *action)
{
  bool empty = action->step == LUCIDAUTH_STEP_LOAD && !fixture.record[0];
  if (action->step == LUCIDAUTH_STEP_SAVE)
    snprintf(fixture.record, sizeof fixture.record, "%s", action->record);
  if (action->step == LUCIDAUTH_STEP_POST)
    lucidauth_flight_post(flight);
  return next_action(flight, empty ? LUCIDAUTH_RESULT_NONE : LUCIDAUTH_RESULT_OK,
                     action->step == LUCIDAUTH_STEP_LOAD ? fixture.record : NULL);
}

lucidauth *fixture_open(const lucidauth_options *options)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth *client = lucidauth_new(options, &error);
  if (!client)
    fail_msg("%s", error.message);
  return client;
}

lucidauth *fixture_client(bool background)
{
  lucidauth_options options = fixture_options(background);
  return fixture_open(&options);
}

static void store(double seconds, const char *more)
{
  double now = (double)time(NULL);
  FILE *file = fopen(fixture.path, "w");
  assert_non_null(file);
  fprintf(file,
          "{\"access_token\": \"A0\", \"refresh_token\": \"R0\", \"expires_in\": 3600, \"expires_at\": %.0f, "
          "\"obtained_at\": %.0f%s}",
          now + seconds, now + seconds - 3600, more);
  assert_int_equal(fchmod(fileno(file), 0600), 0);
  assert_int_equal(fclose(file), 0);
}

void fixture_store(double seconds)
{
  store(seconds, "");
}

void fixture_store_unfinished(double seconds)
{
  store(
      seconds,
      ", \"pending\": {\"refresh_token_sha256\": \"5230000000000000000000000000000000000000000000000000000000000000\", "
      "\"since\": 1000, \"pid\": 1, \"host\": \"elsewhere\"}");
}

void fixture_store_account(const char *account, const char *text)
{
  char path[96];
  snprintf(path, sizeof path, "%s/%s.json", fixture.folder, account);
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fputs(text, file);
  assert_int_equal(fchmod(fileno(file), 0600), 0);
  assert_int_equal(fclose(file), 0);
}

bool fixture_stored(const char *text)
{
  char record[4096] = "";
  FILE *file = fopen(fixture.path, "r");
  if (!file)
    return false;
  record[fread(record, 1, sizeof record - 1, file)] = '\0';
  fclose(file);
  return strstr(record, text) != NULL;
}

bool fixture_wait_for(atomic_bool *flag)
{
  double deadline = endpoint_now() + ENDPOINT_PATIENCE;
  while (!atomic_load(flag) && endpoint_now() < deadline)
    endpoint_pause();
  return atomic_load(flag);
}

void fixture_assert_token(char *token, const char *expected)
{
  assert_non_null(token);
  assert_string_equal(token, expected);
  lucidauth_free_token(token);
}

int fixture_status(int child)
{
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
