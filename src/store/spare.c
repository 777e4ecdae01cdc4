#define _GNU_SOURCE
#include "spare.h"

#include "../base/secret.h"
#include "../system/random.h"
#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* A longer name of a record would not leave room for ours behind it. */
enum { LONGEST_BASE = 200 };

static const char *base_of(const char *path)
{
  return strrchr(path, '/') + 1;
}

void spare_path(const char *path, const char *name, char file[SPARE_PATH])
{
  const char *base = base_of(path);
  snprintf(file, SPARE_PATH, "%s.tmp-%s", strlen(base) > LONGEST_BASE ? "" : base, name);
}

static void choose_name(struct spare *spare)
{
  unsigned char bytes[(LEDGER_NAME - 1) / 2];
  random_fill(bytes, sizeof bytes);
  for (size_t i = 0; i < sizeof bytes; i++)
    snprintf(spare->name + 2 * i, 3, "%02x", bytes[i]);
}

bool spare_begin(struct spare *spare, const char *path, const char *folder, struct store_error *error)
{
  *spare = SPARE_NONE;
  if (!descriptor_hold(&spare->folder, disk_try_open(folder, O_RDONLY | O_DIRECTORY))) {
    disk_fail(error, "open the folder of", path, errno);
    return false;
  }
  choose_name(spare);
  return true;
}

/* ---- space ---- */

static bool fill_with_nuls(int fd, off_t size)
{
  static const char nuls[4096];
  for (off_t at = 0; at < size; at += (off_t)sizeof nuls)
    if (!disk_write_longer(fd, nuls, sizeof nuls, at))
      return false;
  return true;
}

/* Where the system cannot set space apart it is written to, which is the best that can be done. */
static bool take_space(int fd, off_t size)
{
  if (disk_allocate(fd, size))
    return true;
  return (errno == EOPNOTSUPP || errno == ENOTSUP || errno == EINVAL || errno == ENOSYS) && fill_with_nuls(fd, size);
}

static bool take_some_space(int fd, off_t space, off_t least)
{
  if (space == 0 || take_space(fd, space))
    return true;
  return disk_is_out_of_room(errno) && least < space && ftruncate(fd, 0) == 0 && take_space(fd, least);
}

static int create(const struct spare *spare, const char *path)
{
  char file[SPARE_PATH];
  int fd;
  spare_path(path, spare->name, file);
  do
    fd = openat(spare->folder.fd, file, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  while (fd < 0 && errno == EINTR);
  return descriptor_keep(fd);
}

bool spare_make(struct spare *spare, const char *path, off_t space, off_t least, struct store_error *error)
{
  const char *doing = "create a file beside";
  int fd = create(spare, path);
  bool made = fd >= 0, good = descriptor_hold(&spare->file, fd);
  if (good) {
    doing = "write a file beside";
    (void)flock(spare->file.fd, LOCK_EX | LOCK_NB); /* where there are no such locks, nobody looks for them either */
    good = disk_make_private(spare->file.fd) && take_some_space(spare->file.fd, space, least);
  }
  spare->reserved = space > 0;
  if (good)
    return true;
  disk_fail(error, doing, path, errno);
  if (made)
    spare_remove(spare, path);
  else
    spare_leave(spare);
  return false;
}

/* ---- the spare that is held ---- */

bool spare_is_ready(const struct spare *spare, const char *path)
{
  struct stat named;
  if (!spare->name[0] || !descriptor_is_ours(&spare->folder) || !descriptor_is_ours(&spare->file))
    return false;
  return spare_stat(spare, path, &named) && descriptor_leads_to(&spare->file, &named);
}

bool spare_holds(const struct spare *spare, const char *record)
{
  char part[1024];
  bool same = spare->whole > 0 && spare->whole == strlen(record);
  for (size_t at = 0; same && at < spare->whole; at += sizeof part) {
    size_t left = spare->whole - at, length = left < sizeof part ? left : sizeof part;
    same = pread(spare->file.fd, part, length, (off_t)at) == (ssize_t)length && memcmp(part, record + at, length) == 0;
  }
  secret_wipe(part, sizeof part);
  return same;
}

/* Recovery takes the younger one of the record and a spare for the newer one. A clock that was set back between two
 * saves must not mislead it. Best effort: it matters only if we also die right behind it. */
static void date_after(const struct spare *spare, const struct stat *present)
{
  struct stat found;
  if (present && fstat(spare->file.fd, &found) == 0 && disk_is_older(&found, present))
    (void)spare_date(spare, disk_modified(present));
}

/* Readers skip NULs after the record, so only other bytes have to go. */
static bool cut_behind(const struct spare *spare, off_t length)
{
  struct stat found;
  if (fstat(spare->file.fd, &found) != 0 || found.st_size == length)
    return true;
  return ftruncate(spare->file.fd, length) == 0 || spare->written <= length;
}

bool spare_write(struct spare *spare, const char *record, const struct stat *present, struct stat *written)
{
  int fd = spare->file.fd;
  size_t length = strlen(record);
  if (!spare_holds(spare, record))
    spare->whole = 0;
  if (!disk_make_private(fd))
    return false;
  if ((off_t)length > spare->written)
    spare->written = (off_t)length;
  if (!disk_write_longer(fd, record, length, 0) || !cut_behind(spare, (off_t)length))
    return false;
  spare->written = (off_t)length;
  spare->whole = length;
  date_after(spare, present);
  return disk_sync(fd) && fstat(fd, written) == 0;
}

bool spare_place(const struct spare *spare, const char *path)
{
  char file[SPARE_PATH];
  int result;
  spare_path(path, spare->name, file);
  do
    result = renameat(spare->folder.fd, file, spare->folder.fd, base_of(path));
  while (result != 0 && errno == EINTR); /* network file systems */
  return result == 0;
}

#ifndef RENAME_NOREPLACE
enum { RENAME_NOREPLACE = 1, RENAME_EXCHANGE = 2 };
#endif

/* A rename of another kind, where the system has it; else ENOSYS. */
static bool rename_in(int folder, const char *from, const char *to, bool exchanged)
{
  int result;
  do {
#if defined(__APPLE__)
    result = renameatx_np(folder, from, folder, to, exchanged ? RENAME_SWAP : RENAME_EXCL);
#elif defined(__linux__)
    result = renameat2(folder, from, folder, to, exchanged ? RENAME_EXCHANGE : RENAME_NOREPLACE);
#else
    (void)folder, (void)from, (void)to, (void)exchanged;
    errno = ENOSYS;
    result = -1;
#endif
  } while (result != 0 && errno == EINTR);
  return result == 0;
}

bool spare_exchange(const struct spare *spare, const char *path)
{
  char file[SPARE_PATH];
  spare_path(path, spare->name, file);
  return rename_in(spare->folder.fd, file, base_of(path), true);
}

bool spare_place_first(const struct spare *spare, const char *path)
{
  char file[SPARE_PATH];
  spare_path(path, spare->name, file);
  return rename_in(spare->folder.fd, file, base_of(path), false);
}

bool spare_sync_folder(const struct spare *spare)
{
  return disk_sync_folder(spare->folder.fd);
}

bool spare_stat_record(const struct spare *spare, const char *path, struct stat *found)
{
  return fstatat(spare->folder.fd, base_of(path), found, AT_SYMLINK_NOFOLLOW) == 0;
}

bool spare_stat(const struct spare *spare, const char *path, struct stat *found)
{
  char file[SPARE_PATH];
  spare_path(path, spare->name, file);
  return fstatat(spare->folder.fd, file, found, AT_SYMLINK_NOFOLLOW) == 0;
}

bool spare_date(const struct spare *spare, struct timespec modified)
{
  struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, modified};
  return futimens(spare->file.fd, times) == 0;
}

bool spare_unlink(const struct spare *spare, const char *path)
{
  char file[SPARE_PATH];
  spare_path(path, spare->name, file);
  return unlinkat(spare->folder.fd, file, 0) == 0;
}

void spare_leave(struct spare *spare)
{
  descriptor_close(&spare->file);
  descriptor_close(&spare->folder);
  *spare = SPARE_NONE;
}

void spare_remove(struct spare *spare, const char *path)
{
  if (!descriptor_is_gone(&spare->folder))
    (void)spare_unlink(spare, path);
  spare_leave(spare);
}
