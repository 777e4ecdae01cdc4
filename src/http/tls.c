#define _GNU_SOURCE
#include "tls.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef RTLD_NOLOAD
typedef uint64_t set_options(void *context, uint64_t options);
typedef void log_key(const void *ssl, const char *line);
typedef void set_key_log(void *context, log_key *function);

static bool is_openssl(void)
{
  const char *tls = curl_version_info(CURLVERSION_NOW)->ssl_version;
  return tls && strncmp(tls, "OpenSSL/", 8) == 0;
}

static int openssl_version(void)
{
  return atoi(curl_version_info(CURLVERSION_NOW)->ssl_version + 8);
}

/* A function of OpenSSL as libcurl sees it. The process may hold several OpenSSLs: NULL when it is not certain which of
 * them is libcurl's. */
static void *find_openssl_function(const char *name)
{
  CURL *(*curl)(void) = curl_easy_init;
  void *address = NULL, *library = NULL;
  Dl_info info;
  memcpy(&address, &curl, sizeof address);
  if (is_openssl() && dladdr(address, &info))
    library = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
  if (!library)
    return NULL;
  void *found = dlsym(library, name), *first = dlsym(RTLD_DEFAULT, name);
  dlclose(library);
  return !first || first == found ? found : NULL;
}

/* OpenSSL before 3 has no such option. */
static void wipe(void *context)
{
  const uint64_t cleanse_plaintext = 2; /* SSL_OP_CLEANSE_PLAINTEXT */
  void *found = openssl_version() >= 3 ? find_openssl_function("SSL_CTX_set_options") : NULL;
  set_options *function = NULL;
  memcpy(&function, &found, sizeof function);
  if (function)
    function(context, cleanse_plaintext);
}

/* False: it cannot be done. */
static bool stop_key_log(void *context)
{
  void *found = find_openssl_function("SSL_CTX_set_keylog_callback");
  set_key_log *function = NULL;
  memcpy(&function, &found, sizeof function);
  if (function)
    function(context, NULL);
  return function != NULL;
}

/* Called when libcurl has set its own callback. */
static CURLcode before_tls(CURL *handle, void *context, void *logs_keys)
{
  (void)handle;
  wipe(context);
  if (stop_key_log(context) || !getenv("SSLKEYLOGFILE"))
    return CURLE_OK;
  *(bool *)logs_keys = true;
  return CURLE_SSL_CONNECT_ERROR;
}

bool tls_guard(CURL *handle, bool *logs_keys)
{
  *logs_keys = !is_openssl() && getenv("SSLKEYLOGFILE");
  curl_easy_setopt(handle, CURLOPT_SSL_CTX_DATA, logs_keys);
  curl_easy_setopt(handle, CURLOPT_SSL_CTX_FUNCTION, before_tls);
  return !*logs_keys;
}
#else
bool tls_guard(CURL *handle, bool *logs_keys)
{
  (void)handle;
  *logs_keys = getenv("SSLKEYLOGFILE") != NULL;
  return !*logs_keys;
}
#endif
