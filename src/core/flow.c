#include "flow.h"

#include "quote.h"
#include "secret.h"
#include "served.h"
#include "server.h"
#include "setback.h"
#include "words.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Seconds. */
#define CONNECT_MOST 10.0
#define CONNECT_LEAST 1.0
#define LOCK_PAUSE_FIRST 0.001
#define LOCK_PAUSE_MOST 0.05
#define RETRY_FIRST 0.5
#define RETRY_MOST 8.0
#define RESEND_PAUSE 2.0  /* a provider without introspection is given this long to settle */
#define SETTLE_TIME 1.0   /* a request may still be on its way when its sender is gone: it is given so long */
#define GATEWAY_TIME 5.0  /* a gateway may have given up on a server that is still at work: that is given so long */
#define LOST_TRUSTED 60.0 /* what another process was told of a lost refresh is believed this long */
#define SERVE_LEAST 1.0   /* a token that is served after a failure is not looked after again sooner */

enum { RESENDS_MOST = 3, REVIEWS_MOST = 3, RAW_MOST = 64 * 1024 };

/* Another writer's record may be on its way to the disk: look again after these pauses before anything is
 * called lost. */
static const double look_pauses[] = {0.025, 0.05, 0.1};
enum { LOOK_PAUSES = sizeof look_pauses / sizeof *look_pauses };

enum state {
  IDLE,
  RELEASING, /* giving back the lock that a flight which was broken off has left */
  CHECKING,  /* loading, to see whether the unsaved record is still the newest */
  SAVING,    /* saving the unsaved record */
  LOOKING,   /* loading without the lock */
  LOCKING,
  LOCK_PAUSE, /* another holds the lock */
  LOADING,    /* loading under the lock */
  TORN_PAUSE, /* what was loaded is no record: a writer that knows no rename may be at it */
  MARKING,    /* saving the pending mark */
  POSTING,    /* the refresh is under way */
  PAUSING,    /* before the refresh is sent again */
  RESENDING,  /* loading, to see whether the refresh token is still the one to send */
  KEEPING,    /* saving the new tokens */
  NOTING,     /* saving a senseless answer with the mark */
  ASKING,     /* introspection is under way */
  ASK_PAUSE,  /* before it is asked again */
  RELOOKING,  /* loading again before the grant is called dead */
  RELOOK_PAUSE,
  REVIEWING, /* loading what another writer stored just before a save of ours */
  CLEARING,  /* saving the record without the mark */
  UNLOCKING
};

struct flow {
  const struct flow_settings *settings;
  uint64_t random;

  /* between flights */
  struct served served;
  double busy_since; /* steady seconds: the lock has been another's since; 0: it was free */
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
  int resends, failures, looks, reviews;
  enum state reviewed; /* the save that another writer came before */
  struct flow_outcome outcome;
};

static struct answer_context context(const struct flow *flow);
static struct flow_action lock(struct flow *flow);
static struct flow_action mark(struct flow *flow);
static struct flow_action judge(struct flow *flow);
static struct flow_action introspect(struct flow *flow);
static struct flow_action relook(struct flow *flow);
static struct flow_action judge_empty(struct flow *flow);
static struct flow_action go_on_with(struct flow *flow, struct record *found);

/* ---- what is known of a token ---- */

static bool alive(const struct flow *flow)
{
  return served_lives(&flow->served, flow->now);
}

/* A token beside a pending mark may die at any moment, or be dead already. */
static bool fresh(const struct flow *flow, const struct record *record)
{
  struct pending pending;
  return served_allows(&flow->served, record) &&
         flow->now.wall < record_refresh_at(record, flow->settings->refresh_before) &&
         !served_is_due(&flow->served, record, flow->now) && !record_implausible(record, flow->now.wall) &&
         !record_pending(record, &flow->settings->world, &pending);
}

static void take(struct flow *flow, const struct record *record)
{
  served_take(&flow->served, record, flow->settings->refresh_before, flow->now);
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
  words_capitalize(outcome->message);
  if (*message)
    remember_trouble(flow, code, outcome->message);
}

/* What went wrong earlier in the flight is made good. */
static void succeed(struct flow *flow)
{
  fail(flow, CODE_OK, "");
  remember_trouble(flow, CODE_OK, "");
}

/* The app that the record says it is of, as servers answer with their client_id; NULL: it does not say, it is this
 * client's, or it may not be shown. */
static const char *other_app(const struct flow *flow)
{
  const char *app = json_string(flow->record.json, "client_id"), *ours = flow->settings->credentials.client_id;
  struct answer_context known = context(flow);
  const struct quote_secrets secrets = {known.secrets, sizeof known.secrets / sizeof *known.secrets, NULL};
  return app && *app && ours && strcmp(app, ours) != 0 && quote_is_safe(app, &secrets) ? app : NULL;
}

static bool is_refusal(enum code code)
{
  return code == CODE_INVALID_CLIENT || code == CODE_INVALID_GRANT || code == CODE_LOST_ROTATION ||
         code == CODE_BAD_RESPONSE;
}

/* A failure of the server or of the way to it: it is remembered for the refresh token. */
static void fail_refresh(struct flow *flow, enum code code, const char *what, const char *safe, double server_wait)
{
  char message[FLOW_MESSAGE];
  words_explain(message, flow->settings, code, what, safe);
  if (is_refusal(code) && other_app(flow))
    words_name_app(message, flow->settings, other_app(flow));
  fail(flow, code, message);
  setback_remember(&flow->setback, flow->pending.refresh_token, code, message, server_wait, flow->now.steady,
                   &flow->random);
  note(flow, code == CODE_LOST_ROTATION ? FLOW_LOST : FLOW_REFRESH_FAILED, code, message);
}

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
  if (wanted && outcome->code == CODE_OK && !flow->served.token)
    fail(flow, CODE_BAD_RESPONSE, "The server issued the very access token again that the API does not accept.");
  bool serve = wanted && (outcome->code == CODE_OK || (flow->goal == FLOW_TOKEN && alive(flow)));
  if (serve) {
    double again = fmax(SERVE_LEAST, flow->setback.until - flow->now.steady);
    outcome->refresh_at = outcome->code == CODE_OK ? flow->served.refresh_at : moment_after(flow->now, again);
    if (flow->unsaved.json)
      outcome->refresh_at = flow->now; /* every call tries to save */
    outcome->dead_at = flow->served.dead_at;
    outcome->token = flow->served.token;
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

static void hold_unsaved(struct flow *flow)
{
  flow->unsaved = flow->record;
  flow->record = (struct record){0};
}

/* The newest tokens are in this process alone, and so the lock stays with it. */
static struct flow_action keep_in_memory(struct flow *flow, const char *why)
{
  char message[FLOW_MESSAGE];
  words_unsaved(message, why);
  note(flow, FLOW_SAVE_FAILED, CODE_STORAGE, message);
  remember_trouble(flow, CODE_STORAGE, message);
  if (!flow->unsaved.json)
    hold_unsaved(flow);
  return leave(flow);
}

static const char *const no_memory_to_write = "There is not enough memory to store what the server sent.";

static struct flow_action save(struct flow *flow, enum state state, const struct record *record)
{
  secret_free(flow->text);
  flow->text = record_write(record);
  if (!flow->text)
    return state == KEEPING ? keep_in_memory(flow, no_memory_to_write) : out_of_memory(flow);
  struct flow_action action = step(flow, state, FLOW_SAVE);
  action.record = flow->text;
  action.spends = state == MARKING ? flow->pending.refresh_token : NULL;
  return action;
}

static struct flow_action post(struct flow *flow, enum state state)
{
  double left = fmax(flow->deadline - flow->now.steady, 0);
  struct flow_action action = step(flow, state, FLOW_POST);
  action.request = &flow->request;
  action.seconds = fmin(CONNECT_MOST, fmax(left, CONNECT_LEAST));
  action.limit = fmax(flow->deadline + flow->settings->timeout - flow->now.steady, CONNECT_LEAST);
  action.send_by = moment_after(flow->now, action.limit);
  flow->sent = flow->now;
  return action;
}

static struct answer_context context(const struct flow *flow)
{
  return (struct answer_context){
      .now = flow->now.wall,
      .default_lifetime = flow->settings->default_lifetime,
      .sent = flow->record.refresh_token,
      .parameters = flow->settings->credentials.parameters,
      .secrets = {flow->settings->credentials.client_secret, flow->record.refresh_token, flow->record.access_token,
                  flow->served.token, flow->settings->refresh_token,
                  flow->request.authorization ? flow->request.authorization + strlen("Basic ") : NULL}};
}

/* ---- reading the record ---- */

static struct flow_action damaged(struct flow *flow)
{
  char message[FLOW_MESSAGE];
  words_damaged(message, flow->settings);
  return fail_and_leave(flow, CODE_STORAGE, message);
}

static struct flow_action empty(struct flow *flow)
{
  char message[FLOW_MESSAGE];
  words_empty(message, flow->settings);
  return fail_and_leave(flow, CODE_CONFIG, message);
}

static struct flow_action grantless(struct flow *flow)
{
  char message[FLOW_MESSAGE];
  words_grantless(message, flow->settings);
  return fail_and_leave(flow, CODE_INVALID_GRANT, message);
}

static bool is_foreign(const struct flow *flow)
{
  const char *server = record_server(&flow->record);
  return server && flow->settings->token_url && !server_is_same(server, flow->settings->token_url);
}

static struct flow_action foreign(struct flow *flow)
{
  char message[FLOW_MESSAGE];
  words_foreign(message, flow->settings, record_server(&flow->record));
  return fail_and_leave(flow, CODE_CONFIG, message);
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
  bool other = served_differs(&flow->served, &flow->record);
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

/* `trusted`: how many seconds it is not asked about again; negative: as after any failure. */
static void report_loss(struct flow *flow, const char *what, double trusted)
{
  served_ban(&flow->served, flow->record.access_token);
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
  words_lost(what, flow->settings, &flow->pending, flow->outcome.message);
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
  if (is_foreign(flow))
    return foreign(flow);
  hear_of_setback(flow);
  bool held = held_back(flow, &dead);
  if (held && !superseded(flow, dead)) {
    fail(flow, flow->setback.code, flow->setback.message);
    return leave(flow);
  }
  if (is_known_lost(flow))
    return lost_already(flow);
  if (words_missing_setting(flow->settings))
    return fail_and_leave(flow, CODE_CONFIG, words_missing_setting(flow->settings));
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
  if (words_missing_setting(flow->settings))
    return fail_and_leave(flow, CODE_CONFIG, words_missing_setting(flow->settings));
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

static struct flow_action lock_is_stuck(struct flow *flow, double busy)
{
  char message[FLOW_MESSAGE];
  struct pending mark;
  bool refreshing = record_pending(&flow->record, &flow->settings->world, &mark);
  words_lock_held(message, flow->settings, refreshing ? &mark : NULL, busy);
  return fail_and_leave(flow, CODE_LOCKED, message);
}

static struct flow_action lock_takes_too_long(struct flow *flow)
{
  char message[FLOW_MESSAGE];
  struct pending mark;
  bool refreshing = record_pending(&flow->record, &flow->settings->world, &mark);
  words_lock_waited_for(message, flow->settings, refreshing ? &mark : NULL);
  return fail_and_leave(flow, CODE_TIMEOUT, message);
}

/* No pause outlasts what it waits for. */
static struct flow_action wait_for_lock(struct flow *flow, double left)
{
  flow->lock_pause = fmin(LOCK_PAUSE_MOST, fmax(LOCK_PAUSE_FIRST, flow->lock_pause * 2));
  double pause = backoff(1, flow->lock_pause, flow->lock_pause, &flow->random);
  struct flow_action action = wait(flow, LOCK_PAUSE, fmin(pause, fmax(LOCK_PAUSE_FIRST, left)));
  action.for_others = true;
  return action;
}

static struct flow_action lock_is_busy(struct flow *flow)
{
  /* once for all flights that meet the same holder */
  if (flow->busy_since == 0)
    flow->busy_since = flow->now.steady;
  double busy = flow->now.steady - flow->busy_since;
  bool serves = flow->goal == FLOW_TOKEN && alive(flow);
  if (serves && busy >= flow->settings->refresh_wait) {
    fail(flow, CODE_LOCKED, "");
    return finish(flow);
  }
  if (busy >= flow->settings->lock_timeout)
    return lock_is_stuck(flow, busy);
  if (flow->now.steady >= flow->deadline)
    return lock_takes_too_long(flow);
  double left = fmin(flow->settings->lock_timeout - busy, flow->deadline - flow->now.steady);
  return wait_for_lock(flow, serves ? fmin(left, flow->settings->refresh_wait - busy) : left);
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

/* Ask what became of a request, but not before it has had its time: "not spent" would else be true for a moment
 * only. */
static struct flow_action let_it_settle(struct flow *flow)
{
  return wait(flow, ASK_PAUSE, fmin(fmax(flow->pending.settles, SETTLE_TIME), GATEWAY_TIME));
}

/* The flight that set the mark is long over, by both clocks of the machine that it was on. */
static bool is_long_over(const struct flow *flow)
{
  const struct pending *mark = &flow->pending;
  double by_wall = flow->now.wall - mark->since, by_steady = flow->now.steady - mark->steady;
  return mark->lasts > 0 && strcmp(mark->host, flow->settings->host) == 0 && fmin(by_wall, by_steady) > mark->lasts;
}

/* The process that set the mark may have died just now. */
static struct flow_action recover(struct flow *flow)
{
  flow->recovering = flow->doubted = true;
  if (is_long_over(flow))
    return introspect(flow);
  return let_it_settle(flow);
}

static struct flow_action mark(struct flow *flow)
{
  if (!flow->recovering && record_pending(&flow->record, &flow->settings->world, &flow->pending))
    return recover(flow);
  flow->pending = (struct pending){.since = flow->now.wall,
                                   .steady = flow->now.steady,
                                   .lasts = 2 * flow->settings->timeout + GATEWAY_TIME,
                                   .pid = flow->settings->pid};
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

/* Another writer may have spent the refresh token meanwhile, or brought a better one. */
static struct flow_action send_again(struct flow *flow)
{
  return step(flow, RESENDING, FLOW_LOAD);
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

static struct flow_action kept_or_not(struct flow *flow, const struct flow_event *event)
{
  if (event->result == FLOW_FAILED)
    return keep_in_memory(flow, event->text);
  record_free(&flow->unsaved);
  return leave(flow);
}

/* New tokens are in the record. */
static void arrived(struct flow *flow)
{
  take(flow, &flow->record);
  setback_forget(&flow->setback);
  succeed(flow);
  flow->last_refresh = flow->now.wall;
  note(flow, FLOW_REFRESHED, CODE_OK, "");
  if (flow->recovering)
    note(flow, FLOW_RECOVERED, CODE_OK, "");
}

/* What has arrived is not to be lost for want of memory. */
static struct flow_action keep_as_it_came(struct flow *flow, struct answer *answer)
{
  if (!record_replace(&flow->record, answer, &flow->settings->world))
    return out_of_memory(flow);
  arrived(flow);
  return keep_in_memory(flow, no_memory_to_write);
}

static struct flow_action keep(struct flow *flow, struct answer *answer)
{
  /* a clock that was set back during the flight would otherwise lengthen the token's life */
  double since = fmin(flow->sent.wall, flow->now.wall);
  if (!record_rotate(&flow->record, answer, since, &flow->settings->world))
    return keep_as_it_came(flow, answer);
  (void)record_set_server(&flow->record, flow->settings->token_url);
  arrived(flow);
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
  fail_refresh(flow, answer->code, answer->message, words_kept, answer->retry_after);
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
  flow->pending.settles = reply->status == 502 || reply->status == 504 ? GATEWAY_TIME : 0;
  if (reply->delivery != REPLY_RECEIVED && reply->length == 0)
    return let_it_settle(flow);
  char *raw = copy_text(reply->body, reply->cut ? 0 : reply->length);
  bool noted = raw && record_mark(&flow->record, &flow->pending, raw);
  secret_free(raw);
  return noted ? save(flow, NOTING, &flow->record) : let_it_settle(flow);
}

static struct flow_action refused(struct flow *flow, const struct answer *answer)
{
  if (answer->code == CODE_INVALID_GRANT && flow->doubted)
    return relook(flow); /* what put it into doubt says more */
  fail(flow, answer->code, answer->message);
  if (answer->code == CODE_INVALID_GRANT)
    return relook(flow);
  fail_refresh(flow, answer->code, answer->message, words_kept, -1);
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
    return send_again(flow);
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
  struct answer_context known = context(flow);
  struct introspection found = answer_introspection(event->reply, &known);
  request_free(&flow->request);
  if (found.said == INTROSPECTION_ACTIVE)
    return unspent_after_all(flow);
  if (found.said == INTROSPECTION_INACTIVE)
    return relook(flow);
  double pause = fmax(backoff(++flow->failures, RETRY_FIRST, RETRY_MOST, &flow->random), found.retry_after);
  bool serve = flow->goal == FLOW_TOKEN && alive(flow);
  if (!serve && found.transient && flow->now.steady + pause < flow->deadline)
    return wait(flow, ASK_PAUSE, pause);
  fail_refresh(flow, found.code, found.message,
               "An earlier refresh did not finish, and the server could not be asked what became of it; everything is "
               "stored, and the next call asks again.",
               found.retry_after);
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
  if (flow->doubted && record_salvage(&flow->record)) {
    flow->recovering = true;
    flow->doubted = false;
    return mark(flow);
  }
  if (flow->doubted) {
    words_lost(what, flow->settings, &flow->pending, flow->outcome.message);
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

/* The record as it was before the refresh under way, or the one whose tokens are not saved yet. */
static bool was_spent(const struct flow *flow, const struct record *found)
{
  char hash[RECORD_HASH];
  if (!found->refresh_token)
    return false;
  record_hash(&flow->settings->world, found->refresh_token, hash);
  return strcmp(hash, flow->pending.refresh_token) == 0;
}

static struct flow_action go_on_with(struct flow *flow, struct record *found)
{
  record_free(&flow->record);
  flow->record = *found;
  flow->recovering = flow->doubted = false;
  flow->resends = 0;
  return judge(flow);
}

enum finding { NO_RECORD, SAME_GRANT, ANOTHER };

/* What a LOAD found, held against the record in hand; ANOTHER is in `found`, for go_on_with. */
static enum finding compare(const struct flow *flow, const struct flow_event *event, struct record *found)
{
  *found = (struct record){0};
  if (event->result != FLOW_OK || !record_read(found, event->text, &flow->settings->world))
    return NO_RECORD;
  if (is_another(&flow->record, found) && !was_spent(flow, found))
    return ANOTHER;
  record_free(found);
  return SAME_GRANT;
}

static struct flow_action looked_before_sending(struct flow *flow, const struct flow_event *event)
{
  struct record found;
  if (event->result == FLOW_NONE)
    return judge_empty(flow);
  return compare(flow, event, &found) == ANOTHER ? go_on_with(flow, &found) : send(flow);
}

static struct flow_action relooked(struct flow *flow, const struct flow_event *event)
{
  struct record found;
  if (compare(flow, event, &found) == ANOTHER)
    return go_on_with(flow, &found);
  if (flow->looks < LOOK_PAUSES)
    return wait(flow, RELOOK_PAUSE, look_pauses[flow->looks++]);
  return bury(flow);
}

/* ---- tokens that could not be saved ---- */

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

/* ---- another writer came before a save ---- */

static struct flow_action review(struct flow *flow)
{
  flow->reviewed = flow->state;
  if (flow->state == MARKING)
    return step(flow, LOADING, FLOW_LOAD);
  if (flow->state == SAVING)
    return step(flow, CHECKING, FLOW_LOAD);
  return step(flow, REVIEWING, FLOW_LOAD);
}

/* Theirs is adopted; what is no record, or none any more, is not brought back for the sake of a mark. */
static struct flow_action reviewed(struct flow *flow, const struct flow_event *event)
{
  struct record found;
  enum finding finding = compare(flow, event, &found);
  if (finding == ANOTHER)
    return go_on_with(flow, &found);
  if (finding == SAME_GRANT || flow->reviewed == KEEPING)
    return save(flow, flow->reviewed, &flow->record);
  return flow->reviewed == NOTING ? let_it_settle(flow) : leave(flow);
}

/* Somebody else writes all the time: then it is as if it could not be written. */
static struct flow_event give_up_reviewing(const struct flow *flow)
{
  return (struct flow_event){.now = flow->now,
                             .result = FLOW_FAILED,
                             .code = CODE_STORAGE,
                             .text = "Another program keeps changing the token record."};
}

/* ---- the machine ---- */

static struct flow_action begin(struct flow *flow)
{
  if (flow->unsaved.json)
    return flow->goal == FLOW_LOOK ? finish(flow) : step(flow, CHECKING, FLOW_LOAD);
  if (flow->goal == FLOW_KEEP)
    return finish(flow);
  /* a flight that was broken off has left the lock, and it may be another's by now: a lease does not last */
  if (flow->locked)
    return step(flow, RELEASING, FLOW_UNLOCK);
  return step(flow, LOOKING, FLOW_LOAD);
}

struct flow_action flow_next(struct flow *flow, const struct flow_event *event)
{
  struct flow_event given_up;
  flow->now = event->now;
  if (event->result == FLOW_CHANGED && flow->reviews++ < REVIEWS_MOST)
    return review(flow);
  if (event->result == FLOW_CHANGED) {
    given_up = give_up_reviewing(flow);
    event = &given_up;
  }
  switch (flow->state) {
  case IDLE:
    return begin(flow);
  case RELEASING:
    flow->locked = false;
    return step(flow, LOOKING, FLOW_LOAD);
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
    return send_again(flow);
  case RESENDING:
    return looked_before_sending(flow, event);
  case KEEPING:
    return kept_or_not(flow, event);
  case NOTING:
    return let_it_settle(flow);
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
  case REVIEWING:
    return reviewed(flow, event);
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
  served_free(&flow->served);
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
  flow->resends = flow->failures = flow->looks = flow->reviews = 0;
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
  return doubtful ? NULL : flow->served.token;
}

bool flow_uses(const struct flow *flow, const char *token)
{
  return served_is(&flow->served, token);
}

void flow_reject(struct flow *flow, const char *token)
{
  served_reject(&flow->served, token);
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
  return (struct flow_status){.has_token = flow->served.token != NULL,
                              .refresh_at = flow->served.refresh_at,
                              .dead_at = flow->served.dead_at,
                              .lifetime = flow->served.lifetime,
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
