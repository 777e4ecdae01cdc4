#define _GNU_SOURCE
#include "start.h"

#include "../base/secret.h"
#include "libraries.h"
#include "reserve.h"

#include <pthread.h>
#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* libcurl keeps request bodies and answers in its own buffers. Its allocator is replaced by one that wipes every block
 * before it is freed, and that has something left for an answer when the system has not. */
struct block {
  alignas(max_align_t) size_t size;
  struct share *share; /* of the reserve; NULL: it is the system's */
};

static void *wiped_malloc(size_t size)
{
  struct share *share = NULL;
  if (size > SIZE_MAX - sizeof(struct block))
    return NULL;
  struct block *block = malloc(sizeof *block + size);
  if (!block)
    block = reserve_take(sizeof *block + size, &share);
  if (!block)
    return NULL;
  block->size = size;
  block->share = share;
  return block + 1;
}

static void wiped_free(void *data)
{
  if (!data)
    return;
  struct block *block = (struct block *)data - 1;
  struct share *share = block->share;
  secret_wipe(block, sizeof *block + block->size);
  if (share)
    reserve_give_back(share);
  else
    free(block);
}

/* Size 0 gives an empty block, never NULL: libcurl frees the old block itself when it sees NULL. */
static void *wiped_realloc(void *data, size_t size)
{
  void *moved = wiped_malloc(size);
  if (!moved || !data)
    return moved;
  size_t old = ((struct block *)data - 1)->size;
  memcpy(moved, data, old < size ? old : size);
  wiped_free(data);
  return moved;
}

static void *wiped_calloc(size_t count, size_t size)
{
  if (size > 0 && count > SIZE_MAX / size)
    return NULL;
  void *data = wiped_malloc(count * size);
  if (data)
    memset(data, 0, count * size);
  return data;
}

static char *wiped_strdup(const char *text)
{
  size_t size = strlen(text) + 1;
  char *copy = wiped_malloc(size);
  return copy ? memcpy(copy, text, size) : NULL;
}

static const char *missing;

/* When the process has initialized libcurl before, its allocator stays as it is; there is nothing to be done
 * about it. Never cleaned up: the module stays loaded. */
static void set_up(void)
{
  missing = libraries_find();
  if (missing)
    return;
  curl_global_init_mem(CURL_GLOBAL_DEFAULT, wiped_malloc, wiped_free, wiped_realloc, wiped_strdup, wiped_calloc);
  /* libsodium's manual wants this before any other call. Only its random numbers can fail here, and hashes need
   * none. */
  int ready = sodium_init();
  (void)ready;
  pthread_atfork(reserve_before_fork, reserve_after_fork, reserve_after_fork);
}

const char *http_start(void)
{
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, set_up);
  return missing;
}
