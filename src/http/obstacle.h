/* This machine's own reasons for not reaching a server, in words that say how to mend it. libcurl only knows that it
 * did not get there. */
#ifndef HTTP_OBSTACLE_H
#define HTTP_OBSTACLE_H

#include <stdbool.h>

/* An errno of socket(), connect() or open() in plain words, static. NULL: it is none of this machine's. */
const char *obstacle_words(int cause);

/* EMFILE, ENFILE or ENOMEM when a connection with all that it needs could not be had at this moment, else 0. */
int obstacle_shortage(void);

bool obstacle_is_shortage(int cause);

/* Whether no route leads out of this machine. Nothing is sent to learn it. */
bool obstacle_no_network(void);

/* Why a file that is to be read while a connection stands cannot be opened, an errno; 0: it can be. */
int obstacle_to_file(const char *path);

#endif
