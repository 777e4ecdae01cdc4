#include "http.h"

#include "../oauth/origin.h"

#include <stdbool.h>
#include <string.h>

/* RFC 3986 knows no other characters; a parser that lets them through may see another host than we do. */
static bool url_character(char c)
{
  return c > ' ' && c < 0x7f && !strchr("\"<>\\^`{|}", c);
}

static const char *server_problem(enum origin_fault fault)
{
  switch (fault) {
  case ORIGIN_NO_SCHEME:
    return "the URL must begin with https://";
  case ORIGIN_HAS_USER:
    return "there is a user name in the URL: write it without everything up to the '@'";
  case ORIGIN_BAD_PORT:
    return "the port in the URL is not a number from 1 to 65535";
  case ORIGIN_NO_HOST:
    return "there is no host in the URL: write it like https://api.example.com/path";
  case ORIGIN_BAD_HOST:
    return "the host in the URL is neither a host name nor an address (an IPv6 address stands in [brackets])";
  default:
    return NULL;
  }
}

const char *http_url_problem(const char *url)
{
  if (!url || !*url)
    return "the URL is empty: write it like https://api.example.com/path";
  for (const char *c = url; *c; c++)
    if (!url_character(*c))
      return "there is a character in the URL that may not stand there (a space, for instance): percent-encode it";
  struct origin server;
  enum origin_fault fault = origin_read(url, &server);
  if (fault != ORIGIN_NO_SCHEME && strchr(url, '#'))
    return "there is a '#' in the URL, which servers never see: write the URL without it and what follows";
  if (fault == ORIGIN_SOUND && !server.secure && !origin_is_loopback(&server))
    return "plain http would show the secrets to the network: write https "
           "(http is for localhost, 127.0.0.0/8 and [::1] only)";
  return server_problem(fault);
}
