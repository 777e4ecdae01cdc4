/* Threads of the library's own. */
#ifndef THREAD_H
#define THREAD_H

#include <pthread.h>
#include <stdbool.h>

/* Start a thread that gets no signals: they are the program's business; those that tell of a fault of this very thread
 * cannot be put off. `joined`: pthread_join ends it; else it ends by itself. False: the system has none. */
bool thread_start(pthread_t *thread, void *(*body)(void *), bool joined);

/* Whether the process may never have one again. */
bool thread_is_forbidden(void);

#endif
