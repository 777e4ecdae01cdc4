/* The lock, and how its next owner deals with the leftovers of a writer that died. */
#define _GNU_SOURCE
#include "../../src/store/lockfile.h"

#include "../../src/base/secret.h"
#include "../../src/store/file.h"
#include "scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__linux__)
#include <sys/syscall.h>
#endif

static const char OLD[] = "{\"refresh_token\":\"old-refresh\"}";
static const char NEW[] = "{\"refresh_token\":\"new-refresh\",\"scope\":\"a b\"}";

static struct store *open_account(const struct scratch *scratch, const char *account)
{
  struct store_error error;
  return store_directory(scratch->folder, NULL, account, &error);
}

static enum store_result try_lock(struct store *store)
{
  struct store_error error = {CODE_OK, ""};
  enum store_result result = store->ops->lock(store, &error);
  if (result == STORE_FAILED)
    fprintf(stderr, "%s\n", error.message);
  return result;
}

static bool fails_to_lock(struct store *store, const char *part)
{
  struct store_error error = {CODE_OK, ""};
  enum store_result result = store->ops->lock(store, &error);
  return result == STORE_FAILED && error.code == CODE_STORAGE && strstr(error.message, part);
}

/* One-byte signals between processes. */
static void tell(int fd)
{
  EXPECT(write(fd, "!", 1) == 1);
}

static void hear(int fd)
{
  char byte;
  ssize_t count;
  do
    count = read(fd, &byte, 1);
  while (count < 0 && errno == EINTR);
  EXPECT(count == 1);
}

/* Live on until the parent says so or is gone itself. */
static void linger(const int leave[2])
{
  close(leave[1]);
  hear(leave[0]);
  _exit(0);
}

/* True when the last process that has the other end is gone. */
static bool is_silent(int fd)
{
  char byte;
  return read(fd, &byte, 1) == 0;
}

static int wait_for(pid_t child)
{
  int status;
  return waitpid(child, &status, 0) == child ? status : -1;
}

/* Who excludes whom. */

static void two_stores_of_one_process_exclude_each_other(void **state)
{
  struct store *one = open_in(*state), *other = open_in(*state);
  assert_int_equal(try_lock(one), STORE_OK);
  assert_int_equal(try_lock(one), STORE_BUSY);
  assert_int_equal(try_lock(other), STORE_BUSY);
  other->ops->unlock(other);
  assert_int_equal(try_lock(other), STORE_BUSY);
  one->ops->unlock(one);
  one->ops->unlock(one);
  assert_int_equal(try_lock(other), STORE_OK);
  assert_int_equal(try_lock(one), STORE_BUSY);
  other->ops->close(other);
  assert_int_equal(try_lock(one), STORE_OK);
  one->ops->close(one);
}

static void opening_and_closing_the_file_elsewhere_unlocks_nothing(void **state)
{
  struct store *one = open_in(*state), *other = open_in(*state);
  char *path = scratch_path(*state, "token.json.lock");
  assert_int_equal(try_lock(one), STORE_OK);
  int fd = open(path, O_RDWR | O_CLOEXEC);
  assert_int_equal(close(fd), 0);
  struct store *third = open_in(*state);
  assert_int_equal(try_lock(third), STORE_BUSY);
  third->ops->close(third);
  assert_int_equal(try_lock(other), STORE_BUSY);
  one->ops->close(one);
  other->ops->close(other);
  free(path);
}

static void find_it_locked(const struct scratch *scratch)
{
  struct store *store = open_in(scratch);
  EXPECT(try_lock(store) == STORE_BUSY);
  store->ops->close(store);
}

static void find_it_free(const struct scratch *scratch)
{
  struct store *store = open_in(scratch);
  EXPECT(try_lock(store) == STORE_OK);
  store->ops->close(store);
}

static void processes_exclude_each_other(void **state)
{
  struct store *store = open_in(*state);
  assert_int_equal(try_lock(store), STORE_OK);
  assert_int_equal(run_child(find_it_locked, *state), 0);
  store->ops->unlock(store);
  assert_int_equal(run_child(find_it_free, *state), 0);
  assert_int_equal(try_lock(store), STORE_OK);
  store->ops->close(store);
}

static void close_pipe(const int ends[2])
{
  close(ends[0]);
  close(ends[1]);
}

static void a_killed_holder_gives_way(void **state)
{
  int ready[2], leave[2];
  assert_int_equal(pipe(ready), 0);
  assert_int_equal(pipe(leave), 0);
  pid_t child = fork();
  if (child == 0) {
    struct store *store = open_in(*state);
    EXPECT(try_lock(store) == STORE_OK);
    tell(ready[1]);
    linger(leave);
  }
  struct store *store = open_in(*state);
  hear(ready[0]);
  assert_int_equal(try_lock(store), STORE_BUSY);
  kill(child, SIGKILL);
  assert_true(WIFSIGNALED(wait_for(child)));
  assert_int_equal(try_lock(store), STORE_OK);
  store->ops->close(store);
  close_pipe(ready);
  close_pipe(leave);
}

static void hold_with_a_child_that_disowns(const struct scratch *scratch, int ready, const int leave[2])
{
  struct store *store = open_in(scratch);
  EXPECT(try_lock(store) == STORE_OK);
  if (fork() == 0) {
    store->ops->forked(store);
    EXPECT(try_lock(store) == STORE_BUSY);
    tell(ready);
  }
  linger(leave);
}

static void a_child_that_disowns_the_lock_neither_frees_nor_keeps_it(void **state)
{
  int ready[2], leave[2];
  assert_int_equal(pipe(ready), 0);
  assert_int_equal(pipe(leave), 0);
  pid_t holder = fork();
  if (holder == 0)
    hold_with_a_child_that_disowns(*state, ready[1], leave);
  struct store *store = open_in(*state);
  close(ready[1]);
  hear(ready[0]);
  assert_int_equal(try_lock(store), STORE_BUSY);
  kill(holder, SIGKILL);
  assert_true(WIFSIGNALED(wait_for(holder)));
  assert_int_equal(try_lock(store), STORE_OK); /* while the child still lives */
  tell(leave[1]);
  assert_true(is_silent(ready[0]));
  store->ops->close(store);
  close(ready[0]);
  close_pipe(leave);
}

static void unlocking_does_not_wait_for_a_child_that_has_a_copy(void **state)
{
  int leave[2];
  assert_int_equal(pipe(leave), 0);
  struct store *store = open_in(*state), *other = open_in(*state);
  assert_int_equal(try_lock(store), STORE_OK);
  pid_t child = fork();
  if (child == 0)
    linger(leave);
  store->ops->unlock(store);
  assert_int_equal(try_lock(other), STORE_OK);
  tell(leave[1]);
  assert_int_equal(wait_for(child), 0);
  store->ops->close(store);
  other->ops->close(other);
  close_pipe(leave);
}

static void a_forked_child_can_lock_for_itself(void **state)
{
  struct store *store = open_in(*state);
  assert_int_equal(try_lock(store), STORE_OK);
  store->ops->unlock(store);
  pid_t child = fork();
  if (child == 0) {
    store->ops->forked(store);
    store->ops->forked(store);
    EXPECT(try_lock(store) == STORE_OK && saves(store, NEW) && loads(store, NEW));
    _exit(0);
  }
  assert_int_equal(wait_for(child), 0);
  assert_int_equal(try_lock(store), STORE_OK);
  assert_true(loads(store, NEW));
  store->ops->close(store);
}

/* The accounts of a folder. */

static void accounts_never_exclude_each_other(void **state)
{
  enum { ACCOUNTS = 200 };
  struct store *stores[ACCOUNTS];
  for (int i = 0; i < ACCOUNTS; i++) {
    char account[32];
    snprintf(account, sizeof account, "account-%d", i);
    stores[i] = open_account(*state, account);
    assert_int_equal(try_lock(stores[i]), STORE_OK);
  }
  for (int i = 0; i < ACCOUNTS; i++)
    stores[i]->ops->close(stores[i]);
}

static void an_account_has_one_lock_however_its_file_is_named(void **state)
{
  char *path = scratch_path(*state, "anna.json");
  struct store_error error;
  struct store *account = open_account(*state, "anna"), *file = store_file(path, NULL, &error);
  assert_int_equal(try_lock(account), STORE_OK);
  assert_int_equal(try_lock(file), STORE_BUSY);
  account->ops->unlock(account);
  assert_int_equal(try_lock(file), STORE_OK);
  assert_int_equal(try_lock(account), STORE_BUSY);
  account->ops->close(account);
  file->ops->close(file);
  free(path);
}

static void an_account_s_lock_file_stands_beside_its_own(void **state)
{
  char *path = scratch_path(*state, "anna.json.lock"), *other = scratch_path(*state, ".lock");
  struct store *store = open_account(*state, "anna");
  assert_int_equal(try_lock(store), STORE_OK);
  assert_int_equal(mode_of(path), 0600);
  assert_false(is_there(other));
  store->ops->close(store);
  free(path);
  free(other);
}

/* The lock file itself. */

static void the_lock_file_stays_private_and_closed_on_exec(void **state)
{
  char *path = scratch_path(*state, "token.json.lock");
  int next = open("/dev/null", O_RDONLY | O_CLOEXEC);
  close(next);
  mode_t before = umask(0277);
  struct store *store = open_in(*state);
  assert_false(is_there(path));
  enum store_result result = try_lock(store);
  umask(before);
  assert_int_equal(result, STORE_OK);
  assert_int_equal(fcntl(next, F_GETFD), FD_CLOEXEC);
  assert_int_equal(mode_of(path), 0600);
  store->ops->unlock(store);
  struct stat found;
  assert_int_equal(stat(path, &found), 0);
  ino_t inode = found.st_ino;
  store->ops->close(store);
  assert_int_equal(stat(path, &found), 0);
  assert_true(found.st_ino == inode);
  assert_int_equal(fcntl(next, F_GETFD), -1);
  free(path);
}

/* A program may have many accounts, and seldom needs the lock of more than one. */
static void what_is_unlocked_keeps_no_descriptor(void **state)
{
  int before = open_descriptors();
  struct store *store = open_in(*state);
  assert_int_equal(try_lock(store), STORE_OK);
  assert_true(saves(store, NEW));
  assert_int_equal(open_descriptors(), before + 1);
  store->ops->unlock(store);
  assert_true(loads(store, NEW));
  assert_int_equal(open_descriptors(), before);
  struct store *other = open_in(*state);
  assert_int_equal(try_lock(other), STORE_OK);
  assert_int_equal(try_lock(store), STORE_BUSY);
  assert_int_equal(open_descriptors(), before + 1);
  other->ops->close(other);
  store->ops->close(store);
}

static void a_lock_file_open_to_others_is_closed_to_them(void **state)
{
  char *path = scratch_path(*state, "token.json.lock");
  put(path, "", 0666);
  struct store *store = open_in(*state);
  assert_int_equal(try_lock(store), STORE_OK);
  assert_int_equal(mode_of(path), 0600);
  store->ops->close(store);
  free(path);
}

static void a_lock_file_that_is_none_is_refused(void **state)
{
  char *path = scratch_path(*state, "token.json.lock"), *target = scratch_path(*state, "target");
  struct store *store = open_in(*state);
  assert_int_equal(symlink(target, path), 0);
  assert_true(fails_to_lock(store, "symbolic link"));
  assert_false(is_there(target));
  assert_int_equal(unlink(path), 0);
  assert_int_equal(mkfifo(path, 0600), 0);
  assert_true(fails_to_lock(store, "pipe"));
  assert_int_equal(unlink(path), 0);
  assert_int_equal(mkdir(path, 0700), 0);
  assert_true(fails_to_lock(store, "folder"));
  assert_int_equal(rmdir(path), 0);
  if (geteuid() == 0) {
    put(path, "", 0666);
    assert_int_equal(chown(path, NOBODY, NOBODY), 0);
    assert_true(fails_to_lock(store, "belongs to user 65534"));
    assert_int_equal(unlink(path), 0);
  }
  assert_int_equal(try_lock(store), STORE_OK);
  store->ops->close(store);
  free(path);
  free(target);
}

static void a_removed_lock_file_is_made_anew(void **state)
{
  struct store *one = open_in(*state), *other = open_in(*state);
  char *path = scratch_path(*state, "token.json.lock");
  int before = open_descriptors();
  assert_int_equal(try_lock(one), STORE_OK);
  one->ops->unlock(one);
  assert_int_equal(unlink(path), 0);
  assert_int_equal(try_lock(other), STORE_OK);
  assert_int_equal(try_lock(one), STORE_BUSY);
  other->ops->unlock(other);
  assert_int_equal(try_lock(one), STORE_OK);
  assert_int_equal(try_lock(other), STORE_BUSY);
  assert_int_equal(open_descriptors(), before + 1);
  one->ops->close(one);
  other->ops->close(other);
  free(path);
}

#if defined(__linux__)
static int missing_with; /* what fcntl says of locks that it does not know */

static void lock_without_descriptor_locks(const struct scratch *scratch)
{
  inject(SYS_fcntl, 1, F_OFD_SETLK, missing_with);
  struct store *one = open_account(scratch, "account-0"), *same = open_account(scratch, "account-0");
  struct store *other = open_account(scratch, "account-1");
  EXPECT(try_lock(one) == STORE_OK && try_lock(same) == STORE_BUSY && try_lock(other) == STORE_OK);
  one->ops->unlock(one);
  other->ops->close(other);
  EXPECT(try_lock(same) == STORE_OK);
  pid_t child = fork();
  if (child == 0) {
    same->ops->forked(same);
    EXPECT(try_lock(same) == STORE_BUSY);
    _exit(0);
  }
  EXPECT(wait_for(child) == 0 && try_lock(one) == STORE_BUSY);
  one->ops->close(one);
  same->ops->close(same);
}

static void lock_where_locks_are_unknown(const struct scratch *scratch)
{
  inject(SYS_fcntl, 1, F_OFD_SETLK, ENOLCK);
  struct store *store = open_in(scratch);
  EXPECT(fails_to_lock(store, "keep the tokens on a local disk"));
  store->ops->close(store);
}

static void flock_takes_the_place_of_missing_locks(void **state)
{
  const int causes[] = {EINVAL, ENOSYS, EPERM, EOPNOTSUPP};
  for (size_t i = 0; i < sizeof causes / sizeof *causes; i++) {
    missing_with = causes[i];
    assert_int_equal(run_child(lock_without_descriptor_locks, *state), 0);
  }
}

/* By a security module, as a rule: it is no other process's lock. */
static void lock_where_locks_are_denied(const struct scratch *scratch)
{
  inject(SYS_fcntl, 1, F_OFD_SETLK, EACCES);
  struct store *store = open_in(scratch);
  EXPECT(fails_to_lock(store, strerror(EACCES)) && fails_to_lock(store, "permission"));
  store->ops->close(store);
}

static void lock_where_no_kind_of_lock_is_allowed(const struct scratch *scratch)
{
  inject(SYS_fcntl, 1, F_OFD_SETLK, EPERM);
  inject(SYS_flock, -1, 0, EPERM);
  struct store *store = open_in(scratch);
  EXPECT(fails_to_lock(store, strerror(EPERM)) && fails_to_lock(store, "permission"));
  store->ops->close(store);
}

static void a_lock_that_is_denied_is_not_another_s(void **state)
{
  assert_int_equal(run_child(lock_where_locks_are_denied, *state), 0);
  assert_int_equal(run_child(lock_where_no_kind_of_lock_is_allowed, *state), 0);
}

static void a_file_system_without_locks_is_reported(void **state)
{
  assert_int_equal(run_child(lock_where_locks_are_unknown, *state), 0);
}
#endif

/* Leftovers. */

struct remains {
  char *record, *temporary;
};

static struct remains leave(const struct scratch *scratch, const char *record, const char *temporary)
{
  struct remains remains = {scratch_path(scratch, "token.json"), scratch_path(scratch, "token.json.tmp")};
  if (record)
    put(remains.record, record, 0600);
  if (temporary)
    put(remains.temporary, temporary, 0600);
  return remains;
}

static void forget(struct remains *remains)
{
  free(remains->record);
  free(remains->temporary);
}

/* Take the lock; then the record must be `expected` and nothing may lie beside it. */
static void assert_settled(const struct scratch *scratch, const struct remains *remains, const char *expected)
{
  struct store *store = open_in(scratch);
  assert_int_equal(try_lock(store), STORE_OK);
  assert_false(has_leftover(scratch));
  assert_true(loads(store, expected));
  assert_int_equal(mode_of(remains->record), 0600);
  store->ops->close(store);
}

static void a_complete_leftover_becomes_the_record(void **state)
{
  struct remains remains = leave(*state, OLD, NEW);
  struct store *store = open_in(*state), *reader = open_in(*state);
  assert_true(loads(reader, OLD)); /* nothing happens without the lock */
  assert_true(is_there(remains.temporary));
  assert_int_equal(try_lock(store), STORE_OK);
  assert_false(is_there(remains.temporary));
  assert_true(store->ops->changed(store));
  assert_true(reader->ops->changed(reader));
  assert_true(loads(store, NEW));
  assert_true(loads(reader, NEW));
  store->ops->close(store);
  reader->ops->close(reader);
  forget(&remains);
}

static void a_leftover_of_the_first_save_becomes_the_record(void **state)
{
  struct remains remains = leave(*state, NULL, NEW);
  assert_settled(*state, &remains, NEW);
  forget(&remains);
}

static void age_decides(void **state)
{
  struct remains remains = leave(*state, OLD, NEW);
  date(remains.record, -10);
  date(remains.temporary, -11);
  assert_settled(*state, &remains, OLD);

  put(remains.temporary, NEW, 0600);
  struct timespec same[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1700000000, .tv_nsec = 5000}};
  assert_int_equal(utimensat(AT_FDCWD, remains.record, same, 0), 0);
  same[1].tv_nsec = 4000;
  assert_int_equal(utimensat(AT_FDCWD, remains.temporary, same, 0), 0);
  assert_settled(*state, &remains, OLD);

  put(remains.temporary, NEW, 0600);
  same[1].tv_nsec = 5000;
  assert_int_equal(utimensat(AT_FDCWD, remains.temporary, same, 0), 0);
  assert_settled(*state, &remains, NEW);
  forget(&remains);
}

static void a_leftover_cut_anywhere_is_removed(void **state)
{
  struct remains remains = leave(*state, OLD, NULL);
  char cut[sizeof NEW];
  for (size_t length = 0; length < sizeof NEW - 1; length++) {
    memcpy(cut, NEW, length);
    cut[length] = '\0';
    put(remains.temporary, cut, 0600);
    assert_settled(*state, &remains, OLD);
  }
  put(remains.temporary, NEW, 0600);
  assert_settled(*state, &remains, NEW);
  forget(&remains);
}

static void a_leftover_that_is_no_record_is_removed(void **state)
{
  const char *texts[] = {"[]", "\"text\"", "7", "null", "{}x", "{} {}", "{\"a\":1}}"};
  struct remains remains = leave(*state, OLD, NULL);
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    put(remains.temporary, texts[i], 0600);
    assert_settled(*state, &remains, OLD);
  }
  const char nul[] = "{\"a\":\"\0\"}", zeros[64] = "";
  put_bytes(remains.temporary, nul, sizeof nul - 1, 0600);
  assert_settled(*state, &remains, OLD);
  put_bytes(remains.temporary, zeros, sizeof zeros, 0600);
  assert_settled(*state, &remains, OLD);
  forget(&remains);
}

static void a_leftover_larger_than_any_record_is_removed(void **state)
{
  struct remains remains = leave(*state, OLD, NULL);
  char *text = malloc(STORE_FILE_LIMIT + 2);
  assert_non_null(text);
  memset(text, ' ', STORE_FILE_LIMIT + 1);
  memcpy(text, "{}", 2);
  text[STORE_FILE_LIMIT + 1] = '\0';
  put(remains.temporary, text, 0600);
  assert_settled(*state, &remains, OLD);
  free(text);
  forget(&remains);
}

static void what_is_not_our_leftover_is_removed(void **state)
{
  struct remains remains = leave(*state, OLD, NULL);
  char *target = scratch_path(*state, "target");
  put(target, NEW, 0600);
  assert_int_equal(symlink(target, remains.temporary), 0);
  assert_settled(*state, &remains, OLD);
  assert_true(holds(target, NEW));
  assert_int_equal(mkfifo(remains.temporary, 0600), 0);
  assert_settled(*state, &remains, OLD);
  put(remains.temporary, NEW, 0644);
  assert_settled(*state, &remains, OLD);
  if (geteuid() == 0) {
    put(remains.temporary, NEW, 0600);
    assert_int_equal(chown(remains.temporary, NOBODY, NOBODY), 0);
    assert_settled(*state, &remains, OLD);
  }
  free(target);
  forget(&remains);
}

static void a_folder_in_the_leftovers_place_is_left_to_the_user(void **state)
{
  struct remains remains = leave(*state, OLD, NULL);
  struct store *store = open_in(*state);
  assert_int_equal(mkdir(remains.temporary, 0600), 0);
  assert_int_equal(try_lock(store), STORE_OK);
  assert_true(loads(store, OLD));
  assert_true(saves(store, NEW));
  assert_int_equal(mode_of(remains.temporary), 0600);
  store->ops->close(store);
  forget(&remains);
}

static void the_temporary_file_of_a_living_writer_is_left_alone(void **state)
{
  struct store *writer = open_in(*state), *other = open_in(*state);
  assert_int_equal(try_lock(writer), STORE_OK);
  struct remains remains = leave(*state, OLD, NEW);
  assert_int_equal(try_lock(other), STORE_BUSY);
  assert_true(holds(remains.temporary, NEW));
  assert_true(holds(remains.record, OLD));
  writer->ops->close(writer);
  other->ops->close(other);
  forget(&remains);
}

static void a_leftover_never_replaces_what_load_refuses(void **state)
{
  struct remains remains = leave(*state, NULL, NEW);
  char *target = scratch_path(*state, "target");
  put(target, OLD, 0600);
  assert_int_equal(symlink(target, remains.record), 0);
  struct store *store = open_in(*state), *other = open_in(*state);
  assert_true(fails_to_lock(store, "symbolic link"));
  assert_true(holds(remains.temporary, NEW));
  assert_true(holds(target, OLD));
  assert_int_equal(unlink(remains.record), 0);
  assert_int_equal(try_lock(other), STORE_OK); /* the failure did not keep it */
  assert_true(loads(other, NEW));
  store->ops->close(store);
  other->ops->close(other);
  free(target);
  forget(&remains);
}

static void lock_over_a_leftover_that_cannot_be_moved(const struct scratch *scratch)
{
  struct store *store = open_in(scratch);
  EXPECT(try_lock(store) == STORE_OK);
  store->ops->unlock(store);
  struct remains remains = leave(scratch, OLD, NEW);
  EXPECT(chmod(scratch->folder, 0500) == 0);
  EXPECT(fails_to_lock(store, "cannot replace") && holds(remains.temporary, NEW) && holds(remains.record, OLD));
  EXPECT(chmod(scratch->folder, 0700) == 0);
  EXPECT(try_lock(store) == STORE_OK && loads(store, NEW));
  store->ops->close(store);
  forget(&remains);
}

static void a_leftover_that_cannot_be_moved_withholds_the_lock(void **state)
{
  assert_int_equal(run_as_user(lock_over_a_leftover_that_cannot_be_moved, *state), 0);
}

#if defined(__linux__)
/* A save is killed just before each kind of system call that it makes; the next owner must find one record or the
 * other, whole. */

/* The descriptors that a save opens are the lowest free ones: the folder's, then the file's. */
enum { FOLDER, TEMPORARY, ANY_DESCRIPTOR };

static void save_until(const struct scratch *scratch, long call, int opened)
{
  int lock = open("/dev/null", O_RDONLY | O_CLOEXEC);
  close(lock);
  struct store *store = open_in(scratch);
  EXPECT(try_lock(store) == STORE_OK && loads(store, OLD));
  if (opened == ANY_DESCRIPTOR)
    inject(call, -1, 0, SUDDEN_DEATH);
  else
    inject(call, 0, (unsigned)(lock + 1 + opened), SUDDEN_DEATH);
  saves(store, NEW);
}

static void die_at_write(const struct scratch *scratch)
{
  save_until(scratch, SYS_pwrite64, TEMPORARY);
}

static void die_at_sync(const struct scratch *scratch)
{
  save_until(scratch, SYS_fsync, TEMPORARY);
}

static void die_at_rename(const struct scratch *scratch)
{
#ifdef SYS_renameat
  save_until(scratch, SYS_renameat, ANY_DESCRIPTOR);
#else
  save_until(scratch, SYS_renameat2, ANY_DESCRIPTOR);
#endif
}

static void die_at_folder_sync(const struct scratch *scratch)
{
  save_until(scratch, SYS_fsync, FOLDER);
}

static void a_killed_save_leaves_one_record_or_the_other(void **state)
{
  static const struct {
    child_body *body;
    const char *left, *then;
  } deaths[] = {
      {die_at_write, "", OLD},
      {die_at_sync, NEW, NEW},
      {die_at_rename, NEW, NEW},
      {die_at_folder_sync, NULL, NEW},
  };
  for (size_t i = 0; i < sizeof deaths / sizeof *deaths; i++) {
    struct remains remains = leave(*state, OLD, NULL);
    int status = run_child(deaths[i].body, *state);
    assert_true(WIFSIGNALED(status));
    char *left = find_leftover(*state);
    if (deaths[i].left)
      assert_true(left && holds(remains.record, OLD) && holds(left, deaths[i].left));
    else
      assert_null(left);
    free(left);
    assert_settled(*state, &remains, deaths[i].then);
    forget(&remains);
  }
}

static void a_clock_set_back_does_not_hide_the_newer_record(void **state)
{
  struct remains remains = leave(*state, OLD, NULL);
  date(remains.record, 3600);
  assert_true(WIFSIGNALED(run_child(die_at_rename, *state)));
  assert_settled(*state, &remains, NEW);
  forget(&remains);
}
#endif

/* Many at once. */

enum { WRITERS = 8, ROUNDS = 100 };

/* The number in the record; a record that is not whole ends the child. */
static int count_in(struct store *store)
{
  struct store_error error;
  char *record, end;
  int count = 0;
  enum store_result result = store->ops->load(store, &record, &error);
  if (result == STORE_NONE)
    return 0;
  EXPECT(result == STORE_OK && sscanf(record, "{\"count\":%d%c", &count, &end) == 2 && end == '}');
  secret_free(record);
  return count;
}

static void increment(struct store *store)
{
  int seen = count_in(store); /* without the lock */
  enum store_result result;
  while ((result = try_lock(store)) == STORE_BUSY)
    sched_yield();
  EXPECT(result == STORE_OK);
  int count = count_in(store);
  EXPECT(count >= seen);
  char record[40];
  snprintf(record, sizeof record, "{\"count\":%d}", count + 1);
  EXPECT(saves(store, record) && !store->ops->changed(store));
  store->ops->unlock(store);
}

static void no_update_is_lost_among_many_writers(void **state)
{
  pid_t writers[WRITERS];
  for (int i = 0; i < WRITERS; i++) {
    writers[i] = fork();
    if (writers[i] == 0) {
      struct store *store = open_in(*state);
      for (int round = 0; round < ROUNDS; round++)
        increment(store);
      store->ops->close(store);
      _exit(0);
    }
  }
  int failed = 0;
  for (int i = 0; i < WRITERS; i++)
    failed += wait_for(writers[i]) != 0;
  assert_int_equal(failed, 0);
  struct store *store = open_in(*state);
  assert_int_equal(count_in(store), WRITERS * ROUNDS);
  store->ops->close(store);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      SPEC(two_stores_of_one_process_exclude_each_other),
      SPEC(opening_and_closing_the_file_elsewhere_unlocks_nothing),
      SPEC(processes_exclude_each_other),
      SPEC(a_killed_holder_gives_way),
      SPEC(a_child_that_disowns_the_lock_neither_frees_nor_keeps_it),
      SPEC(unlocking_does_not_wait_for_a_child_that_has_a_copy),
      SPEC(a_forked_child_can_lock_for_itself),
      SPEC(accounts_never_exclude_each_other),
      SPEC(an_account_has_one_lock_however_its_file_is_named),
      SPEC(an_account_s_lock_file_stands_beside_its_own),
      SPEC(the_lock_file_stays_private_and_closed_on_exec),
      SPEC(what_is_unlocked_keeps_no_descriptor),
      SPEC(a_lock_file_open_to_others_is_closed_to_them),
      SPEC(a_lock_file_that_is_none_is_refused),
      SPEC(a_removed_lock_file_is_made_anew),
      SPEC(a_complete_leftover_becomes_the_record),
      SPEC(a_leftover_of_the_first_save_becomes_the_record),
      SPEC(age_decides),
      SPEC(a_leftover_cut_anywhere_is_removed),
      SPEC(a_leftover_that_is_no_record_is_removed),
      SPEC(a_leftover_larger_than_any_record_is_removed),
      SPEC(what_is_not_our_leftover_is_removed),
      SPEC(a_folder_in_the_leftovers_place_is_left_to_the_user),
      SPEC(the_temporary_file_of_a_living_writer_is_left_alone),
      SPEC(a_leftover_never_replaces_what_load_refuses),
      SPEC(a_leftover_that_cannot_be_moved_withholds_the_lock),
      SPEC(no_update_is_lost_among_many_writers),
  };
  int failed = cmocka_run_group_tests_name("file lock", tests, NULL, NULL);
#if defined(__linux__)
  const struct CMUnitTest on_linux[] = {
      SPEC(flock_takes_the_place_of_missing_locks),          SPEC(a_lock_that_is_denied_is_not_another_s),
      SPEC(a_file_system_without_locks_is_reported),         SPEC(a_killed_save_leaves_one_record_or_the_other),
      SPEC(a_clock_set_back_does_not_hide_the_newer_record),
  };
  failed += cmocka_run_group_tests_name("file lock on Linux", on_linux, NULL, NULL);
#endif
  return failed;
}
