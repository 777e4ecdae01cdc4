#define _GNU_SOURCE
#include "scratch.h"

#include "../../src/base/secret.h"
#include "../../src/store/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#endif

/* The specs' own footing: without it nothing they say would mean anything. */
static void need(bool truth, const char *what)
{
  if (truth)
    return;
  fprintf(stderr, "%s: %s\n", what, strerror(errno));
  abort();
}

int scratch_make(void **state)
{
  const char *root = getenv("TMPDIR");
  struct scratch *scratch = calloc(1, sizeof *scratch);
  need(scratch != NULL, "calloc");
  snprintf(scratch->folder, sizeof scratch->folder, "%s/lucidauth-XXXXXX", root && *root == '/' ? root : "/tmp");
  need(mkdtemp(scratch->folder) != NULL, "mkdtemp");
  *state = scratch;
  return 0;
}

static int remove_one(const char *path, const struct stat *found, int kind, struct FTW *walk)
{
  (void)found;
  (void)kind;
  (void)walk;
  return remove(path);
}

int scratch_remove(void **state)
{
  struct scratch *scratch = *state;
  int result = nftw(scratch->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
  free(scratch);
  return result;
}

char *scratch_path(const struct scratch *scratch, const char *name)
{
  size_t size = strlen(scratch->folder) + strlen(name) + 2;
  char *path = malloc(size);
  need(path != NULL, "malloc");
  snprintf(path, size, "%s/%s", scratch->folder, name);
  return path;
}

struct store *open_in(const struct scratch *scratch)
{
  struct store_error error;
  char *path = scratch_path(scratch, "token.json");
  struct store *store = store_file(path, NULL, &error);
  need(store != NULL, path);
  free(path);
  return store;
}

static bool succeeds(enum store_result result, const struct store_error *error)
{
  if (result == STORE_FAILED)
    fprintf(stderr, "%s\n", error->message);
  return result == STORE_OK;
}

bool loads(struct store *store, const char *expected)
{
  struct store_error error;
  char *record;
  if (!succeeds(store->ops->load(store, &record, &error), &error))
    return false;
  bool same = strcmp(record, expected) == 0;
  secret_free(record);
  return same;
}

bool saves(struct store *store, const char *record)
{
  struct store_error error;
  return succeeds(store->ops->save(store, record, &error), &error);
}

void put_bytes(const char *path, const void *bytes, size_t length, mode_t mode)
{
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  need(fd >= 0, path);
  need(write(fd, bytes, length) == (ssize_t)length, path);
  need(fchmod(fd, mode) == 0 && close(fd) == 0, path);
}

void put(const char *path, const char *text, mode_t mode)
{
  put_bytes(path, text, strlen(text), mode);
}

static char *content_of(const char *path)
{
  struct stat found;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0)
    return NULL;
  need(fstat(fd, &found) == 0, path);
  char *text = calloc(1, (size_t)found.st_size + 1);
  need(text && read(fd, text, (size_t)found.st_size) == found.st_size, path);
  close(fd);
  return text;
}

bool holds(const char *path, const char *expected)
{
  char *text = content_of(path);
  bool same = text && strcmp(text, expected) == 0;
  free(text);
  return same;
}

int mode_of(const char *path)
{
  struct stat found;
  return lstat(path, &found) == 0 ? (int)(found.st_mode & 07777) : -1;
}

bool is_there(const char *path)
{
  return mode_of(path) != -1;
}

char *find_leftover(const struct scratch *scratch)
{
  static const char start[] = "token.json.tmp";
  char *path = NULL;
  DIR *listing = opendir(scratch->folder);
  need(listing != NULL, scratch->folder);
  for (const struct dirent *entry = readdir(listing); entry && !path; entry = readdir(listing))
    if (strncmp(entry->d_name, start, sizeof start - 1) == 0)
      path = scratch_path(scratch, entry->d_name);
  closedir(listing);
  return path;
}

bool has_leftover(const struct scratch *scratch)
{
  char *path = find_leftover(scratch);
  free(path);
  return path != NULL;
}

void date(const char *path, long seconds)
{
  struct timespec now;
  need(clock_gettime(CLOCK_REALTIME, &now) == 0, "clock_gettime");
  struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = now.tv_sec + seconds, .tv_nsec = now.tv_nsec}};
  need(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW) == 0, path);
}

int open_descriptors(void)
{
  int count = 0;
  for (int fd = 0; fd < 256; fd++)
    count += fcntl(fd, F_GETFD) != -1;
  return count;
}

void expect(bool truth, const char *condition, const char *file, int line)
{
  if (truth)
    return;
  fprintf(stderr, "%s:%d: in a child: %s does not hold\n", file, line, condition);
  _exit(1);
}

static int status_of(pid_t child)
{
  int status;
  pid_t waited;
  do
    waited = waitpid(child, &status, 0);
  while (waited < 0 && errno == EINTR);
  need(waited == child, "waitpid");
  return status;
}

int run_child(child_body *body, const struct scratch *scratch)
{
  fflush(NULL);
  pid_t child = fork();
  need(child >= 0, "fork");
  if (child == 0) {
    body(scratch);
    _exit(0);
  }
  return status_of(child);
}

int run_as_user(child_body *body, const struct scratch *scratch)
{
  fflush(NULL);
  bool root = geteuid() == 0;
  need(!root || lchown(scratch->folder, NOBODY, NOBODY) == 0, "chown");
  pid_t child = fork();
  need(child >= 0, "fork");
  if (child == 0) {
    need(!root || (setgroups(0, NULL) == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0), "setuid");
    body(scratch);
    _exit(0);
  }
  return status_of(child);
}

#if defined(__linux__)
void inject(long call, int argument, unsigned value, int cause)
{
  unsigned offset = (unsigned)offsetof(struct seccomp_data, args) + 8U * (unsigned)(argument < 0 ? 0 : argument);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  offset += 4;
#endif
  unsigned outcome = cause == SUDDEN_DEATH ? SECCOMP_RET_KILL_PROCESS : SECCOMP_RET_ERRNO | (unsigned)cause;
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)call, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset),
      BPF_JUMP(argument < 0 ? BPF_JMP | BPF_JA : BPF_JMP | BPF_JEQ | BPF_K, argument < 0 ? 0 : value, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, outcome),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
  need(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no_new_privs");
  need(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0, "seccomp");
}

bool mount_small(const char *folder, const char *size)
{
  char options[64];
  snprintf(options, sizeof options, "size=%s,mode=0700", size);
  return geteuid() == 0 && unshare(CLONE_NEWNS) == 0 && mount("none", "/", "", MS_REC | MS_PRIVATE, "") == 0 &&
         mount("tmpfs", folder, "tmpfs", 0, options) == 0;
}

bool remount_read_only(const char *folder)
{
  return mount("tmpfs", folder, "tmpfs", MS_REMOUNT | MS_RDONLY, "") == 0;
}
#endif
