/* Tokens as an API call can use them. */
#ifndef OAUTH_TOKEN_H
#define OAUTH_TOKEN_H

#include "../base/hash.h"

#include <stdbool.h>
#include <string.h>

/* Whether it may stand in an HTTP header: not empty, no control byte, which would let it break out. False for
 * NULL. */
static inline bool token_fits_header(const char *token)
{
  for (const char *p = token; p && *p; p++)
    if ((unsigned char)*p < 0x20 || *p == 0x7F)
      return false;
  return token && *token;
}

/* "bearer" in any case (RFC 6749 section 5.1). A type that is missing or empty is taken for it: it is the
 * only one in use. */
static inline bool token_type_is_bearer(const char *type)
{
  static const char bearer[] = "bearer";
  if (!type || !*type)
    return true;
  size_t i = 0;
  while (bearer[i] && (type[i] | 0x20) == bearer[i])
    i++;
  return !bearer[i] && !type[i];
}

/* A token's fingerprint, which tells tokens apart in places that may not hold the token: 64 bits, never 0. Two tokens
 * may share one; then one of them is refreshed for nothing. */
static inline uint64_t token_fingerprint(const char *token)
{
  uint64_t hash = hash_bytes(token, strlen(token));
  return hash ? hash : 1;
}

#endif
