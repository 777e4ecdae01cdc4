/* Settings of the TLS library that libcurl does not make by itself. */
#ifndef HTTP_TLS_H
#define HTTP_TLS_H

#include "libraries.h"

#include <stdbool.h>

/* OpenSSL frees its read buffer with the answer in it unless it is told to wipe it. Where it cannot be told, the POST
 * goes on all the same.
 * Where SSLKEYLOGFILE is set libcurl, or its TLS library, writes the keys of all connections to that file, which others
 * may be able to read. OpenSSL is told not to; where that cannot be done nothing is sent, and `logs_keys`, which stays
 * where it is as long as the handle, becomes true, at once or when TLS begins. False: at once. */
bool tls_guard(CURL *handle, bool *logs_keys);

#endif
