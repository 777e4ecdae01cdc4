/* The core's table of cJSON. */
#define CJSON_BY_NAME
#include "../base/cjson.h"

#include "symbols.h"

#define AS_LINKED(name) .name = cJSON_##name,
#define NAME(name) "cJSON_" #name,

struct cjson cjson = {CJSON_NAMES(AS_LINKED)};

/* macOS binds a name to the library that it was linked from. */
#ifndef __APPLE__

__attribute__((constructor)) static void find_our_cjson(void)
{
  static const char *const names[] = {CJSON_NAMES(NAME)};
  enum { COUNT = sizeof names / sizeof *names };
  _Static_assert(sizeof cjson == COUNT * sizeof(void *), "the table is an array of function pointers");
  symbols_find(names, &cjson, COUNT);
}

#endif
