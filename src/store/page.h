/* A page of memory that all processes with the same record share: the record's generation. It shows a process, without
 * a system call, that another one has refreshed.
 *
 * The generation is even while the tokens are settled and odd while a refresh is under way; it only ever grows. The
 * lock holder writes it, and so does a process that rejects a token. It says that something changed, and no more: the
 * page holds no secret, and a process that sees a change reads the record. Fingerprints of the tokens that were
 * rejected last stand beside it. If no page can be shared (a read-only folder, a full disk, another user's file), a
 * private one takes its place, which never changes: then the record's file is looked at instead. */
#ifndef STORE_PAGE_H
#define STORE_PAGE_H

#include "store.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct page {
  struct mapping *mapping;           /* its address, which stays the same through all mappings */
  atomic_uint_least64_t *generation; /* readable at any time after page_init */
  bool laid_out;                     /* the file that page_share was last given is a page */
  dev_t device;                      /* the file that is mapped, if page_is_shared */
  ino_t inode;
  atomic_uint_least64_t rejected[STORE_REJECTED]; /* by this process, for the next file that is mapped */
};

/* A private page. False: out of memory. */
bool page_init(struct page *page);

/* Map the file of descriptor `fd`, which is open for reading and writing, in the private page's place; lays the page
 * out in an empty file, and takes its space on the disk first. Does nothing if it is mapped and whole. False: it stays
 * private.
 *
 * A mapping keeps its open file, and the locks that were taken through it, alive, and a child of this process inherits
 * it: so `fd` must not be the descriptor that locks. You may close it afterwards. */
bool page_share(struct page *page, int fd);

/* Whether a file is mapped there. */
bool page_is_shared(const struct page *page);

/* True between page_begin and page_settle, by whichever process; for ever if that one died. */
bool page_is_under_way(const struct page *page);

/* With the lock held: a refresh begins; it is settled (nothing happens if none had begun), and waiters wake. */
void page_begin(struct page *page);
void page_settle(struct page *page);

/* From any thread, without the lock: the access token with this fingerprint was rejected. All are told, at once or when
 * the refresh under way is settled; once for each fingerprint. */
void page_reject(struct page *page, uint64_t fingerprint);

/* The last ones; 0: none. */
void page_rejected(const struct page *page, uint64_t fingerprints[STORE_REJECTED]);

/* Wait until the generation is another than `seen`, for at most `seconds`. */
void page_wait(const struct page *page, uint64_t seen, double seconds);

/* Unmap. */
void page_free(struct page *page);

#endif
