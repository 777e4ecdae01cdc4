/* A place in memory where now private memory is mapped, now a file that processes share; its address stays the same.
 *
 * Touching a mapped file that was cut short raises SIGBUS, in whichever thread does. It is caught, and the place goes
 * on with private memory, unless the thread blocks that signal: then the system ends the process, and nothing can be
 * done. Faults anywhere else go to the handler that was there before. */
#ifndef STORE_MAPPING_H
#define STORE_MAPPING_H

#include <stdbool.h>

/* Bytes of each. */
enum { MAPPING_SIZE = 8192 };

struct mapping;

/* Private memory, all zeros. NULL: out of memory. */
struct mapping *mapping_new(void);
void mapping_free(struct mapping *mapping);

/* Where it begins, always the same. */
void *mapping_base(const struct mapping *mapping);

/* Map the file of descriptor `fd`, which is open for reading and writing and has MAPPING_SIZE bytes, in place of
 * the present memory, at one stroke: readers see the one or the other. False: it stays private. */
bool mapping_share(struct mapping *mapping, int fd);
bool mapping_is_shared(const struct mapping *mapping);

/* The file was cut short, and private memory has taken its place; mapping_make_private forgets that. */
bool mapping_was_cut(const struct mapping *mapping);

/* Private memory again, all zeros if a file was mapped. */
void mapping_make_private(struct mapping *mapping);

/* A handler of SIGBUS that the host has installed since ours is put behind it, here and whenever a file is mapped;
 * until then it gets the signals that are ours. Cheap; to be called once in a while. */
void mapping_guard(void);

/* Around fork(): no thread makes or frees a mapping meanwhile. A child would wait for ever for a thread that it does
 * not have. */
void mapping_before_fork(void);
void mapping_after_fork(void);

#endif
