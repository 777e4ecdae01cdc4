/* Clients that work in the background (options.background), against a sandbox. */
#define _GNU_SOURCE
#include "../lucidauth.h"
#include "next_action.h"
#include "sandbox.h"

#include <dirent.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__SANITIZE_THREAD__)
/* ThreadSanitizer knows no child that starts a thread. */
enum { FORKED_CHILD_HAS_THREADS = false };

/* A mapping that takes another one's place under its readers: the kernel does that at one stroke. */
__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
  return "race:page_share\n";
}
#else
enum { FORKED_CHILD_HAS_THREADS = true };
#endif

enum { ACCOUNTS = 24, PATIENCE = 120 };

static struct {
  struct sandbox sandbox;
  char folder[64];
  pthread_t caller;
  atomic_int events, elsewhere; /* in all, and on another thread than the caller's */
  char names[256];
} world;

/* ---- helpers ---- */

static double now(void)
{
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void pause_briefly(void)
{
  nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
}

static void take_event(void *unused, const lucidauth_event *event)
{
  (void)unused;
  atomic_fetch_add(&world.events, 1);
  assert_int_equal(event->size, sizeof *event);
  if (!pthread_equal(pthread_self(), world.caller))
    atomic_fetch_add(&world.elsewhere, 1);
  size_t length = strlen(world.names);
  snprintf(world.names + length, sizeof world.names - length, "%s ", lucidauth_event_name(event->kind));
}

static lucidauth_options options(void)
{
  lucidauth_options chosen = LUCIDAUTH_OPTIONS_INIT;
  chosen.client_id = "sandbox-client";
  chosen.client_secret = "sandbox-secret";
  chosen.api_url = world.sandbox.url;
  chosen.storage = LUCIDAUTH_DIRECTORY;
  chosen.path = world.folder;
  chosen.background = true;
  chosen.on_event = take_event;
  return chosen;
}

static lucidauth *client_with(const lucidauth_options *chosen)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth *client = lucidauth_new(chosen, &error);
  if (!client)
    fail_msg("%s", error.message);
  return client;
}

static lucidauth *new_client(void)
{
  lucidauth_options chosen = options();
  return client_with(&chosen);
}

static void name_account(char name[16], int number)
{
  snprintf(name, 16, "account-%d", number);
}

static void name_file(char path[128], const char *account)
{
  snprintf(path, 128, "%s/%s.json", world.folder, account);
}

static void write_record(const char *account, const char *text)
{
  char path[128];
  name_file(path, account);
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fputs(text, file);
  assert_int_equal(fclose(file), 0);
}

static bool record_holds(const char *account, const char *text)
{
  char path[128], record[4096] = "";
  name_file(path, account);
  FILE *file = fopen(path, "r");
  assert_non_null(file);
  record[fread(record, 1, sizeof record - 1, file)] = '\0';
  fclose(file);
  return strstr(record, text) != NULL;
}

static void start_account(const char *account)
{
  char text[256];
  snprintf(text, sizeof text, "{\"refresh_token\": \"%s\"}", sandbox_token(&world.sandbox, account, "refresh_token"));
  write_record(account, text);
}

static void control(const char *name, const char *body)
{
  cJSON_Delete(sandbox_control(&world.sandbox, "POST", name, body));
}

/* What a fault has held. */
static void release_answers(void)
{
  cJSON_Delete(sandbox_control(&world.sandbox, "DELETE", "faults", NULL));
}

static long posts(void)
{
  return sandbox_count(&world.sandbox, "token_requests");
}

static void wait_for_posts(int count)
{
  double deadline = now() + PATIENCE;
  while (posts() < count && now() < deadline)
    pause_briefly();
  assert_int_equal(posts(), count);
}

/* Ask until there is an answer. */
static char *poll_for(lucidauth_account *account, lucidauth_ticket *ticket, uint64_t *serial, lucidauth_error *error)
{
  double deadline = now() + PATIENCE;
  char *token = lucidauth_poll(account, ticket, true, serial, error);
  while (!token && error->code == LUCIDAUTH_NOT_READY && now() < deadline) {
    pause_briefly();
    token = lucidauth_poll(account, ticket, true, serial, error);
  }
  return token;
}

static lucidauth_account *account_of(lucidauth *client, const char *name)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_account *account = lucidauth_get_account(client, name, &error);
  if (!account)
    fail_msg("%s", error.message);
  return account;
}

static void assert_token(const char *token, const char *account)
{
  assert_non_null(token);
  assert_string_equal(token, sandbox_token(&world.sandbox, account, "access_token"));
}

static void get_token(lucidauth *client, const char *account)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  char *token = lucidauth_token(client, account, &error);
  if (!token)
    fail_msg("%s", error.message);
  assert_token(token, account);
  lucidauth_free_token(token);
}

/* A refresh that the thread carries out: its request has arrived when this returns. */
static void leave_in_flight(lucidauth *client)
{
  lucidauth_ticket ticket = LUCIDAUTH_TICKET_INIT;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  assert_null(lucidauth_poll(account_of(client, "account-1"), &ticket, true, NULL, &error));
  wait_for_posts(1);
}

static int count_threads(void)
{
  int count = 0;
  DIR *tasks = opendir("/proc/self/task");
  assert_non_null(tasks);
  for (const struct dirent *task; (task = readdir(tasks)) != NULL;)
    count += task->d_name[0] != '.';
  closedir(tasks);
  return count;
}

/* A thread that was joined may still be listed for a moment. */
static void assert_threads(int count)
{
  double deadline = now() + PATIENCE;
  while (count_threads() != count && now() < deadline)
    pause_briefly();
  assert_int_equal(count_threads(), count);
}

static void assert_nothing_spent_twice(void)
{
  assert_int_equal(sandbox_count(&world.sandbox, "reuses"), 0);
  assert_int_equal(sandbox_count(&world.sandbox, "overlaps"), 0);
}

static int setup(void **state)
{
  (void)state;
  control("reset", NULL);
  snprintf(world.folder, sizeof world.folder, "/tmp/background_test.XXXXXX");
  assert_non_null(mkdtemp(world.folder));
  start_account("account-1");
  world.caller = pthread_self();
  atomic_store(&world.events, 0);
  atomic_store(&world.elsewhere, 0);
  world.names[0] = '\0';
  return 0;
}

static int teardown(void **state)
{
  (void)state;
  char command[96];
  snprintf(command, sizeof command, "rm -r '%s'", world.folder);
  return system(command);
}

/* ---- tests ---- */

static void test_many_side_by_side(void **state)
{
  (void)state;
  lucidauth *client = new_client();
  lucidauth_account *accounts[ACCOUNTS];
  lucidauth_ticket tickets[ACCOUNTS] = {0};
  char *tokens[ACCOUNTS] = {0}, name[16];
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  control("faults", "{\"kind\": \"held\", \"times\": \"always\"}");
  for (int i = 0; i < ACCOUNTS; i++) {
    name_account(name, i + 1);
    start_account(name);
    accounts[i] = account_of(client, name);
  }
  for (int i = 0; i < ACCOUNTS; i++) {
    assert_null(lucidauth_poll(accounts[i], &tickets[i], true, NULL, &error));
    assert_int_equal(error.code, LUCIDAUTH_NOT_READY);
  }
  wait_for_posts(ACCOUNTS); /* none has been answered */
  release_answers();
  for (int i = 0; i < ACCOUNTS; i++) {
    tokens[i] = poll_for(accounts[i], &tickets[i], NULL, &error);
    name_account(name, i + 1);
    assert_token(tokens[i], name);
    lucidauth_free_token(tokens[i]);
  }
  assert_int_equal(posts(), ACCOUNTS);
  assert_nothing_spent_twice();
  lucidauth_close(client);
}

static void test_poll(void **state)
{
  (void)state;
  lucidauth *client = new_client();
  lucidauth_account *account = account_of(client, "account-1");
  lucidauth_ticket ticket = LUCIDAUTH_TICKET_INIT, again = LUCIDAUTH_TICKET_INIT, anew = {.refresh = true};
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  uint64_t serial = 0, next = 0;
  char *token = poll_for(account, &ticket, &serial, &error);
  assert_token(token, "account-1");
  assert_true(lucidauth_is_current(account, serial));
  char *same = lucidauth_poll(account, &again, true, &next, &error);
  assert_string_equal(same, token);
  assert_true(next == serial);
  char *other = poll_for(account, &anew, &next, &error);
  assert_token(other, "account-1");
  assert_string_not_equal(other, token);
  assert_false(lucidauth_is_current(account, serial));
  assert_true(lucidauth_is_current(account, next));
  assert_int_equal(posts(), 2);
  lucidauth_free_token(token);
  lucidauth_free_token(same);
  lucidauth_free_token(other);
  lucidauth_close(client);
}

static void test_poll_needs_background(void **state)
{
  (void)state;
  lucidauth_options chosen = options();
  chosen.background = false;
  lucidauth *client = client_with(&chosen);
  lucidauth_ticket ticket = LUCIDAUTH_TICKET_INIT;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  assert_null(lucidauth_poll(account_of(client, "account-1"), &ticket, true, NULL, &error));
  assert_int_equal(error.code, LUCIDAUTH_CONFIG);
  lucidauth_close(client);
}

/* The token that lives, while a refresh hangs: at once for those who cannot come back, after refresh_wait for
 * others. */
static void test_served_while_it_hangs(void **state)
{
  (void)state;
  lucidauth_options chosen = options();
  chosen.refresh_wait = 0.2;
  lucidauth *client = client_with(&chosen);
  lucidauth_account *account = account_of(client, "account-1");
  lucidauth_ticket ticket = LUCIDAUTH_TICKET_INIT, anew = {.refresh = true}, hurried = LUCIDAUTH_TICKET_INIT,
                   patient = LUCIDAUTH_TICKET_INIT;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  assert_null(lucidauth_poll(account, &ticket, true, NULL, &error));
  assert_true(ticket.within > 0 && ticket.within <= chosen.refresh_wait);
  char *token = poll_for(account, &ticket, NULL, &error);
  control("faults", "{\"kind\": \"held\", \"when\": \"before\"}");
  assert_null(lucidauth_poll(account, &anew, true, NULL, &error));
  wait_for_posts(2);
  char *served = lucidauth_poll(account, &hurried, false, NULL, &error);
  assert_non_null(served);
  assert_string_equal(served, token);
  lucidauth_free_token(served);
  double began = now();
  assert_null(lucidauth_poll(account, &anew, true, NULL, &error));
  assert_true(anew.within > chosen.refresh_wait && anew.within < 60.5);
  assert_null(lucidauth_poll(account, &patient, true, NULL, &error));
  assert_true(patient.within > 0 && patient.within <= chosen.refresh_wait);
  served = poll_for(account, &patient, NULL, &error);
  assert_true(now() - began >= 0.15);
  release_answers();
  assert_string_equal(served, token);
  lucidauth_free_token(served);
  char *other = poll_for(account, &anew, NULL, &error);
  assert_token(other, "account-1");
  lucidauth_free_token(other);
  lucidauth_free_token(token);
  lucidauth_close(client);
}

static void test_failure(void **state)
{
  (void)state;
  lucidauth *client = new_client();
  lucidauth_account *account = account_of(client, "account-2");
  lucidauth_ticket ticket = LUCIDAUTH_TICKET_INIT;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  write_record("account-2", "{\"refresh_token\": \"unknown\"}");
  assert_null(poll_for(account, &ticket, NULL, &error));
  assert_int_equal(error.code, LUCIDAUTH_INVALID_GRANT);
  assert_null(lucidauth_token(client, "account-2", &error));
  assert_int_equal(error.code, LUCIDAUTH_INVALID_GRANT);
  assert_int_equal(posts(), 1);
  lucidauth_close(client);
}

static void test_events_on_the_callers_thread(void **state)
{
  (void)state;
  lucidauth *client = new_client();
  lucidauth_account *account = account_of(client, "account-1");
  lucidauth_ticket ticket = {.refresh = true};
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  assert_null(lucidauth_poll(account, &ticket, true, NULL, &error));
  double deadline = now() + PATIENCE;
  lucidauth_status status = LUCIDAUTH_STATUS_INIT;
  while (status.refreshes == 0 && now() < deadline) {
    pause_briefly();
    assert_true(lucidauth_get_status(client, "account-1", &status, NULL));
  }
  /* it has happened, and nobody has been told */
  assert_int_equal(atomic_load(&world.events), 0);
  lucidauth_deliver_events(client);
  assert_string_equal(world.names, "refreshed ");
  lucidauth_free_token(poll_for(account, &ticket, NULL, &error));
  (void)lucidauth_reject(client, "account-1", sandbox_token(&world.sandbox, "account-1", "access_token"), NULL);
  get_token(client, "account-1");
  assert_string_equal(world.names, "refreshed rejected refreshed ");
  assert_int_equal(atomic_load(&world.elsewhere), 0);
  lucidauth_close(client);
}

static void test_refreshes_ahead(void **state)
{
  (void)state;
  control("settings", "{\"lifetime\": 1}");
  lucidauth *client = new_client();
  get_token(client, "account-1");
  wait_for_posts(2);
  wait_for_posts(3);
  assert_nothing_spent_twice();
  lucidauth_close(client);
}

/* By a program that knows no page. */
static void test_sees_what_others_write(void **state)
{
  (void)state;
  char text[512];
  lucidauth *client = new_client();
  lucidauth_status status = LUCIDAUTH_STATUS_INIT;
  get_token(client, "account-1");
  snprintf(text, sizeof text, "{\"access_token\": \"another\", \"refresh_token\": \"%s\", \"expires_at\": %ld}",
           sandbox_token(&world.sandbox, "account-1", "refresh_token"), (long)time(NULL) + 3600);
  write_record("account-1", text);
  double deadline = now() + PATIENCE;
  do {
    pause_briefly();
    assert_true(lucidauth_get_status(client, "account-1", &status, NULL));
  } while (status.past[status.past_count - 1].kind != LUCIDAUTH_EVENT_ADOPTED && now() < deadline);
  assert_int_equal(status.past[status.past_count - 1].kind, LUCIDAUTH_EVENT_ADOPTED);
  char *token = lucidauth_token(client, "account-1", NULL);
  assert_string_equal(token, "another");
  lucidauth_free_token(token);
  assert_int_equal(posts(), 1);
  lucidauth_close(client);
}

static void test_close_waits_for_a_post(void **state)
{
  (void)state;
  lucidauth *client = new_client();
  control("faults", "{\"kind\": \"slow\", \"when\": \"after\", \"seconds\": 0.5}");
  leave_in_flight(client);
  lucidauth_close(client);
  assert_true(record_holds("account-1", sandbox_token(&world.sandbox, "account-1", "access_token")));
  assert_false(record_holds("account-1", "pending"));
  assert_string_equal(world.names, "refreshed ");
}

/* An event loop asks again and again, and closes once nothing is to be waited for. */
static void test_leave_waits_for_nothing(void **state)
{
  (void)state;
  lucidauth *client = new_client();
  lucidauth_ticket ticket = LUCIDAUTH_TICKET_INIT;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  assert_true(lucidauth_leave(client));
  control("faults", "{\"kind\": \"slow\", \"when\": \"before\", \"seconds\": 0.5}");
  assert_null(lucidauth_poll(account_of(client, "account-1"), &ticket, true, NULL, &error));
  wait_for_posts(1);
  assert_false(lucidauth_leave(client));
  assert_int_equal(sandbox_count(&world.sandbox, "rotations"), 0);
  while (!lucidauth_leave(client))
    pause_briefly();
  assert_true(record_holds("account-1", sandbox_token(&world.sandbox, "account-1", "access_token")));
  assert_false(record_holds("account-1", "pending"));
  lucidauth_close(client);
}

static void test_close_breaks_off_a_pause(void **state)
{
  (void)state;
  lucidauth *client = new_client();
  control("faults", "{\"kind\": \"answer\", \"status\": 429, \"headers\": {\"Retry-After\": \"20\"}}");
  leave_in_flight(client);
  lucidauth_close(client);
  assert_int_equal(posts(), 1); /* it has not been waited for */
  client = new_client();
  get_token(client, "account-1");
  assert_nothing_spent_twice();
  lucidauth_close(client);
}

static void test_thread_ends_with_the_last_client(void **state)
{
  (void)state;
  int before = count_threads();
  lucidauth *one = new_client(), *other = new_client();
  assert_threads(before);
  get_token(one, "account-1");
  get_token(other, "account-1");
  assert_threads(before + 1);
  lucidauth_close(one);
  get_token(other, "account-1");
  assert_threads(before + 1);
  lucidauth_close(other);
  assert_threads(before);
}

static void test_signals_are_the_programs(void **state)
{
  (void)state;
  sigset_t mine, before;
  lucidauth *client = new_client();
  get_token(client, "account-1");
  sigemptyset(&mine);
  sigaddset(&mine, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &mine, &before);
  /* with this thread's mask it can only go to another one, where it would end the process */
  assert_int_equal(kill(getpid(), SIGUSR1), 0);
  struct timespec limit = {.tv_sec = PATIENCE};
  assert_int_equal(sigtimedwait(&mine, NULL, &limit), SIGUSR1);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  lucidauth_close(client);
}

static void *ask(void *client)
{
  return lucidauth_token(client, "account-1", NULL);
}

static void test_threads_wait_for_one_refresh(void **state)
{
  (void)state;
  enum { THREADS = 8 };
  lucidauth_options chosen = options();
  chosen.on_event = NULL;
  lucidauth *client = client_with(&chosen);
  pthread_t threads[THREADS];
  control("settings", "{\"latency\": 0.2}");
  for (int i = 0; i < THREADS; i++)
    assert_int_equal(pthread_create(&threads[i], NULL, ask, client), 0);
  for (int i = 0; i < THREADS; i++) {
    void *token;
    assert_int_equal(pthread_join(threads[i], &token), 0);
    assert_token(token, "account-1");
    lucidauth_free_token(token);
  }
  assert_int_equal(posts(), 1);
  lucidauth_close(client);
}

static void *renew(void *client)
{
  return lucidauth_refresh(client, "account-1", NULL);
}

/* All that wait for the flight of somebody else want one and the same thing. */
static void refresh_at_once(bool background)
{
  enum { THREADS = 8 };
  lucidauth_options chosen = options();
  chosen.on_event = NULL;
  chosen.background = background;
  lucidauth *client = client_with(&chosen);
  pthread_t threads[THREADS];
  control("settings", "{\"latency\": 0.5}");
  assert_int_equal(pthread_create(&threads[0], NULL, renew, client), 0);
  wait_for_posts(1);
  for (int i = 1; i < THREADS; i++)
    assert_int_equal(pthread_create(&threads[i], NULL, renew, client), 0);
  for (int i = 0; i < THREADS; i++) {
    void *token;
    assert_int_equal(pthread_join(threads[i], &token), 0);
    assert_non_null(token);
    lucidauth_free_token(token);
  }
  /* a thread that starts late on a busy machine may need one more */
  assert_in_range(posts(), 2, 3);
  assert_nothing_spent_twice();
  lucidauth_close(client);
}

static void test_refreshes_asked_for_at_once_are_one(void **state)
{
  (void)state;
  refresh_at_once(true);
}

static void test_and_so_they_are_without_the_background(void **state)
{
  (void)state;
  refresh_at_once(false);
}

static void *come_and_go(void *failed)
{
  for (int i = 0; i < 20; i++) {
    lucidauth_options chosen = options();
    chosen.on_event = NULL;
    lucidauth *client = lucidauth_new(&chosen, NULL);
    char *token = client ? lucidauth_token(client, "account-1", NULL) : NULL;
    if (!token)
      atomic_store((atomic_bool *)failed, true);
    lucidauth_free_token(token);
    lucidauth_close(client);
  }
  return NULL;
}

static void test_clients_come_and_go(void **state)
{
  (void)state;
  enum { THREADS = 4 };
  atomic_bool failed = false;
  pthread_t threads[THREADS];
  int before = count_threads();
  for (int i = 0; i < THREADS; i++)
    assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, &failed), 0);
  for (int i = 0; i < THREADS; i++)
    pthread_join(threads[i], NULL);
  assert_false(atomic_load(&failed));
  assert_int_equal(posts(), 1);
  assert_threads(before);
}

/* ---- fork ---- */

/* What belonged to the parent's thread is lost in the child; this keeps leak checkers from saying so. */
static void end_child(bool good)
{
  execlp(good ? "true" : "false", "", (char *)NULL);
  _exit(127);
}

static void assert_ends_well(pid_t child)
{
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFEXITED(status));
  assert_int_equal(WEXITSTATUS(status), 0);
}

/* Both processes refresh, one after the other, and see each other's tokens; the parent closes its client. */
static void go_on_in_both(lucidauth *client, int expected_posts)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  char *token;
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    alarm(PATIENCE);
    token = lucidauth_refresh(client, "account-1", &error);
    bool good = token != NULL;
    fputs(error.message, stderr);
    lucidauth_free_token(token);
    lucidauth_close(client);
    end_child(good);
  }
  assert_ends_well(child);
  get_token(client, "account-1");
  token = lucidauth_refresh(client, "account-1", &error);
  assert_token(token, "account-1");
  lucidauth_free_token(token);
  assert_nothing_spent_twice();
  assert_int_equal(posts(), expected_posts);
  lucidauth_close(client);
}

static lucidauth *client_to_fork_with(void)
{
  if (!FORKED_CHILD_HAS_THREADS)
    skip();
  return new_client();
}

static void test_fork(void **state)
{
  (void)state;
  lucidauth *client = client_to_fork_with();
  get_token(client, "account-1");
  go_on_in_both(client, 3);
}

static void test_fork_before_the_first_use(void **state)
{
  (void)state;
  lucidauth *client = client_to_fork_with();
  account_of(client, "account-1");
  go_on_in_both(client, 2);
}

static void test_fork_during_a_flight(void **state)
{
  (void)state;
  lucidauth *client = client_to_fork_with();
  control("faults", "{\"kind\": \"slow\", \"when\": \"after\", \"seconds\": 0.5}");
  leave_in_flight(client);
  go_on_in_both(client, 3);
  assert_int_equal(sandbox_count(&world.sandbox, "introspections"), 0);
}

/* ---- flights in the program's own hands ---- */

static lucidauth *own_storage(void)
{
  lucidauth_options chosen = options();
  chosen.storage = LUCIDAUTH_CUSTOM;
  chosen.path = "of the test";
  return client_with(&chosen);
}

/* Carry the flight on to its POST. */
static void advance(lucidauth_flight *flight, const char *record)
{
  char kept[4096];
  lucidauth_action action = next_action(flight, LUCIDAUTH_RESULT_OK, NULL);
  while (action.step != LUCIDAUTH_STEP_POST) {
    assert_int_not_equal(action.step, LUCIDAUTH_STEP_DONE);
    if (action.step == LUCIDAUTH_STEP_SAVE) {
      snprintf(kept, sizeof kept, "%s", action.record);
      record = kept;
    }
    action = next_action(flight, LUCIDAUTH_RESULT_OK, action.step == LUCIDAUTH_STEP_LOAD ? record : NULL);
  }
}

static lucidauth_flight *go_on_to_post(lucidauth *client, const char *name)
{
  char record[256];
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  snprintf(record, sizeof record, "{\"refresh_token\": \"%s\"}", sandbox_token(&world.sandbox, name, "refresh_token"));
  lucidauth_flight *flight = lucidauth_flight_begin(account_of(client, name), false, NULL, &error);
  assert_non_null(flight);
  advance(flight, record);
  return flight;
}

static char *finish(lucidauth_flight *flight)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  double deadline = now() + PATIENCE;
  while (!lucidauth_flight_has_posted(flight) && now() < deadline)
    pause_briefly();
  while (next_action(flight, LUCIDAUTH_RESULT_OK, NULL).step != LUCIDAUTH_STEP_DONE)
    continue;
  char *token = lucidauth_flight_end(flight, NULL, &error);
  assert_non_null(token);
  return token;
}

static void test_posts_side_by_side(void **state)
{
  (void)state;
  enum { FLIGHTS = 8 };
  lucidauth *client = own_storage();
  lucidauth_flight *flights[FLIGHTS];
  char name[16];
  int before = count_threads();
  control("faults", "{\"kind\": \"held\", \"times\": \"always\"}");
  for (int i = 0; i < FLIGHTS; i++) {
    name_account(name, i + 1);
    flights[i] = go_on_to_post(client, name);
    lucidauth_flight_start_post(flights[i]);
    assert_false(lucidauth_flight_has_posted(flights[i]));
  }
  wait_for_posts(FLIGHTS);
  release_answers();
  for (int i = 0; i < FLIGHTS; i++) {
    name_account(name, i + 1);
    char *token = finish(flights[i]);
    assert_token(token, name);
    lucidauth_free_token(token);
  }
  assert_int_equal(posts(), FLIGHTS);
  assert_threads(before);
  lucidauth_close(client);
}

static void test_close_with_a_post_under_way(void **state)
{
  (void)state;
  lucidauth *client = own_storage();
  control("settings", "{\"latency\": 0.3}");
  lucidauth_flight_start_post(go_on_to_post(client, "account-1"));
  wait_for_posts(1);
  int before = count_threads();
  lucidauth_close(client);
  assert_threads(before - 1);
}

static void test_fork_with_a_post_under_way(void **state)
{
  (void)state;
  lucidauth *client = own_storage();
  control("settings", "{\"latency\": 0.3}");
  lucidauth_flight *flight = go_on_to_post(client, "account-1");
  lucidauth_flight_start_post(flight);
  wait_for_posts(1);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    alarm(PATIENCE);
    lucidauth_close(client);
    end_child(true);
  }
  assert_ends_well(child);
  char *token = finish(flight);
  assert_token(token, "account-1");
  lucidauth_free_token(token);
  lucidauth_close(client);
}

static int group_setup(void **state)
{
  (void)state;
  umask(077);
  char accounts[32];
  snprintf(accounts, sizeof accounts, "--refresh-tokens=%d", ACCOUNTS);
  world.sandbox = sandbox_start("lua5.4", ".", (const char *const[]){accounts, NULL});
  return 0;
}

static int group_teardown(void **state)
{
  (void)state;
  sandbox_stop(&world.sandbox);
  return 0;
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_many_side_by_side, setup, teardown),
      cmocka_unit_test_setup_teardown(test_poll, setup, teardown),
      cmocka_unit_test_setup_teardown(test_poll_needs_background, setup, teardown),
      cmocka_unit_test_setup_teardown(test_served_while_it_hangs, setup, teardown),
      cmocka_unit_test_setup_teardown(test_failure, setup, teardown),
      cmocka_unit_test_setup_teardown(test_events_on_the_callers_thread, setup, teardown),
      cmocka_unit_test_setup_teardown(test_refreshes_ahead, setup, teardown),
      cmocka_unit_test_setup_teardown(test_sees_what_others_write, setup, teardown),
      cmocka_unit_test_setup_teardown(test_close_waits_for_a_post, setup, teardown),
      cmocka_unit_test_setup_teardown(test_leave_waits_for_nothing, setup, teardown),
      cmocka_unit_test_setup_teardown(test_close_breaks_off_a_pause, setup, teardown),
      cmocka_unit_test_setup_teardown(test_thread_ends_with_the_last_client, setup, teardown),
      cmocka_unit_test_setup_teardown(test_signals_are_the_programs, setup, teardown),
      cmocka_unit_test_setup_teardown(test_threads_wait_for_one_refresh, setup, teardown),
      cmocka_unit_test_setup_teardown(test_refreshes_asked_for_at_once_are_one, setup, teardown),
      cmocka_unit_test_setup_teardown(test_and_so_they_are_without_the_background, setup, teardown),
      cmocka_unit_test_setup_teardown(test_clients_come_and_go, setup, teardown),
      cmocka_unit_test_setup_teardown(test_fork, setup, teardown),
      cmocka_unit_test_setup_teardown(test_fork_before_the_first_use, setup, teardown),
      cmocka_unit_test_setup_teardown(test_fork_during_a_flight, setup, teardown),
      cmocka_unit_test_setup_teardown(test_posts_side_by_side, setup, teardown),
      cmocka_unit_test_setup_teardown(test_close_with_a_post_under_way, setup, teardown),
      cmocka_unit_test_setup_teardown(test_fork_with_a_post_under_way, setup, teardown),
  };
  return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
