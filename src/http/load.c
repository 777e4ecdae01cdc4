#define _GNU_SOURCE
#include "http.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#ifdef LUCIDAUTH_HTTP_LINKED

static const struct http_ops *find_functions(enum code *code, char *message, size_t size)
{
  (void)code, (void)message, (void)size;
  lucidauth_http.start();
  return &lucidauth_http;
}

static bool locate_module(char *message, size_t size)
{
  (void)message, (void)size;
  return true;
}

#else

#include "unloaded.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#ifdef __APPLE__
#include <xlocale.h>
#endif

#define MODULE "curl.so"

/* libcurl cannot be unloaded while its resolver threads may run. */
#ifdef RTLD_NODELETE
#define MODULE_FLAGS (RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE)
#else
#define MODULE_FLAGS (RTLD_NOW | RTLD_LOCAL)
#endif

enum { PATH_SIZE = PATH_MAX + 64, REASON_SIZE = 600 };

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

/* The module does not name these functions to the linker, so a missing one is reported here in the linker's words. */
static bool start_module(const struct http_ops *ops, const char *path, char *message, size_t size)
{
  const char *missing = ops->start();
  char reason[REASON_SIZE];
  snprintf(reason, sizeof reason, "undefined symbol: %s", missing ? missing : "");
  if (missing)
    unloaded_unlinked(path, reason, message, size);
  return !missing;
}

/* In English, in any locale. */
static void *link_module(const char *path, enum code *code, char *message, size_t size)
{
  locale_t english = newlocale(LC_ALL_MASK, "C", (locale_t)0);
  locale_t before = english ? uselocale(english) : (locale_t)0;
  void *module = dlopen(path, MODULE_FLAGS);
  if (!module) {
    const char *reason = dlerror();
    char kept[REASON_SIZE]; /* the next look at a library takes it away */
    snprintf(kept, sizeof kept, "%s", reason ? reason : "nothing");
    *code = unloaded_unlinked(path, kept, message, size);
  }
  if (english) {
    uselocale(before);
    freelocale(english);
  }
  return module;
}

static const struct http_ops *load_module(const char *path, enum code *code, char *message, size_t size)
{
  void *module = link_module(path, code, message, size);
  if (!module)
    return NULL;
  const struct http_ops *ops = dlsym(module, "lucidauth_http");
  if (!ops || ops->version != HTTP_OPS_VERSION || strcmp(ops->product, LUCIDAUTH_VERSION) != 0) {
    snprintf(message, size, "the file %s is of another version of lucidauth: install lucidauth again", path);
    return NULL;
  }
  return start_module(ops, path, message, size) ? ops : NULL;
}

/* 0: it can be read. Else an errno. */
static int trouble_with(const char *path)
{
  int file = open(path, O_RDONLY | O_CLOEXEC), cause = errno;
  if (file < 0)
    return cause;
  close(file);
  return 0;
}

static void explain_absence(char *message, size_t size)
{
  char folder[PATH_SIZE] = ".";
  own_folder(folder);
  snprintf(message, size,
           "a part of lucidauth is missing, the file %s, which stands beside the library or in its folder lucidauth: "
           "install lucidauth again, or, in a chroot, what is in %s",
           MODULE, folder);
}

/* Where the whole folder is closed to this user it cannot be told which of the places is the right one. */
static enum code explain_trouble(const char *path, int cause, char *message, size_t size)
{
  char folder[PATH_SIZE];
  bool closed = own_folder(folder) && faccessat(AT_FDCWD, folder, X_OK, AT_EACCESS) != 0 && errno == EACCES;
  return unloaded_unopened(closed ? folder : path, cause, message, size);
}

/* Where the module is. False: it cannot be read, and `message` says why. */
static bool find_module(char path[PATH_SIZE + 64], enum code *code, char *message, size_t size)
{
  char troubled[PATH_SIZE + 64];
  int trouble = 0;
  for (int number = 0; module_path(number, path); number++) {
    int cause = trouble_with(path);
    if (cause == 0)
      return true;
    if (cause != ENOENT && cause != ENOTDIR && trouble == 0) {
      trouble = cause;
      memcpy(troubled, path, sizeof troubled);
    }
  }
  if (trouble != 0)
    *code = explain_trouble(troubled, trouble, message, size);
  else
    explain_absence(message, size);
  return false;
}

static const struct http_ops *find_functions(enum code *code, char *message, size_t size)
{
  char path[PATH_SIZE + 64];
  return find_module(path, code, message, size) ? load_module(path, code, message, size) : NULL;
}

static bool locate_module(char *message, size_t size)
{
  char path[PATH_SIZE + 64];
  enum code code;
  return find_module(path, &code, message, size);
}

#endif

static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;
static _Atomic(const struct http_ops *) loaded;

static const struct http_ops *load_once(enum code *code, char *message, size_t size)
{
  pthread_mutex_lock(&loading);
  const struct http_ops *ops = atomic_load_explicit(&loaded, memory_order_relaxed);
  if (!ops) {
    ops = find_functions(code, message, size);
    atomic_store_explicit(&loaded, ops, memory_order_release);
  }
  pthread_mutex_unlock(&loading);
  return ops;
}

const struct http_ops *http_load(enum code *code, char *message, size_t size)
{
  enum code kind = CODE_CONFIG;
  if (size > 0)
    message[0] = '\0';
  const struct http_ops *ops = atomic_load_explicit(&loaded, memory_order_acquire);
  if (!ops)
    ops = load_once(&kind, message, size);
  if (code)
    *code = ops ? CODE_OK : kind;
  return ops;
}

bool http_locate(char *message, size_t size)
{
  return atomic_load_explicit(&loaded, memory_order_acquire) || locate_module(message, size);
}

void http_before_fork(void)
{
  pthread_mutex_lock(&loading);
}

void http_after_fork(void)
{
  pthread_mutex_unlock(&loading);
}
