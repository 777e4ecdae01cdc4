/* Well-formed UTF-8 (Unicode 15, table 3-7; RFC 3629). */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stddef.h>

/* U+FFFD, what stands for bytes that cannot be read. */
#define UTF8_REPLACEMENT "\xEF\xBF\xBD"

enum { UTF8_LONGEST = 4 };

/* How many bytes the character at `text` has, or 0 if none is well-formed there: overlong forms, surrogates and what
 * lies above U+10FFFF are not. Looks at `length` bytes at most, and never past a NUL. */
size_t utf8_length(const char *text, size_t length);

#endif
