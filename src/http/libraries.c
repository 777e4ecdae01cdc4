#define LIBRARIES_BY_NAME
#include "libraries.h"

#ifdef LIBRARIES_BY_TABLE

#include "../system/symbols.h"

#include <string.h>

#define NAME(name) #name,

struct libraries libraries;

const char *libraries_find(void)
{
  static const char *const names[] = {LIBRARIES_NAMES(NAME)};
  enum { COUNT = sizeof names / sizeof *names };
  void *found[COUNT];
  _Static_assert(sizeof libraries == sizeof found, "the table is an array of function pointers");
  const char *missing = symbols_find(names, found, COUNT);
  if (missing)
    return missing;
  memcpy(&libraries, found, sizeof found);
  /* the first is libcurl's, the last libsodium's */
  symbols_bind_inward(found[0]);
  symbols_bind_inward(found[COUNT - 1]);
  return NULL;
}

#else

const char *libraries_find(void)
{
  return NULL;
}

#endif
