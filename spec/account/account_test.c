/* The token in use through changes of the clocks: the test's own take the place of the system's, and of the server. */
#define _GNU_SOURCE
#include "../../src/http/http.h"
#include "account.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define HOUR 3600.0
#define MARGIN 300.0

static struct moment now;
static int posts;
static struct moment step; /* what the clocks do during the next POST */

int clock_gettime(clockid_t clock, struct timespec *time)
{
  double seconds = clock == CLOCK_REALTIME ? now.wall : now.steady;
  *time = (struct timespec){.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - floor(seconds)) * 1e9)};
  return 0;
}

time_t time(time_t *second)
{
  if (second)
    *second = (time_t)now.wall;
  return (time_t)now.wall;
}

static void pass(double seconds)
{
  now = moment_after(now, seconds);
}

static void post(const struct http_request *request, struct http_response *response)
{
  char body[120] = "{\"active\":true}";
  bool refresh = !strstr(request->url, "introspect");
  if (refresh)
    snprintf(body, sizeof body, "{\"access_token\":\"A%d\",\"refresh_token\":\"R%d\",\"expires_in\":3600}", posts + 1,
             posts + 1);
  posts += refresh;
  if (refresh) {
    now.wall += step.wall;
    now.steady += step.steady;
    step = (struct moment){0};
  }
  *response = (struct http_response){.body = strdup(body)};
  response->reply = (struct reply){.delivery = REPLY_RECEIVED,
                                   .whole = true,
                                   .status = 200,
                                   .body = response->body,
                                   .length = strlen(response->body)};
}

static void release(struct http_response *response)
{
  free(response->body);
}

static void sha256(const void *data, size_t size, unsigned char digest[32])
{
  const unsigned char *bytes = data;
  for (size_t i = 0; i < 32; i++)
    digest[i] = i < size ? bytes[i] : 0;
}

static const char *start(void)
{
  return NULL;
}

const struct http_ops lucidauth_http = {
    .version = HTTP_OPS_VERSION, .start = start, .post = post, .release = release, .sha256 = sha256};

/* ---- a caller as the Lua module is one: it keeps the token for as long as it is current ---- */

struct caller {
  lucidauth *client;
  lucidauth_account *account;
  uint64_t serial;
  char token[16];
};

static const char *call(struct caller *caller)
{
  if (lucidauth_is_current(caller->account, caller->serial))
    return caller->token;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  char *token = lucidauth_token_of(caller->account, &caller->serial, &error);
  snprintf(caller->token, sizeof caller->token, "%.15s", token ? token : error.message);
  lucidauth_free_token(token);
  return caller->token;
}

static struct caller *start_with(lucidauth_storage storage, const char *path)
{
  struct caller *caller = calloc(1, sizeof *caller);
  lucidauth_options options = LUCIDAUTH_OPTIONS_INIT;
  options.storage = storage;
  options.path = path;
  options.client_id = options.client_secret = options.refresh_token = "x";
  options.api_url = "http://127.0.0.1:1";
  options.hold_signals = false;
  now = (struct moment){.wall = 1000000.5, .steady = 50};
  step = (struct moment){0};
  posts = 0;
  caller->client = lucidauth_new(&options, NULL);
  caller->account = lucidauth_get_account(caller->client, NULL, NULL);
  return caller;
}

static void stop(struct caller *caller)
{
  lucidauth_close(caller->client);
  free(caller);
}

static int set_up(void **state)
{
  *state = start_with(LUCIDAUTH_MEMORY, NULL);
  return 0;
}

static int tear_down(void **state)
{
  stop(*state);
  return 0;
}

static double expires_in(struct caller *caller)
{
  lucidauth_status status = LUCIDAUTH_STATUS_INIT;
  assert_true(lucidauth_get_status(caller->client, NULL, &status, NULL));
  return status.expires_in;
}

static void call_every_second(struct caller *caller, double seconds, const char *expected)
{
  for (double passed = 0; passed < seconds; passed++) {
    assert_string_equal(call(caller), expected);
    pass(1);
  }
}

/* ---- */

static void a_token_is_current_until_it_is_due(void **state)
{
  struct caller *caller = *state;
  call_every_second(caller, HOUR - MARGIN, "A1");
  assert_int_equal(posts, 1);
  assert_string_equal(call(caller), "A2");
}

static void a_clock_set_back_does_not_put_the_refresh_off(void **state)
{
  for (double back = 1; back < 2 * HOUR; back *= 1.7) {
    tear_down(state);
    set_up(state);
    struct caller *caller = *state;
    call_every_second(caller, HOUR / 2, "A1");
    now.wall -= back;
    assert_true(expires_in(caller) <= HOUR / 2);
    for (double passed = 0; passed < HOUR / 2 - MARGIN; passed++) {
      call(caller);
      pass(1);
    }
    assert_string_equal(call(caller), "A2");
    assert_int_equal(posts, 2);
  }
}

static void a_clock_set_forward_a_little_costs_nothing(void **state)
{
  struct caller *caller = *state;
  call_every_second(caller, 60, "A1");
  now.wall += HOUR / 2;
  call_every_second(caller, HOUR / 2 - MARGIN - 60, "A1");
  assert_string_equal(call(caller), "A2");
}

static void a_clock_set_forward_past_the_expiry_costs_one_refresh(void **state)
{
  struct caller *caller = *state;
  call_every_second(caller, 60, "A1");
  now.wall += 10 * HOUR;
  call_every_second(caller, HOUR - MARGIN, "A2");
  assert_int_equal(posts, 2);
}

static void a_machine_that_slept_past_the_expiry_refreshes_at_once(void **state)
{
  struct caller *caller = *state;
  call_every_second(caller, 60, "A1");
  now.wall += HOUR;
  assert_true(expires_in(caller) == 0);
  assert_string_equal(call(caller), "A2");
}

static void a_clock_set_back_during_the_flight_does_not_lengthen_the_life(void **state)
{
  struct caller *caller = *state;
  step = (struct moment){.wall = -HOUR, .steady = 1};
  call_every_second(caller, HOUR - MARGIN, "A1");
  assert_string_equal(call(caller), "A2");
  assert_int_equal(posts, 2);
}

static void a_clock_set_forward_during_the_flight_makes_no_storm(void **state)
{
  struct caller *caller = *state;
  step = (struct moment){.wall = 10 * HOUR, .steady = 1};
  assert_string_equal(call(caller), "A1");
  call_every_second(caller, HOUR - MARGIN, "A2");
  assert_int_equal(posts, 2);
}

static void a_clock_that_is_set_back_again_and_again_deceives_nobody(void **state)
{
  struct caller *caller = *state;
  for (int i = 0; i < 2 * (int)HOUR; i++) {
    call(caller);
    pass(1);
    if (i % 10 == 9)
      now.wall -= 10;
  }
  assert_int_equal(posts, 3);
}

/* ---- what others write: a lock file that somebody has harmed tells nothing any more ---- */

enum harm { UNHARMED, CUT_SHORT, REMOVED, OVERWRITTEN };

static void write_file(const char *path, const char *text)
{
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  assert_int_equal(fchmod(fileno(file), 0600), 0);
  fputs(text, file);
  assert_int_equal(fclose(file), 0);
}

static void harm(const char *lock, enum harm kind)
{
  if (kind == CUT_SHORT)
    assert_int_equal(truncate(lock, 0), 0);
  if (kind == REMOVED)
    assert_int_equal(unlink(lock), 0);
  if (kind == OVERWRITTEN)
    write_file(lock, "4711\n");
}

/* As a program does that knows no lock. */
static void store(const char *path, const char *token)
{
  char record[200];
  snprintf(record, sizeof record,
           "{\"access_token\":\"%s\",\"refresh_token\":\"of %s\",\"expires_in\":3600,\"expires_at\":%.1f,"
           "\"obtained_at\":%.1f}",
           token, token, now.wall + HOUR, now.wall);
  write_file(path, record);
}

static void check_noticed(const char *folder, enum harm kind)
{
  char path[64], lock[72];
  snprintf(path, sizeof path, "%s/%d", folder, kind);
  snprintf(lock, sizeof lock, "%s.lock", path);
  struct caller *caller = start_with(LUCIDAUTH_FILE, path);
  assert_string_equal(call(caller), "A1");
  harm(lock, kind);
  for (int i = 0; i < 3; i++) {
    char token[8];
    snprintf(token, sizeof token, "B%d", i);
    (void)call(caller);
    store(path, token);
    pass(1.01);
    assert_string_equal(call(caller), token);
  }
  assert_int_equal(posts, 1);
  stop(caller);
  (void)unlink(path);
  (void)unlink(lock);
}

static void what_others_write_is_noticed_within_the_second(void **state)
{
  (void)state;
  char folder[] = "/tmp/lucidauth-account-XXXXXX";
  assert_non_null(mkdtemp(folder));
  for (enum harm kind = UNHARMED; kind <= OVERWRITTEN; kind++)
    check_noticed(folder, kind);
  assert_int_equal(rmdir(folder), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
  const struct CMUnitTest tests[] = {
      TEST(a_token_is_current_until_it_is_due),
      TEST(a_clock_set_back_does_not_put_the_refresh_off),
      TEST(a_clock_set_forward_a_little_costs_nothing),
      TEST(a_clock_set_forward_past_the_expiry_costs_one_refresh),
      TEST(a_machine_that_slept_past_the_expiry_refreshes_at_once),
      TEST(a_clock_set_back_during_the_flight_does_not_lengthen_the_life),
      TEST(a_clock_set_forward_during_the_flight_makes_no_storm),
      TEST(a_clock_that_is_set_back_again_and_again_deceives_nobody),
      cmocka_unit_test(what_others_write_is_noticed_within_the_second),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
