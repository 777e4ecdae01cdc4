/* System calls on the files of a storage, made so that no link, pipe or foreign file can mislead them, and the messages
 * about their failures. */
#ifndef STORE_DISK_H
#define STORE_DISK_H

#include "store.h"

#include <stddef.h>
#include <sys/stat.h>

/* Set `error`: `doing` something with `path` failed with errno `cause`, nothing was changed, and the remedy. */
void disk_fail(struct store_error *error, const char *doing, const char *path, int cause);

/* Say in `error` that `path` cannot be used: `why` follows the path and makes a sentence of it, `remedy` is
 * another. */
void disk_refuse(struct store_error *error, const char *path, const char *why, const char *remedy);

/* Say in `error` that the new record is in place at `path` but could not be made durable, because of errno
 * `cause`. */
void disk_doubt(struct store_error *error, const char *path, int cause);

/* open() with O_CLOEXEC, mode 0600 for a new file, never as a standard file, and without an end by EINTR. -1: errno
 * says why. */
int disk_try_open(const char *path, int flags);

/* Open `path` with `flags` (O_CREAT makes it with mode 0600), without following a link, without waiting for a pipe's
 * other end, closed on exec. It has to be a regular file of the effective user. Returns the descriptor and its fstat,
 * or -1: error says why, and errno is ENOENT when there is no such file. */
int disk_open(const char *path, int flags, struct stat *found, struct store_error *error);

/* When the file was last written. */
struct timespec disk_modified(const struct stat *found);

/* Whether one file was last written before the other. */
bool disk_is_older(const struct stat *one, const struct stat *other);

/* Whether this errno says that there is no room for more bytes. */
bool disk_is_out_of_room(int cause);

/* Take away all permissions of the open file except its owner's to read and write. False: errno says why; ENOTSUP when
 * its file system has no permissions. */
bool disk_make_private(int fd);

/* Read at most *length bytes from the start; *length becomes the number of bytes read. False: errno says why. */
bool disk_read(int fd, char *bytes, size_t *length);

/* Write all of it at `offset` of a file that is long enough. False: errno says why. */
bool disk_write_at(int fd, const void *bytes, size_t length, off_t offset);

/* The same where the file may have to grow. */
bool disk_write_longer(int fd, const void *bytes, size_t length, off_t offset);

/* Make the file at least so long, with space of its own on the disk where the system can. False: errno says why. */
bool disk_allocate(int fd, off_t size);

/* Bring an open file or folder to the disk, past the disk's own cache where the system can. False: errno says why. */
bool disk_sync(int fd);

/* Bring an open folder to the disk. Some file systems cannot sync a folder, say so, and do not need it. False: errno
 * says why. */
bool disk_sync_folder(int fd);

#endif
