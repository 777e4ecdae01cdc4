/* fork() while another thread makes the page of an account. Linux alone tells whether that thread waits. */
#define _GNU_SOURCE
#include "../../src/lucidauth.h"
#include "../../src/store/page.h"
#include "scratch.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__linux__)
#include <sys/syscall.h>

/* Seconds: a child that waits for a lock which no thread of its own will ever give back is ended by then. */
enum { PATIENCE = 120 };

#if defined(__SANITIZE_THREAD__)
/* Else it ends a child of a process with threads. */
__attribute__((visibility("default"))) const char *__tsan_default_options(void);

const char *__tsan_default_options(void)
{
  return "die_after_fork=0";
}
#endif

static struct {
  pthread_t thread;
  atomic_long id;
  atomic_bool armed, made;
  bool waited; /* the page had not been made when the thread fell asleep */
} maker;

static void *make_a_page(void *unused)
{
  struct page page;
  (void)unused;
  atomic_store(&maker.id, syscall(SYS_gettid));
  EXPECT(page_init(&page));
  atomic_store(&maker.made, true);
  page_free(&page);
  return NULL;
}

static bool is_asleep(long id)
{
  char path[64], state = '?';
  snprintf(path, sizeof path, "/proc/self/task/%ld/stat", id);
  FILE *file = fopen(path, "re");
  int read = file ? fscanf(file, "%*d (%*[^)]) %c", &state) : 0;
  if (file)
    fclose(file);
  return read == 1 && state == 'S';
}

/* Comes when all who want to be told of a fork have been: nobody may make or drop a page from here to its end. */
static void start_the_maker(void)
{
  if (!atomic_exchange(&maker.armed, false))
    return;
  EXPECT(pthread_create(&maker.thread, NULL, make_a_page, NULL) == 0);
  while (!atomic_load(&maker.made) && (atomic_load(&maker.id) == 0 || !is_asleep(atomic_load(&maker.id))))
    sched_yield();
  maker.waited = !atomic_load(&maker.made);
}

static void use_an_account(const struct scratch *scratch)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_options options = LUCIDAUTH_OPTIONS_INIT;
  options.storage = LUCIDAUTH_DIRECTORY;
  options.path = scratch->folder;
  alarm(PATIENCE);
  lucidauth *client = lucidauth_new(&options, &error);
  EXPECT(lucidauth_get_account(client, "anna", &error) != NULL);
  lucidauth_close(client);
}

static void a_child_is_not_locked_out_of_its_pages(void **state)
{
  use_an_account(*state); /* from here on forks are watched */
  atomic_store(&maker.armed, true);
  assert_int_equal(run_child(use_an_account, *state), 0);
  pthread_join(maker.thread, NULL);
  assert_true(atomic_load(&maker.made));
  assert_true(maker.waited);
}

int main(void)
{
  /* What is asked for first comes last. */
  if (pthread_atfork(start_the_maker, NULL, NULL) != 0)
    return 1;
  const struct CMUnitTest tests[] = {
      SPEC(a_child_is_not_locked_out_of_its_pages),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
#else
int main(void)
{
  return 0;
}
#endif
