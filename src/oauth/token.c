#include "token.h"

#include <stddef.h>

bool token_fits_header(const char *token)
{
  for (const char *p = token; p && *p; p++)
    if ((unsigned char)*p < 0x20 || *p == 0x7F)
      return false;
  return token && *token;
}

bool token_type_is_bearer(const char *type)
{
  static const char bearer[] = "bearer";
  if (!type || !*type)
    return true;
  size_t i = 0;
  while (bearer[i] && (type[i] | 0x20) == bearer[i])
    i++;
  return !bearer[i] && !type[i];
}

/* FNV-1a: https://datatracker.ietf.org/doc/html/rfc9923 */
uint64_t token_fingerprint(const char *token)
{
  uint64_t hash = UINT64_C(0xcbf29ce484222325);
  for (const char *c = token; *c; c++)
    hash = (hash ^ (unsigned char)*c) * UINT64_C(0x100000001b3);
  return hash ? hash : 1;
}
