#include "token_in_use.h"

#include "../base/secret.h"

#include <math.h>
#include <string.h>

/* No second of the clock, for good_in. */
#define NEVER INT64_MIN

/* Processes that refresh by themselves do not start all at once: they spread over this share of the time that
 * is left, at most so many seconds. */
#define SPREAD_SHARE 0.2
#define SPREAD_MOST 10.0

/* The last one given out in this process: an account that has left and comes back never repeats one. */
static atomic_uint_least64_t serials;

/* A storage of the program's own announces nothing. */
static const atomic_uint_least64_t no_generation;

void in_use_init(struct token_in_use *in_use, const atomic_uint_least64_t *generation, double place)
{
  in_use->place = place;
  in_use_watch(in_use, generation);
}

void in_use_free(struct token_in_use *in_use)
{
  secret_free(in_use->token);
}

void in_use_watch(struct token_in_use *in_use, const atomic_uint_least64_t *generation)
{
  atomic_store_explicit(&in_use->generation, generation ? generation : &no_generation, memory_order_relaxed);
}

bool in_use_exists(const struct token_in_use *in_use)
{
  return in_use->token != NULL;
}

bool in_use_lives(const struct token_in_use *in_use, struct moment now)
{
  return in_use->token && !moment_has_come(in_use->dead_at, now);
}

bool in_use_is(const struct token_in_use *in_use, const char *token)
{
  return in_use->token && strcmp(in_use->token, token) == 0;
}

bool in_use_is_due(const struct token_in_use *in_use)
{
  return moment_has_come(in_use->refresh_at, clock_now()) || in_use_was_announced(in_use);
}

bool in_use_asked_storage(const struct token_in_use *in_use, int64_t second)
{
  return in_use->asked_in == second;
}

void in_use_has_asked_storage(struct token_in_use *in_use, int64_t second)
{
  in_use->asked_in = second;
}

/* In the second in which the token falls due every call looks. */
void in_use_looked_at(struct token_in_use *in_use)
{
  int64_t second = clock_second();
  bool lasts = in_use->refresh_at.wall >= (double)second + 1 && moment_left(in_use->refresh_at, clock_now()) >= 1;
  atomic_store_explicit(&in_use->good_in, lasts ? second : NEVER, memory_order_relaxed);
}

void in_use_look_always(struct token_in_use *in_use)
{
  atomic_store_explicit(&in_use->good_in, NEVER, memory_order_relaxed);
}

void in_use_overlook(struct token_in_use *in_use)
{
  atomic_store_explicit(&in_use->seen, in_use_generation(in_use, memory_order_seq_cst), memory_order_relaxed);
}

const char *in_use_token(const struct token_in_use *in_use)
{
  return in_use->token;
}

uint64_t in_use_serial(const struct token_in_use *in_use)
{
  return atomic_load_explicit(&in_use->serial, memory_order_relaxed);
}

char *in_use_copy(const struct token_in_use *in_use, uint64_t *serial)
{
  if (serial)
    *serial = in_use_serial(in_use);
  return secret_copy(in_use->token);
}

void in_use_withdraw(struct token_in_use *in_use)
{
  atomic_store_explicit(&in_use->serial, 0, memory_order_release);
  secret_free(in_use->token);
  in_use->token = NULL;
}

static void replace(struct token_in_use *in_use, const char *token)
{
  in_use_withdraw(in_use);
  in_use->token = secret_copy(token);
  uint64_t serial = atomic_fetch_add_explicit(&serials, 1, memory_order_relaxed) + 1;
  atomic_store_explicit(&in_use->serial, serial, memory_order_release);
}

void in_use_show(struct token_in_use *in_use, const char *token, struct moment refresh_at, struct moment dead_at)
{
  if (!in_use_is(in_use, token))
    replace(in_use, token);
  in_use_look_always(in_use);
  in_use->refresh_at = refresh_at;
  in_use->dead_at = dead_at;
}

/* How much later than others this process refreshes ahead, in seconds. */
static double spread(const struct token_in_use *in_use)
{
  double left = in_use->dead_at.wall - in_use->refresh_at.wall;
  return in_use->place * fmin(SPREAD_MOST, left * SPREAD_SHARE);
}

void in_use_put(struct token_in_use *in_use, const struct flow_outcome *outcome, uint64_t seen, bool anew)
{
  if (!in_use_is(in_use, outcome->token) || anew)
    replace(in_use, outcome->token);
  atomic_store_explicit(&in_use->seen, seen, memory_order_release);
  in_use->refresh_at = outcome->refresh_at;
  in_use->dead_at = outcome->dead_at;
  if (in_use->place >= 0)
    in_use->refresh_at = moment_after(in_use->refresh_at, spread(in_use));
  in_use_has_asked_storage(in_use, clock_second());
  in_use_looked_at(in_use);
}
