#define _GNU_SOURCE
#include "random.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/syscall.h>
#endif

static bool ask_system(unsigned char *bytes, size_t length)
{
#if defined(__APPLE__) || defined(__FreeBSD__) || defined(__OpenBSD__) || defined(__NetBSD__)
  arc4random_buf(bytes, length);
  return true;
#elif defined(SYS_getrandom)
  return syscall(SYS_getrandom, bytes, length, 0) == (long)length;
#else
  (void)bytes, (void)length;
  return false;
#endif
}

static bool read_device(unsigned char *bytes, size_t length)
{
  int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
  bool good = fd >= 0 && read(fd, bytes, length) == (ssize_t)length;
  if (fd >= 0)
    close(fd);
  return good;
}

static void make_up(unsigned char *bytes, size_t length)
{
  static atomic_uint_least64_t calls;
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  uint64_t state = (uint64_t)now.tv_nsec ^ (uint64_t)now.tv_sec << 30 ^ (uint64_t)getpid() << 12 ^ (uintptr_t)bytes;
  state += atomic_fetch_add(&calls, 1) * UINT64_C(0x9E3779B97F4A7C15);
  for (size_t i = 0; i < length; i++) {
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    bytes[i] = (unsigned char)(state >> 56);
  }
}

void random_fill(unsigned char *bytes, size_t length)
{
  if (!ask_system(bytes, length) && !read_device(bytes, length))
    make_up(bytes, length);
}
