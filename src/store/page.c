#define _GNU_SOURCE
#include "page.h"

#include "disk.h"
#include "mapping.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#endif

/* One that is made of a lock in this process's memory would be none between processes. */
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics have to be free of locks");

/* The file: a signature line, the generation, and the signature line again, so that the file is still recognized after
 * its beginning was overwritten. The generation stands far from the first line: it is missing from a file that was cut
 * short, which then cannot pass for one that starts again. Behind it are the fingerprints of rejected tokens; between
 * the two lines is the ledger (ledger.h). */
enum { SIZE = MAPPING_SIZE, GENERATION_AT = 4096, SIGNED_AGAIN_AT = 4096 + 64, REJECTED_AT = 4096 + 256 };

static const char line[] = "lucidauth page 1: shared by all who use this token file. Do not remove it.\n";
#define SIGNATURE_SIZE (sizeof "lucidauth page 1" - 1)

bool page_init(struct page *page)
{
  page->laid_out = false;
  for (int i = 0; i < STORE_REJECTED; i++)
    atomic_init(&page->rejected[i], 0);
  page->mapping = mapping_new();
  if (page->mapping)
    page->generation = (atomic_uint_least64_t *)(void *)((char *)mapping_base(page->mapping) + GENERATION_AT);
  return page->mapping != NULL;
}

static bool is_signed(const char *bytes, size_t length, size_t at)
{
  return length >= at + SIGNATURE_SIZE && memcmp(bytes + at, line, SIGNATURE_SIZE) == 0;
}

/* Nothing has been written to its beginning. */
static bool is_empty_file(const char *bytes, size_t length)
{
  static const char blank[SIGNATURE_SIZE];
  return length == 0 || (length >= SIGNATURE_SIZE && memcmp(bytes, blank, SIGNATURE_SIZE) == 0);
}

static bool sign(int fd, off_t at)
{
  return disk_write_longer(fd, line, sizeof line - 1, at);
}

/* Several processes may lay out the same page at once: they write the same lines, and no other byte. Space first: a
 * write to a mapped hole of a full disk would raise a signal. */
static bool lay_out(int fd)
{
  char bytes[SIZE];
  size_t length = sizeof bytes;
  if (!disk_read(fd, bytes, &length))
    return false;
  bool here = is_signed(bytes, length, 0), again = is_signed(bytes, length, SIGNED_AGAIN_AT);
  if (!here && !again && !is_empty_file(bytes, length))
    return false; /* another program's */
  if (here && again && length == SIZE)
    return true;
  return disk_allocate(fd, SIZE) && sign(fd, SIGNED_AGAIN_AT) && sign(fd, 0);
}

static bool is_mapped(const struct page *page, const struct stat *file)
{
  return mapping_is_shared(page->mapping) && !mapping_was_cut(page->mapping) && page->device == file->st_dev &&
         page->inode == file->st_ino && file->st_size >= SIZE;
}

static bool map_anew(struct page *page, int fd, const struct stat *file)
{
  mapping_make_private(page->mapping);
  page->laid_out = lay_out(fd);
  if (!page->laid_out)
    return false;
  bool shared = mapping_share(page->mapping, fd);
  page->device = file->st_dev;
  page->inode = file->st_ino;
  return shared;
}

static void tell_rejected(struct page *page, uint64_t fingerprint);

bool page_share(struct page *page, int fd)
{
  struct stat file;
  page->laid_out = false;
  if (fstat(fd, &file) != 0)
    return false;
  mapping_guard();
  if (is_mapped(page, &file))
    return page->laid_out = true;
  bool shared = map_anew(page, fd, &file);
  for (int i = 0; i < STORE_REJECTED; i++)
    tell_rejected(page, atomic_load_explicit(&page->rejected[i], memory_order_relaxed));
  return shared;
}

bool page_is_shared(const struct page *page)
{
  return mapping_is_shared(page->mapping);
}

void page_free(struct page *page)
{
  if (page->mapping)
    mapping_free(page->mapping);
  page->mapping = NULL;
}

/* ---- the generation ---- */

/* Where a new page's generations start: a value that no process has seen in an older page, and that a Lua number
 * holds. */
static uint64_t fresh_start(void)
{
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return ((uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000) & ~UINT64_C(1);
}

bool page_is_under_way(const struct page *page)
{
  return atomic_load_explicit(page->generation, memory_order_relaxed) & 1;
}

void page_begin(struct page *page)
{
  uint64_t value = atomic_load_explicit(page->generation, memory_order_relaxed), next;
  if (!page_is_shared(page))
    return;
  do
    /* odd already: its owner died, and others may go by that very value */
    next = value == 0 ? fresh_start() + 1 : value + (value & 1 ? 2 : 1);
  while (!atomic_compare_exchange_weak_explicit(page->generation, &value, next, memory_order_release,
                                                memory_order_relaxed));
}

#if defined(__linux__)
/* The kernel compares the low half, which comes first on little-endian machines and second on the others. */
static const uint32_t *low_half(const struct page *page)
{
  const uint32_t *half = (const uint32_t *)(const void *)page->generation;
  return half + (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__);
}

#if defined(SYS_futex)
enum { WAKE_CALL = SYS_futex };
#else
enum { WAKE_CALL = SYS_futex_time64 };
#endif

/* On a 32-bit system each of the two calls has its own width of time, independent of the C library's. */
static void wait_for_change(const struct page *page, uint32_t seen, double seconds)
{
  double whole = floor(seconds), rest = (seconds - whole) * 1e9;
#if defined(SYS_futex_time64)
  int64_t wide[] = {(int64_t)whole, (int64_t)rest};
  if (syscall(SYS_futex_time64, low_half(page), FUTEX_WAIT, seen, wide, NULL, 0) == 0 || errno != ENOSYS)
    return;
#endif
#if defined(SYS_futex)
  long time[] = {whole < (double)INT32_MAX ? (long)whole : INT32_MAX, (long)rest};
  syscall(SYS_futex, low_half(page), FUTEX_WAIT, seen, time, NULL, 0);
#endif
}
#endif

static void wake(const struct page *page)
{
#if defined(__linux__)
  syscall(WAKE_CALL, low_half(page), FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
#else
  (void)page;
#endif
}

void page_settle(struct page *page)
{
  uint64_t value = atomic_load_explicit(page->generation, memory_order_relaxed);
  do
    if ((value & 1) == 0)
      return;
  while (!atomic_compare_exchange_weak_explicit(page->generation, &value, value + 1, memory_order_release,
                                                memory_order_relaxed));
  wake(page);
}

/* ---- rejected tokens ---- */

/* Their number so far, and the last ones. */
static atomic_uint_least64_t *rejections(const struct page *page)
{
  return page->generation + (REJECTED_AT - GENERATION_AT) / (int)sizeof *page->generation;
}

void page_rejected(const struct page *page, uint64_t fingerprints[STORE_REJECTED])
{
  const atomic_uint_least64_t *places = rejections(page) + 1;
  for (int i = 0; i < STORE_REJECTED; i++)
    fingerprints[i] = atomic_load_explicit(&places[i], memory_order_acquire);
}

static bool is_among_rejected(const struct page *page, uint64_t fingerprint)
{
  uint64_t known[STORE_REJECTED];
  page_rejected(page, known);
  for (int i = 0; i < STORE_REJECTED; i++)
    if (known[i] == fingerprint)
      return true;
  return false;
}

/* While a refresh is under way all look again when it is settled. */
static void announce(struct page *page)
{
  uint64_t value = atomic_load_explicit(page->generation, memory_order_relaxed);
  if (!page_is_shared(page))
    return;
  do
    if (value & 1)
      return;
  while (!atomic_compare_exchange_weak_explicit(page->generation, &value, value == 0 ? fresh_start() : value + 2,
                                                memory_order_release, memory_order_relaxed));
  wake(page);
}

static void tell_rejected(struct page *page, uint64_t fingerprint)
{
  if (fingerprint == 0 || is_among_rejected(page, fingerprint))
    return;
  uint64_t number = atomic_fetch_add_explicit(rejections(page), 1, memory_order_relaxed);
  atomic_store_explicit(rejections(page) + 1 + number % STORE_REJECTED, fingerprint, memory_order_release);
  announce(page);
}

void page_reject(struct page *page, uint64_t fingerprint)
{
  bool known = fingerprint == 0;
  for (int i = 0; i < STORE_REJECTED; i++)
    known = known || atomic_load_explicit(&page->rejected[i], memory_order_relaxed) == fingerprint;
  for (int i = STORE_REJECTED - 1; i > 0 && !known; i--)
    atomic_store_explicit(&page->rejected[i], atomic_load_explicit(&page->rejected[i - 1], memory_order_relaxed),
                          memory_order_relaxed);
  if (!known)
    atomic_store_explicit(&page->rejected[0], fingerprint, memory_order_release);
  tell_rejected(page, fingerprint);
}

void page_wait(const struct page *page, uint64_t seen, double seconds)
{
  if (!(seconds > 0) || atomic_load_explicit(page->generation, memory_order_acquire) != seen)
    return;
#if defined(__linux__)
  wait_for_change(page, (uint32_t)seen, seconds);
#else
  struct timespec time = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - floor(seconds)) * 1e9)};
  struct timespec moment = {.tv_nsec = 1000000};
  for (double left = seconds; left > 0; left -= 0.001) {
    nanosleep(left < 0.001 ? &time : &moment, NULL);
    if (atomic_load_explicit(page->generation, memory_order_acquire) != seen)
      return;
  }
#endif
}
