#include "invariants.h"

#include "../oauth/token.h"
#include "server.h"
#include "storage.h"

#include <math.h>
#include <string.h>

/* Steps of one flight, and how long it may take beyond its deadline and one POST, in seconds. */
#define STEPS_MOST 10000
#define EXTRA 7.0

/* A request that was sent just before its process died may be on its way for so long. */
#define SETTLE_TIME 1.0

/* Requests of a flight that may spend a refresh token. */
enum { SPENDS_MOST = 6 };

static const char *name(struct token token)
{
  static _Thread_local char text[4][TOKEN_TEXT];
  static _Thread_local int turn;
  char *out = text[turn++ % 4];
  token_write(out, token);
  return *out ? out : "none";
}

static struct token successor_of(struct token token)
{
  token.serial++;
  return token;
}

static int number(const struct simulation *sim, const struct worker *worker)
{
  return (int)(worker - sim->workers);
}

static bool is_rejected(const struct worker *worker, struct token token)
{
  for (int i = 0; i < REJECTIONS; i++)
    if (token_same(worker->known.rejected[i], token))
      return true;
  return false;
}

/* A record that a script wrote does not say what its grant was started from: once the grant is dead the
 * configured refresh token is tried, even if it is the script's own and long spent. */
static bool is_restart(const struct simulation *sim, struct token token)
{
  return (sim->conditions.script || sim->conditions.from_script) && token.serial == 0;
}

/* ---- what is sent ---- */

static void check_back_off(struct simulation *sim, struct worker *worker, struct token token)
{
  double now = simulation_moment(sim, worker).steady;
  bool first = !worker->known.posted_any;
  worker->known.posted_any = true;
  worker->known.posted = token;
  if (worker->goal == FLOW_LOOK || worker->goal == FLOW_KEEP)
    simulation_violate(sim, worker, worker->account, "a flight that only looks or saves sends %s", name(token));
  if (first && worker->goal == FLOW_TOKEN && now < worker->known.retry_at && token_same(token, worker->known.retry_of))
    simulation_violate(sim, worker, worker->account,
                       "%s is sent %.3f s before the back-off step of its last failure is over", name(token),
                       worker->known.retry_at - now);
}

/* A lock that was removed keeps nobody out; then the time that the mark gives does, unless a script that knows neither
 * has written over it. Clocks that jump, or are not those of the mark's machine, may mislead. */
static bool may_take_over(const struct simulation *sim, const struct account *account)
{
  bool sure = sim->clocks_jumped < account->flight_since && !sim->apart && !sim->conditions.script;
  bool removed = sim->workers[account->flight].lock != account->storage.lock;
  bool over = !sim->workers[account->flight].flying;
  return removed && (over || !sure || sim->now - account->flight_since > 2 * sim->conditions.timeout);
}

static void check_flight(struct simulation *sim, struct worker *worker)
{
  struct account *account = &sim->accounts[worker->account];
  bool another = account->flight >= 0 && account->flight != number(sim, worker);
  if (another && !may_take_over(sim, account))
    simulation_violate(sim, worker, worker->account, "two flights at a time: p%d has marked its own and not unlocked",
                       sim->workers[account->flight].process);
  if (another || account->flight < 0)
    account->flight_since = sim->now;
  account->flight = number(sim, worker);
}

/* Nothing is sent once the lock is known to keep nobody out. */
static void check_lock(struct simulation *sim, struct worker *worker, struct token token)
{
  if (worker->known.marked_in_vain)
    simulation_violate(sim, worker, worker->account, "%s is sent, and the lock was gone before the mark", name(token));
}

void invariants_leaves(struct simulation *sim, struct worker *worker, struct token token, double in)
{
  double late = simulation_moment(sim, worker).steady + in - worker->decided;
  if (late > fmax(worker->settings.timeout, 1) + 1e-6)
    simulation_violate(sim, worker, worker->account, "%s is sent %.2f s after it was decided", name(token), late);
}

/* Refresh requests that may spend: six. Each is followed by at most one question, and a question that is not answered
 * by pauses that double up to 8 s (a tenth of each at least), as is a request that was not sent. */
static int requests_most(const struct simulation *sim)
{
  return 2 * SPENDS_MOST + 5 + (int)(sim->conditions.timeout / 0.8);
}

static void check_count(struct simulation *sim, struct worker *worker)
{
  if (++worker->known.requests > requests_most(sim))
    simulation_violate(sim, worker, worker->account, "a flight makes %d requests", worker->known.requests);
}

static bool remembers(const struct worker *worker, struct token token)
{
  for (int i = 0; i < REMEMBERED; i++)
    if (worker->known.spent[i].kind && token_same(worker->known.spent[i], token))
      return true;
  return false;
}

/* Whether this process can know that it was spent. Without introspection a storage's list is no more than a hint while
 * there is a record: what has a mark is on it. */
static bool is_known_spent(const struct simulation *sim, const struct worker *worker, struct token token)
{
  const struct storage *storage = &sim->accounts[worker->account].storage;
  bool counts = simulation_can_ask(sim) || !worker->known.loaded_any;
  return remembers(worker, token) || (counts && storage_lists(storage, token));
}

static void check_spent(struct simulation *sim, struct worker *worker, struct token token)
{
  bool allowed = token_same(worker->known.allowed, token);
  if (!allowed && is_known_spent(sim, worker, token))
    simulation_violate(sim, worker, worker->account,
                       "%s is sent, which is known to be spent, and introspection has not been asked", name(token));
  if (!allowed && worker->known.succeeded.kind && token_same(worker->known.succeeded, token))
    simulation_violate(sim, worker, worker->account, "%s is sent again, and its successor has come in an answer",
                       name(token));
}

static void check_salvage(struct simulation *sim, struct worker *worker, struct token token)
{
  if (!token_same(worker->known.brought, token) || token_same(worker->known.salvaged, token))
    return;
  worker->known.salvaged = token;
  if (++worker->known.salvages > 1)
    simulation_violate(sim, worker, worker->account, "%s is the second one that this flight has found in an answer",
                       name(token));
}

/* Where the storage is the program's own, it has to be seen whether the mark is there. */
static void check_marked(struct simulation *sim, struct worker *worker, struct token token)
{
  const char *text = storage_shows(sim, &sim->accounts[worker->account].storage);
  if (!text || !strstr(text, "\"pending\":") || !token_same(token_find(text).refresh, token))
    simulation_violate(sim, worker, worker->account, "%s is sent, and the storage shows no mark of it", name(token));
}

static void check_denied(struct simulation *sim, struct worker *worker, struct token token)
{
  if (worker->known.denied)
    simulation_violate(sim, worker, worker->account,
                       "the client was denied, and all the same a request about %s follows", name(token));
}

void invariants_sent(struct simulation *sim, struct worker *worker, struct token token)
{
  struct grant *grant = server_grant(sim, token);
  sim->tally->sends++;
  if (worker->goal == FLOW_STORE)
    simulation_violate(sim, worker, worker->account, "a flight that only stores a login sends %s", name(token));
  check_back_off(sim, worker, token);
  check_flight(sim, worker);
  check_lock(sim, worker, token);
  check_count(sim, worker);
  check_denied(sim, worker, token);
  check_salvage(sim, worker, token);
  if (sim->accounts[worker->account].storage.of_program)
    check_marked(sim, worker, token);
  if (!grant) {
    simulation_violate(sim, worker, worker->account, "%s is sent, which the server never issued", name(token));
    return;
  }
  if (grant->sending[token.serial] == SENDING_OPEN && !sim->conditions.script)
    check_spent(sim, worker, token);
  if (simulation_strict(sim, worker->account) && !is_restart(sim, token) &&
      grant->sending[token.serial] == SENDING_OPEN)
    simulation_violate(sim, worker, worker->account,
                       "%s is sent a second time, and the server has not said since the first that it is active",
                       name(token));
  grant->sending[token.serial] = SENDING_OPEN;
}

void invariants_not_sent(struct worker *worker, struct token token)
{
  worker->known.posted_any = true;
  worker->known.posted = token;
}

void invariants_asked(struct simulation *sim, struct worker *worker, struct token token)
{
  sim->tally->introspections++;
  check_back_off(sim, worker, token);
  check_count(sim, worker);
  check_denied(sim, worker, token);
}

static bool is_unspent(const struct wire *wire)
{
  if (wire->endpoint == REQUEST_INTROSPECTION)
    return wire->intact && wire->active;
  switch (wire->reply.delivery) {
  case REPLY_NOT_SENT:
    return true;
  case REPLY_LOST:
    return false;
  default:
    return wire->unspent || wire->fate == FATE_SLOW_DOWN || wire->fate == FATE_UNAVAILABLE ||
           wire->fate == FATE_DENIED || wire->fate == FATE_REDIRECT || wire->reply.status == 400 ||
           (wire->intact && !wire->issued.refresh.kind);
  }
}

/* Seconds; an odd answer may tell anything. */
static double told_lifetime(const struct simulation *sim)
{
  return sim->conditions.odd > 0 ? INFINITY : sim->conditions.lifetime;
}

static void remember_spent(struct worker *worker, struct token token)
{
  worker->known.spent_last = token;
  if (!remembers(worker, token))
    worker->known.spent[worker->known.spends++ % REMEMBERED] = token;
}

/* An answer that makes no sense, and yet holds the new refresh token, whole. */
static bool brings_whole_token(const struct wire *wire)
{
  char quoted[TOKEN_TEXT + 2] = "\"";
  if (!wire->reply.body || wire->reply.cut || wire->reply.status != 200 || !wire->issued.refresh.kind)
    return false;
  token_write(quoted + 1, wire->issued.refresh);
  strcat(quoted, "\"");
  return strstr(wire->reply.body, quoted) != NULL;
}

static void told_half(struct worker *worker, const struct wire *wire)
{
  if (wire->endpoint != REQUEST_TOKEN || wire->intact || !brings_whole_token(wire))
    return;
  worker->known.succeeded = worker->known.spent_last = wire->token;
  worker->known.brought = wire->issued.refresh;
  worker->known.unsaved_brought = true;
}

void invariants_told(struct simulation *sim, struct worker *worker, const struct wire *wire)
{
  struct grant *grant = server_grant(sim, wire->token);
  if (grant && is_unspent(wire)) {
    grant->sending[wire->token.serial] = SENDING_ALLOWED;
    worker->known.allowed = wire->token;
  } else if (token_same(worker->known.allowed, wire->token)) {
    worker->known.allowed = (struct token){0};
  }
  if (wire->denied && wire->endpoint == REQUEST_TOKEN)
    worker->known.denied = true;
  told_half(worker, wire);
  if (!wire->intact || wire->endpoint != REQUEST_TOKEN || !(wire->issued.access.kind || wire->issued.refresh.kind))
    return;
  if (wire->issued.refresh.kind)
    remember_spent(worker, wire->token);
  worker->known.unsaved_answer = true;
  worker->known.held = wire->issued;
  if (!worker->known.held.refresh.kind)
    worker->known.held.refresh = wire->token;
  worker->known.answered_any = true;
  worker->known.answered_usable = wire->usable && !is_rejected(worker, wire->issued.access);
  worker->known.answered = worker->known.held.access;
  worker->known.own = worker->known.held.access;
  worker->known.own_dies = simulation_moment(sim, worker).steady + told_lifetime(sim);
}

void invariants_reuse(struct simulation *sim, struct token token, const char *who)
{
  if (simulation_strict(sim, token.account) && !is_restart(sim, token))
    simulation_violate(sim, NULL, token.account, "the server sees reuse: %s comes again, from %s", name(token), who);
}

/* ---- what is stored ---- */

static void hear_of_rejected(struct worker *worker, const struct storage *storage)
{
  if (worker->event.rejected)
    memcpy(worker->known.told, storage->rejected_tokens, sizeof worker->known.told);
}

/* From the POST to the save nothing is acquired: it could not be had then. */
void invariants_acts(struct simulation *sim, struct worker *worker)
{
  static const char *const steps[] = {[FLOW_LOAD] = "loaded",
                                      [FLOW_LOCK] = "locked",
                                      [FLOW_HOLD] = "got hold of",
                                      [FLOW_UNLOCK] = "unlocked",
                                      [FLOW_POST] = "sent"};
  if (worker->known.unsaved_answer && worker->action.step != FLOW_SAVE && !flow_unsaved(worker->flow))
    simulation_violate(sim, worker, worker->account, "tokens have come, and before they are saved something is %s",
                       steps[worker->action.step] ? steps[worker->action.step] : "done");
  if (worker->known.unsaved_brought && worker->action.step != FLOW_SAVE && sim->conditions.memory == 0)
    simulation_violate(sim, worker, worker->account,
                       "%s has come in a broken answer, and before it is saved something is %s",
                       name(worker->known.brought), steps[worker->action.step] ? steps[worker->action.step] : "done");
}

void invariants_saves(struct simulation *sim, struct worker *worker)
{
  if (worker->known.unsaved_answer && !worker->holds && !sim->accounts[worker->account].storage.of_program &&
      !flow_unsaved(worker->flow))
    simulation_violate(sim, worker, worker->account, "tokens are saved, and what that takes was not held before");
  worker->known.unsaved_answer = worker->known.unsaved_brought = false;
}

void invariants_loaded(struct simulation *sim, struct worker *worker)
{
  const struct storage *storage = &sim->accounts[worker->account].storage;
  hear_of_rejected(worker, storage);
  worker->known.loaded_any = worker->loaded && worker->loaded[0] == '{';
  if (!worker->known.loaded_any)
    return;
  worker->known.loaded = token_find(worker->loaded);
  worker->known.aside = token_find_aside(worker->loaded);
  worker->known.tried = worker->known.tried || worker->known.aside.refresh.kind;
  /* a program without the lock has written since the answer came */
  if (worker->known.answered_any && !simulation_strict(sim, worker->account) &&
      token_older(worker->known.answered, storage->content.access))
    worker->known.answered_any = false;
}

static bool goes_back(struct pair from, struct pair to)
{
  if (!from.refresh.kind)
    return false;
  if (!to.refresh.kind || token_older(to.refresh, from.refresh))
    return true;
  return token_same(to.refresh, from.refresh) && from.access.kind && to.access.kind &&
         token_older(to.access, from.access);
}

/* Every text is read by somebody soon; reading each of them here as well would take a quarter of the time. */
static void check_record(struct simulation *sim, int account)
{
  struct record record;
  const struct storage *storage = &sim->accounts[account].storage;
  if (storage->lie == LIE_KEEPS_NOTHING)
    return;
  size_t length = strlen(storage->text);
  bool good = length > 2 && storage->text[0] == '{' && storage->text[length - 1] == '}';
  if (good && storage->version % 16 == 0) {
    good = record_read(&record, storage->text, &sim->workers[0].settings.world);
    record_free(&record);
  }
  if (!good)
    simulation_violate(sim, NULL, account, "what is stored is no record");
}

static bool is_unused(struct simulation *sim, struct token token)
{
  const struct grant *grant = server_grant(sim, token);
  return grant && token.serial == 0 && grant->sending[0] == SENDING_ALLOWED;
}

/* What is stored is dead, or a login that has never been of use, and a process has another one configured. */
static bool starts_from_another_login(struct simulation *sim, struct token before, struct token after)
{
  return (is_restart(sim, after) || is_unused(sim, after)) && (is_unused(sim, before) || !server_active(sim, before));
}

static bool same_pair(struct pair a, struct pair b)
{
  return token_same(a.refresh, b.refresh) && token_same(a.access, b.access);
}

/* A grant that has brought tokens once is put aside until the login that is tried instead has done so, too. */
static void check_aside(struct simulation *sim, const struct worker *worker, int of, struct pair before)
{
  const struct account *account = &sim->accounts[of];
  struct pair after = account->storage.content;
  bool tried =
      before.refresh.kind && after.refresh.kind && before.refresh.grant != after.refresh.grant && !after.access.kind;
  if (tried && before.access.kind && !same_pair(account->storage.aside, before) && !same_pair(account->aside, after))
    simulation_violate(sim, worker, of, "%s takes the place of %s/%s before it has brought tokens", name(after.refresh),
                       name(before.refresh), name(before.access));
}

/* Another login has brought tokens, but was it needed? */
static void check_needed(struct simulation *sim, const struct worker *worker, int of)
{
  const struct account *account = &sim->accounts[of];
  struct pair after = account->storage.content, lost = account->aside;
  bool brought = after.access.kind && lost.refresh.kind && lost.access.kind && !account->storage.aside.refresh.kind &&
                 after.refresh.grant != lost.refresh.grant;
  if (brought && server_active(sim, lost.refresh) && simulation_strict(sim, of))
    simulation_violate(sim, worker, of, "%s is alive, and is given up for the login %s", name(lost.refresh),
                       name(after.refresh));
}

/* With a login that is to replace what lives. */
static bool is_told_to_replace(const struct worker *worker)
{
  return worker && worker->action.announces && worker->replaces;
}

static void check_progress(struct simulation *sim, const struct worker *worker, int of)
{
  struct account *account = &sim->accounts[of];
  struct pair before = account->newest, after = account->storage.content;
  bool strict = simulation_strict(sim, of);
  if (!strict)
    before = worker && worker->known.loaded_any ? worker->known.loaded : (struct pair){0};
  struct pair aside = strict || !worker ? account->aside : worker->known.aside;
  bool restored = aside.refresh.kind && same_pair(aside, after);
  bool kept = before.refresh.kind && same_pair(account->storage.aside, before);
  /* a call that was broken off has not waited until its tokens showed; where the refresh token stays, or is a
   * login's, nothing tells */
  bool untold = token_same(before.refresh, after.refresh) || before.refresh.serial == 0;
  bool unseen = account->storage.lag > 0 && untold;
  if (goes_back(before, after) && !restored && !kept && !unseen && !is_told_to_replace(worker) &&
      !starts_from_another_login(sim, before.refresh, after.refresh))
    simulation_violate(sim, worker, of, "the storage goes back from %s/%s to %s/%s", name(before.refresh),
                       name(before.access), name(after.refresh), name(after.access));
  if (strict && !is_told_to_replace(worker)) {
    check_aside(sim, worker, of, before);
    check_needed(sim, worker, of);
  }
  account->newest = after;
  account->aside = account->storage.aside;
}

static void settle_held(struct simulation *sim, int account)
{
  for (int i = 0; i < sim->worker_count; i++) {
    struct worker *worker = &sim->workers[i];
    if (worker->account == account && worker->known.held.refresh.kind &&
        same_pair(worker->known.held, sim->accounts[account].storage.content)) {
      worker->known.held = (struct pair){0};
      worker->known.inherited = false;
    }
  }
}

/* A mark tells of a refresh under way, until it says that its answer is lost. A record with a grant put aside may have
 * the mark of that one. */
static bool shows_refresh_under_way(const struct storage *storage)
{
  return storage->text && strstr(storage->text, "\"pending\":") && !strstr(storage->text, "\"lost\":") &&
         !storage->aside.refresh.kind;
}

/* What a login is about to take the place of. A storage that lags or lies may have shown another record. */
void invariants_stores(struct simulation *sim, struct worker *worker)
{
  const struct account *account = &sim->accounts[worker->account];
  const struct storage *storage = &account->storage;
  struct token before = storage->content.refresh;
  bool same = token_same(before, worker->given.refresh);
  if (storage->lag > 0 || account->disturbed)
    return;
  if (simulation_strict(sim, worker->account) && before.kind && !same && !worker->replaces &&
      server_active(sim, before))
    simulation_violate(sim, worker, worker->account,
                       "%s is alive, and the login %s takes its place without being told so", name(before),
                       name(worker->given.refresh));
  bool others_fly = account->flight >= 0 && account->flight != number(sim, worker) && !may_take_over(sim, account);
  bool just_begun = shows_refresh_under_way(storage) && sim->now - storage->marked < SETTLE_TIME;
  if (!sim->conditions.script && (others_fly || just_begun))
    simulation_violate(sim, worker, worker->account, "the login %s overwrites %s, whose refresh is in flight",
                       name(worker->given.refresh), name(before));
}

/* A process that saves a record and knows its access token to be rejected says so in it. */
static void check_rejection(struct simulation *sim, struct worker *worker)
{
  struct token access = token_find(worker->action.record).access;
  if (worker->action.spends && access.kind && sim->conditions.odd == 0 && is_rejected(worker, access) &&
      !strstr(worker->action.record, "\"rejected\":"))
    simulation_violate(sim, worker, worker->account, "%s is rejected, and the record that is saved does not say so",
                       name(access));
}

/* The flight is over: everybody can read that its answer is lost. */
static bool says_lost(const char *record)
{
  return strstr(record, "\"lost\":") && !token_find_aside(record).refresh.kind;
}

void invariants_saved(struct simulation *sim, struct worker *worker)
{
  struct account *account = &sim->accounts[worker->account];
  if (worker->action.spends)
    worker->known.marked_in_vain = worker->lock != account->storage.lock;
  if (worker->action.spends && !worker->known.marked_in_vain)
    check_flight(sim, worker);
  if (!worker->lock || (worker->lock == account->storage.lock && account->storage.owner != number(sim, worker)))
    simulation_violate(sim, worker, worker->account, "a record is saved without the lock");
  check_record(sim, worker->account);
  check_rejection(sim, worker);
  if (account->storage.lie != LIE_KEEPS_NOTHING)
    check_progress(sim, worker, worker->account);
  if (says_lost(worker->action.record) && account->flight == number(sim, worker))
    account->flight = -1;
  worker->known.loaded = token_find(worker->action.record);
  worker->known.aside = token_find_aside(worker->action.record);
  worker->known.tried = worker->known.tried || worker->known.aside.refresh.kind;
  worker->known.loaded_any = true;
  settle_held(sim, worker->account);
}

void invariants_rolled_forward(struct simulation *sim, int account)
{
  check_record(sim, account);
  check_progress(sim, NULL, account);
  settle_held(sim, account);
}

/* ---- what is lost ---- */

/* A process without the lock, which was a parent's or is removed, may find a newer login in the storage. */
static bool gave_way(const struct simulation *sim, const struct worker *worker)
{
  struct token stored = sim->accounts[worker->account].storage.content.refresh;
  return worker->known.inherited ||
         (sim->conditions.lock_vanishes > 0 && token_older(worker->known.held.refresh, stored));
}

static void check_held(struct simulation *sim, struct worker *worker, const char *when)
{
  if (worker->known.held.refresh.kind && simulation_strict(sim, worker->account) && !gave_way(sim, worker) &&
      !flow_unsaved(worker->flow))
    simulation_violate(sim, worker, worker->account, "%s/%s has arrived, and %s it is neither stored nor kept",
                       name(worker->known.held.refresh), name(worker->known.held.access), when);
}

void invariants_unlocked(struct simulation *sim, struct worker *worker)
{
  if (worker->known.held.refresh.kind && simulation_strict(sim, worker->account) && !gave_way(sim, worker))
    simulation_violate(sim, worker, worker->account, "the lock is given back before %s is stored",
                       name(worker->known.held.refresh));
}

static const struct worker *holder(const struct simulation *sim, struct token token)
{
  /* a process without the lock, which was a parent's or is removed, is not waited for for ever */
  if (sim->conditions.lock_vanishes > 0)
    return NULL;
  for (int i = 0; i < sim->worker_count; i++) {
    const struct worker *worker = &sim->workers[i];
    if (worker->account == token.account && worker->known.held.refresh.kind && !worker->known.inherited &&
        token_older(token, worker->known.held.refresh) && server_active(sim, worker->known.held.refresh))
      return worker;
  }
  return NULL;
}

/* A flow has just called this refresh token dead. */
static void check_verdict(struct simulation *sim, struct worker *worker, struct token token, enum code code)
{
  struct token successor = successor_of(token);
  const struct storage *storage = &sim->accounts[worker->account].storage;
  struct token stored = storage->content.refresh;
  /* what was in doubt when its mark vanished is not sent where nobody can be asked */
  bool guessed = sim->accounts[worker->account].disturbed && !simulation_can_ask(sim);
  if (server_active(sim, token) && !guessed)
    simulation_violate(sim, worker, worker->account, "%s is called dead (%s), and is alive", name(token),
                       code_name(code));
  if (token_in_kept_answer(storage->text, successor) && server_active(sim, successor))
    simulation_violate(sim, worker, worker->account, "%s is called dead (%s), but the answer that is kept holds %s",
                       name(token), code_name(code), name(successor));
  if (storage->lie == LIE_NONE && stored.kind && !token_same(stored, token) && server_active(sim, stored) &&
      storage->changed + storage->lag <= worker->known.effect)
    simulation_violate(sim, worker, worker->account, "%s is called dead (%s), but the storage holds %s, which is alive",
                       name(token), code_name(code), name(stored));
  const struct worker *other = holder(sim, token);
  if (other && simulation_strict(sim, worker->account))
    simulation_violate(sim, worker, worker->account, "%s is called dead (%s), but p%d holds the answer", name(token),
                       code_name(code), other->process);
}

/* ---- flights ---- */

void invariants_took_off(struct simulation *sim, struct worker *worker)
{
  struct moment now = simulation_moment(sim, worker);
  worker->started = now.steady;
  worker->excused = 0;
  worker->steps = worker->tries = 0;
  worker->known.posted_any = worker->known.loaded_any = false;
  worker->known.answered_any = false;
  worker->known.notes = 0;
  worker->known.allowed = worker->known.brought = worker->known.salvaged = (struct token){0};
  worker->known.denied = worker->known.marked_in_vain = worker->known.tried = worker->known.unsaved_brought = false;
  worker->known.requests = worker->known.salvages = 0;
  memset(worker->known.told, 0, sizeof worker->known.told);
}

/* Whether the last failure may be the first one of a refresh token that was found in an answer. */
static bool has_salvaged(const struct simulation *sim, const struct worker *worker)
{
  return worker->known.brought.kind ||
         token_in_kept_answer(sim->accounts[worker->account].storage.text, successor_of(worker->known.posted));
}

static double smallest_step(int failures)
{
  return 0.1 * fmin(ldexp(1, failures < 30 ? failures - 1 : 29), 300);
}

static void watch_back_off(struct simulation *sim, struct worker *worker)
{
  struct flow_status status = flow_status(worker->flow);
  double now = simulation_moment(sim, worker).steady;
  if (status.retry_at == 0) {
    worker->known.retry_at = 0;
    worker->known.failures = 0;
    return;
  }
  if (status.retry_at == worker->known.retry_at)
    return;
  if (!worker->known.posted_any) {
    /* another process's failure, which this one has read of; or, without a record, of the configured refresh token */
    worker->known.retry_at = status.retry_at;
    worker->known.retry_of = worker->known.loaded_any ? worker->known.loaded.refresh : (struct token){0};
    worker->known.failures = 0;
    return;
  }
  bool new_token = worker->known.answered_any && worker->known.held.refresh.kind;
  struct token of = new_token ? worker->known.held.refresh : worker->known.posted;
  if (!new_token && has_salvaged(sim, worker))
    of = (struct token){0}; /* it may be of that one */
  if (worker->known.answered_any || !of.kind || !token_same(of, worker->known.retry_of))
    worker->known.failures = 0;
  worker->known.failures++;
  worker->known.retry_of = of;
  worker->known.retry_at = status.retry_at;
  if (status.retry_at - now < smallest_step(worker->known.failures) - 1e-6)
    simulation_violate(sim, worker, worker->account, "after %d failures in a row the server is asked again in %.3f s",
                       worker->known.failures, status.retry_at - now);
}

static void read_notes(struct simulation *sim, struct worker *worker)
{
  const struct flow_outcome *outcome = flow_outcome(worker->flow);
  for (; worker->known.notes < outcome->note_count; worker->known.notes++) {
    const struct flow_note *note = &outcome->notes[worker->known.notes];
    if (sim->story)
      simulation_tell(sim, worker, worker->account, "notes %s %s", flow_note_name(note->kind), note->message);
    sim->tally->recovered += note->kind == FLOW_RECOVERED;
    sim->tally->adopted += note->kind == FLOW_ADOPTED;
    sim->tally->lost += note->kind == FLOW_LOST;
    sim->tally->unsaved += note->kind == FLOW_SAVE_FAILED;
    bool dead = note->code == CODE_INVALID_GRANT || note->code == CODE_LOST_ROTATION;
    sim->tally->refused += note->code == CODE_INVALID_GRANT;
    if (dead && worker->known.posted_any)
      check_verdict(sim, worker, worker->known.posted, note->code);
    if (note->kind == FLOW_LOST && worker->known.loaded_any)
      invariants_rejected(worker, worker->known.loaded.access);
  }
}

static void check_time(struct simulation *sim, struct worker *worker)
{
  double taken = simulation_moment(sim, worker).steady - worker->started - worker->excused;
  double most = 2 * worker->settings.timeout + EXTRA;
  if (taken > most)
    simulation_violate(sim, worker, worker->account,
                       "a call takes %.1f s; its deadline was %.1f s, twice that the most", taken,
                       worker->settings.timeout);
  if (++worker->steps > STEPS_MOST)
    simulation_violate(sim, worker, worker->account, "a flight does not end: %d steps", worker->steps);
}

void invariants_stepped(struct simulation *sim, struct worker *worker)
{
  read_notes(sim, worker);
  watch_back_off(sim, worker);
  check_time(sim, worker);
}

static bool is_told(const struct worker *worker, struct token token)
{
  for (int i = 0; i < REJECTED; i++)
    if (token_same(worker->known.told[i], token))
      return true;
  return false;
}

static void check_served(struct simulation *sim, struct worker *worker, struct token token)
{
  const struct pair *loaded = &worker->known.loaded;
  if (token.kind != 'A' || token.account != sim->accounts[worker->account].of || !server_grant(sim, token))
    simulation_violate(sim, worker, worker->account, "a token is served that the server never issued for this account");
  if (is_told(worker, token))
    simulation_violate(sim, worker, worker->account, "%s is live, which the storage says is rejected", name(token));
  if (is_rejected(worker, token))
    simulation_violate(sim, worker, worker->account, "%s is live, which this process knows to be dead", name(token));
  if (token_same(worker->known.own, token) && !sim->accounts[worker->account].disturbed &&
      simulation_moment(sim, worker).steady >= worker->known.own_dies)
    simulation_violate(sim, worker, worker->account, "%s is live, which has outlived its time", name(token));
  if (worker->known.answered_any && !token_same(worker->known.answered, token))
    simulation_violate(sim, worker, worker->account, "%s is live, but the server has just issued %s", name(token),
                       name(worker->known.answered));
  bool replaced = worker->known.loaded_any && loaded->access.kind && !token_same(loaded->access, token);
  /* a call whose lock was removed looks once more before it ends, and leaves what it finds to the next call */
  bool looked = sim->conditions.lock_vanishes > 0;
  /* a storage that lags has not shown yet what this process has saved */
  looked = looked || (sim->accounts[worker->account].storage.lag > 0 && token_older(loaded->access, token));
  if (!worker->known.answered_any && replaced && !looked && !flow_unsaved(worker->flow))
    simulation_violate(sim, worker, worker->account, "%s is live, but the storage has just said %s", name(token),
                       name(loaded->access));
}

/* A whole refresh token that came in an answer which made no sense is kept like any other. */
static void check_brought(struct simulation *sim, struct worker *worker)
{
  const struct account *account = &sim->accounts[worker->account];
  struct token brought = worker->known.brought;
  bool stored =
      token_same(account->storage.content.refresh, brought) || token_in_kept_answer(account->storage.text, brought);
  if (brought.kind && !stored && !flow_unsaved(worker->flow) && server_active(sim, brought) && !account->disturbed &&
      !sim->conditions.script && !sim->conditions.twin)
    simulation_violate(sim, worker, worker->account, "%s has come in a broken answer, and is neither stored nor kept",
                       name(brought));
}

/* A child that gives up what its parent could not save has found something better. */
static void check_inherited(struct simulation *sim, struct worker *worker)
{
  struct token held = worker->known.held.refresh, loaded = worker->known.loaded.refresh;
  bool worse = worker->known.loaded_any && loaded.grant == held.grant && token_older(loaded, held);
  if (worker->known.inherited && held.kind && worse && !flow_unsaved(worker->flow) && server_active(sim, held) &&
      simulation_strict(sim, worker->account))
    simulation_violate(sim, worker, worker->account, "%s came from a parent, is not stored, and is given up for %s",
                       name(held), name(loaded));
}

/* The login that was tried is dead, and the grant before it is the record again. */
static bool is_of_trial(struct simulation *sim, const struct worker *worker)
{
  struct token posted = worker->known.posted;
  return worker->known.posted_any && posted.grant != worker->known.loaded.refresh.grant && !server_active(sim, posted);
}

/* A login that its caller is told to be stored counts for everybody. */
static void check_stored(struct simulation *sim, struct worker *worker)
{
  struct storage *storage = &sim->accounts[worker->account].storage;
  struct token given = worker->given.refresh, stored = token_find(storage_shows(sim, storage)).refresh;
  sim->tally->stored++;
  if (stored.grant != given.grant && simulation_strict(sim, worker->account) && sim->conditions.lock_vanishes == 0)
    simulation_violate(sim, worker, worker->account, "the login %s is said to be stored, and the storage holds %s",
                       name(given), name(stored));
}

void invariants_landed(struct simulation *sim, struct worker *worker)
{
  const struct flow_outcome *outcome = flow_outcome(worker->flow);
  bool wanted = worker->goal == FLOW_TOKEN || worker->goal == FLOW_REFRESH;
  check_held(sim, worker, "at the end of its flight");
  check_inherited(sim, worker);
  check_brought(sim, worker);
  if (outcome->token)
    check_served(sim, worker, token_read(outcome->token));
  if (wanted && !outcome->token && outcome->code == CODE_OK)
    simulation_violate(sim, worker, worker->account, "a caller gets neither a token nor an error");
  if (wanted && outcome->code != CODE_OK && !*outcome->message)
    simulation_violate(sim, worker, worker->account, "a caller gets %s without a word", code_name(outcome->code));
  bool outlived = simulation_moment(sim, worker).steady >= worker->known.own_dies;
  if (wanted && worker->known.answered_any && worker->known.answered_usable && !outlived && outcome->code != CODE_OK)
    simulation_violate(sim, worker, worker->account, "the server has issued %s, and the caller gets %s",
                       name(worker->known.answered), code_name(outcome->code));
  bool dead = outcome->code == CODE_INVALID_GRANT || outcome->code == CODE_LOST_ROTATION;
  /* where nobody can be asked, a refusal in unknown words has another login tried, and what is said is said of that */
  bool of_another = worker->known.tried && (!simulation_can_ask(sim) || is_of_trial(sim, worker));
  if (worker->goal == FLOW_STORE && outcome->code == CODE_OK)
    check_stored(sim, worker);
  dead = dead && worker->goal != FLOW_STORE; /* else it is said of the login */
  if (dead && worker->known.loaded_any && !of_another && server_active(sim, worker->known.loaded.refresh))
    simulation_violate(sim, worker, worker->account, "%s is called dead (%s), and is alive",
                       name(worker->known.loaded.refresh), code_name(outcome->code));
  if (!flow_unsaved(worker->flow) && worker->lock)
    simulation_violate(sim, worker, worker->account, "the flight is over, and the lock is still held");
}

void invariants_rejected(struct worker *worker, struct token token)
{
  if (token.kind && !is_rejected(worker, token))
    worker->known.rejected[worker->known.rejections++ % REJECTIONS] = token;
}

void invariants_abandoned(struct worker *worker)
{
  if (!flow_unsaved(worker->flow))
    memset(&worker->known.held, 0, sizeof worker->known.held);
}

void invariants_died(struct worker *worker)
{
  memset(&worker->known, 0, sizeof worker->known);
}
