#include "in_use.h"

#include "secret.h"

#include <math.h>
#include <string.h>

static bool is_among(char *const tokens[IN_USE_BANNED], const char *token)
{
  for (int i = 0; i < IN_USE_BANNED; i++)
    if (tokens[i] && strcmp(tokens[i], token) == 0)
      return true;
  return false;
}

static void keep_among(char *tokens[IN_USE_BANNED], int *count, const char *token)
{
  char **place = &tokens[(*count)++ % IN_USE_BANNED];
  secret_free(*place);
  *place = secret_copy(token);
}

static bool is_banned(const struct in_use *in_use, const char *token)
{
  return is_among(in_use->banned, token) || is_among(in_use->hearsay, token);
}

bool in_use_is(const struct in_use *in_use, const char *token)
{
  return in_use->token && token && strcmp(in_use->token, token) == 0;
}

bool in_use_lives(const struct in_use *in_use, struct moment now)
{
  return in_use->token && !moment_has_come(in_use->dead_at, now);
}

bool in_use_allows(const struct in_use *in_use, const struct record *record)
{
  return record->access_token && record->bearer && !is_banned(in_use, record->access_token);
}

bool in_use_is_due(const struct in_use *in_use, const struct record *record, struct moment now)
{
  return in_use_is(in_use, record->access_token) && now.steady >= in_use->refresh_at.steady;
}

/* A point of the record's time by both clocks. A token that was in use before lives no longer than was known then. */
static struct moment point(struct moment now, double wall, const struct moment *known)
{
  struct moment at = moment_after(now, wall - now.wall);
  if (known)
    at.steady = fmin(at.steady, known->steady);
  return at;
}

void in_use_take(struct in_use *in_use, const struct record *record, double refresh_before, struct moment now)
{
  bool same = in_use_is(in_use, record->access_token);
  char *copy = in_use_allows(in_use, record) ? secret_copy(record->access_token) : NULL;
  double dead_at = isnan(record->expires_at) ? 0 : record->expires_at;
  /* only whoever had it in use before the clock was set back knows how much of its life is left */
  if (record_implausible(record, now.wall))
    dead_at = now.wall + (same ? in_use->dead_at.steady - now.steady : record->lifetime);
  secret_free(in_use->token);
  in_use->token = copy;
  in_use->had_token = in_use->had_token || copy;
  in_use->refresh_at = point(now, record_refresh_at(record, refresh_before), same ? &in_use->refresh_at : NULL);
  in_use->dead_at = point(now, dead_at, same ? &in_use->dead_at : NULL);
  in_use->lifetime = isnan(record->lifetime) ? 0 : record->lifetime;
}

bool in_use_differs(const struct in_use *in_use, const struct record *record)
{
  return in_use->token ? !in_use_is(in_use, record->access_token) : in_use->had_token;
}

void in_use_ban(struct in_use *in_use, const char *token)
{
  if (!token || is_among(in_use->banned, token))
    return;
  keep_among(in_use->banned, &in_use->bans, token);
  if (in_use_is(in_use, token)) {
    secret_free(in_use->token);
    in_use->token = NULL;
  }
}

void in_use_reject(struct in_use *in_use, const char *token)
{
  if (in_use_is(in_use, token))
    in_use_ban(in_use, token);
  else if (!is_banned(in_use, token))
    keep_among(in_use->hearsay, &in_use->hearsays, token);
}

void in_use_free(struct in_use *in_use)
{
  secret_free(in_use->token);
  for (int i = 0; i < IN_USE_BANNED; i++) {
    secret_free(in_use->banned[i]);
    secret_free(in_use->hearsay[i]);
  }
  *in_use = (struct in_use){0};
}
