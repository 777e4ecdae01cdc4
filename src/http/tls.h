/* What libcurl does not tell its TLS library by itself. */
#ifndef HTTP_TLS_H
#define HTTP_TLS_H

#include <curl/curl.h>

/* OpenSSL frees its read buffer with the answer in it unless it is told to wipe it. Where it cannot be told, the POST
 * goes on all the same. */
void tls_set_wiping(CURL *handle);

#endif
