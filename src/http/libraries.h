/* libcurl and libsodium: the one place that includes their headers, and all that this module calls of them.
 *
 * A program may have either of its own, and if it exports that, the linker gives it to everybody in the process. So the
 * module calls them by a table, which holds the functions of those that it was built with. Where the module is a part
 * of the program, the program's link has said which are meant. */
#ifndef HTTP_LIBRARIES_H
#define HTTP_LIBRARIES_H

#include <stdbool.h>
#include <stddef.h>

/* macOS binds a name to the library that it was linked from. */
#if !defined(LUCIDAUTH_HTTP_LINKED) && !defined(__APPLE__)
#define LIBRARIES_BY_TABLE
/* Its checks call by name. The objects that are to be linked into a program still have them. */
#define CURL_DISABLE_TYPECHECK
#endif

#include <curl/curl.h>
#include <sodium.h>

#ifdef LIBRARIES_BY_TABLE

/* LATER: those that a libcurl before 7.68 does not have. */
#if LIBCURL_VERSION_NUM >= 0x074400
#define LIBRARIES_LATER(each) each(curl_multi_poll) each(curl_multi_wakeup)
#else
#define LIBRARIES_LATER(each) each(curl_multi_wait)
#endif

#define LIBRARIES_NAMES(each)                                                                                          \
  each(curl_easy_cleanup) each(curl_easy_getinfo) each(curl_easy_init) each(curl_easy_setopt) each(curl_easy_strerror) \
      each(curl_global_init_mem) each(curl_multi_add_handle) each(curl_multi_cleanup) each(curl_multi_info_read)       \
          each(curl_multi_init) each(curl_multi_perform) each(curl_multi_remove_handle) each(curl_slist_append)        \
              each(curl_slist_free_all) each(curl_version_info) LIBRARIES_LATER(each) each(crypto_hash_sha256)         \
                  each(sodium_init)

/* The headers define some names as macros that keep to the name. */
#undef curl_easy_getinfo
#undef curl_easy_setopt

struct libraries {
#define LIBRARIES_FIELD(name) __typeof__(name) *(name);
  LIBRARIES_NAMES(LIBRARIES_FIELD)
#undef LIBRARIES_FIELD
};

extern struct libraries libraries;

#ifndef LIBRARIES_BY_NAME
#define curl_easy_cleanup libraries.curl_easy_cleanup
#define curl_easy_getinfo libraries.curl_easy_getinfo
#define curl_easy_init libraries.curl_easy_init
#define curl_easy_setopt libraries.curl_easy_setopt
#define curl_easy_strerror libraries.curl_easy_strerror
#define curl_global_init_mem libraries.curl_global_init_mem
#define curl_multi_add_handle libraries.curl_multi_add_handle
#define curl_multi_cleanup libraries.curl_multi_cleanup
#define curl_multi_info_read libraries.curl_multi_info_read
#define curl_multi_init libraries.curl_multi_init
#define curl_multi_perform libraries.curl_multi_perform
#define curl_multi_poll libraries.curl_multi_poll
#define curl_multi_remove_handle libraries.curl_multi_remove_handle
#define curl_multi_wait libraries.curl_multi_wait
#define curl_multi_wakeup libraries.curl_multi_wakeup
#define curl_slist_append libraries.curl_slist_append
#define curl_slist_free_all libraries.curl_slist_free_all
#define curl_version_info libraries.curl_version_info
#define crypto_hash_sha256 libraries.crypto_hash_sha256
#define sodium_init libraries.sodium_init
#endif

#endif

/* Before anything else of them is called. NULL: all of it is there; else the name of a function that is not. */
const char *libraries_find(void);

#endif
