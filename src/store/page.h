/* A page of memory that every process which uses a record shares: the record's generation. It is how a process learns,
 * without a system call, that another one has refreshed.
 *
 * The generation is even while the tokens are settled and odd while a refresh is under way; it only ever grows.
 * It is written by the holder of the record's lock, and by whoever rejects a token. It says that something changed, never
 * what: the page holds no secret, and whoever sees a change reads the record. Fingerprints of the tokens that were
 * rejected last stand beside it. Where no page is to be had (a read-only folder, a
 * full disk, somebody else's file), a private one takes its place, which nobody ever changes: then the
 * record's file is looked at instead. */
#ifndef STORE_PAGE_H
#define STORE_PAGE_H

#include "store.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct page {
  struct mapping *mapping;           /* its place in memory, which stays the same, whatever is mapped there */
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
 * A mapping keeps what it was mapped from open, with the locks that were taken through it, and a child of this process
 * inherits it: so `fd` must not be the one that locks. It may be closed afterwards. */
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
