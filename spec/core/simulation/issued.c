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

static struct token find(const char *text, const char *quoted, const char *plain)
{
  const char *found = strstr(text, quoted);
  if (found)
    return token_read(found + strlen(quoted));
  found = *text == '{' ? NULL : strstr(text, plain);
  return found ? token_read(found + strlen(plain)) : (struct token){0};
}

struct pair token_find(const char *text)
{
  struct pair pair = {0};
  if (!text)
    return pair;
  pair.access = find(text, "\"access_token\":\"", "access_token=");
  pair.refresh = find(text, "\"refresh_token\":\"", "refresh_token=");
  return pair;
}

bool token_same(struct token a, struct token b)
{
  return a.kind == b.kind && a.account == b.account && a.grant == b.grant && a.serial == b.serial;
}

bool token_older(struct token a, struct token b)
{
  return a.grant != b.grant ? a.grant < b.grant : a.serial < b.serial;
}
