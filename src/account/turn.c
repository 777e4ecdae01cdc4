#include "turn.h"

#include "../base/quote.h"
#include "../base/secret.h"
#include "../oauth/token.h"
#include "../store/file.h"
#include "../store/memory.h"
#include "../system/exit.h"
#include "parts.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

/* Seconds that a flight has to come to its end once its deadline has passed. */
#define TIME_TO_END 0.1

/* ---- flow and store ---- */

static struct store *open_store(const struct account_settings *settings, const char *account, struct store_error *error)
{
  switch (settings->storage) {
  case LUCIDAUTH_DIRECTORY:
    return store_directory(settings->path, settings->base, account, error);
  case LUCIDAUTH_MEMORY:
    return store_memory(error);
  default:
    return store_file(settings->path, settings->base, error);
  }
}

/* Puts them in place only if both are to be had. */
static bool open_both(struct lucidauth_account *account, lucidauth_error *error)
{
  struct store_error failure = {.code = CODE_STORAGE, .message = "There is not enough memory for an account."};
  const struct account_settings *settings = &account->client->settings;
  bool custom = settings->storage == LUCIDAUTH_CUSTOM;
  struct flow *flow = flow_new(&account->settings, account_seed(account));
  struct store *store = custom ? NULL : open_store(settings, account->name, &failure);
  if (!flow || !(store || custom)) {
    flow_free(flow);
    if (store)
      store->ops->close(store);
    error_set(error, (lucidauth_code)failure.code, "%s", failure.message);
    return false;
  }
  account->flight.flow = flow;
  account->flight.store = store;
  return true;
}

bool turn_init(struct lucidauth_account *account, lucidauth_error *error)
{
  clock_init_condition(&account->turn.over);
  return open_both(account, error);
}

/* A thread of the parent may have been in the middle of changing flow and store at the fork: then they are not touched,
 * not even to free them. */
static bool has_left_behind(const struct lucidauth_account *account)
{
  return account->turn.forked && account->turn.taken;
}

void turn_free(struct lucidauth_account *account)
{
  struct turn *turn = &account->turn;
  if (account->flight.store && !has_left_behind(account))
    account->flight.store->ops->close(account->flight.store);
  if (!has_left_behind(account))
    flow_free(account->flight.flow);
  for (int i = 0; i < TURN_REJECTED; i++)
    secret_free(turn->rejected[i]);
  logins_free(&turn->logins);
  pthread_cond_destroy(&turn->over);
}

/* ---- fork() ---- */

/* The parent's waiting threads are not here, and pthread_cond_destroy would wait for them: so the condition starts
 * anew. */
void turn_forked(struct lucidauth_account *account)
{
  if (account->flight.store)
    account->flight.store->ops->forked(account->flight.store);
  clock_init_condition(&account->turn.over);
  account->turn.forked = true;
}

/* A flight that another thread of the parent was in stays behind, memory and all, since that thread may have been in
 * the middle of changing it. */
static bool start_anew(struct lucidauth_account *account, lucidauth_error *error)
{
  struct turn *turn = &account->turn;
  if (!open_both(account, error))
    return false;
  turn->own = NULL;
  turn->taken = false;
  turn->ended++;
  turn->left_in_parent = true;
  logins_forget_unfinished(&turn->logins);
  in_use_watch(&account->in_use, account->flight.store ? account->flight.store->generation : NULL);
  return true;
}

bool turn_settle_in_child(struct lucidauth_account *account, lucidauth_error *error)
{
  if (!account->turn.forked)
    return true;
  account->settings.pid = (long)getpid();
  if (has_left_behind(account) && !start_anew(account, error))
    return false;
  flow_disown(account->flight.flow);
  account->turn.forked = account->turn.asking = false;
  return true;
}

/* ---- whose turn it is; with the mutex held ---- */

bool turn_is_taken(const struct lucidauth_account *account)
{
  return account->turn.taken;
}

bool turn_is_busy(const struct lucidauth_account *account)
{
  return (account->turn.taken || account->turn.asking) && !account->turn.forked;
}

bool turn_is_idle(const struct lucidauth_account *account)
{
  const struct turn *turn = &account->turn;
  return !turn->taken && !turn->asking && !turn->own && !turn->broken_off && !flow_unsaved(account->flight.flow);
}

uint64_t turn_number(const struct lucidauth_account *account)
{
  return account->turn.ended + 1;
}

bool turn_is_over(const struct lucidauth_account *account, uint64_t number)
{
  return account->turn.ended >= number;
}

/* The flight was the parent's of a fork, or its token was rejected before anybody came to see it. */
bool turn_was_in_vain(const struct lucidauth_account *account)
{
  bool rejected = account->turn.outcome.code == LUCIDAUTH_OK && !in_use_exists(&account->in_use);
  return rejected || account->turn.left_in_parent;
}

const lucidauth_error *turn_outcome(const struct lucidauth_account *account)
{
  return &account->turn.outcome;
}

/* An answer whose refresh was sent has the time that the flow gives it; a flight that comes to its own end at the
 * deadline says more than a timeout. */
double turn_longest_wait(const struct lucidauth_account *account)
{
  bool sent = account->turn.taken && account->turn.sent;
  return account->settings.timeout * (sent ? 2 : 1) + TIME_TO_END;
}

static bool goal_may_spend(enum flow_goal goal)
{
  return goal == FLOW_TOKEN || goal == FLOW_REFRESH;
}

static bool was_waited_for(const struct lucidauth_account *account)
{
  return account->turn.waited_for == turn_number(account);
}

void turn_stop_waiting(struct lucidauth_account *account)
{
  account->turn.waited_for = turn_number(account);
}

bool turn_may_change_token(const struct lucidauth_account *account)
{
  return account->turn.taken && goal_may_spend(account->turn.goal) && !was_waited_for(account);
}

bool turn_suits(const struct lucidauth_account *account, bool refresh, double since)
{
  if (account->turn.goal == FLOW_STORE)
    return false;
  return !refresh || (account->turn.goal == FLOW_REFRESH && account->turn.began >= since);
}

struct login *turn_logins(const struct lucidauth_account *account)
{
  return account->turn.logins;
}

/* ---- whether the token in use is good; with the mutex held ---- */

static bool seems_good(const struct lucidauth_account *account)
{
  return in_use_exists(&account->in_use) && !account->turn.taken && !account->turn.forked &&
         !in_use_is_due(&account->in_use);
}

/* Whether another program has rewritten the record. The mutex is given back while the disk is asked; the storage is
 * this thread's as long as that takes. */
static bool was_rewritten(struct lucidauth_account *account)
{
  account->turn.asking = true;
  pthread_mutex_unlock(&account->mutex);
  bool changed = account->flight.store->ops->changed(account->flight.store);
  pthread_mutex_lock(&account->mutex);
  account->turn.asking = false;
  pthread_cond_broadcast(&account->turn.over);
  return changed;
}

bool turn_token_is_good(struct lucidauth_account *account)
{
  if (!seems_good(account))
    return false;
  int64_t second = clock_second();
  bool asks = account->flight.store && !account->job && !account->turn.asking &&
              !in_use_asked_storage(&account->in_use, second);
  if (asks && (was_rewritten(account) || !seems_good(account)))
    return false;
  if (asks)
    in_use_has_asked_storage(&account->in_use, second);
  if (asks || !account->turn.asking)
    in_use_looked_at(&account->in_use);
  return true;
}

/* ---- beginning a flight ---- */

static void tell_rejections(struct lucidauth_account *account)
{
  for (int i = 0; i < TURN_REJECTED; i++)
    if (account->turn.rejected[i]) {
      flow_reject(account->flight.flow, account->turn.rejected[i]);
      secret_free(account->turn.rejected[i]);
      account->turn.rejected[i] = NULL;
    }
}

static bool was_rejected_meanwhile(const struct lucidauth_account *account, const char *token)
{
  for (int i = 0; i < TURN_REJECTED; i++)
    if (account->turn.rejected[i] && strcmp(account->turn.rejected[i], token) == 0)
      return true;
  return false;
}

/* The flight has so many seconds. */
static void start_within(struct lucidauth_account *account, enum flow_goal goal, double seconds)
{
  struct turn *turn = &account->turn;
  struct moment now = clock_now();
  turn->taken = true;
  turn->thread = pthread_self();
  turn->began = now.steady;
  turn->sent = false;
  turn->goal = goal;
  if (goal_may_spend(goal))
    in_use_look_always(&account->in_use);
  tell_rejections(account);
  flow_start(account->flight.flow, goal, now, now.steady + seconds);
}

static void start_to_store(struct lucidauth_account *account, struct answer *given, bool replaces, double seconds)
{
  start_within(account, FLOW_STORE, seconds);
  flow_give(account->flight.flow, given, replaces);
  given->fields = NULL; /* they are the flow's now */
}

void turn_start(struct lucidauth_account *account, enum flow_goal goal)
{
  start_within(account, goal, account->settings.timeout);
}

struct login *turn_start_to_store(struct lucidauth_account *account, struct answer *given, const struct login_key *key)
{
  struct login *login = logins_add(&account->turn.logins, key);
  if (login)
    start_to_store(account, given, key->replaces, account->settings.timeout);
  return login;
}

const char *turn_refusal(const struct lucidauth_account *account)
{
  if (atomic_load(&account->client->closing))
    return "This client is being closed, so no refresh begins any more. Nothing was changed.";
  return exit_has_begun() ? exit_watch() : NULL;
}

/* Once the process ends, the storage may still be looked at for a token that lives. */
static bool may_begin(const struct lucidauth_account *account, enum flow_goal goal, lucidauth_error *error)
{
  const char *problem = turn_refusal(account);
  if (!problem || (goal != FLOW_REFRESH && !atomic_load(&account->client->closing)))
    return true;
  error_set(error, LUCIDAUTH_NOT_READY, "%s", problem);
  return false;
}

static void say_it_takes_too_long(const struct lucidauth_account *account, bool wait, struct moment now,
                                  lucidauth_error *error)
{
  error_set(error, wait ? LUCIDAUTH_TIMEOUT : LUCIDAUTH_NOT_READY,
            "A refresh of this account is under way in another %s, and %s until it ends. Nothing is lost; try again "
            "in a moment.",
            wait ? "thread" : "coroutine",
            in_use_lives(&account->in_use, now) ? "no other one begins" : "there is no token");
}

/* False: there is an `error`, or LUCIDAUTH_OK in it. */
static bool wait_for_others(struct lucidauth_account *account, bool refresh, bool wait, struct patience *patience,
                            lucidauth_error *error)
{
  double most = account->settings.timeout, enough = account->settings.refresh_wait;
  while (turn_is_busy(account)) {
    struct moment now = clock_now();
    bool served = !refresh && in_use_lives(&account->in_use, now);
    patience_look(patience, now.steady, 0);
    if (patience_ends(patience, enough))
      turn_stop_waiting(account);
    if (served && (!wait || was_waited_for(account))) {
      error_clear(error);
      return false;
    }
    if (!wait || patience_ends(patience, most)) {
      say_it_takes_too_long(account, wait, now, error);
      return false;
    }
    clock_wait(&account->turn.over, &account->mutex, patience_until(patience, served ? fmin(enough, most) : most));
  }
  return true;
}

/* Many threads may have waited for the same flight: the first one's serves the others as well. */
static bool has_been_refreshed(const struct lucidauth_account *account, double since)
{
  return in_use_exists(&account->in_use) && account->turn.outcome.code == LUCIDAUTH_OK &&
         turn_suits(account, true, since);
}

bool turn_begin(struct lucidauth_account *account, enum flow_goal goal, bool wait, lucidauth_error *error)
{
  struct moment now = clock_now();
  struct patience patience = {.looked = now.steady};
  pthread_mutex_lock(&account->mutex);
  bool good = goal == FLOW_TOKEN && account->turn.asking && seems_good(account);
  bool mine = !good && wait_for_others(account, goal == FLOW_REFRESH, wait, &patience, error) &&
              turn_settle_in_child(account, error);
  good = good || (mine && goal == FLOW_TOKEN && turn_token_is_good(account)) ||
         (mine && goal == FLOW_REFRESH && has_been_refreshed(account, now.steady));
  if (good) {
    error_clear(error);
    mine = false;
  }
  mine = mine && may_begin(account, goal, error);
  if (mine)
    start_within(account, goal, fmax(0, account->settings.timeout - patience.waited));
  pthread_mutex_unlock(&account->mutex);
  return mine;
}

static void say_it_has_to_wait(bool wait, lucidauth_error *error)
{
  error_set(
      error, wait ? LUCIDAUTH_TIMEOUT : LUCIDAUTH_NOT_READY,
      "Another %s refreshes or stores this account's tokens, so the login's answer is not stored yet. Nothing was "
      "changed; store the same answer again in a moment.",
      wait ? "thread" : "coroutine");
}

bool turn_begin_to_store(struct lucidauth_account *account, struct answer *given, bool replaces, bool wait,
                         lucidauth_error *error)
{
  struct patience patience = {.looked = clock_now().steady};
  pthread_mutex_lock(&account->mutex);
  bool free = wait_for_others(account, true, wait, &patience, error);
  if (!free)
    say_it_has_to_wait(wait, error);
  bool mine = free && turn_settle_in_child(account, error) && may_begin(account, FLOW_REFRESH, error);
  if (mine)
    start_to_store(account, given, replaces, fmax(0, account->settings.timeout - patience.waited));
  pthread_mutex_unlock(&account->mutex);
  return mine;
}

bool turn_begin_to_save(struct lucidauth_account *account)
{
  pthread_mutex_lock(&account->mutex);
  bool mine = !has_left_behind(account) && turn_settle_in_child(account, NULL) && !turn_is_busy(account) &&
              flow_unsaved(account->flight.flow);
  if (mine)
    turn_start(account, FLOW_KEEP);
  pthread_mutex_unlock(&account->mutex);
  return mine;
}

bool turn_begin_if_due(struct lucidauth_account *account)
{
  pthread_mutex_lock(&account->mutex);
  bool idle =
      !account->turn.taken && !account->turn.forked && in_use_exists(&account->in_use) && !turn_refusal(account);
  bool due = idle && (in_use_is_due(&account->in_use) || was_rewritten(account)) && !account->turn.taken;
  if (due)
    turn_start(account, FLOW_TOKEN);
  pthread_mutex_unlock(&account->mutex);
  return due;
}

bool turn_look_is_due(struct lucidauth_account *account)
{
  return turn_settle_in_child(account, NULL) && !account->turn.taken && !in_use_exists(&account->in_use) &&
         status_look_is_due(&account->status);
}

bool turn_begin_to_look(struct lucidauth_account *account)
{
  pthread_mutex_lock(&account->mutex);
  bool mine = !turn_refusal(account) && turn_look_is_due(account);
  if (mine)
    turn_start(account, FLOW_LOOK);
  pthread_mutex_unlock(&account->mutex);
  return mine;
}

/* ---- during a flight ---- */

void turn_show(struct lucidauth_account *account)
{
  const char *token = flow_token(account->flight.flow);
  struct flow_status known = flow_status(account->flight.flow);
  pthread_mutex_lock(&account->mutex);
  if (token && !was_rejected_meanwhile(account, token) && !moment_has_come(known.dead_at, clock_now()))
    in_use_show(&account->in_use, token, known.refresh_at, known.dead_at);
  pthread_mutex_unlock(&account->mutex);
}

void turn_run(struct lucidauth_account *account)
{
  struct flight_run run;
  flight_run_begin(&run, &account->flight);
  while (run.action.step != FLOW_DONE) {
    if (run.action.step == FLOW_LOCK)
      turn_show(account);
    flight_run_next(&run);
  }
  flight_run_end(&run);
}

void turn_run_look(struct lucidauth_account *account)
{
  if (flight_look(&account->flight, &account->settings.world))
    turn_show(account);
}

void turn_note_sent(struct lucidauth_account *account)
{
  pthread_mutex_lock(&account->mutex);
  account->turn.sent = true;
  pthread_mutex_unlock(&account->mutex);
}

bool turn_has_sent(struct lucidauth_account *account)
{
  pthread_mutex_lock(&account->mutex);
  bool sent = account->turn.taken && account->turn.sent;
  pthread_mutex_unlock(&account->mutex);
  return sent;
}

void turn_give(struct lucidauth_account *account, lucidauth_flight *own)
{
  pthread_mutex_lock(&account->mutex);
  account->turn.own = own;
  pthread_mutex_unlock(&account->mutex);
}

bool turn_is_given(struct lucidauth_account *account, const lucidauth_flight *own)
{
  pthread_mutex_lock(&account->mutex);
  bool given = !account->turn.forked && account->turn.own == own;
  pthread_mutex_unlock(&account->mutex);
  return given;
}

bool turn_take_back(struct lucidauth_account *account, bool early)
{
  pthread_mutex_lock(&account->mutex);
  account->turn.own = NULL;
  account->turn.broken_off = early;
  if (early)
    flow_abandon(account->flight.flow, false);
  bool wants_token = account->turn.goal != FLOW_KEEP && account->turn.goal != FLOW_STORE;
  pthread_mutex_unlock(&account->mutex);
  return wants_token;
}

lucidauth_flight *turn_given(const struct lucidauth_account *account)
{
  return account->turn.own;
}

/* ---- the end of a flight ---- */

/* Faults that the storage found on the way. */
struct findings {
  bool repaired, exposed;
};

static struct findings take_findings(struct lucidauth_account *account)
{
  struct store *store = account->flight.store;
  struct findings findings = {store && store->repaired, store && store->exposed};
  if (store)
    store->repaired = store->exposed = false;
  if (findings.repaired)
    status_add(&account->status, LUCIDAUTH_EVENT_REPAIRED, LUCIDAUTH_OK);
  if (findings.exposed)
    status_add(&account->status, LUCIDAUTH_EVENT_EXPOSED, LUCIDAUTH_OK);
  return findings;
}

static const char exposed[] =
    "Members of a group may write in the token file's folder, and so replace the file. Nothing "
    "was changed. Run chmod g-w on the folder, unless they are meant to.";

static void report_all(const struct lucidauth_account *account, const struct flow_outcome *outcome,
                       const struct findings *findings)
{
  if (findings->repaired)
    account_report(account, LUCIDAUTH_EVENT_REPAIRED, LUCIDAUTH_OK, "");
  if (findings->exposed)
    account_report(account, LUCIDAUTH_EVENT_EXPOSED, LUCIDAUTH_OK, exposed);
  for (int i = 0; i < outcome->note_count; i++) {
    const struct flow_note *note = &outcome->notes[i];
    char message[sizeof note->message];
    quote_escape(message, sizeof message, note->message);
    account_report(account, (lucidauth_event_kind)note->kind, (lucidauth_code)note->code, message);
  }
}

/* A new serial sends callers the long way round once, where they meet the events of the background. */
static void publish_token(struct lucidauth_account *account, const struct flow_outcome *outcome)
{
  struct token_in_use *in_use = &account->in_use;
  enum flow_goal goal = account->turn.goal;
  if (goal == FLOW_KEEP || (goal == FLOW_STORE && outcome->code != CODE_OK))
    return;
  if (goal == FLOW_LOOK) {
    /* a change that was looked at will not show as one any more */
    if (in_use_exists(in_use) && !flow_uses(account->flight.flow, in_use_token(in_use)))
      in_use_withdraw(in_use);
    return;
  }
  if (outcome->token && !was_rejected_meanwhile(account, outcome->token)) {
    in_use_put(in_use, outcome, account->flight.seen, account->job && outcome->note_count > 0);
    account->turn.rejects = false;
  } else {
    in_use_withdraw(in_use);
  }
}

static void keep_outcome(struct turn *turn, const struct flow_outcome *outcome)
{
  lucidauth_error came_to = LUCIDAUTH_ERROR_INIT;
  error_set(&came_to, (lucidauth_code)outcome->code, "%s", outcome->message);
  if (turn->goal == FLOW_STORE)
    logins_end(turn->logins, clock_now().steady, &came_to);
  else
    turn->outcome = came_to;
  turn->ended++;
  turn->left_in_parent = false;
}

char *turn_end(struct lucidauth_account *account, uint64_t *serial, lucidauth_error *error)
{
  pthread_mutex_lock(&account->mutex);
  struct flow_outcome outcome;
  flow_copy_outcome(&outcome, flow_outcome(account->flight.flow));
  struct findings findings = take_findings(account);
  bool good = outcome.token && !was_rejected_meanwhile(account, outcome.token);
  char *token = good ? secret_copy(outcome.token) : NULL;
  publish_token(account, &outcome);
  if (serial)
    *serial = in_use_serial(&account->in_use);
  status_keep(&account->status, account->flight.flow, account->flight.store);
  keep_outcome(&account->turn, &outcome);
  if (account->job)
    report_all(account, &outcome, &findings); /* queued, before anybody learns that the flight has ended */
  account->turn.taken = false;
  pthread_cond_broadcast(&account->turn.over);
  pthread_mutex_unlock(&account->mutex);
  error_set(error, (lucidauth_code)outcome.code, "%s", outcome.message);
  if (!account->job)
    report_all(account, &outcome, &findings);
  secret_forget();
  return token;
}

/* ---- everything else ---- */

char *turn_token(struct lucidauth_account *account, uint64_t *serial)
{
  pthread_mutex_lock(&account->mutex);
  char *token = in_use_copy(&account->in_use, serial);
  pthread_mutex_unlock(&account->mutex);
  return token;
}

/* The first place is the token's that was in use, so that no other pushes it out. */
static void keep_rejection(struct turn *turn, const char *token, bool in_use)
{
  char **place = &turn->rejected[in_use ? 0 : 1 + turn->rejections++ % (TURN_REJECTED - 1)];
  secret_free(*place);
  *place = secret_copy(token);
}

static void tell_flow(struct lucidauth_account *account, const char *token, bool in_use)
{
  if (!account->turn.taken) {
    flow_reject(account->flight.flow, token);
    status_keep_rejection(&account->status, account->flight.flow);
  } else if (!was_rejected_meanwhile(account, token)) {
    keep_rejection(&account->turn, token, in_use);
  }
}

bool turn_reject(struct lucidauth_account *account, const char *token)
{
  const struct store *store = account->flight.store;
  bool in_use = in_use_is(&account->in_use, token), known_here = in_use || !in_use_exists(&account->in_use);
  account->turn.rejects = true;
  tell_flow(account, token, in_use);
  if (in_use) {
    in_use_withdraw(&account->in_use);
    status_add(&account->status, LUCIDAUTH_EVENT_REJECTED, LUCIDAUTH_OK);
  }
  if (known_here && store && store->ops->reject)
    store->ops->reject(account->flight.store, token_fingerprint(token));
  return in_use;
}

bool turn_has_rejected(const struct lucidauth_account *account)
{
  return account->turn.rejects;
}

bool turn_has_ended(struct lucidauth_account *account)
{
  pthread_mutex_lock(&account->mutex);
  bool ended = account->turn.ended > 0;
  pthread_mutex_unlock(&account->mutex);
  return ended;
}

void turn_wait(struct lucidauth_account *account, double seconds)
{
  double until = clock_now().steady + seconds;
  pthread_mutex_lock(&account->mutex);
  if (account->turn.taken)
    clock_wait(&account->turn.over, &account->mutex, until);
  pthread_mutex_unlock(&account->mutex);
}

void turn_hold_signals(struct lucidauth_account *account, struct held_signal *held)
{
  if (!account->flight.holds_signals || !clock_lock(&account->mutex))
    return;
  bool taken = account->turn.taken;
  pthread_mutex_unlock(&account->mutex);
  if (taken)
    held_signals_begin(held);
}

bool turn_wait_for_last(struct lucidauth_account *account, struct held_signal *held, struct patience *patience,
                        double seconds)
{
  if (!clock_lock(&account->mutex))
    return false;
  const struct turn *turn = &account->turn;
  bool interrupted = turn->taken && pthread_equal(turn->thread, pthread_self());
  while (turn_is_busy(account) && !interrupted) {
    double now = clock_now().steady;
    held_signals_look(held, now);
    patience_look(patience, now, 0);
    if (patience_ends(patience, seconds))
      break;
    clock_wait(&account->turn.over, &account->mutex, patience_until(patience, seconds));
  }
  bool ended = !turn_is_busy(account);
  pthread_mutex_unlock(&account->mutex);
  return ended;
}
