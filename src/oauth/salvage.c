/* The new refresh token in a broken answer. The text need not be JSON as a whole: it may be cut, wrapped into something
 * else or have a broken byte in it. So strings are searched one by one. */
#include "answer.h"

#include "../base/character.h"
#include "../base/secret.h"
#include "form.h"
#include "token.h"

#include <string.h>

static const char name[] = "refresh_token";

enum { NAME_LENGTH = sizeof name - 1, ESCAPE_LENGTH = 6 };

struct search {
  const char *end;
  const char *sent;
  char *found;
  int depth, found_depth;
};

/* The quote that ends the string which `open` begins; NULL: there is none in front of `end`. */
static const char *closing_quote(const char *open, const char *end)
{
  for (const char *at = open + 1; at < end; at++) {
    if (*at == '"')
      return at;
    if (*at == '\\')
      at++;
  }
  return NULL;
}

/* From the name to its value: a colon in white space, where a broken byte is taken for either. */
static const char *skip_colon(const char *at, const char *end)
{
  bool colon = false;
  for (; at < end && (*at == ':' || (unsigned char)*at <= ' ' || (unsigned char)*at >= 0x7F); at++)
    colon = colon || !ascii_is_space(*at);
  return colon ? at : end;
}

/* The string, quotes and all, without its escapes; the caller frees it with secret_free. NULL: it cannot be one. */
static char *read_string(const char *open, const char *close)
{
  cJSON *string = json_read(open, (size_t)(close - open) + 1);
  char *text = cJSON_IsString(string) ? secret_copy(string->valuestring) : NULL;
  json_free(string);
  return text;
}

static bool is_name(const char *open, const char *close)
{
  size_t length = (size_t)(close - open) - 1;
  if (length == NAME_LENGTH)
    return memcmp(open + 1, name, NAME_LENGTH) == 0;
  if (length < NAME_LENGTH || !memchr(open + 1, '\\', length))
    return false;
  char *text = read_string(open, close);
  bool is = text && strcmp(text, name) == 0;
  secret_free(text);
  return is;
}

/* The beginning of the refresh token's value; NULL: the string at `open` is not its name. */
static const char *value_of_name(const char *open, const char *end)
{
  const int most = NAME_LENGTH * ESCAPE_LENGTH + 2;
  const char *close = closing_quote(open, end - open > most ? open + most : end);
  if (!close || !is_name(open, close))
    return NULL;
  const char *value = skip_colon(close + 1, end);
  return value < end && *value == '"' ? value : NULL;
}

/* A token that came whole, and is another than the one that was sent. */
static bool is_new(const char *token, const char *sent)
{
  return token_fits_header(token) && !strstr(token, UTF8_REPLACEMENT) && !(sent && strcmp(token, sent) == 0);
}

/* Of several the outermost counts, and the last of these, as of equal names in JSON. */
static void keep_token(struct search *search, const char *open, const char *close)
{
  if (search->found && search->depth > search->found_depth)
    return;
  char *token = read_string(open, close);
  if (!is_new(token, search->sent)) {
    secret_free(token);
    return;
  }
  secret_free(search->found);
  search->found = token;
  search->found_depth = search->depth;
}

/* Whether a quote begins or ends a string is not trusted, since one may be missing: each is tried as the beginning of
 * the name. In the text of a string it would have a backslash in front. */
static void search_strings(struct search *search, const char *at)
{
  bool inside = false;
  for (; at < search->end; at++) {
    if (*at == '\\') {
      at++;
    } else if (*at == '"') {
      const char *value = value_of_name(at, search->end);
      const char *close = value ? closing_quote(value, search->end) : NULL;
      inside = !inside && !close;
      if (!close)
        continue;
      keep_token(search, value, close);
      at = close;
    } else if (!inside) {
      search->depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
    }
  }
}

/* All pairs of a form but the last one, which may have been cut. */
static char *search_form(const char *bytes, size_t length, const char *sent)
{
  while (length > 0 && bytes[length - 1] != '&')
    length--;
  cJSON *form = length > 0 ? form_read(bytes, length - 1) : NULL;
  const char *token = json_string(form, name);
  char *found = is_new(token, sent) ? secret_copy(token) : NULL;
  json_free(form);
  return found;
}

char *answer_salvage(const char *bytes, size_t length, const char *sent)
{
  if (!bytes)
    return NULL;
  struct search search = {.end = bytes + length, .sent = sent};
  search_strings(&search, bytes);
  return search.found ? search.found : search_form(bytes, length, sent);
}
