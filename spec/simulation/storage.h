/* The virtual storage: a record and a lock for each account, atomic as the file store is: a save is there or not,
 * a writer that dies before the rename leaves a complete temporary file, which the next holder of the lock rolls
 * forward. Its lock file may be removed, it may vanish, and what was held before a save is there when it is needed.
 * Or one of the program's own, which may lag, and lie. */
#ifndef STORAGE_H
#define STORAGE_H

#include "simulation.h"

/* Each carries out a worker's action now. The result, and for a load the text (worker->loaded), is in
 * worker->event. */
void storage_load(struct simulation *sim, struct worker *worker);
void storage_save(struct simulation *sim, struct worker *worker);
void storage_lock(struct simulation *sim, struct worker *worker);
void storage_unlock(struct simulation *sim, struct worker *worker);
void storage_hold(struct simulation *sim, struct worker *worker);

/* The worker's caller says that the API does not accept this access token. */
void storage_reject(struct simulation *sim, struct worker *worker, struct token token, const char *text);

/* The text that a load would find now; NULL: none. */
const char *storage_shows(struct simulation *sim, struct storage *storage);

/* Whether the storage knows by itself that this refresh token was spent. */
bool storage_lists(const struct storage *storage, struct token token);

/* The worker dies in the middle of its save: the record is the old one or the new one, or the new one lies beside
 * it. */
void storage_tear(struct simulation *sim, struct worker *worker);

/* What the kernel does when a process is gone. */
void storage_drop_lock(struct simulation *sim, struct worker *worker);

/* The lock is somebody's still, and keeps nobody out any more. */
void storage_remove_lock(struct simulation *sim, int account);

/* The record is gone; it comes back, unless there is another one by then. */
void storage_vanish(struct simulation *sim, int account, double seconds);
void storage_come_back(struct simulation *sim, int account);

/* A program that knows no lock puts this text in place. */
void storage_overwrite(struct simulation *sim, int account, const char *text);

void storage_free(struct storage *storage);

#endif
