/* libcurl and libsodium as this module uses them. */
#ifndef HTTP_START_H
#define HTTP_START_H

/* Set both up, once a process. libcurl gets an allocator that wipes. NULL: it is done; else the name of a function that
 * they do not have. */
const char *http_start(void);

#endif
