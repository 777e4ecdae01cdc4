#include "digest.h"

#include "http.h"

#include <string.h>

void digest_sha256(const void *data, size_t size, unsigned char digest[32])
{
  const struct http_ops *http = http_load(NULL, NULL, 0);
  memset(digest, 0, 32);
  if (http)
    http->sha256(data, size, digest);
}
