#include "json.h"

#include "character.h"
#include "decimal.h"
#include "secret.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static void free_text(char *text)
{
  if (text)
    secret_wipe(text, strlen(text));
  cJSON_free(text);
}

/* No item borrows memory of another item, as cJSON's references do. */
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

/* ---- repairing text, so that cJSON reads it without failing and without loss ---- */

/* Numbers come out as strings that start with this byte. It never occurs in UTF-8, so no string of a server's
 * can pass for one. */
#define NUMBER_MARK '\xFF'

/* One byte of input becomes four at most: a digit, in quotes and marked. */
enum { GROWTH = 4 };

struct scan {
  const char *at, *end;
  char *out;
  int depth;
};

static bool scan_value(struct scan *scan);

static char peek(const struct scan *scan)
{
  return scan->at < scan->end ? *scan->at : '\0';
}

static void emit(struct scan *scan, const char *text, size_t length)
{
  memcpy(scan->out, text, length);
  scan->out += length;
}

static void copy(struct scan *scan, size_t length)
{
  emit(scan, scan->at, length);
  scan->at += length;
}

/* Control characters between tokens count as space: so does cJSON see them. */
static void skip_space(struct scan *scan)
{
  while (scan->at < scan->end && (unsigned char)*scan->at <= ' ')
    scan->at++;
}

/* One punctuation character, with space in front of it. */
static bool accept_punctuation(struct scan *scan, char c)
{
  skip_space(scan);
  if (peek(scan) != c)
    return false;
  copy(scan, 1);
  return true;
}

/* The code unit of a \uXXXX at `at`, or -1. */
static int escaped_unit(const char *at, const char *end)
{
  if (end - at < 6 || at[0] != '\\' || at[1] != 'u')
    return -1;
  int unit = 0;
  for (int i = 2; i < 6; i++) {
    int digit = ascii_hex_digit(at[i]);
    if (digit < 0)
      return -1;
    unit = unit * 16 + digit;
  }
  return unit;
}

static bool is_high_surrogate(int unit)
{
  return unit >= 0xD800 && unit <= 0xDBFF;
}

static bool is_low_surrogate(int unit)
{
  return unit >= 0xDC00 && unit <= 0xDFFF;
}

static void scan_unicode_escape(struct scan *scan, int unit)
{
  if (unit == 0) {
    emit(scan, "\\u0001", 6);
    scan->at += 6;
  } else if (is_high_surrogate(unit) && is_low_surrogate(escaped_unit(scan->at + 6, scan->end))) {
    copy(scan, 12);
  } else if (is_high_surrogate(unit) || is_low_surrogate(unit)) {
    emit(scan, UTF8_REPLACEMENT, 3);
    scan->at += 6;
  } else {
    copy(scan, 6);
  }
}

/* An escape that JSON does not know stands for itself, backslash and all. */
static void scan_escape(struct scan *scan)
{
  int unit = escaped_unit(scan->at, scan->end);
  char next = scan->at + 1 < scan->end ? scan->at[1] : '\0';
  if (unit >= 0) {
    scan_unicode_escape(scan, unit);
  } else if (next && strchr("\"\\/bfnrt", next)) {
    copy(scan, 2);
  } else {
    emit(scan, "\\\\", 2);
    scan->at++;
  }
}

static void scan_character(struct scan *scan)
{
  size_t length = utf8_length(scan->at, (size_t)(scan->end - scan->at));
  if (length == 0 || *scan->at == '\0') {
    emit(scan, length == 0 ? UTF8_REPLACEMENT : "\x01", length == 0 ? 3 : 1);
    scan->at++;
  } else {
    copy(scan, length);
  }
}

static bool is_plain_character(char c)
{
  return c > 0 && c < 127 && c != '"' && c != '\\';
}

/* How many characters stand for themselves, as nearly all of a token do. */
static size_t plain_run_length(const struct scan *scan)
{
  const char *p = scan->at;
  while (p < scan->end && is_plain_character(*p))
    p++;
  return (size_t)(p - scan->at);
}

static bool scan_string(struct scan *scan)
{
  if (!accept_punctuation(scan, '"'))
    return false;
  while (scan->at < scan->end && *scan->at != '"') {
    copy(scan, plain_run_length(scan));
    if (scan->at == scan->end || *scan->at == '"')
      break;
    if (*scan->at == '\\')
      scan_escape(scan);
    else
      scan_character(scan);
  }
  return accept_punctuation(scan, '"');
}

static bool scan_number(struct scan *scan)
{
  static const char mark[] = {'"', NUMBER_MARK};
  struct decimal decimal;
  const char *end = decimal_read(scan->at, scan->end, &decimal);
  if (end == scan->at)
    return false;
  emit(scan, mark, sizeof mark);
  copy(scan, (size_t)(end - scan->at));
  emit(scan, "\"", 1);
  return true;
}

static bool scan_word(struct scan *scan)
{
  /* Python writes the last three, where JSON has nothing. */
  static const char *const words[][2] = {{"true", "true"},      {"false", "false"},   {"null", "null"},
                                         {"-Infinity", "null"}, {"Infinity", "null"}, {"NaN", "null"}};
  for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
    size_t length = strlen(words[i][0]);
    if ((size_t)(scan->end - scan->at) >= length && memcmp(scan->at, words[i][0], length) == 0) {
      emit(scan, words[i][1], strlen(words[i][1]));
      scan->at += length;
      return true;
    }
  }
  return false;
}

static bool scan_member(struct scan *scan)
{
  return scan_string(scan) && accept_punctuation(scan, ':') && scan_value(scan);
}

static bool scan_list(struct scan *scan, bool (*scan_item)(struct scan *), char close)
{
  copy(scan, 1);
  if (accept_punctuation(scan, close))
    return true;
  do {
    if (!scan_item(scan))
      return false;
  } while (accept_punctuation(scan, ','));
  return accept_punctuation(scan, close);
}

static bool scan_nested(struct scan *scan)
{
  if (scan->depth == CJSON_NESTING_LIMIT)
    return false;
  scan->depth++;
  bool complete = *scan->at == '{' ? scan_list(scan, scan_member, '}') : scan_list(scan, scan_value, ']');
  scan->depth--;
  return complete;
}

static bool scan_value(struct scan *scan)
{
  skip_space(scan);
  char first = peek(scan);
  if (first == '"')
    return scan_string(scan);
  if (first == '{' || first == '[')
    return scan_nested(scan);
  return scan_number(scan) || scan_word(scan);
}

static bool only_space_left(const struct scan *scan)
{
  for (const char *p = scan->at; p < scan->end; p++)
    if (*p == '\0' || !strchr(" \t\r\n", *p))
      return false;
  return true;
}

/* A clean copy of the first JSON value in `length` bytes, NUL-terminated; give it to secret_free. It is complete and
 * well-formed: cJSON fails on it only when out of memory, and never frees a half-built tree with secrets in it.
 * json_read lists the repairs. `whole`: only white space may follow the value. NULL: there is no complete value, or out
 * of memory. */
static char *clean_text(const char *text, size_t length, bool whole)
{
  static const char bom[] = {'\xEF', '\xBB', '\xBF'};
  if (length >= SIZE_MAX / GROWTH)
    return NULL;
  char *clean = malloc(GROWTH * length + 1);
  if (!clean)
    return NULL;
  struct scan scan = {.at = text, .end = text + length, .out = clean};
  if (length >= sizeof bom && memcmp(text, bom, sizeof bom) == 0)
    scan.at += sizeof bom;
  if (scan_value(&scan) && (!whole || only_space_left(&scan))) {
    *scan.out = '\0';
    return clean;
  }
  secret_wipe(clean, (size_t)(scan.out - clean));
  free(clean);
  return NULL;
}

/* ---- reading ---- */

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

static int by_member_name(const void *left, const void *right)
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
      qsort(members + start, end - start, sizeof *members, by_member_name);
  }
}

/* NULL: out of memory. */
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
  if (cJSON_IsString(item) && item->valuestring[0] == NUMBER_MARK)
    settle_number(item);
  for (cJSON *child = item->child; child; child = child->next)
    if (!settle(child))
      return false;
  return !cJSON_IsObject(item) || drop_duplicates(item);
}

static cJSON *read_value(const char *text, size_t length, bool whole)
{
  char *clean = clean_text(text, length, whole);
  cJSON *tree = clean ? cJSON_ParseWithLengthOpts(clean, strlen(clean) + 1, NULL, 0) : NULL;
  secret_free(clean);
  if (!tree || settle(tree))
    return tree;
  json_free(tree);
  return NULL;
}

cJSON *json_read(const char *text, size_t length)
{
  return read_value(text, length, false);
}

cJSON *json_read_whole(const char *text, size_t length)
{
  return read_value(text, length, true);
}

/* ---- members ---- */

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
static void put_member(cJSON *object, cJSON *old, cJSON *item)
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
    put_member(object, old ? old->item : NULL, cJSON_DetachItemViaPointer(fields, field));
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
    put_member(object, old, cJSON_DetachItemViaPointer(fields, field));
  }
}

void json_remove(cJSON *object, const char *name)
{
  cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
  if (item)
    json_free(cJSON_DetachItemViaPointer(object, item));
}

/* ---- writing ---- */

/* Trees as text. Written here rather than by cJSON, which gives up the last digits of some numbers, depends
 * on the locale and on how it was built for the decimal point, and leaves copies of secrets wherever its
 * buffer moved from. Without `out` only the length is counted. */
struct writer {
  char *out;
  size_t length;
};

static void put(struct writer *writer, const char *text, size_t length)
{
  if (writer->out)
    memcpy(writer->out + writer->length, text, length);
  writer->length += length;
}

static void put_character(struct writer *writer, unsigned char c)
{
  static const char hex[] = "0123456789abcdef";
  const char escape[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
  const char quoted[2] = {'\\', (char)c};
  if (c < ' ')
    put(writer, escape, sizeof escape);
  else if (c == '"' || c == '\\')
    put(writer, quoted, sizeof quoted);
  else
    put(writer, quoted + 1, 1);
}

static size_t unescaped_length(const char *text)
{
  const char *p = text;
  while ((unsigned char)*p >= ' ' && *p != '"' && *p != '\\')
    p++;
  return (size_t)(p - text);
}

static void put_string(struct writer *writer, const char *text)
{
  put(writer, "\"", 1);
  while (*text) {
    size_t plain = unescaped_length(text);
    put(writer, text, plain);
    text += plain;
    if (*text)
      put_character(writer, (unsigned char)*text++);
  }
  put(writer, "\"", 1);
}

static void put_number(struct writer *writer, double value)
{
  char text[DECIMAL_TEXT];
  if (isfinite(value))
    put(writer, text, decimal_write(value, text));
  else
    put(writer, "null", 4);
}

static void put_item(struct writer *writer, const cJSON *item);

static void put_list(struct writer *writer, const cJSON *list, const char *brackets)
{
  put(writer, brackets, 1);
  for (const cJSON *item = list->child; item; item = item->next) {
    if (item != list->child)
      put(writer, ",", 1);
    if (cJSON_IsObject(list)) {
      put_string(writer, item->string);
      put(writer, ":", 1);
    }
    put_item(writer, item);
  }
  put(writer, brackets + 1, 1);
}

static void put_item(struct writer *writer, const cJSON *item)
{
  if (cJSON_IsObject(item))
    put_list(writer, item, "{}");
  else if (cJSON_IsArray(item))
    put_list(writer, item, "[]");
  else if (cJSON_IsString(item))
    put_string(writer, item->valuestring);
  else if (cJSON_IsRaw(item))
    put(writer, item->valuestring, strlen(item->valuestring));
  else if (cJSON_IsNumber(item))
    put_number(writer, item->valuedouble);
  else if (cJSON_IsBool(item))
    put(writer, cJSON_IsTrue(item) ? "true" : "false", cJSON_IsTrue(item) ? 4 : 5);
  else
    put(writer, "null", 4);
}

char *json_write(const cJSON *tree)
{
  struct writer counter = {NULL, 0};
  if (!tree)
    return NULL;
  put_item(&counter, tree);
  struct writer writer = {malloc(counter.length + 1), 0};
  if (!writer.out)
    return NULL;
  put_item(&writer, tree);
  writer.out[writer.length] = '\0';
  return writer.out;
}
