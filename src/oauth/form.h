/* Form-encoded bodies (application/x-www-form-urlencoded). */
#ifndef OAUTH_FORM_H
#define OAUTH_FORM_H

#include "../base/json.h"

/* The pairs as an object of strings, repaired as json_read repairs; the last of equal names wins. The caller owns the
 * tree. NULL: these `length` bytes do not look like a form (every name in one is a plain name; HTML, JSON and prose
 * fail on that), or out of memory. */
cJSON *form_read(const char *text, size_t length);

#endif
