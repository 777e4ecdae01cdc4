#define _GNU_SOURCE
#include "obstacle.h"

#include "../system/descriptor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>
#include <unistd.h>

const char *obstacle_words(int cause)
{
  switch (cause) {
  case EMFILE:
    return "this process has no file descriptor left (ulimit -n)";
  case ENFILE:
    return "the system has no file descriptor left (fs.file-max)";
  case ENOMEM:
  case ENOBUFS:
    return "the system is out of memory, or this process is at its limit (ulimit -v)";
  case EPERM:
  case EACCES:
    return "the system forbids this process to connect (seccomp, AppArmor, SELinux or a firewall)";
  case EAFNOSUPPORT:
    return "this process may use no network of that kind (seccomp, or a setting of its service)";
  case ENETUNREACH:
  case ENETDOWN:
    return "no network leads there from this machine or container";
  case EADDRNOTAVAIL:
    return "the system has no address or port left for a connection";
  default:
    return NULL;
  }
}

bool obstacle_is_shortage(int cause)
{
  return cause == EMFILE || cause == ENFILE || cause == ENOMEM || cause == ENOBUFS;
}

/* A look-up of a name takes two sockets to wait for its thread, a file, and a socket to the server of names. */
int obstacle_shortage(void)
{
  enum { NEEDED = 4 };
  int held[NEEDED], count = 0, cause = 0;
  while (count < NEEDED && cause == 0) {
    held[count] = open("/", O_RDONLY | O_CLOEXEC);
    if (held[count] >= 0)
      count++;
    else
      cause = errno;
  }
  while (count > 0)
    close(held[--count]);
  return obstacle_is_shortage(cause) ? cause : 0;
}

/* A system whose network is down has no address of IPv6 to send from. */
static bool is_without_route(int cause)
{
  return cause == ENETUNREACH || cause == EHOSTUNREACH || cause == ENETDOWN || cause == EADDRNOTAVAIL;
}

static bool leads_out(int family, const struct sockaddr *address, socklen_t size)
{
  int fd = descriptor_socket(family, SOCK_DGRAM, 0);
  bool leads = fd >= 0 && (connect(fd, address, size) == 0 || !is_without_route(errno));
  if (fd >= 0)
    close(fd);
  return leads;
}

/* Addresses that are set apart for documentation (RFC 5737, RFC 3849). */
bool obstacle_no_network(void)
{
  struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(9)};
  struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(9)};
  inet_pton(AF_INET, "192.0.2.1", &four.sin_addr);
  inet_pton(AF_INET6, "2001:db8::1", &six.sin6_addr);
  return !leads_out(AF_INET, (const struct sockaddr *)&four, sizeof four) &&
         !leads_out(AF_INET6, (const struct sockaddr *)&six, sizeof six);
}

/* The connection had a descriptor then, and has given it back since. */
int obstacle_to_file(const char *path)
{
  int stand_in = open("/", O_RDONLY | O_CLOEXEC), cause = errno, file = -1;
  if (stand_in >= 0) {
    file = open(path, O_RDONLY | O_CLOEXEC);
    cause = errno;
    close(stand_in);
  }
  if (file >= 0)
    close(file);
  return file >= 0 ? 0 : cause;
}
