#define _GNU_SOURCE
#include "page.h"

#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#endif

#if !defined(MAP_ANONYMOUS)
#define MAP_ANONYMOUS MAP_ANON
#endif

/* One that is made of a lock in this process's memory would be none between processes. */
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics have to be free of locks");

/* The file: one line that says what it is, the generation, and that line again, so that it is still known when
 * somebody has written over its beginning. The generation stands far from it: of a file that was cut short it is
 * then missing, and cannot pass for one that starts again. Behind it are the fingerprints of rejected tokens; between the
 * two lines is the ledger (ledger.h). */
enum { SIZE = 8192, GENERATION_AT = 4096, SIGNED_AGAIN_AT = 4096 + 64, REJECTED_AT = 4096 + 256 };

static const char line[] = "lucidauth page 1: shared by all who use this token file. Do not remove it.\n";
#define SIGNATURE_SIZE (sizeof "lucidauth page 1" - 1)

/* ---- a file that is cut short under a mapping ----
 * Touching it then raises SIGBUS, in whichever thread happens to ask for a token. The handler puts private memory in
 * the place and lets it go on; signals that have nothing to do with a page go where they went before. */

/* A place in memory. The handler walks along all of them at any moment: one that is not needed any more is never freed,
 * but kept for the next page. */
struct frame {
  void *_Atomic base; /* NULL: it is vacant */
  atomic_bool lost;   /* the file was cut short under the mapping */
  struct frame *next; /* of all, the newest first */
  struct frame *next_vacant;
};

static struct frame *_Atomic frames;
static struct frame *vacant;
static pthread_mutex_t frames_mutex = PTHREAD_MUTEX_INITIALIZER;

static void *map_private(void *where)
{
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | (where ? MAP_FIXED : 0);
  return mmap(where, SIZE, PROT_READ | PROT_WRITE, flags, -1, 0);
}

static struct frame *frame_at(const void *address, char **base)
{
  struct frame *frame = atomic_load(&frames);
  for (; frame; frame = frame->next) {
    *base = atomic_load(&frame->base);
    if (*base && (const char *)address >= *base && (const char *)address < *base + SIZE)
      return frame;
  }
  return NULL;
}

/* Else a process has sent it, and an address in it means nothing. */
static bool is_fault(const siginfo_t *info)
{
#if defined(BUS_MCEERR_AR)
  if (info->si_code == BUS_MCEERR_AR || info->si_code == BUS_MCEERR_AO)
    return true;
#endif
  return info->si_code == BUS_ADRALN || info->si_code == BUS_ADRERR || info->si_code == BUS_OBJERR;
}

/* The handlers that were there before ours was put in front of them, the first and the latest. A host may install its
 * own at any time; most pass on what is not theirs to the one that they found, which is ours. */
enum { HANDLERS = 8 };

static struct sigaction handlers[HANDLERS];
static int handler_count;
static atomic_int latest;
static atomic_bool guarding;
static pthread_mutex_t handlers_mutex = PTHREAD_MUTEX_INITIALIZER;

/* The signals that were passed on, by where the system put what it tells of them: so one that comes back is known. */
enum { PASSED = 16 };

static struct {
  const void *_Atomic context;
  const void *_Atomic frame;
} passed[PASSED];

/* As without a handler. What faulted is tried again when the handler is left, and what was sent is sent again here. */
static void end_process(int number, const struct sigaction *handler, bool fault)
{
  sigset_t only;
  sigaction(number, handler, NULL);
  if (fault)
    return;
  raise(number);
  sigemptyset(&only);
  sigaddset(&only, number);
  pthread_sigmask(SIG_UNBLOCK, &only, NULL);
}

/* A handler that has been left by a jump may leave the same context to another signal, but not deeper in the stack. */
static bool has_come_back(const void *context)
{
  const void *frame = __builtin_frame_address(0);
  size_t place = (uintptr_t)context / 64 % PASSED;
  if (atomic_load(&passed[place].context) == context && atomic_load(&passed[place].frame) != frame)
    return true;
  atomic_store(&passed[place].context, context);
  atomic_store(&passed[place].frame, frame);
  return false;
}

static void call(const struct sigaction *handler, int number, siginfo_t *info, void *context)
{
  bool fault = is_fault(info);
  if (handler->sa_flags & SA_SIGINFO)
    handler->sa_sigaction(number, info, context);
  else if (handler->sa_handler != SIG_DFL && handler->sa_handler != SIG_IGN)
    handler->sa_handler(number);
  else if (handler->sa_handler == SIG_DFL || fault)
    end_process(number, handler, fault);
}

static bool is_same(const struct sigaction *one, const struct sigaction *other)
{
  if ((one->sa_flags & SA_SIGINFO) != (other->sa_flags & SA_SIGINFO))
    return false;
  return one->sa_flags & SA_SIGINFO ? one->sa_sigaction == other->sa_sigaction : one->sa_handler == other->sa_handler;
}

static __attribute__((noinline)) void pass_on(int number, siginfo_t *info, void *context)
{
  static const struct sigaction none = {.sa_handler = SIG_DFL};
  int last = atomic_load(&latest);
  if (!has_come_back(context))
    call(&handlers[last], number, info, context);
  else if (last > 0 && !is_same(&handlers[0], &handlers[last]))
    call(&handlers[0], number, info, context);
  else
    end_process(number, &none, is_fault(info));
}

static void on_sigbus(int number, siginfo_t *info, void *context)
{
  int saved = errno;
  char *base;
  struct frame *frame = is_fault(info) ? frame_at(info->si_addr, &base) : NULL;
  if (frame && map_private(base) != MAP_FAILED)
    atomic_store(&frame->lost, true);
  else
    pass_on(number, info, context);
  errno = saved;
}

static int place_of(const struct sigaction *handler)
{
  for (int i = 0; i < handler_count; i++)
    if (is_same(&handlers[i], handler))
      return i;
  return handler_count;
}

/* A host that always installs another one wins in the end. With the mutex held. */
static void put_in_front(const struct sigaction *found)
{
  struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
  int place = place_of(found);
  if (place == HANDLERS)
    return;
  if (place == handler_count)
    handlers[handler_count++] = *found;
  atomic_store(&latest, place);
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, NULL);
}

static void watch_sigbus(void)
{
  struct sigaction found, ours = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};
  pthread_mutex_lock(&handlers_mutex);
  if (sigaction(SIGBUS, NULL, &found) == 0 && !is_same(&found, &ours))
    put_in_front(&found);
  atomic_store(&guarding, true);
  pthread_mutex_unlock(&handlers_mutex);
}

void page_guard(void)
{
  if (atomic_load_explicit(&guarding, memory_order_relaxed))
    watch_sigbus();
}

/* With the mutex held. */
static struct frame *new_frame(void)
{
  struct frame *frame = calloc(1, sizeof *frame);
  if (frame) {
    frame->next = atomic_load(&frames);
    atomic_store(&frames, frame);
  }
  return frame;
}

static struct frame *take_frame(void)
{
  pthread_mutex_lock(&frames_mutex);
  struct frame *frame = vacant;
  if (frame)
    vacant = frame->next_vacant;
  else
    frame = new_frame();
  pthread_mutex_unlock(&frames_mutex);
  return frame;
}

static void give_back_frame(struct frame *frame)
{
  pthread_mutex_lock(&frames_mutex);
  frame->next_vacant = vacant;
  vacant = frame;
  pthread_mutex_unlock(&frames_mutex);
}

void page_before_fork(void)
{
  pthread_mutex_lock(&frames_mutex);
  pthread_mutex_lock(&handlers_mutex);
}

void page_after_fork(void)
{
  pthread_mutex_unlock(&handlers_mutex);
  pthread_mutex_unlock(&frames_mutex);
}

/* ---- the page ---- */

bool page_init(struct page *page)
{
  page->laid_out = false;
  atomic_init(&page->shared, false);
  for (int i = 0; i < STORE_REJECTED; i++)
    atomic_init(&page->rejected[i], 0);
  page->frame = take_frame();
  if (!page->frame)
    return false;
  void *base = map_private(NULL);
  if (base == MAP_FAILED) {
    give_back_frame(page->frame);
    page->frame = NULL;
    return false;
  }
  atomic_store(&page->frame->lost, false);
  atomic_store(&page->frame->base, base);
  page->generation = (atomic_uint_least64_t *)(void *)((char *)base + GENERATION_AT);
  return true;
}

static bool is_signed(const char *bytes, size_t length, size_t at)
{
  return length >= at + SIGNATURE_SIZE && memcmp(bytes + at, line, SIGNATURE_SIZE) == 0;
}

/* Nothing has been written to its beginning. */
static bool is_blank(const char *bytes, size_t length)
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
  if (!here && !again && !is_blank(bytes, length))
    return false; /* somebody else's */
  if (here && again && length == SIZE)
    return true;
  return disk_allocate(fd, SIZE) && sign(fd, SIGNED_AGAIN_AT) && sign(fd, 0);
}

static bool is_mapped(const struct page *page, const struct stat *file)
{
  return page->shared && !atomic_load(&page->frame->lost) && page->device == file->st_dev &&
         page->inode == file->st_ino && file->st_size >= SIZE;
}

static void make_private(struct page *page)
{
  if (page->shared || atomic_load(&page->frame->lost))
    (void)map_private(atomic_load(&page->frame->base));
  page->shared = false;
  atomic_store(&page->frame->lost, false);
}

/* Replaces the private page at one stroke: readers see the one or the other. Where the file system maps no files, an
 * attempt in place would leave a hole in older kernels: so it is first made elsewhere. */
static bool map_file(const struct page *page, int fd)
{
  void *base = atomic_load(&page->frame->base),
       *elsewhere = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (elsewhere == MAP_FAILED)
    return false;
  bool mapped = mmap(base, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED;
  if (!mapped)
    (void)map_private(base);
  munmap(elsewhere, SIZE);
  return mapped;
}

static bool map_anew(struct page *page, int fd, const struct stat *file)
{
  make_private(page);
  page->laid_out = lay_out(fd);
  if (!page->laid_out)
    return false;
  watch_sigbus();
  bool shared = map_file(page, fd);
  page->device = file->st_dev;
  page->inode = file->st_ino;
  atomic_store(&page->shared, shared);
  return shared;
}

static void tell_rejected(struct page *page, uint64_t fingerprint);

bool page_share(struct page *page, int fd)
{
  struct stat file;
  page->laid_out = false;
  if (fstat(fd, &file) != 0)
    return false;
  page_guard();
  if (is_mapped(page, &file))
    return page->laid_out = true;
  bool shared = map_anew(page, fd, &file);
  for (int i = 0; i < STORE_REJECTED; i++)
    tell_rejected(page, atomic_load_explicit(&page->rejected[i], memory_order_relaxed));
  return shared;
}

void page_free(struct page *page)
{
  if (!page->frame)
    return;
  munmap(atomic_exchange(&page->frame->base, NULL), SIZE);
  give_back_frame(page->frame);
  page->frame = NULL;
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
  if (!page->shared)
    return;
  do
    /* odd already: its owner died, and others may go by that very value */
    next = value == 0 ? fresh_start() + 1 : value + (value & 1 ? 2 : 1);
  while (!atomic_compare_exchange_weak_explicit(page->generation, &value, next, memory_order_release,
                                                memory_order_relaxed));
}

#if defined(__linux__)
/* What the kernel compares is the low half, which comes first on little-endian machines and behind on others. */
static const uint32_t *low_half(const struct page *page)
{
  const uint32_t *half = (const uint32_t *)(const void *)page->generation;
  return half + (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__);
}
#endif

#if defined(__linux__)
#if defined(SYS_futex)
enum { WAKE_CALL = SYS_futex };
#else
enum { WAKE_CALL = SYS_futex_time64 };
#endif

/* On a 32-bit system a call takes times of its own width, whatever the C library's. */
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

static bool is_rejected(const struct page *page, uint64_t fingerprint)
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
  if (!page->shared)
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
  if (fingerprint == 0 || is_rejected(page, fingerprint))
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
