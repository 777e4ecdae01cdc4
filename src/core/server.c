#include "server.h"

#include <string.h>

static char lower(char c)
{
  return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static const char *host_of(const char *url)
{
  const char *colon = strchr(url, ':');
  return colon && strncmp(colon, "://", 3) == 0 ? colon + 3 : url;
}

size_t server_length(const char *url)
{
  const char *host = host_of(url);
  return (size_t)(host - url) + strcspn(host, "/?#");
}

static bool is_of_this_machine(const char *url)
{
  static const char *const names[] = {"localhost", "127.", "[::1]"};
  const char *host = host_of(url);
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strncmp(host, names[i], strlen(names[i])) == 0)
      return true;
  return false;
}

bool server_is_same(const char *url, const char *other)
{
  size_t length = server_length(url);
  if (is_of_this_machine(url) && is_of_this_machine(other))
    return true;
  if (length != server_length(other))
    return false;
  for (size_t i = 0; i < length; i++)
    if (lower(url[i]) != lower(other[i]))
      return false;
  return true;
}
