/* Names that nobody can guess. */
#ifndef RANDOM_H
#define RANDOM_H

#include <stddef.h>

/* Fill with random bytes. Where the system gives none, with what differs from call to call and process to process. */
void random_fill(unsigned char *bytes, size_t length);

#endif
