#include "quote.h"

#include "utf8.h"

#include <stdbool.h>
#include <string.h>

/* A server that shortens the token it complains about still shows a good part of it. */
enum { TELLING_PREFIX = 12 };

static const char mask[] = "[secret]";
static const char ellipsis[] = "...";

/* How many bytes of the character at `p` are left out: all of a control character, each one that is not UTF-8. */
static size_t left_out(const char *p)
{
  const unsigned char *c = (const unsigned char *)p;
  bool is_control = *c < 0x20 || *c == 0x7F || (c[0] == 0xC2 && c[1] >= 0x80 && c[1] <= 0x9F);
  size_t length = utf8_length(p, UTF8_LONGEST);
  return length == 0 ? 1 : is_control ? length : 0;
}

/* What the quote leaves out does not hide a secret either. */
static const char *skip_left_out(const char *p)
{
  while (*p && left_out(p) > 0)
    p += left_out(p);
  return p;
}

static bool hex_value(const char *text, int digits, unsigned *value)
{
  static const char hex[] = "0123456789abcdef";
  *value = 0;
  for (int i = 0; i < digits; i++) {
    const char *digit = text[i] ? strchr(hex, text[i] >= 'A' && text[i] <= 'F' ? text[i] | 0x20 : text[i]) : NULL;
    if (!digit)
      return false;
    *value = *value * 16 + (unsigned)(digit - hex);
  }
  return true;
}

/* How many bytes at `text` stand for this byte, as itself or encoded; 0: they do not. */
static size_t match_byte(const char *text, char byte)
{
  unsigned value;
  if (*text == '%' && hex_value(text + 1, 2, &value) && (char)value == byte)
    return 3;
  if (*text == '\\' && text[1] == 'u' && hex_value(text + 2, 4, &value) && value < 0x80 && (char)value == byte)
    return 6;
  size_t escapes = strspn(text, "\\");
  if (escapes > 0 && byte == '\\')
    return escapes;
  if (escapes > 0 && text[escapes] == byte)
    return escapes + 1;
  return *text == byte || (*text == '+' && byte == ' ') ? 1 : 0;
}

/* The end of the `length` bytes of a character, or NULL when it is not what stands at `text`. */
static const char *match_character(const char *text, const char *character, size_t length)
{
  for (size_t i = 0; i < length; i++) {
    size_t matched = match_byte(text, character[i]);
    if (matched == 0)
      return NULL;
    text += matched;
  }
  return text;
}

/* How many bytes at `text` show the secret or a telling part of it. */
static size_t match_secret(const char *text, const char *secret)
{
  const char *end = text;
  int matched = 0;
  for (secret = skip_left_out(secret); *secret; matched++) {
    size_t length = utf8_length(secret, UTF8_LONGEST);
    const char *next = match_character(skip_left_out(end), secret, length);
    if (!next)
      break;
    end = next;
    secret = skip_left_out(secret + length);
  }
  return matched > 0 && (*secret == '\0' || matched >= TELLING_PREFIX) ? (size_t)(end - text) : 0;
}

static bool names_secret(const char *name)
{
  static const char *const names[] = {"access_token", "refresh_token", "id_token", "client_secret"};
  for (size_t i = 0; name && i < sizeof names / sizeof names[0]; i++)
    if (strcmp(name, names[i]) == 0)
      return true;
  return false;
}

static size_t match_body(const char *text, const cJSON *body)
{
  size_t longest = 0;
  for (const cJSON *item = body ? body->child : NULL; item; item = item->next) {
    bool named = names_secret(item->string) && cJSON_IsString(item);
    size_t length = named ? match_secret(text, item->valuestring) : match_body(text, item);
    if (length > longest)
      longest = length;
  }
  return longest;
}

static size_t match_any(const char *text, const struct quote_secrets *secrets)
{
  size_t longest = match_body(text, secrets->body);
  for (size_t i = 0; i < secrets->count; i++) {
    size_t length = secrets->known[i] ? match_secret(text, secrets->known[i]) : 0;
    if (length > longest)
      longest = length;
  }
  return longest;
}

size_t quote(char out[QUOTE_SIZE], const char *text, size_t limit, const struct quote_secrets *secrets)
{
  size_t used = 0;
  while (*(text = skip_left_out(text)) != '\0') {
    size_t hidden = match_any(text, secrets);
    size_t shown = hidden ? sizeof mask - 1 : utf8_length(text, UTF8_LONGEST);
    if (used + shown > limit) {
      memcpy(out + used, ellipsis, sizeof ellipsis - 1);
      used += sizeof ellipsis - 1;
      break;
    }
    memcpy(out + used, hidden ? mask : text, shown);
    used += shown;
    text += hidden ? hidden : shown;
  }
  out[used] = '\0';
  return used;
}
