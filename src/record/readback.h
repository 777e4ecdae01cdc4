/* Whether a storage written by others returns the record that it was given. */
#ifndef RECORD_READBACK_H
#define RECORD_READBACK_H

#include <stdbool.h>
#include <stddef.h>

/* Compare the record as read with the record as written. Storages may pass it through tables of their own. Strings and
 * the names of fields must be the same, numbers must agree to fourteen digits, and an empty list may come back as an
 * empty object. False: `fault` (of `size` bytes) names the fields that are missing or different, without their
 * values. */
bool readback_same(const char *written, const char *read, char *fault, size_t size);

#endif
