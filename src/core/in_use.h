/* The access token in use, for how long it is, and those that must never be handed out again. */
#ifndef CORE_IN_USE_H
#define CORE_IN_USE_H

#include "record.h"
#include "world.h"

#include <stdbool.h>

enum { IN_USE_BANNED = 4 };

/* Starts as {0}. */
struct in_use {
  char *token;                       /* NULL: none, or none that may be handed out */
  struct moment refresh_at, dead_at; /* of the token */
  double lifetime;                   /* of the token, in seconds; 0: unknown */
  bool had_token;                    /* one was in use before */
  char *banned[IN_USE_BANNED];       /* known to be dead, the last ones, wherever they turn up */
  char *hearsay[IN_USE_BANNED];      /* rejected without ever having been in use, so that they push out no others */
  int bans, hearsays;
};

/* Whether this is the token in use; `token` may be NULL. */
bool in_use_is(const struct in_use *in_use, const char *token);

/* Whether it lives, by both clocks. */
bool in_use_lives(const struct in_use *in_use, struct moment now);

/* Whether the record's access token may be handed out, but for its age. */
bool in_use_allows(const struct in_use *in_use, const struct record *record);

/* Whether the record's access token is the one in use and is due by the steady clock, whatever a wall clock that was set
 * back makes of its expiry. */
bool in_use_is_due(const struct in_use *in_use, const struct record *record, struct moment now);

/* The record's access token is the one in use from now on. `refresh_before` in seconds. */
void in_use_take(struct in_use *in_use, const struct record *record, double refresh_before, struct moment now);

/* Whether the record's access token is another than the one that was in use, which may have been rejected since. */
bool in_use_differs(const struct in_use *in_use, const struct record *record);

/* A token is known to be dead; NULL is allowed. */
void in_use_ban(struct in_use *in_use, const char *token);

/* Somebody says so: the API did not accept it. */
void in_use_reject(struct in_use *in_use, const char *token);

/* Wipe and free. */
void in_use_free(struct in_use *in_use);

#endif
