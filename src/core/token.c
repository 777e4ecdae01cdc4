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
