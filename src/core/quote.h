/* Server text in messages: short, printable, and without secrets. */
#ifndef CORE_QUOTE_H
#define CORE_QUOTE_H

#include <cjson/cJSON.h>
#include <stddef.h>

/* How much of a server's text a message shows (bytes), and the room that a quote takes with "..." and NUL. */
enum { QUOTE_LIMIT = 120, QUOTE_SIZE = QUOTE_LIMIT + 4 };

/* What must not be shown: the strings in `known` (NULLs and empty ones are skipped), and those that `body` (may be
 * NULL) has under the names of tokens and secrets, at any depth. */
struct quote_secrets {
  const char *const *known;
  size_t count;
  const cJSON *body;
};

/* Quote a text, at most `limit` (<= QUOTE_LIMIT) bytes of it, without control characters and bytes that are
 * not UTF-8; "..." stands for what is left off. A secret becomes "[secret]", also where it is percent-encoded
 * or escaped as in JSON, cut off by the server, or reaches beyond the limit. Returns the length. */
size_t quote(char out[QUOTE_SIZE], const char *text, size_t limit, const struct quote_secrets *secrets);

#endif
