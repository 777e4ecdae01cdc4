/* Memory that held a token or a client secret is wiped before it is given back. */
#ifndef BASE_SECRET_H
#define BASE_SECRET_H

#include <stddef.h>

/* Overwrite `size` bytes; unlike memset it is never optimized away. NULL is allowed when size is 0. */
void secret_wipe(void *data, size_t size);

/* Overwrite the secrets that copying has left in this thread's vector registers. The dynamic linker's lazy binding and
 * signal frames write these registers to the stack, where they stay. Call this after the last secret has been
 * handled. */
void secret_forget(void);

/* A copy of a string, to be given to secret_free. NULL for NULL, and when out of memory. */
char *secret_copy(const char *text);

/* Wipe a malloc'd string up to its NUL and free it; NULL is allowed. */
void secret_free(char *text);

#endif
