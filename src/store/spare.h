/* A spare file: a new record is written into it, made durable and put in the old one's place, so that a record is
 * replaced and never rewritten. It lies in the record's folder, under a name that cannot be guessed, and is kept open
 * together with the folder. Such a spare needs no more descriptors and no memory, nor disk space if that was taken for
 * it. A user who may only create files in the folder cannot remove it. While it lives its maker has a lock on it
 * (flock), so that other processes leave it alone. */
#ifndef STORE_SPARE_H
#define STORE_SPARE_H

#include "../system/descriptor.h"
#include "ledger.h"
#include "store.h"

#include <stdbool.h>
#include <sys/stat.h>

enum { SPARE_PATH = 256 };

struct spare {
  struct descriptor folder, file;
  char name[LEDGER_NAME]; /* the variable part of its name; "": there is none */
  off_t written;          /* so far its bytes are something else than NULs */
  size_t whole;           /* bytes of the record that lies in it as a whole; 0: none does */
  bool reserved;          /* it has space of its own on the disk */
};

/* None. */
#define SPARE_NONE ((struct spare){.folder = DESCRIPTOR_NONE, .file = DESCRIPTOR_NONE})

/* Its file's name in the folder of the record `path`. */
void spare_path(const char *path, const char *name, char file[SPARE_PATH]);

/* Open the folder of the record `path`, and choose a name. False: error says why. */
bool spare_begin(struct spare *spare, const char *path, const char *folder, struct store_error *error);

/* Make the file, with `space` bytes on the disk, or at least `least`, or with none for 0. False: error says why, and
 * nothing is left of the spare. */
bool spare_make(struct spare *spare, const char *path, off_t space, off_t least, struct store_error *error);

/* Whether folder and file are as they were left, and the file's name leads to it. */
bool spare_is_ready(const struct spare *spare, const char *path);

/* Whether this very record lies in it as a whole. */
bool spare_holds(const struct spare *spare, const char *record);

/* Write the record into it and make it durable, dated not before `present` (NULL: there is none). A record that lies in
 * it already is written once more over itself, since a failed sync may have dropped it from the disk's queue: so it is
 * whole at every moment. False: errno says why; `whole` is the size of the record that is left. */
bool spare_write(struct spare *spare, const char *record, const struct stat *present, struct stat *written);

/* Put it in the record's place. False: errno says why. */
bool spare_place(const struct spare *spare, const char *path);

/* The same, but the replaced file is under the spare's name afterwards. False: errno says why; ENOSYS or EINVAL if the
 * system cannot do this. */
bool spare_exchange(const struct spare *spare, const char *path);

/* The same where there is no record. False: errno says why; EEXIST: there is one. */
bool spare_place_first(const struct spare *spare, const char *path);

/* Make that durable. False: errno says why. */
bool spare_sync_folder(const struct spare *spare);

/* lstat of the file in the record's place. False: errno says why. */
bool spare_stat_record(const struct spare *spare, const char *path, struct stat *found);

/* lstat of the file under the spare's name. False: errno says why. */
bool spare_stat(const struct spare *spare, const char *path, struct stat *found);

/* Say when it was last written. False: errno says why. */
bool spare_date(const struct spare *spare, struct timespec modified);

/* Remove the file under its name. False: errno says why. */
bool spare_unlink(const struct spare *spare, const char *path);

/* Close it. Async-signal-safe. */
void spare_leave(struct spare *spare);
/* Remove its file, too. */
void spare_remove(struct spare *spare, const char *path);

#endif
