#include "account.h"

#include "../api/client.h"
#include "../api/error.h"
#include "../api/events.h"
#include "../base/quote.h"
#include "../base/secret.h"
#include "../drivers/background.h"
#include "../drivers/drive.h"
#include "../oauth/token.h"
#include "../record/record.h"
#include "../store/file.h"
#include "../store/memory.h"
#include "../system/clock.h"
#include "exit.h"
#include "in_use.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Seconds between two looks at a storage for the status alone. */
#define LOOK_PAUSE 1.0

static struct store *open_store(const struct options *options, const char *account, struct store_error *error)
{
  switch (options->storage) {
  case LUCIDAUTH_DIRECTORY:
    return store_directory(options->path, options->base, account, error);
  case LUCIDAUTH_MEMORY:
    return store_memory(error);
  default:
    return store_file(options->path, options->base, error);
  }
}

/* What a thread of the parent was in the middle of changing at the fork is not touched, not even to free it. */
static bool has_left_behind(const struct lucidauth_account *account)
{
  return account->forked && account->flying;
}

void account_free(struct lucidauth_account *account)
{
  background_job_free(account->job);
  if (account->craft.store && !has_left_behind(account))
    account->craft.store->ops->close(account->craft.store);
  if (!has_left_behind(account))
    flow_free(account->craft.flow);
  secret_free(account->token);
  for (int i = 0; i < REJECTED; i++)
    secret_free(account->rejected[i]);
  free(account->name);
  pthread_cond_destroy(&account->landed);
  pthread_mutex_destroy(&account->mutex);
  free(account);
}

/* Differs between processes and accounts, which is all that jitter needs. */
static uint64_t account_seed(const struct lucidauth_account *account)
{
  uint64_t mixed = (uint64_t)getpid() * 2654435761u ^ clock_coarse() ^ (uintptr_t)account;
  return mixed ^ mixed >> 29;
}

/* A storage of the program's own announces nothing. */
static const atomic_uint_least64_t no_generation;

static void watch_generation(struct lucidauth_account *account)
{
  atomic_store_explicit(&account->generation, account->craft.store ? account->craft.store->generation : &no_generation,
                        memory_order_relaxed);
}

struct lucidauth_account *account_new(struct lucidauth *client, const char *name, lucidauth_error *error)
{
  struct store_error failure = {.code = CODE_STORAGE, .message = "There is not enough memory for an account."};
  struct lucidauth_account *account = calloc(1, sizeof *account);
  if (account) {
    pthread_mutex_init(&account->mutex, NULL);
    clock_init_condition(&account->landed);
    account->client = client;
    account->name = strdup(name);
    account->settings = client->options.flow;
    if (strcmp(name, "default") != 0) {
      account->settings.account = account->name;
      account->settings.refresh_token = NULL;
    }
    account->craft = (struct craft){.flow = flow_new(&account->settings, account_seed(account)),
                                    .endpoints = &client->options.endpoints,
                                    .holds_signals = client->options.hold_signals,
                                    .owner = &account_owner};
    bool custom = client->options.storage == LUCIDAUTH_CUSTOM;
    account->craft.store = custom ? NULL : open_store(&client->options, name, &failure);
    watch_generation(account);
    bool background = client->options.background && !custom;
    account->job = background ? background_job_new(&account->craft) : NULL;
    account->spread = (double)(account_seed(account) % 1000) / 1000;
    if (account->name && account->craft.flow && (account->craft.store || custom) && (account->job || !background))
      return account;
    account_free(account);
  }
  error_set(error, (lucidauth_code)failure.code, "%s", failure.message);
  return NULL;
}

static bool is_in_the_air(const struct lucidauth_account *account)
{
  return account->flying || account->looked_after || account->flight || account->broken_off;
}

/* With the mutex held. The default account alone is started by the configured refresh token, and remembers it. */
static enum account_worth worth(const struct lucidauth_account *account)
{
  if (is_in_the_air(account) || !account->settings.account || flow_unsaved(account->craft.flow))
    return ACCOUNT_STAYS;
  if (account->landings == 0)
    return account->rejects ? ACCOUNT_STORED : ACCOUNT_EMPTY;
  if (account->craft.empty && !account->token && !account->status.has_token)
    return ACCOUNT_EMPTY;
  bool forgets = account->client->options.storage == LUCIDAUTH_MEMORY;
  return forgets || account->rejects ? ACCOUNT_STAYS : ACCOUNT_STORED;
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

void account_dismiss(struct lucidauth_account *account)
{
  if (account->job)
    background_leave(account->job, &(struct held_signal){.holding = false});
  account_free(account);
}

static void save_what_is_unsaved(struct lucidauth_account *account)
{
  if (!account->craft.store || !account_take_off_to_keep(account))
    return;
  drive_blocking(&account->craft);
  account_land(account, NULL, NULL);
}

void account_hold_signals(struct lucidauth_account *account, struct held_signal *held)
{
  if (!account->craft.holds_signals || !clock_lock(&account->mutex))
    return;
  bool flying = account->flying;
  pthread_mutex_unlock(&account->mutex);
  if (flying)
    held_signals_begin(held);
}

static void leave_background(struct lucidauth_account *account)
{
  struct held_signal held = {.holding = false};
  account_hold_signals(account, &held);
  background_leave(account->job, &held);
  held_signals_pass_on(&held);
}

void account_end(struct lucidauth_account *account)
{
  if (account->job)
    leave_background(account);
  if (account->flight) /* of a coroutine that was thrown away, perhaps */
    lucidauth_free_token(lucidauth_flight_end(account->flight, NULL, NULL));
  save_what_is_unsaved(account);
}

/* Wait for a flight on another thread; true: there is none any more. With the mutex held. */
static bool wait_for_last_landing(struct lucidauth_account *account, struct held_signal *held,
                                  struct patience *patience, double seconds)
{
  bool interrupted = account->flying && pthread_equal(account->pilot, pthread_self());
  while ((account->flying || account->looked_after) && !interrupted) {
    double now = clock_now().steady;
    held_signals_look(held, now);
    patience_look(patience, now, 0);
    if (patience_ends(patience, seconds))
      break;
    clock_wait(&account->landed, &account->mutex, patience_until(patience, seconds));
  }
  return !account->flying && !account->looked_after;
}

static bool settle_flight(struct lucidauth_account *account, struct held_signal *held)
{
  struct patience patience = {0};
  double seconds = 2 * account->settings.timeout;
  if (account->job && !background_leave_within(account->job, held, &patience, seconds))
    return false;
  if (!clock_lock(&account->mutex))
    return false;
  bool landed = account->forked || wait_for_last_landing(account, held, &patience, seconds);
  pthread_mutex_unlock(&account->mutex);
  return landed;
}

void account_settle(struct lucidauth_account *account)
{
  struct held_signal held = {.holding = false};
  if (!account->craft.store)
    return;
  account_hold_signals(account, &held);
  bool landed = settle_flight(account, &held);
  held_signals_pass_on(&held);
  if (landed)
    save_what_is_unsaved(account);
}

/* A flight that another thread of the parent was in stays behind, memory and all, since that thread may have been in
 * the middle of changing it. */
static bool start_anew(struct lucidauth_account *account, lucidauth_error *error)
{
  struct store_error failure = {.code = CODE_STORAGE, .message = "There is not enough memory for an account."};
  struct flow *flow = flow_new(&account->settings, account_seed(account));
  struct store *store = account->craft.store ? open_store(&account->client->options, account->name, &failure) : NULL;
  if (!flow || (account->craft.store && !store)) {
    flow_free(flow);
    if (store)
      store->ops->close(store);
    error_set(error, (lucidauth_code)failure.code, "%s", failure.message);
    return false;
  }
  account->craft.flow = flow;
  account->craft.store = store;
  account->flight = NULL;
  account->flying = false;
  account->landings++;
  account->landed_elsewhere = true;
  watch_generation(account);
  return true;
}

bool account_settle_in_child(struct lucidauth_account *account, lucidauth_error *error)
{
  account->settings.pid = (long)getpid();
  if (has_left_behind(account) && !start_anew(account, error))
    return false;
  flow_disown(account->craft.flow);
  account->forked = account->looked_after = false;
  return true;
}

/* ---- flights ---- */

static void say_it_takes_too_long(const struct lucidauth_account *account, bool wait, struct moment now,
                                  lucidauth_error *error)
{
  error_set(error, wait ? LUCIDAUTH_TIMEOUT : LUCIDAUTH_NOT_READY,
            "A refresh of this account is under way in another %s, and %s until it ends. Nothing is lost; try again "
            "in a moment.",
            wait ? "thread" : "coroutine", in_use_lives(account, now) ? "no other one begins" : "there is no token");
}

/* False: there is an `error`, or LUCIDAUTH_OK in it. */
static bool wait_for_others(struct lucidauth_account *account, bool refresh, bool wait, struct patience *patience,
                            lucidauth_error *error)
{
  double most = account->settings.timeout, enough = account->settings.refresh_wait;
  while ((account->flying || account->looked_after) && !account->forked) {
    struct moment now = clock_now();
    bool served = !refresh && in_use_lives(account, now);
    patience_look(patience, now.steady, 0);
    if (patience_ends(patience, enough))
      account->sat_out = account->landings + 1;
    if (served && (!wait || account->sat_out == account->landings + 1)) {
      error_set(error, LUCIDAUTH_OK, "%s", "");
      return false;
    }
    if (!wait || patience_ends(patience, most)) {
      say_it_takes_too_long(account, wait, now, error);
      return false;
    }
    clock_wait(&account->landed, &account->mutex, patience_until(patience, served ? fmin(enough, most) : most));
  }
  return true;
}

static void tell_rejections(struct lucidauth_account *account)
{
  for (int i = 0; i < REJECTED; i++)
    if (account->rejected[i]) {
      flow_reject(account->craft.flow, account->rejected[i]);
      secret_free(account->rejected[i]);
      account->rejected[i] = NULL;
    }
}

static bool is_rejected(const struct lucidauth_account *account, const char *token)
{
  for (int i = 0; i < REJECTED; i++)
    if (account->rejected[i] && strcmp(account->rejected[i], token) == 0)
      return true;
  return false;
}

/* With the mutex held; the flight has so many seconds. */
static void take_off(struct lucidauth_account *account, enum flow_goal goal, double seconds)
{
  struct moment now = clock_now();
  account->flying = true;
  account->pilot = pthread_self();
  account->took_off = now.steady;
  account->sent = false;
  account->goal = goal;
  if (account_may_spend(goal))
    atomic_store_explicit(&account->good_in, NEVER, memory_order_relaxed);
  tell_rejections(account);
  flow_start(account->craft.flow, goal, now, now.steady + seconds);
}

const char *account_grounded(const struct lucidauth_account *account)
{
  if (atomic_load(&account->client->closing))
    return "This client is being closed, so no refresh begins any more. Nothing was changed.";
  return exit_has_begun() ? exit_watch() : NULL;
}

/* Once the process ends, the storage may still be looked at for a token that lives. */
static bool may_take_off(const struct lucidauth_account *account, enum flow_goal goal, lucidauth_error *error)
{
  const char *problem = account_grounded(account);
  if (!problem || (goal != FLOW_REFRESH && !atomic_load(&account->client->closing)))
    return true;
  error_set(error, LUCIDAUTH_NOT_READY, "%s", problem);
  return false;
}

bool account_suits(const struct lucidauth_account *account, bool refresh, double since)
{
  if (account->goal == FLOW_STORE)
    return false;
  return !refresh || (account->goal == FLOW_REFRESH && account->took_off >= since);
}

/* Many threads may have waited for the same flight: the first one's serves the others as well. */
static bool has_been_refreshed(const struct lucidauth_account *account, double since)
{
  return account->token && account->landed_with.code == LUCIDAUTH_OK && account_suits(account, true, since);
}

bool account_take_off(struct lucidauth_account *account, enum flow_goal goal, bool wait, lucidauth_error *error)
{
  struct moment now = clock_now();
  struct patience patience = {.looked = now.steady};
  pthread_mutex_lock(&account->mutex);
  bool good = goal == FLOW_TOKEN && account->looked_after && in_use_seems_good(account);
  bool mine = !good && wait_for_others(account, goal == FLOW_REFRESH, wait, &patience, error);
  if (mine && account->forked)
    mine = account_settle_in_child(account, error);
  good = good || (mine && goal == FLOW_TOKEN && in_use_still_good(account)) ||
         (mine && goal == FLOW_REFRESH && has_been_refreshed(account, now.steady));
  if (good) {
    error_set(error, LUCIDAUTH_OK, "%s", "");
    mine = false;
  }
  mine = mine && may_take_off(account, goal, error);
  if (mine)
    take_off(account, goal, fmax(0, account->settings.timeout - patience.waited));
  pthread_mutex_unlock(&account->mutex);
  return mine;
}

/* The flow has it now. */
static void hand_over(struct lucidauth_account *account, struct answer *given, bool replaces)
{
  flow_give(account->craft.flow, given, replaces);
  given->fields = NULL;
  account->stores++;
}

bool account_take_off_to_store(struct lucidauth_account *account, struct answer *given, bool replaces, bool wait,
                               lucidauth_error *error)
{
  struct patience patience = {.looked = clock_now().steady};
  pthread_mutex_lock(&account->mutex);
  bool mine = wait_for_others(account, true, wait, &patience, error);
  if (mine && account->forked)
    mine = account_settle_in_child(account, error);
  mine = mine && may_take_off(account, FLOW_REFRESH, error);
  if (mine) {
    take_off(account, FLOW_STORE, fmax(0, account->settings.timeout - patience.waited));
    hand_over(account, given, replaces);
  }
  pthread_mutex_unlock(&account->mutex);
  return mine;
}

void account_give_flight(struct lucidauth_account *account, lucidauth_flight *flight)
{
  pthread_mutex_lock(&account->mutex);
  account->flight = flight;
  pthread_mutex_unlock(&account->mutex);
}

bool account_has_flight(struct lucidauth_account *account, const lucidauth_flight *flight)
{
  pthread_mutex_lock(&account->mutex);
  bool has = !account->forked && account->flight == flight;
  pthread_mutex_unlock(&account->mutex);
  return has;
}

bool account_take_off_to_keep(struct lucidauth_account *account)
{
  pthread_mutex_lock(&account->mutex);
  bool settled = !account->forked || (!has_left_behind(account) && account_settle_in_child(account, NULL));
  bool mine = settled && !account->flying && !account->looked_after && flow_unsaved(account->craft.flow);
  if (mine)
    take_off(account, FLOW_KEEP, account->settings.timeout);
  pthread_mutex_unlock(&account->mutex);
  return mine;
}

static void report(const struct lucidauth_account *account, lucidauth_event_kind kind, lucidauth_code code,
                   const char *message)
{
  lucidauth_event event = {.kind = kind, .account = account->name, .code = code, .message = message};
  if (account->job)
    events_queue(account->client, &event);
  else
    events_give(account->client, &event);
}

/* What the storage found out on the way. */
struct findings {
  bool repaired, exposed;
};

static const char exposed[] =
    "Members of a group may write in the token file's folder, and so replace the file. Nothing "
    "was changed. Run chmod g-w on the folder, unless they are meant to.";

static void report_all(const struct lucidauth_account *account, const struct flow_outcome *outcome,
                       const struct findings *findings)
{
  if (findings->repaired)
    report(account, LUCIDAUTH_EVENT_REPAIRED, LUCIDAUTH_OK, "");
  if (findings->exposed)
    report(account, LUCIDAUTH_EVENT_EXPOSED, LUCIDAUTH_OK, exposed);
  for (int i = 0; i < outcome->note_count; i++) {
    const struct flow_note *note = &outcome->notes[i];
    char message[sizeof note->message];
    quote_escape(message, sizeof message, note->message);
    report(account, (lucidauth_event_kind)note->kind, (lucidauth_code)note->code, message);
  }
}

static void keep_status(struct lucidauth_account *account)
{
  account->status = flow_status(account->craft.flow);
  account->shared = account->craft.store && account->craft.store->shared;
  error_set(&account->last_error, (lucidauth_code)account->status.last_code, "%s", account->status.last_error);
  account->status.last_error = NULL;
}

static void publish(struct lucidauth_account *account, const struct flow_outcome *outcome)
{
  if (account->goal == FLOW_KEEP || (account->goal == FLOW_STORE && outcome->code != CODE_OK))
    return;
  if (account->goal == FLOW_LOOK) {
    /* what was looked at will not show as a change any more */
    if (account->token && !flow_uses(account->craft.flow, account->token))
      in_use_withdraw(account);
    return;
  }
  if (outcome->token && !is_rejected(account, outcome->token)) {
    in_use_put(account, outcome);
    account->rejects = false;
  } else {
    in_use_withdraw(account);
  }
}

void account_show(struct lucidauth_account *account)
{
  const char *token = flow_token(account->craft.flow);
  struct flow_status known = flow_status(account->craft.flow);
  pthread_mutex_lock(&account->mutex);
  if (token && !is_rejected(account, token) && !moment_has_come(known.dead_at, clock_now())) {
    if (!in_use_is(account, token))
      in_use_replace(account, token);
    atomic_store_explicit(&account->good_in, NEVER, memory_order_relaxed);
    account->refresh_at = known.refresh_at;
    account->dead_at = known.dead_at;
  }
  pthread_mutex_unlock(&account->mutex);
}

void account_note_sent(struct lucidauth_account *account)
{
  pthread_mutex_lock(&account->mutex);
  account->sent = true;
  pthread_mutex_unlock(&account->mutex);
}

bool account_has_sent(struct lucidauth_account *account)
{
  pthread_mutex_lock(&account->mutex);
  bool sent = account->flying && account->sent;
  pthread_mutex_unlock(&account->mutex);
  return sent;
}

static struct findings take_findings(struct lucidauth_account *account)
{
  struct store *store = account->craft.store;
  struct findings findings = {store && store->repaired, store && store->exposed};
  if (store)
    store->repaired = store->exposed = false;
  if (findings.repaired)
    history_add(&account->history, LUCIDAUTH_EVENT_REPAIRED, LUCIDAUTH_OK);
  if (findings.exposed)
    history_add(&account->history, LUCIDAUTH_EVENT_EXPOSED, LUCIDAUTH_OK);
  return findings;
}

char *account_land(struct lucidauth_account *account, uint64_t *serial, lucidauth_error *error)
{
  pthread_mutex_lock(&account->mutex);
  struct flow_outcome outcome = *flow_outcome(account->craft.flow);
  struct findings findings = take_findings(account);
  bool good = outcome.token && !is_rejected(account, outcome.token);
  char *token = good ? secret_copy(outcome.token) : NULL;
  publish(account, &outcome);
  if (serial)
    *serial = atomic_load_explicit(&account->serial, memory_order_relaxed);
  keep_status(account);
  history_add_flight(&account->history, &outcome);
  bool stores = account->goal == FLOW_STORE;
  error_set(stores ? &account->stored_with : &account->landed_with, (lucidauth_code)outcome.code, "%s",
            outcome.message);
  if (stores)
    account->stored = account->stores;
  account->landings++;
  account->landed_elsewhere = false;
  if (account->job)
    report_all(account, &outcome, &findings); /* queued, before anybody learns that the flight has landed */
  account->flying = false;
  pthread_cond_broadcast(&account->landed);
  pthread_mutex_unlock(&account->mutex);
  error_set(error, (lucidauth_code)outcome.code, "%s", outcome.message);
  if (!account->job)
    report_all(account, &outcome, &findings);
  secret_forget();
  return token;
}

char *account_token(struct lucidauth_account *account, uint64_t *serial)
{
  pthread_mutex_lock(&account->mutex);
  if (serial)
    *serial = atomic_load_explicit(&account->serial, memory_order_relaxed);
  char *token = secret_copy(account->token);
  pthread_mutex_unlock(&account->mutex);
  return token;
}

/* With the mutex held: the flow is somebody else's while it flies, and is told later. The first place is the
 * token's that was in use, so that no other pushes it out. */
static void keep_rejection(struct lucidauth_account *account, const char *token, bool in_use)
{
  char **place = &account->rejected[in_use ? 0 : 1 + account->rejections++ % (REJECTED - 1)];
  secret_free(*place);
  *place = secret_copy(token);
}

bool account_take_off_in_background(struct lucidauth_account *account, enum flow_goal goal)
{
  if (account_grounded(account) || !background_watch(account->job))
    return false;
  take_off(account, goal, account->settings.timeout);
  background_submit(account->job);
  return true;
}

bool account_take_off_to_store_in_background(struct lucidauth_account *account, struct answer *given, bool replaces)
{
  if (account_grounded(account) || !background_watch(account->job))
    return false;
  take_off(account, FLOW_STORE, account->settings.timeout);
  hand_over(account, given, replaces);
  background_submit(account->job);
  return true;
}

bool account_has_landed(struct lucidauth_account *account)
{
  pthread_mutex_lock(&account->mutex);
  bool landed = account->landings > 0;
  pthread_mutex_unlock(&account->mutex);
  return landed;
}

void account_reject(struct lucidauth_account *account, const char *token)
{
  pthread_mutex_lock(&account->mutex);
  if (account->forked)
    (void)account_settle_in_child(account, NULL);
  bool in_use = in_use_is(account, token);
  account->rejects = true;
  if (!account->flying) {
    flow_reject(account->craft.flow, token);
    account->status.has_token = flow_status(account->craft.flow).has_token;
  } else if (!is_rejected(account, token)) {
    keep_rejection(account, token, in_use);
  }
  bool known_here = in_use || !account->token;
  if (in_use) {
    in_use_withdraw(account);
    history_add(&account->history, LUCIDAUTH_EVENT_REJECTED, LUCIDAUTH_OK);
  }
  if (known_here && account->craft.store && account->craft.store->ops->reject)
    account->craft.store->ops->reject(account->craft.store, token_fingerprint(token));
  /* other processes use that token, too: the sooner there is another one, the better */
  if (in_use && account->job && !account->flying)
    (void)account_take_off_in_background(account, FLOW_TOKEN);
  pthread_mutex_unlock(&account->mutex);
  if (in_use)
    report(account, LUCIDAUTH_EVENT_REJECTED, LUCIDAUTH_OK, "");
}

/* ---- in the background ---- */

void account_wait(struct lucidauth_account *account, double seconds)
{
  double until = clock_now().steady + seconds;
  pthread_mutex_lock(&account->mutex);
  if (account->flying)
    clock_wait(&account->landed, &account->mutex, until);
  pthread_mutex_unlock(&account->mutex);
}

bool account_is_due(struct lucidauth_account *account)
{
  struct moment now = clock_now();
  pthread_mutex_lock(&account->mutex);
  bool idle = !account->flying && !account->forked && account->token;
  bool due = idle && !account_grounded(account) &&
             (moment_has_come(account->refresh_at, now) || in_use_was_announced(account));
  bool ask = idle && !due && !account_grounded(account);
  due = (due || (ask && in_use_rewritten(account))) && !account->flying;
  if (due)
    take_off(account, FLOW_TOKEN, account->settings.timeout);
  pthread_mutex_unlock(&account->mutex);
  return due;
}

/* With the mutex held: nobody looks after the storage, there is no token in use, and the last look was a while ago. */
static bool is_worth_a_look(struct lucidauth_account *account)
{
  double now = clock_now().steady;
  bool settled = !account->forked || account_settle_in_child(account, NULL);
  bool late = account->looked_at == 0 || now - account->looked_at >= LOOK_PAUSE;
  if (!settled || !late || account->flying || account->token)
    return false;
  account->looked_at = now;
  return true;
}

void account_look(struct lucidauth_account *account)
{
  pthread_mutex_lock(&account->mutex);
  if (is_worth_a_look(account))
    (void)account_take_off_in_background(account, FLOW_LOOK);
  pthread_mutex_unlock(&account->mutex);
}

/* Whether somebody may be about to spend the record's refresh token, or has. */
static bool is_marked(const struct lucidauth_account *account, const char *text)
{
  struct pending mark;
  struct record record = {0};
  bool marked = text && record_read(&record, text, &account->settings.world) &&
                record_pending(&record, &account->settings.world, &mark);
  record_free(&record);
  return marked;
}

/* A record that is being written is not waited for. True: what was found may be used. */
static bool look_without_a_pause(struct lucidauth_account *account)
{
  bool marked = false;
  struct craft *craft = &account->craft;
  struct flow_event start = {.now = clock_now()};
  struct flow_action action = flow_next(craft->flow, &start);
  while (action.step != FLOW_DONE && action.step != FLOW_WAIT) {
    struct came_of came = {.event = {.result = FLOW_OK}};
    drive_step(craft, &action, &came);
    marked = is_marked(account, came.record);
    came.event.now = clock_now();
    action = flow_next(craft->flow, &came.event);
    drive_clean_up(&came);
  }
  if (action.step == FLOW_WAIT)
    flow_abandon(craft->flow, false);
  return action.step == FLOW_DONE && !marked;
}

void account_glance(struct lucidauth_account *account)
{
  pthread_mutex_lock(&account->mutex);
  bool mine = !account_grounded(account) && is_worth_a_look(account);
  if (mine)
    take_off(account, FLOW_LOOK, account->settings.timeout);
  pthread_mutex_unlock(&account->mutex);
  if (!mine)
    return;
  if (look_without_a_pause(account))
    account_show(account);
  account_land(account, NULL, NULL);
}
