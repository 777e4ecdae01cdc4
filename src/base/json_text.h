/* JSON text as servers send it, made into text that cJSON reads without failing and without loss. */
#ifndef BASE_JSON_TEXT_H
#define BASE_JSON_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Numbers come out as strings that start with this byte. It never occurs in UTF-8, so no string of a server's
 * can pass for one. */
#define JSON_TEXT_NUMBER '\xFF'

/* A clean copy of the first JSON value in `length` bytes, NUL-terminated; give it to secret_free. It is
 * complete and well-formed, so that cJSON fails on it only when memory is out, and never frees a half-built
 * tree with secrets in it. What is repaired: see json_read. `whole`: only white space may stand behind the
 * value. NULL: there is no complete value, or memory is out. */
char *json_text_clean(const char *text, size_t length, bool whole);

#endif
