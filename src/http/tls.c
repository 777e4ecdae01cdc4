#define _GNU_SOURCE
#include "tls.h"

#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef RTLD_NOLOAD
typedef uint64_t set_options(void *context, uint64_t options);

/* OpenSSL's SSL_CTX_set_options as libcurl sees it. The process may hold several OpenSSLs: NULL when it is
 * not certain which of them is libcurl's, or when it is older than 3, which cannot do what is wanted here. */
static set_options *find_set_options(void)
{
  const char *name = "SSL_CTX_set_options", *tls = curl_version_info(CURLVERSION_NOW)->ssl_version;
  CURLcode (*curl)(CURL *) = curl_easy_perform;
  void *address = NULL, *library = NULL;
  set_options *function = NULL;
  Dl_info info;
  memcpy(&address, &curl, sizeof address);
  if (tls && strncmp(tls, "OpenSSL/", 8) == 0 && atoi(tls + 8) >= 3 && dladdr(address, &info))
    library = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
  if (!library)
    return NULL;
  void *found = dlsym(library, name), *first = dlsym(RTLD_DEFAULT, name);
  dlclose(library);
  if (found && (!first || first == found))
    memcpy(&function, &found, sizeof function);
  return function;
}

static CURLcode before_tls(CURL *handle, void *context, void *user)
{
  const uint64_t cleanse_plaintext = 2; /* SSL_OP_CLEANSE_PLAINTEXT */
  set_options *function = find_set_options();
  (void)handle, (void)user;
  if (function)
    function(context, cleanse_plaintext);
  return CURLE_OK;
}

void tls_set_wiping(CURL *handle)
{
  curl_easy_setopt(handle, CURLOPT_SSL_CTX_FUNCTION, before_tls);
}
#else
void tls_set_wiping(CURL *handle)
{
  (void)handle;
}
#endif
