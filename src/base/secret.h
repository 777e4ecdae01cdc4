/* Memory that held a token or a client secret is wiped before it is given back. */
#ifndef BASE_SECRET_H
#define BASE_SECRET_H

#include <stddef.h>

/* Overwrite `size` bytes; unlike memset it is never optimized away. NULL is allowed when size is 0. */
void secret_wipe(void *data, size_t size);

/* Overwrite what copying has left of secrets in this thread's vector registers: the dynamic linker's lazy binding and
 * signal frames write them to the stack, where they stay. To be called when the last secret has been handled. */
void secret_forget(void);

/* A copy of a string, to be given to secret_free. NULL for NULL, and when memory is out. */
char *secret_copy(const char *text);

/* Wipe a malloc'd string up to its NUL and free it; NULL is allowed. */
void secret_free(char *text);

#endif
