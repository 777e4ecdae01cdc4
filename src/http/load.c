#define _GNU_SOURCE
#include "http.h"

#include <pthread.h>
#include <stdatomic.h>

#ifdef LUCIDAUTH_HTTP_LINKED

static const struct http_ops *find(char *message, size_t size)
{
  (void)message, (void)size;
  return &lucidauth_http;
}

#else

#include <dlfcn.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MODULE "curl.so"

/* libcurl cannot be unloaded while its resolver threads may run. */
#ifdef RTLD_NODELETE
#define MODULE_FLAGS (RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE)
#else
#define MODULE_FLAGS (RTLD_NOW | RTLD_LOCAL)
#endif

enum { PATH_SIZE = PATH_MAX + 64 };

/* An address in the object that this code is in. */
static const char here;

/* The folder of that object as the kernel knows it. */
static bool mapped_folder(char folder[PATH_SIZE])
{
  char line[PATH_SIZE + 128];
  bool found = false;
  FILE *maps = fopen("/proc/self/maps", "re");
  while (maps && !found && fgets(line, sizeof line, maps)) {
    uintptr_t from = 0, to = 0;
    int name = 0;
    if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %*s %*s %*s %*s %n", &from, &to, &name) == 2 && name > 0 &&
        line[name] == '/' && (uintptr_t)&here >= from && (uintptr_t)&here < to) {
      snprintf(folder, PATH_SIZE, "%.*s", (int)(strrchr(line, '/') - (line + name)), line + name);
      found = true;
    }
  }
  if (maps)
    fclose(maps);
  return found;
}

/* The linker knows the object by the name it was loaded by. That may be relative, and the program may have
 * changed its directory since. */
static bool own_folder(char folder[PATH_SIZE])
{
  Dl_info info;
  if (!dladdr(&here, &info) || !info.dli_fname || strlen(info.dli_fname) >= PATH_SIZE)
    return false;
  if (info.dli_fname[0] != '/' && mapped_folder(folder))
    return true;
  const char *slash = strrchr(info.dli_fname, '/');
  snprintf(folder, PATH_SIZE, "%.*s", slash ? (int)(slash - info.dli_fname) : 1, slash ? info.dli_fname : ".");
  return true;
}

/* Where the module may stand, most certain place first: the folder of our own name cannot hold another's "curl.so".
 * False: there is no place of that number. */
static bool module_path(int number, char path[PATH_SIZE + 64])
{
  char folder[PATH_SIZE] = "";
  const char *inner = number == 0 ? "lucidauth/" : "";
  if (number >= 2 || !own_folder(folder))
    return false;
  snprintf(path, PATH_SIZE + 64, "%s/%s%s", folder, inner, MODULE);
  return true;
}

static const struct http_ops *load(const char *path, char *message, size_t size)
{
  void *module = dlopen(path, MODULE_FLAGS);
  if (!module) {
    const char *reason = dlerror();
    snprintf(message, size,
             "tokens cannot be refreshed without libcurl and libsodium: install them "
             "(Debian, Ubuntu: libcurl4 and libsodium23; Fedora, Alpine: libcurl and libsodium). "
             "The system says: %s",
             reason ? reason : path);
    return NULL;
  }
  const struct http_ops *ops = dlsym(module, "lucidauth_http");
  if (!ops || ops->version != HTTP_OPS_VERSION || strcmp(ops->product, LUCIDAUTH_VERSION) != 0) {
    snprintf(message, size, "the file %s is of another version of lucidauth: install lucidauth again", path);
    return NULL;
  }
  return ops;
}

static const struct http_ops *find(char *message, size_t size)
{
  char path[PATH_SIZE + 64];
  for (int number = 0; module_path(number, path); number++)
    if (access(path, F_OK) == 0)
      return load(path, message, size);
  snprintf(message, size,
           "a part of lucidauth is missing, the file %s, which stands beside the library or in its folder lucidauth: "
           "install lucidauth again",
           MODULE);
  return NULL;
}

#endif

static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;
static _Atomic(const struct http_ops *) loaded;

static const struct http_ops *load_once(char *message, size_t size)
{
  pthread_mutex_lock(&loading);
  const struct http_ops *ops = atomic_load_explicit(&loaded, memory_order_relaxed);
  if (!ops) {
    ops = find(message, size);
    if (ops)
      ops->start();
    atomic_store_explicit(&loaded, ops, memory_order_release);
  }
  pthread_mutex_unlock(&loading);
  return ops;
}

const struct http_ops *http_load(char *message, size_t size)
{
  if (size > 0)
    message[0] = '\0';
  const struct http_ops *ops = atomic_load_explicit(&loaded, memory_order_acquire);
  return ops ? ops : load_once(message, size);
}

void http_before_fork(void)
{
  pthread_mutex_lock(&loading);
}

void http_after_fork(void)
{
  pthread_mutex_unlock(&loading);
}
