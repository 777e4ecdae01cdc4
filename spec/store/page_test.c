/* The page that all processes share, and the notices that travel through it. */
#include "scratch.h"

#include "../../src/store/file.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define RECORD "{\"access_token\":\"A\",\"refresh_token\":\"R\"}"

static uint64_t generation(const struct store *store)
{
  return atomic_load(store->generation);
}

static bool take(struct store *store)
{
  struct store_error error;
  return store->ops->lock(store, &error) == STORE_OK;
}

static void refresh(struct store *store)
{
  EXPECT(take(store));
  store->ops->begin(store);
  EXPECT(saves(store, RECORD));
  store->ops->unlock(store);
}

/* A store that has loaded the record, so that it has the page. */
static struct store *sharing(const struct scratch *scratch)
{
  struct store *store = open_in(scratch);
  char *path = scratch_path(scratch, "token.json");
  if (!is_there(path))
    put(path, RECORD, 0600);
  EXPECT(loads(store, RECORD));
  EXPECT(store->shared);
  free(path);
  return store;
}

static void a_refresh_is_announced_to_every_store(void **state)
{
  struct store *one = sharing(*state), *other = sharing(*state);
  uint64_t before = generation(other);
  assert_int_equal(before % 2, 0);
  assert_true(take(one));
  assert_int_equal(generation(other), before);
  one->ops->begin(one);
  assert_int_equal(generation(other) % 2, 1);
  uint64_t during = generation(other);
  one->ops->unlock(one);
  assert_int_equal(generation(other), during + 1);
  assert_int_equal(generation(one), during + 1);
  one->ops->close(one);
  other->ops->close(other);
}

static void a_lock_without_a_refresh_announces_nothing(void **state)
{
  struct store *one = sharing(*state), *other = sharing(*state);
  refresh(one);
  uint64_t before = generation(other);
  assert_true(take(one));
  one->ops->unlock(one);
  assert_int_equal(generation(other), before);
  one->ops->close(one);
  other->ops->close(other);
}

static void refresh_and_leave(const struct scratch *scratch)
{
  struct store *store = sharing(scratch);
  refresh(store);
  store->ops->close(store);
}

static void another_process_s_refresh_is_seen(void **state)
{
  struct store *store = sharing(*state);
  uint64_t before = generation(store);
  assert_int_equal(run_child(refresh_and_leave, *state), 0);
  assert_true(generation(store) > before);
  assert_int_equal(generation(store) % 2, 0);
  store->ops->close(store);
}

static void die_in_a_refresh(const struct scratch *scratch)
{
  struct store *store = sharing(scratch);
  EXPECT(take(store));
  store->ops->begin(store);
  kill(getpid(), SIGKILL);
}

static void the_next_owner_settles_a_dead_owner_s_generation(void **state)
{
  struct store *store = sharing(*state);
  assert_true(WIFSIGNALED(run_child(die_in_a_refresh, *state)));
  uint64_t during = generation(store);
  assert_int_equal(during % 2, 1);
  assert_true(take(store));
  store->ops->unlock(store);
  assert_int_equal(generation(store), during + 1);
  store->ops->close(store);
}

/* A process that had seen the dead one's generation would else not learn that another refresh is under way. */
static void a_refresh_behind_a_dead_owner_is_announced_too(void **state)
{
  struct store *store = sharing(*state);
  assert_true(WIFSIGNALED(run_child(die_in_a_refresh, *state)));
  uint64_t during = generation(store);
  assert_true(take(store));
  store->ops->begin(store);
  assert_int_equal(generation(store) % 2, 1);
  assert_true(generation(store) > during);
  store->ops->unlock(store);
  store->ops->close(store);
}

static void a_load_settles_what_a_dead_owner_left(void **state)
{
  struct store *store = sharing(*state);
  assert_true(WIFSIGNALED(run_child(die_in_a_refresh, *state)));
  uint64_t during = generation(store);
  assert_true(loads(store, RECORD));
  assert_int_equal(generation(store), during + 1);
  assert_true(take(store));
  store->ops->unlock(store);
  store->ops->close(store);
}

static void a_load_leaves_a_living_owner_s_refresh_alone(void **state)
{
  struct store *one = sharing(*state), *other = sharing(*state);
  assert_true(take(one));
  one->ops->begin(one);
  uint64_t during = generation(other);
  assert_true(loads(other, RECORD));
  assert_true(loads(one, RECORD));
  assert_int_equal(generation(other), during);
  assert_false(take(other));
  one->ops->unlock(one);
  one->ops->close(one);
  other->ops->close(other);
}

/* Were the waiter not woken, the test's time limit would end it. */
static void a_waiter_is_woken_when_the_refresh_is_settled(void **state)
{
  struct store *store = sharing(*state);
  assert_true(take(store));
  store->ops->begin(store);
  int ready[2];
  assert_int_equal(pipe(ready), 0);
  pid_t waiter = fork();
  if (waiter == 0) {
    struct store *own = sharing(*state);
    uint64_t seen = generation(own);
    EXPECT(write(ready[1], "!", 1) == 1);
    while (generation(own) == seen)
      own->ops->wait(own, seen, 3600);
    own->ops->close(own);
    _exit(0);
  }
  char byte;
  assert_int_equal(read(ready[0], &byte, 1), 1);
  store->ops->unlock(store);
  int status = -1;
  assert_int_equal(waitpid(waiter, &status, 0), waiter);
  assert_int_equal(status, 0);
  close(ready[0]);
  close(ready[1]);
  store->ops->close(store);
}

static double steady_now(void)
{
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void what_does_not_change_is_waited_for_as_long_as_asked(void **state)
{
  struct store *store = sharing(*state);
  for (double asked = 0.001; asked < 0.1; asked *= 4) {
    double start = steady_now();
    store->ops->wait(store, generation(store), asked);
    assert_true(steady_now() - start >= asked);
  }
  store->ops->close(store);
}

static void what_has_changed_already_is_not_waited_for(void **state)
{
  struct store *store = sharing(*state);
  store->ops->wait(store, generation(store) + 1, 3600);
  store->ops->close(store);
}

static void a_file_that_is_cut_short_under_the_mapping_is_survived(void **state)
{
  struct store *one = sharing(*state), *other = sharing(*state);
  char *path = scratch_path(*state, "token.json.lock");
  refresh(one);
  uint64_t before = generation(other);
  assert_int_equal(truncate(path, 0), 0);
  assert_true(generation(other) != before);
  refresh(one);
  assert_true(loads(other, RECORD));
  assert_true(other->shared);
  before = generation(other);
  refresh(one);
  assert_true(generation(other) > before);
  free(path);
  one->ops->close(one);
  other->ops->close(other);
}

static void a_new_page_does_not_repeat_an_old_one_s_generations(void **state)
{
  struct store *store = sharing(*state);
  char *path = scratch_path(*state, "token.json.lock");
  refresh(store);
  uint64_t before = generation(store);
  assert_int_equal(truncate(path, 0), 0);
  refresh(store);
  assert_true(generation(store) > before);
  free(path);
  store->ops->close(store);
}

static void a_removed_lock_file_s_page_is_left_for_the_new_one_s(void **state)
{
  struct store *one = sharing(*state), *other = sharing(*state);
  char *path = scratch_path(*state, "token.json.lock");
  assert_int_equal(unlink(path), 0);
  refresh(one);
  assert_true(loads(other, RECORD));
  uint64_t before = generation(other);
  refresh(one);
  assert_true(generation(other) > before);
  free(path);
  one->ops->close(one);
  other->ops->close(other);
}

static void somebody_else_s_lock_file_is_locked_and_otherwise_left_alone(void **state)
{
  char *path = scratch_path(*state, "token.json.lock");
  put(path, "4711\n", 0600);
  struct store *store = open_in(*state);
  assert_true(take(store));
  assert_true(saves(store, RECORD));
  store->ops->begin(store);
  store->ops->unlock(store);
  assert_true(loads(store, RECORD));
  assert_false(store->shared);
  assert_int_equal(generation(store), 0);
  assert_true(holds(path, "4711\n"));
  free(path);
  store->ops->close(store);
}

static void overwrite(const char *path, off_t at, const char *text)
{
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  EXPECT(pwrite(fd, text, strlen(text), at) == (ssize_t)strlen(text));
  EXPECT(close(fd) == 0);
}

/* As by a program whose messages went there. */
static void a_page_whose_first_line_is_overwritten_is_still_known(void **state)
{
  struct store *before = sharing(*state);
  char *path = scratch_path(*state, "token.json.lock"), start[17] = "";
  refresh(before);
  overwrite(path, 0, "warning: something of the program's, and rather long at that\n");
  struct store *after = sharing(*state);
  assert_int_equal(generation(after), generation(before));
  refresh(after);
  assert_int_equal(generation(after), generation(before));
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  assert_int_equal(read(fd, start, 16), 16);
  assert_string_equal(start, "lucidauth page 1");
  close(fd);
  free(path);
  before->ops->close(before);
  after->ops->close(after);
}

static void somebody_else_s_file_of_the_same_size_is_none(void **state)
{
  char *path = scratch_path(*state, "token.json.lock"), *text = calloc(1, 8193);
  memset(text, 'x', 8192);
  put(path, text, 0600);
  struct store *store = open_in(*state);
  assert_true(take(store) && saves(store, RECORD));
  store->ops->unlock(store);
  assert_true(loads(store, RECORD));
  assert_false(store->shared);
  assert_true(holds(path, text));
  free(text);
  free(path);
  store->ops->close(store);
}

static void an_empty_lock_file_becomes_a_page_with_space_of_its_own(void **state)
{
  char *path = scratch_path(*state, "token.json.lock");
  put(path, "", 0600);
  struct store *store = sharing(*state);
  struct stat found;
  assert_int_equal(stat(path, &found), 0);
  assert_int_equal(found.st_size, 8192);
  assert_true(found.st_blocks * 512 >= 8192);
  free(path);
  store->ops->close(store);
}

static void an_account_has_one_generation_however_its_file_is_named(void **state)
{
  const struct scratch *scratch = *state;
  struct store_error error;
  struct store *file = open_in(scratch), *account = store_directory(scratch->folder, NULL, "token", &error);
  refresh(file);
  assert_true(loads(account, RECORD));
  uint64_t before = generation(account);
  refresh(file);
  assert_true(generation(account) > before);
  file->ops->close(file);
  account->ops->close(account);
}

static void accounts_of_a_folder_have_generations_of_their_own(void **state)
{
  const struct scratch *scratch = *state;
  struct store_error error;
  struct store *anna = store_directory(scratch->folder, NULL, "anna", &error);
  struct store *bert = store_directory(scratch->folder, NULL, "bert", &error);
  struct store *anna_too = store_directory(scratch->folder, NULL, "anna", &error);
  refresh(bert);
  refresh(anna);
  assert_true(loads(anna_too, RECORD));
  assert_true(loads(bert, RECORD));
  uint64_t annas = generation(anna_too), berts = generation(bert);
  refresh(anna);
  assert_true(generation(anna_too) > annas);
  assert_int_equal(generation(bert), berts);
  anna->ops->close(anna);
  bert->ops->close(bert);
  anna_too->ops->close(anna_too);
}

#if defined(__linux__)
static void fill_the_disk(const struct scratch *scratch)
{
  char *path = scratch_path(scratch, "filler");
  int fd = open(path, O_WRONLY | O_CREAT, 0600);
  char block[4096] = {0};
  while (write(fd, block, sizeof block) > 0)
    continue;
  close(fd);
  free(path);
}

static void use_a_full_disk(const struct scratch *scratch)
{
  if (!mount_small(scratch->folder, "64k"))
    return;
  char *path = scratch_path(scratch, "token.json");
  put(path, RECORD, 0600);
  free(path);
  fill_the_disk(scratch);
  struct store *store = open_in(scratch);
  EXPECT(loads(store, RECORD));
  EXPECT(!store->shared);
  EXPECT(take(store));
  store->ops->begin(store);
  store->ops->unlock(store);
  store->ops->close(store);
}

static void a_full_disk_has_no_room_for_a_page(void **state)
{
  assert_int_equal(run_child(use_a_full_disk, *state), 0);
}
#endif

static void use_a_read_only_folder(const struct scratch *scratch)
{
  EXPECT(chmod(scratch->folder, 0500) == 0);
  struct store *store = open_in(scratch);
  struct store_error error;
  EXPECT(loads(store, RECORD));
  EXPECT(!store->shared || getuid() == 0);
  EXPECT(store->ops->lock(store, &error) == STORE_FAILED || getuid() == 0);
  store->ops->close(store);
  EXPECT(chmod(scratch->folder, 0700) == 0);
}

static void a_read_only_folder_is_read_without_a_page(void **state)
{
  char *path = scratch_path(*state, "token.json");
  put(path, RECORD, 0600);
  if (getuid() == 0)
    assert_int_equal(chown(path, NOBODY, NOBODY), 0);
  assert_int_equal(run_as_user(use_a_read_only_folder, *state), 0);
  free(path);
}

static sigjmp_buf elsewhere;

static void leave_sigbus(int number)
{
  siglongjmp(elsewhere, number);
}

static void raise_a_bus_error_of_our_own(const struct scratch *scratch)
{
  struct sigaction own = {.sa_handler = leave_sigbus};
  sigaction(SIGBUS, &own, NULL);
  struct store *store = sharing(scratch);
  bool raised = sigsetjmp(elsewhere, 1) != 0;
  if (!raised)
    raise(SIGBUS);
  EXPECT(raised);
  store->ops->close(store);
}

static void bus_errors_that_are_not_the_page_s_go_where_they_went_before(void **state)
{
  assert_int_equal(run_child(raise_a_bus_error_of_our_own, *state), 0);
}

/* Sent by a process, with no fault behind it: nothing would be tried again, and nothing may be mended. */
static void send_a_bus_error(const struct scratch *scratch)
{
  struct sigaction none = {.sa_handler = SIG_DFL};
  sigaction(SIGBUS, &none, NULL);
  struct store *store = sharing(scratch);
  kill(getpid(), SIGBUS);
  store->ops->close(store);
}

static void send_an_ignored_bus_error(const struct scratch *scratch)
{
  char *path = scratch_path(scratch, "token.json.lock");
  struct sigaction ignored = {.sa_handler = SIG_IGN};
  sigaction(SIGBUS, &ignored, NULL);
  struct store *store = sharing(scratch);
  kill(getpid(), SIGBUS);
  /* and what it is there for still works */
  EXPECT(truncate(path, 0) == 0);
  (void)generation(store);
  EXPECT(generation(store) == 0);
  store->ops->close(store);
  free(path);
}

static void send_a_bus_error_about_the_page(const struct scratch *scratch)
{
  struct sigaction none = {.sa_handler = SIG_DFL};
  sigaction(SIGBUS, &none, NULL);
  struct store *store = sharing(scratch);
  union sigval value = {.sival_ptr = (void *)(uintptr_t)store->generation};
  sigqueue(getpid(), SIGBUS, value);
  store->ops->close(store);
}

static void fault_elsewhere(const struct scratch *scratch)
{
  struct sigaction none = {.sa_handler = SIG_DFL};
  sigaction(SIGBUS, &none, NULL);
  struct store *store = sharing(scratch);
  char *path = scratch_path(scratch, "other");
  put(path, "x", 0600);
  int fd = open(path, O_RDWR | O_CLOEXEC);
  volatile char *mapped = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
  EXPECT(ftruncate(fd, 0) == 0);
  EXPECT(mapped[0] != 'x');
  store->ops->close(store);
}

/* One that passes on what is not its own, one that does not, and one that wants its own fault. */
static struct sigaction found_before;
static sig_atomic_t heard;

static void hear(int number, siginfo_t *info, void *context)
{
  heard++;
  if (found_before.sa_flags & SA_SIGINFO)
    found_before.sa_sigaction(number, info, context);
}

static void give_up(int number)
{
  (void)number;
  _exit(3);
}

static void install(void (*handler)(int), void (*action)(int, siginfo_t *, void *))
{
  struct sigaction own = {.sa_flags = action ? SA_SIGINFO : 0};
  if (action)
    own.sa_sigaction = action;
  else
    own.sa_handler = handler;
  EXPECT(sigaction(SIGBUS, &own, &found_before) == 0);
}

static void cut(const struct scratch *scratch)
{
  char *path = scratch_path(scratch, "token.json.lock");
  EXPECT(truncate(path, 0) == 0);
  free(path);
}

static void cut_at_once_under_a_handler_that_passes_on(const struct scratch *scratch)
{
  struct store *store = sharing(scratch);
  install(NULL, hear);
  cut(scratch);
  (void)generation(store);
  EXPECT(generation(store) == 0 && heard >= 1);
  store->ops->close(store);
}

static void cut_later_under_a_handler_that_does_not(const struct scratch *scratch)
{
  struct store *store = sharing(scratch);
  install(give_up, NULL);
  (void)store->ops->changed(store);
  cut(scratch);
  (void)generation(store);
  EXPECT(generation(store) == 0);
  store->ops->close(store);
}

/* It finds ours, which finds it. */
static void fault_under_handlers_that_pass_on_to_each_other(const struct scratch *scratch)
{
  install(SIG_DFL, NULL);
  struct store *store = sharing(scratch);
  install(NULL, hear);
  (void)store->ops->changed(store);
  kill(getpid(), SIGBUS);
  store->ops->close(store);
}

static void jump_out_twice(const struct scratch *scratch)
{
  struct store *store = sharing(scratch);
  install(leave_sigbus, NULL);
  (void)store->ops->changed(store);
  for (volatile int i = 0; i < 3; i++)
    if (sigsetjmp(elsewhere, 1) == 0) {
      raise(SIGBUS);
      _exit(4);
    }
  store->ops->close(store);
}

static void a_handler_that_the_host_installs_later_does_not_end_the_process(void **state)
{
  assert_int_equal(run_child(cut_at_once_under_a_handler_that_passes_on, *state), 0);
  assert_int_equal(run_child(cut_later_under_a_handler_that_does_not, *state), 0);
  assert_int_equal(run_child(jump_out_twice, *state), 0);
  int status = run_child(fault_under_handlers_that_pass_on_to_each_other, *state);
  assert_true(WIFSIGNALED(status));
  assert_int_equal(WTERMSIG(status), SIGBUS);
}

/* valgrind loses what sigqueue() sends, and does not try just that again which faulted. */
static bool is_under_valgrind(void)
{
  const char *preloaded = getenv("LD_PRELOAD");
  return preloaded && strstr(preloaded, "vgpreload");
}

static void bus_errors_that_are_not_the_page_s_end_the_process(void **state)
{
  child_body *deadly[] = {send_a_bus_error, fault_elsewhere, send_a_bus_error_about_the_page};
  size_t count = is_under_valgrind() ? 1 : sizeof deadly / sizeof *deadly;
  for (size_t i = 0; i < count; i++) {
    int status = run_child(deadly[i], *state);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGBUS);
  }
  assert_int_equal(run_child(send_an_ignored_bus_error, *state), 0);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      /* First, in this order: the first page installs the handler, and cmocka puts its own in front for each test. */
      SPEC(bus_errors_that_are_not_the_page_s_go_where_they_went_before),
      SPEC(bus_errors_that_are_not_the_page_s_end_the_process),
      SPEC(a_handler_that_the_host_installs_later_does_not_end_the_process),
      SPEC(a_file_that_is_cut_short_under_the_mapping_is_survived),
      SPEC(a_refresh_is_announced_to_every_store),
      SPEC(a_lock_without_a_refresh_announces_nothing),
      SPEC(another_process_s_refresh_is_seen),
      SPEC(the_next_owner_settles_a_dead_owner_s_generation),
      SPEC(a_refresh_behind_a_dead_owner_is_announced_too),
      SPEC(a_load_settles_what_a_dead_owner_left),
      SPEC(a_load_leaves_a_living_owner_s_refresh_alone),
      SPEC(a_waiter_is_woken_when_the_refresh_is_settled),
      SPEC(what_does_not_change_is_waited_for_as_long_as_asked),
      SPEC(what_has_changed_already_is_not_waited_for),
      SPEC(a_new_page_does_not_repeat_an_old_one_s_generations),
      SPEC(a_removed_lock_file_s_page_is_left_for_the_new_one_s),
      SPEC(somebody_else_s_lock_file_is_locked_and_otherwise_left_alone),
      SPEC(a_page_whose_first_line_is_overwritten_is_still_known),
      SPEC(somebody_else_s_file_of_the_same_size_is_none),
      SPEC(an_empty_lock_file_becomes_a_page_with_space_of_its_own),
      SPEC(an_account_has_one_generation_however_its_file_is_named),
      SPEC(accounts_of_a_folder_have_generations_of_their_own),
      SPEC(a_read_only_folder_is_read_without_a_page),
  };
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
#if defined(__linux__)
  const struct CMUnitTest on_linux[] = {
      SPEC(a_full_disk_has_no_room_for_a_page),
  };
  failed += cmocka_run_group_tests(on_linux, NULL, NULL);
#endif
  return failed;
}
