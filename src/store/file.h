/* A record in a file: one file for one account, or a folder with a file for each. A record has one lock, `<file>.lock`,
 * by whichever of the two its file is named.
 *
 * A record is replaced, never rewritten: the new one is written to `<file>.tmp`, made durable and renamed. Whoever
 * takes the lock finishes the rename of a writer that died just before it. A save that fails when all has been written
 * leaves the temporary file to the next try, or to that next owner of the lock; unlocking removes it.
 *
 * A file is used only if it is a regular file (no link, no pipe), belongs to the effective user, is not larger than
 * STORE_FILE_LIMIT and holds no NUL; group's and others' permissions are taken away from it. Anything else is refused
 * and left as it is. The folder has to exist. Others' write permission on it is not looked at: whoever may write there
 * can take the file away (though not read it), so keep it in a folder of the user's own. */
#ifndef STORE_FILE_H
#define STORE_FILE_H

#include "store.h"

/* Bytes in a record: an answer of the largest size, with every byte escaped, and more. */
enum { STORE_FILE_LIMIT = 8 << 20 };

/* The account in the file `path`. A relative path starts from the folder `base` (absolute), or from the present one
 * if that is NULL: a later chdir() does not move it. Touches nothing on disk yet. The strings are copied. The caller
 * frees it with its close operation. NULL: error says why (an empty path or that of a folder, memory is out). */
struct store *store_file(const char *path, const char *base, struct store_error *error);

/* The account `account` (NULL or "": "default") in the folder `directory`: `<directory>/<account>.json`,
 * where bytes other than small letters, digits, '-', '_', '@' and inner dots are percent-encoded: no name
 * leaves the folder, and no two names share a file where file names have no case. Like store_file otherwise; NULL
 * also when the account's name is too long for a file name. */
struct store *store_directory(const char *directory, const char *base, const char *account, struct store_error *error);

#endif
