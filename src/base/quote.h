/* Text that comes from outside, in messages: of a server's nothing that may hold a secret, of anything else nothing that
 * forges lines or drives a terminal. */
#ifndef BASE_QUOTE_H
#define BASE_QUOTE_H

#include "cjson.h"

#include <stdbool.h>
#include <stddef.h>

/* How much of a server's text a message shows (bytes). */
enum { QUOTE_LIMIT = 120 };

/* Stands for what may not be shown. */
#define QUOTE_LEFT_OUT "(its text is left out)"

/* What must not be shown: the strings in `known` (NULLs and empty ones are skipped), and those that `body` (may be
 * NULL) has under the names of tokens and secrets, at any depth. */
struct quote_secrets {
  const char *const *known;
  size_t count;
  const cJSON *body;
};

/* Masking what a hostile text may hold is a losing game, so a text is shown or it is not. These say whether it looks
 * like what may be shown: an error code, a type or a host is a name, short and of short parts; a description is prose,
 * plain ASCII of short words. */
bool quote_is_name(const char *text);
bool quote_is_prose(const char *text);

/* Words of a library's on this machine: as prose, but host names and the like are as long as they are. */
bool quote_is_report(const char *text);

/* Whether nothing of a secret stands in the text (of at most QUOTE_TEXT bytes; a longer one is never safe): no eight
 * bytes in a row, no eight letters or digits in a row with everything else taken out, whatever their case, forwards or
 * backwards, of the secret as it is or in base64, base32 or hexadecimal. A secret of less than eight is looked for as a
 * whole, one of less than four is none. */
enum { QUOTE_TEXT = 300 };
bool quote_is_safe(const char *text, const struct quote_secrets *secrets);

/* Write any text for people: control characters, what changes the direction of writing or has no width, and bytes that
 * are not UTF-8 are shown escaped (\n, \x1b, \u202e). What is escaped already stays as it is. "..." where `size` bytes,
 * the NUL included, do not suffice. NULL becomes "". Returns `out`. */
char *quote_escape(char *out, size_t size, const char *text);

#endif
