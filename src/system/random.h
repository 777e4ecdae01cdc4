/* Random bytes, for names that cannot be guessed. */
#ifndef RANDOM_H
#define RANDOM_H

#include <stddef.h>

/* Fill with random bytes. If the system has none, the bytes still differ from call to call and from process to
 * process. */
void random_fill(unsigned char *bytes, size_t length);

#endif
