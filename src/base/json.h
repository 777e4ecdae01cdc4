/* JSON as servers and storages send it, read tolerantly and written exactly, the same in every locale. cJSON does the
 * parsing. This file settles the cases that cJSON leaves open: NULs, broken UTF-8, duplicate keys, and numbers that a
 * double cannot hold. Trees hold secrets: free them with json_free, which wipes them. */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include "cjson.h"

#include <stdbool.h>
#include <stddef.h>

/* Read one JSON value from `length` bytes. Accepted: a UTF-8 byte order mark, anything behind the value,
 * duplicate keys (the last one wins, at every depth), bytes that are not UTF-8 and lone surrogates (each
 * becomes U+FFFD), NULs (raw or \u0000; they become U+0001, still a control character, so that a token with
 * one in it is seen as unusable rather than cut short), unknown escapes (they stand for themselves), NaN and
 * Infinity (null). A number that would not be written the same from a double keeps its text: it is a
 * cJSON_Raw node, so ask json_number and not cJSON_IsNumber. NULL if there is no complete value, it is nested
 * deeper than CJSON_NESTING_LIMIT, or out of memory. The caller owns the tree. */
cJSON *json_read(const char *text, size_t length);

/* Like json_read, but nothing except white space may stand behind the value: for our own files. */
cJSON *json_read_whole(const char *text, size_t length);

/* The tree as compact JSON text, NUL-terminated; the caller frees it with secret_free. No unwiped copy is
 * left behind. Numbers have as few digits as give the same double back. NULL: `tree` is NULL, or out of
 * memory. */
char *json_write(const cJSON *tree);

/* Wipe every string of the tree, then free it; NULL is allowed. */
void json_free(cJSON *tree);

/* Into the place of `old`, which is wiped and freed. */
void json_replace(cJSON *parent, cJSON *old, cJSON *item);

/* The string of a member, or NULL when it is absent or not a string. Owned by the tree. Names are matched with their
 * case. */
const char *json_string(const cJSON *object, const char *name);

/* The string that an item is, or NULL; NULL is allowed. */
const char *json_text_of(const cJSON *item);

/* A member's number, whether it is sent as a number or as a numeric string ("3600", 3600.0, "3600.5", 1e400 =
 * +infinity). False when it is neither. */
bool json_number(const cJSON *object, const char *name, double *value);

/* Set or replace a member, which keeps its place. False when out of memory; the object is then unchanged. A
 * number that is not finite is written as null. */
bool json_set_string(cJSON *object, const char *name, const char *value);
bool json_set_number(cJSON *object, const char *name, double value);
/* Takes ownership of `value` in every case. */
bool json_set(cJSON *object, const char *name, cJSON *value);
/* Move the members of `fields` over those of `object`, but the ones whose name is `left_out`: of one name the place is
 * kept, new ones go to the end. False: out of memory, and nothing is changed. */
bool json_overlay(cJSON *object, cJSON *fields, bool (*left_out)(const char *name));
/* The same for a few, which takes no memory. */
void json_move(cJSON *object, cJSON *fields);
/* Wipe and remove a member, if it is there. */
void json_remove(cJSON *object, const char *name);

#endif
