/* Errors of the C face. */
#ifndef API_ERROR_H
#define API_ERROR_H

#include "../lucidauth.h"

/* Fill in an error; `error` may be NULL. */
void error_set(lucidauth_error *error, lucidauth_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
