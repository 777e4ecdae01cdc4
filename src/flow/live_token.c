#include "live_token.h"

#include "../base/secret.h"
#include "../oauth/token.h"

#include <math.h>
#include <string.h>

static bool is_among(char *const tokens[LIVE_TOKEN_BANNED], const char *token)
{
  for (int i = 0; i < LIVE_TOKEN_BANNED; i++)
    if (tokens[i] && strcmp(tokens[i], token) == 0)
      return true;
  return false;
}

static void keep_among(char *tokens[LIVE_TOKEN_BANNED], int *count, const char *token)
{
  char **place = &tokens[(*count)++ % LIVE_TOKEN_BANNED];
  secret_free(*place);
  *place = secret_copy(token);
}

static bool is_banned(const struct live_token *live, const char *token)
{
  return is_among(live->banned, token) || is_among(live->hearsay, token);
}

static bool is_rejected_elsewhere(const struct live_token *live, const char *token)
{
  uint64_t fingerprint = 0;
  for (int i = 0; i < LIVE_TOKEN_FINGERPRINTS; i++) {
    if (live->elsewhere[i] && !fingerprint)
      fingerprint = token_fingerprint(token);
    if (live->elsewhere[i] && live->elsewhere[i] == fingerprint)
      return true;
  }
  return false;
}

bool live_token_is(const struct live_token *live, const char *token)
{
  return live->token && token && strcmp(live->token, token) == 0;
}

bool live_token_lives(const struct live_token *live, struct moment now)
{
  return live->token && !moment_has_come(live->dead_at, now);
}

bool live_token_allows(const struct live_token *live, const struct record *record)
{
  return record->access_token && record->bearer && !record->rejected && !is_banned(live, record->access_token) &&
         !is_rejected_elsewhere(live, record->access_token);
}

bool live_token_is_due(const struct live_token *live, const struct record *record, struct moment now)
{
  return live_token_is(live, record->access_token) && now.steady >= live->refresh_at.steady;
}

/* A point of the record's time by both clocks. A token that was in use before lives no longer than was known then. */
static struct moment point(struct moment now, double wall, const struct moment *known)
{
  struct moment at = moment_after(now, wall - now.wall);
  if (known)
    at.steady = fmin(at.steady, known->steady);
  return at;
}

void live_token_take(struct live_token *live, const struct record *record, double refresh_before, struct moment now)
{
  bool same = live_token_is(live, record->access_token);
  char *copy = live_token_allows(live, record) ? secret_copy(record->access_token) : NULL;
  double dead_at = isnan(record->expires_at) ? 0 : record->expires_at;
  /* only a process that had it in use before the clock was set back knows how much of its life is left */
  if (record_implausible(record, now.wall))
    dead_at = now.wall + (same ? live->dead_at.steady - now.steady : record->lifetime);
  secret_free(live->token);
  live->token = copy;
  live->had_token = live->had_token || copy;
  live->refresh_at = point(now, record_refresh_at(record, refresh_before), same ? &live->refresh_at : NULL);
  live->dead_at = point(now, dead_at, same ? &live->dead_at : NULL);
  live->lifetime = isnan(record->lifetime) ? 0 : record->lifetime;
}

bool live_token_differs(const struct live_token *live, const struct record *record)
{
  return live->token ? !live_token_is(live, record->access_token) : live->had_token;
}

void live_token_ban(struct live_token *live, const char *token)
{
  if (!token || is_among(live->banned, token))
    return;
  keep_among(live->banned, &live->bans, token);
  if (live_token_is(live, token)) {
    secret_free(live->token);
    live->token = NULL;
  }
}

void live_token_reject(struct live_token *live, const char *token)
{
  if (live_token_is(live, token))
    live_token_ban(live, token);
  else if (!is_banned(live, token))
    keep_among(live->hearsay, &live->hearsays, token);
}

void live_token_hear_of_rejected(struct live_token *live, const uint64_t fingerprints[LIVE_TOKEN_FINGERPRINTS])
{
  memcpy(live->elsewhere, fingerprints, sizeof live->elsewhere);
  if (live->token && is_rejected_elsewhere(live, live->token))
    live_token_ban(live, live->token);
}

void live_token_free(struct live_token *live)
{
  secret_free(live->token);
  for (int i = 0; i < LIVE_TOKEN_BANNED; i++) {
    secret_free(live->banned[i]);
    secret_free(live->hearsay[i]);
  }
  *live = (struct live_token){0};
}
