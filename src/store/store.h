/* Where one account's record lives. Every kind of storage answers the same few questions; the refresh flow
 * asks them in its own order and holds the lock over load, POST and save. A store is used by one thread at a
 * time. */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "../base/code.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum store_result {
  STORE_OK,
  STORE_NONE,    /* load: there is no record */
  STORE_BUSY,    /* lock: it is held already, by another lock holder or by this store itself */
  STORE_CHANGED, /* save: another writer has changed the record since this store last loaded or saved it */
  STORE_FAILED   /* the error says why; the record that was stored before is still there */
};

enum { STORE_MESSAGE = 400, STORE_REJECTED = 4 };

struct store_error {
  enum code code;              /* CODE_STORAGE, or CODE_CONFIG for a place that can never work */
  char message[STORE_MESSAGE]; /* a few short sentences: the fault and the remedy; no secret */
};

struct store;

struct store_ops {
  /* Read the record's JSON text. STORE_OK: *record is the caller's, to be given to secret_free; else it is
   * NULL. Works with and without the lock. The text is not judged: a writer that knows no lock may be caught
   * half-way. */
  enum store_result (*load)(struct store *store, char **record, struct store_error *error);
  /* Make the record durable before returning; all or nothing. Call with the lock held. STORE_CHANGED, and nothing is
   * written, when a writer that takes no lock has been there since the last load or save; load again, and decide anew.
   * Only when the very last step fails, the one that makes the new record outlive a power cut, is the new one in
   * place; save it again. */
  enum store_result (*save)(struct store *store, const char *record, struct store_error *error);
  /* Try to take the account's lock; never waits. The new lock holder also gets the record that a dead writer left
   * behind: load after locking. */
  enum store_result (*lock)(struct store *store, struct store_error *error);
  /* Give the lock back; does nothing when it is not held. A record that could not be saved is given up with it. To
   * leave that to the next lock holder, close the store instead, or end the process. */
  void (*unlock)(struct store *store);
  /* With the lock held: the tokens are about to change. All processes are told, until unlock tells them that it is
   * done. */
  void (*begin)(struct store *store);
  /* Wait until the generation is another than `seen`, for at most `seconds`. */
  void (*wait)(struct store *store, uint64_t seen, double seconds);
  /* True when another writer may have changed the record since this store last loaded or saved it, or it never did.
   * Cheap: no read of the content. */
  bool (*changed)(struct store *store);
  /* In the child after fork(): give up the parent's things (the lock's descriptor), without unlocking it there.
   * Async-signal-safe. */
  void (*forked)(struct store *store);
  void (*close)(struct store *store); /* unlocks and frees */

  /* NULL where a store has no need of them. */

  /* With the lock held, before a refresh token is spent: take all that the save of its answer will need, so that
   * nothing can run out meanwhile. The next save uses it up (save_mark does not); unlock gives it back. *note: a note
   * about it for the mark, which helps a later reader of the mark; NULL: none. It is the store's until the next
   * call. */
  enum store_result (*hold)(struct store *store, const char **note, struct store_error *error);
  /* Like save, for the mark of a refresh: the things that are held stay so. */
  enum store_result (*save_mark)(struct store *store, const char *record, struct store_error *error);
  /* The identity of the lock that is held, such as the inode of its file. It tells the lock from another one made in
   * its place. NULL: there is none. The store's until the next call. */
  const char *(*lock_identity)(struct store *store);
  /* Whether the lock that is held is still the one that others would ask for. */
  bool (*excludes_others)(struct store *store);
  /* With the lock held: the refresh token with this hash (RECORD_HASH) is spent. Best effort, as the record says so
   * too. */
  void (*spend)(struct store *store, const char *hash);
  /* The hashes (RECORD_HASH) of refresh tokens that were spent here, with spaces between, as far as the store knows
   * them by itself, be the record there or not; NULL: none. The store's until the next call. */
  const char *(*spent)(struct store *store);
  /* From any thread: no process hands out the access token with this fingerprint (token_fingerprint) any more. */
  void (*reject)(struct store *store, uint64_t fingerprint);
  /* The last ones that were rejected, by any process; 0: none. */
  void (*rejected)(struct store *store, uint64_t fingerprints[STORE_REJECTED]);
};

/* Kinds embed this as their first member. */
struct store {
  const struct store_ops *ops;
  /* Grows with every change that other processes announce; odd while one is under way. Readable by any thread
   * at any time. */
  const atomic_uint_least64_t *generation;
  const char *name;   /* for messages: the path as the user wrote it, "memory"; owned by the store */
  atomic_bool shared; /* changes by other processes are seen through the generation */
  bool repaired;      /* load or save found a mode that let others read, and mended it; set back when it is reported */
  bool exposed;       /* hold found that a group may write in the folder; told once, and set back as well */
};

#endif
