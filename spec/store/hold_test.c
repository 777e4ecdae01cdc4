/* What is held over a refresh: whatever becomes of descriptors, memory, the disk and the folder meanwhile, the answer's
 * tokens are saved; and what a crash leaves of it is found again. */
#define _GNU_SOURCE
#include "../../src/base/secret.h"
#include "../../src/store/file.h"
#include "scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__linux__)
#include <sys/syscall.h>
#endif

static const char OLD[] = "{\"access_token\":\"old-access\",\"refresh_token\":\"old-refresh\"}";
static const char NEW[] = "{\"access_token\":\"new-access\",\"refresh_token\":\"new-refresh\"}";
static const char HASH[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/* ---- what a save asks the system for ---- */

static bool watching, dry;
static int acquired;
static char calls[200];

static void note(const char *call)
{
  size_t length = strlen(calls);
  if (watching)
    snprintf(calls + length, sizeof calls - length, "%s ", call);
}

/* False: there is nothing more to be had. */
static bool acquire(void)
{
  acquired += watching;
  return !dry;
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
  return acquire() ? __real_malloc(size) : NULL;
}

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size)
{
  return acquire() ? __real_calloc(count, size) : NULL;
}

void *__real_realloc(void *block, size_t size);
void *__wrap_realloc(void *block, size_t size);
void *__wrap_realloc(void *block, size_t size)
{
  return acquire() ? __real_realloc(block, size) : NULL;
}

char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);
char *__wrap_strdup(const char *text)
{
  return acquire() ? __real_strdup(text) : NULL;
}

static int refused(void)
{
  errno = EMFILE;
  return -1;
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
  return acquire() ? __real_open(path, flags, 0600) : refused();
}

int __real_openat(int folder, const char *path, int flags, ...);
int __wrap_openat(int folder, const char *path, int flags, ...);
int __wrap_openat(int folder, const char *path, int flags, ...)
{
  return acquire() ? __real_openat(folder, path, flags, 0600) : refused();
}

ssize_t __real_pwrite(int fd, const void *bytes, size_t length, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *bytes, size_t length, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *bytes, size_t length, off_t offset)
{
  note("pwrite");
  return __real_pwrite(fd, bytes, length, offset);
}

int __real_ftruncate(int fd, off_t length);
int __wrap_ftruncate(int fd, off_t length);
int __wrap_ftruncate(int fd, off_t length)
{
  note("ftruncate");
  return __real_ftruncate(fd, length);
}

/* Just before a rename other writers put their records there, one a rename. */
struct meddler {
  const char *path, *records[3];
  int renames, dies_at;
};
static struct meddler meddler;

static void meddle(void)
{
  char aside[300];
  int number = meddler.renames++;
  if (meddler.dies_at > 0 && number == meddler.dies_at)
    kill(getpid(), SIGKILL);
  const char *record = meddler.path && number < 3 ? meddler.records[number] : NULL;
  if (!record)
    return;
  snprintf(aside, sizeof aside, "%s.aside", meddler.path);
  put(aside, record, 0600);
  rename(aside, meddler.path);
}

static int failing_syncs;

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
  note("fsync");
  errno = EIO;
  return failing_syncs > 0 && failing_syncs-- ? -1 : __real_fsync(fd);
}

int __real_renameat(int folder, const char *from, int other, const char *to);
int __wrap_renameat(int folder, const char *from, int other, const char *to);
int __wrap_renameat(int folder, const char *from, int other, const char *to)
{
  note("renameat");
  meddle();
  return __real_renameat(folder, from, other, to);
}

static bool exchanges = true; /* the system does */

int __real_renameat2(int folder, const char *from, int other, const char *to, unsigned flags);
int __wrap_renameat2(int folder, const char *from, int other, const char *to, unsigned flags);
int __wrap_renameat2(int folder, const char *from, int other, const char *to, unsigned flags)
{
  note("renameat2");
  if (exchanges) {
    meddle();
    return __real_renameat2(folder, from, other, to, flags);
  }
  errno = EINVAL;
  return -1;
}

static void watch(bool on)
{
  watching = on;
  if (on) {
    acquired = 0;
    calls[0] = '\0';
  }
}

/* ---- a refresh, up to its answer ---- */

static bool locks(struct store *store)
{
  struct store_error error;
  enum store_result result = store->ops->lock(store, &error);
  if (result == STORE_FAILED)
    fprintf(stderr, "%s\n", error.message);
  return result == STORE_OK;
}

static bool has_no_record(struct store *store)
{
  struct store_error error;
  char *record;
  return store->ops->load(store, &record, &error) == STORE_NONE;
}

static void begin_to_spend(struct store *store, const char *hash)
{
  store->ops->begin(store);
  store->ops->spend(store, hash);
}

static const char *held_by(struct store *store)
{
  struct store_error error;
  const char *held = NULL;
  if (store->ops->hold(store, &held, &error) == STORE_OK)
    return held;
  fprintf(stderr, "%s\n", error.message);
  return NULL;
}

static bool refuses_to_hold(struct store *store, const char *part)
{
  struct store_error error = {CODE_OK, ""};
  const char *held = "";
  bool good = store->ops->hold(store, &held, &error) == STORE_FAILED && !held && error.code == CODE_STORAGE &&
              strstr(error.message, part);
  if (!good)
    fprintf(stderr, "expected \"%s\" in: %s\n", part, error.message);
  return good;
}

static void mark_text(char text[300], const char *held)
{
  snprintf(text, 300,
           "{\"access_token\":\"old-access\",\"refresh_token\":\"old-refresh\",\"pending\":{\"held\":\"%s\"}}", held);
}

static bool marks(struct store *store, const char *held)
{
  struct store_error error;
  char text[300];
  mark_text(text, held);
  enum store_result result = store->ops->save_mark(store, text, &error);
  if (result == STORE_FAILED)
    fprintf(stderr, "%s\n", error.message);
  return result == STORE_OK;
}

/* Locked, with a mark that tells what is held. */
static struct store *spend(const struct scratch *scratch)
{
  struct store *store = open_in(scratch);
  char *path = scratch_path(scratch, "token.json");
  put(path, OLD, 0600);
  free(path);
  EXPECT(locks(store) && loads(store, OLD));
  const char *held = held_by(store);
  EXPECT(held && marks(store, held));
  begin_to_spend(store, HASH);
  EXPECT(store->ops->excludes_others(store));
  return store;
}

/* The record is `expected`, and nothing lies beside it. */
static bool is_settled(const struct scratch *scratch, const char *expected)
{
  struct store *store = open_in(scratch);
  bool good = locks(store) && loads(store, expected) && !has_leftover(scratch);
  store->ops->close(store);
  return good;
}

static bool ends_well(const struct scratch *scratch, struct store *store)
{
  bool saved = saves(store, NEW) && !store->ops->changed(store) && loads(store, NEW);
  store->ops->unlock(store);
  store->ops->close(store);
  return saved && is_settled(scratch, NEW);
}

/* ---- nothing is acquired behind the mark ---- */

static void a_save_of_what_is_held_only_writes_and_renames(void **state)
{
  struct store *store = spend(*state);
  watch(true);
  dry = true;
  bool saved = saves(store, NEW);
  dry = false;
  watch(false);
  assert_true(saved);
  assert_int_equal(acquired, 0);
  assert_string_equal(calls, "pwrite ftruncate fsync renameat fsync ");
  assert_true(ends_well(*state, store));
}

static void save_with_no_descriptor_left(const struct scratch *scratch)
{
  struct store *store = spend(scratch);
  struct rlimit few;
  EXPECT(getrlimit(RLIMIT_NOFILE, &few) == 0);
  few.rlim_cur = 32;
  EXPECT(setrlimit(RLIMIT_NOFILE, &few) == 0);
  while (open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0)
    continue;
  EXPECT(errno == EMFILE && saves(store, NEW));
  store->ops->close(store);
}

static void descriptors_may_run_out_during_the_request(void **state)
{
  assert_int_equal(run_child(save_with_no_descriptor_left, *state), 0);
  assert_true(is_settled(*state, NEW));
}

static enum store_result save_from_nothing(struct store *store, struct store_error *error)
{
  dry = true;
  enum store_result result = store->ops->save(store, NEW, error);
  dry = false;
  return result;
}

/* Nor does it take anything to try again. */
static void a_save_that_failed_is_tried_again_with_what_is_held(void **state)
{
  for (int syncs = 1; syncs < 3; syncs++) {
    struct store *store = spend(*state);
    struct store_error error;
    failing_syncs = syncs;
    enum store_result first = save_from_nothing(store, &error);
    bool left = has_leftover(*state);
    enum store_result second = save_from_nothing(store, &error);
    bool third = second == STORE_OK || save_from_nothing(store, &error) == STORE_OK;
    assert_int_equal(first, STORE_FAILED);
    assert_true(left);
    assert_true(third && (second == STORE_OK) == (syncs == 1));
    assert_true(ends_well(*state, store));
  }
}

static void what_is_held_is_held_once_and_given_back(void **state)
{
  int before = open_descriptors();
  struct store *store = spend(*state);
  const char *again = held_by(store);
  char text[300];
  mark_text(text, again);
  assert_true(loads(store, text));
  assert_true(has_leftover(*state));
  store->ops->unlock(store);
  assert_false(has_leftover(*state));
  assert_int_equal(open_descriptors(), before);
  assert_true(locks(store) && held_by(store));
  store->ops->close(store);
  assert_false(has_leftover(*state));
  assert_int_equal(open_descriptors(), before);
}

static void a_child_leaves_what_its_parent_holds(void **state)
{
  struct store *store = spend(*state);
  pid_t child = fork();
  if (child == 0) {
    store->ops->forked(store);
    store->ops->unlock(store);
    store->ops->close(store);
    _exit(0);
  }
  int status = -1;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
  assert_true(ends_well(*state, store));
}

/* ---- other users of the folder ---- */

static void become_nobody(void)
{
  EXPECT(setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
}

/* Takes every name that can be guessed, and whatever it may take away. */
static void squat(const struct scratch *scratch)
{
  char *names[] = {scratch_path(scratch, "token.json.tmp"), scratch_path(scratch, "token.json.lock"),
                   scratch_path(scratch, "token.json"), find_leftover(scratch)};
  char *away = scratch_path(scratch, "away");
  become_nobody();
  EXPECT(names[3] && mkdir(names[0], 0700) == 0);
  for (int i = 1; i < 4; i++) {
    EXPECT(unlink(names[i]) != 0 && rename(names[i], away) != 0);
    EXPECT(symlink("/dev/null", names[i]) != 0 && open(names[i], O_RDWR) < 0);
  }
  for (int i = 0; i < 4; i++)
    free(names[i]);
  free(away);
}

static void another_user_of_a_sticky_folder_can_spoil_nothing(void **state)
{
  const struct scratch *scratch = *state;
  if (geteuid() != 0)
    skip();
  assert_int_equal(chmod(scratch->folder, 01777), 0);
  struct store *store = spend(scratch);
  assert_int_equal(run_child(squat, scratch), 0);
  assert_true(saves(store, NEW) && loads(store, NEW));
  assert_false(store->exposed);
  store->ops->unlock(store);
  assert_true(locks(store) && loads(store, NEW));
  store->ops->close(store);
}

static void a_lock_file_of_another_user_is_named(void **state)
{
  const struct scratch *scratch = *state;
  struct store_error error;
  if (geteuid() != 0)
    skip();
  assert_int_equal(chmod(scratch->folder, 01777), 0);
  char *path = scratch_path(scratch, "token.json.lock");
  put(path, "", 0666);
  assert_int_equal(chown(path, NOBODY, NOBODY), 0);
  struct store *store = open_in(scratch);
  assert_int_equal(store->ops->lock(store, &error), STORE_FAILED);
  assert_non_null(strstr(error.message, "belongs to user 65534"));
  store->ops->close(store);
  free(path);
}

static void a_folder_in_which_everybody_may_write_is_refused(void **state)
{
  const struct scratch *scratch = *state;
  assert_int_equal(chmod(scratch->folder, 0777), 0);
  struct store *store = open_in(scratch);
  assert_true(locks(store));
  assert_true(refuses_to_hold(store, "chmod o-w"));
  assert_false(has_leftover(scratch));
  if (geteuid() == 0) {
    assert_int_equal(chown(scratch->folder, NOBODY, NOBODY), 0);
    assert_true(refuses_to_hold(store, "/lucid"));
    assert_true(refuses_to_hold(store, "install -d -m 700 /"));
  }
  store->ops->close(store);
}

static void a_folder_in_which_a_group_may_write_is_told_once(void **state)
{
  const struct scratch *scratch = *state;
  assert_int_equal(chmod(scratch->folder, 0770), 0);
  struct store *store = spend(scratch);
  assert_true(store->exposed);
  store->exposed = false;
  store->ops->unlock(store);
  assert_true(locks(store) && held_by(store));
  assert_false(store->exposed);
  store->ops->close(store);
}

/* As a member of the group may do. */
static void what_is_taken_away_is_made_anew(void **state)
{
  for (int i = 0; i < 2; i++) {
    struct store *store = spend(*state);
    char *left = find_leftover(*state);
    assert_int_equal(unlink(left), 0);
    if (i == 1)
      put(left, "{\"refresh_token\":\"theirs\"}", 0600);
    assert_true(saves(store, NEW) && loads(store, NEW));
    store->ops->close(store);
    unlink(left);
    free(left);
  }
}

/* ---- a folder that is moved ---- */

struct moved {
  struct scratch inner; /* the folder that is moved */
  char *away, *record, *moved;
};

static struct moved move_in(const struct scratch *scratch, const char *name)
{
  struct moved it;
  char away[32], moved[64], *inner = scratch_path(scratch, name);
  snprintf(it.inner.folder, sizeof it.inner.folder, "%s", inner);
  free(inner);
  snprintf(away, sizeof away, "%.20s-away", name);
  snprintf(moved, sizeof moved, "%s/token.json", away);
  it.away = scratch_path(scratch, away);
  it.record = scratch_path(&it.inner, "token.json");
  it.moved = scratch_path(scratch, moved);
  assert_int_equal(mkdir(it.inner.folder, 0700), 0);
  return it;
}

static void move_away(const struct moved *it)
{
  assert_int_equal(rename(it->inner.folder, it->away), 0);
}

static void move_out(struct moved *it)
{
  free(it->away);
  free(it->record);
  free(it->moved);
}

/* What stands at its path when the tokens are saved, and what does afterwards. */
struct successor {
  const char *name;
  bool folder, marked; /* with a copy of the mark */
  const char *record;  /* NULL: none, or the copy */
  const char *becomes; /* NULL: nothing is there */
};

static void take_its_place(const struct moved *it, const struct successor *successor, const char *mark)
{
  if (successor->folder)
    assert_int_equal(mkdir(it->inner.folder, 0700), 0);
  if (successor->marked || successor->record)
    put(it->record, successor->marked ? mark : successor->record, 0600);
}

static void expect_in_both(const struct moved *it, const struct successor *successor)
{
  assert_true(holds(it->moved, NEW));
  assert_int_equal(is_there(it->record), successor->becomes != NULL);
  assert_true(!successor->becomes || holds(it->record, successor->becomes));
}

static void a_folder_that_is_moved_gets_the_tokens(void **state)
{
  static const struct successor successors[] = {
      {"nothing", false, false, NULL, NULL},
      {"a folder", true, false, NULL, NEW},
      {"a copy", true, true, NULL, NEW},
      {"another login", true, false, OLD, OLD},
  };
  for (size_t i = 0; i < sizeof successors / sizeof *successors; i++) {
    struct moved it = move_in(*state, successors[i].name);
    struct store *store = spend(&it.inner);
    char mark[300];
    mark_text(mark, held_by(store));
    move_away(&it);
    take_its_place(&it, &successors[i], mark);
    assert_false(store->ops->excludes_others(store));
    assert_true(saves(store, NEW));
    expect_in_both(&it, &successors[i]);
    assert_int_equal(store->ops->changed(store), successors[i].becomes != NEW);
    store->ops->close(store);
    assert_true(!successors[i].becomes || is_settled(&it.inner, successors[i].becomes));
    move_out(&it);
  }
}

static void tokens_are_saved_along_the_path_where_the_folder_is_gone(void **state)
{
  struct moved it = move_in(*state, "in");
  struct store *store = spend(&it.inner);
  char *left = find_leftover(&it.inner), *lock = scratch_path(&it.inner, "token.json.lock");
  assert_true(unlink(left) == 0 && unlink(lock) == 0 && unlink(it.record) == 0);
  assert_int_equal(rmdir(it.inner.folder), 0);
  assert_int_equal(mkdir(it.inner.folder, 0700), 0);
  struct store_error error;
  char *record;
  assert_int_equal(store->ops->save(store, NEW, &error), STORE_CHANGED);
  assert_int_equal(store->ops->load(store, &record, &error), STORE_NONE);
  assert_true(saves(store, NEW) && holds(it.record, NEW));
  store->ops->close(store);
  free(left);
  free(lock);
  move_out(&it);
}

#if defined(__linux__)
/* ---- space ---- */

enum { CANNOT_MOUNT = 77 };

static void fill_the_disk(const struct scratch *scratch)
{
  char *filler = scratch_path(scratch, "filler"), block[512] = "";
  int fd = open(filler, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  while (write(fd, block, sizeof block) > 0)
    ;
  EXPECT(errno == ENOSPC && close(fd) == 0);
  free(filler);
}

/* A record of this many bytes more. */
static char *large_record(size_t size)
{
  char *text = malloc(size + 200);
  int start = snprintf(text, 200, "{\"access_token\":\"new-access\",\"side\":\"");
  memset(text + start, 'x', size);
  snprintf(text + start + size, 100, "\",\"refresh_token\":\"new-refresh\",\"expires_at\":1}");
  return text;
}

static const char ESSENTIALS[] = "{\"access_token\":\"new-access\",\"refresh_token\":\"new-refresh\",\"expires_at\":1}";

static void save_on_a_disk_that_fills_up(const struct scratch *scratch)
{
  if (!mount_small(scratch->folder, "128k"))
    _exit(CANNOT_MOUNT);
  struct store *store = spend(scratch);
  fill_the_disk(scratch);
  char *large = large_record(60 * 1024), *too_large = large_record(70 * 1024);
  EXPECT(saves(store, large) && loads(store, large));
  char *filler = scratch_path(scratch, "filler");
  store->ops->unlock(store);
  store->ops->close(store);
  EXPECT(unlink(filler) == 0);
  store = spend(scratch);
  fill_the_disk(scratch);
  EXPECT(saves(store, too_large) && loads(store, ESSENTIALS));
  store->ops->close(store);
  free(filler);
  free(large);
  free(too_large);
}

/* Room for the tokens is enough. */
static void save_on_a_disk_that_is_almost_full(const struct scratch *scratch)
{
  if (!mount_small(scratch->folder, "36k"))
    _exit(CANNOT_MOUNT);
  struct store *store = spend(scratch);
  fill_the_disk(scratch);
  char *too_large = large_record(20 * 1024);
  EXPECT(saves(store, too_large) && loads(store, ESSENTIALS));
  store->ops->close(store);
  free(too_large);
}

static void hold_on_a_full_disk(const struct scratch *scratch)
{
  if (!mount_small(scratch->folder, "32k"))
    _exit(CANNOT_MOUNT);
  struct store *store = open_in(scratch);
  EXPECT(locks(store) && saves(store, OLD));
  fill_the_disk(scratch);
  EXPECT(refuses_to_hold(store, "The disk is full") && !has_leftover(scratch) && loads(store, OLD));
  store->ops->close(store);
}

static void a_disk_that_fills_up_during_the_request_has_room_for_the_tokens(void **state)
{
  child_body *bodies[] = {save_on_a_disk_that_fills_up, save_on_a_disk_that_is_almost_full, hold_on_a_full_disk};
  for (int i = 0; i < 3; i++) {
    int status = run_child(bodies[i], *state);
    if (WIFEXITED(status) && WEXITSTATUS(status) == CANNOT_MOUNT)
      skip();
    assert_int_equal(status, 0);
  }
}

static void a_record_larger_than_any_loses_its_side_fields(void **state)
{
  struct store *store = spend(*state);
  char *large = large_record(STORE_FILE_LIMIT);
  assert_true(saves(store, large) && loads(store, ESSENTIALS));
  store->ops->close(store);
  free(large);
}

/* Where space cannot be set apart it is written. */
static void hold_without_allocation(const struct scratch *scratch)
{
  inject(SYS_fallocate, -1, 0, EOPNOTSUPP);
  struct store *store = spend(scratch);
  char *left = find_leftover(scratch);
  struct stat found;
  EXPECT(stat(left, &found) == 0 && found.st_size == 64 * 1024 && found.st_blocks * 512 >= 64 * 1024);
  free(left);
  EXPECT(ends_well(scratch, store));
}

static void space_is_taken_where_it_cannot_be_set_apart(void **state)
{
  assert_int_equal(run_child(hold_without_allocation, *state), 0);
}

/* ---- crashes ---- */

/* How a refresh ends before its time, and the things that the next owner finds. */
enum found_by { BY_BOTH, BY_LOCK_FILE, BY_MARK };

static enum found_by found_by;

static struct store *refresh_to_die(const struct scratch *scratch)
{
  struct store *store = open_in(scratch);
  char *path = scratch_path(scratch, "token.json");
  put(path, OLD, 0600);
  free(path);
  EXPECT(locks(store) && loads(store, OLD));
  const char *held = held_by(store);
  EXPECT(held && marks(store, found_by == BY_LOCK_FILE ? "" : held));
  begin_to_spend(store, HASH);
  return store;
}

static void die(void)
{
  kill(getpid(), SIGKILL);
}

static void die_behind_hold(const struct scratch *scratch)
{
  struct store *store = open_in(scratch);
  char *path = scratch_path(scratch, "token.json");
  put(path, OLD, 0600);
  EXPECT(locks(store) && loads(store, OLD) && held_by(store));
  die();
}

static void die_in_the_mark(const struct scratch *scratch)
{
  struct store *store = open_in(scratch);
  char *path = scratch_path(scratch, "token.json");
  put(path, OLD, 0600);
  EXPECT(locks(store) && loads(store, OLD) && held_by(store));
  inject(SYS_fsync, -1, 0, SUDDEN_DEATH);
  marks(store, "");
}

static void die_behind_the_mark(const struct scratch *scratch)
{
  refresh_to_die(scratch);
  die();
}

static void die_at(const struct scratch *scratch, long call)
{
  struct store *store = refresh_to_die(scratch);
  inject(call, -1, 0, SUDDEN_DEATH);
  saves(store, NEW);
}

static void die_at_write(const struct scratch *scratch)
{
  die_at(scratch, SYS_pwrite64);
}

/* Then NULs stand behind the record. */
static void die_at_truncation(const struct scratch *scratch)
{
  die_at(scratch, SYS_ftruncate);
}

static void die_at_sync(const struct scratch *scratch)
{
  die_at(scratch, SYS_fsync);
}

static void die_at_rename(const struct scratch *scratch)
{
#ifdef SYS_renameat
  die_at(scratch, SYS_renameat);
#else
  die_at(scratch, SYS_renameat2);
#endif
}

static void what_a_crash_leaves_is_found(void **state)
{
  static const struct {
    child_body *body;
    const char *then; /* NULL: the mark */
  } deaths[] = {
      {die_behind_hold, OLD},   {die_behind_the_mark, NULL}, {die_at_write, NULL},
      {die_at_truncation, NEW}, {die_at_sync, NEW},          {die_at_rename, NEW},
  };
  const struct scratch *scratch = *state;
  char *lock = scratch_path(scratch, "token.json.lock"), mark[300];
  for (found_by = BY_BOTH; found_by <= BY_MARK; found_by++)
    for (size_t i = found_by == BY_MARK; i < sizeof deaths / sizeof *deaths; i++) {
      assert_true(WIFSIGNALED(run_child(deaths[i].body, scratch)));
      char *left = find_leftover(scratch);
      assert_non_null(left);
      mark_text(mark, found_by == BY_LOCK_FILE ? "" : strrchr(left, '-') + 1);
      if (found_by == BY_MARK)
        assert_int_equal(unlink(lock), 0);
      assert_true(is_settled(scratch, deaths[i].then ? deaths[i].then : mark));
      free(left);
    }
  free(lock);
}

static void a_crash_in_the_mark_leaves_nothing_for_ever(void **state)
{
  char mark[300];
  mark_text(mark, "");
  assert_true(WIFSIGNALED(run_child(die_in_the_mark, *state)));
  assert_true(is_settled(*state, mark));
}
#endif

/* ---- other writers at the moment of a mark's rename ---- */

static const char THIRD[] = "{\"access_token\":\"third-access\",\"refresh_token\":\"third-refresh\"}";
static const char FOURTH[] = "{\"access_token\":\"fourth-access\",\"refresh_token\":\"fourth-refresh\"}";

/* Locked, about to set a mark, with what `meddles` then. */
static struct store *about_to_mark(const struct scratch *scratch, const char *present, struct meddler meddles)
{
  static char path[300];
  struct store *store = open_in(scratch);
  snprintf(path, sizeof path, "%s/token.json", scratch->folder);
  if (present)
    put(path, present, 0600);
  EXPECT(locks(store));
  if (present)
    EXPECT(loads(store, present));
  else
    EXPECT(has_no_record(store));
  EXPECT(held_by(store));
  meddler = meddles;
  meddler.path = path;
  return store;
}

static void a_record_that_comes_just_before_the_mark_stays(void **state)
{
  static const struct {
    const char *present, *records[3], *stays;
  } cases[] = {
      {OLD, {NEW}, NEW},
      {OLD, {NEW, THIRD}, THIRD},
      {OLD, {NEW, THIRD, FOURTH}, FOURTH},
      {OLD, {NEW, NULL, THIRD}, NEW},
      {NULL, {NEW}, NEW},
  };
  const struct scratch *scratch = *state;
  char *path = scratch_path(scratch, "token.json"), mark[300];
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct meddler meddles = {.records = {cases[i].records[0], cases[i].records[1], cases[i].records[2]}};
    struct store *store = about_to_mark(scratch, cases[i].present, meddles);
    struct store_error error;
    mark_text(mark, held_by(store));
    assert_int_equal(store->ops->save_mark(store, mark, &error), STORE_CHANGED);
    meddler = (struct meddler){0};
    assert_true(loads(store, cases[i].stays));
    store->ops->unlock(store);
    assert_false(has_leftover(scratch));
    store->ops->close(store);
    assert_true(is_settled(scratch, cases[i].stays));
    assert_int_equal(unlink(path), 0);
  }
  free(path);
}

#if defined(__linux__)
static int dies_at;

static void die_with_another_record_in_hand(const struct scratch *scratch)
{
  struct store *store = about_to_mark(scratch, OLD, (struct meddler){.records = {NEW}, .dies_at = dies_at});
  (void)marks(store, "");
}

static void die_with_the_old_record_in_hand(const struct scratch *scratch)
{
  struct store *store = about_to_mark(scratch, OLD, (struct meddler){0});
  inject(SYS_unlinkat, -1, 0, SUDDEN_DEATH);
  (void)marks(store, "");
}

static void a_crash_between_two_exchanges_loses_nothing(void **state)
{
  dies_at = 1;
  assert_true(WIFSIGNALED(run_child(die_with_another_record_in_hand, *state)));
  assert_true(is_settled(*state, NEW));
}

/* Nothing was sent yet. */
static void a_crash_behind_an_exchange_leaves_the_record(void **state)
{
  assert_true(WIFSIGNALED(run_child(die_with_the_old_record_in_hand, *state)));
  assert_true(is_settled(*state, OLD));
}

static void refuse_the_mark(const struct scratch *scratch)
{
  struct store *store = about_to_mark(scratch, OLD, (struct meddler){0});
  struct store_error error;
  inject(SYS_unlinkat, -1, 0, EIO);
  EXPECT(store->ops->save_mark(store, NEW, &error) == STORE_FAILED && error.code == CODE_STORAGE);
  store->ops->close(store);
}

/* It would pass for the record after a crash. */
static void an_old_record_that_cannot_be_removed_allows_no_request(void **state)
{
  assert_int_equal(run_child(refuse_the_mark, *state), 0);
}
#endif

static void a_system_without_exchange_renames(void **state)
{
  exchanges = false;
  struct store *store = spend(*state);
  exchanges = true;
  assert_true(ends_well(*state, store));
}

/* Under a lock file that was removed. */
static void what_a_living_owner_holds_is_left_alone(void **state)
{
  const struct scratch *scratch = *state;
  char *lock = scratch_path(scratch, "token.json.lock"), mark[300];
  struct store *owner = spend(scratch), *other = open_in(scratch);
  mark_text(mark, held_by(owner));
  assert_int_equal(unlink(lock), 0);
  assert_true(locks(other) && loads(other, mark) && has_leftover(scratch));
  assert_false(owner->ops->excludes_others(owner));
  assert_true(other->ops->excludes_others(other));
  assert_string_not_equal(owner->ops->lock_identity(owner), other->ops->lock_identity(other));
  assert_true(saves(owner, NEW));
  assert_true(loads(other, NEW));
  owner->ops->close(owner);
  other->ops->close(other);
  free(lock);
}

static void what_it_leaves_when_it_ends_is_adopted_then(void **state)
{
  const struct scratch *scratch = *state;
  char *lock = scratch_path(scratch, "token.json.lock"), mark[300];
  struct store_error error;
  struct store *owner = spend(scratch), *other = open_in(scratch);
  mark_text(mark, held_by(owner));
  assert_int_equal(unlink(lock), 0);
  assert_true(locks(other) && loads(other, mark));
  failing_syncs = 1;
  assert_int_equal(owner->ops->save(owner, NEW, &error), STORE_FAILED);
  assert_true(loads(other, mark));
  owner->ops->close(owner);
  assert_true(loads(other, NEW) && !has_leftover(scratch));
  other->ops->close(other);
  free(lock);
}

static void nuls_behind_a_record_are_read_past(void **state)
{
  struct store *store = open_in(*state);
  struct store_error error;
  char *path = scratch_path(*state, "token.json"), bytes[200] = "", *record;
  memcpy(bytes, OLD, sizeof OLD);
  put_bytes(path, bytes, sizeof bytes, 0600);
  assert_true(loads(store, OLD));
  assert_true(locks(store) && saves(store, NEW) && loads(store, NEW));
  memset(bytes, 0, sizeof bytes);
  put_bytes(path, bytes, sizeof bytes, 0600);
  assert_int_equal(store->ops->load(store, &record, &error), STORE_FAILED);
  store->ops->close(store);
  free(path);
}

/* Under a name that can be guessed, and so a trap. */
static void a_link_to_another_file_of_ours_is_not_adopted(void **state)
{
  char *path = scratch_path(*state, "token.json"), *other = scratch_path(*state, "other.json");
  char *former = scratch_path(*state, "token.json.tmp");
  put(path, OLD, 0600);
  put(other, NEW, 0600);
  assert_int_equal(link(other, former), 0);
  assert_true(is_settled(*state, OLD));
  assert_true(holds(other, NEW));
  free(path);
  free(other);
  free(former);
}

static void a_name_in_a_mark_leads_nowhere_else(void **state)
{
  static const char *const names[] = {"../elsewhere",
                                      "",
                                      "x",
                                      "0123456789abcdef01234567",
                                      "0123456789ABCDEF01234567",
                                      "0123456789abcdef0123456789abcdef"};
  char *path = scratch_path(*state, "token.json"), text[300];
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    mark_text(text, names[i]);
    put(path, text, 0600);
    assert_true(is_settled(*state, text));
  }
  free(path);
}

/* ---- descriptors that the program closes ---- */

/* Files of the program's own get their numbers. */
static void close_and_reuse(int from, int to)
{
  for (int fd = from; fd < to; fd++)
    close(fd);
  for (int fd = from; fd < to; fd++)
    EXPECT(__real_open("/dev/null", O_RDWR | O_CLOEXEC) == fd);
}

static void save_without_our_descriptors(const struct scratch *scratch)
{
  int from = __real_open("/dev/null", O_RDONLY);
  close(from);
  struct store *store = spend(scratch);
  struct store_error error;
  close_and_reuse(from, from + 3);
  EXPECT(!store->ops->excludes_others(store));
  EXPECT(store->ops->save_mark(store, OLD, &error) == STORE_FAILED && strstr(error.message, "not locked any more"));
  EXPECT(saves(store, NEW) && loads(store, NEW));
  EXPECT(store->ops->save(store, OLD, &error) == STORE_FAILED && strstr(error.message, "not locked any more"));
  store->ops->unlock(store);
  EXPECT(locks(store) && saves(store, NEW));
  store->ops->close(store);
  for (int fd = from; fd < from + 3; fd++)
    EXPECT(fcntl(fd, F_GETFD) == FD_CLOEXEC);
}

static void descriptors_that_the_program_closed_are_not_used_any_more(void **state)
{
  assert_int_equal(run_child(save_without_our_descriptors, *state), 0);
  assert_true(is_settled(*state, NEW));
}

/* ---- what was spent and rejected ---- */

static void hash_number(char hash[65], int number)
{
  snprintf(hash, 65, "%064x", number);
}

static void the_hashes_of_what_was_spent_outlive_the_record(void **state)
{
  const struct scratch *scratch = *state;
  char *path = scratch_path(scratch, "token.json"), *lock = scratch_path(scratch, "token.json.lock");
  struct stat before, after;
  struct store *store = spend(scratch), *other = open_in(scratch);
  struct store_error error;
  char *record, oldest[65], newest[65], both[130];
  assert_string_equal(store->ops->spent(store), HASH);
  begin_to_spend(store, HASH);
  assert_string_equal(other->ops->spent(other), HASH);
  /* what the load has met with it, and from then on what is there */
  assert_int_equal(other->ops->load(other, &record, &error), STORE_OK);
  secret_free(record);
  hash_number(newest, 1);
  store->ops->spend(store, newest);
  assert_string_equal(other->ops->spent(other), HASH);
  snprintf(both, sizeof both, "%s %s", HASH, newest);
  assert_string_equal(other->ops->spent(other), both);
  assert_string_equal(store->ops->spent(store), both);
  assert_int_equal(stat(lock, &before), 0);
  store->ops->close(store);
  assert_int_equal(unlink(path), 0);
  assert_true(locks(other));
  for (int i = 0; i < 200; i++) {
    char hash[65];
    hash_number(hash, i);
    begin_to_spend(other, hash);
    begin_to_spend(other, hash);
  }
  const char *spent = other->ops->spent(other);
  hash_number(oldest, 136);
  hash_number(newest, 199);
  assert_int_equal(strlen(spent), 64 * 65 - 1);
  assert_memory_equal(spent, oldest, 64);
  assert_string_equal(spent + 63 * 65, newest);
  assert_int_equal(stat(lock, &after), 0);
  assert_int_equal(before.st_size, after.st_size);
  other->ops->close(other);
  free(path);
  free(lock);
}

/* Cut, overwritten, or torn: what is left is still told, and nothing else. */
static void garbage_in_the_lock_file_is_no_hash(void **state)
{
  const struct scratch *scratch = *state;
  char *lock = scratch_path(scratch, "token.json.lock"), hash[65], noise[1000];
  struct store *store = spend(scratch);
  for (int i = 1; i < 40; i++) {
    hash_number(hash, i);
    begin_to_spend(store, hash);
  }
  store->ops->unlock(store);
  memset(noise, 0x5a, sizeof noise);
  int fd = __real_open(lock, O_WRONLY | O_CLOEXEC);
  assert_int_equal(pwrite(fd, noise, sizeof noise, 100), sizeof noise);
  const char *spent = store->ops->spent(store);
  assert_non_null(spent);
  assert_int_equal((strlen(spent) + 1) % 65, 0);
  for (const char *next = spent; *next; next += next[64] ? 65 : 64)
    assert_memory_equal(next, "00000000000000000000000000000000000000000000000000000000000000", 62);
  assert_true(locks(store)); /* names there are as little trusted */
  hash_number(hash, 41);
  begin_to_spend(store, hash);
  assert_non_null(strstr(store->ops->spent(store), hash));
  store->ops->unlock(store);
  assert_int_equal(ftruncate(fd, 0), 0);
  close(fd);
  assert_null(store->ops->spent(store));
  store->ops->close(store);
  free(lock);
}

static void another_program_s_lock_file_takes_no_hashes(void **state)
{
  char *lock = scratch_path(*state, "token.json.lock");
  put(lock, "4711\n", 0600);
  struct store *store = spend(*state);
  assert_null(store->ops->spent(store));
  assert_true(ends_well(*state, store));
  assert_true(holds(lock, "4711\n"));
  free(lock);
}

static bool knows(struct store *store, uint64_t fingerprint)
{
  uint64_t known[STORE_REJECTED];
  store->ops->rejected(store, known);
  for (int i = 0; i < STORE_REJECTED; i++)
    if (known[i] == fingerprint)
      return true;
  return false;
}

static uint64_t generation(const struct store *store)
{
  return atomic_load(store->generation);
}

static struct store *sharing(const struct scratch *scratch)
{
  struct store *store = open_in(scratch);
  char *path = scratch_path(scratch, "token.json");
  put(path, OLD, 0600);
  EXPECT(loads(store, OLD) && store->shared);
  free(path);
  return store;
}

static void a_rejected_token_is_known_to_all_at_once(void **state)
{
  struct store *one = sharing(*state), *other = sharing(*state);
  uint64_t before = generation(other);
  assert_false(knows(other, 0x1234567890abcdef));
  one->ops->reject(one, 0x1234567890abcdef);
  assert_true(knows(other, 0x1234567890abcdef));
  uint64_t then = generation(other);
  assert_true(then > before && then % 2 == 0);
  one->ops->reject(one, 0x1234567890abcdef); /* once is enough */
  other->ops->reject(other, 0x1234567890abcdef);
  assert_int_equal(generation(other), then);
  for (uint64_t i = 1; i <= STORE_REJECTED; i++)
    one->ops->reject(one, i);
  assert_false(knows(other, 0x1234567890abcdef));
  for (uint64_t i = 1; i <= STORE_REJECTED; i++)
    assert_true(knows(other, i));
  one->ops->close(one);
  other->ops->close(other);
}

static void a_token_that_is_rejected_in_a_refresh_is_announced_with_its_end(void **state)
{
  struct store *one = sharing(*state), *other = sharing(*state);
  assert_true(locks(one));
  begin_to_spend(one, HASH);
  uint64_t during = generation(one);
  other->ops->reject(other, 7);
  assert_true(knows(one, 7));
  assert_int_equal(generation(one), during);
  one->ops->unlock(one);
  assert_int_equal(generation(other), during + 1);
  one->ops->close(one);
  other->ops->close(other);
}

static void what_was_rejected_before_the_page_was_there_is_told_then(void **state)
{
  struct store *one = open_in(*state), *other = sharing(*state);
  one->ops->reject(one, 9);
  assert_true(knows(one, 9) && !knows(other, 9));
  assert_true(loads(one, OLD));
  assert_true(knows(one, 9) && knows(other, 9));
  char *lock = scratch_path(*state, "token.json.lock");
  assert_int_equal(unlink(lock), 0);
  assert_true(loads(one, OLD) && loads(other, OLD));
  assert_true(knows(one, 9) && knows(other, 9));
  one->ops->close(one);
  other->ops->close(other);
  free(lock);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      SPEC(a_save_of_what_is_held_only_writes_and_renames),
      SPEC(descriptors_may_run_out_during_the_request),
      SPEC(a_save_that_failed_is_tried_again_with_what_is_held),
      SPEC(what_is_held_is_held_once_and_given_back),
      SPEC(a_child_leaves_what_its_parent_holds),
      SPEC(another_user_of_a_sticky_folder_can_spoil_nothing),
      SPEC(a_lock_file_of_another_user_is_named),
      SPEC(a_folder_in_which_everybody_may_write_is_refused),
      SPEC(a_folder_in_which_a_group_may_write_is_told_once),
      SPEC(what_is_taken_away_is_made_anew),
      SPEC(a_folder_that_is_moved_gets_the_tokens),
      SPEC(tokens_are_saved_along_the_path_where_the_folder_is_gone),
      SPEC(a_record_that_comes_just_before_the_mark_stays),
      SPEC(a_system_without_exchange_renames),
      SPEC(what_a_living_owner_holds_is_left_alone),
      SPEC(what_it_leaves_when_it_ends_is_adopted_then),
      SPEC(nuls_behind_a_record_are_read_past),
      SPEC(a_link_to_another_file_of_ours_is_not_adopted),
      SPEC(a_name_in_a_mark_leads_nowhere_else),
      SPEC(descriptors_that_the_program_closed_are_not_used_any_more),
      SPEC(the_hashes_of_what_was_spent_outlive_the_record),
      SPEC(garbage_in_the_lock_file_is_no_hash),
      SPEC(another_program_s_lock_file_takes_no_hashes),
      SPEC(a_rejected_token_is_known_to_all_at_once),
      SPEC(a_token_that_is_rejected_in_a_refresh_is_announced_with_its_end),
      SPEC(what_was_rejected_before_the_page_was_there_is_told_then),
  };
  int failed = cmocka_run_group_tests_name("what is held", tests, NULL, NULL);
#if defined(__linux__)
  const struct CMUnitTest on_linux[] = {
      SPEC(a_disk_that_fills_up_during_the_request_has_room_for_the_tokens),
      SPEC(a_record_larger_than_any_loses_its_side_fields),
      SPEC(space_is_taken_where_it_cannot_be_set_apart),
      SPEC(what_a_crash_leaves_is_found),
      SPEC(a_crash_in_the_mark_leaves_nothing_for_ever),
      SPEC(a_crash_between_two_exchanges_loses_nothing),
      SPEC(a_crash_behind_an_exchange_leaves_the_record),
      SPEC(an_old_record_that_cannot_be_removed_allows_no_request),
  };
  failed += cmocka_run_group_tests_name("what is held, on Linux", on_linux, NULL, NULL);
#endif
  return failed;
}
