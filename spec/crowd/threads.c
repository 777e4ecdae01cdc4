/* Threads on one client, made for ThreadSanitizer: every function at once on several accounts, while the process forks
 * and other clients come and go. The server punishes reuse, and its count of rotations must be ours.
 *
 *   threads --lua INTERPRETER --source FOLDER [--threads 16] [--calls 400] [--forks 12] [--seed N] */
#include "../../src/lucidauth.h"
#include "../account/sandbox.h"

#include <cjson/cJSON.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ACCOUNTS = 4, THREADS = 64, PATH_ROOM = 512 };

static const char *const accounts[ACCOUNTS] = {"default", "anna", "bert", "carl"};

static struct {
  const char *lua, *source;
  long threads, calls, forks, seed;
} wanted = {.threads = 16, .calls = 400, .forks = 12, .seed = 1};

/* What children of fork report to as well. */
struct counts {
  atomic_long refreshed, rejected, tokens, failures;
};

static struct {
  struct sandbox sandbox;
  char folder[64];
  lucidauth *client;
  struct counts *counts;
  atomic_bool over;
} stress;

/* ---- set-up ---- */

static void count_event(void *data, const lucidauth_event *event)
{
  (void)data;
  if (event->kind == LUCIDAUTH_EVENT_REFRESHED)
    atomic_fetch_add(&stress.counts->refreshed, 1);
  if (event->kind == LUCIDAUTH_EVENT_REJECTED)
    atomic_fetch_add(&stress.counts->rejected, 1);
}

static lucidauth *open_client(double refresh_wait)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_options options = LUCIDAUTH_OPTIONS_INIT;
  options.api_url = stress.sandbox.url;
  options.client_id = "sandbox-client";
  options.client_secret = "sandbox-secret";
  options.storage = LUCIDAUTH_DIRECTORY;
  options.path = stress.folder;
  options.refresh_wait = refresh_wait;
  options.on_event = count_event;
  lucidauth *client = lucidauth_new(&options, &error);
  if (!client)
    sandbox_fail("%s", error.message);
  return client;
}

static void path_of(char path[PATH_ROOM], const char *name, const char *ending)
{
  snprintf(path, PATH_ROOM, "%s/%s%s", stress.folder, name, ending);
}

/* Each account's file holds nothing but the refresh token of a fresh login. */
static void open_accounts(void)
{
  char path[PATH_ROOM], body[128];
  for (int i = 0; i < ACCOUNTS; i++) {
    snprintf(body, sizeof body, "{\"account\":\"%s-%ld\"}", accounts[i], random());
    cJSON *grant = sandbox_control(&stress.sandbox, "POST", "grants", body);
    path_of(path, accounts[i], ".json");
    FILE *file = fopen(path, "w");
    if (!file || fprintf(file, "{\"refresh_token\":\"%s\"}",
                         cJSON_GetStringValue(cJSON_GetObjectItem(grant, "refresh_token"))) < 0)
      sandbox_fail("%s cannot be written", path);
    fclose(file);
    chmod(path, 0600);
    cJSON_Delete(grant);
  }
}

static void clean_up(void)
{
  char path[PATH_ROOM];
  for (int i = 0; i < ACCOUNTS; i++) {
    path_of(path, accounts[i], ".json");
    unlink(path);
  }
  path_of(path, "", ".lock");
  unlink(path);
  rmdir(stress.folder);
}

static void set_fault(const char *fault)
{
  cJSON_Delete(sandbox_control(&stress.sandbox, "POST", "faults", fault));
}

static void expect(bool holds, const char *what)
{
  if (!holds)
    sandbox_fail("WRONG: %s", what);
}

/* ---- everything at once ---- */

static char *fetch(lucidauth *client, const char *account, bool refresh)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  char *token = refresh ? lucidauth_refresh(client, account, &error) : lucidauth_token(client, account, &error);
  if (token && strncmp(token, "oauth2-a-", 9) == 0) {
    atomic_fetch_add(&stress.counts->tokens, 1);
  } else {
    atomic_fetch_add(&stress.counts->failures, 1);
    fprintf(stderr, "%s: %s\n", account, error.message);
  }
  return token;
}

static void fetch_by_handle(const char *name)
{
  uint64_t serial = 0;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_account *account = lucidauth_get_account(stress.client, name, &error);
  char *token = account ? lucidauth_token_of(account, &serial, &error) : NULL;
  for (int i = 0; token && i < 1000 && lucidauth_is_current(account, serial); i++)
    continue;
  atomic_fetch_add(token ? &stress.counts->tokens : &stress.counts->failures, 1);
  lucidauth_free_token(token);
}

static void look(const char *name)
{
  lucidauth_status status = LUCIDAUTH_STATUS_INIT;
  expect(lucidauth_get_status(stress.client, name, &status, NULL), "there is no such account");
  expect(status.expires_in >= 0 && status.state != NULL, "the status makes no sense");
}

static void call(unsigned *seed)
{
  unsigned lot = (unsigned)rand_r(seed) % 100;
  const char *account = accounts[(unsigned)rand_r(seed) % ACCOUNTS];
  if (lot < 50) {
    lucidauth_free_token(fetch(stress.client, account, false));
  } else if (lot < 75) {
    fetch_by_handle(account);
  } else if (lot < 90) {
    look(account);
  } else if (lot < 93) {
    lucidauth_free_token(fetch(stress.client, account, true));
  } else {
    char *token = fetch(stress.client, account, false);
    if (token)
      (void)lucidauth_reject(stress.client, account, lot < 95 ? token : "another", NULL);
    lucidauth_free_token(token);
  }
}

static void *run_thread(void *context)
{
  unsigned seed = (unsigned)(uintptr_t)context;
  for (long i = 0; i < wanted.calls; i++)
    call(&seed);
  return NULL;
}

/* Clients of other threads that come and go, so that fork meets them at any moment. */
static void *come_and_go(void *context)
{
  (void)context;
  while (!atomic_load(&stress.over)) {
    lucidauth *client = open_client(2);
    lucidauth_free_token(fetch(client, "anna", false));
    lucidauth_close(client);
  }
  return NULL;
}

/* A child goes on with the client that it has, and with one of its own. It is left as it stands: a thread that stayed
 * behind may have been about to free what a close would free. */
_Noreturn static void be_child(unsigned seed)
{
#if defined(__SANITIZE_THREAD__)
  /* a lock of the sanitizer's own may have stayed behind as locked */
  _exit(0);
#endif
  for (int i = 0; i < 12; i++)
    call(&seed);
  lucidauth *own = open_client(2);
  for (int i = 0; i < ACCOUNTS; i++)
    lucidauth_free_token(fetch(own, accounts[i], i == 0));
  lucidauth_close(own);
  _exit(0);
}

static void wait_for(pid_t child)
{
  int status = -1;
  waitpid(child, &status, 0);
  expect(status == 0, "a child of fork has failed");
}

/* Always two of them side by side. */
static void fork_now_and_then(void)
{
  pid_t last = 0;
  for (long i = 0; i < wanted.forks; i++) {
    pid_t child = fork();
    if (child == 0)
      be_child((unsigned)(wanted.seed * 1000 + i));
    if (last)
      wait_for(last);
    last = child;
  }
  if (last)
    wait_for(last);
}

static void check_everything_at_once(void)
{
  pthread_t threads[THREADS], visitor;
  long before = sandbox_count(&stress.sandbox, "rotations");
  stress.client = open_client(2);
  lucidauth_free_token(fetch(stress.client, "default", false)); /* libraries that are loaded at the first refresh */
  pthread_create(&visitor, NULL, come_and_go, NULL);
  for (long i = 0; i < wanted.threads; i++)
    pthread_create(&threads[i], NULL, run_thread, (void *)(uintptr_t)(wanted.seed * 100 + i));
  fork_now_and_then();
  for (long i = 0; i < wanted.threads; i++)
    pthread_join(threads[i], NULL);
  atomic_store(&stress.over, true);
  pthread_join(visitor, NULL);
  for (int i = 0; i < ACCOUNTS; i++) {
    char *token = fetch(stress.client, accounts[i], false);
    int status = sandbox_ask(stress.sandbox.port, "GET", "/users/me/profile", token, NULL, NULL);
    expect(status == 200, "a token does not work in the end");
    lucidauth_free_token(token);
  }
  lucidauth_close(stress.client);
  struct counts *counts = stress.counts;
  printf("threads: %ld tokens, %ld refreshes, %ld rejections, %ld failures\n", counts->tokens, counts->refreshed,
         counts->rejected, counts->failures);
  expect(counts->failures == 0, "somebody got no token");
  expect(sandbox_count(&stress.sandbox, "reuses") + sandbox_count(&stress.sandbox, "overlaps") == 0,
         "a refresh token was sent twice");
  expect(sandbox_count(&stress.sandbox, "rotations") - before == counts->refreshed,
         "the server has rotated more often than it was noticed");
}

/* ---- one at a time ---- */

static void *refresh_slowly(void *context)
{
  lucidauth_free_token(fetch(context, "default", true));
  return NULL;
}

static void *take_once(void *context)
{
  lucidauth_free_token(fetch(context, "default", false));
  return NULL;
}

/* Threads serve the present token while one of them refreshes; a flight is waited for once by each of them, or less. */
static void check_waits(void)
{
  pthread_t refresher;
  lucidauth *client = open_client(0.5);
  take_once(client);
  long before = sandbox_count(&stress.sandbox, "token_requests");
  set_fault("{\"kind\":\"held\"}");
  pthread_create(&refresher, NULL, refresh_slowly, client);
  while (sandbox_count(&stress.sandbox, "token_requests") == before)
    continue;
  double began = sandbox_clock();
  take_once(client);
  double first = sandbox_clock() - began;
  for (int i = 0; i < 100; i++)
    take_once(client);
  double others = sandbox_clock() - began - first;
  cJSON_Delete(sandbox_control(&stress.sandbox, "DELETE", "faults", NULL));
  pthread_join(refresher, NULL);
  lucidauth_close(client);
  expect(first >= 0.5, "a slow refresh by another thread is not waited for");
  expect(others < 50 * first, "a slow refresh by another thread is waited for more than once");
}

/* A child knows what its parent was told. */
static void check_rejection_in_child(void)
{
  int status;
  lucidauth *client = open_client(2);
  char *dead = fetch(client, "default", false);
  set_fault("{\"kind\":\"answer\",\"status\":400,\"body\":{\"error\":\"invalid_request\"},\"times\":2}");
  (void)lucidauth_reject(client, "default", dead, NULL);
  expect(lucidauth_token(client, "default", NULL) == NULL, "the rejected token is handed out again");
  pid_t child = fork();
  if (child == 0) {
    char *token = lucidauth_token(client, "default", NULL);
    _exit(token && strcmp(token, dead) == 0);
  }
  waitpid(child, &status, 0);
  expect(status == 0, "a child of fork hands out a token that its parent had rejected");
  lucidauth_free_token(dead);
  lucidauth_close(client);
}

/* ---- the command line ---- */

static void read_arguments(int count, char **arguments)
{
  for (int i = 1; i + 1 < count; i += 2) {
    const char *name = arguments[i], *value = arguments[i + 1];
    long number = strtol(value, NULL, 10);
    if (strcmp(name, "--lua") == 0)
      wanted.lua = value;
    else if (strcmp(name, "--source") == 0)
      wanted.source = value;
    else if (strcmp(name, "--threads") == 0)
      wanted.threads = number < THREADS ? number : THREADS;
    else if (strcmp(name, "--calls") == 0)
      wanted.calls = number;
    else if (strcmp(name, "--forks") == 0)
      wanted.forks = number;
    else if (strcmp(name, "--seed") == 0)
      wanted.seed = number;
    else
      sandbox_fail("threads: what is %s?", name);
  }
  if (!wanted.lua || !wanted.source)
    sandbox_fail("threads: --lua and --source are needed");
}

int main(int count, char **arguments)
{
  static const char *const flags[] = {"--lifetime=3600", NULL};
  const char *base = getenv("TMPDIR");
  read_arguments(count, arguments);
  snprintf(stress.folder, sizeof stress.folder, "%.40s/threads.XXXXXX", base && *base ? base : "/tmp");
  stress.counts = mmap(NULL, sizeof *stress.counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (!mkdtemp(stress.folder) || stress.counts == MAP_FAILED)
    sandbox_fail("no folder for the tokens");
  stress.sandbox = sandbox_start(wanted.lua, wanted.source, flags);
  for (int i = 0; i < 3; i++) {
    static void (*const checks[])(void) = {check_everything_at_once, check_rejection_in_child, check_waits};
    cJSON_Delete(sandbox_control(&stress.sandbox, "POST", "reset", NULL));
    open_accounts();
    checks[i]();
  }
  sandbox_stop(&stress.sandbox);
  clean_up();
  return 0;
}
