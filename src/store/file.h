/* A record in a file: one file for one account, or a folder with a file for each. Each record has one lock,
 * `<file>.lock`, which is named after the file in both cases.
 *
 * A record is replaced, never rewritten: the new one is written to a spare file (spare.h), `<file>.tmp-<random>`, made
 * durable and renamed. A spare with space for the answer is held before the refresh token is spent. From then on the
 * save opens nothing and needs no memory, unless the spare was removed.
 *
 * The next lock holder finishes the rename of a writer that died just before it; the lock file and the mark of a
 * refresh tell the spare's name. If a save fails after all has been written, the spare stays for the next try, or for
 * the next lock holder; unlocking removes it.
 *
 * A file is used only if it is a regular file (no link, no pipe), belongs to the effective user, is not larger than
 * STORE_FILE_LIMIT and holds no NUL but at its end; group's and others' permissions are taken away from it. Any other
 * file is refused and left as it is. The folder has to exist. A folder in which every user may write, and so remove
 * files, is refused before a token is spent, unless it has the sticky bit; a folder in which a group may write is
 * reported. */
#ifndef STORE_FILE_H
#define STORE_FILE_H

#include "store.h"

/* Bytes in a record: an answer of the largest size (1 MiB), and as much again. A record that is larger all the same
 * loses its side fields. */
enum { STORE_FILE_LIMIT = 2 << 20 };

/* The account in the file `path`. A relative path starts from the folder `base` (absolute), or from the present one
 * if that is NULL: a later chdir() does not move it. Touches nothing on disk yet. The strings are copied. The caller
 * frees it with its close operation. NULL: error says why (an empty path or that of a folder, out of memory). */
struct store *store_file(const char *path, const char *base, struct store_error *error);

/* The account `account` (NULL or "": "default") in the folder `directory`: `<directory>/<account>.json`,
 * where bytes other than small letters, digits, '-', '_', '@' and inner dots are percent-encoded: no name
 * leaves the folder, and no two names share a file where file names have no case. Like store_file otherwise; NULL
 * also when the account's name is too long for a file name. */
struct store *store_directory(const char *directory, const char *base, const char *account, struct store_error *error);

#endif
