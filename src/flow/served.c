#include "served.h"

#include "../base/secret.h"
#include "../oauth/token.h"

#include <math.h>
#include <string.h>

static bool is_among(char *const tokens[SERVED_BANNED], const char *token)
{
  for (int i = 0; i < SERVED_BANNED; i++)
    if (tokens[i] && strcmp(tokens[i], token) == 0)
      return true;
  return false;
}

static void keep_among(char *tokens[SERVED_BANNED], int *count, const char *token)
{
  char **place = &tokens[(*count)++ % SERVED_BANNED];
  secret_free(*place);
  *place = secret_copy(token);
}

static bool is_banned(const struct served *served, const char *token)
{
  return is_among(served->banned, token) || is_among(served->hearsay, token);
}

static bool is_rejected_elsewhere(const struct served *served, const char *token)
{
  uint64_t fingerprint = 0;
  for (int i = 0; i < SERVED_FINGERPRINTS; i++) {
    if (served->elsewhere[i] && !fingerprint)
      fingerprint = token_fingerprint(token);
    if (served->elsewhere[i] && served->elsewhere[i] == fingerprint)
      return true;
  }
  return false;
}

bool served_is(const struct served *served, const char *token)
{
  return served->token && token && strcmp(served->token, token) == 0;
}

bool served_lives(const struct served *served, struct moment now)
{
  return served->token && !moment_has_come(served->dead_at, now);
}

bool served_allows(const struct served *served, const struct record *record)
{
  return record->access_token && record->bearer && !record->rejected && !is_banned(served, record->access_token) &&
         !is_rejected_elsewhere(served, record->access_token);
}

bool served_is_due(const struct served *served, const struct record *record, struct moment now)
{
  return served_is(served, record->access_token) && now.steady >= served->refresh_at.steady;
}

/* A point of the record's time by both clocks. A token that was in use before lives no longer than was known then. */
static struct moment point(struct moment now, double wall, const struct moment *known)
{
  struct moment at = moment_after(now, wall - now.wall);
  if (known)
    at.steady = fmin(at.steady, known->steady);
  return at;
}

void served_take(struct served *served, const struct record *record, double refresh_before, struct moment now)
{
  bool same = served_is(served, record->access_token);
  char *copy = served_allows(served, record) ? secret_copy(record->access_token) : NULL;
  double dead_at = isnan(record->expires_at) ? 0 : record->expires_at;
  /* only a process that had it in use before the clock was set back knows how much of its life is left */
  if (record_implausible(record, now.wall))
    dead_at = now.wall + (same ? served->dead_at.steady - now.steady : record->lifetime);
  secret_free(served->token);
  served->token = copy;
  served->had_token = served->had_token || copy;
  served->refresh_at = point(now, record_refresh_at(record, refresh_before), same ? &served->refresh_at : NULL);
  served->dead_at = point(now, dead_at, same ? &served->dead_at : NULL);
  served->lifetime = isnan(record->lifetime) ? 0 : record->lifetime;
}

bool served_differs(const struct served *served, const struct record *record)
{
  return served->token ? !served_is(served, record->access_token) : served->had_token;
}

void served_ban(struct served *served, const char *token)
{
  if (!token || is_among(served->banned, token))
    return;
  keep_among(served->banned, &served->bans, token);
  if (served_is(served, token)) {
    secret_free(served->token);
    served->token = NULL;
  }
}

void served_reject(struct served *served, const char *token)
{
  if (served_is(served, token))
    served_ban(served, token);
  else if (!is_banned(served, token))
    keep_among(served->hearsay, &served->hearsays, token);
}

void served_hear_of_rejected(struct served *served, const uint64_t fingerprints[SERVED_FINGERPRINTS])
{
  memcpy(served->elsewhere, fingerprints, sizeof served->elsewhere);
  if (served->token && is_rejected_elsewhere(served, served->token))
    served_ban(served, served->token);
}

void served_free(struct served *served)
{
  secret_free(served->token);
  for (int i = 0; i < SERVED_BANNED; i++) {
    secret_free(served->banned[i]);
    secret_free(served->hearsay[i]);
  }
  *served = (struct served){0};
}
