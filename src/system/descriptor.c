#define _GNU_SOURCE
#include "descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
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

int descriptor_socket(int family, int type, int protocol)
{
#ifdef SOCK_CLOEXEC
  return descriptor_keep(socket(family, type | SOCK_CLOEXEC, protocol));
#else
  int fd = descriptor_keep(socket(family, type, protocol));
  if (fd >= 0)
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
  return fd;
#endif
}

bool descriptor_hold(struct descriptor *descriptor, int fd)
{
  struct stat found;
  *descriptor = DESCRIPTOR_NONE;
  if (fd < 0)
    return false;
  if (fstat(fd, &found) != 0) {
    int cause = errno;
    close(fd);
    errno = cause;
    return false;
  }
  *descriptor = (struct descriptor){.fd = fd, .device = found.st_dev, .inode = found.st_ino};
  return true;
}

bool descriptor_leads_to(const struct descriptor *descriptor, const struct stat *found)
{
  return found->st_dev == descriptor->device && found->st_ino == descriptor->inode;
}

bool descriptor_is_ours(const struct descriptor *descriptor)
{
  struct stat found;
  return descriptor->fd >= 0 && fstat(descriptor->fd, &found) == 0 && descriptor_leads_to(descriptor, &found);
}

bool descriptor_is_gone(const struct descriptor *descriptor)
{
  struct stat found;
  if (descriptor->fd < 0)
    return true;
  if (fstat(descriptor->fd, &found) != 0)
    return errno == EBADF;
  return !descriptor_leads_to(descriptor, &found);
}

void descriptor_close(struct descriptor *descriptor)
{
  if (!descriptor_is_gone(descriptor))
    close(descriptor->fd);
  *descriptor = DESCRIPTOR_NONE;
}

/* The root folder is there in a chroot, too, and takes nothing that is printed. */
void descriptor_plug(struct descriptor_plugs *plugs)
{
  int fd = -1;
  plugs->count = 0;
  while ((fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0 && fd <= STDERR_FILENO)
    if (!descriptor_hold(&plugs->held[plugs->count], fd) || ++plugs->count == PLUGS_MOST)
      return;
  if (fd >= 0)
    close(fd);
}

void descriptor_unplug(struct descriptor_plugs *plugs)
{
  while (plugs->count > 0)
    descriptor_close(&plugs->held[--plugs->count]);
}
