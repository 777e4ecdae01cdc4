/* The reason why the module could not be loaded, in a sentence with the remedy, and its code: CODE_CONFIG, or
 * CODE_NETWORK if a later try may succeed by itself. */
#ifndef HTTP_UNLOADED_H
#define HTTP_UNLOADED_H

#include "../base/code.h"

#include <stddef.h>

/* Its file is there and could not be opened, for `cause`, an errno. */
enum code unloaded_unopened(const char *path, int cause, char *message, size_t size);

/* The linker says why, in English. */
enum code unloaded_unlinked(const char *path, const char *reason, char *message, size_t size);

#endif
