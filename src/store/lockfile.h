/* The lock file of a record: created when it is first needed, never unlinked (a lock on a file that others no longer
 * find would exclude nobody).
 *
 * It starts with the page that its users share (page.h). The lock covers the byte LOCKFILE_BYTE, far behind all bytes
 * that are read or written, so that a system that enforces locks or flushes locked ranges leaves the page alone. That
 * byte need not exist: locking does not make the file grow.
 *
 * The lock is an open-file-description lock: it belongs to the lockfile object, not to the process. So two objects in
 * one process exclude each other, and closing another descriptor of the file releases nothing. A system without these
 * locks uses flock(). A holder that dies releases its lock.
 *
 * Beside the page the file holds a ledger (ledger.h). */
#ifndef STORE_LOCKFILE_H
#define STORE_LOCKFILE_H

#include "../system/descriptor.h"
#include "ledger.h"
#include "page.h"
#include "store.h"

enum { LOCKFILE_BYTE = 1 << 20 };

struct lockfile {
  char *path;             /* absolute */
  struct descriptor file; /* open only while it is locked */
  bool whole;             /* the system has no open-file-description locks: flock */
  char identity[48];      /* of the file that is or was locked last; see store_ops.lock_identity */
  struct page page;
};

/* Takes ownership of `path`, which is malloc'd. Opens nothing yet. False: out of memory; lockfile_free is due
 * all the same. */
bool lockfile_init(struct lockfile *lock, char *path);

/* Try to lock it, without waiting; when somebody removed the file, a new one is made. STORE_OK; STORE_BUSY also if
 * `lock` is held already; STORE_FAILED: the error says why. */
enum store_result lockfile_try(struct lockfile *lock, struct store_error *error);

bool lockfile_is_held(const struct lockfile *lock);

/* It was taken, but the program has closed our descriptor since, and the lock went with it. */
bool lockfile_is_lost(const struct lockfile *lock);

/* It is held, and the path still leads to it. */
bool lockfile_excludes_others(const struct lockfile *lock);

/* The descriptor for the ledger; -1: the lock is not held, or the file is another program's. */
int lockfile_ledger(const struct lockfile *lock);

/* ledger_spent, with the lock and without it. False: there is no lock file. */
bool lockfile_read_spent(const struct lockfile *lock, char text[LEDGER_TEXT]);

/* Unlock, if it is held, even if a child of this process still has the descriptor. */
void lockfile_release(struct lockfile *lock);

/* Share the page with the other users of the file, if possible; makes the file if it is missing. Settles the refresh
 * that a dead lock holder has left under way, as taking the lock does. If the lock is not held, `spent` is filled as by
 * ledger_spent while the file is open, and true is returned; NULL: there is no room for it. */
bool lockfile_share(struct lockfile *lock, char spent[LEDGER_TEXT]);

/* In the child after fork(): close the descriptor and forget the lock; the parent keeps it. Async-signal-safe. */
void lockfile_forked(struct lockfile *lock);

/* Release the lock, close the file and free the memory. */
void lockfile_free(struct lockfile *lock);

#endif
