/* What sharing one token file costs, and how fast it is: crowd INTERPRETER SOURCE-FOLDER [processes]
 *
 * Prints a number a line, in nanoseconds, behind its name. */
#include "../spec/account/sandbox.h"
#include "../src/lucidauth.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { REFRESHES = 50, ROUNDS = 7, CALLS = 20 * 1000 * 1000, CROWD_MOST = 1024 };

/* Shared by all processes. */
struct board {
  _Atomic(double) refreshed[REFRESHES], seen[REFRESHES], done[CROWD_MOST];
  atomic_long round, ready;
};

static struct {
  struct sandbox sandbox;
  char folder[64], path[128];
  long processes;
  struct board *board;
} bench;

static double now(void)
{
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static lucidauth *open_client(lucidauth_storage storage)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_options options = LUCIDAUTH_OPTIONS_INIT;
  options.api_url = bench.sandbox.url;
  options.client_id = "sandbox-client";
  options.client_secret = "sandbox-secret";
  options.refresh_token = bench.sandbox.refresh_token;
  options.storage = storage;
  options.path = bench.path;
  lucidauth *client = lucidauth_new(&options, &error);
  if (!client)
    sandbox_fail("%s", error.message);
  return client;
}

static char *token_of(lucidauth_account *account, uint64_t *serial)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  char *token = lucidauth_token_of(account, serial, &error);
  if (!token)
    sandbox_fail("%s", error.message);
  return token;
}

static int compare(const void *one, const void *other)
{
  double a = *(const double *)one, b = *(const double *)other;
  return (a > b) - (a < b);
}

static double median(double *values, int count)
{
  qsort(values, (size_t)count, sizeof *values, compare);
  return values[count / 2];
}

static void latency(const char *seconds)
{
  char text[64];
  snprintf(text, sizeof text, "{\"latency\":%s}", seconds);
  cJSON_Delete(sandbox_control(&bench.sandbox, "POST", "settings", text));
}

/* ---- another process's refresh, seen by a reader that spins ---- */

_Noreturn static void spin(void)
{
  lucidauth *client = open_client(LUCIDAUTH_FILE);
  lucidauth_account *account = lucidauth_get_account(client, NULL, NULL);
  uint64_t serial = 0;
  char *token = token_of(account, &serial);
  atomic_store(&bench.board->ready, 1);
  for (int i = 0; i < REFRESHES;) {
    if (lucidauth_is_current(account, serial))
      continue;
    char *next = token_of(account, &serial);
    if (strcmp(next, token) != 0)
      atomic_store(&bench.board->seen[i++], now());
    lucidauth_free_token(token);
    token = next;
  }
  _exit(0);
}

static void measure_visibility(void)
{
  double late[REFRESHES];
  lucidauth *client = open_client(LUCIDAUTH_FILE);
  lucidauth_free_token(lucidauth_token(client, NULL, NULL));
  atomic_store(&bench.board->ready, 0);
  pid_t reader = fork();
  if (reader == 0)
    spin();
  while (!atomic_load(&bench.board->ready))
    continue;
  for (int i = 0; i < REFRESHES; i++) {
    lucidauth_free_token(lucidauth_refresh(client, NULL, NULL));
    atomic_store(&bench.board->refreshed[i], now());
    while (atomic_load(&bench.board->seen[i]) == 0)
      continue;
  }
  waitpid(reader, NULL, 0);
  for (int i = 0; i < REFRESHES; i++)
    late[i] = fmax(0, bench.board->seen[i] - bench.board->refreshed[i]);
  double middle = median(late, REFRESHES);
  printf("seen: %.0f\nseen at the latest: %.0f\n", middle * 1e9, late[REFRESHES - 1] * 1e9);
  lucidauth_close(client);
}

/* ---- an expiry that all notice at the same moment ---- */

_Noreturn static void contend(long number)
{
  lucidauth *client = open_client(LUCIDAUTH_FILE);
  for (long round = 1; round <= ROUNDS; round++) {
    char *token = lucidauth_token(client, NULL, NULL);
    (void)lucidauth_reject(client, NULL, token, NULL);
    lucidauth_free_token(token);
    atomic_fetch_add(&bench.board->ready, 1);
    while (atomic_load(&bench.board->round) < round)
      nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    lucidauth_free_token(lucidauth_token(client, NULL, NULL));
    atomic_store(&bench.board->done[number], now());
    atomic_fetch_add(&bench.board->ready, 1);
    while (atomic_load(&bench.board->round) < round + ROUNDS)
      nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    while (atomic_load(&bench.board->round) >= ROUNDS + round)
      nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
  }
  _exit(0);
}

static void wait_for(long ready)
{
  while (atomic_load(&bench.board->ready) < ready)
    nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
  atomic_store(&bench.board->ready, 0);
}

/* From the start until the last one has its token. */
static double settle(long processes)
{
  double taken[ROUNDS];
  atomic_store(&bench.board->round, 0);
  atomic_store(&bench.board->ready, 0);
  for (long i = 0; i < processes; i++)
    if (fork() == 0)
      contend(i);
  for (long round = 1; round <= ROUNDS; round++) {
    double last = 0;
    wait_for(processes);
    double begun = now();
    atomic_store(&bench.board->round, round);
    wait_for(processes);
    for (long i = 0; i < processes; i++)
      last = fmax(last, bench.board->done[i]);
    taken[round - 1] = last - begun;
    atomic_store(&bench.board->round, round + ROUNDS);
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    atomic_store(&bench.board->round, round);
  }
  for (long i = 0; i < processes; i++)
    wait(NULL);
  return median(taken, ROUNDS);
}

static void measure_contention(void)
{
  latency("0.1");
  double lone = settle(1), crowded = settle(bench.processes);
  latency("0");
  printf("lone expiry: %.0f\ncrowded expiry: %.0f\n", lone * 1e9, crowded * 1e9);
}

/* ---- the hot path ---- */

static double call_costs(lucidauth_storage storage)
{
  lucidauth *client = open_client(storage);
  lucidauth_account *account = lucidauth_get_account(client, NULL, NULL);
  double costs[ROUNDS];
  uint64_t serial;
  lucidauth_free_token(token_of(account, &serial));
  lucidauth_free_token(token_of(account, &serial));
  for (int round = 0; round < ROUNDS; round++) {
    double begun = now();
    for (long i = 0; i < CALLS / ROUNDS; i++)
      if (!lucidauth_is_current(account, serial))
        lucidauth_free_token(token_of(account, &serial));
    costs[round] = (now() - begun) / (CALLS / ROUNDS);
  }
  lucidauth_close(client);
  return median(costs, ROUNDS) * 1e9;
}

/* What the page brings to it: a load from shared memory, one from the account, a comparison. */
static double page_costs(void)
{
  atomic_uint_least64_t *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), seen = 2;
  atomic_store(page, 2);
  double costs[ROUNDS];
  for (int round = 0; round < ROUNDS; round++) {
    long same = 0;
    double begun = now();
    for (long i = 0; i < CALLS; i++)
      same += atomic_load_explicit(page, memory_order_acquire) == atomic_load_explicit(&seen, memory_order_relaxed);
    costs[round] = same == CALLS ? (now() - begun) / CALLS : 1;
  }
  munmap(page, 8192);
  return median(costs, ROUNDS) * 1e9;
}

static void measure_hot_path(void)
{
  printf("check: %.2f\npage: %.2f\n", call_costs(LUCIDAUTH_FILE), page_costs());
}

int main(int count, char **arguments)
{
  static const char *const flags[] = {NULL}, *const endings[] = {"", ".lock", ".tmp"};
  char path[160];
  if (count < 3)
    sandbox_fail("usage: crowd interpreter source-folder [processes]");
  bench.processes = count > 3 ? strtol(arguments[3], NULL, 10) : 64;
  if (bench.processes < 1 || bench.processes > CROWD_MOST)
    sandbox_fail("crowd: the number of processes is out of range");
  bench.board = mmap(NULL, sizeof *bench.board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  snprintf(bench.folder, sizeof bench.folder, "/tmp/bench-crowd.XXXXXX");
  if (bench.board == MAP_FAILED || !mkdtemp(bench.folder))
    sandbox_fail("no folder for the tokens");
  snprintf(bench.path, sizeof bench.path, "%s/token.json", bench.folder);
  bench.sandbox = sandbox_start(arguments[1], arguments[2], flags);
  measure_visibility();
  measure_contention();
  measure_hot_path();
  sandbox_stop(&bench.sandbox);
  for (size_t i = 0; i < 3; i++) {
    snprintf(path, sizeof path, "%s%s", bench.path, endings[i]);
    unlink(path);
  }
  rmdir(bench.folder);
  return 0;
}
