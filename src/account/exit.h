/* The end of the process by exit() or by returning from main, with clients still open. */
#ifndef ACCOUNT_EXIT_H
#define ACCOUNT_EXIT_H

#include <stdbool.h>

/* From now on the end of the process waits for flights that are in the air, and tries once more to save what could
 * not be saved. To be called when libcurl and its TLS library are set up, whose own last steps are then taken later,
 * and before anything is spent. NULL, or a sentence that says why nothing may be spent: nobody would wait for the
 * answer. */
const char *exit_watch(void);

/* The flights have been waited for, or are about to be. */
bool exit_has_begun(void);

#endif
