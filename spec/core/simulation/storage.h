/* The virtual storage: a record and a lock for each account, atomic as the file store is: a save is there or not,
 * a writer that dies before the rename leaves a complete temporary file, which the next holder of the lock rolls
 * forward. */
#ifndef STORAGE_H
#define STORAGE_H

#include "simulation.h"

/* Each carries out a worker's action now. The result, and for a load the text (worker->loaded), is in
 * worker->event. */
void storage_load(struct simulation *sim, struct worker *worker);
void storage_save(struct simulation *sim, struct worker *worker);
void storage_lock(struct simulation *sim, struct worker *worker);
void storage_unlock(struct simulation *sim, struct worker *worker);

/* The worker dies in the middle of its save: the record is the old one or the new one, or the new one lies beside
 * it. */
void storage_tear(struct simulation *sim, struct worker *worker);

/* What the kernel does when a process is gone. */
void storage_drop_lock(struct simulation *sim, const struct worker *worker);

/* A program that knows no lock puts this text in place. */
void storage_overwrite(struct simulation *sim, int account, const char *text);

void storage_free(struct storage *storage);

#endif
