/* Why the module could not be loaded, in a sentence that says what to do. */
#ifndef HTTP_UNLOADED_H
#define HTTP_UNLOADED_H

#include <stddef.h>

/* Its file is there and could not be opened, for `cause`, an errno. */
void unloaded_unopened(const char *path, int cause, char *message, size_t size);

/* The linker says why, in English. */
void unloaded_unlinked(const char *path, const char *reason, char *message, size_t size);

#endif
