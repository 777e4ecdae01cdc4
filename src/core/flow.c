#include "flow.h"

#include "secret.h"
#include "setback.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Seconds. */
#define CONNECT_MOST 10.0
#define CONNECT_LEAST 1.0
#define LOCK_PAUSE_FIRST 0.001
#define LOCK_PAUSE_MOST 0.05
#define RETRY_FIRST 0.5
#define RETRY_MOST 8.0
#define RESEND_PAUSE 2.0  /* a provider without introspection is given this long to settle */
#define SETTLE_TIME 1.0   /* a request may still be on its way when its sender is gone: it is given so long */
#define LOST_TRUSTED 60.0 /* what another process was told of a lost refresh is believed this long */
#define SERVE_LEAST 1.0   /* a token that is served after a failure is not looked after again sooner */

enum { RESENDS_MOST = 3, BANNED = 4, RAW_MOST = 64 * 1024 };

/* Another writer's record may be on its way to the disk: look again after these pauses before anything is
 * called lost. */
static const double look_pauses[] = {0.025, 0.05, 0.1};
enum { LOOK_PAUSES = sizeof look_pauses / sizeof *look_pauses };

enum state {
  IDLE,
  CHECKING, /* loading, to see whether the unsaved record is still the newest */
  SAVING,   /* saving the unsaved record */
  LOOKING,  /* loading without the lock */
  LOCKING,
  LOCK_PAUSE, /* another holds the lock */
  LOADING,    /* loading under the lock */
  TORN_PAUSE, /* what was loaded is no record: a writer that knows no rename may be at it */
  MARKING,    /* saving the pending mark */
  POSTING,    /* the refresh is under way */
  PAUSING,    /* before the refresh is sent again */
  KEEPING,    /* saving the new tokens */
  NOTING,     /* saving a senseless answer with the mark */
  ASKING,     /* introspection is under way */
  ASK_PAUSE,  /* before it is asked again */
  RELOOKING,  /* loading again before the grant is called dead */
  RELOOK_PAUSE,
  CLEARING, /* saving the record without the mark */
  UNLOCKING
};

struct flow {
  const struct flow_settings *settings;
  uint64_t random;

  /* between flights */
  char *token;                       /* the one in use; NULL: none, or none that may be handed out */
  struct moment refresh_at, dead_at; /* of the token */
  double lifetime;                   /* of the token, in seconds; 0: unknown */
  double busy_since;                 /* steady seconds: the lock has been another's since; 0: it was free */
  char *banned[BANNED];              /* known to be dead, the last ones; never handed out wherever they turn up */
  char *hearsay[BANNED];             /* rejected without ever having been in use, so that they push out no others */
  int bans, hearsays;
  bool had_token; /* one was in use before */
  struct setback setback;
  enum code trouble; /* the last failure that no success has followed; CODE_OK: none */
  char trouble_message[FLOW_MESSAGE];
  struct record unsaved; /* the newest tokens, which could not be saved; the lock is held while it is here */
  bool locked;
  double last_refresh;

  /* this flight */
  enum state state;
  enum flow_goal goal;
  struct moment now;
  double deadline, started;
  struct record record;
  struct pending pending; /* the mark of the refresh under way */
  struct request request;
  char *text;         /* of the last SAVE */
  struct moment sent; /* just before the POST */
  double lock_pause;
  bool recovering; /* the mark is another flight's */
  bool doubted;    /* a POST may have been spent, and nobody has said that it was not */
  int resends, failures, looks;
  struct flow_outcome outcome;
};

static struct flow_action lock(struct flow *flow);
static struct flow_action mark(struct flow *flow);
static struct flow_action judge(struct flow *flow);
static struct flow_action introspect(struct flow *flow);
static struct flow_action relook(struct flow *flow);

/* ---- what is known of a token ---- */

static bool is_among(char *const tokens[BANNED], const char *token)
{
  for (int i = 0; i < BANNED; i++)
    if (tokens[i] && strcmp(tokens[i], token) == 0)
      return true;
  return false;
}

static bool is_banned(const struct flow *flow, const char *token)
{
  return is_among(flow->banned, token) || is_among(flow->hearsay, token);
}

static bool alive(const struct flow *flow)
{
  return flow->token && !moment_has_come(flow->dead_at, flow->now);
}

static bool usable(const struct flow *flow, const struct record *record)
{
  return record->access_token && record->bearer && !is_banned(flow, record->access_token);
}

/* The token in use has lived its time by the steady clock, whatever a wall clock that was set back makes of its expiry. */
static bool outlived(const struct flow *flow, const struct record *record)
{
  return flow_uses(flow, record->access_token) && flow->now.steady >= flow->refresh_at.steady;
}

/* A token beside a pending mark may die at any moment, or be dead already. */
static bool fresh(const struct flow *flow, const struct record *record)
{
  struct pending pending;
  return usable(flow, record) && flow->now.wall < record_refresh_at(record, flow->settings->refresh_before) &&
         !outlived(flow, record) && !record_implausible(record, flow->now.wall) &&
         !record_pending(record, &flow->settings->world, &pending);
}

static void drop_token(struct flow *flow)
{
  secret_free(flow->token);
  flow->token = NULL;
}

static void keep_in(char *tokens[BANNED], int *count, const char *token)
{
  char **place = &tokens[(*count)++ % BANNED];
  secret_free(*place);
  *place = secret_copy(token);
}

static void ban(struct flow *flow, const char *token)
{
  if (!token || is_among(flow->banned, token))
    return;
  keep_in(flow->banned, &flow->bans, token);
  if (flow_uses(flow, token))
    drop_token(flow);
}

/* A point of the record's time by both clocks. A token that was in use before lives no longer than was known then. */
static struct moment deadline(const struct flow *flow, double wall, const struct moment *known)
{
  struct moment at = moment_after(flow->now, wall - flow->now.wall);
  if (known)
    at.steady = fmin(at.steady, known->steady);
  return at;
}

/* The record's access token is the one in use from now on. */
static void take(struct flow *flow, const struct record *record)
{
  bool same = record->access_token && flow_uses(flow, record->access_token);
  char *copy = usable(flow, record) ? secret_copy(record->access_token) : NULL;
  double dead_at = isnan(record->expires_at) ? 0 : record->expires_at;
  if (record_implausible(record, flow->now.wall))
    dead_at = flow->now.wall + record->lifetime;
  drop_token(flow);
  flow->token = copy;
  flow->had_token = flow->had_token || copy;
  flow->refresh_at =
      deadline(flow, record_refresh_at(record, flow->settings->refresh_before), same ? &flow->refresh_at : NULL);
  flow->dead_at = deadline(flow, dead_at, same ? &flow->dead_at : NULL);
  flow->lifetime = isnan(record->lifetime) ? 0 : record->lifetime;
}

/* Another token than the one that was in use, which may have been rejected since. */
static bool replaces(const struct flow *flow, const struct record *record)
{
  return flow->token ? strcmp(flow->token, record->access_token) != 0 : flow->had_token;
}

/* ---- what is said of it ---- */

static void note(struct flow *flow, enum flow_note_kind kind, enum code code, const char *message)
{
  struct flow_outcome *outcome = &flow->outcome;
  if (outcome->note_count == FLOW_NOTES)
    return;
  struct flow_note *added = &outcome->notes[outcome->note_count++];
  added->kind = kind;
  added->code = code;
  snprintf(added->message, sizeof added->message, "%s", message);
}

static void capitalize(char *sentence)
{
  if (*sentence >= 'a' && *sentence <= 'z')
    *sentence = (char)(*sentence - 'a' + 'A');
}

static const char *advice(enum code code)
{
  switch (code) {
  case CODE_INVALID_CLIENT:
    return " Check LUCID_CLIENT_ID and LUCID_CLIENT_SECRET (options client_id and client_secret), and ask an admin of "
           "your Lucid account whether the app is still enabled.";
  case CODE_INVALID_GRANT:
  case CODE_LOST_ROTATION:
    return " Log in to Lucid again and configure the refresh token that you get (LUCID_REFRESH_TOKEN, or the option "
           "refresh_token): it takes the dead one's place.";
  case CODE_NETWORK:
  case CODE_TIMEOUT:
    return " Check the network and LUCID_API_URL (option api_url); a later call tries again.";
  case CODE_RATE_LIMITED:
  case CODE_SERVER_ERROR:
    return " A later call tries again.";
  case CODE_BAD_RESPONSE:
    return " Check LUCID_API_URL (options api_url and token_url): is this the token endpoint, with nothing in between?";
  default:
    return "";
  }
}

/* For the status, until a success follows. */
static void remember_trouble(struct flow *flow, enum code code, const char *message)
{
  flow->trouble = code;
  snprintf(flow->trouble_message, sizeof flow->trouble_message, "%s", message);
}

/* The flight ends without a new token. */
static void fail(struct flow *flow, enum code code, const char *message)
{
  struct flow_outcome *outcome = &flow->outcome;
  outcome->code = code;
  snprintf(outcome->message, sizeof outcome->message, "%s", message);
  capitalize(outcome->message);
  if (*message)
    remember_trouble(flow, code, outcome->message);
}

/* What went wrong earlier in the flight is made good. */
static void succeed(struct flow *flow)
{
  fail(flow, CODE_OK, "");
  remember_trouble(flow, CODE_OK, "");
}

static void explain(char out[FLOW_MESSAGE], enum code code, const char *what, const char *safe)
{
  snprintf(out, FLOW_MESSAGE, "%s%s%s%s", what, *what && what[strlen(what) - 1] != '.' ? ". " : " ", safe,
           advice(code));
  capitalize(out);
}

/* A failure of the server or of the way to it: it is remembered for the refresh token. */
static void fail_refresh(struct flow *flow, enum code code, const char *what, const char *safe, double server_wait)
{
  char message[FLOW_MESSAGE];
  explain(message, code, what, safe);
  fail(flow, code, message);
  setback_remember(&flow->setback, flow->pending.refresh_token, code, message, server_wait, flow->now.steady,
                   &flow->random);
  note(flow, code == CODE_LOST_ROTATION ? FLOW_LOST : FLOW_REFRESH_FAILED, code, message);
}

static const char *const kept = "The stored tokens are untouched.";

/* ---- single steps ---- */

static struct flow_action step(struct flow *flow, enum state state, enum flow_step what)
{
  flow->state = state;
  return (struct flow_action){.step = what};
}

static struct flow_action wait(struct flow *flow, enum state state, double seconds)
{
  struct flow_action action = step(flow, state, FLOW_WAIT);
  action.seconds = seconds;
  return action;
}

static void clear_flight(struct flow *flow)
{
  record_free(&flow->record);
  request_free(&flow->request);
  secret_free(flow->text);
  flow->text = NULL;
}

/* The end: a failure is covered up as long as the present token still lives. */
static struct flow_action finish(struct flow *flow)
{
  struct flow_outcome *outcome = &flow->outcome;
  bool wanted = flow->goal == FLOW_TOKEN || flow->goal == FLOW_REFRESH;
  if (wanted && outcome->code == CODE_OK && !flow->token)
    fail(flow, CODE_BAD_RESPONSE, "The server issued the very access token again that the API does not accept.");
  bool serve = wanted && (outcome->code == CODE_OK || (flow->goal == FLOW_TOKEN && alive(flow)));
  if (serve) {
    double again = fmax(SERVE_LEAST, flow->setback.until - flow->now.steady);
    outcome->refresh_at = outcome->code == CODE_OK ? flow->refresh_at : moment_after(flow->now, again);
    if (flow->unsaved.json)
      outcome->refresh_at = flow->now; /* every call tries to save */
    outcome->dead_at = flow->dead_at;
    outcome->token = flow->token;
    outcome->code = CODE_OK;
    outcome->message[0] = '\0';
  }
  clear_flight(flow);
  return step(flow, IDLE, FLOW_DONE);
}

static struct flow_action leave(struct flow *flow)
{
  if (!flow->locked || flow->unsaved.json)
    return finish(flow);
  return step(flow, UNLOCKING, FLOW_UNLOCK);
}

static struct flow_action fail_and_leave(struct flow *flow, enum code code, const char *message)
{
  fail(flow, code, message);
  if (flow->goal == FLOW_TOKEN && alive(flow))
    note(flow, FLOW_REFRESH_FAILED, code, message);
  return leave(flow);
}

static struct flow_action out_of_memory(struct flow *flow)
{
  return fail_and_leave(flow, CODE_STORAGE, "There is not enough memory to go on. The stored tokens are untouched.");
}

static struct flow_action save(struct flow *flow, enum state state, const struct record *record)
{
  secret_free(flow->text);
  flow->text = record_write(record);
  if (!flow->text)
    return out_of_memory(flow);
  struct flow_action action = step(flow, state, FLOW_SAVE);
  action.record = flow->text;
  action.spends = state == MARKING;
  return action;
}

static struct flow_action post(struct flow *flow, enum state state)
{
  double left = fmax(flow->deadline - flow->now.steady, 0);
  struct flow_action action = step(flow, state, FLOW_POST);
  action.request = &flow->request;
  action.seconds = fmin(CONNECT_MOST, fmax(left, CONNECT_LEAST));
  action.limit = fmax(flow->deadline + flow->settings->timeout - flow->now.steady, CONNECT_LEAST);
  flow->sent = flow->now;
  return action;
}

static struct answer_context context(const struct flow *flow)
{
  return (struct answer_context){
      .now = flow->now.wall,
      .default_lifetime = flow->settings->default_lifetime,
      .secrets = {flow->settings->credentials.client_secret, flow->record.refresh_token, flow->record.access_token,
                  flow->token, flow->settings->refresh_token,
                  flow->request.authorization ? flow->request.authorization + strlen("Basic ") : NULL}};
}

/* ---- reading the record ---- */

static struct flow_action damaged(struct flow *flow)
{
  char message[FLOW_MESSAGE];
  snprintf(message, sizeof message,
           "The token storage %s does not hold a token record: it is damaged, or something else's. Nothing was "
           "changed in it. Move it out of the way (keep it, it may be of use), log in to Lucid again and configure "
           "the new refresh token.",
           flow->settings->storage);
  return fail_and_leave(flow, CODE_STORAGE, message);
}

static struct flow_action empty(struct flow *flow)
{
  char message[FLOW_MESSAGE];
  const struct flow_settings *settings = flow->settings;
  if (settings->account)
    snprintf(message, sizeof message,
             "There is no token yet for the account \"%.100s\": the token storage %s is empty. A configured refresh "
             "token starts the default account alone; store this account's first record "
             "({\"refresh_token\": \"...\"}) there.",
             settings->account, settings->storage);
  else
    snprintf(
        message, sizeof message,
        "There is no token yet: the token storage %s is empty, and no refresh token is configured. Log in to Lucid "
        "once and set LUCID_REFRESH_TOKEN (or the option refresh_token) to the refresh token that you get.",
        settings->storage);
  return fail_and_leave(flow, CODE_CONFIG, message);
}

static struct flow_action grantless(struct flow *flow)
{
  char message[FLOW_MESSAGE];
  snprintf(message, sizeof message,
           "The access token in %s has expired, and there is no refresh token beside it: it was issued without the "
           "scope offline_access. %s%s",
           flow->settings->storage, kept, advice(CODE_INVALID_GRANT));
  return fail_and_leave(flow, CODE_INVALID_GRANT, message);
}

static struct flow_action not_bearer(struct flow *flow)
{
  return fail_and_leave(flow, CODE_BAD_RESPONSE,
                        "The server issued a token that is not of the type Bearer, which an API call cannot use. It is "
                        "kept in the storage; refresh() asks for another.");
}

/* Whether the configured refresh token is to take the record's place: the user has logged in again since the
 * grant was started. */
static bool superseded(const struct flow *flow, bool dead)
{
  const char *configured = flow->settings->refresh_token;
  struct pending pending;
  bool untried = json_string(flow->record.json, "origin") && !flow->record.access_token &&
                 !(flow->record.lifetime > 0) && !record_pending(&flow->record, &flow->settings->world, &pending);
  if (!configured || !(dead || untried || !flow->record.refresh_token) ||
      record_came_from(&flow->record, configured, &flow->settings->world))
    return false;
  char hash[RECORD_HASH];
  record_hash(&flow->settings->world, configured, hash);
  return !setback_is_death(&flow->setback, hash) && !setback_holds(&flow->setback, hash, flow->now.steady);
}

static struct flow_action start_from_configured(struct flow *flow)
{
  struct record before = flow->record;
  flow->recovering = flow->doubted = false;
  flow->resends = 0;
  bool started = record_start(&flow->record, flow->settings->refresh_token, &before, &flow->settings->world);
  record_free(&before);
  return started ? mark(flow) : out_of_memory(flow);
}

static bool read_record(struct flow *flow, const struct flow_event *event)
{
  record_free(&flow->record);
  return record_read(&flow->record, event->text, &flow->settings->world);
}

static struct flow_action settle(struct flow *flow)
{
  bool other = replaces(flow, &flow->record);
  succeed(flow);
  take(flow, &flow->record);
  setback_forget(&flow->setback);
  flow->busy_since = 0;
  if (other)
    note(flow, FLOW_ADOPTED, CODE_OK, "");
  return leave(flow);
}

/* The refresh token that would be spent; NULL: none. */
static const char *candidate(const struct flow *flow)
{
  return flow->record.refresh_token ? flow->record.refresh_token : flow->settings->refresh_token;
}

static void hear_of_setback(struct flow *flow)
{
  struct failure failure;
  char hash[RECORD_HASH];
  if (!record_failure(&flow->record, &flow->settings->world, flow->now.wall, &failure))
    return;
  record_hash(&flow->settings->world, flow->record.refresh_token, hash);
  setback_take_over(&flow->setback, hash, failure.code, failure.message,
                    flow->now.steady + failure.until - flow->now.wall, flow->now.steady);
}

static bool held_back(struct flow *flow, bool *dead)
{
  char hash[RECORD_HASH];
  *dead = false;
  if (!flow->setback.of[0] || !candidate(flow))
    return false;
  record_hash(&flow->settings->world, candidate(flow), hash);
  *dead = setback_is_death(&flow->setback, hash);
  return flow->goal == FLOW_TOKEN && setback_holds(&flow->setback, hash, flow->now.steady);
}

/* A setting that only a refresh needs. */
static const char *missing_setting(const struct flow *flow)
{
  if (!flow->settings->credentials.client_id)
    return "A refresh is due, but LUCID_CLIENT_ID (option client_id) is not set. It stands in Lucid's developer "
           "portal, with your app. The stored tokens are untouched.";
  if (!flow->settings->credentials.client_secret)
    return "A refresh is due, but LUCID_CLIENT_SECRET (option client_secret) is not set. It stands in Lucid's "
           "developer portal, with your app. The stored tokens are untouched.";
  return NULL;
}

static void describe_loss(const struct flow *flow, char out[FLOW_MESSAGE])
{
  char when[32];
  time_t since = (time_t)flow->pending.since;
  struct civil local;
  if (flow->settings->world.to_local((double)since, &local))
    snprintf(when, sizeof when, "%04d-%02d-%02d %02d:%02d:%02d", local.year, local.month, local.day, local.hour,
             local.minute, local.second);
  else
    snprintf(when, sizeof when, "an unknown time");
  const char *why = flow->outcome.message; /* empty when another process sent it */
  if (*why)
    snprintf(out, FLOW_MESSAGE,
             "%.400s. The refresh that began at %s in process %ld on %s was carried out all the same, so the new "
             "tokens are lost.",
             why, when, flow->pending.pid, flow->pending.host);
  else
    snprintf(out, FLOW_MESSAGE,
             "A refresh that began at %s in process %ld on %s was carried out by the server, but its answer never "
             "arrived, so the new tokens are lost.",
             when, flow->pending.pid, flow->pending.host);
}

/* `trusted`: how many seconds it is not asked about again; negative: as after any failure. */
static void report_loss(struct flow *flow, const char *what, double trusted)
{
  ban(flow, flow->record.access_token);
  fail_refresh(flow, CODE_LOST_ROTATION, what, "What is known of it is kept in the storage.", trusted);
}

/* Another process has asked the server what became of the refresh under way, and was told that it is lost. */
static bool is_known_lost(struct flow *flow)
{
  struct pending found;
  if (flow->goal != FLOW_TOKEN || !record_pending(&flow->record, &flow->settings->world, &found) || !(found.lost > 0) ||
      fabs(flow->now.wall - found.lost) > LOST_TRUSTED || superseded(flow, true))
    return false;
  flow->pending = found;
  return true;
}

static struct flow_action lost_already(struct flow *flow)
{
  char what[FLOW_MESSAGE];
  if (setback_is_death(&flow->setback, flow->pending.refresh_token)) {
    fail(flow, flow->setback.code, flow->setback.message);
    return leave(flow);
  }
  describe_loss(flow, what);
  report_loss(flow, what, flow->pending.lost + LOST_TRUSTED - flow->now.wall);
  return leave(flow);
}

/* The record as just loaded is in hand. Under the lock this starts a refresh, without it it asks for the lock. */
static struct flow_action judge(struct flow *flow)
{
  struct record *record = &flow->record;
  bool dead;
  if (flow->goal != FLOW_REFRESH && fresh(flow, record))
    return settle(flow);
  take(flow, record);
  if (flow->goal == FLOW_TOKEN && record->access_token && !record->bearer && flow->now.wall < record->expires_at &&
      !record_implausible(record, flow->now.wall))
    return not_bearer(flow);
  if (flow->goal == FLOW_LOOK || flow->goal == FLOW_KEEP)
    return leave(flow);
  hear_of_setback(flow);
  bool held = held_back(flow, &dead);
  if (held && !superseded(flow, dead)) {
    fail(flow, flow->setback.code, flow->setback.message);
    return leave(flow);
  }
  if (is_known_lost(flow))
    return lost_already(flow);
  if (missing_setting(flow))
    return fail_and_leave(flow, CODE_CONFIG, missing_setting(flow));
  if (!flow->locked)
    return lock(flow);
  if (superseded(flow, dead))
    return start_from_configured(flow);
  return record->refresh_token ? mark(flow) : grantless(flow);
}

static struct flow_action judge_empty(struct flow *flow)
{
  bool dead;
  record_free(&flow->record);
  if (flow->goal == FLOW_LOOK || flow->goal == FLOW_KEEP)
    return leave(flow);
  if (!flow->settings->refresh_token)
    return empty(flow);
  if (held_back(flow, &dead)) {
    fail(flow, flow->setback.code, flow->setback.message);
    return leave(flow);
  }
  if (missing_setting(flow))
    return fail_and_leave(flow, CODE_CONFIG, missing_setting(flow));
  return flow->locked ? start_from_configured(flow) : lock(flow);
}

static struct flow_action loaded(struct flow *flow, const struct flow_event *event)
{
  if (event->result == FLOW_FAILED)
    return fail_and_leave(flow, event->code, event->text);
  if (event->result == FLOW_NONE)
    return judge_empty(flow);
  if (read_record(flow, event))
    return judge(flow);
  return flow->looks < LOOK_PAUSES ? wait(flow, TORN_PAUSE, look_pauses[flow->looks++]) : damaged(flow);
}

/* ---- the lock ---- */

static struct flow_action lock(struct flow *flow)
{
  return step(flow, LOCKING, FLOW_LOCK);
}

static struct flow_action lock_is_stuck(struct flow *flow)
{
  char message[FLOW_MESSAGE];
  snprintf(message, sizeof message,
           "Another process has held the lock of the token storage %s for %.0f seconds. %s Find and end that process; "
           "its lock ends with it.",
           flow->settings->storage, flow->now.steady - flow->started, kept);
  return fail_and_leave(flow, CODE_LOCKED, message);
}

static struct flow_action lock_is_busy(struct flow *flow)
{
  double waited = flow->now.steady - flow->started;
  /* once for all flights that meet the same holder */
  if (flow->busy_since == 0)
    flow->busy_since = flow->now.steady;
  double busy = flow->now.steady - flow->busy_since;
  if (flow->goal == FLOW_TOKEN && alive(flow) && busy >= flow->settings->refresh_wait) {
    fail(flow, CODE_LOCKED, "");
    return finish(flow);
  }
  if (waited >= flow->settings->lock_timeout || flow->now.steady >= flow->deadline)
    return lock_is_stuck(flow);
  flow->lock_pause = fmin(LOCK_PAUSE_MOST, fmax(LOCK_PAUSE_FIRST, flow->lock_pause * 2));
  struct flow_action action = wait(flow, LOCK_PAUSE, backoff(1, flow->lock_pause, flow->lock_pause, &flow->random));
  action.for_others = true;
  return action;
}

static struct flow_action locked(struct flow *flow, const struct flow_event *event)
{
  if (event->result == FLOW_BUSY)
    return lock_is_busy(flow);
  if (event->result == FLOW_FAILED)
    return fail_and_leave(flow, event->code, event->text);
  flow->locked = true;
  flow->busy_since = 0;
  return step(flow, LOADING, FLOW_LOAD);
}

/* ---- the refresh ---- */

/* Ask what became of a request, but not before it has had its time to arrive: "not spent" would else be true for a
 * moment only. */
static struct flow_action let_it_settle(struct flow *flow)
{
  return wait(flow, ASK_PAUSE, SETTLE_TIME);
}

/* The process that set the mark may have died just now, unless no request can have taken so long. */
static struct flow_action recover(struct flow *flow)
{
  double age = flow->now.wall - flow->pending.since;
  flow->recovering = flow->doubted = true;
  return fabs(age) > 2 * flow->settings->timeout + SETTLE_TIME ? introspect(flow) : let_it_settle(flow);
}

static struct flow_action mark(struct flow *flow)
{
  if (!flow->recovering && record_pending(&flow->record, &flow->settings->world, &flow->pending))
    return recover(flow);
  flow->pending = (struct pending){.since = flow->now.wall, .pid = flow->settings->pid};
  snprintf(flow->pending.host, sizeof flow->pending.host, "%s", flow->settings->host);
  record_hash(&flow->settings->world, flow->record.refresh_token, flow->pending.refresh_token);
  if (!record_mark(&flow->record, &flow->pending, NULL))
    return out_of_memory(flow);
  return save(flow, MARKING, &flow->record);
}

static struct flow_action send(struct flow *flow)
{
  /* the zone's data is read from the disk now, and not between the answer and its save */
  struct civil unused;
  (void)flow->settings->world.to_local(flow->now.wall, &unused);
  request_free(&flow->request);
  if (!request_refresh(&flow->request, &flow->settings->credentials, flow->record.refresh_token))
    return out_of_memory(flow);
  return post(flow, POSTING);
}

static struct flow_action marked(struct flow *flow, const struct flow_event *event)
{
  if (event->result == FLOW_FAILED)
    return fail_and_leave(flow, event->code, event->text);
  return send(flow);
}

/* What the server has just said to this process holds for the others too. What else may go wrong is of this process's
 * own making: its network, its settings. */
static void tell_setback(struct flow *flow)
{
  const struct setback *setback = &flow->setback;
  bool said_by_server = setback->code == CODE_RATE_LIMITED || setback->code == CODE_SERVER_ERROR;
  if (!said_by_server || strcmp(setback->of, flow->pending.refresh_token) != 0)
    return;
  struct failure failure = {.since = flow->now.wall,
                            .code = setback->code,
                            .until = flow->now.wall + setback->until - flow->now.steady,
                            .message = setback->message};
  (void)record_fail(&flow->record, &flow->settings->world, &failure);
}

/* The refresh token was not spent: the mark is taken back, unless an earlier POST is still in doubt. */
static struct flow_action clear_and_leave(struct flow *flow)
{
  if (flow->doubted)
    return leave(flow);
  record_unmark(&flow->record);
  tell_setback(flow);
  return save(flow, CLEARING, &flow->record);
}

static void hold_unsaved(struct flow *flow)
{
  flow->unsaved = flow->record;
  flow->record = (struct record){0};
}

static struct flow_action kept_or_not(struct flow *flow, const struct flow_event *event)
{
  if (event->result != FLOW_FAILED) {
    record_free(&flow->unsaved);
    return leave(flow);
  }
  char message[FLOW_MESSAGE];
  snprintf(message, sizeof message,
           "%s The new tokens are in this process's memory and in use; saving them is tried again at every call. Do "
           "not kill this process before it has succeeded.",
           event->text);
  note(flow, FLOW_SAVE_FAILED, event->code, message);
  remember_trouble(flow, event->code, message);
  if (!flow->unsaved.json)
    hold_unsaved(flow);
  return leave(flow);
}

static struct flow_action keep(struct flow *flow, const struct answer *answer)
{
  /* a clock that was set back during the flight would otherwise lengthen the token's life */
  double since = fmin(flow->sent.wall, flow->now.wall);
  if (!record_rotate(&flow->record, answer, since, &flow->settings->world))
    return out_of_memory(flow);
  take(flow, &flow->record);
  setback_forget(&flow->setback);
  succeed(flow);
  flow->last_refresh = flow->now.wall;
  note(flow, FLOW_REFRESHED, CODE_OK, "");
  if (flow->recovering)
    note(flow, FLOW_RECOVERED, CODE_OK, "");
  if (answer->code != CODE_OK) {
    struct pending spent = flow->pending;
    record_hash(&flow->settings->world, flow->record.refresh_token, flow->pending.refresh_token);
    fail_refresh(flow, answer->code, answer->message, "What the server sent is stored.", -1);
    flow->pending = spent;
  }
  return save(flow, KEEPING, &flow->record);
}

static struct flow_action not_spent(struct flow *flow, const struct answer *answer)
{
  double pause = backoff(++flow->failures, RETRY_FIRST, RETRY_MOST, &flow->random);
  pause = fmax(pause, answer->retry_after);
  bool serve = flow->goal == FLOW_TOKEN && alive(flow);
  if (!serve && flow->now.steady + pause < flow->deadline)
    return wait(flow, PAUSING, pause);
  fail_refresh(flow, answer->code, answer->message, kept, answer->retry_after);
  return clear_and_leave(flow);
}

static struct flow_action resend_or_give_up(struct flow *flow, const struct answer *answer)
{
  static const char *const safe =
      "The refresh token may have been spent; what is known is stored, and the next call settles it.";
  if (flow->resends++ == 0 && flow->now.steady + RESEND_PAUSE < flow->deadline)
    return wait(flow, PAUSING, RESEND_PAUSE);
  fail_refresh(flow, answer->code, answer->message, safe, -1);
  return leave(flow);
}

/* Bytes as a string, the first of them if there are many; a NUL among them does not end it. */
static char *copy_text(const char *bytes, size_t length)
{
  length = length < RAW_MOST ? length : RAW_MOST;
  char *text = calloc(1, length + 1);
  for (size_t i = 0; text && i < length; i++)
    text[i] = bytes[i] ? bytes[i] : ' ';
  return text;
}

static struct flow_action doubt(struct flow *flow, const struct answer *answer, const struct reply *reply)
{
  flow->doubted = true;
  fail(flow, answer->code, answer->message);
  if (!flow->settings->introspection)
    return resend_or_give_up(flow, answer);
  if (reply->delivery != REPLY_RECEIVED)
    return let_it_settle(flow);
  if (reply->cut || reply->length == 0)
    return introspect(flow);
  char *raw = copy_text(reply->body, reply->length);
  bool noted = raw && record_mark(&flow->record, &flow->pending, raw);
  secret_free(raw);
  return noted ? save(flow, NOTING, &flow->record) : introspect(flow);
}

static struct flow_action refused(struct flow *flow, const struct answer *answer)
{
  if (answer->code == CODE_INVALID_GRANT && flow->doubted)
    return relook(flow); /* what put it into doubt says more */
  fail(flow, answer->code, answer->message);
  if (answer->code == CODE_INVALID_GRANT)
    return relook(flow);
  fail_refresh(flow, answer->code, answer->message, kept, -1);
  return clear_and_leave(flow);
}

static struct flow_action posted(struct flow *flow, const struct flow_event *event)
{
  struct answer answer;
  struct answer_context known = context(flow);
  struct flow_action next;
  answer_read(&answer, event->reply, &known);
  request_free(&flow->request);
  switch (answer.kind) {
  case ANSWER_TOKENS:
    next = keep(flow, &answer);
    break;
  case ANSWER_REFUSAL:
    next = refused(flow, &answer);
    break;
  case ANSWER_NOT_SPENT:
    next = not_spent(flow, &answer);
    break;
  default:
    next = doubt(flow, &answer, event->reply);
  }
  answer_free(&answer);
  return next;
}

/* ---- settling doubt ---- */

static struct flow_action introspect(struct flow *flow)
{
  if (!flow->settings->introspection)
    return save(flow, MARKING, &flow->record); /* still the other's mark: whose request counted will not be known */
  request_free(&flow->request);
  if (!request_introspection(&flow->request, &flow->settings->credentials, flow->record.refresh_token))
    return out_of_memory(flow);
  return post(flow, ASKING);
}

static struct flow_action unspent_after_all(struct flow *flow)
{
  static const char *const safe = "The refresh token is still alive, and stored.";
  flow->doubted = false;
  bool serve = flow->goal == FLOW_TOKEN && alive(flow) && !flow->recovering;
  if (!serve && flow->resends++ < RESENDS_MOST && flow->now.steady < flow->deadline) {
    /* the other's mark says nothing of this process, and does not show that it can save */
    if (flow->recovering && flow->resends == 1)
      return mark(flow);
    return send(flow);
  }
  if (flow->outcome.code == CODE_OK)
    fail(flow, CODE_TIMEOUT, "A process left a refresh unfinished, and to settle that took all the time of this call");
  char what[FLOW_MESSAGE + 32];
  int length = snprintf(what, sizeof what, "%s", flow->outcome.message);
  if (flow->resends > 1)
    snprintf(what + length, sizeof what - (size_t)length, " (%d times in a row)", flow->resends);
  fail_refresh(flow, flow->outcome.code, what, safe, -1);
  return clear_and_leave(flow);
}

static struct flow_action asked(struct flow *flow, const struct flow_event *event)
{
  enum code code;
  char message[ANSWER_MESSAGE];
  struct answer_context known = context(flow);
  enum introspection said = answer_introspection(event->reply, &known, &code, message);
  request_free(&flow->request);
  if (said == INTROSPECTION_ACTIVE)
    return unspent_after_all(flow);
  if (said == INTROSPECTION_INACTIVE)
    return relook(flow);
  double pause = backoff(++flow->failures, RETRY_FIRST, RETRY_MOST, &flow->random);
  bool serve = flow->goal == FLOW_TOKEN && alive(flow);
  if (!serve && flow->now.steady + pause < flow->deadline)
    return wait(flow, ASK_PAUSE, pause);
  fail_refresh(flow, code, message,
               "An earlier refresh did not finish, and the server could not be asked what became of it; everything is "
               "stored, and the next call asks again.",
               -1);
  return leave(flow);
}

/* ---- before the grant is called dead ---- */

static struct flow_action relook(struct flow *flow)
{
  flow->looks = 0;
  return step(flow, RELOOKING, FLOW_LOAD);
}

static struct flow_action bury(struct flow *flow)
{
  char what[FLOW_MESSAGE];
  if (superseded(flow, true))
    return start_from_configured(flow);
  if (flow->doubted) {
    describe_loss(flow, what);
    report_loss(flow, what, -1);
    flow->pending.lost = flow->now.wall;
    return record_mark(&flow->record, &flow->pending, NULL) ? save(flow, CLEARING, &flow->record) : leave(flow);
  }
  snprintf(what, sizeof what, "%s", flow->outcome.message);
  fail_refresh(flow, CODE_INVALID_GRANT, what, "The stored record is kept as it is.", -1);
  record_refuse_origin(&flow->record);
  return clear_and_leave(flow);
}

static bool is_another(const struct record *known, const struct record *found)
{
  const char *ours = known->refresh_token, *theirs = found->refresh_token;
  return theirs ? strcmp(ours, theirs) != 0 : found->access_token != NULL;
}

static struct flow_action go_on_with(struct flow *flow, struct record *found)
{
  record_free(&flow->record);
  flow->record = *found;
  flow->recovering = flow->doubted = false;
  flow->resends = 0;
  return judge(flow);
}

static struct flow_action relooked(struct flow *flow, const struct flow_event *event)
{
  struct record found = {0};
  if (event->result == FLOW_OK && record_read(&found, event->text, &flow->settings->world)) {
    if (is_another(&flow->record, &found))
      return go_on_with(flow, &found);
    record_free(&found);
  }
  if (flow->looks < LOOK_PAUSES)
    return wait(flow, RELOOK_PAUSE, look_pauses[flow->looks++]);
  return bury(flow);
}

/* ---- tokens that could not be saved ---- */

/* The refresh token that was spent for the unsaved one. */
static bool was_spent(const struct flow *flow, const struct record *found)
{
  char hash[RECORD_HASH];
  if (!found->refresh_token)
    return false;
  record_hash(&flow->settings->world, found->refresh_token, hash);
  return strcmp(hash, flow->pending.refresh_token) == 0;
}

static struct flow_action checked(struct flow *flow, const struct flow_event *event)
{
  struct record found = {0};
  bool read = event->result == FLOW_OK && record_read(&found, event->text, &flow->settings->world);
  if (read && !was_spent(flow, &found) && is_another(&flow->unsaved, &found)) {
    record_free(&flow->unsaved);
    return go_on_with(flow, &found);
  }
  record_free(&found);
  return save(flow, SAVING, &flow->unsaved);
}

static struct flow_action saved(struct flow *flow, const struct flow_event *event)
{
  if (event->result == FLOW_FAILED) {
    if (flow->goal != FLOW_TOKEN || !alive(flow))
      fail(flow, event->code, event->text);
    return finish(flow);
  }
  note(flow, FLOW_SAVED, CODE_OK, "");
  flow->record = flow->unsaved;
  flow->unsaved = (struct record){0};
  return judge(flow);
}

/* ---- the machine ---- */

static struct flow_action begin(struct flow *flow)
{
  if (flow->unsaved.json)
    return flow->goal == FLOW_LOOK ? finish(flow) : step(flow, CHECKING, FLOW_LOAD);
  if (flow->goal == FLOW_KEEP)
    return finish(flow);
  /* a flight that was broken off may have left the lock to this one */
  return step(flow, flow->locked ? LOADING : LOOKING, FLOW_LOAD);
}

struct flow_action flow_next(struct flow *flow, const struct flow_event *event)
{
  flow->now = event->now;
  switch (flow->state) {
  case IDLE:
    return begin(flow);
  case CHECKING:
    return checked(flow, event);
  case SAVING:
    return saved(flow, event);
  case LOOKING:
  case LOADING:
    return loaded(flow, event);
  case LOCKING:
    return locked(flow, event);
  case LOCK_PAUSE:
    return step(flow, LOOKING, FLOW_LOAD);
  case MARKING:
    return marked(flow, event);
  case POSTING:
    return posted(flow, event);
  case PAUSING:
    return send(flow);
  case KEEPING:
    return kept_or_not(flow, event);
  case NOTING:
  case ASK_PAUSE:
    return introspect(flow);
  case ASKING:
    return asked(flow, event);
  case RELOOKING:
    return relooked(flow, event);
  case TORN_PAUSE:
    return step(flow, flow->locked ? LOADING : LOOKING, FLOW_LOAD);
  case RELOOK_PAUSE:
    return step(flow, RELOOKING, FLOW_LOAD);
  case CLEARING:
    return leave(flow);
  default:
    flow->locked = false;
    return finish(flow);
  }
}

struct flow *flow_new(const struct flow_settings *settings, uint64_t seed)
{
  struct flow *flow = calloc(1, sizeof *flow);
  if (!flow)
    return NULL;
  flow->settings = settings;
  flow->random = seed;
  return flow;
}

void flow_free(struct flow *flow)
{
  if (!flow)
    return;
  clear_flight(flow);
  record_free(&flow->unsaved);
  secret_free(flow->token);
  for (int i = 0; i < BANNED; i++) {
    secret_free(flow->banned[i]);
    secret_free(flow->hearsay[i]);
  }
  free(flow);
}

void flow_start(struct flow *flow, enum flow_goal goal, struct moment now, double deadline)
{
  flow->state = IDLE;
  flow->goal = goal;
  flow->now = now;
  flow->started = now.steady;
  flow->deadline = deadline;
  flow->recovering = flow->doubted = false;
  flow->resends = flow->failures = flow->looks = 0;
  flow->lock_pause = 0;
  flow->outcome = (struct flow_outcome){0};
}

const struct flow_outcome *flow_outcome(const struct flow *flow)
{
  return &flow->outcome;
}

const char *flow_token(const struct flow *flow)
{
  struct pending pending;
  bool doubtful = flow->record.json && record_pending(&flow->record, &flow->settings->world, &pending);
  return doubtful ? NULL : flow->token;
}

bool flow_uses(const struct flow *flow, const char *token)
{
  return flow->token && strcmp(flow->token, token) == 0;
}

void flow_reject(struct flow *flow, const char *token)
{
  if (flow_uses(flow, token))
    ban(flow, token);
  else if (!is_banned(flow, token))
    keep_in(flow->hearsay, &flow->hearsays, token);
}

void flow_disown(struct flow *flow)
{
  record_free(&flow->unsaved);
  flow->locked = false;
}

void flow_abandon(struct flow *flow, bool unlocked)
{
  if (flow->state == KEEPING && !flow->unsaved.json)
    hold_unsaved(flow);
  if (unlocked)
    flow->locked = false;
  flow->state = IDLE;
  clear_flight(flow);
  fail(flow, CODE_NOT_READY,
       "The refresh was broken off. What it had stored stays, and the next call goes on from there.");
}

bool flow_unsaved(const struct flow *flow)
{
  return flow->unsaved.json != NULL;
}

struct flow_status flow_status(const struct flow *flow)
{
  return (struct flow_status){.has_token = flow->token != NULL,
                              .refresh_at = flow->refresh_at,
                              .dead_at = flow->dead_at,
                              .lifetime = flow->lifetime,
                              .unsaved = flow_unsaved(flow),
                              .last_refresh = flow->last_refresh,
                              .last_code = flow->trouble,
                              .last_error = flow->trouble_message,
                              .retry_at = flow->setback.of[0] ? flow->setback.until : 0};
}

const char *flow_note_name(enum flow_note_kind kind)
{
  static const char *const names[] = {
      [FLOW_REFRESHED] = "refreshed",     [FLOW_ADOPTED] = "adopted", [FLOW_REFRESH_FAILED] = "refresh_failed",
      [FLOW_SAVE_FAILED] = "save_failed", [FLOW_SAVED] = "saved",     [FLOW_RECOVERED] = "recovered",
      [FLOW_REJECTED] = "rejected",       [FLOW_LOST] = "lost"};
  return names[kind];
}
