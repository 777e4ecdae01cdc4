/* A library that calls its own functions by name, as the linker binds them: to the program's, where that exports
 * functions of the same names. Half of one and half of another is worse than either: libcurl would free what the
 * program's libcurl has allocated. */
#ifndef SYSTEM_INWARD_H
#define SYSTEM_INWARD_H

/* Have the library that `function` is in call its own functions from now on, if that is known to be done on this kind
 * of machine. */
void inward_bind(const void *function);

#endif
