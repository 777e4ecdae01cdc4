/* The access token in use, for how long it is, and those that must never be handed out again. */
#ifndef FLOW_LIVE_TOKEN_H
#define FLOW_LIVE_TOKEN_H

#include "../base/world.h"
#include "../record/record.h"

#include <stdbool.h>
#include <stdint.h>

enum { LIVE_TOKEN_BANNED = 4, LIVE_TOKEN_FINGERPRINTS = 4 };

/* Starts as {0}. */
struct live_token {
  char *token;                       /* NULL: none, or none that may be handed out */
  struct moment refresh_at, dead_at; /* of the token */
  double lifetime;                   /* of the token, in seconds; 0: unknown */
  bool had_token;                    /* one was in use before */
  char *banned[LIVE_TOKEN_BANNED];   /* known to be dead, the last ones, wherever they turn up */
  char *hearsay[LIVE_TOKEN_BANNED];  /* rejected without ever having been in use, so that they push out no others */
  int bans, hearsays;
  uint64_t elsewhere[LIVE_TOKEN_FINGERPRINTS]; /* rejected by other processes; 0: none */
};

/* Whether this is the token in use; `token` may be NULL. */
bool live_token_is(const struct live_token *live, const char *token);

/* Whether it lives, by both clocks. */
bool live_token_lives(const struct live_token *live, struct moment now);

/* Whether the record's access token may be handed out, but for its age. */
bool live_token_allows(const struct live_token *live, const struct record *record);

/* Whether the record's access token is the one in use and is due by the steady clock, even if the wall clock
 * was set back. */
bool live_token_is_due(const struct live_token *live, const struct record *record, struct moment now);

/* The record's access token is the one in use from now on. `refresh_before` in seconds. */
void live_token_take(struct live_token *live, const struct record *record, double refresh_before, struct moment now);

/* Whether the record's access token is another than the one that was in use, which may have been rejected since. */
bool live_token_differs(const struct live_token *live, const struct record *record);

/* A token is known to be dead; NULL is allowed. */
void live_token_ban(struct live_token *live, const char *token);

/* Somebody says so: the API did not accept it. */
void live_token_reject(struct live_token *live, const char *token);

/* These are rejected by other processes, by their fingerprints. */
void live_token_hear_of_rejected(struct live_token *live, const uint64_t fingerprints[LIVE_TOKEN_FINGERPRINTS]);

/* Wipe and free. */
void live_token_free(struct live_token *live);

#endif
