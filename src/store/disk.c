#define _DEFAULT_SOURCE
#include "disk.h"

#include "../base/quote.h"
#include "../system/descriptor.h"
#include "../system/held_signal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A longer path would push the advice out of the message: only its end is shown. */
enum { SHOWN_PATH = 160, SHOWN_FOLDER = 90, SHOWN = SHOWN_PATH + 40 };

static const char *quote_path(char text[SHOWN], const char *path, size_t most)
{
  size_t length = strlen(path);
  const char *dots = length > most ? "..." : "";
  strcpy(text, dots);
  quote_escape(text + strlen(dots), SHOWN - strlen(dots), length > most ? path + length - most : path);
  return text;
}

static const char *remedy_for(int cause)
{
  if (cause == ENOSPC || cause == EDQUOT)
    return "The disk is full: free some space, then try again.";
  if (cause == EFBIG)
    return "Files of this program may not grow so far: raise its file size limit (ulimit -f).";
  if (cause == EROFS)
    return "Make the file system writable, or keep the tokens elsewhere.";
  if (cause == EACCES || cause == EPERM)
    return "Let this program's user read and write the file and its folder.";
  if (cause == ENOENT)
    return "It was there a moment ago: find the program that removes it.";
  if (cause == ENOTDIR)
    return "A part of the path is not a folder: correct the path.";
  if (cause == ENAMETOOLONG)
    return "Choose a shorter name.";
  if (cause == EBUSY)
    return "A file that is mounted by itself (docker -v) cannot be replaced. Mount the folder, not the file.";
  if (cause == EIO)
    return "The disk reports a fault: check it, then try again.";
  if (cause == EMFILE || cause == ENFILE)
    return "Too many files are open: close some, or raise the limit (ulimit -n).";
  if (cause == ENOLCK || cause == ENOTSUP || cause == EOPNOTSUPP || cause == ENOSYS)
    return "The file system cannot do this: keep the tokens on a local disk.";
  return "Mend that and try again.";
}

/* The first folder on the way to an absolute path that does not exist; NULL: all do, or out of memory. */
static char *missing_folder(const char *path)
{
  struct stat found;
  char *folder = strdup(path);
  for (char *slash = folder && *folder ? strchr(folder + 1, '/') : NULL; slash; slash = strchr(slash + 1, '/')) {
    *slash = '\0';
    if (stat(folder, &found) != 0 && errno == ENOENT)
      return folder;
    *slash = '/';
  }
  free(folder);
  return NULL;
}

static bool explain_missing(struct store_error *error, const char *doing, const char *path)
{
  char *folder = missing_folder(path);
  if (!folder)
    return false;
  char name[SHOWN], missing[SHOWN];
  error->code = CODE_STORAGE;
  snprintf(error->message, sizeof error->message,
           "cannot %s %s: %s. Nothing was changed. The folder does not exist: create %s, or correct the path.", doing,
           quote_path(name, path, SHOWN_PATH), strerror(ENOENT), quote_path(missing, folder, SHOWN_FOLDER));
  free(folder);
  return true;
}

void disk_fail(struct store_error *error, const char *doing, const char *path, int cause)
{
  if (cause == ENOENT && explain_missing(error, doing, path))
    return;
  char name[SHOWN];
  error->code = CODE_STORAGE;
  snprintf(error->message, sizeof error->message, "cannot %s %s: %s. Nothing was changed. %s", doing,
           quote_path(name, path, SHOWN_PATH), strerror(cause), remedy_for(cause));
}

static void explain_errno(struct store_error *error, const char *path, const char *why, const char *remedy)
{
  char name[SHOWN];
  error->code = CODE_STORAGE;
  snprintf(error->message, sizeof error->message, "%s %s. %s", quote_path(name, path, SHOWN_PATH), why, remedy);
}

void disk_refuse(struct store_error *error, const char *path, const char *why, const char *remedy)
{
  char advised[240];
  snprintf(advised, sizeof advised, "Nothing was changed. %s", remedy);
  explain_errno(error, path, why, advised);
}

void disk_doubt(struct store_error *error, const char *path, int cause)
{
  char why[120];
  snprintf(why, sizeof why, "holds the new record, but a power cut may still undo that: %s", strerror(cause));
  explain_errno(error, path, why, remedy_for(cause));
}

static bool is_regular(const char *path, const struct stat *found, struct store_error *error)
{
  if (S_ISREG(found->st_mode))
    return true;
  if (S_ISLNK(found->st_mode))
    disk_refuse(error, path, "is a symbolic link, and links are not followed",
                "Give the path of the file that it points to.");
  else if (S_ISDIR(found->st_mode))
    disk_refuse(error, path, "is a folder, not a file", "Give the path of a file.");
  else
    disk_refuse(error, path, "is a pipe, a socket or a device, not a file", "Give the path of a regular file.");
  return false;
}

static bool belongs_to_user(const char *path, const struct stat *found, struct store_error *error)
{
  if (found->st_uid == geteuid())
    return true;
  char why[120];
  snprintf(why, sizeof why, "belongs to user %lu, but this program runs as user %lu", (unsigned long)found->st_uid,
           (unsigned long)geteuid());
  disk_refuse(error, path, why, "Run it as that user, or give it the file (chown).");
  return false;
}

static void explain_open(const char *path, int cause, struct store_error *error)
{
  struct stat found;
  if (lstat(path, &found) != 0 ||
      (is_regular(path, &found, error) && (cause != EACCES || belongs_to_user(path, &found, error))))
    disk_fail(error, "open", path, cause);
}

int disk_try_open(const char *path, int flags)
{
  int fd;
  do
    fd = open(path, flags | O_CLOEXEC, 0600);
  while (fd < 0 && errno == EINTR);
  return descriptor_keep(fd);
}

int disk_open(const char *path, int flags, struct stat *found, struct store_error *error)
{
  int fd = disk_try_open(path, flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
  int cause = errno;
  if (fd < 0)
    explain_open(path, cause, error);
  else if (fstat(fd, found) != 0)
    disk_fail(error, "examine", path, cause = errno);
  else if (is_regular(path, found, error) && belongs_to_user(path, found, error))
    return fd;
  else
    cause = EINVAL;
  if (fd >= 0)
    close(fd);
  errno = cause;
  return -1;
}

struct timespec disk_modified(const struct stat *found)
{
#if defined(__APPLE__)
  return found->st_mtimespec;
#else
  return found->st_mtim;
#endif
}

bool disk_is_older(const struct stat *one, const struct stat *other)
{
  struct timespec a = disk_modified(one), b = disk_modified(other);
  return a.tv_sec < b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec < b.tv_nsec);
}

bool disk_is_out_of_room(int cause)
{
  return cause == ENOSPC || cause == EDQUOT || cause == EFBIG;
}

bool disk_make_private(int fd)
{
  struct stat found;
  if (fstat(fd, &found) != 0)
    return false;
  if ((found.st_mode & 07777) == 0600)
    return true;
  if (fchmod(fd, 0600) != 0 || fstat(fd, &found) != 0)
    return false;
  errno = ENOTSUP; /* some file systems only pretend to change a mode */
  return (found.st_mode & 077) == 0;
}

bool disk_read(int fd, char *bytes, size_t *length)
{
  size_t done = 0;
  while (done < *length) {
    ssize_t count = pread(fd, bytes + done, *length - done, (off_t)done);
    if (count < 0 && errno != EINTR)
      return false;
    if (count == 0)
      break;
    if (count > 0)
      done += (size_t)count;
  }
  *length = done;
  return true;
}

bool disk_write_at(int fd, const void *bytes, size_t length, off_t offset)
{
  const char *next = bytes;
  while (length > 0) {
    ssize_t count = pwrite(fd, next, length, offset);
    if (count < 0 && errno != EINTR)
      return false;
    if (count == 0) {
      errno = EIO;
      return false;
    }
    if (count > 0) {
      next += count;
      offset += count;
      length -= (size_t)count;
    }
  }
  return true;
}

/* Where a file may not grow any further, the system sends SIGXFSZ besides. */
bool disk_write_longer(int fd, const void *bytes, size_t length, off_t offset)
{
  struct held_signal held;
  held_signal_begin(&held, SIGXFSZ);
  bool good = disk_write_at(fd, bytes, length, offset);
  int cause = errno;
  held_signal_end(&held);
  errno = cause;
  return good;
}

bool disk_allocate(int fd, off_t size)
{
  struct held_signal held;
  int result;
  held_signal_begin(&held, SIGXFSZ);
#if defined(__APPLE__)
  struct stat found;
  bool grows = fstat(fd, &found) == 0 && found.st_size < size;
  result = !grows || ftruncate(fd, size) == 0 ? 0 : errno;
#else
  do
    result = posix_fallocate(fd, 0, size);
  while (result == EINTR);
#endif
  held_signal_end(&held);
  errno = result;
  return result == 0;
}

bool disk_sync(int fd)
{
#ifdef F_FULLFSYNC
  if (fcntl(fd, F_FULLFSYNC) == 0)
    return true;
#endif
  int result;
  do
    result = fsync(fd);
  while (result != 0 && errno == EINTR);
  return result == 0;
}

bool disk_sync_folder(int fd)
{
  return disk_sync(fd) || errno == EINVAL;
}
