/* Functions of the libraries that lucidauth was built with, in a program that exports functions of the same names. */
#ifndef SYSTEM_SYMBOLS_H
#define SYSTEM_SYMBOLS_H

#include <stddef.h>

/* Some linkers keep one list of names for the whole process. There a program that exports functions gives them to every
 * library that calls functions of these names.
 *
 * Put the addresses of `names`, as found in our object and its libraries, into `found`, an array of function pointers.
 * NULL: done. Else `found` stays as it is, and the first name that was not found is returned. If we are linked into the
 * program, that is any name, and the linker's choice holds. */
const char *symbols_find(const char *const names[], void *found, size_t count);

/* Make the library that contains `function` call its own functions from now on, on the kinds of machine where that is
 * known to work. A library calls its own functions by name, and the linker binds these names to the program's functions
 * if the program exports the same names. A mixture of both is worse than either: libcurl would free memory that the
 * program's libcurl has allocated. */
void symbols_bind_inward(const void *function);

#endif
