#include "issued.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void token_write(char text[TOKEN_TEXT], struct token token)
{
  if (token.kind)
    snprintf(text, TOKEN_TEXT, "%c%d-%d-%d", token.kind, token.account, token.grant, token.serial);
  else
    text[0] = '\0';
}

static bool number(const char **text, int *value)
{
  char *end;
  if (**text < '0' || **text > '9')
    return false;
  *value = (int)strtol(*text, &end, 10);
  *text = end;
  return true;
}

static bool number_behind_dash(const char **text, int *value)
{
  if (**text != '-')
    return false;
  ++*text;
  return number(text, value);
}

struct token token_read(const char *text)
{
  struct token token = {.kind = *text};
  if (*text != 'A' && *text != 'R')
    return (struct token){0};
  text++;
  if (number(&text, &token.account) && number_behind_dash(&text, &token.grant) &&
      number_behind_dash(&text, &token.serial))
    return token;
  return (struct token){0};
}

/* The end of the string that begins at `text`, its closing quote. */
static const char *string_end(const char *text)
{
  for (text++; *text && *text != '"'; text++)
    if (*text == '\\' && text[1])
      text++;
  return text;
}

/* The value of a JSON object's own member; what its other members hold is not looked at. NULL: there is none. */
static const char *member(const char *text, const char *name)
{
  size_t length = strlen(name);
  int depth = 0;
  for (; *text; text++) {
    if (*text == '{' || *text == '[')
      depth++;
    if ((*text == '}' || *text == ']') && --depth == 0)
      return NULL;
    if (*text != '"')
      continue;
    const char *end = string_end(text);
    if (!*end)
      return NULL;
    if (depth == 1 && end[1] == ':' && (size_t)(end - text) == length + 1 && memcmp(text + 1, name, length) == 0)
      return end + 2;
    text = end;
  }
  return NULL;
}

static struct token find_member(const char *json, const char *name)
{
  const char *value = member(json, name);
  return value && *value == '"' ? token_read(value + 1) : (struct token){0};
}

static struct token find_field(const char *form, const char *name)
{
  const char *found = strstr(form, name);
  return found ? token_read(found + strlen(name)) : (struct token){0};
}

struct pair token_find(const char *text)
{
  if (!text)
    return (struct pair){0};
  if (*text == '{')
    return (struct pair){.access = find_member(text, "access_token"), .refresh = find_member(text, "refresh_token")};
  return (struct pair){.access = find_field(text, "access_token="), .refresh = find_field(text, "refresh_token=")};
}

struct pair token_find_aside(const char *text)
{
  const char *aside = text && *text == '{' ? member(text, "before") : NULL;
  return aside ? token_find(aside) : (struct pair){0};
}

bool token_in_kept_answer(const char *text, struct token token)
{
  char name[TOKEN_TEXT + 2];
  if (!text || !token.kind)
    return false;
  token_write(name, token);
  strcat(name, "\\\"");
  return strstr(text, name) != NULL;
}

bool token_same(struct token a, struct token b)
{
  return a.kind == b.kind && a.account == b.account && a.grant == b.grant && a.serial == b.serial;
}

bool token_older(struct token a, struct token b)
{
  return a.grant != b.grant ? a.grant < b.grant : a.serial < b.serial;
}
