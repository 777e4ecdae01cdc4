#define _DEFAULT_SOURCE
#include "file.h"

#include "../core/json.h"
#include "../core/secret.h"
#include "disk.h"
#include "lockfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What tells one version of the record from the next without reading it. */
struct version {
  bool known;
  bool exists;
  dev_t device;
  ino_t inode;
  off_t size;
  struct timespec modified;
};

struct file_store {
  struct store store;
  char *name; /* as the user wrote it */
  char *path; /* absolute, like the two below */
  char *temporary;
  char *folder;
  struct lockfile lock;
  struct version seen; /* what the last load or save met */
  char *written;       /* the record that a failed save has left in the temporary file, whole; else NULL */
};

static struct timespec modified(const struct stat *found)
{
#if defined(__APPLE__)
  return found->st_mtimespec;
#else
  return found->st_mtim;
#endif
}

static bool is_older(const struct stat *one, const struct stat *other)
{
  struct timespec a = modified(one), b = modified(other);
  return a.tv_sec < b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec < b.tv_nsec);
}

static struct version version_of(const struct stat *found)
{
  return (struct version){.known = true,
                          .exists = true,
                          .device = found->st_dev,
                          .inode = found->st_ino,
                          .size = found->st_size,
                          .modified = modified(found)};
}

static bool is_seen(const struct file_store *file)
{
  struct stat found;
  const struct version *seen = &file->seen;
  if (!seen->known)
    return false;
  if (lstat(file->path, &found) != 0)
    return errno == ENOENT && !seen->exists;
  struct version now = version_of(&found);
  return seen->exists && seen->device == now.device && seen->inode == now.inode && seen->size == now.size &&
         seen->modified.tv_sec == now.modified.tv_sec && seen->modified.tv_nsec == now.modified.tv_nsec;
}

enum content { CONTENT_TEXT, CONTENT_FOREIGN, CONTENT_FAILED };

/* The text of an open file whose fstat is `found`; for CONTENT_TEXT the caller frees it with secret_free. */
static enum content read_text(int fd, const char *path, const struct stat *found, char **text,
                              struct store_error *error)
{
  *text = NULL;
  if (found->st_size > STORE_FILE_LIMIT) {
    disk_refuse(error, path, "is not a token record: it is larger than 8 MiB", "Move that file away.");
    return CONTENT_FOREIGN;
  }
  size_t size = (size_t)found->st_size, length = size;
  char *bytes = malloc(size + 1);
  if (!bytes || !disk_read(fd, bytes, &length)) {
    disk_fail(error, "read", path, bytes ? errno : ENOMEM);
    secret_wipe(bytes, bytes ? size : 0);
    free(bytes);
    return CONTENT_FAILED;
  }
  if (memchr(bytes, '\0', length)) {
    disk_refuse(error, path, "is not a token record: it holds NUL bytes", "Move that file away, or restore it.");
    secret_wipe(bytes, size);
    free(bytes);
    return CONTENT_FOREIGN;
  }
  bytes[length] = '\0';
  *text = bytes;
  return CONTENT_TEXT;
}

/* A path may lead to another program's file by mistake; only what can be a token record is made private. */
static bool may_hold_tokens(const char *text)
{
  return strstr(text, "access_token") || strstr(text, "refresh_token");
}

static bool keep_from_others(struct file_store *file, int fd, const struct stat *found, const char *text,
                             struct store_error *error)
{
  if ((found->st_mode & 077) == 0 || !may_hold_tokens(text))
    return true;
  if (disk_make_private(fd)) {
    file->store.repaired = true;
    return true;
  }
  if (errno == EROFS)
    return true;
  char why[120];
  snprintf(why, sizeof why, "is open to other users, which cannot be mended: %s", strerror(errno));
  disk_refuse(error, file->path, why, "Run chmod 600 on it, or keep the tokens on a disk that has permissions.");
  return false;
}

static enum store_result read_record(struct file_store *file, char **record, struct version *version,
                                     struct store_error *error)
{
  struct stat found;
  *record = NULL;
  *version = (struct version){.known = false};
  int fd = disk_open(file->path, O_RDONLY, &found, error);
  if (fd < 0) {
    version->known = errno == ENOENT;
    return version->known ? STORE_NONE : STORE_FAILED;
  }
  /* Taken before reading: a writer that comes in between shows as a change. */
  struct version before = version_of(&found);
  bool good = read_text(fd, file->path, &found, record, error) == CONTENT_TEXT &&
              keep_from_others(file, fd, &found, *record, error);
  close(fd);
  if (good) {
    *version = before;
  } else {
    secret_free(*record);
    *record = NULL;
  }
  return good ? STORE_OK : STORE_FAILED;
}

static enum store_result load(struct store *store, char **record, struct store_error *error)
{
  struct file_store *file = (struct file_store *)store;
  enum store_result result = read_record(file, record, &file->seen, error);
  if (result == STORE_OK) {
    lockfile_share(&file->lock);
    store->shared = file->lock.page.shared;
  }
  return result;
}

/* What load refuses is somebody else's, or worth a look: it is never replaced. */
static bool may_replace(struct file_store *file, struct store_error *error)
{
  if (is_seen(file))
    return true;
  char *record;
  struct version version;
  enum store_result result = read_record(file, &record, &version, error);
  secret_free(record);
  return result != STORE_FAILED;
}

/* Recovery takes the younger one of the record and a temporary file for the newer one. A clock that was set back
 * between two saves must not mislead it. Best effort: it matters only if we also die right behind it. */
static void date_after_record(int fd, const char *path)
{
  struct stat written, present;
  if (fstat(fd, &written) != 0 || lstat(path, &present) != 0 || !is_older(&written, &present))
    return;
  struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, modified(&present)};
  (void)futimens(fd, times);
}

static void forget_written(struct file_store *file)
{
  secret_free(file->written);
  file->written = NULL;
}

static bool write_whole(struct file_store *file, int fd, const char *record)
{
  if (!disk_make_private(fd) || !disk_write(fd, record, strlen(record)))
    return false;
  if (!file->written)
    file->written = secret_copy(record);
  errno = ENOMEM;
  return file->written != NULL;
}

static bool fill_temporary(struct file_store *file, int fd, const char *record, struct version *version)
{
  struct stat written;
  if (!write_whole(file, fd, record))
    return false;
  date_after_record(fd, file->path);
  if (!disk_sync(fd) || fstat(fd, &written) != 0)
    return false;
  *version = version_of(&written);
  return true;
}

static int create_temporary(const struct file_store *file, struct store_error *error)
{
  if (unlink(file->temporary) != 0 && errno != ENOENT) {
    disk_fail(error, "remove", file->temporary, errno);
    return -1;
  }
  int fd = disk_try_open(file->temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW);
  if (fd < 0)
    disk_fail(error, "create", file->temporary, errno);
  return fd;
}

/* -1 with ENOENT or EINVAL: it is not what it was left as. */
static int reopen_temporary(const struct file_store *file, struct store_error *error)
{
  struct stat found;
  int fd = disk_open(file->temporary, O_WRONLY, &found, error);
  if (fd < 0 || found.st_size == (off_t)strlen(file->written))
    return fd;
  close(fd);
  errno = EINVAL;
  return -1;
}

/* A record that an earlier save has left is written once more over itself, since a sync that failed may have dropped it
 * from the disk's queue: so it is whole at every moment, and whoever comes next finds it if we die. */
static int open_temporary(struct file_store *file, const char *record, struct store_error *error)
{
  if (file->written && strcmp(file->written, record) == 0) {
    int fd = reopen_temporary(file, error);
    if (fd >= 0 || (errno != ENOENT && errno != EINVAL))
      return fd;
  }
  forget_written(file);
  return create_temporary(file, error);
}

/* As when only the sync of the folder had failed. */
static bool is_in_place(struct file_store *file, const char *record)
{
  struct store_error unheeded;
  struct version version;
  char *present;
  bool same = read_record(file, &present, &version, &unheeded) == STORE_OK && strcmp(present, record) == 0;
  secret_free(present);
  return same;
}

/* What was written whole stays where it is, unless it is the record already. */
static void drop_useless_temporary(struct file_store *file, const char *record)
{
  if (file->written && !is_in_place(file, record))
    return;
  forget_written(file);
  unlink(file->temporary);
}

static bool write_temporary(struct file_store *file, const char *record, struct version *version,
                            struct store_error *error)
{
  int fd = open_temporary(file, record, error);
  if (fd < 0)
    return false;
  bool good = fill_temporary(file, fd, record, version);
  int cause = errno;
  /* Network file systems report a full disk only now. An interrupted close has closed, and the data is synced. */
  if (close(fd) != 0 && good && errno != EINTR) {
    good = false;
    cause = errno;
  }
  if (!good) {
    drop_useless_temporary(file, record);
    disk_fail(error, "write", file->temporary, cause);
  }
  return good;
}

static int open_folder(const struct file_store *file, struct store_error *error)
{
  int fd = disk_try_open(file->folder, O_RDONLY | O_DIRECTORY);
  if (fd < 0)
    disk_fail(error, "open the folder", file->folder, errno);
  return fd;
}

static bool put_in_place(const struct file_store *file, struct store_error *error)
{
  int result;
  do
    result = rename(file->temporary, file->path);
  while (result != 0 && errno == EINTR); /* network file systems */
  if (result == 0)
    return true;
  disk_fail(error, "replace", file->path, errno);
  return false;
}

/* Some file systems cannot sync a folder, say so with EINVAL, and do not need it. */
static bool sync_folder(const struct file_store *file, int folder, struct store_error *error)
{
  if (disk_sync(folder) || errno == EINVAL)
    return true;
  disk_doubt(error, file->path, errno);
  return false;
}

static enum store_result save(struct store *store, const char *record, struct store_error *error)
{
  struct file_store *file = (struct file_store *)store;
  struct version version;
  if (strlen(record) > STORE_FILE_LIMIT) {
    disk_refuse(error, file->path, "takes no record larger than 8 MiB", "The server's answer is too large to keep.");
    return STORE_FAILED;
  }
  if (file->seen.known && !is_seen(file))
    return STORE_CHANGED;
  if (!may_replace(file, error))
    return STORE_FAILED;
  int folder = open_folder(file, error);
  if (folder < 0)
    return STORE_FAILED;
  bool good = write_temporary(file, record, &version, error) && put_in_place(file, error);
  if (good) {
    forget_written(file);
    file->seen = version;
    good = sync_folder(file, folder, error);
  }
  close(folder);
  return good ? STORE_OK : STORE_FAILED;
}

static bool is_object(const char *text)
{
  cJSON *json = json_read_whole(text, strlen(text));
  bool object = cJSON_IsObject(json);
  json_free(json);
  return object;
}

static bool finish_rename(const struct file_store *file, int fd, struct store_error *error)
{
  /* Its writer may have died before it did. */
  if (!disk_sync(fd)) {
    disk_fail(error, "recover", file->temporary, errno);
    return false;
  }
  int folder = open_folder(file, error);
  if (folder < 0)
    return false;
  bool good = put_in_place(file, error) && sync_folder(file, folder, error);
  close(folder);
  return good;
}

static bool adopt_or_remove(const struct file_store *file, struct store_error *error)
{
  struct stat found;
  char *text;
  int fd = disk_open(file->temporary, O_RDONLY, &found, error);
  if (fd < 0)
    return false;
  enum content content = read_text(fd, file->temporary, &found, &text, error);
  bool good = content != CONTENT_FAILED;
  if (content == CONTENT_TEXT && is_object(text))
    good = finish_rename(file, fd, error);
  else if (good)
    unlink(file->temporary);
  secret_free(text);
  close(fd);
  return good;
}

/* A writer that died between the last byte of its temporary file and the rename has left the newest tokens in there,
 * maybe the only good ones. Where it cannot be told or done, the lock is not given: the next save would lose them. */
static bool recover(struct file_store *file, struct store_error *error)
{
  struct stat left, present;
  if (lstat(file->temporary, &left) != 0) {
    if (errno == ENOENT)
      return true;
    disk_fail(error, "examine", file->temporary, errno);
    return false;
  }
  if (!may_replace(file, error))
    return false;
  bool ours = S_ISREG(left.st_mode) && left.st_uid == geteuid() && (left.st_mode & 07777) == 0600;
  /* A younger record comes from a writer that knows no lock, such as a new login. */
  if (ours && (lstat(file->path, &present) != 0 || !is_older(&left, &present)))
    return adopt_or_remove(file, error);
  unlink(file->temporary); /* if it stays, save says why */
  return true;
}

static enum store_result lock(struct store *store, struct store_error *error)
{
  struct file_store *file = (struct file_store *)store;
  enum store_result result = lockfile_try(&file->lock, error);
  if (result != STORE_OK)
    return result;
  forget_written(file); /* a parent's */
  if (recover(file, error))
    return STORE_OK;
  lockfile_release(&file->lock);
  return STORE_FAILED;
}

/* Whoever unlocks has given up what it could not save: it is not to come back as the record. */
static void unlock(struct store *store)
{
  struct file_store *file = (struct file_store *)store;
  if (lockfile_is_held(&file->lock)) { /* else what was written is a parent's */
    if (file->written)
      unlink(file->temporary);
    forget_written(file);
  }
  lockfile_release(&file->lock);
}

static void begin(struct store *store, const char *hash)
{
  (void)hash;
  page_begin(&((struct file_store *)store)->lock.page);
}

static void wait(struct store *store, uint64_t seen, double seconds)
{
  page_wait(&((struct file_store *)store)->lock.page, seen, seconds);
}

static bool changed(struct store *store)
{
  return !is_seen((struct file_store *)store);
}

static void forked(struct store *store)
{
  lockfile_forked(&((struct file_store *)store)->lock);
}

static void close_store(struct store *store)
{
  struct file_store *file = (struct file_store *)store;
  lockfile_free(&file->lock);
  secret_free(file->written);
  free(file->name);
  free(file->path);
  free(file->temporary);
  free(file->folder);
  free(file);
}

static const struct store_ops ops = {.load = load,
                                     .save = save,
                                     .lock = lock,
                                     .unlock = unlock,
                                     .begin = begin,
                                     .wait = wait,
                                     .changed = changed,
                                     .forked = forked,
                                     .close = close_store};

static void refuse_setting(struct store_error *error, const char *what, const char *value, const char *why)
{
  error->code = CODE_CONFIG;
  snprintf(error->message, sizeof error->message, "%s \"%.200s\" %s", what, value, why);
}

static void out_of_memory(struct store_error *error)
{
  error->code = CODE_STORAGE;
  snprintf(error->message, sizeof error->message, "the token storage cannot be set up: memory is out.");
}

/* Three strings in one; NULL when one of them is, or memory is out. */
static char *join(const char *first, const char *second, const char *third)
{
  if (!first || !second || !third)
    return NULL;
  size_t size = strlen(first) + strlen(second) + strlen(third) + 1;
  char *joined = malloc(size);
  if (joined)
    snprintf(joined, size, "%s%s%s", first, second, third);
  return joined;
}

/* NULL: error says why. */
static char *absolute(const char *path, const char *base, struct store_error *error)
{
  if (*path == '/')
    base = "";
  char *here = base ? strdup(base) : getcwd(NULL, 0);
  if (!here && errno != ENOMEM) {
    disk_fail(error, "find the present folder for", path, errno);
    return NULL;
  }
  char *joined = join(here, *path == '/' ? "" : "/", path);
  free(here);
  if (!joined)
    out_of_memory(error);
  return joined;
}

/* The folder of an absolute path. */
static char *folder_of(const char *path)
{
  char *folder = strdup(path);
  if (!folder)
    return NULL;
  char *slash = strrchr(folder, '/');
  slash[slash == folder] = '\0';
  return folder;
}

/* The file at `path`, which is absolute, called `name`. */
static struct store *new_store(const char *name, const char *path, struct store_error *error)
{
  struct file_store *file = calloc(1, sizeof *file);
  if (!file) {
    out_of_memory(error);
    return NULL;
  }
  bool paged = lockfile_init(&file->lock, join(path, ".lock", ""));
  file->name = strdup(name);
  file->path = strdup(path);
  file->temporary = join(path, ".tmp", "");
  file->folder = folder_of(path);
  if (!paged || !file->lock.path || !file->name || !file->path || !file->temporary || !file->folder) {
    close_store(&file->store);
    out_of_memory(error);
    return NULL;
  }
  file->store = (struct store){.ops = &ops, .generation = file->lock.page.generation, .name = file->name};
  return &file->store;
}

static bool names_a_file(const char *path, struct store_error *error)
{
  if (!path || !*path) {
    refuse_setting(error, "The path of the token file", "",
                   "is empty: give the path of a file (LUCID_TOKEN_FILE, or the option storage).");
    return false;
  }
  const char *slash = strrchr(path, '/');
  const char *last = slash ? slash + 1 : path;
  if (*last && strcmp(last, ".") != 0 && strcmp(last, "..") != 0)
    return true;
  refuse_setting(error, "The path of the token file", path,
                 "is that of a folder: give the path of a file (LUCID_TOKEN_FILE, or the option storage).");
  return false;
}

struct store *store_file(const char *path, const char *base, struct store_error *error)
{
  if (!names_a_file(path, error))
    return NULL;
  char *whole = absolute(path, base, error);
  if (!whole)
    return NULL;
  struct store *store = new_store(path, whole, error);
  free(whole);
  return store;
}

static bool stands_for_itself(const char *account, size_t position)
{
  char byte = account[position];
  bool inner = position > 0 && account[position + 1] != '\0';
  return strchr("abcdefghijklmnopqrstuvwxyz0123456789-_@", byte) || (byte == '.' && inner);
}

/* "<account>.json" with every byte percent-encoded that could mean something else to some file system. NULL:
 * memory is out. */
static char *file_name(const char *account)
{
  const char *ending = ".json";
  char *name = malloc(3 * strlen(account) + strlen(ending) + 1);
  if (!name)
    return NULL;
  char *end = name;
  for (size_t i = 0; account[i]; i++) {
    if (stands_for_itself(account, i)) {
      *end++ = account[i];
    } else {
      unsigned byte = (unsigned char)account[i];
      *end++ = '%';
      *end++ = "0123456789ABCDEF"[byte / 16];
      *end++ = "0123456789ABCDEF"[byte % 16];
    }
  }
  memcpy(end, ending, strlen(ending) + 1);
  return name;
}

/* File systems take names of at most 255 bytes, and ".lock" is put behind this one. */
static bool fits_folder(const char *name, struct store_error *error)
{
  if (strlen(name) + strlen(".lock") <= 255)
    return true;
  refuse_setting(error, "The account's file", name, "has too long a name: choose a shorter one.");
  return false;
}

static struct store *store_in(const char *directory, const char *folder, const char *name, struct store_error *error)
{
  const char *slash = directory[strlen(directory) - 1] == '/' ? "" : "/";
  char *shown = join(directory, slash, name);
  char *path = join(folder, slash, name);
  struct store *store = NULL;
  if (shown && path)
    store = new_store(shown, path, error);
  else
    out_of_memory(error);
  free(shown);
  free(path);
  return store;
}

struct store *store_directory(const char *directory, const char *base, const char *account, struct store_error *error)
{
  if (!directory || !*directory) {
    refuse_setting(error, "The path of the token folder", "", "is empty: give the path of a folder.");
    return NULL;
  }
  if (!account || !*account)
    account = "default";
  char *name = file_name(account);
  char *folder = absolute(directory, base, error);
  struct store *store = NULL;
  if (!name)
    out_of_memory(error);
  else if (folder && fits_folder(name, error))
    store = store_in(directory, folder, name, error);
  free(name);
  free(folder);
  return store;
}
