/* The origin that a URL names. No other place takes a URL apart: comparing, allowing plain http and showing go by the
 * same reading. */
#ifndef OAUTH_ORIGIN_H
#define OAUTH_ORIGIN_H

#include <stdbool.h>
#include <stddef.h>

/* The origin of an http or https URL (RFC 6454 section 4); `host` points into the URL. */
struct origin {
  bool secure;
  const char *host; /* a name, an IPv4 address, or an IPv6 address in its brackets; any case */
  size_t host_length;
  int port; /* 1 to 65535; the scheme's own where the URL has none */
};

enum origin_fault {
  ORIGIN_SOUND,
  ORIGIN_NO_SCHEME, /* neither http:// nor https:// */
  ORIGIN_HAS_USER,
  ORIGIN_BAD_PORT,
  ORIGIN_NO_HOST,
  ORIGIN_BAD_HOST /* neither a host name nor an address */
};

/* Take the URL apart; `origin` is filled when it is sound. The path and the rest are not looked at. */
enum origin_fault origin_read(const char *url, struct origin *origin);

/* Whether it is this machine by its exact name or address: localhost, 127.0.0.0/8 in its four numbers, [::1]. Other
 * spellings are not: some resolver may see another host in them. */
bool origin_is_loopback(const struct origin *origin);

/* How many bytes of a URL name the server: scheme, host and port. */
size_t origin_length(const char *url);

/* Whether two URLs name one server: the same scheme, host and port, with any path. All servers on this machine count as
 * one: programs are tried out there, and the port differs from run to run. A URL that is not sound names no server and
 * is the same as none. */
bool origin_is_same(const char *url, const char *other);

#endif
