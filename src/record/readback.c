#include "readback.h"

#include "../base/decimal.h"
#include "../base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Relative: a number of fourteen digits, as lua-cjson writes it, is as near as that. */
#define NUMBER_SLACK 1e-13

/* Objects that a storage nests deeper than any record are not looked into. */
enum { DEPTH_MOST = 64 };

static bool same_value(const cJSON *written, const cJSON *read, int depth);

static bool is_number(const cJSON *value)
{
  return cJSON_IsNumber(value) || cJSON_IsRaw(value);
}

static double number_of(const cJSON *value)
{
  double number;
  return cJSON_IsRaw(value) && decimal_parse(value->valuestring, &number) ? number : value->valuedouble;
}

static bool same_number(double one, double other)
{
  return one == other || fabs(one - other) <= NUMBER_SLACK * fmax(fabs(one), fabs(other));
}

static bool is_empty(const cJSON *value)
{
  return (cJSON_IsArray(value) || cJSON_IsObject(value)) && !value->child;
}

static bool same_list(const cJSON *written, const cJSON *read, int depth)
{
  const cJSON *one = written->child, *other = read->child;
  for (; one && other; one = one->next, other = other->next)
    if (!same_value(one, other, depth))
      return false;
  return !one && !other;
}

struct member {
  const cJSON *field;
};

static int by_field_name(const void *one, const void *other)
{
  const struct member *a = one, *b = other;
  return strcmp(a->field->string, b->field->string);
}

/* The members by their names, to be freed: a table of Lua has an order of its own. NULL: out of memory. */
static struct member *sorted(const cJSON *object, size_t *count)
{
  const cJSON *field;
  *count = (size_t)cJSON_GetArraySize(object);
  struct member *members = calloc(*count + 1, sizeof *members);
  size_t filled = 0;
  if (!members)
    return NULL;
  cJSON_ArrayForEach(field, object)
  {
    members[filled++].field = field;
  }
  qsort(members, *count, sizeof *members, by_field_name);
  return members;
}

/* A field that is null may be left out: a Lua table cannot hold it. */
static bool same_field(const cJSON *written, const cJSON *read, int depth)
{
  return (cJSON_IsNull(written) && !read) || same_value(written, read, depth);
}

/* The field that differs, as written and as read. */
struct difference {
  const cJSON *written, *read;
};

/* False: out of memory. */
static bool find_difference(const cJSON *written, const cJSON *read, int depth, struct difference *difference)
{
  size_t ours = 0, theirs = 0, at = 0;
  struct member *one = sorted(written, &ours), *other = sorted(read, &theirs);
  bool possible = one && other;
  for (size_t i = 0; possible && i < ours && !difference->written; i++) {
    while (at < theirs && strcmp(other[at].field->string, one[i].field->string) < 0)
      at++;
    const cJSON *found =
        at < theirs && strcmp(other[at].field->string, one[i].field->string) == 0 ? other[at].field : NULL;
    if (!same_field(one[i].field, found, depth))
      *difference = (struct difference){one[i].field, found};
  }
  free(one);
  free(other);
  return possible;
}

static bool same_object(const cJSON *written, const cJSON *read, int depth)
{
  struct difference difference = {NULL, NULL};
  return find_difference(written, read, depth, &difference) && !difference.written;
}

static bool same_value(const cJSON *written, const cJSON *read, int depth)
{
  if (!read)
    return false;
  if (depth >= DEPTH_MOST || (is_empty(written) && is_empty(read)))
    return true;
  if (is_number(written) && is_number(read))
    return same_number(number_of(written), number_of(read));
  if ((written->type & 0xFF) != (read->type & 0xFF))
    return false;
  if (cJSON_IsString(written))
    return strcmp(written->valuestring, read->valuestring) == 0;
  if (cJSON_IsObject(written))
    return same_object(written, read, depth + 1);
  return !cJSON_IsArray(written) || same_list(written, read, depth + 1);
}

static bool compare(const cJSON *written, const cJSON *read, char *fault, size_t size)
{
  struct difference difference = {NULL, NULL};
  if (!cJSON_IsObject(read)) {
    snprintf(fault, size, "load returned no record after save was given one");
    return false;
  }
  if (!find_difference(written, read, 0, &difference)) {
    snprintf(fault, size, "there was not enough memory to compare");
    return false;
  }
  if (difference.written)
    snprintf(fault, size, "%s the field \"%.60s\"",
             difference.read ? "load returned another value in" : "save or load dropped", difference.written->string);
  return !difference.written;
}

bool readback_same(const char *written, const char *read, char *fault, size_t size)
{
  cJSON *one = json_read_whole(written, strlen(written));
  cJSON *other = read ? json_read_whole(read, strlen(read)) : NULL;
  bool same = one && compare(one, other, fault, size);
  if (!one)
    snprintf(fault, size, "there was not enough memory to compare");
  json_free(one);
  json_free(other);
  return same;
}
