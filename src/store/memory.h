/* A record that lives as long as its client: for tests, for short programs with a refresh token of their own, for
 * servers without a disk.
 * After fork() parent and child have a copy each and cannot see each other: only one of the two may refresh. */
#ifndef STORE_MEMORY_H
#define STORE_MEMORY_H

#include "store.h"

/* An empty store; the caller frees it with its close operation. NULL: out of memory, error says so. */
struct store *store_memory(struct store_error *error);

#endif
