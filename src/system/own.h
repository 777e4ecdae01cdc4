/* Functions of the libraries that we were built with. */
#ifndef SYSTEM_OWN_H
#define SYSTEM_OWN_H

#include <stddef.h>

/* Where the linker keeps one list of names for all, a program that exports functions gives them to every library that
 * calls functions of that name, whatever it was linked with. Put the addresses of `names`, as our object and what it
 * needs have them, into `found`, an array of function pointers. NULL: that is done. Else `found` stays as it is, and the
 * first name that was not found comes back: any name in a program that we are linked into, where the linker's word
 * holds. */
const char *own_functions(const char *const names[], void *found, size_t count);

#endif
