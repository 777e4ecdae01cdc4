/* The access token in use, for how long it is, and those that must never be handed out again. */
#ifndef FLOW_SERVED_H
#define FLOW_SERVED_H

#include "../base/world.h"
#include "../record/record.h"

#include <stdbool.h>
#include <stdint.h>

enum { SERVED_BANNED = 4, SERVED_FINGERPRINTS = 4 };

/* Starts as {0}. */
struct served {
  char *token;                       /* NULL: none, or none that may be handed out */
  struct moment refresh_at, dead_at; /* of the token */
  double lifetime;                   /* of the token, in seconds; 0: unknown */
  bool had_token;                    /* one was in use before */
  char *banned[SERVED_BANNED];       /* known to be dead, the last ones, wherever they turn up */
  char *hearsay[SERVED_BANNED];      /* rejected without ever having been in use, so that they push out no others */
  int bans, hearsays;
  uint64_t elsewhere[SERVED_FINGERPRINTS]; /* rejected by other processes; 0: none */
};

/* Whether this is the token in use; `token` may be NULL. */
bool served_is(const struct served *served, const char *token);

/* Whether it lives, by both clocks. */
bool served_lives(const struct served *served, struct moment now);

/* Whether the record's access token may be handed out, but for its age. */
bool served_allows(const struct served *served, const struct record *record);

/* Whether the record's access token is the one in use and is due by the steady clock, even if the wall clock
 * was set back. */
bool served_is_due(const struct served *served, const struct record *record, struct moment now);

/* The record's access token is the one in use from now on. `refresh_before` in seconds. */
void served_take(struct served *served, const struct record *record, double refresh_before, struct moment now);

/* Whether the record's access token is another than the one that was in use, which may have been rejected since. */
bool served_differs(const struct served *served, const struct record *record);

/* A token is known to be dead; NULL is allowed. */
void served_ban(struct served *served, const char *token);

/* Somebody says so: the API did not accept it. */
void served_reject(struct served *served, const char *token);

/* These are rejected by other processes, by their fingerprints. */
void served_hear_of_rejected(struct served *served, const uint64_t fingerprints[SERVED_FINGERPRINTS]);

/* Wipe and free. */
void served_free(struct served *served);

#endif
