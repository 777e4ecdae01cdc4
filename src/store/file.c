#define _DEFAULT_SOURCE
#include "file.h"

#include "../base/json.h"
#include "../base/quote.h"
#include "../base/secret.h"
#include "../record/record.h"
#include "disk.h"
#include "lockfile.h"
#include "mapping.h"
#include "place.h"
#include "spare.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* A version of the record, told from the next one without reading it. */
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
  char *name;   /* as the user wrote it */
  char *path;   /* absolute, like the two below */
  char *former; /* a temporary file's name in earlier versions */
  char *folder;
  struct lockfile lock;
  struct version seen; /* as the last load or save found it */
  struct spare held;   /* the spare that the next save uses up: held for it, or left by a failed save */
  int place;           /* of the last spare's name in the lock file */
  bool knows_spent;    /* it is as the last load met it, and not asked for yet */
  char *spent;         /* LEDGER_TEXT bytes while it is locked; else NULL, or the text of the last call of spent() */
  bool in_doubt;       /* the record is in place, but its folder could not be synced */
  bool unsettled;      /* a temporary file's maker lives, although the lock is ours */
  bool told;           /* that a group may write in the folder */
};

static struct version version_of(const struct stat *found)
{
  return (struct version){.known = true,
                          .exists = true,
                          .device = found->st_dev,
                          .inode = found->st_ino,
                          .size = found->st_size,
                          .modified = disk_modified(found)};
}

static bool is_version(const struct version *seen, const struct stat *found)
{
  struct version now = version_of(found);
  return seen->exists && seen->device == now.device && seen->inode == now.inode && seen->size == now.size &&
         seen->modified.tv_sec == now.modified.tv_sec && seen->modified.tv_nsec == now.modified.tv_nsec;
}

static bool is_seen(const struct file_store *file)
{
  struct stat found;
  if (!file->seen.known)
    return false;
  if (lstat(file->path, &found) != 0)
    return errno == ENOENT && !file->seen.exists;
  return is_version(&file->seen, &found);
}

/* Space that was set apart for a file shows as NULs at its end, when its writer died before it cut them off. A file of
 * nothing else is no empty record, but one that is lost. */
static size_t without_nuls_behind(const char *bytes, size_t length)
{
  size_t end = length;
  while (end > 0 && bytes[end - 1] == '\0')
    end--;
  return end > 0 ? end : length;
}

enum content { CONTENT_TEXT, CONTENT_FOREIGN, CONTENT_FAILED };

/* The text of an open file whose fstat is `found`; for CONTENT_TEXT the caller frees it with secret_free. */
static enum content read_text_file(int fd, const char *path, const struct stat *found, char **text,
                                   struct store_error *error)
{
  *text = NULL;
  if (found->st_size > STORE_FILE_LIMIT) {
    disk_refuse(error, path, "is not a token record: it is larger than 2 MiB", "Move that file away.");
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
  length = without_nuls_behind(bytes, length);
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

/* A path may lead to another program's file by mistake. Only a file that can be a token record is made private. */
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

static enum store_result read_record_file(struct file_store *file, char **record, struct version *version,
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
  bool good = read_text_file(fd, file->path, &found, record, error) == CONTENT_TEXT &&
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

static bool recover_spares(struct file_store *file, struct store_error *error);

/* NULL: out of memory. */
static char *spent_text(struct file_store *file)
{
  if (!file->spent)
    file->spent = malloc(LEDGER_TEXT);
  return file->spent;
}

static enum store_result file_load(struct store *store, char **record, struct store_error *error)
{
  struct file_store *file = (struct file_store *)store;
  if (file->unsettled && lockfile_is_held(&file->lock) && !file->held.name[0])
    (void)recover_spares(file, error); /* its maker may have ended meanwhile */
  enum store_result result = read_record_file(file, record, &file->seen, error);
  file->knows_spent = false;
  if (result == STORE_OK) {
    file->knows_spent = lockfile_share(&file->lock, spent_text(file));
    store->shared = page_is_shared(&file->lock.page);
  }
  return result;
}

/* A file that load refuses belongs to another program, or is worth a look: it is never replaced. */
static bool may_replace(struct file_store *file, struct store_error *error)
{
  if (is_seen(file))
    return true;
  char *record;
  struct version version;
  enum store_result result = read_record_file(file, &record, &version, error);
  secret_free(record);
  return result != STORE_FAILED;
}

/* ---- saving ---- */

/* The spare that is held for an answer takes SPACE bytes, or LEAST_SPACE if the disk has no more: enough for the
 * tokens. In that case, or if an answer is larger, its side fields may have to go. */
enum { SPACE = 64 * 1024, LEAST_SPACE = 8 * 1024 };

/* The lock file's first place for a name is for the spare that is held. The others take turns. */
enum { HELD_PLACE, FIRST_PLACE };

static void note_name(struct file_store *file, const struct spare *spare, int place)
{
  int ledger = lockfile_ledger(&file->lock);
  if (ledger >= 0)
    (void)ledger_put_name(ledger, place, spare->name);
}

static int next_place(struct file_store *file)
{
  file->place = file->place + 1 < LEDGER_NAMES ? file->place + 1 : FIRST_PLACE;
  return file->place;
}

/* The name is noted before the file exists, so that the next lock holder knows of it. */
static bool make_spare(struct file_store *file, struct spare *spare, struct store_error *error)
{
  if (!spare_begin(spare, file->path, file->folder, error))
    return false;
  note_name(file, spare, next_place(file));
  return spare_make(spare, file->path, 0, 0, error);
}

/* Make another spare if this one was removed or closed, or holds another record. It stays in `former` until this record
 * is written. */
static bool renew_spare(struct file_store *file, struct spare *spare, struct spare *former, const char *record,
                        struct store_error *error)
{
  struct spare fresh;
  *former = SPARE_NONE;
  bool ready = spare_is_ready(spare, file->path);
  if (ready && (spare->whole == 0 || spare_holds(spare, record)))
    return true;
  if (!make_spare(file, &fresh, error))
    return ready;
  *former = *spare;
  *spare = fresh;
  return true;
}

/* A spare with a whole record stays, unless the record is a copy of the one in place. */
static void drop_useless(struct file_store *file, struct spare *spare, const char *record)
{
  struct store_error unheeded;
  struct version version;
  char *present = NULL;
  bool copy = spare->whole > 0 && file->in_doubt && read_record_file(file, &present, &version, &unheeded) == STORE_OK &&
              strcmp(present, record) == 0;
  secret_free(present);
  if (copy || (spare->whole == 0 && !spare->reserved))
    spare_remove(spare, file->path);
}

static bool write_spare(struct spare *spare, const char *record, const struct stat *present, struct stat *written)
{
  if (strlen(record) > STORE_FILE_LIMIT) {
    errno = EFBIG;
    return false;
  }
  return spare_write(spare, record, present, written);
}

/* Before tokens are lost their side fields are. */
static bool write_all_or_essentials(struct spare *spare, const char *record, const struct stat *present,
                                    struct stat *written)
{
  if (write_spare(spare, record, present, written))
    return true;
  int cause = errno;
  char *less = disk_is_out_of_room(cause) ? record_essentials(record) : NULL;
  bool good = less && write_spare(spare, less, present, written);
  if (!good)
    errno = cause;
  int kept = errno;
  secret_free(less);
  errno = kept;
  return good;
}

static bool fill_spare(struct file_store *file, struct spare *spare, const char *record, struct version *version,
                       struct store_error *error)
{
  struct stat present, written;
  bool there = spare_stat_record(spare, file->path, &present);
  if (write_all_or_essentials(spare, record, there ? &present : NULL, &written)) {
    *version = version_of(&written);
    return true;
  }
  if (strlen(record) > STORE_FILE_LIMIT)
    disk_refuse(error, file->path, "takes no record larger than 2 MiB", "The server's answer is too large to keep.");
  else
    disk_fail(error, "write a file beside", file->path, errno);
  drop_useless(file, spare, record);
  return false;
}

/* ---- a mark takes the record's place ---- */

enum { EXCHANGES_MOST = 8 };

static bool is_same_file(const struct stat *one, const struct stat *other)
{
  return one->st_dev == other->st_dev && one->st_ino == other->st_ino;
}

/* Another writer's record has come out. It is put back; if the exchange brings out a later one, that one is put back,
 * and so on. False: errno says why. The record then stays under the spare's name, where the next lock holder finds
 * it. */
static bool put_record_back(const struct file_store *file, struct spare *spare, struct stat out)
{
  struct stat put, back;
  if (fstat(spare->file.fd, &put) != 0)
    return false;
  for (int i = 0; i < EXCHANGES_MOST; i++) {
    if (!spare_exchange(spare, file->path) || !spare_stat(spare, file->path, &back))
      return false;
    if (is_same_file(&back, &put))
      return true;
    put = out;
    out = back;
  }
  errno = EBUSY;
  return false;
}

/* The file that has come out is the one that was looked at, and is not needed any more, or it is another writer's. A
 * file that stays would be taken for the record after a crash. */
static enum store_result judge_replaced(const struct file_store *file, struct spare *spare)
{
  struct stat out;
  if (!spare_stat(spare, file->path, &out))
    return STORE_FAILED;
  if (is_version(&file->seen, &out))
    return spare_unlink(spare, file->path) ? STORE_OK : STORE_FAILED;
  if (put_record_back(file, spare, out))
    return STORE_CHANGED;
  int cause = errno;
  spare_leave(spare);
  errno = cause;
  return STORE_FAILED;
}

static bool is_unknown_call(int cause)
{
  return cause == EINVAL || cause == ENOSYS || cause == ENOTSUP || cause == EOPNOTSUPP || cause == EPERM;
}

static enum store_result place_plainly(const struct file_store *file, const struct spare *spare)
{
  return spare_place(spare, file->path) ? STORE_OK : STORE_FAILED;
}

static enum store_result place_first(const struct file_store *file, const struct spare *spare)
{
  if (spare_place_first(spare, file->path))
    return STORE_OK;
  if (errno == EEXIST)
    return STORE_CHANGED;
  return is_unknown_call(errno) ? place_plainly(file, spare) : STORE_FAILED;
}

/* The mark gets the date of the record that it replaces. After a crash the file under the spare's name is then never
 * the older one. Nothing was spent yet. */
static enum store_result place_by_exchange(const struct file_store *file, struct spare *spare, struct version *version)
{
  struct stat dated;
  if (spare_date(spare, file->seen.modified) && fstat(spare->file.fd, &dated) == 0)
    *version = version_of(&dated);
  if (spare_exchange(spare, file->path))
    return judge_replaced(file, spare);
  int cause = errno;
  if (cause == ENOENT && !spare_stat_record(spare, file->path, &dated))
    return STORE_CHANGED;
  errno = cause;
  return is_unknown_call(cause) ? place_plainly(file, spare) : STORE_FAILED;
}

/* FAILED: errno says why. An answer's tokens are worth more than a record that another writer may put there at the
 * moment of the rename; a mark is not. */
static enum store_result take_place(const struct file_store *file, struct spare *spare, struct version *version)
{
  if (spare == &file->held || !file->seen.known)
    return place_plainly(file, spare);
  return file->seen.exists ? place_by_exchange(file, spare, version) : place_first(file, spare);
}

/* ---- it is in place ---- */

static bool make_place_durable(struct file_store *file, struct spare *spare, const struct version *version,
                               struct store_error *error)
{
  file->seen = *version;
  file->in_doubt = !spare_sync_folder(spare);
  if (file->in_doubt)
    disk_doubt(error, file->path, errno);
  spare_leave(spare);
  return !file->in_doubt;
}

/* FAILED with `taken`: the file was removed, and another spare may do. */
static enum store_result put_spare_in_place(struct file_store *file, struct spare *spare, struct version *version,
                                            bool *taken, struct store_error *error)
{
  enum store_result result = take_place(file, spare, version);
  *taken = result == STORE_FAILED && errno == ENOENT;
  if (result == STORE_FAILED)
    disk_fail(error, "replace", file->path, errno);
  if (result == STORE_OK && !make_place_durable(file, spare, version, error))
    result = STORE_FAILED;
  return result;
}

static bool fill_anew(struct file_store *file, struct spare *spare, const char *record, struct version *version,
                      struct store_error *error)
{
  struct spare former;
  if (!renew_spare(file, spare, &former, record, error))
    return false;
  bool good = fill_spare(file, spare, record, version, error);
  if (!former.name[0])
    return good;
  if (!good && former.whole > 0) {
    spare_remove(spare, file->path);
    *spare = former;
    return false;
  }
  spare_remove(&former, file->path);
  return good;
}

/* A held spare was made when the record was last looked at, so the record is looked at in the same folder. */
static bool is_unchanged(const struct file_store *file, const struct spare *spare)
{
  struct stat found;
  if (!descriptor_is_ours(&spare->folder))
    return is_seen(file);
  if (!spare_stat_record(spare, file->path, &found))
    return errno == ENOENT && !file->seen.exists;
  return is_version(&file->seen, &found);
}

/* To write takes time, and where the lock file was removed another writer may have used it: a second look, as late as
 * can be. */
static enum store_result replace_record(struct file_store *file, struct spare *spare, const char *record,
                                        struct store_error *error)
{
  struct version version;
  enum store_result result = STORE_FAILED;
  bool taken = true;
  for (int i = 0; i < 2 && taken; i++) {
    if (!fill_anew(file, spare, record, &version, error))
      return STORE_FAILED;
    if (file->seen.known && !is_unchanged(file, spare))
      return STORE_CHANGED;
    result = put_spare_in_place(file, spare, &version, &taken, error);
    if (taken)
      spare_leave(spare);
  }
  return result;
}

/* ---- a folder that was moved meanwhile ---- */

static bool is_at_path(const struct file_store *file, const struct descriptor *folder)
{
  struct stat named;
  return stat(file->folder, &named) == 0 && descriptor_leads_to(folder, &named);
}

/* There is no record, or a copy of our mark's: no other login's. */
static bool is_ours_to_replace(struct file_store *file, const char *name)
{
  struct store_error unheeded;
  struct version version;
  char *present;
  enum store_result result = read_record_file(file, &present, &version, &unheeded);
  bool ours = result == STORE_NONE || (result == STORE_OK && strstr(present, name));
  secret_free(present);
  return ours;
}

/* The save went into the folder that was held, but the next reader follows the path. */
static void save_along_path(struct file_store *file, const char *name, const char *record)
{
  struct store_error unheeded;
  struct spare other;
  struct version version;
  if (!is_ours_to_replace(file, name) || !spare_begin(&other, file->path, file->folder, &unheeded) ||
      !spare_make(&other, file->path, 0, 0, &unheeded))
    return;
  if (!fill_spare(file, &other, record, &version, &unheeded) || !spare_place(&other, file->path) ||
      !make_place_durable(file, &other, &version, &unheeded))
    spare_remove(&other, file->path);
}

/* ---- save, hold ---- */

static bool may_write(struct file_store *file, const struct spare *spare, struct store_error *error)
{
  /* The tokens of an answer must be kept, even if another process has the lock by now: no other process has written
   * since. */
  if (!lockfile_is_lost(&file->lock) || (spare == &file->held && file->held.name[0]))
    return true;
  disk_refuse(error, file->path, "is not locked any more: this program has closed its lock file",
              "A program that closes all files, to become a daemon, has to do so before it uses tokens.");
  return false;
}

static enum store_result save_by(struct file_store *file, struct spare *spare, const char *record,
                                 struct store_error *error)
{
  if (file->seen.known && !is_unchanged(file, spare))
    return STORE_CHANGED;
  if (!may_write(file, spare, error) || (!file->seen.known && !may_replace(file, error)))
    return STORE_FAILED;
  return replace_record(file, spare, record, error);
}

static enum store_result file_save(struct store *store, const char *record, struct store_error *error)
{
  struct file_store *file = (struct file_store *)store;
  struct descriptor folder = file->held.folder;
  char name[LEDGER_NAME];
  memcpy(name, file->held.name, sizeof name);
  bool was_held = name[0] && descriptor_is_ours(&folder);
  enum store_result result = save_by(file, &file->held, record, error);
  if (result == STORE_OK && was_held && !is_at_path(file, &folder))
    save_along_path(file, name, record);
  return result;
}

static enum store_result file_save_mark(struct store *store, const char *record, struct store_error *error)
{
  struct file_store *file = (struct file_store *)store;
  struct spare mark = SPARE_NONE;
  enum store_result result = save_by(file, &mark, record, error);
  if (mark.name[0])
    spare_remove(&mark, file->path);
  return result;
}

static void refuse_folder(const struct file_store *file, bool ours, struct store_error *error)
{
  char remedy[200], plain[90];
  quote_escape(plain, sizeof plain, file->folder);
  bool usable = strcmp(plain, file->folder) == 0; /* on a command line, too */
  if (ours)
    snprintf(remedy, sizeof remedy, "Run chmod o-w on it.");
  else
    snprintf(remedy, sizeof remedy, "Keep the tokens in a folder of this program's own (install -d -m 700 %s/lucid).",
             usable ? plain : "FOLDER");
  disk_refuse(error, file->folder, "is a folder in which every user may replace the token file", remedy);
}

/* In a folder without the sticky bit, every user with write permission can remove our files. */
static bool is_safe_folder(struct file_store *file, const struct descriptor *folder, struct store_error *error)
{
  struct stat found;
  if (fstat(folder->fd, &found) != 0 || (found.st_mode & S_ISVTX))
    return true;
  if (found.st_mode & S_IWOTH) {
    refuse_folder(file, found.st_uid == geteuid(), error);
    return false;
  }
  if ((found.st_mode & S_IWGRP) && !file->told)
    file->store.exposed = file->told = true;
  return true;
}

static enum store_result file_hold(struct store *store, const char **note, struct store_error *error)
{
  struct file_store *file = (struct file_store *)store;
  *note = NULL;
  if (!spare_is_ready(&file->held, file->path)) {
    spare_leave(&file->held);
    if (!spare_begin(&file->held, file->path, file->folder, error))
      return STORE_FAILED;
    if (!is_safe_folder(file, &file->held.folder, error)) {
      spare_leave(&file->held);
      return STORE_FAILED;
    }
    note_name(file, &file->held, HELD_PLACE);
    if (!spare_make(&file->held, file->path, SPACE, LEAST_SPACE, error))
      return STORE_FAILED;
  }
  *note = file->held.name;
  return STORE_OK;
}

/* ---- files that a dead writer has left ---- */

static bool is_object(const char *text)
{
  cJSON *json = json_read_whole(text, strlen(text));
  bool object = cJSON_IsObject(json);
  json_free(json);
  return object;
}

/* NULs that stay are read past. */
static void cut_off(int fd, off_t length)
{
  struct stat found;
  if (fstat(fd, &found) == 0 && found.st_size > length)
    (void)!ftruncate(fd, length);
}

static bool finish_rename(struct file_store *file, const char *left, int fd, size_t length, struct store_error *error)
{
  /* Its writer may have died before it did. */
  cut_off(fd, (off_t)length);
  if (!disk_sync(fd)) {
    disk_fail(error, "recover", left, errno);
    return false;
  }
  int folder = disk_try_open(file->folder, O_RDONLY | O_DIRECTORY);
  if (folder < 0) {
    disk_fail(error, "open the folder of", file->path, errno);
    return false;
  }
  bool good = rename(left, file->path) == 0;
  if (!good)
    disk_fail(error, "replace", file->path, errno);
  else if (!disk_sync_folder(folder)) {
    disk_doubt(error, file->path, errno);
    good = false;
  }
  close(folder);
  return good;
}

static bool adopt_or_remove(struct file_store *file, const char *left, int fd, const struct stat *found,
                            struct store_error *error)
{
  char *text;
  enum content content = read_text_file(fd, left, found, &text, error);
  bool good = content != CONTENT_FAILED;
  if (content == CONTENT_TEXT && is_object(text))
    good = finish_rename(file, left, fd, strlen(text), error);
  else if (good)
    unlink(left);
  secret_free(text);
  return good;
}

/* A younger record comes from a writer that knows no lock, such as a new login. */
static bool is_outdated(const struct file_store *file, const struct stat *left)
{
  struct stat present;
  return lstat(file->path, &present) == 0 && disk_is_older(left, &present);
}

static bool settle_left(struct file_store *file, const char *left, struct store_error *error)
{
  struct stat found;
  bool good = true;
  int fd = disk_open(left, O_RDWR, &found, error);
  if (fd < 0)
    return false;
  if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
    file->unsettled = true; /* its maker lives, under a lock file that is gone */
  else if (is_outdated(file, &found))
    unlink(left);
  else
    good = adopt_or_remove(file, left, fd, &found, error);
  close(fd);
  return good;
}

/* Under a name that can be guessed another user may have put a link to a file of ours. */
static bool is_own_file(const struct stat *left, bool guessable)
{
  return S_ISREG(left->st_mode) && left->st_uid == geteuid() && (left->st_mode & 07777) == 0600 &&
         (!guessable || left->st_nlink == 1);
}

/* A writer that died between the last byte of its temporary file and the rename has left the newest tokens in there,
 * maybe the only good ones. Where it cannot be told or done, the lock is not given: the next save would lose them. */
static bool recover_file(struct file_store *file, const char *left, bool guessable, struct store_error *error)
{
  struct stat found;
  if (lstat(left, &found) != 0) {
    if (errno == ENOENT)
      return true;
    disk_fail(error, "examine", left, errno);
    return false;
  }
  if (!may_replace(file, error))
    return false;
  if (is_own_file(&found, guessable))
    return settle_left(file, left, error);
  unlink(left); /* if it stays, it does no harm */
  return true;
}

static bool recover_name(struct file_store *file, const char *name, struct store_error *error)
{
  char base[SPARE_PATH];
  spare_path(file->path, name, base);
  char *left = place_join(file->folder, "/", base);
  if (!left) {
    place_out_of_memory(error);
    return false;
  }
  bool good = recover_file(file, left, false, error);
  free(left);
  return good;
}

/* The name that a mark tells; "": there is no mark, or it tells none. */
static void name_in_mark(struct file_store *file, char name[LEDGER_NAME])
{
  struct store_error unheeded;
  struct version version;
  char *text;
  name[0] = '\0';
  if (read_record_file(file, &text, &version, &unheeded) != STORE_OK || !strstr(text, "\"held\"")) {
    secret_free(text);
    return;
  }
  cJSON *json = json_read(text, strlen(text));
  const char *held = json_string(cJSON_GetObjectItemCaseSensitive(json, "pending"), "held");
  if (held && ledger_is_name(held))
    memcpy(name, held, LEDGER_NAME);
  json_free(json);
  secret_free(text);
}

static bool recover_spares(struct file_store *file, struct store_error *error)
{
  char names[LEDGER_NAMES + 1][LEDGER_NAME] = {{0}};
  int ledger = lockfile_ledger(&file->lock);
  if (ledger >= 0)
    ledger_names(ledger, names);
  name_in_mark(file, names[LEDGER_NAMES]);
  file->unsettled = false;
  for (int i = 0; i < LEDGER_NAMES + 1; i++)
    if (names[i][0] && !recover_name(file, names[i], error))
      return false;
  return recover_file(file, file->former, true, error);
}

/* ---- the lock ---- */

static enum store_result file_lock(struct store *store, struct store_error *error)
{
  struct file_store *file = (struct file_store *)store;
  enum store_result result = lockfile_try(&file->lock, error);
  if (result != STORE_OK)
    return result;
  spare_leave(&file->held); /* a parent's */
  file->in_doubt = false;
  if (!spent_text(file))
    place_out_of_memory(error);
  else if (recover_spares(file, error))
    return STORE_OK;
  lockfile_release(&file->lock);
  return STORE_FAILED;
}

/* Unlocking gives up a record that could not be saved: it must not come back later. */
static void file_unlock(struct store *store)
{
  struct file_store *file = (struct file_store *)store;
  if (lockfile_is_held(&file->lock) && file->held.name[0]) /* else it is a parent's */
    spare_remove(&file->held, file->path);
  lockfile_release(&file->lock);
  free(file->spent);
  file->spent = NULL;
}

static const char *file_lock_identity(struct store *store)
{
  return ((struct file_store *)store)->lock.identity;
}

static bool file_excludes_others(struct store *store)
{
  return lockfile_excludes_others(&((struct file_store *)store)->lock);
}

static void file_begin(struct store *store)
{
  page_begin(&((struct file_store *)store)->lock.page);
}

static void file_spend(struct store *store, const char *hash)
{
  int ledger = lockfile_ledger(&((struct file_store *)store)->lock);
  if (ledger >= 0)
    ledger_spend(ledger, hash);
}

/* Without the lock the file is opened for it. */
static const char *file_spent(struct store *store)
{
  struct file_store *file = (struct file_store *)store;
  bool known = file->knows_spent;
  file->knows_spent = false;
  if (!spent_text(file) || (!known && !lockfile_read_spent(&file->lock, file->spent)))
    return NULL;
  return *file->spent ? file->spent : NULL;
}

static void file_reject(struct store *store, uint64_t fingerprint)
{
  page_reject(&((struct file_store *)store)->lock.page, fingerprint);
}

static void file_rejected(struct store *store, uint64_t fingerprints[STORE_REJECTED])
{
  page_rejected(&((struct file_store *)store)->lock.page, fingerprints);
}

static void file_wait(struct store *store, uint64_t seen, double seconds)
{
  page_wait(&((struct file_store *)store)->lock.page, seen, seconds);
}

static bool file_changed(struct store *store)
{
  mapping_guard();
  return !is_seen((struct file_store *)store);
}

static void file_forked(struct store *store)
{
  struct file_store *file = (struct file_store *)store;
  spare_leave(&file->held);
  lockfile_forked(&file->lock);
}

/* A spare with a whole record is left to the next lock holder. */
static void file_close(struct store *store)
{
  struct file_store *file = (struct file_store *)store;
  if (lockfile_is_held(&file->lock) && file->held.name[0] && file->held.whole == 0)
    spare_remove(&file->held, file->path);
  spare_leave(&file->held);
  lockfile_free(&file->lock);
  free(file->spent);
  free(file->name);
  free(file->path);
  free(file->former);
  free(file->folder);
  free(file);
}

static const struct store_ops ops = {.load = file_load,
                                     .save = file_save,
                                     .lock = file_lock,
                                     .unlock = file_unlock,
                                     .begin = file_begin,
                                     .wait = file_wait,
                                     .changed = file_changed,
                                     .forked = file_forked,
                                     .close = file_close,
                                     .hold = file_hold,
                                     .save_mark = file_save_mark,
                                     .lock_identity = file_lock_identity,
                                     .excludes_others = file_excludes_others,
                                     .spend = file_spend,
                                     .spent = file_spent,
                                     .reject = file_reject,
                                     .rejected = file_rejected};

/* ---- opening ---- */

/* The file at `path`, which is absolute, called `name`. */
static struct store *new_store(const char *name, const char *path, struct store_error *error)
{
  struct file_store *file = calloc(1, sizeof *file);
  if (!file) {
    place_out_of_memory(error);
    return NULL;
  }
  file->held = SPARE_NONE;
  bool paged = lockfile_init(&file->lock, place_join(path, ".lock", ""));
  file->name = strdup(name);
  file->path = strdup(path);
  file->former = place_join(path, ".tmp", "");
  file->folder = place_folder(path);
  if (!paged || !file->lock.path || !file->name || !file->path || !file->former || !file->folder) {
    file_close(&file->store);
    place_out_of_memory(error);
    return NULL;
  }
  file->store = (struct store){.ops = &ops, .generation = file->lock.page.generation, .name = file->name};
  return &file->store;
}

struct store *store_file(const char *path, const char *base, struct store_error *error)
{
  if (!place_is_file(path, error))
    return NULL;
  char *whole = place_absolute(path, base, error);
  if (!whole)
    return NULL;
  struct store *store = new_store(path, whole, error);
  free(whole);
  return store;
}

static struct store *store_in(const char *directory, const char *folder, const char *name, struct store_error *error)
{
  const char *slash = directory[strlen(directory) - 1] == '/' ? "" : "/";
  char *shown = place_join(directory, slash, name);
  char *path = place_join(folder, slash, name);
  struct store *store = NULL;
  if (shown && path)
    store = new_store(shown, path, error);
  else
    place_out_of_memory(error);
  free(shown);
  free(path);
  return store;
}

struct store *store_directory(const char *directory, const char *base, const char *account, struct store_error *error)
{
  if (!directory || !*directory) {
    place_refuse(error, "The path of the token folder", "", "is empty: give the path of a folder.");
    return NULL;
  }
  if (!account || !*account)
    account = "default";
  char *name = place_file_name(account);
  char *folder = place_absolute(directory, base, error);
  struct store *store = NULL;
  if (!name)
    place_out_of_memory(error);
  else if (folder && place_fits_folder(name, error))
    store = store_in(directory, folder, name, error);
  free(name);
  free(folder);
  return store;
}
