/* Trees as text. Written here rather than by cJSON, which gives up the last digits of some numbers, depends
 * on the locale and on how it was built for the decimal point, and leaves copies of secrets wherever its
 * buffer moved from. */
#include "json.h"

#include "decimal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Without `out` only the length is counted. */
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

static size_t plain_run(const char *text)
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
    size_t plain = plain_run(text);
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
