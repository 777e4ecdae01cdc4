/* The token that an account hands out, for as long as it may be. Its time is known by two clocks, and changes that
 * other processes announce are seen at once. All is called with the account's mutex held, except for the hot path. */
#ifndef ACCOUNT_TOKEN_IN_USE_H
#define ACCOUNT_TOKEN_IN_USE_H

#include "../flow/flow.h"
#include "../system/clock.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* token_in_use.c alone writes it. */
struct token_in_use {
  /* read by the hot path */
  _Atomic(const atomic_uint_least64_t *) generation; /* of the storage: another process announces a change */
  atomic_uint_least64_t seen;                        /* the generation that the token belongs to */
  atomic_uint_least64_t serial;                      /* changes with the token; 0: there is none */
  atomic_int_least64_t good_in;                      /* clock_second: look again in any other */

  char *token; /* NULL: there is none */
  struct moment refresh_at, dead_at;
  int64_t asked_in; /* clock_second in which the storage was asked last whether it was changed */
  double place;     /* 0 to 1: of this process among those that refresh ahead; negative: it does not */
};

/* ---- the hot path: no mutex ---- */

/* The storage's generation; NULL in place of a storage's own: one that announces nothing. */
static inline uint64_t in_use_generation(const struct token_in_use *in_use, memory_order order)
{
  return atomic_load_explicit(atomic_load_explicit(&in_use->generation, memory_order_relaxed), order);
}

/* Another process has announced a change since. */
static inline bool in_use_was_announced(const struct token_in_use *in_use)
{
  return in_use_generation(in_use, memory_order_acquire) != atomic_load_explicit(&in_use->seen, memory_order_acquire);
}

/* It is still the one that had this serial, and no other process has announced a change. The serial is read last: a
 * flight that ends in between changes it after the rest. */
static inline bool in_use_is_same(const struct token_in_use *in_use, uint64_t serial)
{
  return serial != 0 && !in_use_was_announced(in_use) &&
         atomic_load_explicit(&in_use->serial, memory_order_acquire) == serial;
}

/* It was looked at in this very second. Any other second says that time has passed, or was set, or that the machine
 * slept. */
static inline bool in_use_was_looked_at(const struct token_in_use *in_use)
{
  return clock_second() == atomic_load_explicit(&in_use->good_in, memory_order_relaxed);
}

/* ---- everybody else ---- */

/* `generation` NULL: the storage announces nothing. */
void in_use_init(struct token_in_use *in_use, const atomic_uint_least64_t *generation, double place);
void in_use_free(struct token_in_use *in_use);

/* Another storage has taken the place of the one that was watched. */
void in_use_watch(struct token_in_use *in_use, const atomic_uint_least64_t *generation);

/* Whether there is one at all, whether it has time left, due or not, and whether it is this one. */
bool in_use_exists(const struct token_in_use *in_use);
bool in_use_lives(const struct token_in_use *in_use, struct moment now);
bool in_use_is(const struct token_in_use *in_use, const char *token);

/* Whether it is due by either clock, or was changed by a process that announces it. */
bool in_use_is_due(const struct token_in_use *in_use);

/* Whether the storage was asked in this second (clock_second) whether it was changed; and: it was. */
bool in_use_asked_storage(const struct token_in_use *in_use, int64_t second);
void in_use_has_asked_storage(struct token_in_use *in_use, int64_t second);

/* The hot path hands it out without a look for the rest of this second, unless it falls due; or not at all. */
void in_use_looked_at(struct token_in_use *in_use);
void in_use_look_always(struct token_in_use *in_use);

/* The change that was announced does not count: for callers that have waited for it for long enough. */
void in_use_overlook(struct token_in_use *in_use);

/* NULL: there is none; and its serial, 0: there is none. */
const char *in_use_token(const struct token_in_use *in_use);
uint64_t in_use_serial(const struct token_in_use *in_use);

/* A copy, to be given to secret_free, and its serial (may be NULL). */
char *in_use_copy(const struct token_in_use *in_use, uint64_t *serial);

/* There is none any more. */
void in_use_withdraw(struct token_in_use *in_use);

/* One that lives, but is about to change: the hot path leaves it alone. */
void in_use_show(struct token_in_use *in_use, const char *token, struct moment refresh_at, struct moment dead_at);

/* The one that a flight has brought; `seen` is the generation that it was read in. `anew`: callers are to come the long
 * way round once, even if it is the same. */
void in_use_put(struct token_in_use *in_use, const struct flow_outcome *outcome, uint64_t seen, bool anew);

#endif
