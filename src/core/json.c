#include "json.h"

#include "decimal.h"
#include "json_text.h"
#include "secret.h"

#include <stdlib.h>
#include <string.h>

static void wipe(cJSON *item)
{
  bool borrowed = item->type & cJSON_IsReference;
  for (cJSON *child = borrowed ? NULL : item->child; child; child = child->next)
    wipe(child);
  if (!borrowed && item->valuestring)
    secret_wipe(item->valuestring, strlen(item->valuestring));
  if (!(item->type & cJSON_StringIsConst) && item->string)
    secret_wipe(item->string, strlen(item->string));
}

void json_free(cJSON *tree)
{
  if (!tree)
    return;
  wipe(tree);
  cJSON_Delete(tree);
}

struct member {
  cJSON *item;
  size_t position;
};

static int by_name_and_position(const void *left, const void *right)
{
  const struct member *a = left, *b = right;
  int order = strcmp(a->item->string, b->item->string);
  return order ? order : (a->position > b->position) - (a->position < b->position);
}

/* The members by their names, of equal names the first one first. Sorted rather than compared pairwise: a megabyte of
 * members must not take minutes. NULL: memory is out. */
static struct member *sort_members(const cJSON *object, size_t *count)
{
  *count = 0;
  for (const cJSON *item = object->child; item; item = item->next)
    ++*count;
  struct member *members = calloc(*count + 1, sizeof *members);
  size_t position = 0;
  for (cJSON *item = object->child; members && item; item = item->next, position++)
    members[position] = (struct member){item, position};
  if (members)
    qsort(members, *count, sizeof *members, by_name_and_position);
  return members;
}

static bool drop_duplicates(cJSON *object)
{
  size_t count;
  if (!object->child || !object->child->next)
    return true;
  struct member *members = sort_members(object, &count);
  if (!members)
    return false;
  for (size_t i = 0; i + 1 < count; i++)
    if (strcmp(members[i].item->string, members[i + 1].item->string) == 0)
      json_free(cJSON_DetachItemViaPointer(object, members[i].item));
  free(members);
  return true;
}

/* Turn a marked string into the number that it carries. */
static void settle_number(cJSON *item)
{
  struct decimal decimal;
  char *text = item->valuestring + 1;
  size_t length = strlen(text);
  decimal_read(text, text + length, &decimal);
  if (decimal.json && !decimal_survives(&decimal)) {
    memmove(item->valuestring, text, length + 1);
    item->type = cJSON_Raw;
    return;
  }
  cJSON_free(item->valuestring);
  item->valuestring = NULL;
  item->type = cJSON_Number;
  cJSON_SetNumberHelper(item, decimal_value(&decimal));
}

static bool settle(cJSON *item)
{
  if (cJSON_IsString(item) && item->valuestring[0] == JSON_TEXT_NUMBER)
    settle_number(item);
  for (cJSON *child = item->child; child; child = child->next)
    if (!settle(child))
      return false;
  return !cJSON_IsObject(item) || drop_duplicates(item);
}

static cJSON *read(const char *text, size_t length, bool whole)
{
  char *clean = json_text_clean(text, length, whole);
  cJSON *tree = clean ? cJSON_Parse(clean) : NULL;
  secret_free(clean);
  if (!tree || settle(tree))
    return tree;
  json_free(tree);
  return NULL;
}

cJSON *json_read(const char *text, size_t length)
{
  return read(text, length, false);
}

cJSON *json_read_whole(const char *text, size_t length)
{
  return read(text, length, true);
}

const char *json_string(const cJSON *object, const char *name)
{
  return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

bool json_number(const cJSON *object, const char *name, double *value)
{
  const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
  if (cJSON_IsNumber(item)) {
    *value = item->valuedouble;
    return true;
  }
  return (cJSON_IsString(item) || cJSON_IsRaw(item)) && decimal_parse(item->valuestring, value);
}

bool json_set(cJSON *object, const char *name, cJSON *value)
{
  cJSON *old = cJSON_GetObjectItemCaseSensitive(object, name);
  if (!cJSON_AddItemToObject(object, name, value)) {
    json_free(value);
    return false;
  }
  if (old) {
    cJSON_DetachItemViaPointer(object, value);
    wipe(old);
    cJSON_ReplaceItemViaPointer(object, old, value);
  }
  return true;
}

bool json_set_string(cJSON *object, const char *name, const char *value)
{
  return json_set(object, name, cJSON_CreateString(value));
}

bool json_set_number(cJSON *object, const char *name, double value)
{
  return json_set(object, name, cJSON_CreateNumber(value));
}

static int by_name(const void *name, const void *member)
{
  return strcmp(name, ((const struct member *)member)->item->string);
}

static void put(cJSON *object, struct member *old, cJSON *value)
{
  if (!old) {
    cJSON_AddItemToArray(object, value);
    return;
  }
  wipe(old->item);
  cJSON_ReplaceItemViaPointer(object, old->item, value);
  old->item = value;
}

bool json_overlay(cJSON *object, const cJSON *fields, bool (*left_out)(const char *name))
{
  size_t count;
  struct member *members = sort_members(object, &count);
  bool laid = members != NULL;
  for (const cJSON *field = fields->child; laid && field; field = field->next) {
    if (left_out(field->string))
      continue;
    cJSON *copy = cJSON_Duplicate(field, 1);
    laid = copy != NULL;
    if (laid)
      put(object, bsearch(field->string, members, count, sizeof *members, by_name), copy);
  }
  free(members);
  return laid;
}

void json_remove(cJSON *object, const char *name)
{
  json_free(cJSON_DetachItemFromObjectCaseSensitive(object, name));
}
