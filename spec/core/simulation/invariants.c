#include "invariants.h"

#include "server.h"

#include <math.h>
#include <string.h>

/* Steps of one flight, and how long it may take beyond its deadline and one POST, in seconds. */
#define STEPS_MOST 10000
#define EXTRA 13.0

static const char *name(struct token token)
{
  static _Thread_local char text[4][TOKEN_TEXT];
  static _Thread_local int turn;
  char *out = text[turn++ % 4];
  token_write(out, token);
  return *out ? out : "none";
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
  return (sim->weather.script || sim->weather.from_script) && token.serial == 0;
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

static void check_flight(struct simulation *sim, struct worker *worker)
{
  struct account *account = &sim->accounts[worker->account];
  if (account->flight >= 0 && account->flight != number(sim, worker))
    simulation_violate(sim, worker, worker->account, "two flights at a time: p%d has marked its own and not unlocked",
                       sim->workers[account->flight].process);
  account->flight = number(sim, worker);
}

void invariants_sent(struct simulation *sim, struct worker *worker, struct token token)
{
  struct grant *grant = server_grant(sim, token);
  sim->tally->sends++;
  check_back_off(sim, worker, token);
  check_flight(sim, worker);
  if (!grant) {
    simulation_violate(sim, worker, worker->account, "%s is sent, which the server never issued", name(token));
    return;
  }
  if (simulation_strict(sim) && !is_restart(sim, token) && grant->sending[token.serial] == SENDING_OPEN)
    simulation_violate(sim, worker, worker->account,
                       "%s is sent a second time, and the server has not said since the first that it is active",
                       name(token));
  grant->sending[token.serial] = SENDING_OPEN;
}

void invariants_asked(struct simulation *sim, struct worker *worker, struct token token)
{
  sim->tally->introspections++;
  check_back_off(sim, worker, token);
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
    return wire->fate == FATE_SLOW_DOWN || wire->fate == FATE_UNAVAILABLE || wire->fate == FATE_DENIED ||
           wire->fate == FATE_REDIRECT || wire->reply.status == 400 || (wire->intact && !wire->issued.refresh.kind);
  }
}

/* Seconds; an odd answer may tell anything. */
static double told_lifetime(const struct simulation *sim)
{
  return sim->weather.odd > 0 ? INFINITY : sim->weather.lifetime;
}

void invariants_told(struct simulation *sim, struct worker *worker, const struct wire *wire)
{
  struct grant *grant = server_grant(sim, wire->token);
  if (grant && is_unspent(wire))
    grant->sending[wire->token.serial] = SENDING_ALLOWED;
  if (!wire->intact || wire->endpoint != REQUEST_TOKEN || !(wire->issued.access.kind || wire->issued.refresh.kind))
    return;
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
  if (simulation_strict(sim) && !is_restart(sim, token))
    simulation_violate(sim, NULL, token.account, "the server sees reuse: %s comes again, from %s", name(token), who);
}

/* ---- what is stored ---- */

void invariants_loaded(struct simulation *sim, struct worker *worker)
{
  const struct storage *storage = &sim->accounts[worker->account].storage;
  worker->known.loaded_any = storage->text && storage->text[0] == '{';
  if (!worker->known.loaded_any)
    return;
  worker->known.loaded = storage->content;
  /* a program without the lock has written since the answer came */
  if (worker->known.answered_any && !simulation_strict(sim) &&
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

static void check_progress(struct simulation *sim, const struct worker *worker, int of)
{
  struct account *account = &sim->accounts[of];
  struct pair before = account->newest, after = account->storage.content;
  if (!simulation_strict(sim))
    before = worker && worker->known.loaded_any ? worker->known.loaded : (struct pair){0};
  if (goes_back(before, after) && !starts_from_another_login(sim, before.refresh, after.refresh))
    simulation_violate(sim, worker, of, "the storage goes back from %s/%s to %s/%s", name(before.refresh),
                       name(before.access), name(after.refresh), name(after.access));
  account->newest = after;
}

static bool holds(const struct pair *held, const struct pair *stored)
{
  return token_same(held->refresh, stored->refresh) && token_same(held->access, stored->access);
}

static void settle_held(struct simulation *sim, int account)
{
  for (int i = 0; i < sim->worker_count; i++) {
    struct worker *worker = &sim->workers[i];
    if (worker->account == account && worker->known.held.refresh.kind &&
        holds(&worker->known.held, &sim->accounts[account].storage.content))
      worker->known.held = (struct pair){0};
  }
}

void invariants_saved(struct simulation *sim, struct worker *worker)
{
  struct account *account = &sim->accounts[worker->account];
  if (worker->action.spends)
    check_flight(sim, worker);
  if (account->storage.owner != number(sim, worker))
    simulation_violate(sim, worker, worker->account, "a record is saved without the lock");
  check_record(sim, worker->account);
  check_progress(sim, worker, worker->account);
  worker->known.loaded = account->storage.content;
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

static void check_held(struct simulation *sim, struct worker *worker, const char *when)
{
  if (worker->known.held.refresh.kind && simulation_strict(sim) && !flow_unsaved(worker->flow))
    simulation_violate(sim, worker, worker->account, "%s/%s has arrived, and %s it is neither stored nor kept",
                       name(worker->known.held.refresh), name(worker->known.held.access), when);
}

void invariants_unlocked(struct simulation *sim, struct worker *worker)
{
  if (worker->known.held.refresh.kind && simulation_strict(sim))
    simulation_violate(sim, worker, worker->account, "the lock is given back before %s is stored",
                       name(worker->known.held.refresh));
}

static const struct worker *holder(const struct simulation *sim, struct token token)
{
  for (int i = 0; i < sim->worker_count; i++) {
    const struct worker *worker = &sim->workers[i];
    if (worker->account == token.account && worker->known.held.refresh.kind &&
        token_older(token, worker->known.held.refresh) && server_active(sim, worker->known.held.refresh))
      return worker;
  }
  return NULL;
}

/* A flow has just called this refresh token dead. */
static void check_verdict(struct simulation *sim, struct worker *worker, struct token token, enum code code)
{
  const struct storage *storage = &sim->accounts[worker->account].storage;
  struct token stored = storage->content.refresh;
  if (server_active(sim, token))
    simulation_violate(sim, worker, worker->account, "%s is called dead (%s), and is alive", name(token),
                       code_name(code));
  if (stored.kind && !token_same(stored, token) && server_active(sim, stored) &&
      storage->changed <= worker->known.effect)
    simulation_violate(sim, worker, worker->account, "%s is called dead (%s), but the storage holds %s, which is alive",
                       name(token), code_name(code), name(stored));
  const struct worker *other = holder(sim, token);
  if (other && simulation_strict(sim))
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
    /* another process's failure, which this one has read of */
    worker->known.retry_at = status.retry_at;
    worker->known.failures = 0;
    return;
  }
  bool new_token = worker->known.answered_any && worker->known.held.refresh.kind;
  struct token of = new_token ? worker->known.held.refresh : worker->known.posted;
  if (worker->known.answered_any || !token_same(of, worker->known.retry_of))
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

static void check_served(struct simulation *sim, struct worker *worker, struct token token)
{
  const struct pair *loaded = &worker->known.loaded;
  if (token.kind != 'A' || token.account != worker->account || !server_grant(sim, token))
    simulation_violate(sim, worker, worker->account, "a token is served that the server never issued for this account");
  if (is_rejected(worker, token))
    simulation_violate(sim, worker, worker->account, "%s is served, which this process knows to be dead", name(token));
  if (token_same(worker->known.own, token) && simulation_moment(sim, worker).steady >= worker->known.own_dies)
    simulation_violate(sim, worker, worker->account, "%s is served, which has outlived its time", name(token));
  if (worker->known.answered_any && !token_same(worker->known.answered, token))
    simulation_violate(sim, worker, worker->account, "%s is served, but the server has just issued %s", name(token),
                       name(worker->known.answered));
  bool replaced = worker->known.loaded_any && loaded->access.kind && !token_same(loaded->access, token);
  if (!worker->known.answered_any && replaced && !flow_unsaved(worker->flow))
    simulation_violate(sim, worker, worker->account, "%s is served, but the storage has just said %s", name(token),
                       name(loaded->access));
}

void invariants_landed(struct simulation *sim, struct worker *worker)
{
  const struct flow_outcome *outcome = flow_outcome(worker->flow);
  bool wanted = worker->goal == FLOW_TOKEN || worker->goal == FLOW_REFRESH;
  check_held(sim, worker, "at the end of its flight");
  if (outcome->token)
    check_served(sim, worker, token_read(outcome->token));
  if (wanted && !outcome->token && outcome->code == CODE_OK)
    simulation_violate(sim, worker, worker->account, "a caller gets neither a token nor an error");
  if (wanted && outcome->code != CODE_OK && !*outcome->message)
    simulation_violate(sim, worker, worker->account, "a caller gets %s without a word", code_name(outcome->code));
  if (wanted && worker->known.answered_any && worker->known.answered_usable && outcome->code != CODE_OK)
    simulation_violate(sim, worker, worker->account, "the server has issued %s, and the caller gets %s",
                       name(worker->known.answered), code_name(outcome->code));
  bool dead = outcome->code == CODE_INVALID_GRANT || outcome->code == CODE_LOST_ROTATION;
  if (dead && worker->known.loaded_any && server_active(sim, worker->known.loaded.refresh))
    simulation_violate(sim, worker, worker->account, "%s is called dead (%s), and is alive",
                       name(worker->known.loaded.refresh), code_name(outcome->code));
  if (!flow_unsaved(worker->flow) && sim->accounts[worker->account].storage.owner == number(sim, worker))
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
