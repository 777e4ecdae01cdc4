#include "in_use.h"

#include "../api/client.h"
#include "../base/secret.h"
#include "../system/clock.h"

#include <math.h>
#include <string.h>

/* Processes that refresh by themselves do not start all at once: they spread over this share of the time that
 * is left, at most so many seconds. */
#define SPREAD_SHARE 0.2
#define SPREAD_MOST 10.0

bool in_use_lives(const struct lucidauth_account *account, struct moment now)
{
  return account->token && !moment_has_come(account->dead_at, now);
}

/* The hot path may hand the token out without a second look as long as this second lasts. In the second in which the
 * token falls due every call looks. */
static void look_again_later(struct lucidauth_account *account)
{
  int64_t second = clock_second();
  bool lasts = account->refresh_at.wall >= (double)second + 1 && moment_left(account->refresh_at, clock_now()) >= 1;
  atomic_store_explicit(&account->good_in, lasts ? second : NEVER, memory_order_relaxed);
}

bool in_use_was_announced(const struct lucidauth_account *account)
{
  return account_generation(account, memory_order_acquire) !=
         atomic_load_explicit(&account->seen, memory_order_acquire);
}

bool in_use_seems_good(const struct lucidauth_account *account)
{
  return account->token && !account->flying && !account->forked && !moment_has_come(account->refresh_at, clock_now()) &&
         !in_use_was_announced(account);
}

bool in_use_rewritten(struct lucidauth_account *account)
{
  account->looked_after = true;
  pthread_mutex_unlock(&account->mutex);
  bool changed = account->craft.store->ops->changed(account->craft.store);
  pthread_mutex_lock(&account->mutex);
  account->looked_after = false;
  pthread_cond_broadcast(&account->landed);
  return changed;
}

bool in_use_still_good(struct lucidauth_account *account)
{
  if (!in_use_seems_good(account))
    return false;
  int64_t second = clock_second();
  bool asks = account->craft.store && !account->job && !account->looked_after && account->asked_in != second;
  if (asks && (in_use_rewritten(account) || !in_use_seems_good(account)))
    return false;
  if (asks)
    account->asked_in = second;
  if (asks || !account->looked_after)
    look_again_later(account);
  return true;
}

/* Kept out of the hot path's few instructions. */
__attribute__((noinline, cold)) static bool look_again(struct lucidauth_account *account, uint64_t serial)
{
  if (pthread_mutex_trylock(&account->mutex) != 0)
    return false;
  bool good = atomic_load_explicit(&account->serial, memory_order_relaxed) == serial && in_use_still_good(account) &&
              atomic_load_explicit(&account->serial, memory_order_relaxed) == serial;
  pthread_mutex_unlock(&account->mutex);
  return good;
}

/* Any other second than the one of the last look says that time has passed, or was set, or that the machine slept. */
bool lucidauth_is_current(const lucidauth_account *account, uint64_t serial)
{
  /* the serial last: a flight that lands in between changes it after the rest */
  if (serial == 0 || in_use_was_announced(account) ||
      atomic_load_explicit(&account->serial, memory_order_acquire) != serial)
    return false;
  if (clock_second() == atomic_load_explicit(&account->good_in, memory_order_relaxed))
    return true;
  return look_again((struct lucidauth_account *)(uintptr_t)account, serial);
}

void in_use_withdraw(struct lucidauth_account *account)
{
  atomic_store_explicit(&account->serial, 0, memory_order_release);
  secret_free(account->token);
  account->token = NULL;
}

/* How much later than others this process refreshes ahead, in seconds. */
static double spread(const struct lucidauth_account *account)
{
  double left = account->dead_at.wall - account->refresh_at.wall;
  return account->spread * fmin(SPREAD_MOST, left * SPREAD_SHARE);
}

bool in_use_is(const struct lucidauth_account *account, const char *token)
{
  return account->token && strcmp(account->token, token) == 0;
}

void in_use_replace(struct lucidauth_account *account, const char *token)
{
  in_use_withdraw(account);
  account->token = secret_copy(token);
  uint64_t serial = atomic_fetch_add_explicit(&account->client->serials, 1, memory_order_relaxed) + 1;
  atomic_store_explicit(&account->serial, serial, memory_order_release);
}

/* A new serial sends callers the long way round once, where they meet the events of the background. */
void in_use_put(struct lucidauth_account *account, const struct flow_outcome *outcome)
{
  if (!in_use_is(account, outcome->token) || (account->job && outcome->note_count > 0))
    in_use_replace(account, outcome->token);
  atomic_store_explicit(&account->seen, account->craft.seen, memory_order_release);
  account->refresh_at = outcome->refresh_at;
  account->dead_at = outcome->dead_at;
  if (account->job)
    account->refresh_at = moment_after(account->refresh_at, spread(account));
  account->asked_in = clock_second();
  look_again_later(account);
}
