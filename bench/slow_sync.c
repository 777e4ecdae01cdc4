/* Preloaded: fsync and fdatasync take half a second longer while the file that SLOW_SYNC names exists. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void dawdle(void)
{
  const char *file = getenv("SLOW_SYNC");
  struct timespec left = {.tv_nsec = 500000000};
  if (file && access(file, F_OK) == 0)
    nanosleep(&left, NULL);
}

typedef int sync_function(int fd);

int fsync(int fd)
{
  sync_function *next;
  *(void **)&next = dlsym(RTLD_NEXT, "fsync");
  dawdle();
  return next(fd);
}

int fdatasync(int fd)
{
  sync_function *next;
  *(void **)&next = dlsym(RTLD_NEXT, "fdatasync");
  dawdle();
  return next(fd);
}
