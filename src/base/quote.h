/* Outside text in messages. Of a server's text nothing is shown that may hold a secret. No text may forge lines or
 * drive a terminal. */
#ifndef BASE_QUOTE_H
#define BASE_QUOTE_H

#include "cjson.h"

#include <stdbool.h>
#include <stddef.h>

/* How much of a server's text a message shows (bytes). */
enum { QUOTE_LIMIT = 120 };

/* Takes the place of text that may not be shown. */
#define QUOTE_LEFT_OUT "(its text is left out)"

/* The secrets that must not be shown: the strings in `known` (NULLs and empty ones are skipped), and the strings that
 * `body` (may be NULL) has under the names of tokens and secrets, at any depth. */
struct quote_secrets {
  const char *const *known;
  size_t count;
  const cJSON *body;
};

/* A hostile text cannot be masked reliably, so it is shown as a whole or left out. These functions tell whether a text
 * looks harmless. A name (an error code, a type, a host) is short and has short parts. Prose (a description) is plain
 * ASCII of short words. */
bool quote_is_name(const char *text);
bool quote_is_prose(const char *text);

/* Words of a library's on this machine: as prose, but host names and the like are as long as they are. */
bool quote_is_report(const char *text);

/* Whether the text shows no part of a secret. A text of more than QUOTE_TEXT bytes is never safe. These are parts of a
 * secret: eight bytes in a row; or eight letters or digits in a row with all other characters taken out. Case does not
 * count. Each is looked for forwards and backwards, as it is and in base64, base32 and hexadecimal. A secret of fewer
 * than eight bytes is looked for as a whole; one of fewer than four is ignored. */
enum { QUOTE_TEXT = 300 };
bool quote_is_safe(const char *text, const struct quote_secrets *secrets);

/* Write any text for people. Control characters, characters without width or that change the direction of writing, and
 * bytes that are not UTF-8 are escaped (\n, \x1b, \u202e). Text that is escaped already stays as it is. The result ends
 * in "..." if `size` bytes, the NUL included, are too few. NULL becomes "". Returns `out`. */
char *quote_escape(char *out, size_t size, const char *text);

#endif
