#define _GNU_SOURCE
#include "lockfile.h"

#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

/* So often is a lock file that somebody removes under our hands opened anew before the lock counts as busy. */
enum { REOPENINGS = 8 };

bool lockfile_init(struct lockfile *lock, char *path)
{
  *lock = (struct lockfile){.path = path, .fd = -1};
  return page_init(&lock->page);
}

static int apply_to_byte(const struct lockfile *lock, short kind)
{
#ifdef F_OFD_SETLK
  struct flock range = {.l_type = kind, .l_whence = SEEK_SET, .l_start = LOCKFILE_BYTE, .l_len = 1};
  int result;
  do
    result = fcntl(lock->fd, F_OFD_SETLK, &range);
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
    result = flock(lock->fd, operation);
  while (result != 0 && errno == EINTR);
  return result;
}

static int take(struct lockfile *lock)
{
  int result = -1;
  if (!lock->whole) {
    result = apply_to_byte(lock, F_WRLCK);
    lock->whole = result != 0 && errno == EINVAL;
  }
  return lock->whole ? apply_to_whole(lock, LOCK_EX | LOCK_NB) : result;
}

static bool is_current(const struct lockfile *lock)
{
  struct stat opened, named;
  return fstat(lock->fd, &opened) == 0 && lstat(lock->path, &named) == 0 && opened.st_dev == named.st_dev &&
         opened.st_ino == named.st_ino;
}

static void close_file(struct lockfile *lock)
{
  if (lock->fd >= 0)
    close(lock->fd);
  lock->fd = -1;
}

static int open_file(const struct lockfile *lock, struct store_error *error)
{
  struct stat found;
  int fd = disk_open(lock->path, O_RDWR | O_CREAT, &found, error);
  /* Against others who would lock it to stop us. It holds no secret: where modes cannot be changed, it will do. */
  if (fd >= 0)
    (void)disk_make_private(fd);
  return fd;
}

static void share(struct lockfile *lock)
{
  struct store_error unheeded;
  int fd = open_file(lock, &unheeded);
  if (fd < 0)
    return;
  (void)page_share(&lock->page, fd);
  close(fd);
}

bool lockfile_is_held(const struct lockfile *lock)
{
  return lock->fd >= 0;
}

enum attempt { TAKEN, TAKEN_BY_ANOTHER, REMOVED, IMPOSSIBLE };

static enum attempt attempt(struct lockfile *lock)
{
  if (take(lock) == 0)
    return is_current(lock) ? TAKEN : REMOVED;
  return errno == EAGAIN || errno == EACCES || errno == EWOULDBLOCK ? TAKEN_BY_ANOTHER : IMPOSSIBLE;
}

enum store_result lockfile_try(struct lockfile *lock, struct store_error *error)
{
  if (lockfile_is_held(lock))
    return STORE_BUSY;
  for (int i = 0; i < REOPENINGS; i++) {
    lock->fd = open_file(lock, error);
    if (lock->fd < 0)
      return STORE_FAILED;
    enum attempt outcome = attempt(lock);
    int cause = errno;
    if (outcome == TAKEN) {
      share(lock);
      page_settle(&lock->page); /* what an owner that died in a refresh has left */
      return STORE_OK;
    }
    close_file(lock);
    if (outcome == IMPOSSIBLE)
      disk_fail(error, "lock", lock->path, cause);
    if (outcome != REMOVED)
      return outcome == IMPOSSIBLE ? STORE_FAILED : STORE_BUSY;
  }
  return STORE_BUSY;
}

void lockfile_share(struct lockfile *lock)
{
  struct store_error unheeded;
  share(lock);
  /* An owner that died in a refresh would leave it under way for as long as nobody needs the lock. */
  if (!lockfile_is_held(lock) && page_is_under_way(&lock->page) && lockfile_try(lock, &unheeded) == STORE_OK)
    lockfile_release(lock);
}

void lockfile_release(struct lockfile *lock)
{
  if (!lockfile_is_held(lock))
    return;
  page_settle(&lock->page);
  /* not by closing it alone: a child may have it, too */
  (void)(lock->whole ? apply_to_whole(lock, LOCK_UN) : apply_to_byte(lock, F_UNLCK));
  close_file(lock);
}

void lockfile_forked(struct lockfile *lock)
{
  close_file(lock);
}

void lockfile_free(struct lockfile *lock)
{
  lockfile_release(lock);
  page_free(&lock->page);
  free(lock->path);
}
