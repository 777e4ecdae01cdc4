#include "account.h"

#include "../base/secret.h"
#include "../oauth/given.h"
#include "parts.h"
#include "worker.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

uint64_t account_seed(const struct lucidauth_account *account)
{
  uint64_t mixed = (uint64_t)getpid() * 2654435761u ^ clock_coarse() ^ (uintptr_t)account;
  return mixed ^ mixed >> 29;
}

void account_report(const struct lucidauth_account *account, lucidauth_event_kind kind, lucidauth_code code,
                    const char *message)
{
  lucidauth_event event = {.kind = kind, .account = account->name, .code = code, .message = message};
  if (account->job)
    events_queue(&account->client->events, &event);
  else
    events_give(&account->client->events, &event);
}

/* ---- an account's beginning and end ---- */

static void take_settings(struct lucidauth_account *account)
{
  const struct account_settings *settings = &account->client->settings;
  account->settings = settings->flow;
  if (strcmp(account->name, "default") != 0) {
    account->settings.account = account->name;
    account->settings.refresh_token = NULL;
  }
  account->flight.endpoints = &settings->endpoints;
  account->flight.holds_signals = settings->hold_signals;
}

static bool open_parts(struct lucidauth_account *account, lucidauth_error *error)
{
  const struct account_settings *settings = &account->client->settings;
  if (!turn_init(account, error))
    return false;
  const struct store *store = account->flight.store;
  bool background = settings->background && store;
  double place = (double)(account_seed(account) % 1000) / 1000;
  in_use_init(&account->in_use, store ? store->generation : NULL, background ? place : -1);
  if (background)
    account->job = background_job_new(account);
  if (background && !account->job)
    error_set(error, LUCIDAUTH_STORAGE, "There is not enough memory for an account.");
  return account->job || !background;
}

struct lucidauth_account *account_new(struct client_shared *client, const char *name, lucidauth_error *error)
{
  struct lucidauth_account *account = calloc(1, sizeof *account);
  char *copy = strdup(name);
  if (!account || !copy) {
    free(account);
    free(copy);
    error_set(error, LUCIDAUTH_STORAGE, "There is not enough memory for an account.");
    return NULL;
  }
  pthread_mutex_init(&account->mutex, NULL);
  account->client = client;
  account->name = copy;
  take_settings(account);
  if (open_parts(account, error))
    return account;
  account_free(account);
  return NULL;
}

void account_free(struct lucidauth_account *account)
{
  background_job_free(account->job);
  turn_free(account);
  in_use_free(&account->in_use);
  free(account->name);
  pthread_mutex_destroy(&account->mutex);
  free(account);
}

/* With the mutex held. The default account alone is started by the configured refresh token, and remembers it. */
static enum account_worth worth(const struct lucidauth_account *account)
{
  if (!turn_is_idle(account) || !account->settings.account)
    return ACCOUNT_STAYS;
  bool rejects = turn_has_rejected(account);
  if (turn_number(account) == 1)
    return rejects ? ACCOUNT_STORED : ACCOUNT_EMPTY;
  if (account->flight.empty && !in_use_exists(&account->in_use) && !status_has_token(&account->status))
    return ACCOUNT_EMPTY;
  bool forgets = account->client->settings.storage == LUCIDAUTH_MEMORY;
  return forgets || rejects ? ACCOUNT_STAYS : ACCOUNT_STORED;
}

enum account_worth account_worth(struct lucidauth_account *account)
{
  pthread_mutex_lock(&account->mutex);
  enum account_worth found = worth(account);
  pthread_mutex_unlock(&account->mutex);
  return found;
}

bool account_may_leave(struct lucidauth_account *account)
{
  return !account->job || background_let_go(account->job);
}

bool account_start_leaving(struct lucidauth_account *account)
{
  return !account->job || background_start_leaving(account->job);
}

void account_dismiss(struct lucidauth_account *account)
{
  if (account->job)
    background_leave(account->job, &(struct held_signal){.holding = false});
  account_free(account);
}

static void save_what_is_unsaved(struct lucidauth_account *account)
{
  if (!account->flight.store || !turn_begin_to_save(account))
    return;
  turn_run(account);
  secret_free(turn_end(account, NULL, NULL));
}

void account_end(struct lucidauth_account *account)
{
  struct held_signal held = {.holding = false};
  if (account->job) {
    turn_hold_signals(account, &held);
    background_leave(account->job, &held);
    held_signals_pass_on(&held);
  }
  save_what_is_unsaved(account);
}

static bool wait_for_last_flight(struct lucidauth_account *account, struct held_signal *held)
{
  struct patience patience = {0};
  double seconds = 2 * account->settings.timeout;
  if (account->job && !background_leave_within(account->job, held, &patience, seconds))
    return false;
  return turn_wait_for_last(account, held, &patience, seconds);
}

void account_settle(struct lucidauth_account *account)
{
  struct held_signal held = {.holding = false};
  if (!account->flight.store)
    return;
  turn_hold_signals(account, &held);
  bool ended = wait_for_last_flight(account, &held);
  held_signals_pass_on(&held);
  if (ended)
    save_what_is_unsaved(account);
}

/* ---- fork() ---- */

void account_before_fork(struct lucidauth_account *account)
{
  pthread_mutex_lock(&account->mutex);
}

void account_after_fork_in_parent(struct lucidauth_account *account)
{
  pthread_mutex_unlock(&account->mutex);
}

void account_after_fork_in_child(struct lucidauth_account *account)
{
  turn_forked(account);
  pthread_mutex_unlock(&account->mutex);
}

/* ---- its parts, for others ---- */

struct events *account_events(struct lucidauth_account *account)
{
  return &account->client->events;
}

struct flight *account_flight(struct lucidauth_account *account)
{
  return &account->flight;
}

bool account_has_store(const struct lucidauth_account *account)
{
  return account->flight.store != NULL;
}

bool account_has_background(const struct lucidauth_account *account)
{
  return account->job != NULL;
}

/* A refresh token is bound to the app that it was issued to (RFC 6749 section 6). */
static bool is_of_this_app(const struct lucidauth_account *account, const struct answer *given, lucidauth_error *error)
{
  const char *theirs = json_string(given->fields, "client_id"), *ours = account->settings.credentials.client_id;
  if (!theirs || !ours || strcmp(theirs, ours) == 0)
    return true;
  error_set(error, LUCIDAUTH_CONFIG,
            "This answer says that it is the app %.100s's (client_id), and this client is the app %.100s "
            "(LUCID_CLIENT_ID, option client_id), which cannot refresh it. Nothing was changed. Store it with a client "
            "of that app, or take client_id out of the answer if it means something else.",
            theirs, ours);
  return false;
}

bool account_read_given(const struct lucidauth_account *account, struct answer *given, const char *text, size_t length,
                        lucidauth_error *error)
{
  const struct answer_context context = {.now = clock_now().wall,
                                         .default_lifetime = account->settings.default_lifetime};
  const char *flaw = given_read(given, text ? text : "", text ? length : 0, &context);
  error_set(error, flaw ? LUCIDAUTH_CONFIG : LUCIDAUTH_OK, "%s", flaw ? flaw : "");
  if (flaw || is_of_this_app(account, given, error))
    return !flaw;
  answer_free(given);
  return false;
}

void account_tell_status(struct lucidauth_account *account, lucidauth_status *status)
{
  pthread_mutex_lock(&account->mutex);
  status_tell(&account->status, status);
  status->generation = in_use_generation(&account->in_use, memory_order_relaxed);
  pthread_mutex_unlock(&account->mutex);
}

/* ---- the token in use ---- */

/* Kept out of the hot path's few instructions. */
__attribute__((noinline, cold)) static bool look_again(struct lucidauth_account *account, uint64_t serial)
{
  if (pthread_mutex_trylock(&account->mutex) != 0)
    return false;
  bool good = in_use_serial(&account->in_use) == serial && turn_token_is_good(account) &&
              in_use_serial(&account->in_use) == serial;
  pthread_mutex_unlock(&account->mutex);
  return good;
}

bool lucidauth_is_current(const lucidauth_account *account, uint64_t serial)
{
  if (!in_use_is_same(&account->in_use, serial))
    return false;
  return in_use_was_looked_at(&account->in_use) || look_again((struct lucidauth_account *)(uintptr_t)account, serial);
}

/* With the mutex held. Other processes use that token, too: the sooner there is another one, the better. */
static bool reject_token(struct lucidauth_account *account, const char *token)
{
  (void)turn_settle_in_child(account, NULL);
  bool in_use = turn_reject(account, token);
  if (in_use && account->job && !turn_is_taken(account))
    (void)worker_begin(account, FLOW_TOKEN);
  return in_use;
}

/* Of an account that the storage does not know a rejection need not be kept. */
void account_reject(struct lucidauth_account *account, const char *token)
{
  if (account->settings.account && !account->job && !turn_has_ended(account))
    account_look(account);
  pthread_mutex_lock(&account->mutex);
  bool in_use = reject_token(account, token);
  pthread_mutex_unlock(&account->mutex);
  if (in_use)
    account_report(account, LUCIDAUTH_EVENT_REJECTED, LUCIDAUTH_OK, "");
}

static void look_here(struct lucidauth_account *account)
{
  if (!account->flight.store || !turn_begin(account, FLOW_LOOK, false, NULL))
    return;
  turn_run(account);
  secret_free(turn_end(account, NULL, NULL));
}

void account_look(struct lucidauth_account *account)
{
  if (!account->job) {
    look_here(account);
    return;
  }
  pthread_mutex_lock(&account->mutex);
  if (turn_look_is_due(account))
    (void)worker_begin(account, FLOW_LOOK);
  pthread_mutex_unlock(&account->mutex);
}

void account_read_now(struct lucidauth_account *account)
{
  if (!turn_begin_to_look(account))
    return;
  turn_run_look(account);
  secret_free(turn_end(account, NULL, NULL));
}
