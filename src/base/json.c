#include "json.h"

#include "decimal.h"
#include "json_text.h"
#include "secret.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static void free_text(char *text)
{
  if (text)
    secret_wipe(text, strlen(text));
  cJSON_free(text);
}

/* No item of ours borrows what another owns. */
void json_free(cJSON *tree)
{
  if (!tree)
    return;
  for (cJSON *child = tree->child, *next; child; child = next) {
    next = child->next;
    json_free(child);
  }
  free_text(tree->valuestring);
  free_text(tree->string);
  cJSON_free(tree);
}

/* The first of a chain knows the last one as its previous. */
void json_replace(cJSON *parent, cJSON *old, cJSON *item)
{
  bool first = parent->child == old;
  item->next = old->next;
  item->prev = first && !old->next ? item : old->prev;
  if (first)
    parent->child = item;
  else
    old->prev->next = item;
  if (item->next)
    item->next->prev = item;
  else
    parent->child->prev = item;
  old->next = NULL;
  json_free(old);
}

/* A megabyte of members must not take minutes, so they are sorted rather than compared pairwise: by a hash of the name,
 * by the name itself where two hashes are the same, and then by their places. */
struct member {
  uint64_t key; /* the hash in the upper half, the place in the lower one */
  cJSON *item;
};

static uint32_t hash_of(const struct member *member)
{
  return (uint32_t)(member->key >> 32);
}

/* FNV-1a */
static uint64_t key_of(const char *name, uint32_t place)
{
  uint32_t hash = UINT32_C(2166136261);
  for (; *name; name++)
    hash = (hash ^ (unsigned char)*name) * UINT32_C(16777619);
  return (uint64_t)hash << 32 | place;
}

static int by_key(const void *left, const void *right)
{
  const struct member *a = left, *b = right;
  return (a->key > b->key) - (a->key < b->key);
}

static int by_name(const void *left, const void *right)
{
  const struct member *a = left, *b = right;
  int order = strcmp(a->item->string, b->item->string);
  return order ? order : by_key(left, right);
}

static bool is_same_name(const struct member *one, const struct member *other)
{
  return hash_of(one) == hash_of(other) && strcmp(one->item->string, other->item->string) == 0;
}

/* Names that are made to have one hash. */
static void sort_groups(struct member *members, size_t count)
{
  for (size_t start = 0, end; start < count; start = end) {
    bool mixed = false;
    for (end = start + 1; end < count && hash_of(&members[end]) == hash_of(&members[start]); end++)
      mixed = mixed || !is_same_name(&members[end], &members[start]);
    if (mixed)
      qsort(members + start, end - start, sizeof *members, by_name);
  }
}

/* NULL: memory is out. */
static struct member *sort_members(const cJSON *object, size_t *count)
{
  uint32_t place = 0;
  *count = 0;
  for (const cJSON *item = object->child; item; item = item->next)
    ++*count;
  struct member *members = calloc(*count + 1, sizeof *members);
  if (!members)
    return NULL;
  for (cJSON *item = object->child; item; item = item->next, place++)
    members[place] = (struct member){key_of(item->string, place), item};
  qsort(members, *count, sizeof *members, by_key);
  sort_groups(members, *count);
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
    if (is_same_name(&members[i], &members[i + 1]))
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
  cJSON *tree = clean ? cJSON_ParseWithLengthOpts(clean, strlen(clean) + 1, NULL, 0) : NULL;
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

const char *json_text_of(const cJSON *item)
{
  return cJSON_IsString(item) ? item->valuestring : NULL;
}

const char *json_string(const cJSON *object, const char *name)
{
  return json_text_of(cJSON_GetObjectItemCaseSensitive(object, name));
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
    json_replace(object, old, value);
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

static int by_hash_and_name(const void *sought, const void *found)
{
  const struct member *a = sought, *b = found;
  if (hash_of(a) != hash_of(b))
    return hash_of(a) < hash_of(b) ? -1 : 1;
  return strcmp(a->item->string, b->item->string);
}

/* Into the place of `old`, or to the end when there is none. */
static void put(cJSON *object, cJSON *old, cJSON *item)
{
  if (!old) {
    cJSON_AddItemToArray(object, item);
    return;
  }
  json_replace(object, old, item);
}

bool json_overlay(cJSON *object, cJSON *fields, bool (*left_out)(const char *name))
{
  size_t count;
  struct member *members = sort_members(object, &count);
  if (!members)
    return false;
  for (cJSON *field = fields->child, *next; field; field = next) {
    next = field->next;
    if (left_out(field->string))
      continue;
    struct member sought = {key_of(field->string, 0), field};
    struct member *old = bsearch(&sought, members, count, sizeof *members, by_hash_and_name);
    put(object, old ? old->item : NULL, cJSON_DetachItemViaPointer(fields, field));
    if (old)
      old->item = field;
  }
  free(members);
  return true;
}

void json_move(cJSON *object, cJSON *fields)
{
  for (cJSON *field = fields->child, *next; field; field = next) {
    next = field->next;
    cJSON *old = cJSON_GetObjectItemCaseSensitive(object, field->string);
    put(object, old, cJSON_DetachItemViaPointer(fields, field));
  }
}

void json_remove(cJSON *object, const char *name)
{
  cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
  if (item)
    json_free(cJSON_DetachItemViaPointer(object, item));
}
