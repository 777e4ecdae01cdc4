#define _GNU_SOURCE
#include "own.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <string.h>

enum { MOST = 64 };

/* An address in the object that this code is in. */
static const char here;

/* NULL: all are there. Else the first that is not. */
static const char *find(void *self, const char *const names[], void *addresses[], size_t count)
{
  for (size_t i = 0; i < count; i++) {
    void *address = i < MOST ? dlsym(self, names[i]) : NULL;
    if (!address)
      return names[i];
    addresses[i] = address;
  }
  return NULL;
}

static void close_handle(void *handle)
{
  if (handle)
    dlclose(handle);
}

/* A handle of our own looks into our object and what it needs, and not into the program; unless we are in the program,
 * which has been linked as it is meant to be. What is found stays when the handle goes. */
const char *own_functions(const char *const names[], void *found, size_t count)
{
  void *addresses[MOST];
  Dl_info info;
  bool known = dladdr(&here, &info) && info.dli_fname && strchr(info.dli_fname, '/');
  void *self = known ? dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD) : NULL;
  void *program = dlopen(NULL, RTLD_LAZY);
  const char *missing = self && self != program ? find(self, names, addresses, count) : names[0];
  if (!missing)
    memcpy(found, addresses, count * sizeof *addresses);
  close_handle(self);
  close_handle(program);
  return missing;
}
