/* FNV-1a, 64 bits: tells texts apart, and finds accidents; two texts can be made that share a hash.
 * https://datatracker.ietf.org/doc/html/rfc9923 */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

static inline uint64_t hash_bytes(const void *bytes, size_t length)
{
  uint64_t hash = UINT64_C(0xcbf29ce484222325);
  for (const unsigned char *c = bytes; length > 0; c++, length--)
    hash = (hash ^ *c) * UINT64_C(0x100000001b3);
  return hash;
}

#endif
