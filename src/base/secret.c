#define _DEFAULT_SOURCE
#define __STDC_WANT_LIB_EXT1__ 1
#include "secret.h"

#include <stdlib.h>
#include <string.h>

void secret_wipe(void *data, size_t size)
{
  if (size == 0)
    return;
#if defined(__APPLE__)
  memset_s(data, size, 0, size);
#else
  explicit_bzero(data, size);
#endif
}

void secret_forget(void)
{
  /* Each size takes another way through memcpy, with other registers; volatile keeps the compiler from doing
   * it itself. */
  enum { LARGEST = 4096 };
  static const char zeros[LARGEST];
  void *(*volatile copy)(void *, const void *, size_t) = memcpy;
  char copied[LARGEST];
  for (size_t size = 1; size <= LARGEST; size *= 2) {
    copy(copied, zeros, size);
    copy(copied, zeros, size - size / 4);
  }
}

char *secret_copy(const char *text)
{
  return text ? strdup(text) : NULL;
}

void secret_free(char *text)
{
  if (!text)
    return;
  secret_wipe(text, strlen(text));
  free(text);
}
