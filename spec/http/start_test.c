/* A process that forks while another of its threads sets libcurl up, which happens at the first refresh: the child
 * finds it either not begun or done. */
#define _GNU_SOURCE
#include "../../src/http/http.h"
#include "../../src/lucidauth.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__SANITIZE_THREAD__)
/* The child has joined no thread, for the one there is is its parent's. */
__attribute__((visibility("default"))) const char *__tsan_default_options(void);

const char *__tsan_default_options(void)
{
  return "report_thread_leaks=0";
}
#endif

/* Milliseconds. */
enum { PATIENCE = 120000, HELD = 300 };

static atomic_bool setting_up, forked;

static bool comes_true(const atomic_bool *condition, int milliseconds)
{
  while (!atomic_load(condition) && milliseconds-- > 0)
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  return atomic_load(condition);
}

/* libcurl's own, held up in the middle until the process has forked, or until it is plain that it will not. */
CURLcode curl_global_init_mem(long flags, curl_malloc_callback allocate, curl_free_callback release,
                              curl_realloc_callback resize, curl_strdup_callback copy, curl_calloc_callback clear)
{
  CURLcode (*own)(long, curl_malloc_callback, curl_free_callback, curl_realloc_callback, curl_strdup_callback,
                  curl_calloc_callback) = NULL;
  void *found = dlsym(RTLD_NEXT, "curl_global_init_mem");
  memcpy(&own, &found, sizeof own);
  atomic_store(&setting_up, true);
  comes_true(&forked, HELD);
  return own(flags, allocate, release, resize, copy, clear);
}

static bool uses_it(void)
{
  char message[400];
  unsigned char digest[32];
  const struct http_ops *http = http_load(NULL, message, sizeof message);
  if (http)
    http->sha256("", 0, digest);
  return http && digest[0] == 0xe3;
}

static void *use_it(void *unused)
{
  (void)unused;
  return uses_it() ? &setting_up : NULL;
}

static bool ends_well(pid_t child)
{
  int status = 0;
  for (int i = 0; i < PATIENCE; i++) {
    if (waitpid(child, &status, WNOHANG) == child)
      return WIFEXITED(status) && WEXITSTATUS(status) == 0;
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  }
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
  return false;
}

static void a_child_of_a_process_that_sets_libcurl_up_can_use_it(void **state)
{
  (void)state;
  lucidauth_options options = LUCIDAUTH_OPTIONS_INIT;
  options.storage = LUCIDAUTH_MEMORY;
  lucidauth *client = lucidauth_new(&options, NULL);
  pthread_t thread;
  void *used = NULL;
  assert_non_null(client);
  assert_int_equal(pthread_create(&thread, NULL, use_it, NULL), 0);
  assert_true(comes_true(&setting_up, PATIENCE));
  pid_t child = fork();
  if (child == 0)
    _exit(uses_it() ? 0 : 1);
  atomic_store(&forked, true);
  assert_true(ends_well(child));
  pthread_join(thread, &used);
  assert_ptr_equal(used, &setting_up);
  lucidauth_close(client);
}

int main(void)
{
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_child_of_a_process_that_sets_libcurl_up_can_use_it)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
