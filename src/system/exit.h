/* The end of the process by exit(), or by returning from main. */
#ifndef EXIT_H
#define EXIT_H

#include <stdbool.h>

/* The function to be called then; the same at every call. */
void exit_set(void (*settle)(void));

/* From now on the end of the process is told of. To be called when libcurl and its TLS library are set up, whose own
 * last steps are then taken later, and before anything is spent. NULL, or a sentence that says why nothing may be
 * spent: no process would wait for the answer. */
const char *exit_watch(void);

/* The process ends: that function was called, or is about to be. */
bool exit_has_begun(void);

#endif
