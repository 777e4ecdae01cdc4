/* A grant's tokens as they are kept: JSON in the shape of Lucid's own example script, so that either reads
 * the other's file. Every field of the server's answers is in it, `expiration` (naive local time) for the
 * script, and ours: `expires_at` and `obtained_at` (epoch seconds), `pending` while a refresh is under way,
 * `origin`, `spent`, `rejected`; and `before`, the record of a grant that was refused, while another one is tried. */
#ifndef RECORD_RECORD_H
#define RECORD_RECORD_H

#include "../base/json.h"
#include "../base/world.h"
#include "../oauth/answer.h"

#include <stdbool.h>

enum {
  RECORD_HASH = 65,      /* a SHA-256 in hexadecimal, with its NUL */
  RECORD_SPENT_MOST = 64 /* hashes of spent refresh tokens that a record remembers, the last ones */
};

struct record {
  cJSON *json;               /* all of it; the pointers below point into it */
  const char *access_token;  /* NULL: none, or none that may stand in a header */
  const char *refresh_token; /* NULL: none */
  bool bearer;               /* token_type is "bearer" in any case, or absent */
  bool rejected;             /* the API did not accept the access token */
  double expires_at;         /* epoch seconds; NaN: unknown */
  double lifetime;           /* seconds between getting and expiring; NaN: unknown */
};

/* Read a record's text. False: it is no record (no JSON object, or no token in it); `record` is then empty.
 * Free with record_free. */
bool record_read(struct record *record, const char *text, const struct world *world);

/* A record that only holds a refresh token to start from. `before` (an empty record is allowed) is put aside in it until
 * the new grant has brought tokens: it may have been refused by mistake. False: out of memory. */
bool record_start(struct record *record, const char *refresh_token, const struct record *before,
                  const struct world *world);

/* A record from a login's answer. `before` (an empty record is allowed) is the grant that it replaces; `dead`: the
 * refresh token of that grant is known to be dead, and is not to be tried again. If the answer brings no access token,
 * the new grant is not known to work: with `keeps_before` the former grant is put aside in it, as by record_start.
 * Takes the answer's fields. False: out of memory. */
bool record_give(struct record *record, struct answer *answer, double since, const struct record *before, bool dead,
                 bool keeps_before, const struct world *world);

/* Whether a program has stored this login, and no refresh has followed: it counts more than the configured refresh
 * token. */
bool record_is_login(const struct record *record);

/* Whether another grant has been put aside for this one. */
bool record_is_trial(const struct record *record);

/* Restore the record that was put aside. `dead`: the refresh token that was tried is not to be tried again. False: none
 * was put aside, or out of memory; the record is unchanged. */
bool record_restore(struct record *record, bool dead, const struct world *world);

/* Lay an answer's fields over the record: tokens, expiry, times. `since` is epoch seconds before the request
 * was sent: lifetimes count from there. A missing refresh token keeps the old one (RFC 6749 section 6); an
 * access token is never kept. Ends the pending mark, and takes the answer's fields. False: out of memory, record and
 * answer are then unchanged. */
bool record_rotate(struct record *record, struct answer *answer, double since, const struct world *world);

/* The same when out of memory: the answer alone becomes the record, with the expiry that it states. False: it brings no
 * refresh token, and the record is unchanged. */
bool record_replace(struct record *record, struct answer *answer, const struct world *world);

/* The text to store; to be given to secret_free. NULL: out of memory. */
char *record_write(const struct record *record);

/* The record's text without the fields that the grant can do without, for a disk that has no room for all of it; give
 * it to secret_free. NULL: there are no such fields, it is no record, or out of memory. */
char *record_essentials(const char *text);

/* Wipe and free; an empty record is allowed. */
void record_free(struct record *record);

/* When to refresh: `before` seconds ahead of the expiry, but at most a quarter of the lifetime ahead. Epoch
 * seconds; 0 when the expiry is unknown. */
double record_refresh_at(const struct record *record, double before);

/* Whether the stored expiry lies further ahead than the token's whole lifetime: then the clock was set back,
 * or the expiry is wrong. */
bool record_implausible(const struct record *record, double now);

/* SHA-256 of a token in hexadecimal, for places that may not hold the token itself. */
void record_hash(const struct world *world, const char *token, char hash[RECORD_HASH]);

/* The mark of a refresh that is under way (docs/ARCHITECTURE.md: durable before the token is spent). */
struct pending {
  char refresh_token[RECORD_HASH]; /* hash of the refresh token that is being spent */
  double since;                    /* epoch seconds */
  double steady;                   /* the same moment by the steady clock of `host` */
  double lasts;                    /* seconds after which that flight is over in any case; 0: unknown */
  long pid;
  char host[256];
  char lock[80];  /* the identity of the lock that the mark was set under, which tells it from others in its place;
                   * empty: unknown */
  char held[160]; /* the room that its storage holds for the answer, in the storage's own words; empty: none */
  double settles; /* seconds that a request in doubt is given before it is asked about; 0: the usual time */
  double lost;    /* epoch seconds: the server said then that it was spent; 0: not asked yet */
};

/* False: there is no such mark, or it speaks of another refresh token than the record's. */
bool record_pending(const struct record *record, const struct world *world, struct pending *pending);
/* `raw`: the senseless answer, kept with the mark; NULL: one that is there already stays. False: out of memory. */
bool record_mark(struct record *record, const struct pending *pending, const char *raw);
void record_unmark(struct record *record);

/* An answer that was cut off or makes no sense may still hold the new refresh token. This takes it from the answer that
 * is kept with the mark: it replaces the spent one, and the access token and the mark go. False: there is none, and the
 * record is unchanged. */
bool record_salvage(struct record *record);
/* The same from an answer as it came. The mark goes too: another is due before the token is spent. */
bool record_salvage_from(struct record *record, const char *bytes, size_t length);

/* The server's last answer to a failed refresh, for the other processes. Epoch seconds. */
struct failure {
  enum code code;
  double since, until;
  const char *message; /* owned by the record when read from it */
};

/* False: there is none, or it is of another refresh token than the record's, or of a time to come: the clock was set
 * back since, and nobody knows how much of the wait is left. */
bool record_failure(const struct record *record, const struct world *world, double now, struct failure *failure);
/* False: out of memory. It goes with the next rotation. */
bool record_fail(struct record *record, const struct world *world, const struct failure *failure);

/* Whose tokens these are, "https://api.lucid.co". NULL: unknown, as in a file that the example script wrote. */
const char *record_server(const struct record *record);
/* Of this URL; NULL changes nothing. False: out of memory. */
bool record_set_server(struct record *record, const char *url);

/* Whether the record's grant was started from this refresh token or has spent it, by the hashes that are kept of the
 * origins and of the last refresh tokens. */
bool record_came_from(const struct record *record, const char *refresh_token, const struct world *world);

/* A refresh token with this hash was spent. False: out of memory. */
bool record_remember_spent(struct record *record, const char hash[RECORD_HASH]);

/* The server refused the refresh token that the record was started from: no process that still has it configured is to
 * start from it again. */
void record_refuse_origin(struct record *record);
/* Whether it did, and nothing has come since. */
bool record_is_refused(const struct record *record);

/* The API did not accept the access token: no process is to hand it out. False: out of memory. */
bool record_reject(struct record *record);

#endif
