#define _GNU_SOURCE
#include "lockfile.h"

#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* So often is a lock file that somebody removes under our hands opened anew before the lock counts as busy. */
enum { REOPENINGS = 8 };

bool lockfile_init(struct lockfile *lock, char *path)
{
  *lock = (struct lockfile){.path = path, .file = DESCRIPTOR_NONE};
  return page_init(&lock->page);
}

static int apply_to_byte(const struct lockfile *lock, short kind)
{
#ifdef F_OFD_SETLK
  struct flock range = {.l_type = kind, .l_whence = SEEK_SET, .l_start = LOCKFILE_BYTE, .l_len = 1};
  int result;
  do
    result = fcntl(lock->file.fd, F_OFD_SETLK, &range);
  while (result != 0 && errno == EINTR);
  return result;
#else
  (void)lock;
  (void)kind;
  errno = EINVAL;
  return -1;
#endif
}

static int apply_to_whole(const struct lockfile *lock, int operation)
{
  int result;
  do
    result = flock(lock->file.fd, operation);
  while (result != 0 && errno == EINTR);
  return result;
}

static int acquire(struct lockfile *lock)
{
  int result = -1;
  if (!lock->whole) {
    result = apply_to_byte(lock, F_WRLCK);
    lock->whole = result != 0 && (errno == EINVAL || errno == ENOSYS || errno == EPERM || errno == EOPNOTSUPP);
  }
  return lock->whole ? apply_to_whole(lock, LOCK_EX | LOCK_NB) : result;
}

/* Whether the path still leads there. */
static bool is_current(const struct lockfile *lock)
{
  struct stat named;
  return lstat(lock->path, &named) == 0 && descriptor_leads_to(&lock->file, &named);
}

static int open_file(const struct lockfile *lock, struct store_error *error)
{
  struct stat found;
  int fd = disk_open(lock->path, O_RDWR | O_CREAT, &found, error);
  /* No other user is to lock it and stop us. The file holds no secret, so one whose mode cannot be changed will do. */
  if (fd >= 0)
    (void)disk_make_private(fd);
  return fd;
}

static bool hold_file(struct lockfile *lock, struct store_error *error)
{
  int fd = open_file(lock, error);
  if (descriptor_hold(&lock->file, fd))
    return true;
  if (fd >= 0)
    disk_fail(error, "examine", lock->path, errno);
  return false;
}

/* False: the file cannot be opened. `spent`: as of ledger_spent; NULL: it is not wanted. */
static bool share(struct lockfile *lock, char *spent)
{
  struct store_error unheeded;
  int fd = open_file(lock, &unheeded);
  if (fd < 0)
    return false;
  (void)page_share(&lock->page, fd);
  if (spent)
    ledger_spent(fd, spent);
  close(fd);
  return true;
}

bool lockfile_is_held(const struct lockfile *lock)
{
  return lock->file.fd >= 0;
}

bool lockfile_is_lost(const struct lockfile *lock)
{
  return lockfile_is_held(lock) && descriptor_is_gone(&lock->file);
}

bool lockfile_excludes_others(const struct lockfile *lock)
{
  return descriptor_is_ours(&lock->file) && is_current(lock);
}

int lockfile_ledger(const struct lockfile *lock)
{
  return lock->page.laid_out && descriptor_is_ours(&lock->file) ? lock->file.fd : -1;
}

/* The errors of fcntl and flock for a lock that is taken. On Linux EACCES only means that locks are denied, by a
 * security module as a rule; POSIX allows it for both. */
static bool means_taken(int cause)
{
#if !defined(__linux__)
  if (cause == EACCES)
    return true;
#endif
  return cause == EAGAIN || cause == EWOULDBLOCK;
}

enum attempt { TAKEN, TAKEN_BY_ANOTHER, REMOVED, IMPOSSIBLE };

static enum attempt attempt(struct lockfile *lock)
{
  if (acquire(lock) == 0)
    return is_current(lock) ? TAKEN : REMOVED;
  return means_taken(errno) ? TAKEN_BY_ANOTHER : IMPOSSIBLE;
}

static void explain_denial(const struct lockfile *lock, int cause, struct store_error *error)
{
  char why[120];
  if (cause != EACCES && cause != EPERM) {
    disk_fail(error, "lock", lock->path, cause);
    return;
  }
  snprintf(why, sizeof why, "may not be locked by this program: %s", strerror(cause));
  disk_refuse(
      error, lock->path, why,
      "A security module (SELinux, AppArmor) or a sandbox forbids it: give it the permission to lock files there.");
}

static void settle_in(struct lockfile *lock)
{
  snprintf(lock->identity, sizeof lock->identity, "%llx:%llx", (unsigned long long)lock->file.device,
           (unsigned long long)lock->file.inode);
  share(lock, NULL);
  page_settle(&lock->page); /* a dead lock holder may have left a refresh under way */
}

enum store_result lockfile_try(struct lockfile *lock, struct store_error *error)
{
  if (lockfile_is_held(lock) && !lockfile_is_lost(lock))
    return STORE_BUSY;
  for (int i = 0; i < REOPENINGS; i++) {
    if (!hold_file(lock, error))
      return STORE_FAILED;
    enum attempt outcome = attempt(lock);
    int cause = errno;
    if (outcome == TAKEN) {
      settle_in(lock);
      return STORE_OK;
    }
    descriptor_close(&lock->file);
    if (outcome == IMPOSSIBLE)
      explain_denial(lock, cause, error);
    if (outcome != REMOVED)
      return outcome == IMPOSSIBLE ? STORE_FAILED : STORE_BUSY;
  }
  return STORE_BUSY;
}

bool lockfile_read_spent(const struct lockfile *lock, char text[LEDGER_TEXT])
{
  struct store_error unheeded;
  struct stat found;
  bool held = descriptor_is_ours(&lock->file);
  int fd = held ? lock->file.fd : disk_open(lock->path, O_RDONLY, &found, &unheeded);
  if (fd < 0)
    return false;
  ledger_spent(fd, text);
  if (!held)
    close(fd);
  return true;
}

bool lockfile_share(struct lockfile *lock, char spent[LEDGER_TEXT])
{
  struct store_error unheeded;
  /* with the lock it is the locked file's that count, wherever the path leads */
  bool held = lockfile_is_held(lock), read = share(lock, held ? NULL : spent) && spent && !held;
  /* An owner that died in a refresh would leave it under way for as long as no process needs the lock. */
  if (!held && page_is_under_way(&lock->page) && lockfile_try(lock, &unheeded) == STORE_OK)
    lockfile_release(lock);
  return read;
}

void lockfile_release(struct lockfile *lock)
{
  if (!lockfile_is_held(lock))
    return;
  if (!lockfile_is_lost(lock)) { /* else another process may hold the lock by now, and be in a refresh */
    page_settle(&lock->page);
    /* not by closing it alone: a child may have it, too */
    (void)(lock->whole ? apply_to_whole(lock, LOCK_UN) : apply_to_byte(lock, F_UNLCK));
  }
  descriptor_close(&lock->file);
}

void lockfile_forked(struct lockfile *lock)
{
  descriptor_close(&lock->file);
}

void lockfile_free(struct lockfile *lock)
{
  lockfile_release(lock);
  page_free(&lock->page);
  free(lock->path);
}
