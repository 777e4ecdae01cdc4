/* Tokens as an API call can use them. */
#ifndef OAUTH_TOKEN_H
#define OAUTH_TOKEN_H

#include <stdbool.h>
#include <stdint.h>

/* Whether it may stand in an HTTP header: not empty, no control byte, which would let it break out. False for
 * NULL. */
bool token_fits_header(const char *token);

/* "bearer" in any case (RFC 6749 section 5.1). A type that is missing or empty is taken for it: it is the
 * only one in use. */
bool token_type_is_bearer(const char *type);

/* What tells tokens apart where they may not stand themselves: 64 bits, never 0. Two tokens may share one; then one of
 * them is refreshed for nothing. */
uint64_t token_fingerprint(const char *token);

#endif
