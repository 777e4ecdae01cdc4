/* Loading and saving: what is refused, what a failure leaves behind, where accounts lie. */
#define _GNU_SOURCE
#include "../../src/store/file.h"

#include "../../src/base/secret.h"
#include "scratch.h"

#include <dirent.h>
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
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__linux__)
#include <sys/mount.h>
#include <sys/syscall.h>
#endif

static const char OLD[] = "{\"access_token\":\"old-access\",\"refresh_token\":\"old-refresh\"}";
static const char NEW[] = "{\"access_token\":\"new-access\",\"refresh_token\":\"new-refresh\"}";

static struct store *open_at(const char *path)
{
  struct store_error error;
  struct store *store = store_file(path, NULL, &error);
  if (!store)
    fprintf(stderr, "%s\n", error.message);
  return store;
}

/* A failure is of use only with a message that says where, what, and what to do, and tells no token. */
static bool is_helpful(const struct store_error *error, const char *part)
{
  size_t length = strnlen(error->message, sizeof error->message);
  bool good = error->code == CODE_STORAGE && length < sizeof error->message - 1 && strstr(error->message, part) &&
              error->message[length - 1] == '.' && !strstr(error->message, "-refresh");
  if (!good)
    fprintf(stderr, "expected \"%s\" in: %s\n", part, error->message);
  return good;
}

static bool refuses_load(struct store *store, const char *part)
{
  struct store_error error = {CODE_OK, ""};
  char *record = (char *)"";
  return store->ops->load(store, &record, &error) == STORE_FAILED && !record && is_helpful(&error, part);
}

static bool refuses_save(struct store *store, const char *part)
{
  struct store_error error = {CODE_OK, ""};
  return store->ops->save(store, NEW, &error) == STORE_FAILED && is_helpful(&error, part);
}

/* What every refused save must leave, and one that fails to write: the old record, and nothing beside it. */
static bool is_untouched(const struct scratch *scratch)
{
  char *path = scratch_path(scratch, "token.json");
  bool good = holds(path, OLD) && !has_leftover(scratch);
  free(path);
  return good;
}

static void put_old(const struct scratch *scratch)
{
  char *path = scratch_path(scratch, "token.json");
  put(path, OLD, 0600);
  free(path);
}

/* Opening. */

static void touches_nothing_when_opened(void **state)
{
  struct store *store = open_in(*state);
  assert_non_null(store);
  store->ops->close(store);
  assert_int_equal(rmdir(((struct scratch *)*state)->folder), 0);
  assert_int_equal(mkdir(((struct scratch *)*state)->folder, 0700), 0);
}

static void a_path_that_names_no_file_is_a_setting_to_correct(void **state)
{
  (void)state;
  const char *paths[] = {NULL, "", "/", "tokens/", ".", "..", "/tmp/.", "a/.."};
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    struct store_error error = {CODE_OK, ""};
    assert_null(store_file(paths[i], NULL, &error));
    assert_int_equal(error.code, CODE_CONFIG);
    assert_non_null(strstr(error.message, "give the path of a file"));
  }
  struct store_error error = {CODE_OK, ""};
  assert_null(store_directory("", NULL, "a", &error));
  assert_int_equal(error.code, CODE_CONFIG);
  error.code = CODE_OK;
  assert_null(store_directory(NULL, NULL, "a", &error));
  assert_int_equal(error.code, CODE_CONFIG);
}

static void a_relative_path_stays_where_it_was_meant(void **state)
{
  const struct scratch *scratch = *state;
  struct store_error error;
  char *path = scratch_path(scratch, "token.json"), *member = scratch_path(scratch, "tokens/anna.json");
  int here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  assert_int_equal(chdir(scratch->folder), 0);
  assert_int_equal(mkdir("tokens", 0700), 0);
  struct store *file = store_file("token.json", NULL, &error);
  struct store *dotted = store_file("./tokens/../token.json", NULL, &error);
  struct store *folder = store_directory("tokens", NULL, "anna", &error);
  assert_int_equal(fchdir(here), 0);
  close(here);

  assert_string_equal(file->name, "token.json");
  assert_string_equal(folder->name, "tokens/anna.json");
  assert_int_equal(file->ops->lock(file, &error), STORE_OK);
  assert_int_equal(dotted->ops->lock(dotted, &error), STORE_BUSY);
  assert_true(saves(file, OLD));
  assert_true(saves(folder, NEW));
  assert_true(holds(path, OLD));
  assert_true(holds(member, NEW));
  assert_true(loads(dotted, OLD));
  file->ops->close(file);
  dotted->ops->close(dotted);
  folder->ops->close(folder);
  free(path);
  free(member);
}

static void a_relative_path_starts_from_the_folder_that_is_given(void **state)
{
  const struct scratch *scratch = *state;
  struct store_error error;
  char *path = scratch_path(scratch, "token.json"), *member = scratch_path(scratch, "tokens/anna.json");
  char *folder = scratch_path(scratch, "tokens");
  assert_int_equal(mkdir(folder, 0700), 0);
  struct store *file = store_file("./token.json", scratch->folder, &error);
  struct store *account = store_directory("tokens", scratch->folder, "anna", &error);
  struct store *whole = store_file(path, "/nowhere", &error);
  assert_string_equal(file->name, "./token.json");
  assert_true(saves(file, OLD) && saves(account, NEW));
  assert_true(holds(path, OLD) && holds(member, NEW));
  assert_true(loads(whole, OLD));
  file->ops->close(file);
  account->ops->close(account);
  whole->ops->close(whole);
  free(path);
  free(member);
  free(folder);
}

static void open_from_a_lost_folder(const struct scratch *scratch)
{
  char *path = scratch_path(scratch, "gone");
  EXPECT(mkdir(path, 0700) == 0 && chdir(path) == 0 && rmdir(path) == 0);
  struct store_error error = {CODE_OK, ""};
  struct store *store = store_file("token.json", NULL, &error);
  if (store) {
    EXPECT(refuses_save(store, "folder does not exist"));
    store->ops->close(store);
  } else {
    EXPECT(is_helpful(&error, "token.json"));
  }
  free(path);
}

static void a_present_folder_that_is_gone_is_reported(void **state)
{
  assert_int_equal(run_child(open_from_a_lost_folder, *state), 0);
}

/* Loading. */

static void no_file_is_no_record(void **state)
{
  const struct scratch *scratch = *state;
  struct store_error error;
  char *record = (char *)"", *path = scratch_path(scratch, "nowhere/token.json");
  struct store *store = open_in(scratch), *lost = open_at(path);
  assert_true(store->ops->changed(store));
  assert_int_equal(store->ops->load(store, &record, &error), STORE_NONE);
  assert_null(record);
  assert_false(store->ops->changed(store));
  assert_int_equal(lost->ops->load(lost, &record, &error), STORE_NONE);
  store->ops->close(store);
  lost->ops->close(lost);
  free(path);
}

static void loads_the_text_as_it_stands(void **state)
{
  const char *texts[] = {"", OLD, "not JSON at all", "\xEF\xBB\xBF{}\r\n \xFF"};
  struct store *store = open_in(*state);
  char *path = scratch_path(*state, "token.json");
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    put(path, texts[i], 0600);
    assert_true(loads(store, texts[i]));
  }
  assert_false(store->repaired);
  store->ops->close(store);
  free(path);
}

static void takes_a_record_of_just_the_limit(void **state)
{
  struct store *store = open_in(*state);
  char *path = scratch_path(*state, "token.json");
  char *text = malloc(STORE_FILE_LIMIT + 2);
  assert_non_null(text);
  memset(text, ' ', STORE_FILE_LIMIT + 1);
  text[STORE_FILE_LIMIT + 1] = '\0';
  struct store_error error = {CODE_OK, ""};
  assert_int_equal(store->ops->save(store, text, &error), STORE_FAILED);
  assert_true(is_helpful(&error, "2 MiB"));
  assert_false(is_there(path));
  text[STORE_FILE_LIMIT] = '\0';
  assert_true(saves(store, text));
  assert_true(loads(store, text));
  text[STORE_FILE_LIMIT] = ' ';
  put(path, text, 0600);
  assert_true(refuses_load(store, "larger than 2 MiB"));
  assert_true(refuses_save(store, "larger than 2 MiB"));
  assert_true(holds(path, text));
  free(text);
  store->ops->close(store);
  free(path);
}

static void a_nul_byte_makes_it_no_record(void **state)
{
  struct store *store = open_in(*state);
  char *path = scratch_path(*state, "token.json");
  const char bytes[] = "{\"a\":\"\0\"}";
  put_bytes(path, bytes, sizeof bytes - 1, 0600);
  assert_true(refuses_load(store, "not a token record"));
  assert_true(refuses_save(store, "not a token record"));
  struct stat found;
  assert_int_equal(stat(path, &found), 0);
  assert_int_equal(found.st_size, sizeof bytes - 1);
  store->ops->close(store);
  free(path);
}

static void refuses_both(struct store *store, const char *part)
{
  assert_true(refuses_load(store, part));
  assert_true(refuses_save(store, part));
  assert_true(store->ops->changed(store));
}

static void links_are_not_followed(void **state)
{
  struct store *store = open_in(*state);
  char *path = scratch_path(*state, "token.json"), *target = scratch_path(*state, "elsewhere.json");
  assert_int_equal(symlink(target, path), 0);
  refuses_both(store, "symbolic link");
  assert_false(is_there(target));
  put(target, OLD, 0600);
  refuses_both(store, "symbolic link");
  assert_true(holds(target, OLD));
  char kept[512] = "";
  assert_true(readlink(path, kept, sizeof kept - 1) > 0);
  assert_string_equal(kept, target);
  store->ops->close(store);
  free(path);
  free(target);
}

static void pipes_sockets_and_folders_are_no_records(void **state)
{
  struct store *store = open_in(*state);
  char *path = scratch_path(*state, "token.json");
  assert_int_equal(mkfifo(path, 0600), 0);
  refuses_both(store, "pipe");
  assert_int_equal(unlink(path), 0);

  assert_int_equal(mkdir(path, 0700), 0);
  refuses_both(store, "folder");
  assert_int_equal(rmdir(path), 0);

  struct sockaddr_un address = {.sun_family = AF_UNIX};
  assert_true(strlen(path) < sizeof address.sun_path);
  memcpy(address.sun_path, path, strlen(path) + 1);
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
  refuses_both(store, "socket");
  close(fd);
  store->ops->close(store);
  free(path);
}

static void another_users_file_is_not_trusted(void **state)
{
  if (geteuid() != 0) { /* a file that surely belongs to somebody else */
    struct store *passwords = open_at("/etc/passwd");
    assert_true(refuses_load(passwords, "belongs to user 0"));
    passwords->ops->close(passwords);
    return;
  }
  struct store *store = open_in(*state);
  char *path = scratch_path(*state, "token.json");
  put(path, OLD, 0600);
  assert_int_equal(chown(path, NOBODY, NOBODY), 0);
  refuses_both(store, "belongs to user 65534");
  assert_true(holds(path, OLD));
  store->ops->close(store);
  free(path);
}

static void a_mode_that_lets_others_in_is_mended(void **state)
{
  struct store *store = open_in(*state);
  char *path = scratch_path(*state, "token.json");
  const mode_t modes[] = {0644, 0660, 0604, 0601, 0622, 04755};
  for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
    put(path, OLD, modes[i]);
    store->repaired = false;
    assert_true(loads(store, OLD));
    assert_true(store->repaired);
    assert_int_equal(mode_of(path), 0600);
    store->repaired = false;
    assert_true(loads(store, OLD));
    assert_false(store->repaired);
  }
  put(path, OLD, 0400);
  assert_true(loads(store, OLD));
  assert_false(store->repaired);
  store->ops->close(store);
  free(path);
}

static void load_without_permission(const struct scratch *scratch)
{
  struct store *store = open_in(scratch);
  char *path = scratch_path(scratch, "token.json");
  put(path, OLD, 0200);
  EXPECT(refuses_load(store, strerror(EACCES)));
  EXPECT(refuses_load(store, "Let this program's user read and write"));
  EXPECT(refuses_save(store, strerror(EACCES)));
  EXPECT(chmod(path, 0600) == 0 && is_untouched(scratch));
  EXPECT(chmod(scratch->folder, 0600) == 0);
  EXPECT(refuses_load(store, strerror(EACCES)));
  EXPECT(refuses_save(store, strerror(EACCES)));
  EXPECT(chmod(scratch->folder, 0700) == 0);
  store->ops->close(store);
  free(path);
}

static void a_file_that_may_not_be_read_is_reported(void **state)
{
  assert_int_equal(run_as_user(load_without_permission, *state), 0);
  assert_true(is_untouched(*state));
}

/* Saving. */

static void saves_a_file_of_its_own_user_alone(void **state)
{
  struct store *store = open_in(*state);
  char *path = scratch_path(*state, "token.json");
  const mode_t masks[] = {0, 022, 0277, 0777};
  for (size_t i = 0; i < sizeof masks / sizeof *masks; i++) {
    mode_t before = umask(masks[i]);
    bool saved = saves(store, i % 2 ? OLD : NEW);
    umask(before);
    assert_true(saved);
    assert_int_equal(mode_of(path), 0600);
    assert_true(holds(path, i % 2 ? OLD : NEW));
    assert_false(has_leftover(*state));
  }
  store->ops->close(store);
  free(path);
}

static void a_reader_keeps_the_old_record_whole(void **state)
{
  struct store *store = open_in(*state);
  char *path = scratch_path(*state, "token.json"), text[sizeof OLD] = "";
  assert_true(saves(store, OLD));
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  assert_true(saves(store, "{}"));
  assert_int_equal(read(fd, text, sizeof OLD), sizeof OLD - 1);
  assert_memory_equal(text, OLD, sizeof OLD - 1);
  close(fd);
  store->ops->close(store);
  free(path);
}

static void sees_what_others_write(void **state)
{
  const struct scratch *scratch = *state;
  struct store *one = open_in(scratch), *other = open_in(scratch);
  char *path = scratch_path(scratch, "token.json");
  assert_true(one->ops->changed(one));
  assert_true(saves(one, OLD));
  assert_false(one->ops->changed(one));
  assert_true(other->ops->changed(other));
  assert_true(loads(other, OLD));
  assert_false(other->ops->changed(other));

  assert_true(saves(other, NEW));
  assert_false(other->ops->changed(other));
  assert_true(one->ops->changed(one));
  assert_true(one->ops->changed(one));
  assert_true(loads(one, NEW));
  assert_false(one->ops->changed(one));

  put(path, "{}", 0600); /* in place, as a script does */
  assert_true(one->ops->changed(one));
  assert_true(loads(one, "{}"));
  date(path, -5); /* another time alone */
  assert_true(one->ops->changed(one));
  assert_true(loads(one, "{}"));
  assert_int_equal(unlink(path), 0);
  assert_true(one->ops->changed(one));
  one->ops->close(one);
  other->ops->close(other);
  free(path);
}

/* A program that takes no lock, such as a login by hand. */
static void what_another_wrote_since_is_not_replaced(void **state)
{
  const struct scratch *scratch = *state;
  struct store *store = open_in(*state);
  struct store_error error;
  char *record;
  assert_int_equal(store->ops->lock(store, &error), STORE_OK);
  assert_int_equal(store->ops->load(store, &record, &error), STORE_NONE);
  put_old(scratch);
  assert_int_equal(store->ops->save(store, NEW, &error), STORE_CHANGED);
  assert_true(is_untouched(scratch));
  assert_int_equal(store->ops->load(store, &record, &error), STORE_OK);
  assert_string_equal(record, OLD);
  secret_free(record);
  assert_int_equal(store->ops->save(store, NEW, &error), STORE_OK);
  store->ops->close(store);
}

static void set_time(const char *path, time_t seconds, long nanoseconds)
{
  struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = seconds, .tv_nsec = nanoseconds}};
  assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void one_difference_is_a_change(void **state)
{
  enum { THEN = 1700000000 };
  struct store *store = open_in(*state);
  char *path = scratch_path(*state, "token.json"), *other = scratch_path(*state, "other.json");
  put(path, OLD, 0600);
  set_time(path, THEN, 2000);
  assert_true(loads(store, OLD));
  set_time(path, THEN, 2000);
  assert_false(store->ops->changed(store));

  set_time(path, THEN, 3000);
  assert_true(store->ops->changed(store));
  set_time(path, THEN + 1, 2000);
  assert_true(store->ops->changed(store));
  set_time(path, THEN, 2000);
  assert_false(store->ops->changed(store));

  put(path, "{}", 0600); /* another size */
  set_time(path, THEN, 2000);
  assert_true(store->ops->changed(store));

  put(other, "[]", 0600); /* another file */
  set_time(other, THEN, 2000);
  assert_true(loads(store, "{}"));
  assert_int_equal(rename(other, path), 0);
  assert_true(store->ops->changed(store));
  store->ops->close(store);
  free(path);
  free(other);
}

static void a_missing_folder_is_named_when_saving_or_locking(void **state)
{
  struct store_error error;
  char *path = scratch_path(*state, "nowhere/token.json"), *folder = scratch_path(*state, "nowhere");
  struct store *store = open_at(path);
  assert_true(refuses_save(store, "folder does not exist"));
  assert_true(refuses_save(store, folder));
  assert_int_equal(store->ops->lock(store, &error), STORE_FAILED);
  assert_true(is_helpful(&error, "folder does not exist"));
  assert_int_equal(mkdir(folder, 0700), 0);
  assert_int_equal(store->ops->lock(store, &error), STORE_OK);
  assert_true(saves(store, NEW));
  store->ops->close(store);
  free(path);
  free(folder);
}

static void a_path_through_a_file_is_reported(void **state)
{
  put_old(*state);
  char *path = scratch_path(*state, "token.json/inner.json");
  struct store *store = open_at(path);
  assert_true(refuses_load(store, "not a folder"));
  assert_true(refuses_save(store, "not a folder"));
  store->ops->close(store);
  free(path);
  assert_true(is_untouched(*state));
}

static void a_long_path_leaves_room_for_the_advice(void **state)
{
  char name[1001];
  memset(name, 'n', 1000);
  for (size_t i = 0; i < 1000; i += 100)
    name[i] = '/';
  name[1000] = '\0';
  char *path = scratch_path(*state, name);
  struct store *store = open_at(path);
  assert_true(refuses_save(store, "folder does not exist"));
  store->ops->close(store);
  free(path);

  memset(name, 'n', 300);
  name[300] = '\0';
  path = scratch_path(*state, name);
  store = open_at(path);
  assert_true(refuses_save(store, "Choose a shorter name"));
  assert_true(refuses_save(store, " ...n"));
  store->ops->close(store);
  free(path);
}

static void a_path_cannot_forge_lines(void **state)
{
  char *path = scratch_path(*state, "no\n\x1b[31mwhere/token.json");
  struct store *store = open_at(path);
  struct store_error error;
  assert_true(refuses_save(store, "/no\\n\\x1b[31mwhere"));
  assert_int_equal(store->ops->lock(store, &error), STORE_FAILED);
  assert_null(strpbrk(error.message, "\n\x1b"));
  store->ops->close(store);
  assert_null(store_file("a\nb/", NULL, &error));
  assert_null(strchr(error.message, '\n'));
  free(path);
}

static void save_into_a_read_only_folder(const struct scratch *scratch)
{
  struct store_error error = {CODE_OK, ""};
  struct store *store = open_in(scratch);
  EXPECT(chmod(scratch->folder, 0500) == 0);
  EXPECT(refuses_save(store, strerror(EACCES)));
  EXPECT(store->ops->lock(store, &error) == STORE_FAILED && is_helpful(&error, strerror(EACCES)));
  EXPECT(chmod(scratch->folder, 0700) == 0 && saves(store, OLD) && chmod(scratch->folder, 0500) == 0);
  EXPECT(refuses_save(store, strerror(EACCES)));
  EXPECT(loads(store, OLD));
  EXPECT(chmod(scratch->folder, 0300) == 0);
  EXPECT(refuses_save(store, "open the folder"));
  EXPECT(chmod(scratch->folder, 0700) == 0);
  store->ops->close(store);
}

static void a_read_only_folder_is_reported(void **state)
{
  assert_int_equal(run_as_user(save_into_a_read_only_folder, *state), 0);
  assert_true(is_untouched(*state));
}

static void save_at_the_root(const struct scratch *scratch)
{
  (void)scratch;
  struct store *store = open_at("/lucidauth-token.json");
  EXPECT(refuses_save(store, "cannot create"));
  store->ops->close(store);
}

static void the_root_is_a_folder_too(void **state)
{
  assert_int_equal(run_as_user(save_at_the_root, *state), 0);
}

static bool is_blocked(int number)
{
  sigset_t mask;
  return pthread_sigmask(SIG_SETMASK, NULL, &mask) == 0 && sigismember(&mask, number) == 1;
}

static bool is_pending(int number)
{
  sigset_t pending;
  return sigpending(&pending) == 0 && sigismember(&pending, number) == 1;
}

/* The system also sends a signal, which ends programs that expect none. */
static void save_past_the_size_limit(const struct scratch *scratch)
{
  struct rlimit limit = {20, 20};
  struct store_error error = {CODE_OK, ""};
  EXPECT(signal(SIGXFSZ, SIG_DFL) != SIG_ERR && setrlimit(RLIMIT_FSIZE, &limit) == 0);
  struct store *store = open_in(scratch);
  EXPECT(store->ops->lock(store, &error) == STORE_OK);
  EXPECT(refuses_save(store, "file size limit"));
  EXPECT(!is_blocked(SIGXFSZ) && !is_pending(SIGXFSZ));
  EXPECT(is_untouched(scratch) && loads(store, OLD));
  store->ops->close(store);
}

/* One that was there before is still to come. */
static void save_past_the_size_limit_with_the_signal_blocked(const struct scratch *scratch)
{
  struct rlimit limit = {20, 20};
  sigset_t only;
  sigemptyset(&only);
  sigaddset(&only, SIGXFSZ);
  EXPECT(pthread_sigmask(SIG_BLOCK, &only, NULL) == 0 && setrlimit(RLIMIT_FSIZE, &limit) == 0);
  struct store *store = open_in(scratch);
  EXPECT(refuses_save(store, "file size limit"));
  EXPECT(is_blocked(SIGXFSZ) && !is_pending(SIGXFSZ));
  raise(SIGXFSZ);
  EXPECT(refuses_save(store, "file size limit"));
  EXPECT(is_blocked(SIGXFSZ) && is_pending(SIGXFSZ));
  store->ops->close(store);
}

static void a_write_that_stops_half_way_leaves_the_old_record(void **state)
{
  put_old(*state);
  assert_int_equal(run_child(save_past_the_size_limit, *state), 0);
  assert_true(is_untouched(*state));
  assert_int_equal(run_child(save_past_the_size_limit_with_the_signal_blocked, *state), 0);
  assert_true(is_untouched(*state));
}

/* Where earlier versions wrote. */
static void what_stands_under_a_name_that_can_be_guessed_is_in_nobody_s_way(void **state)
{
  struct store *store = open_in(*state);
  char *former = scratch_path(*state, "token.json.tmp"), *target = scratch_path(*state, "target");
  put(target, OLD, 0600);
  assert_int_equal(symlink(target, former), 0);
  assert_true(saves(store, NEW));
  assert_true(holds(target, OLD));
  assert_int_equal(unlink(former), 0);
  assert_int_equal(mkdir(former, 0700), 0);
  assert_true(saves(store, OLD));
  assert_true(loads(store, OLD));
  store->ops->close(store);
  free(former);
  free(target);
}

/* What the program writes there would else end up in our files. */
static void save_without_standard_files(const struct scratch *scratch)
{
  struct store_error error;
  struct store *store = open_in(scratch);
  char noise[64];
  int errors = fcntl(2, F_DUPFD_CLOEXEC, 3);
  memset(noise, '!', sizeof noise);
  for (int fd = 0; fd < 3; fd++)
    close(fd);
  bool locked = store->ops->lock(store, &error) == STORE_OK;
  bool hit =
      write(0, noise, sizeof noise) > 0 || write(1, noise, sizeof noise) > 0 || write(2, noise, sizeof noise) > 0;
  bool saved = store->ops->save(store, OLD, &error) == STORE_OK;
  for (int fd = 0; fd < 3; fd++)
    dup2(errors, fd);
  close(errors);
  EXPECT(locked && saved && !hit);
  EXPECT(loads(store, OLD) && store->shared);
  store->ops->close(store);
}

static void a_standard_file_that_is_closed_is_not_replaced(void **state)
{
  assert_int_equal(run_child(save_without_standard_files, *state), 0);
}

static void failures_leak_no_descriptor(void **state)
{
  int before = open_descriptors();
  links_are_not_followed(state);
  char *path = scratch_path(*state, "token.json");
  assert_int_equal(unlink(path), 0);
  pipes_sockets_and_folders_are_no_records(state);
  assert_int_equal(unlink(path), 0);
  a_nul_byte_makes_it_no_record(state);
  assert_int_equal(unlink(path), 0);
  what_stands_under_a_name_that_can_be_guessed_is_in_nobody_s_way(state);
  assert_int_equal(open_descriptors(), before);
  free(path);
}

#if defined(__linux__)
/* A disk that is full, one that is read-only, and system calls that fail. */

enum { CANNOT_MOUNT = 77 };

static void save_on_a_full_disk(const struct scratch *scratch)
{
  if (!mount_small(scratch->folder, "16k"))
    _exit(CANNOT_MOUNT);
  struct store_error error;
  struct store *store = open_in(scratch);
  EXPECT(store->ops->lock(store, &error) == STORE_OK && saves(store, OLD));
  char *filler = scratch_path(scratch, "filler"), block[512] = "";
  int fd = open(filler, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  while (write(fd, block, sizeof block) > 0)
    ;
  EXPECT(errno == ENOSPC && close(fd) == 0);
  EXPECT(refuses_save(store, "The disk is full"));
  EXPECT(is_untouched(scratch) && loads(store, OLD));
  EXPECT(unlink(filler) == 0 && saves(store, NEW) && loads(store, NEW));
  store->ops->close(store);
  free(filler);
}

static void read_from_a_read_only_disk(const struct scratch *scratch)
{
  if (!mount_small(scratch->folder, "64k"))
    _exit(CANNOT_MOUNT);
  struct store_error error = {CODE_OK, ""};
  char *path = scratch_path(scratch, "token.json");
  put(path, OLD, 0644);
  EXPECT(remount_read_only(scratch->folder));
  struct store *store = open_in(scratch);
  EXPECT(loads(store, OLD) && !store->repaired && !store->ops->changed(store));
  EXPECT(refuses_save(store, "Make the file system writable"));
  EXPECT(store->ops->lock(store, &error) == STORE_FAILED && is_helpful(&error, "Make the file system writable"));
  EXPECT(is_untouched(scratch));
  store->ops->close(store);
  free(path);
}

static struct store *open_locked(const struct scratch *scratch)
{
  struct store_error error;
  struct store *store = open_in(scratch);
  EXPECT(store->ops->lock(store, &error) == STORE_OK);
  return store;
}

/* As "docker -v" does with a single file. */
static void save_over_a_mounted_file(const struct scratch *scratch)
{
  char *path = scratch_path(scratch, "token.json");
  if (!mount_small(scratch->folder, "64k"))
    _exit(CANNOT_MOUNT);
  put(path, OLD, 0600);
  EXPECT(mount(path, path, "", MS_BIND, "") == 0);
  struct store *store = open_locked(scratch);
  EXPECT(refuses_save(store, "Mount the folder, not the file"));
  store->ops->unlock(store);
  EXPECT(is_untouched(scratch) && loads(store, OLD));
  store->ops->close(store);
  free(path);
}

static void skip_without_mounts(int status)
{
  if (WIFEXITED(status) && WEXITSTATUS(status) == CANNOT_MOUNT)
    skip();
  assert_int_equal(status, 0);
}

static void a_full_disk_is_reported(void **state)
{
  skip_without_mounts(run_child(save_on_a_full_disk, *state));
}

static void a_read_only_disk_still_serves_its_record(void **state)
{
  skip_without_mounts(run_child(read_from_a_read_only_disk, *state));
}

static void a_file_that_is_mounted_alone_is_explained(void **state)
{
  skip_without_mounts(run_child(save_over_a_mounted_file, *state));
}

/* The descriptors that a save opens: the folder's is the lowest free one, the file's the next. */
static unsigned next_descriptor(void)
{
  int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  close(fd);
  return (unsigned)fd;
}

static void fail_to_write(const struct scratch *scratch)
{
  struct store *store = open_in(scratch);
  inject(SYS_pwrite64, 0, next_descriptor() + 1, EDQUOT);
  EXPECT(refuses_save(store, "The disk is full") && is_untouched(scratch));
  store->ops->close(store);
}

/* What a save that fails behind its last byte leaves: the old record, and the new one beside it, whole. */
static bool is_left_beside(const struct scratch *scratch)
{
  char *path = scratch_path(scratch, "token.json"), *temporary = find_leftover(scratch);
  bool good = holds(path, OLD) && temporary && holds(temporary, NEW) && mode_of(temporary) == 0600;
  free(path);
  free(temporary);
  return good;
}

static struct store *fail_to_sync(const struct scratch *scratch)
{
  struct store *store = open_locked(scratch);
  inject(SYS_fsync, 0, next_descriptor() + 1, EIO);
  EXPECT(refuses_save(store, strerror(EIO)));
  return store;
}

static struct store *fail_to_rename(const struct scratch *scratch)
{
  struct store *store = open_locked(scratch);
#ifdef SYS_rename
  inject(SYS_rename, -1, 0, EIO);
#endif
#ifdef SYS_renameat
  inject(SYS_renameat, -1, 0, EIO);
#endif
  inject(SYS_renameat2, -1, 0, EIO);
  EXPECT(refuses_save(store, "cannot replace"));
  EXPECT(!store->ops->changed(store) || loads(store, OLD));
  return store;
}

typedef struct store *failing_save(const struct scratch *scratch);

static failing_save *const late_failures[] = {fail_to_sync, fail_to_rename};
enum { LATE_FAILURES = sizeof late_failures / sizeof *late_failures };

/* Each of them in a child that goes on with `then`; returns its wait status. */
static int run_late_failure(int number, void (*then)(const struct scratch *scratch, struct store *store),
                            const struct scratch *scratch)
{
  char *temporary = find_leftover(scratch);
  if (temporary)
    unlink(temporary);
  free(temporary);
  put_old(scratch);
  fflush(NULL);
  pid_t child = fork();
  if (child == 0) {
    struct store *store = late_failures[number](scratch);
    EXPECT(is_left_beside(scratch));
    then(scratch, store);
    _exit(0);
  }
  int status = -1;
  assert_int_equal(waitpid(child, &status, 0), child);
  return status;
}

static void die(const struct scratch *scratch, struct store *store)
{
  (void)scratch, (void)store;
  kill(getpid(), SIGKILL);
}

static void close_without_another_word(const struct scratch *scratch, struct store *store)
{
  (void)scratch;
  store->ops->close(store);
}

static void a_record_that_was_written_whole_outlives_its_writer(void **state)
{
  const struct scratch *scratch = *state;
  char *path = scratch_path(scratch, "token.json");
  for (int i = 0; i < LATE_FAILURES * 2; i++) {
    int status = run_late_failure(i / 2, i % 2 ? die : close_without_another_word, scratch);
    assert_true(i % 2 ? WIFSIGNALED(status) : status == 0);
    struct store *store = open_locked(scratch);
    assert_true(holds(path, NEW));
    assert_false(has_leftover(scratch));
    store->ops->close(store);
  }
  free(path);
}

static void give_up(const struct scratch *scratch, struct store *store)
{
  store->ops->unlock(store);
  EXPECT(is_untouched(scratch));
  store->ops->close(store);
}

/* Nobody gives the lock back while the record that could not be saved is the newest. */
static void a_record_that_is_given_up_leaves_nothing(void **state)
{
  for (int i = 0; i < LATE_FAILURES; i++) {
    assert_int_equal(run_late_failure(i, give_up, *state), 0);
    assert_true(is_untouched(*state));
  }
}

/* So that the next save has other descriptors, and only rename goes on failing. */
static void shift_descriptors(void)
{
  for (int i = 0; i < 2; i++)
    EXPECT(open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0);
}

/* Nothing may be removed, not for a moment. */
static void try_again(const struct scratch *scratch, struct store *store)
{
  struct stat before, after;
  char *temporary = find_leftover(scratch), *path = scratch_path(scratch, "token.json");
  EXPECT(stat(temporary, &before) == 0);
  shift_descriptors();
#ifdef SYS_unlink
  inject(SYS_unlink, -1, 0, SUDDEN_DEATH);
#endif
  inject(SYS_unlinkat, -1, 0, SUDDEN_DEATH);
  inject(SYS_ftruncate, -1, 0, SUDDEN_DEATH);
  struct store_error error;
  if (store->ops->save(store, NEW, &error) == STORE_OK) {
    EXPECT(stat(path, &after) == 0 && after.st_ino == before.st_ino && holds(path, NEW) && !is_there(temporary));
    EXPECT(!store->ops->changed(store) && loads(store, NEW));
  } else {
    EXPECT(is_left_beside(scratch));
    EXPECT(stat(temporary, &after) == 0 && after.st_ino == before.st_ino);
  }
  store->ops->close(store);
  free(temporary);
  free(path);
}

static void a_record_that_was_written_whole_is_not_removed_to_be_written_again(void **state)
{
  for (int i = 0; i < LATE_FAILURES; i++)
    assert_int_equal(run_late_failure(i, try_again, *state), 0);
}

static void save_another(const struct scratch *scratch, struct store *store)
{
  char *temporary = find_leftover(scratch);
  shift_descriptors();
  EXPECT(saves(store, "{}") && loads(store, "{}") && !is_there(temporary));
  store->ops->unlock(store);
  EXPECT(loads(store, "{}"));
  store->ops->close(store);
  free(temporary);
}

static void save_after_it_was_taken_away(const struct scratch *scratch, struct store *store)
{
  char *temporary = find_leftover(scratch);
  shift_descriptors();
  EXPECT(unlink(temporary) == 0 && saves(store, NEW) && loads(store, NEW));
  store->ops->close(store);
  free(temporary);
}

static void save_after_it_was_cut_short(const struct scratch *scratch, struct store *store)
{
  char *temporary = find_leftover(scratch);
  shift_descriptors();
  EXPECT(truncate(temporary, 5) == 0 && saves(store, NEW) && loads(store, NEW));
  store->ops->close(store);
  free(temporary);
}

static void what_a_failed_save_has_left_is_in_the_way_of_nothing(void **state)
{
  assert_int_equal(run_late_failure(0, save_another, *state), 0);
  assert_int_equal(run_late_failure(0, save_after_it_was_taken_away, *state), 0);
  assert_int_equal(run_late_failure(0, save_after_it_was_cut_short, *state), 0);
}

/* A child has its parent's store, but not its lock. */
static void unlock_in_a_child(const struct scratch *scratch, struct store *store)
{
  int status = -1;
  pid_t child = fork();
  if (child == 0) {
    store->ops->forked(store);
    store->ops->unlock(store);
    store->ops->close(store);
    _exit(0);
  }
  EXPECT(waitpid(child, &status, 0) == child && status == 0);
  EXPECT(is_left_beside(scratch));
  store->ops->close(store);
}

static void a_child_removes_nothing_of_its_parent_s(void **state)
{
  for (int i = 0; i < LATE_FAILURES; i++)
    assert_int_equal(run_late_failure(i, unlock_in_a_child, *state), 0);
}

static void a_write_that_fails_leaves_the_old_record(void **state)
{
  put_old(*state);
  assert_int_equal(run_child(fail_to_write, *state), 0);
  assert_true(is_untouched(*state));
}

static void fail_to_sync_the_folder(const struct scratch *scratch)
{
  struct store *store = open_in(scratch);
  inject(SYS_fsync, 0, next_descriptor(), EIO);
  EXPECT(refuses_save(store, "power cut"));
  EXPECT(!store->ops->changed(store) && loads(store, NEW));
  inject(SYS_fsync, -1, 0, EIO);
  EXPECT(refuses_save(store, strerror(EIO)));
  EXPECT(loads(store, NEW) && !has_leftover(scratch)); /* it would be but a copy */
  store->ops->close(store);
}

static void save_where_folders_cannot_be_synced(const struct scratch *scratch)
{
  struct store *store = open_in(scratch);
  inject(SYS_fsync, 0, next_descriptor(), EINVAL);
  EXPECT(saves(store, NEW) && loads(store, NEW));
  store->ops->close(store);
}

static void a_save_is_done_only_when_the_folder_is_synced(void **state)
{
  put_old(*state);
  assert_int_equal(run_child(fail_to_sync_the_folder, *state), 0);
  put_old(*state);
  assert_int_equal(run_child(save_where_folders_cannot_be_synced, *state), 0);
}

static void load_with_a_mode_that_stays(const struct scratch *scratch)
{
  char *path = scratch_path(scratch, "token.json");
  put(path, OLD, 0644);
  struct store *store = open_in(scratch);
  inject(SYS_fchmod, -1, 0, EPERM);
  EXPECT(refuses_load(store, "chmod 600"));
  EXPECT(refuses_save(store, "chmod 600"));
  EXPECT(!store->repaired && mode_of(path) == 0644 && is_untouched(scratch));
  store->ops->close(store);
  free(path);
}

static void load_from_a_frozen_disk(const struct scratch *scratch)
{
  char *path = scratch_path(scratch, "token.json");
  put(path, OLD, 0644);
  struct store *store = open_in(scratch);
  inject(SYS_fchmod, -1, 0, EROFS);
  EXPECT(loads(store, OLD) && !store->repaired);
  store->ops->close(store);
  free(path);
}

/* As on a file system that has no modes of its own. */
static void load_with_a_mode_that_only_seems_to_change(const struct scratch *scratch)
{
  char *path = scratch_path(scratch, "token.json");
  put(path, OLD, 0644);
  struct store *store = open_in(scratch);
  inject(SYS_fchmod, -1, 0, PRETENDED);
  EXPECT(refuses_load(store, "chmod 600"));
  EXPECT(!store->repaired && is_untouched(scratch));
  store->ops->close(store);
  free(path);
}

static void a_mode_that_cannot_be_mended_is_refused_unless_read_only(void **state)
{
  assert_int_equal(run_child(load_with_a_mode_that_stays, *state), 0);
  assert_int_equal(run_child(load_with_a_mode_that_only_seems_to_change, *state), 0);
  assert_int_equal(run_child(load_from_a_frozen_disk, *state), 0);
}
#endif

/* Accounts in a folder. */

static void accounts_get_files_of_their_own(void **state)
{
  static const struct {
    const char *account, *file;
  } cases[] = {
      {"anna", "anna.json"},
      {"anna@example.com", "anna@example.com.json"},
      {"a-b_c.9", "a-b_c.9.json"},
      {NULL, "default.json"},
      {"", "default.json"},
      {"default", "default.json"},
      {"Anna", "%41nna.json"},
      {".", "%2E.json"},
      {"..", "%2E%2E.json"},
      {"...", "%2E.%2E.json"},
      {".lock", "%2Elock.json"},
      {"a.", "a%2E.json"},
      {"../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd.json"},
      {"/etc/passwd", "%2Fetc%2Fpasswd.json"},
      {"a\\b:c", "a%5Cb%3Ac.json"},
      {"%2f", "%252f.json"},
      {"\xC3\xA9 \n\x01\x7F", "%C3%A9%20%0A%01%7F.json"},
      {"\xFF", "%FF.json"},
  };
  const struct scratch *scratch = *state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct store_error error;
    char *path = scratch_path(scratch, cases[i].file);
    struct store *store = store_directory(scratch->folder, NULL, cases[i].account, &error);
    assert_non_null(store);
    assert_string_equal(store->name, path);
    assert_true(saves(store, OLD));
    assert_true(holds(path, OLD));
    assert_int_equal(unlink(path), 0);
    store->ops->close(store);
    free(path);
  }
}

static int count_entries(const char *folder)
{
  int count = 0;
  DIR *listing = opendir(folder);
  assert_non_null(listing);
  for (const struct dirent *entry = readdir(listing); entry; entry = readdir(listing))
    count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
  closedir(listing);
  return count;
}

/* Every byte alone, and between two dots, where it could finish a step out of the folder. */
static void no_name_leaves_the_folder_or_meets_another(void **state)
{
  const struct scratch *scratch = *state;
  struct store_error error;
  char *folder = scratch_path(scratch, "in");
  assert_int_equal(mkdir(folder, 0700), 0);
  for (int byte = 1; byte < 256; byte++) {
    char alone[] = {(char)byte, '\0'}, between[] = {'.', '.', (char)byte, '.', '.', '\0'}, record[40];
    const char *accounts[] = {alone, between};
    for (int i = 0; i < 2; i++) {
      struct store *store = store_directory(folder, NULL, accounts[i], &error);
      snprintf(record, sizeof record, "{\"byte\":%d,\"case\":%d}", byte, i);
      assert_true(saves(store, record));
      const char *name = strrchr(store->name, '/') + 1;
      assert_int_equal((int)(name - store->name), (int)strlen(folder) + 1);
      for (const char *letter = name; *letter; letter++)
        assert_false(*letter >= 'A' && *letter <= 'Z' && letter[-1] != '%' && letter[-2] != '%');
      store->ops->close(store);
    }
  }
  assert_int_equal(count_entries(folder), 2 * 255);
  assert_int_equal(count_entries(scratch->folder), 1);
  free(folder);
}

static void a_name_too_long_for_a_file_is_a_setting_to_correct(void **state)
{
  const struct scratch *scratch = *state;
  struct store_error error;
  char account[256];
  memset(account, 'n', sizeof account);
  account[245] = '\0';
  struct store *store = store_directory(scratch->folder, NULL, account, &error);
  assert_int_equal(store->ops->lock(store, &error), STORE_OK);
  assert_true(saves(store, OLD));
  store->ops->close(store);
  account[245] = 'n';
  account[246] = '\0';
  assert_null(store_directory(scratch->folder, NULL, account, &error));
  assert_int_equal(error.code, CODE_CONFIG);
  assert_non_null(strstr(error.message, "shorter"));
}

static void a_slash_behind_the_folder_changes_nothing(void **state)
{
  const struct scratch *scratch = *state;
  struct store_error error;
  char *folder = scratch_path(scratch, ""), *path = scratch_path(scratch, "anna.json");
  struct store *store = store_directory(folder, NULL, "anna", &error);
  assert_string_equal(store->name, path);
  assert_int_equal(store->ops->lock(store, &error), STORE_OK);
  assert_true(saves(store, OLD));
  assert_true(holds(path, OLD));
  assert_int_equal(count_entries(scratch->folder), 2);
  store->ops->close(store);
  free(folder);
  free(path);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      SPEC(touches_nothing_when_opened),
      SPEC(a_path_that_names_no_file_is_a_setting_to_correct),
      SPEC(a_relative_path_stays_where_it_was_meant),
      SPEC(a_relative_path_starts_from_the_folder_that_is_given),
      SPEC(a_present_folder_that_is_gone_is_reported),
      SPEC(no_file_is_no_record),
      SPEC(loads_the_text_as_it_stands),
      SPEC(takes_a_record_of_just_the_limit),
      SPEC(a_nul_byte_makes_it_no_record),
      SPEC(links_are_not_followed),
      SPEC(pipes_sockets_and_folders_are_no_records),
      SPEC(another_users_file_is_not_trusted),
      SPEC(a_mode_that_lets_others_in_is_mended),
      SPEC(a_file_that_may_not_be_read_is_reported),
      SPEC(saves_a_file_of_its_own_user_alone),
      SPEC(a_reader_keeps_the_old_record_whole),
      SPEC(sees_what_others_write),
      SPEC(one_difference_is_a_change),
      SPEC(what_another_wrote_since_is_not_replaced),
      SPEC(a_missing_folder_is_named_when_saving_or_locking),
      SPEC(a_path_through_a_file_is_reported),
      SPEC(a_long_path_leaves_room_for_the_advice),
      SPEC(a_path_cannot_forge_lines),
      SPEC(a_read_only_folder_is_reported),
      SPEC(the_root_is_a_folder_too),
      SPEC(a_write_that_stops_half_way_leaves_the_old_record),
      SPEC(what_stands_under_a_name_that_can_be_guessed_is_in_nobody_s_way),
      SPEC(a_standard_file_that_is_closed_is_not_replaced),
      SPEC(failures_leak_no_descriptor),
      SPEC(accounts_get_files_of_their_own),
      SPEC(no_name_leaves_the_folder_or_meets_another),
      SPEC(a_name_too_long_for_a_file_is_a_setting_to_correct),
      SPEC(a_slash_behind_the_folder_changes_nothing),
  };
  int failed = cmocka_run_group_tests_name("file store", tests, NULL, NULL);
#if defined(__linux__)
  const struct CMUnitTest on_linux[] = {
      SPEC(a_full_disk_is_reported),
      SPEC(a_file_that_is_mounted_alone_is_explained),
      SPEC(a_read_only_disk_still_serves_its_record),
      SPEC(a_write_that_fails_leaves_the_old_record),
      SPEC(a_record_that_was_written_whole_outlives_its_writer),
      SPEC(a_record_that_is_given_up_leaves_nothing),
      SPEC(a_record_that_was_written_whole_is_not_removed_to_be_written_again),
      SPEC(what_a_failed_save_has_left_is_in_the_way_of_nothing),
      SPEC(a_child_removes_nothing_of_its_parent_s),
      SPEC(a_save_is_done_only_when_the_folder_is_synced),
      SPEC(a_mode_that_cannot_be_mended_is_refused_unless_read_only),
  };
  failed += cmocka_run_group_tests_name("file store on Linux", on_linux, NULL, NULL);
#endif
  return failed;
}
