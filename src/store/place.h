/* The paths and names of a storage's files. */
#ifndef STORE_PLACE_H
#define STORE_PLACE_H

#include "store.h"

/* Set `error`: out of memory; or the setting `what` cannot be used, where `why` follows its value and makes a sentence
 * of it. */
void place_out_of_memory(struct store_error *error);
void place_refuse(struct store_error *error, const char *what, const char *value, const char *why);

/* The caller frees the strings that the functions below return. */

/* Three strings in one; NULL when one of them is, or out of memory. */
char *place_join(const char *first, const char *second, const char *third);

/* The path as seen from the folder `base`, or from the present one if that is NULL. NULL: error says why. */
char *place_absolute(const char *path, const char *base, struct store_error *error);

/* The folder of an absolute path. NULL: out of memory. */
char *place_folder(const char *path);

/* Whether the path may be that of a file. False: error says why. */
bool place_is_file(const char *path, struct store_error *error);

/* "<account>.json" with every byte percent-encoded that could mean something else to some file system. NULL: out of
 * memory. */
char *place_file_name(const char *account);

/* File systems take names of at most 255 bytes, and ".lock" is put behind this one. False: error says why. */
bool place_fits_folder(const char *name, struct store_error *error);

#endif
