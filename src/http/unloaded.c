#define _GNU_SOURCE
#include "unloaded.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NEEDED "tokens cannot be refreshed without libcurl and libsodium"

static void unreadable(const char *what, const char *path, char *message, size_t size)
{
  snprintf(message, size,
           "%s cannot be read: %s is there, but the user of this process (number %lu) may not read it, or not enter a "
           "folder above it: let that user read it",
           what, path, (unsigned long)geteuid());
}

static enum code no_descriptors(char *message, size_t size)
{
  snprintf(message, size,
           "libcurl cannot be loaded, since this process has as many files open as it may: "
           "close some, or raise the limit (ulimit -n). Nothing was sent; a later call tries again.");
  return CODE_NETWORK;
}

static enum code no_memory(char *message, size_t size)
{
  snprintf(
      message, size,
      "libcurl cannot be loaded, since this process gets no memory for it: its limit is reached (ulimit -v), or "
      "it has as many mappings as the system allows (vm.max_map_count). Nothing was sent; a later call tries again.");
  return CODE_NETWORK;
}

enum code unloaded_unopened(const char *path, int cause, char *message, size_t size)
{
  if (cause == EACCES || cause == EPERM)
    unreadable("a part of lucidauth", path, message, size);
  else if (cause == EMFILE || cause == ENFILE)
    return no_descriptors(message, size);
  else if (cause == ENOMEM)
    return no_memory(message, size);
  else
    snprintf(message, size, "a part of lucidauth cannot be read, the file %s: install lucidauth again", path);
  return CODE_CONFIG;
}

static bool says_any(const char *reason, const char *const *words)
{
  for (; *words; words++)
    if (strstr(reason, *words))
      return true;
  return false;
}

/* True: it is there, and this user may not read it. */
static bool is_unreadable(const char *path)
{
  int file = access(path, F_OK) == 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  bool denied = file < 0 && errno == EACCES;
  if (file >= 0)
    close(file);
  return denied;
}

/* A library that may not be read is called missing by the linker, which goes on looking. Where the system's own library
 * is, others are likely to be. */
static bool find_unreadable(const char *name, char path[PATH_MAX])
{
  Dl_info info;
  char folders[2 * PATH_MAX], *rest = NULL;
  const char *given = getenv("LD_LIBRARY_PATH");
  bool known = dladdr(dlsym(RTLD_DEFAULT, "dlopen"), &info) && info.dli_fname && strrchr(info.dli_fname, '/');
  int length = known ? (int)(strrchr(info.dli_fname, '/') - info.dli_fname) : 0;
  const char *own = known ? info.dli_fname : "";
  snprintf(folders, sizeof folders, "%s:%.*s:/usr%.*s:/usr/local/lib:/usr/lib:/usr/lib64:/lib:/lib64",
           given ? given : "", length, own, length, own);
  for (char *folder = strtok_r(folders, ":", &rest); folder; folder = strtok_r(NULL, ":", &rest)) {
    snprintf(path, PATH_MAX, "%s/%s", folder, name);
    if (is_unreadable(path))
      return true;
  }
  return false;
}

/* The name of the library that the linker speaks of. */
static void name_library(const char *reason, char *name, size_t size)
{
  const char *begin = strstr(reason, "lib"), *end = begin ? strpbrk(begin, ": ") : NULL;
  snprintf(name, size, "%.*s", end ? (int)(end - begin) : 0, end ? begin : "");
}

static void missing(const char *reason, char *message, size_t size)
{
  char name[NAME_MAX + 1], path[PATH_MAX];
  name_library(reason, name, sizeof name);
  if (name[0] && find_unreadable(name, path))
    unreadable("a library that lucidauth needs", path, message, size);
  else
    snprintf(message, size,
             NEEDED ": install them (Debian, Ubuntu: libcurl4 and libsodium23; Fedora, Alpine: libcurl and "
                    "libsodium). The system says: %s",
             reason);
}

/* Where it has no memory for a name glibc may say that the file is not there, for whatever errno was left. */
static bool is_about_file_that_is_there(const char *path, const char *reason)
{
  return strncmp(reason, path, strlen(path)) == 0 && reason[strlen(path)] == ':' && access(path, R_OK) == 0;
}

/* glibc's words, and musl's. */
enum code unloaded_unlinked(const char *path, const char *reason, char *message, size_t size)
{
  static const char *const other[] = {"undefined symbol", "symbol not found", "version `", "symbol lookup", NULL};
  static const char *const denied[] = {"Permission denied", "Operation not permitted", NULL};
  static const char *const descriptors[] = {"Too many open files", NULL};
  static const char *const memory[] = {"annot allocate", "ut of memory",  "failed to map", "cannot map",
                                       "cannot change",  "cannot create", "cannot make",   NULL};
  static const char *const absent[] = {"No such file", NULL};
  if (says_any(reason, other))
    snprintf(message, size,
             "libcurl or libsodium is not the one that lucidauth was built with: install them and lucidauth from the "
             "same place, or build lucidauth here. The system says: %s",
             reason);
  else if (says_any(reason, denied))
    snprintf(message, size, "a library that lucidauth needs may not be used by this process. The system says: %s",
             reason);
  else if (says_any(reason, descriptors))
    return no_descriptors(message, size);
  else if (says_any(reason, memory) || (says_any(reason, absent) && is_about_file_that_is_there(path, reason)))
    return no_memory(message, size);
  else if (says_any(reason, absent))
    missing(reason, message, size);
  else if (strstr(reason, path))
    snprintf(message, size,
             "a part of lucidauth is damaged, or made for another machine: install lucidauth again. "
             "The system says: %s",
             reason);
  else
    snprintf(message, size, NEEDED ", which cannot be loaded. The system says: %s", reason);
  return CODE_CONFIG;
}
