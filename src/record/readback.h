/* Whether a storage that others have written gives back what it was given. */
#ifndef RECORD_READBACK_H
#define RECORD_READBACK_H

#include <stdbool.h>
#include <stddef.h>

/* Hold the record as read against the record as written. Storages may pass it through tables of their own: strings and
 * the names of fields have to be the same, numbers to fourteen digits, and an empty list may come back as an empty
 * object. False: `fault` (of `size` bytes) says what is missing or other, by the names of fields alone. */
bool readback_same(const char *written, const char *read, char *fault, size_t size);

#endif
