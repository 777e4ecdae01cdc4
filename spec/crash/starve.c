/* To be preloaded: allocations of the whole program fail, from one that is chosen by its number on. */
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#define PUBLIC __attribute__((visibility("default")))

/* glibc's own, under the names that stay when others take theirs. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void __libc_free(void *memory);

/* An allocation's number is that since the last call of starve. */
static atomic_long asked, failed, first = LONG_MAX;
static atomic_int way;
static atomic_long left; /* bytes that came back since memory ran out */

enum { ALONE, FROM_THERE_ON, WHATEVER_IS_FREED };

/* Allocation `number` from now on fails: alone, or with all that follow, but for what is freed meanwhile, or with all
 * that follow. 0: none does. Returns how many there were since the last call, and how many of them have failed. */
PUBLIC long starve(long number, int how, long *refused)
{
  atomic_store(&first, LONG_MAX);
  *refused = atomic_exchange(&failed, 0);
  long count = atomic_exchange(&asked, 0);
  atomic_store(&left, 0);
  atomic_store(&way, how);
  if (number > 0)
    atomic_store(&first, number);
  return count;
}

static bool is_out(void)
{
  return atomic_load(&way) != ALONE && atomic_load(&asked) >= atomic_load(&first);
}

static bool has_come_back(size_t size)
{
  return atomic_load(&way) == FROM_THERE_ON && atomic_load(&left) >= (long)size;
}

static bool fails(size_t size)
{
  long number = atomic_fetch_add(&asked, 1) + 1;
  bool enough =
      atomic_load(&way) == ALONE ? number != atomic_load(&first) : number < atomic_load(&first) || has_come_back(size);
  if (enough)
    return false;
  atomic_fetch_add(&failed, 1);
  errno = ENOMEM;
  return true;
}

static void *give(void *memory)
{
  if (is_out())
    atomic_fetch_sub(&left, (long)malloc_usable_size(memory));
  return memory;
}

static void take_back(void *memory)
{
  if (is_out())
    atomic_fetch_add(&left, (long)malloc_usable_size(memory));
}

PUBLIC void *malloc(size_t size)
{
  return fails(size) ? NULL : give(__libc_malloc(size));
}

PUBLIC void *calloc(size_t count, size_t size)
{
  return fails(count * size) ? NULL : give(__libc_calloc(count, size));
}

PUBLIC void *realloc(void *memory, size_t size)
{
  size_t had = malloc_usable_size(memory);
  if (size > had && fails(size - had))
    return NULL;
  take_back(memory);
  return give(__libc_realloc(memory, size));
}

PUBLIC void free(void *memory)
{
  take_back(memory);
  __libc_free(memory);
}
