#include "http.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

/* A part of the URL, not NUL-terminated. */
struct part {
  const char *text;
  size_t length;
};

static bool part_is(struct part part, const char *word)
{
  return part.length == strlen(word) && strncasecmp(part.text, word, part.length) == 0;
}

/* RFC 3986 knows no other characters; a parser that lets them through may see another host than we do. */
static bool url_character(char c)
{
  return c > ' ' && c < 0x7f && !strchr("\"<>\\^`{|}", c);
}

static bool digit(char c)
{
  return c >= '0' && c <= '9';
}

static bool host_character(char c)
{
  return digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || strchr("-._", c);
}

static bool address_character(char c)
{
  return digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F') || strchr(":.", c);
}

/* One decimal number from 0 to 255 without leading zeros, which some parsers read as octal. NULL: it is none. */
static const char *skip_octet(const char *text, const char *end)
{
  int value = 0;
  const char *at = text;
  while (at < end && digit(*at) && value <= 255)
    value = value * 10 + (*at++ - '0');
  if (at == text || value > 255 || (*text == '0' && at - text > 1))
    return NULL;
  return at;
}

static bool loopback_ipv4(struct part host)
{
  const char *end = host.text + host.length;
  if (host.length < 4 || memcmp(host.text, "127.", 4) != 0)
    return false;
  const char *at = host.text;
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

static bool loopback(struct part host)
{
  return part_is(host, "localhost") || part_is(host, "[::1]") || loopback_ipv4(host);
}

static bool host_valid(struct part host)
{
  bool bracketed = host.length > 2 && host.text[0] == '[' && host.text[host.length - 1] == ']';
  size_t first = bracketed ? 1 : 0, last = bracketed ? host.length - 1 : host.length;
  for (size_t i = first; i < last; i++)
    if (!(bracketed ? address_character(host.text[i]) : host_character(host.text[i])))
      return false;
  return true;
}

static bool port_valid(struct part port)
{
  int value = 0;
  for (size_t i = 0; i < port.length && value <= 65535; i++) {
    if (!digit(port.text[i]))
      return false;
    value = value * 10 + (port.text[i] - '0');
  }
  return value >= 1 && value <= 65535;
}

/* Cut ":port" off the host. False: there is a port, and it cannot be one. */
static bool cut_port(struct part *host)
{
  size_t colon = host->length;
  while (colon > 0 && host->text[colon - 1] != ':' && host->text[colon - 1] != ']')
    colon--;
  if (colon == 0 || host->text[colon - 1] == ']')
    return colon == 0 || colon == host->length;
  struct part port = {host->text + colon, host->length - colon};
  host->length = colon - 1;
  return port_valid(port);
}

static const char *authority_problem(struct part host, bool plain)
{
  if (memchr(host.text, '@', host.length))
    return "there is a user name in the URL: write it without everything up to the '@'";
  if (!cut_port(&host))
    return "the port in the URL is not a number from 1 to 65535";
  if (host.length == 0)
    return "there is no host in the URL: write it like https://api.example.com/path";
  if (!host_valid(host))
    return "the host in the URL is neither a host name nor an address (an IPv6 address stands in [brackets])";
  if (plain && !loopback(host))
    return "plain http would show the secrets to the network: write https "
           "(http is for localhost, 127.0.0.0/8 and [::1] only)";
  return NULL;
}

const char *http_url_problem(const char *url)
{
  if (!url || !*url)
    return "the URL is empty: write it like https://api.example.com/path";
  for (const char *c = url; *c; c++)
    if (!url_character(*c))
      return "there is a character in the URL that may not stand there (a space, for instance): percent-encode it";
  bool plain = strncasecmp(url, "http://", 7) == 0;
  if (!plain && strncasecmp(url, "https://", 8) != 0)
    return "the URL must begin with https://";
  if (strchr(url, '#'))
    return "there is a '#' in the URL, which servers never see: write the URL without it and what follows";
  struct part host = {url + (plain ? 7 : 8), 0};
  host.length = strcspn(host.text, "/?");
  return authority_problem(host, plain);
}
