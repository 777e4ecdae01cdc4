/* Signals that come while a refresh is under way. Each process that is to be ended by one is a child. */
#define _GNU_SOURCE
#include "../system/clock.h"
#include "../system/thread.h"
#include "fixture.h"
#include "next_action.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <unistd.h>

#include <cmocka.h>

/* What parent and child see of each other. */
static struct {
  _Atomic double ahead; /* seconds that the child's clock is ahead of the machine's */
  atomic_bool handled;
} * shared;

struct moment __real_clock_now(void);
struct moment __wrap_clock_now(void);

struct moment __wrap_clock_now(void)
{
  return moment_after(__real_clock_now(), shared ? atomic_load(&shared->ahead) : 0);
}

/* ---- a disk that does not take what is written ---- */

static bool broken_disk, strike;

int __real_fsync(int fd);
int __wrap_fsync(int fd);

int __wrap_fsync(int fd)
{
  errno = EIO;
  if (broken_disk && atomic_load(&endpoint->answered) > 0)
    return -1;
  if (strike)
    raise(SIGTERM);
  return __real_fsync(fd);
}

/* ---- helpers ---- */

static int set_up(void **state)
{
  shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return shared == MAP_FAILED ? -1 : fixture_set_up(state);
}

static int tear_down(void **state)
{
  munmap(shared, sizeof *shared);
  shared = NULL;
  return fixture_tear_down(state);
}

static pid_t start_child(void (*body)(void))
{
  fflush(stdout);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    for (int number = 1; number <= SIGRTMAX; number++) /* whatever the one who runs the tests has ignored */
      signal(number, SIG_DFL);
    body();
    _exit(0);
  }
  return child;
}

/* A child whose refresh has arrived at the endpoint, which does not answer yet. */
static pid_t start_refresh(void (*body)(void))
{
  endpoint_hold();
  pid_t child = start_child(body);
  assert_true(endpoint_has_seen(1));
  return child;
}

static void refresh(void)
{
  lucidauth *client = fixture_client(false);
  char *token = lucidauth_token(client, NULL, NULL);
  _exit(token ? 0 : 1);
}

static void refresh_unheld(void)
{
  lucidauth_options options = fixture_options(false);
  options.hold_signals = false;
  char *token = lucidauth_token(fixture_open(&options), NULL, NULL);
  _exit(token ? 0 : 1);
}

/* Whether a signal waits for the child to take it. */
static bool has_pending(pid_t child)
{
  char path[40], line[100];
  bool pending = false;
  snprintf(path, sizeof path, "/proc/%ld/status", (long)child);
  FILE *status = fopen(path, "r");
  assert_non_null(status);
  while (fgets(line, sizeof line, status))
    if (strncmp(line, "ShdPnd:", 7) == 0 && strtoull(line + 7, NULL, 16) != 0)
      pending = true;
  fclose(status);
  return pending;
}

/* Send it, and wait until the child has had a look at it. */
static void send(pid_t child, int number)
{
  double deadline = endpoint_now() + ENDPOINT_PATIENCE;
  assert_int_equal(kill(child, number), 0);
  while (has_pending(child) && endpoint_now() < deadline)
    endpoint_pause();
  assert_false(has_pending(child));
}

static void assert_saved(void)
{
  assert_true(fixture_stored("\"R1\""));
  assert_false(fixture_stored("pending"));
}

/* ---- what is held ---- */

static void the_tokens_are_saved_before_a_signal_ends_the_process(void **state)
{
  const int numbers[] = {SIGTERM, SIGHUP,  SIGALRM, SIGINT, SIGQUIT,   SIGUSR1,
                         SIGUSR2, SIGPROF, SIGXCPU, SIGIO,  SIGVTALRM, SIGRTMIN + 3};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    pid_t child = start_refresh(refresh);
    assert_int_equal(kill(child, numbers[i]), 0);
    endpoint_go_on();
    assert_int_equal(fixture_status(child), 128 + numbers[i]);
    assert_saved();
    tear_down(state);
    set_up(state);
  }
}

static void close_with_unsaved_tokens(void)
{
  lucidauth *client = fixture_client(false);
  broken_disk = true;
  lucidauth_free_token(lucidauth_token(client, NULL, NULL));
  broken_disk = false;
  strike = true;
  lucidauth_close(client);
}

/* ---- in the background ---- */

static void refresh_in_the_background(void)
{
  lucidauth *client = fixture_client(true);
  char *token = lucidauth_token(client, NULL, NULL);
  _exit(token ? 0 : 1);
}

static void close_during_a_flight(void)
{
  lucidauth_ticket ticket = LUCIDAUTH_TICKET_INIT;
  lucidauth *client = fixture_client(true);
  (void)lucidauth_poll(lucidauth_get_account(client, NULL, NULL), &ticket, true, NULL, NULL);
  endpoint_has_seen(1);
  lucidauth_close(client);
}

static void end_during_a_flight(void)
{
  lucidauth_ticket ticket = LUCIDAUTH_TICKET_INIT;
  lucidauth *client = fixture_client(true);
  (void)lucidauth_poll(lucidauth_get_account(client, NULL, NULL), &ticket, true, NULL, NULL);
  endpoint_has_seen(1);
  exit(0);
}

static bool is_blocked_in(pid_t child, int number)
{
  char path[40], line[100];
  bool blocked = false;
  snprintf(path, sizeof path, "/proc/%ld/status", (long)child);
  FILE *status = fopen(path, "r");
  while (status && fgets(line, sizeof line, status))
    if (strncmp(line, "SigBlk:", 7) == 0 && strtoull(line + 7, NULL, 16) >> (number - 1) & 1)
      blocked = true;
  if (status)
    fclose(status);
  return blocked;
}

/* Who waits for the background's thread waits for all that is at stake. */
static void whoever_waits_for_the_background_holds_them_too(void **state)
{
  void (*const bodies[])(void) = {refresh_in_the_background, close_during_a_flight, end_during_a_flight};
  for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
    pid_t child = start_refresh(bodies[i]);
    double deadline = endpoint_now() + ENDPOINT_PATIENCE;
    while (!is_blocked_in(child, SIGTERM) && endpoint_now() < deadline)
      endpoint_pause();
    assert_int_equal(kill(child, SIGTERM), 0);
    endpoint_go_on();
    assert_int_equal(fixture_status(child), 128 + SIGTERM);
    assert_saved();
    tear_down(state);
    set_up(state);
  }
}

static void tokens_that_could_not_be_saved_before_are_saved_first(void **state)
{
  (void)state;
  assert_int_equal(fixture_status(start_child(close_with_unsaved_tokens)), 128 + SIGTERM);
  assert_saved();
}

static void a_second_signal_a_second_later_is_obeyed_at_once(void **state)
{
  (void)state;
  pid_t child = start_refresh(refresh);
  send(child, SIGTERM);
  atomic_store(&shared->ahead, 1);
  assert_int_equal(kill(child, SIGINT), 0);
  assert_int_equal(fixture_status(child), 128 + SIGINT);
  assert_true(fixture_stored("pending"));
}

static void one_that_comes_sooner_changes_nothing(void **state)
{
  (void)state;
  pid_t child = start_refresh(refresh);
  send(child, SIGTERM);
  send(child, SIGTERM);
  endpoint_go_on();
  assert_int_equal(fixture_status(child), 128 + SIGTERM);
  assert_saved();
}

static void nothing_is_held_where_the_program_says_so(void **state)
{
  (void)state;
  pid_t child = start_refresh(refresh_unheld);
  assert_int_equal(kill(child, SIGTERM), 0);
  assert_int_equal(fixture_status(child), 128 + SIGTERM);
  assert_true(fixture_stored("pending"));
}

/* ---- what is left alone ---- */

static void handle(int number)
{
  (void)number;
  atomic_store(&shared->handled, true);
}

static void refresh_with_a_handler(void)
{
  signal(SIGTERM, handle);
  refresh();
}

static void a_handler_of_the_program_is_called_in_the_middle(void **state)
{
  (void)state;
  pid_t child = start_refresh(refresh_with_a_handler);
  assert_int_equal(kill(child, SIGTERM), 0);
  assert_true(fixture_wait_for(&shared->handled));
  assert_int_equal(atomic_load(&endpoint->rotation), 0);
  endpoint_go_on();
  assert_int_equal(fixture_status(child), 0);
  assert_saved();
}

static void refresh_unmoved(void)
{
  signal(SIGHUP, SIG_IGN);
  refresh();
}

static void what_the_program_ignores_stays_ignored(void **state)
{
  (void)state;
  pid_t child = start_refresh(refresh_unmoved);
  assert_int_equal(kill(child, SIGHUP), 0);
  assert_int_equal(kill(child, SIGWINCH), 0);
  endpoint_go_on();
  assert_int_equal(fixture_status(child), 0);
}

static void a_mask_of_the_program_is_as_before(void **state)
{
  (void)state;
  sigset_t mine, before, after, pending;
  sigemptyset(&mine);
  sigaddset(&mine, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &mine, &before);
  pthread_sigmask(SIG_BLOCK, NULL, &mine);
  raise(SIGUSR1);
  lucidauth *client = fixture_client(false);
  fixture_assert_token(lucidauth_token(client, NULL, NULL), "A1");
  lucidauth_close(client);
  pthread_sigmask(SIG_SETMASK, NULL, &after);
  sigpending(&pending);
  for (int number = 1; number <= SIGRTMAX; number++)
    assert_int_equal(sigismember(&after, number), sigismember(&mine, number));
  assert_int_equal(sigismember(&pending, SIGUSR1), 1);
  sigemptyset(&mine);
  sigaddset(&mine, SIGUSR1);
  assert_int_equal(sigtimedwait(&mine, NULL, &(struct timespec){0}), SIGUSR1);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static sigset_t mask_of_thread;

static void *tell_mask(void *unused)
{
  pthread_sigmask(SIG_SETMASK, NULL, &mask_of_thread);
  return unused;
}

static void a_thread_of_the_library_gets_its_own_faults_alone(void **state)
{
  (void)state;
  static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};
  static const int others[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGCHLD, SIGPIPE, SIGPROF};
  pthread_t thread;
  assert_true(thread_start(&thread, tell_mask, true));
  assert_int_equal(pthread_join(thread, NULL), 0);
  for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
    assert_int_equal(sigismember(&mask_of_thread, faults[i]), 0);
  for (size_t i = 0; i < sizeof others / sizeof *others; i++)
    assert_int_equal(sigismember(&mask_of_thread, others[i]), 1);
}

/* ---- flights in the program's own hands ---- */

static bool is_blocked(int number)
{
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, NULL, &mask);
  return sigismember(&mask, number) == 1;
}

static void keep(const char *record)
{
  FILE *file = fopen(fixture.path, "w");
  if (!file || fputs(record, file) < 0 || fclose(file) != 0 || is_blocked(SIGTERM))
    _exit(2);
}

static void fly(void)
{
  lucidauth_options options = fixture_own_storage();
  lucidauth *client = fixture_open(&options);
  lucidauth_flight *flight = lucidauth_flight_begin(lucidauth_get_account(client, NULL, NULL), false, NULL, NULL);
  lucidauth_action action = next_action(flight, LUCIDAUTH_RESULT_OK, NULL);
  while (action.step != LUCIDAUTH_STEP_DONE) {
    if (action.step == LUCIDAUTH_STEP_SAVE)
      keep(action.record);
    action = fixture_step(flight, &action);
  }
  _exit(3);
}

/* What its functions start inherits no mask. */
static void a_storage_of_the_program_saves_with_its_own_mask(void **state)
{
  (void)state;
  pid_t child = start_refresh(fly);
  assert_int_equal(kill(child, SIGTERM), 0);
  endpoint_go_on();
  assert_int_equal(fixture_status(child), 128 + SIGTERM);
  assert_saved();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
  alarm(4 * ENDPOINT_PATIENCE);
  const struct CMUnitTest tests[] = {
      TEST(the_tokens_are_saved_before_a_signal_ends_the_process),
      TEST(whoever_waits_for_the_background_holds_them_too),
      TEST(tokens_that_could_not_be_saved_before_are_saved_first),
      TEST(a_second_signal_a_second_later_is_obeyed_at_once),
      TEST(one_that_comes_sooner_changes_nothing),
      TEST(nothing_is_held_where_the_program_says_so),
      TEST(a_handler_of_the_program_is_called_in_the_middle),
      TEST(what_the_program_ignores_stays_ignored),
      TEST(a_mask_of_the_program_is_as_before),
      TEST(a_thread_of_the_library_gets_its_own_faults_alone),
      TEST(a_storage_of_the_program_saves_with_its_own_mask),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
