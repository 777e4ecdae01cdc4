#define _GNU_SOURCE
#include "mapping.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#if !defined(MAP_ANONYMOUS)
#define MAP_ANONYMOUS MAP_ANON
#endif

/* The handler walks along all of them at any moment: one that is not needed any more is never freed, but kept for the
 * next caller. */
struct mapping {
  void *_Atomic base;   /* NULL: it is vacant */
  atomic_bool cut;      /* the file was cut short */
  atomic_bool shared;   /* a file is mapped, not private memory */
  struct mapping *next; /* of all, the newest first */
  struct mapping *next_vacant;
};

static struct mapping *_Atomic mappings;
static struct mapping *vacant;
static pthread_mutex_t mappings_mutex = PTHREAD_MUTEX_INITIALIZER;

static void *map_private(void *where)
{
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | (where ? MAP_FIXED : 0);
  return mmap(where, MAPPING_SIZE, PROT_READ | PROT_WRITE, flags, -1, 0);
}

static struct mapping *mapping_at(const void *address, char **base)
{
  struct mapping *mapping = atomic_load(&mappings);
  for (; mapping; mapping = mapping->next) {
    *base = atomic_load(&mapping->base);
    if (*base && (const char *)address >= *base && (const char *)address < *base + MAPPING_SIZE)
      return mapping;
  }
  return NULL;
}

/* ---- the handler ---- */

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
 * own at any time; most pass foreign signals on to the one that they found, which is ours. */
enum { HANDLERS = 8 };

static struct sigaction handlers[HANDLERS];
static int handler_count;
static atomic_int latest;
static atomic_bool guarding;
static pthread_mutex_t handlers_mutex = PTHREAD_MUTEX_INITIALIZER;

/* The signals that were passed on, by where the system put their context: so one that comes back is known. */
enum { PASSED = 16 };

static struct {
  const void *_Atomic context;
  const void *_Atomic frame;
} passed[PASSED];

/* As without a handler. A fault happens again when the handler is left; a signal that was sent is sent again here. */
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
  struct mapping *mapping = is_fault(info) ? mapping_at(info->si_addr, &base) : NULL;
  if (mapping && map_private(base) != MAP_FAILED)
    atomic_store(&mapping->cut, true);
  else
    pass_on(number, info, context);
  errno = saved;
}

static int place_of_handler(const struct sigaction *handler)
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
  int place = place_of_handler(found);
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

void mapping_guard(void)
{
  if (atomic_load_explicit(&guarding, memory_order_relaxed))
    watch_sigbus();
}

/* ---- mappings ---- */

/* With the mutex held. */
static struct mapping *add_mapping(void)
{
  struct mapping *mapping = calloc(1, sizeof *mapping);
  if (mapping) {
    mapping->next = atomic_load(&mappings);
    atomic_store(&mappings, mapping);
  }
  return mapping;
}

static struct mapping *take_vacant(void)
{
  pthread_mutex_lock(&mappings_mutex);
  struct mapping *mapping = vacant;
  if (mapping)
    vacant = mapping->next_vacant;
  else
    mapping = add_mapping();
  pthread_mutex_unlock(&mappings_mutex);
  return mapping;
}

static void make_vacant(struct mapping *mapping)
{
  pthread_mutex_lock(&mappings_mutex);
  mapping->next_vacant = vacant;
  vacant = mapping;
  pthread_mutex_unlock(&mappings_mutex);
}

struct mapping *mapping_new(void)
{
  struct mapping *mapping = take_vacant();
  if (!mapping)
    return NULL;
  void *base = map_private(NULL);
  if (base == MAP_FAILED) {
    make_vacant(mapping);
    return NULL;
  }
  atomic_store(&mapping->cut, false);
  atomic_store(&mapping->shared, false);
  atomic_store(&mapping->base, base);
  return mapping;
}

void mapping_free(struct mapping *mapping)
{
  munmap(atomic_exchange(&mapping->base, NULL), MAPPING_SIZE);
  make_vacant(mapping);
}

void *mapping_base(const struct mapping *mapping)
{
  return atomic_load(&mapping->base);
}

bool mapping_is_shared(const struct mapping *mapping)
{
  return atomic_load(&mapping->shared);
}

bool mapping_was_cut(const struct mapping *mapping)
{
  return atomic_load(&mapping->cut);
}

void mapping_make_private(struct mapping *mapping)
{
  if (atomic_load(&mapping->shared) || atomic_load(&mapping->cut))
    (void)map_private(atomic_load(&mapping->base));
  atomic_store(&mapping->shared, false);
  atomic_store(&mapping->cut, false);
}

/* Where the file system maps no files, an attempt in place would leave a hole in older kernels: so it is first made
 * elsewhere. */
static bool map_file(const struct mapping *mapping, int fd)
{
  void *base = atomic_load(&mapping->base),
       *elsewhere = mmap(NULL, MAPPING_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (elsewhere == MAP_FAILED)
    return false;
  bool mapped = mmap(base, MAPPING_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED;
  if (!mapped)
    (void)map_private(base);
  munmap(elsewhere, MAPPING_SIZE);
  return mapped;
}

bool mapping_share(struct mapping *mapping, int fd)
{
  watch_sigbus();
  bool shared = map_file(mapping, fd);
  atomic_store(&mapping->shared, shared);
  return shared;
}

void mapping_before_fork(void)
{
  pthread_mutex_lock(&mappings_mutex);
  pthread_mutex_lock(&handlers_mutex);
}

void mapping_after_fork(void)
{
  pthread_mutex_unlock(&handlers_mutex);
  pthread_mutex_unlock(&mappings_mutex);
}
