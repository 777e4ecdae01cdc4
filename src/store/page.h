/* A page of memory that every process which uses a record shares: the record's generation. It is how a process learns,
 * without a system call, that another one has refreshed.
 *
 * The generation is even while the tokens are settled and odd while a refresh is under way; it only ever grows.
 * It is written by the holder of the record's lock. It says that something changed, never what: the page holds
 * no secret, and whoever sees a change reads the record. Where no page is to be had (a read-only folder, a
 * full disk, somebody else's file), a private one takes its place, which nobody ever changes: then the
 * record's file is looked at instead. */
#ifndef STORE_PAGE_H
#define STORE_PAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct page {
  struct frame *frame;               /* its place in memory, which stays the same, whatever is mapped there */
  atomic_uint_least64_t *generation; /* readable at any time after page_init */
  bool shared;                       /* a file is mapped there, this one: */
  dev_t device;
  ino_t inode;
};

/* A private page. False: memory is out. */
bool page_init(struct page *page);

/* Map the file of descriptor `fd`, which is open for reading and writing, in the private page's place; lays the page
 * out in an empty file, and takes its space on the disk first. Does nothing if it is mapped and whole. False: it stays
 * private.
 *
 * A mapping keeps what it was mapped from open, with the locks that were taken through it, and a child of this process
 * inherits it: so `fd` must not be the one that locks. It may be closed afterwards. */
bool page_share(struct page *page, int fd);

/* True between page_begin and page_settle, by whichever process; for ever if that one died. */
bool page_is_under_way(const struct page *page);

/* With the lock held: a refresh begins; it is settled (nothing happens if none had begun), and waiters wake. */
void page_begin(struct page *page);
void page_settle(struct page *page);

/* Wait until the generation is another than `seen`, for at most `seconds`. */
void page_wait(const struct page *page, uint64_t seen, double seconds);

/* Unmap. */
void page_free(struct page *page);

/* Around fork(): nobody makes or frees a page meanwhile. A child would wait for ever for a thread that it does not
 * have. */
void page_before_fork(void);
void page_after_fork(void);

#endif
