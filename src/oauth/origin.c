#include "origin.h"

#include "../base/character.h"

#include <string.h>

static bool is_same_text(const char *text, const char *other, size_t length)
{
  for (size_t i = 0; i < length; i++)
    if (ascii_lower(text[i]) != ascii_lower(other[i]))
      return false;
  return true;
}

static bool starts_with(const char *text, const char *word)
{
  for (; *word; text++, word++)
    if (ascii_lower(*text) != *word)
      return false;
  return true;
}

static bool is_host_character(char c)
{
  return ascii_is_alphanumeric(c) || (c && strchr("-._", c));
}

static bool is_address_character(char c)
{
  return ascii_hex_digit(c) >= 0 || c == ':' || c == '.';
}

static bool is_host(const char *host, size_t length)
{
  bool bracketed = length > 2 && host[0] == '[' && host[length - 1] == ']';
  size_t first = bracketed ? 1 : 0, last = bracketed ? length - 1 : length;
  for (size_t i = first; i < last; i++)
    if (!(bracketed ? is_address_character(host[i]) : is_host_character(host[i])))
      return false;
  return true;
}

/* False: it cannot be a port. */
static bool read_port(const char *text, size_t length, int *port)
{
  int value = 0;
  for (size_t i = 0; i < length; i++) {
    if (!ascii_is_digit(text[i]) || value > 65535)
      return false;
    value = value * 10 + (text[i] - '0');
  }
  *port = value;
  return value >= 1 && value <= 65535;
}

/* Cut ":port" off the host. False: there is a port, and it cannot be one. */
static bool cut_port(struct origin *origin)
{
  const char *host = origin->host;
  size_t colon = origin->host_length;
  while (colon > 0 && host[colon - 1] != ':' && host[colon - 1] != ']')
    colon--;
  if (colon == 0 || host[colon - 1] == ']')
    return colon == 0 || colon == origin->host_length;
  size_t length = origin->host_length - colon;
  origin->host_length = colon - 1;
  return read_port(host + colon, length, &origin->port);
}

enum origin_fault origin_read(const char *url, struct origin *origin)
{
  bool secure = starts_with(url, "https://");
  if (!secure && !starts_with(url, "http://"))
    return ORIGIN_NO_SCHEME;
  const char *host = url + strlen(secure ? "https://" : "http://");
  *origin =
      (struct origin){.secure = secure, .host = host, .host_length = strcspn(host, "/?#"), .port = secure ? 443 : 80};
  if (memchr(host, '@', origin->host_length))
    return ORIGIN_HAS_USER;
  if (!cut_port(origin))
    return ORIGIN_BAD_PORT;
  if (origin->host_length == 0)
    return ORIGIN_NO_HOST;
  return is_host(host, origin->host_length) ? ORIGIN_SOUND : ORIGIN_BAD_HOST;
}

static bool host_is(const struct origin *origin, const char *name)
{
  return origin->host_length == strlen(name) && is_same_text(origin->host, name, origin->host_length);
}

/* One decimal number from 0 to 255 without leading zeros, which some parsers read as octal. NULL: it is none. */
static const char *skip_octet(const char *text, const char *end)
{
  int value = 0;
  const char *at = text;
  while (at < end && ascii_is_digit(*at) && value <= 255)
    value = value * 10 + (*at++ - '0');
  if (at == text || value > 255 || (*text == '0' && at - text > 1))
    return NULL;
  return at;
}

static bool is_loopback_ipv4(const struct origin *origin)
{
  const char *at = origin->host, *end = at + origin->host_length;
  if (origin->host_length < 4 || memcmp(at, "127.", 4) != 0)
    return false;
  for (int octet = 0; octet < 4; octet++) {
    bool dotted = at < end && *at == '.';
    if (octet > 0 && !dotted)
      return false;
    at = skip_octet(octet > 0 ? at + 1 : at, end);
    if (!at)
      return false;
  }
  return at == end;
}

bool origin_is_loopback(const struct origin *origin)
{
  return host_is(origin, "localhost") || host_is(origin, "[::1]") || is_loopback_ipv4(origin);
}

size_t origin_length(const char *url)
{
  const char *colon = strchr(url, ':');
  const char *host = colon && strncmp(colon, "://", 3) == 0 ? colon + 3 : url;
  return (size_t)(host - url) + strcspn(host, "/?#");
}

enum { GROUPS = 8 };

/* Groups of up to four hexadecimal digits with colons between them, as far as they go. Returns how many. */
static int read_groups(const char **at, const char *end, unsigned groups[GROUPS])
{
  int count = 0;
  while (count < GROUPS && *at < end && ascii_hex_digit(**at) >= 0) {
    unsigned value = 0;
    for (int digits = 0; *at < end && digits < 4 && ascii_hex_digit(**at) >= 0; digits++, (*at)++)
      value = value * 16 + (unsigned)ascii_hex_digit(**at);
    groups[count++] = value;
    if (end - *at < 2 || **at != ':' || (*at)[1] == ':')
      break;
    (*at)++;
  }
  return count;
}

/* The address in an IPv6 host (RFC 4291 section 2.2), but for the form that ends in an IPv4 address. */
static bool read_ipv6(const struct origin *origin, unsigned address[GROUPS])
{
  unsigned behind[GROUPS];
  const char *at = origin->host + 1, *end = origin->host + origin->host_length - 1;
  if (origin->host[0] != '[')
    return false;
  memset(address, 0, GROUPS * sizeof *address);
  int before = read_groups(&at, end, address);
  if (at == end)
    return before == GROUPS;
  if (end - at < 2 || at[0] != ':' || at[1] != ':')
    return false;
  at += 2;
  int count = read_groups(&at, end, behind);
  if (at != end || before + count >= GROUPS)
    return false;
  memcpy(address + GROUPS - count, behind, (size_t)count * sizeof *behind);
  return true;
}

/* Of two spellings of one IPv6 address, too. */
static bool is_same_host(const struct origin *one, const struct origin *other)
{
  unsigned address[GROUPS], another[GROUPS];
  if (one->host_length == other->host_length && is_same_text(one->host, other->host, one->host_length))
    return true;
  return read_ipv6(one, address) && read_ipv6(other, another) && memcmp(address, another, sizeof address) == 0;
}

bool origin_is_same(const char *url, const char *other)
{
  struct origin one, two;
  if (origin_read(url, &one) != ORIGIN_SOUND || origin_read(other, &two) != ORIGIN_SOUND)
    return false;
  if (origin_is_loopback(&one) && origin_is_loopback(&two))
    return true;
  return one.secure == two.secure && one.port == two.port && is_same_host(&one, &two);
}
