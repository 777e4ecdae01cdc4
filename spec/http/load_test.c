/* How the module is found and loaded. It must stand in the folder "lucidauth" beside this program. The cases run in
 * copies of this program, each in a folder laid out for it. */
#define _GNU_SOURCE
#include "../../src/http/http.h"
#include "../../src/http/unloaded.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

static struct {
  char folder[64];
  char program[512], module[512];
} world;

static int shell(const char *format, ...)
{
  char command[2048];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(command, sizeof command, format, arguments);
  va_end(arguments);
  return system(command);
}

/* What http_load says in a copy of this program that stands in the test's folder and runs `steps` first. */
static const char *say(const char *steps)
{
  static char said[2048];
  char command[1024];
  snprintf(command, sizeof command, "cd '%s' && ./program %s", world.folder, steps);
  FILE *output = popen(command, "r");
  assert_non_null(output);
  said[fread(said, 1, sizeof said - 1, output)] = '\0';
  assert_int_equal(pclose(output), 0);
  return said;
}

static void expect_words(const char *text, const char *word, const char *other)
{
  if (!strstr(text, word) || !strstr(text, other))
    print_message("%s", text);
  assert_non_null(strstr(text, word));
  assert_non_null(strstr(text, other));
}

static void test_found(void **state)
{
  (void)state;
  assert_int_equal(shell("mkdir '%s/lucidauth' && cp '%s' '%s/lucidauth/'", world.folder, world.module, world.folder),
                   0);
  assert_string_equal(say("load"), "loaded\n");
  assert_string_equal(say("leave load"), "loaded\n");
  assert_string_equal(say("load load"), "loaded\nloaded\n");
}

static void test_found_beside(void **state)
{
  (void)state;
  assert_int_equal(shell("cp '%s' '%s/'", world.module, world.folder), 0);
  assert_string_equal(say("leave load"), "loaded\n");
}

static void test_own_folder_first(void **state)
{
  (void)state;
  assert_int_equal(
      shell("cd '%s' && mkdir lucidauth && cp '%s' lucidauth/ && echo >curl.so", world.folder, world.module), 0);
  assert_string_equal(say("load"), "loaded\n");
}

static void test_missing(void **state)
{
  (void)state;
  const char *said = say("load");
  assert_non_null(strstr(said, "curl.so"));
  expect_words(said, "install lucidauth again", "\nconfig\n");
}

static void test_tried_again(void **state)
{
  (void)state;
  char steps[1024], expected[] = "loaded\n";
  snprintf(steps, sizeof steps, "load '%s' load", world.module);
  const char *said = say(steps);
  assert_ptr_equal(strstr(said, expected), said + strlen(said) - strlen(expected));
  assert_non_null(strstr(said, "missing"));
}

/* The module, changed. */
static void install(const char *script)
{
  assert_int_equal(shell("LC_ALL=C sed '%s' '%s' >'%s/curl.so'", script, world.module, world.folder), 0);
}

static void test_broken(void **state)
{
  (void)state;
  assert_int_equal(shell("cd '%s' && echo >curl.so", world.folder), 0);
  const char *text = say("load");
  expect_words(text, world.folder, "/curl.so: ");
  expect_words(text, "damaged", "install lucidauth again");
  expect_words(text, "damaged", "\nconfig\n");
}

static void test_without_library(void **state)
{
  (void)state;
  install("s/libsodium\\.so/libsodiun.so/g");
  const char *text = say("load");
  expect_words(text, "libcurl4 and libsodium23", "libsodiun.so");
  expect_words(text, "install them", "\nconfig\n");
}

static void test_another_library(void **state)
{
  (void)state;
  install("s/crypto_hash_sha256/crypto_hash_sha257/g");
  const char *text = say("load");
  expect_words(text, "not the one that lucidauth was built with", "crypto_hash_sha257");
  expect_words(text, "build lucidauth here", "\nconfig\n");
}

/* A library that is there is not called missing. */
static void test_unreadable_library(void **state)
{
  (void)state;
  install("s/libsodium\\.so/libsodiun.so/g");
  assert_int_equal(shell("cd '%s' && chmod 755 . && for n in 18 23 26; do echo >libsodiun.so.$n; done && "
                         "chmod 0 libsodiun.so.*",
                         world.folder),
                   0);
  setenv("LD_LIBRARY_PATH", world.folder, 1);
  const char *text = say("nobody load");
  unsetenv("LD_LIBRARY_PATH");
  expect_words(text, world.folder, "/libsodiun.so");
  expect_words(text, "cannot be read", "is there");
  expect_words(text, "let that user read it", "\nconfig\n");
}

static void test_unreadable(void **state)
{
  (void)state;
  install("");
  assert_int_equal(shell("cd '%s' && chmod 755 . && chmod 0 curl.so", world.folder), 0);
  const char *text = say("nobody load");
  expect_words(text, world.folder, "/curl.so is there");
  assert_null(strstr(text, "install"));
  install("");
  assert_int_equal(shell("cd '%s' && chmod 644 curl.so && chmod 0 .", world.folder), 0);
  text = say("nobody load");
  assert_int_equal(shell("chmod 700 '%s'", world.folder), 0);
  expect_words(text, world.folder, " is there");
  assert_null(strstr(text, "curl.so"));
  assert_null(strstr(text, "install"));
}

static void test_no_descriptors(void **state)
{
  (void)state;
  install("");
  const char *text = say("full load free");
  expect_words(text, "ulimit -n", "files open");
  expect_words(text, "a later call tries again", "\nnetwork\n");
  assert_null(strstr(text, "install"));
}

static void test_no_memory(void **state)
{
  (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  skip(); /* they end then */
#endif
  install("");
  const char *text = say("crowded load");
  expect_words(text, "vm.max_map_count", "memory");
  expect_words(text, "a later call tries again", "\nnetwork\n");
  assert_null(strstr(text, "install"));
}

/* As glibc says it when the first allocation of dlopen fails. */
static void test_called_missing_for_want_of_memory(void **state)
{
  (void)state;
  char message[1024], reason[600];
  snprintf(reason, sizeof reason, "%s: cannot open shared object file: No such file or directory", world.module);
  assert_int_equal(unloaded_unlinked(world.module, reason, message, sizeof message), CODE_NETWORK);
  expect_words(message, "ulimit -v", "a later call tries again");
  assert_int_equal(unloaded_unlinked(world.folder, reason, message, sizeof message), CODE_CONFIG);
}

static void test_limited_memory(void **state)
{
  (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  skip(); /* they reserve more than any limit */
#endif
  install("");
  expect_words(say("narrow load"), "ulimit -v", "\nnetwork\n");
}

static void test_another_file(void **state)
{
  (void)state;
  Dl_info info;
  assert_true(dladdr(dlsym(RTLD_DEFAULT, "_cmocka_run_group_tests"), &info));
  assert_int_equal(shell("cp -L '%s' '%s/curl.so'", info.dli_fname, world.folder), 0);
  const char *said = say("load");
  assert_non_null(strstr(said, "/curl.so is of another version"));
}

static void test_another_release(void **state)
{
  (void)state;
  char other[] = LUCIDAUTH_VERSION;
  other[0] ^= 1;
  assert_int_equal(
      shell("LC_ALL=C sed 's/%s/%s/g' '%s' >'%s/curl.so'", LUCIDAUTH_VERSION, other, world.module, world.folder), 0);
  const char *said = say("load");
  assert_non_null(strstr(said, "/curl.so is of another version"));
}

static void *load_in_thread(void *unused)
{
  char message[400];
  (void)unused;
  return (void *)(uintptr_t)http_load(NULL, message, sizeof message);
}

static void test_kept_to_itself(void **state)
{
  (void)state;
  char message[400] = "unchanged";
  unsigned char digest[32];
  pthread_t threads[4];
  void *curl = dlopen("libcurl.so.4", RTLD_LAZY | RTLD_NOLOAD);
  assert_null(curl);
  for (int i = 0; i < 4; i++)
    assert_int_equal(pthread_create(&threads[i], NULL, load_in_thread, NULL), 0);
  const struct http_ops *http = http_load(NULL, message, sizeof message);
  assert_non_null(http);
  assert_string_equal(message, "");
  for (int i = 0; i < 4; i++) {
    void *loaded = NULL;
    pthread_join(threads[i], &loaded);
    assert_ptr_equal(loaded, http);
  }
  assert_int_equal(http->version, HTTP_OPS_VERSION);
  http->sha256("", 0, digest);
  assert_int_equal(digest[0], 0xe3);
  void *module = dlopen(world.module, RTLD_LAZY | RTLD_NOLOAD);
  assert_non_null(module);
  assert_ptr_equal(dlsym(module, "lucidauth_http"), http);
  assert_null(dlsym(module, "secret_wipe"));
  assert_null(dlsym(RTLD_DEFAULT, "lucidauth_http"));
  assert_null(dlsym(RTLD_DEFAULT, "curl_easy_perform"));
  dlclose(module);
}

static void test_short_message(void **state)
{
  (void)state;
  assert_string_equal(say("short"), "a part of lucid\n");
}

static int setup(void **state)
{
  (void)state;
  return shell("cp '%s' '%s/program'", world.program, world.folder);
}

static int teardown(void **state)
{
  (void)state;
  return shell("cd '%s' && rm -r ./*", world.folder);
}

static int group_setup(void **state)
{
  (void)state;
  const char *folder = getenv("TMPDIR");
  ssize_t length = readlink("/proc/self/exe", world.program, sizeof world.program - 32);
  snprintf(world.folder, sizeof world.folder, "%.40s/load_test.XXXXXX", folder ? folder : "/tmp");
  if (length <= 0 || !mkdtemp(world.folder))
    return -1;
  world.program[length] = '\0'; /* valgrind leaves the end of its own path there */
  snprintf(world.module, sizeof world.module, "%.*s/lucidauth/curl.so",
           (int)(strrchr(world.program, '/') - world.program), world.program);
  return 0;
}

static int group_teardown(void **state)
{
  (void)state;
  return rmdir(world.folder);
}

/* As many mappings as there may be, but for the few that loading begins with. */
static bool crowd(void)
{
  enum { LEFT = 40 };
  static void *places[LEFT];
  int count = 0;
  for (void *place = NULL; place != MAP_FAILED; count++) {
    place = mmap(NULL, 4096, count % 2 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    places[count % LEFT] = place;
  }
  for (int i = 0; i < LEFT; i++)
    if (places[i] != MAP_FAILED)
      munmap(places[i], 4096);
  return count > LEFT;
}

static bool become_nobody(void)
{
  return geteuid() != 0 || setuid(65534) == 0;
}

static bool limit_descriptors(bool limited)
{
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
    return false;
  limit.rlim_cur = limited ? 3 : limit.rlim_max;
  return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

/* No more memory than the process has. */
static bool limit_memory(void)
{
  unsigned long pages = 0;
  FILE *file = fopen("/proc/self/statm", "re");
  bool known = file && fscanf(file, "%lu", &pages) == 1;
  struct rlimit limit = {.rlim_cur = (pages + 64) * (rlim_t)sysconf(_SC_PAGESIZE), .rlim_max = RLIM_INFINITY};
  if (file)
    fclose(file);
  return known && setrlimit(RLIMIT_AS, &limit) == 0;
}

static bool prepare(const char *step)
{
  if (strcmp(step, "narrow") == 0)
    return limit_memory();
  if (strcmp(step, "crowded") == 0)
    return crowd();
  if (strcmp(step, "nobody") == 0)
    return become_nobody();
  if (strcmp(step, "full") == 0 || strcmp(step, "free") == 0)
    return limit_descriptors(step[1] == 'u');
  if (strcmp(step, "leave") == 0)
    return chdir("/") == 0;
  return shell("cp '%s' .", step) == 0;
}

/* In a copy: "load" loads and tells, "leave" changes the working directory, "short" gives little room for the message,
 * "nobody" gives up root's rights, "full" leaves no descriptors, "crowded" and "narrow" no memory, "free" gives
 * descriptors back, anything else is a module to copy beside the program. */
static int run_steps(char **steps)
{
  char message[1024];
  enum code code = CODE_COUNT;
  for (; *steps; steps++) {
    if (strcmp(*steps, "load") == 0 && http_load(&code, message, sizeof message))
      puts(code == CODE_OK ? "loaded" : "loaded, and not");
    else if (strcmp(*steps, "load") == 0)
      printf("%s\n%s\n", message, code_name(code));
    else if (strcmp(*steps, "short") == 0)
      puts(http_load(NULL, message, 16) ? "loaded" : message);
    else if (!prepare(*steps))
      return 1;
  }
  return 0;
}

int main(int count, char **arguments)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_found, setup, teardown),
      cmocka_unit_test_setup_teardown(test_found_beside, setup, teardown),
      cmocka_unit_test_setup_teardown(test_own_folder_first, setup, teardown),
      cmocka_unit_test_setup_teardown(test_missing, setup, teardown),
      cmocka_unit_test_setup_teardown(test_tried_again, setup, teardown),
      cmocka_unit_test_setup_teardown(test_broken, setup, teardown),
      cmocka_unit_test_setup_teardown(test_without_library, setup, teardown),
      cmocka_unit_test_setup_teardown(test_another_library, setup, teardown),
      cmocka_unit_test_setup_teardown(test_unreadable_library, setup, teardown),
      cmocka_unit_test_setup_teardown(test_unreadable, setup, teardown),
      cmocka_unit_test_setup_teardown(test_no_descriptors, setup, teardown),
      cmocka_unit_test_setup_teardown(test_no_memory, setup, teardown),
      cmocka_unit_test_setup_teardown(test_called_missing_for_want_of_memory, setup, teardown),
      cmocka_unit_test_setup_teardown(test_limited_memory, setup, teardown),
      cmocka_unit_test_setup_teardown(test_another_file, setup, teardown),
      cmocka_unit_test_setup_teardown(test_another_release, setup, teardown),
      cmocka_unit_test_setup_teardown(test_short_message, setup, teardown),
      cmocka_unit_test(test_kept_to_itself),
  };
  return count > 1 ? run_steps(arguments + 1) : cmocka_run_group_tests(tests, group_setup, group_teardown);
}
