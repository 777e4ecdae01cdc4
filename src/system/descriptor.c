#define _GNU_SOURCE
#include "descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int descriptor_keep(int fd)
{
  if (fd < 0 || fd > STDERR_FILENO)
    return fd;
  int kept = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1), cause = errno;
  close(fd);
  errno = cause;
  return kept;
}
