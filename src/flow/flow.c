#include "flow.h"

#include "../base/quote.h"
#include "../base/secret.h"
#include "../oauth/origin.h"
#include "../oauth/token.h"
#include "../record/readback.h"
#include "served.h"
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
#define RESEND_PAUSE 2.0      /* a provider without introspection is given this long to settle */
#define SETTLE_TIME 1.0       /* a request may still be on its way when its sender is gone: it is given so long */
#define GATEWAY_TIME 5.0      /* a gateway may have given up on a server that is still at work: that is given so long */
#define LOST_TRUSTED 60.0     /* what another process was told of a lost refresh is believed this long */
#define SERVE_LEAST 1.0       /* a token that is served after a failure is not looked after again sooner */
#define BACK_PAUSE_FIRST 0.01 /* a storage of the program's own may be behind: it is looked at again */
#define BACK_PAUSE_MOST 0.5
#define BACK_LEAST 1.0       /* one that has shown the mark at once is to show the new tokens within this */
#define ABSENCE 1.0          /* a step that takes longer than it should by more than this: the process did not run */
#define MARK_FRESH 5.0       /* a mark older than this is set anew before its refresh token is sent */
#define CLOCK_SLACK 60.0     /* clocks of two machines differ by this much without either being wrong */
#define OWNER_PAUSE_MOST 0.5 /* between two looks at a record whose lock was removed */

/* Of one flight: whatever a server or a storage says, it comes to an end. */
enum { RESENDS_MOST = 3, REVIEWS_MOST = 3, SPENDS_MOST = 6, TURNS_MOST = 32 };

enum { RAW_MOST = 64 * 1024, RESERVE = 64 * 1024, SPENT_KEPT = 64 };

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
  LOCK_PAUSE,    /* another holds the lock */
  LOADING,       /* loading under the lock */
  TORN_PAUSE,    /* what was loaded is no record: a writer that knows no rename may be at it */
  HOLDING,       /* getting hold of what the save of the answer will take */
  MARKING,       /* saving the pending mark */
  READING_BACK,  /* loading, to see whether the storage keeps the mark */
  BACK_PAUSE,    /* it does not yet */
  CONFIRMING,    /* loading, to see whether the storage gives out what the last save gave it */
  CONFIRM_PAUSE, /* it does not yet */
  ASKING_FIRST,  /* introspection says whether a refresh token that may be spent is to be sent at all */
  FIRST_PAUSE,   /* before it is asked again */
  OWNER_PAUSE,   /* a refresh may be under way under a lock that is gone */
  INHERITING,    /* locking, for tokens that a parent could not save */
  POSTING,       /* the refresh is under way */
  PAUSING,       /* before the refresh is sent again */
  RESENDING,     /* loading, to see whether the refresh token is still the one to send */
  KEEPING,       /* saving the new tokens */
  SALVAGING,     /* saving a refresh token that was found in a broken answer */
  NOTING,        /* saving a senseless answer with the mark */
  ASKING,        /* introspection is under way */
  ASK_PAUSE,     /* before it is asked again */
  RELOOKING,     /* loading again before the grant is called dead */
  RELOOK_PAUSE,
  REVIEWING,  /* loading what another writer stored just before a save of ours */
  CLEARING,   /* saving the record without the mark */
  STORING,    /* saving what a login gave */
  RETREATING, /* the same, under a lock that keeps nobody out any more */
  RELOCKING,  /* giving that lock back, for the one that has taken its place */
  UNLOCKING
};

struct flow {
  const struct flow_settings *settings;
  uint64_t random;

  /* between flights */
  struct served served;
  double busy_since; /* steady seconds: the lock has been another's since; 0: it was free */
  struct setback setback;
  struct setback start_setback; /* of the configured refresh token, while another grant is stored */
  uint64_t spent[SPENT_KEPT];   /* by this process, the last ones; fingerprints of their hashes, 0: none */
  int spends_known;
  char untold[RECORD_HASH]; /* the last of them, until a save has told the storage */
  bool telling;
  struct pending unsettled;       /* of the last request whose fate nobody has told; its hash is empty: there is none */
  bool inherited;                 /* what is unsaved is a parent's, which may save it itself */
  double marked_at, marks_last;   /* of this process's last mark: epoch seconds, and for how long it counts */
  char marked_under[80];          /* the lock that it was set under */
  double owner_since, owner_seen; /* a mark of another lock, and when it was seen first, by the steady clock */
  long owner_pid;
  bool configured_is_spent; /* a record that has come from the configured refresh token was seen, or it was sent */
  enum code trouble;        /* the last failure that no success has followed; CODE_OK: none */
  char trouble_message[FLOW_MESSAGE];
  struct record unsaved; /* the newest tokens, which could not be saved; the lock is held while it is here */
  bool locked;
  double last_refresh;

  /* this flight */
  enum state state;
  enum flow_step asked_for;
  enum flow_goal goal;
  struct moment now;
  double deadline, started;
  double started_at; /* epoch seconds */
  double takes;      /* seconds that the step under way may take by itself */
  struct record record;
  char lock[80], held[160]; /* what tells the lock from others; what the storage holds for the answer */
  struct pending pending;   /* the mark of the refresh under way */
  struct request request;
  char *text;         /* of the last SAVE */
  struct moment sent; /* just before the POST */
  double lock_pause;
  void *reserve;   /* memory for what has arrived, when there is no other */
  bool recovering; /* the mark is another flight's */
  bool marked;     /* it is this flight's */
  bool holds;      /* what the save of the answer will take */
  bool doubted;    /* a POST may have been spent, and nobody has said that it was not */
  bool unclear;    /* a POST was refused, by words that do not say whether the refresh token is dead */
  bool salvaged;   /* a refresh token was found in a broken answer */
  bool stops;      /* once that is saved */
  bool unnoted;    /* a broken answer could not be stored */
  bool allowed;    /* introspection has called the refresh token alive that was asked about first */
  bool deaf;       /* the introspection endpoint refuses to answer */
  bool starting;   /* asked about first: the configured refresh token, not the stored one */
  bool came_alive; /* the token lived when it was taken; a server may say that it never does */
  bool relocked;
  bool lags;           /* the storage gives out what it was given a while later */
  bool burying;        /* the stored grant is dead; the configured refresh token is looked at */
  bool keeps_mark;     /* it says who began the refresh in doubt */
  bool spent_before;   /* the stored refresh token, as far as this process or the storage knows */
  bool spent_for_sure; /* introspection says that it is dead */
  double back_pause, back_since;
  enum state confirms; /* the save that is looked for in the storage */
  int spends, turns;
  int resends, failures, looks, reviews;
  enum state reviewed; /* the save that another writer came before */
  struct answer given; /* what a login gave */
  bool replaces;       /* it takes the place of a grant that lives, too */
  bool given_is_spent; /* its refresh token is known to be */
  bool settled;        /* the refresh that was under way has had its time */
  struct flow_outcome outcome;
};

static struct flow_action bury(struct flow *flow);
static struct answer_context context(const struct flow *flow);
static struct flow_action lock(struct flow *flow);
static struct flow_action mark(struct flow *flow);
static struct flow_action judge(struct flow *flow);
static struct flow_action introspect(struct flow *flow);
static struct flow_action relook(struct flow *flow);
static struct flow_action judge_empty(struct flow *flow);
static struct flow_action go_on_with(struct flow *flow, struct record *found);
static bool held_back(struct flow *flow, bool *dead);
static struct flow_action judge_given(struct flow *flow);
static struct flow_action settle_for_given(struct flow *flow);
static struct flow_action asked_for_given(struct flow *flow, const struct introspection *found);
static struct flow_action give(struct flow *flow);
static struct flow_action give_over_damaged(struct flow *flow, const char *text);
static bool shows(const struct flow *flow, const struct flow_event *event, const struct record *given);

static const char keeps_changing[] = "Another program keeps changing the token record.";

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
  flow->came_alive = alive(flow);
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
  if (message != outcome->message)
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

/* What goes wrong with the configured refresh token says nothing of the stored one. */
static struct setback *setback_in_hand(struct flow *flow)
{
  bool beside = (flow->starting && flow->record.json) || record_is_trial(&flow->record);
  return beside ? &flow->start_setback : &flow->setback;
}

/* It is remembered for the refresh token. */
static void report_failure(struct flow *flow, enum code code, const char *message, double server_wait)
{
  fail(flow, code, message);
  setback_remember(setback_in_hand(flow), flow->pending.refresh_token, code, message, server_wait, flow->now.steady,
                   &flow->random);
  if (flow->starting) /* it counts, too, once something else is stored */
    flow->start_setback = *setback_in_hand(flow);
  note(flow, code == CODE_LOST_ROTATION ? FLOW_LOST : FLOW_REFRESH_FAILED, code, message);
}

/* A failure of the server or of the way to it. */
static void fail_refresh(struct flow *flow, enum code code, const char *what, const char *safe, double server_wait)
{
  char message[FLOW_MESSAGE];
  words_explain(message, flow->settings, code, what, safe);
  if (is_refusal(code) && other_app(flow))
    words_name_app(message, flow->settings, other_app(flow));
  if (flow->deaf)
    words_add(message, words_no_introspection);
  report_failure(flow, code, message, server_wait);
}

/* ---- single steps ---- */

static struct flow_action step(struct flow *flow, enum state state, enum flow_step what)
{
  flow->state = state;
  flow->asked_for = what;
  flow->takes = 0;
  return (struct flow_action){.step = what};
}

static struct flow_action wait(struct flow *flow, enum state state, double seconds)
{
  struct flow_action action = step(flow, state, FLOW_WAIT);
  action.seconds = flow->takes = seconds;
  return action;
}

/* Memory that was set aside for what has arrived. False: it was used already. */
static bool use_reserve(struct flow *flow)
{
  bool there = flow->reserve != NULL;
  free(flow->reserve);
  flow->reserve = NULL;
  return there;
}

/* False: out of memory. */
static bool set_reserve_aside(struct flow *flow)
{
  if (!flow->reserve)
    flow->reserve = malloc(RESERVE);
  return flow->reserve != NULL;
}

static bool time_is_over(const struct flow *flow)
{
  return flow->now.steady >= flow->deadline;
}

/* Whether introspection can say what became of a refresh token. */
static bool can_ask(const struct flow *flow)
{
  return flow->settings->introspection && !flow->deaf;
}

static void clear_flight(struct flow *flow)
{
  (void)use_reserve(flow);
  record_free(&flow->record);
  request_free(&flow->request);
  answer_free(&flow->given);
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
  if (wanted && outcome->code == CODE_OK && flow->came_alive && !alive(flow))
    fail(flow, CODE_TIMEOUT, "The call took longer than the token lives. Nothing is lost: a later call refreshes it.");
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
  if (flow->goal == FLOW_STORE && outcome->code == CODE_OK && alive(flow)) {
    outcome->token = flow->served.token;
    outcome->refresh_at = flow->served.refresh_at;
    outcome->dead_at = flow->served.dead_at;
  }
  clear_flight(flow);
  return step(flow, IDLE, FLOW_DONE);
}

static void hold_unsaved(struct flow *flow)
{
  flow->unsaved = flow->record;
  flow->record = (struct record){0};
}

static struct flow_action leave(struct flow *flow)
{
  /* a broken answer that could not be stored may hold the only refresh token that lives */
  if (flow->locked && flow->unnoted && flow->doubted && !flow->unsaved.json && flow->record.json)
    hold_unsaved(flow);
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
  return fail_and_leave(flow, CODE_STORAGE,
                        flow->spends > 0
                            ? "There is not enough memory to go on. The refresh token may have been spent; the "
                              "next call settles it. Free some memory, and try again."
                            : "There is not enough memory to go on. The stored tokens are untouched.");
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

static bool brings_tokens(enum state saving)
{
  return saving == KEEPING || saving == SALVAGING;
}

static struct flow_action save(struct flow *flow, enum state state, const struct record *record)
{
  secret_free(flow->text);
  flow->text = record_write(record);
  if (!flow->text && use_reserve(flow))
    flow->text = record_write(record);
  if (!flow->text)
    return brings_tokens(state) ? keep_in_memory(flow, no_memory_to_write) : out_of_memory(flow);
  struct flow_action action = step(flow, state, FLOW_SAVE);
  action.record = flow->text;
  action.spends = state == MARKING ? flow->pending.refresh_token : NULL;
  action.announces = state == STORING;
  action.spent = flow->untold[0] ? flow->untold : NULL;
  flow->telling = action.spent != NULL;
  if (state != MARKING)
    flow->holds = false;
  return action;
}

static struct flow_action post(struct flow *flow, enum state state)
{
  double left = fmax(flow->deadline - flow->now.steady, 0);
  struct flow_action action = step(flow, state, FLOW_POST);
  action.request = &flow->request;
  action.seconds = fmin(CONNECT_MOST, fmax(left, CONNECT_LEAST));
  action.limit = fmax(flow->deadline + flow->settings->timeout - flow->now.steady, CONNECT_LEAST);
  flow->takes = action.limit;
  action.send_by = moment_after(flow->now, fmax(left, CONNECT_LEAST));
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
  return server && flow->settings->token_url && !origin_is_same(server, flow->settings->token_url);
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

/* Whether the record holds what is configured and nothing that has come since; a salvaged refresh token is more. */
static bool is_as_given(const struct flow *flow)
{
  char hash[RECORD_HASH];
  const struct record *record = &flow->record;
  const char *origin = json_string(record->json, "origin");
  if (!origin || !record->refresh_token || record->access_token || record->lifetime > 0 || record_is_login(record))
    return false;
  record_hash(&flow->settings->world, record->refresh_token, hash);
  return strcmp(origin, hash) == 0;
}

static bool forbids(const struct setback *setback, const char hash[RECORD_HASH], double now)
{
  return setback_is_death(setback, hash) || setback_holds(setback, hash, now);
}

/* Whether the configured refresh token is to be tried: the user has logged in again since the grant was started. */
static bool superseded(const struct flow *flow, bool dead)
{
  const char *configured = flow->settings->refresh_token;
  struct pending pending;
  bool untried = is_as_given(flow) && !record_pending(&flow->record, &flow->settings->world, &pending);
  if (!configured || !(dead || untried || !flow->record.refresh_token) ||
      record_came_from(&flow->record, configured, &flow->settings->world))
    return false;
  char hash[RECORD_HASH];
  record_hash(&flow->settings->world, configured, hash);
  /* it may have failed when nothing was stored yet */
  return !forbids(&flow->start_setback, hash, flow->now.steady) && !forbids(&flow->setback, hash, flow->now.steady);
}

static struct flow_action begin_from_configured(struct flow *flow)
{
  struct record before = flow->record;
  flow->starting = flow->recovering = flow->doubted = flow->unclear = flow->marked = flow->spent_before = false;
  flow->keeps_mark = false; /* it is of the stored refresh token */
  flow->resends = 0;
  fail(flow, CODE_OK, ""); /* what was said so far, was said of another refresh token */
  bool started = record_start(&flow->record, flow->settings->refresh_token, &before, &flow->settings->world);
  record_free(&before);
  return started ? mark(flow) : out_of_memory(flow);
}

/* What is stored was never tried, and nothing is known against it. */
static bool stored_may_live(struct flow *flow)
{
  bool dead;
  (void)held_back(flow, &dead);
  return !flow->burying && is_as_given(flow) && !dead;
}

/* Nobody has called it alive that could know, and it was spent before: it is not sent again. */
static struct flow_action not_again(struct flow *flow)
{
  char message[FLOW_MESSAGE];
  bool stored = flow->record.json != NULL;
  if (!flow->starting) {
    words_set_back(message, flow->settings);
    fail(flow, CODE_INVALID_GRANT, message);
    return relook(flow);
  }
  words_used_before(message, flow->settings, stored);
  if (flow->deaf)
    words_add(message, words_no_introspection);
  if (stored && stored_may_live(flow)) {
    setback_remember(&flow->start_setback, flow->pending.refresh_token, CODE_INVALID_GRANT, message, -1,
                     flow->now.steady, &flow->random);
    flow->starting = flow->spent_for_sure = false;
    return mark(flow);
  }
  if (!stored || !flow->burying) {
    report_failure(flow, CODE_INVALID_GRANT, message, -1);
    return leave(flow);
  }
  /* the stored grant is dead, and is called so */
  setback_remember(&flow->start_setback, flow->pending.refresh_token, CODE_INVALID_GRANT, message, -1, flow->now.steady,
                   &flow->random);
  record_hash(&flow->settings->world, flow->record.refresh_token, flow->pending.refresh_token);
  flow->starting = false;
  return bury(flow);
}

/* A refresh token that may be spent is sent when introspection calls it alive. */
static struct flow_action ask_first(struct flow *flow)
{
  const char *token = flow->starting ? flow->settings->refresh_token : flow->record.refresh_token;
  record_hash(&flow->settings->world, token, flow->pending.refresh_token);
  if (!can_ask(flow))
    return not_again(flow);
  request_free(&flow->request);
  if (!request_introspection(&flow->request, &flow->settings->credentials, token))
    return out_of_memory(flow);
  return post(flow, ASKING_FIRST);
}

/* Another folder or program may have spent it, or an earlier record of this storage that is gone. */
static struct flow_action start_from_configured(struct flow *flow)
{
  flow->starting = true;
  return can_ask(flow) || flow->configured_is_spent ? ask_first(flow) : begin_from_configured(flow);
}

static struct flow_action asked_first(struct flow *flow, const struct flow_event *event)
{
  struct answer_context known = context(flow);
  struct introspection found = answer_introspection(event->reply, &known);
  request_free(&flow->request);
  flow->deaf = found.said == INTROSPECTION_NONE && found.refused;
  if (found.said == INTROSPECTION_INACTIVE) {
    flow->spent_for_sure = true;
    return flow->starting ? relook(flow) : not_again(flow);
  }
  if (flow->deaf && (flow->starting ? flow->configured_is_spent : flow->spent_before))
    return flow->starting ? relook(flow) : not_again(flow);
  if (found.said == INTROSPECTION_ACTIVE || flow->deaf) {
    flow->allowed = true;
    return flow->starting ? begin_from_configured(flow) : mark(flow);
  }
  double pause = fmax(backoff(++flow->failures, RETRY_FIRST, RETRY_MOST, &flow->random), found.retry_after);
  if (found.transient && flow->now.steady + pause < flow->deadline)
    return wait(flow, FIRST_PAUSE, pause);
  fail_refresh(flow, found.code, found.message,
               event->reply->untrusted ? words_distrusted
                                       : "Whether the refresh token was used before could not be asked, so it was not "
                                         "sent; nothing was changed.",
               found.retry_after);
  return leave(flow);
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
  setback_forget(&flow->start_setback);
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
  struct pending mark;
  *dead = record_pending(&flow->record, &flow->settings->world, &mark) && mark.lost > 0;
  if (!flow->setback.of[0] || !candidate(flow))
    return false;
  record_hash(&flow->settings->world, candidate(flow), hash);
  *dead = *dead || setback_is_death(&flow->setback, hash);
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
  if (flow->goal == FLOW_STORE)
    return judge_given(flow);
  bool dead, for_use = flow->goal == FLOW_TOKEN || flow->goal == FLOW_REFRESH;
  if (is_foreign(flow))
    return for_use ? foreign(flow) : leave(flow);
  if (flow->goal != FLOW_REFRESH && fresh(flow, record))
    return settle(flow);
  take(flow, record);
  if (flow->goal == FLOW_TOKEN && record->access_token && !record->bearer && flow->now.wall < record->expires_at &&
      !record_implausible(record, flow->now.wall))
    return not_bearer(flow);
  if (!for_use)
    return leave(flow);
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
  if (flow->goal == FLOW_STORE)
    return judge_given(flow);
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

static bool is_listed(const char *hashes, const char *hash)
{
  return hashes && strstr(hashes, hash);
}

static bool was_spent_here(const struct flow *flow, const char *hash)
{
  uint64_t fingerprint = token_fingerprint(hash);
  for (int i = 0; i < SPENT_KEPT; i++)
    if (flow->spent[i] == fingerprint)
      return true;
  return false;
}

/* A record can vanish, or be set back, but not what was spent. Asked under the lock alone: there it counts, and there
 * what a hash takes is loaded. */
static void hear_of_spent(struct flow *flow, const struct flow_event *event)
{
  char hash[RECORD_HASH];
  const char *configured = flow->settings->refresh_token, *stored = flow->record.refresh_token;
  flow->spent_before = flow->given_is_spent = false;
  if (!flow->locked)
    return;
  const char *given = json_string(flow->given.fields, "refresh_token");
  if (given) {
    record_hash(&flow->settings->world, given, hash);
    flow->given_is_spent = was_spent_here(flow, hash) || is_listed(event->spent, hash);
  }
  if (configured) {
    record_hash(&flow->settings->world, configured, hash);
    bool is_successor = stored && strcmp(stored, configured) != 0 &&
                        record_came_from(&flow->record, configured, &flow->settings->world);
    if (is_successor || is_listed(event->spent, hash))
      flow->configured_is_spent = true;
  }
  if (stored) {
    record_hash(&flow->settings->world, stored, hash);
    flow->spent_before = was_spent_here(flow, hash) || is_listed(event->spent, hash);
  }
}

static struct flow_action loaded(struct flow *flow, const struct flow_event *event)
{
  if (event->result == FLOW_FAILED)
    return fail_and_leave(flow, event->code, event->text);
  record_free(&flow->record);
  bool read = event->result == FLOW_OK && read_record(flow, event);
  hear_of_spent(flow, event);
  if (event->result == FLOW_NONE)
    return judge_empty(flow);
  if (read)
    return judge(flow);
  if (flow->looks < LOOK_PAUSES)
    return wait(flow, TORN_PAUSE, look_pauses[flow->looks++]);
  return flow->goal == FLOW_STORE ? give_over_damaged(flow, event->text) : damaged(flow);
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
  snprintf(flow->lock, sizeof flow->lock, "%s", event->text ? event->text : "");
  return step(flow, flow->unsaved.json ? CHECKING : LOADING, FLOW_LOAD);
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

/* A token that the API did not accept is not to be handed out by another process either. False: out of memory. */
static bool tell_rejection(struct flow *flow)
{
  return served_allows(&flow->served, &flow->record) || !flow->record.bearer || record_reject(&flow->record);
}

/* Process and moment do not tell alone: containers number their processes alike, and who goes on with a refresh in
 * doubt leaves both in the mark. */
static bool is_own_mark(const struct flow *flow, const struct pending *mark)
{
  return mark->pid == flow->settings->pid && mark->since == flow->marked_at &&
         fabs(mark->lasts - flow->marks_last) < 0.001 && strcmp(mark->lock, flow->marked_under) == 0;
}

/* The mark was set under another lock than the one that is held: whoever set it may be at work. It is over when its time
 * has passed, by the clocks that it was noted by, or by this process's own since it first saw the mark. */
static bool owner_may_live(struct flow *flow)
{
  const struct pending *mark = &flow->pending;
  if (is_own_mark(flow, mark) || !*mark->lock || !*flow->lock || strcmp(mark->lock, flow->lock) == 0)
    return false;
  if (flow->owner_since != mark->since || flow->owner_pid != mark->pid) {
    flow->owner_since = mark->since;
    flow->owner_pid = mark->pid;
    flow->owner_seen = flow->now.steady;
  }
  /* the clocks of this machine tell; those of another differ, and this one's may have started anew since */
  double watched = flow->now.steady - flow->owner_seen, by_wall = flow->now.wall - mark->since;
  bool here = strcmp(mark->host, flow->settings->host) == 0 && flow->now.steady >= mark->steady;
  bool over = here ? is_long_over(flow) : by_wall - CLOCK_SLACK > mark->lasts;
  return !over && watched < mark->lasts;
}

static struct flow_action wait_for_owner(struct flow *flow)
{
  char message[FLOW_MESSAGE];
  double waited = flow->now.steady - flow->owner_seen;
  bool serves = flow->goal == FLOW_TOKEN && alive(flow);
  words_owner_may_live(message, flow->settings, &flow->pending);
  if (serves && waited >= flow->settings->refresh_wait) {
    fail(flow, CODE_LOCKED, message); /* the token may die before the lock is given back */
    return leave(flow);
  }
  if (time_is_over(flow))
    return fail_and_leave(flow, CODE_LOCKED, message);
  return wait(flow, OWNER_PAUSE, fmin(OWNER_PAUSE_MOST, fmax(LOCK_PAUSE_FIRST, flow->deadline - flow->now.steady)));
}

/* The process that set the mark may have died just now. */
static struct flow_action recover(struct flow *flow)
{
  if (owner_may_live(flow))
    return wait_for_owner(flow);
  flow->recovering = flow->doubted = true;
  if (is_long_over(flow))
    return flow->goal == FLOW_STORE ? settle_for_given(flow) : introspect(flow);
  return let_it_settle(flow);
}

/* The mark is taken back: nothing was sent, or nothing that counts. */
static struct flow_action take_mark_back(struct flow *flow, enum code code, const char *message)
{
  fail(flow, code, message);
  if (flow->goal == FLOW_TOKEN && alive(flow))
    note(flow, FLOW_REFRESH_FAILED, code, message);
  if (!flow->marked || flow->doubted)
    return leave(flow);
  record_unmark(&flow->record);
  return save(flow, CLEARING, &flow->record);
}

static struct flow_action send_nothing_more(struct flow *flow)
{
  if (flow->outcome.code != CODE_OK) {
    char message[FLOW_MESSAGE];
    fail_refresh(flow, flow->outcome.code, flow->outcome.message, words_kept, -1);
    memcpy(message, flow->outcome.message, sizeof message);
    return take_mark_back(flow, flow->outcome.code, message);
  }
  return take_mark_back(flow, CODE_TIMEOUT,
                        "The time of this call was over before the refresh could be sent. The stored tokens are "
                        "untouched; a later call tries again.");
}

static struct flow_action put_mark(struct flow *flow)
{
  double lasts = 2 * flow->settings->timeout + GATEWAY_TIME;
  if (flow->keeps_mark) {
    /* it tells of another's refresh, and for how long whoever goes on with it may be at work */
    flow->pending.lasts = fmax(flow->now.wall - flow->pending.since, 0) + lasts;
  } else {
    flow->pending = (struct pending){
        .since = flow->now.wall, .steady = flow->now.steady, .lasts = lasts, .pid = flow->settings->pid};
    snprintf(flow->pending.host, sizeof flow->pending.host, "%s", flow->settings->host);
    record_hash(&flow->settings->world, flow->record.refresh_token, flow->pending.refresh_token);
  }
  flow->marked_at = floor(flow->pending.since * 1000) / 1000; /* as the record keeps it */
  flow->marks_last = flow->pending.lasts;
  snprintf(flow->marked_under, sizeof flow->marked_under, "%s", flow->lock);
  snprintf(flow->pending.lock, sizeof flow->pending.lock, "%s", flow->lock);
  snprintf(flow->pending.held, sizeof flow->pending.held, "%s", flow->held);
  if (!set_reserve_aside(flow) || !tell_rejection(flow) || !record_mark(&flow->record, &flow->pending, NULL))
    return out_of_memory(flow);
  return save(flow, MARKING, &flow->record);
}

/* A storage can forget the mark of a request in doubt, but not the process that sent it. */
static bool is_in_doubt(struct flow *flow)
{
  char hash[RECORD_HASH];
  if (record_pending(&flow->record, &flow->settings->world, &flow->pending))
    return true;
  if (!flow->unsettled.refresh_token[0] || flow->allowed)
    return false;
  record_hash(&flow->settings->world, flow->record.refresh_token, hash);
  if (strcmp(flow->unsettled.refresh_token, hash) != 0)
    return false;
  flow->pending = flow->unsettled;
  return true;
}

static struct flow_action mark(struct flow *flow)
{
  if (!flow->recovering && !flow->marked && is_in_doubt(flow))
    return recover(flow);
  if (flow->spent_before && !flow->allowed && !flow->recovering && !flow->marked)
    return ask_first(flow);
  if (time_is_over(flow) || flow->spends >= SPENDS_MOST)
    return send_nothing_more(flow);
  return flow->holds ? put_mark(flow) : step(flow, HOLDING, FLOW_HOLD);
}

static struct flow_action held(struct flow *flow, const struct flow_event *event)
{
  if (event->result == FLOW_FAILED)
    return take_mark_back(flow, event->code, event->text);
  flow->holds = true;
  snprintf(flow->held, sizeof flow->held, "%s", event->text ? event->text : "");
  return put_mark(flow);
}

static struct flow_action send(struct flow *flow)
{
  /* whoever finds the mark reckons from its time */
  double age = fmax(flow->now.steady - flow->pending.steady, flow->now.wall - flow->pending.since);
  if (age > MARK_FRESH && !flow->keeps_mark)
    return mark(flow);
  /* the zone's data is read from the disk now, and not between the answer and its save */
  struct civil unused;
  (void)flow->settings->world.to_local(flow->now.wall, &unused);
  request_free(&flow->request);
  if (!set_reserve_aside(flow) ||
      !request_refresh(&flow->request, &flow->settings->credentials, flow->record.refresh_token))
    return out_of_memory(flow);
  flow->spends++;
  flow->unsettled = flow->pending;
  return post(flow, POSTING);
}

/* Another writer may have spent the refresh token meanwhile, or brought a better one. */
static struct flow_action send_again(struct flow *flow)
{
  return step(flow, RESENDING, FLOW_LOAD);
}

/* A mark that was found is replaced. A storage of the program's own may lag, and have shown the record of a while ago. */
static struct flow_action mark_anew(struct flow *flow)
{
  return flow->settings->reads_back ? send_again(flow) : mark(flow);
}

/* ---- the mark is there ---- */

static struct flow_action marked(struct flow *flow, const struct flow_event *event)
{
  if (event->result == FLOW_FAILED)
    return fail_and_leave(flow, event->code, event->text);
  flow->marked = true;
  if (event->result == FLOW_BUSY) {
    if (flow->recovering) /* the mark says more than this flight's own */
      return step(flow, RELOCKING, FLOW_UNLOCK);
    record_unmark(&flow->record);
    return save(flow, RETREATING, &flow->record);
  }
  flow->back_pause = BACK_PAUSE_FIRST;
  return flow->settings->reads_back ? step(flow, READING_BACK, FLOW_LOAD) : send(flow);
}

/* Somebody has removed the lock: the one that is there now is asked for. */
static struct flow_action retreated(struct flow *flow)
{
  char message[FLOW_MESSAGE];
  flow->locked = flow->holds = flow->marked = false;
  if (!flow->relocked) {
    flow->relocked = true;
    return lock(flow);
  }
  snprintf(message, sizeof message,
           "The lock file of %s is removed again and again, so that nothing keeps two processes from refreshing at the "
           "same time. Nothing was sent. Let nobody remove files that end in .lock.",
           flow->settings->storage);
  return fail_and_leave(flow, CODE_STORAGE, message);
}

/* A storage may be behind for a while, such as a replica. */
static struct flow_action read_back(struct flow *flow, const struct flow_event *event)
{
  char fault[160], message[FLOW_MESSAGE];
  const char *text = event->result == FLOW_OK ? event->text : NULL;
  if (event->result == FLOW_FAILED)
    return take_mark_back(flow, event->code, event->text);
  if (readback_same(flow->text, text, fault, sizeof fault))
    return send(flow);
  if (!time_is_over(flow)) {
    flow->lags = true;
    double pause = fmin(flow->back_pause, fmax(LOCK_PAUSE_FIRST, flow->deadline - flow->now.steady));
    flow->back_pause = fmin(BACK_PAUSE_MOST, 2 * flow->back_pause);
    return wait(flow, BACK_PAUSE, pause);
  }
  words_not_kept(message, flow->settings, fault);
  return take_mark_back(flow, CODE_STORAGE, message);
}

static bool is_configured(const struct flow *flow, const char *hash)
{
  char configured[RECORD_HASH];
  if (!flow->settings->refresh_token)
    return false;
  record_hash(&flow->settings->world, flow->settings->refresh_token, configured);
  return strcmp(configured, hash) == 0;
}

static void know_as_spent(struct flow *flow, const char *hash)
{
  if (!was_spent_here(flow, hash))
    flow->spent[flow->spends_known++ % SPENT_KEPT] = token_fingerprint(hash);
}

static void settle_doubt(struct flow *flow)
{
  flow->unsettled = (struct pending){0};
}

static void remember_spent(struct flow *flow)
{
  char hash[RECORD_HASH];
  settle_doubt(flow);
  if (flow->record.refresh_token)
    record_hash(&flow->settings->world, flow->record.refresh_token, hash);
  else
    hash[0] = '\0';
  if (strcmp(hash, flow->pending.refresh_token) == 0)
    return; /* a server that does not rotate */
  know_as_spent(flow, flow->pending.refresh_token);
  snprintf(flow->untold, sizeof flow->untold, "%s", flow->pending.refresh_token);
  flow->configured_is_spent = flow->configured_is_spent || is_configured(flow, flow->pending.refresh_token);
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
  settle_doubt(flow);
  if (is_configured(flow, flow->pending.refresh_token))
    flow->configured_is_spent = false;
  record_unmark(&flow->record);
  tell_setback(flow);
  (void)tell_rejection(flow);
  return save(flow, CLEARING, &flow->record);
}

static struct flow_action kept(struct flow *flow)
{
  record_free(&flow->unsaved);
  return leave(flow);
}

/* A storage of the program's own may say that it has saved them, and not have done it. */
static struct flow_action confirm(struct flow *flow, enum state save)
{
  flow->confirms = save;
  flow->back_pause = BACK_PAUSE_FIRST;
  flow->back_since = flow->now.steady;
  return step(flow, CONFIRMING, FLOW_LOAD);
}

static struct flow_action kept_or_not(struct flow *flow, const struct flow_event *event)
{
  if (event->result == FLOW_FAILED)
    return keep_in_memory(flow, event->text);
  return flow->settings->reads_back ? confirm(flow, KEEPING) : kept(flow);
}

/* New tokens are in the record. */
static void arrived(struct flow *flow)
{
  remember_spent(flow);
  take(flow, &flow->record);
  setback_forget(&flow->setback);
  setback_forget(&flow->start_setback);
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
  if (!record_rotate(&flow->record, answer, since, &flow->settings->world) &&
      !(use_reserve(flow) && record_rotate(&flow->record, answer, since, &flow->settings->world)))
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
  flow->spends--;
  if (!flow->doubted)
    settle_doubt(flow);
  double pause = backoff(++flow->failures, RETRY_FIRST, RETRY_MOST, &flow->random);
  pause = fmax(pause, answer->retry_after);
  bool serve = flow->goal == FLOW_TOKEN && alive(flow);
  if (!serve && flow->now.steady + pause < flow->deadline)
    return wait(flow, PAUSING, pause);
  fail_refresh(flow, answer->code, answer->message, words_kept, answer->retry_after);
  return clear_and_leave(flow);
}

/* No retry makes anybody vouch for the server. */
static struct flow_action distrusted(struct flow *flow, const struct answer *answer)
{
  flow->spends--;
  fail_refresh(flow, answer->code, answer->message, words_distrusted, -1);
  return clear_and_leave(flow);
}

/* As clients without introspection do (RFC 6749): once, after a pause. */
static struct flow_action resend_or_give_up(struct flow *flow)
{
  static const char *const safe =
      "The refresh token may have been spent; what is known is stored, and the next call settles it.";
  if (flow->resends++ == 0 && flow->now.steady + RESEND_PAUSE < flow->deadline)
    return wait(flow, PAUSING, RESEND_PAUSE);
  fail_refresh(flow, flow->outcome.code, flow->outcome.message, safe, -1);
  return leave(flow);
}

/* A refresh token came in a broken answer, and is the record's now. It is used once a flight: a server that breaks every
 * answer would have it rotate for ever. */
static struct flow_action go_on_with_salvaged(struct flow *flow)
{
  static const char *const safe = "The refresh token that came with it is stored.";
  static const char *const earlier = "the answer to an earlier refresh made no sense";
  bool again = flow->salvaged;
  remember_spent(flow);
  (void)record_remember_spent(&flow->record, flow->pending.refresh_token);
  flow->salvaged = flow->recovering = true;
  flow->doubted = flow->marked = flow->spent_before = flow->keeps_mark = false;
  flow->stops = again || time_is_over(flow);
  if (flow->stops) {
    struct pending spent = flow->pending;
    record_hash(&flow->settings->world, flow->record.refresh_token, flow->pending.refresh_token);
    fail_refresh(flow, CODE_BAD_RESPONSE, *flow->outcome.message ? flow->outcome.message : earlier, safe, -1);
    flow->pending = spent;
  }
  return save(flow, SALVAGING, &flow->record);
}

static struct flow_action salvage_kept(struct flow *flow)
{
  return flow->stops ? leave(flow) : mark(flow);
}

static struct flow_action salvage_kept_or_not(struct flow *flow, const struct flow_event *event)
{
  if (event->result == FLOW_FAILED) {
    if (flow->outcome.code == CODE_OK) /* there is no access token with it */
      fail(flow, event->code, event->text);
    return keep_in_memory(flow, event->text);
  }
  return flow->settings->reads_back && flow->stops ? confirm(flow, SALVAGING) : salvage_kept(flow);
}

/* With nobody to ask what became of the refresh. What came of the answer is in the mark. */
static struct flow_action settle_alone(struct flow *flow)
{
  return record_salvage(&flow->record) ? go_on_with_salvaged(flow) : resend_or_give_up(flow);
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

/* Of an answer that is too long to be kept: the refresh token that is in it. */
static char *copy_essence(const struct flow *flow, const struct reply *reply)
{
  cJSON *essence = cJSON_CreateObject();
  char *found = answer_salvage(reply->body, reply->length, flow->record.refresh_token);
  bool put = essence && found && json_set_string(essence, "refresh_token", found);
  char *text = put ? json_write(essence) : NULL;
  secret_free(found);
  json_free(essence);
  return text;
}

static char *copy_answer(const struct flow *flow, const struct reply *reply)
{
  if (reply->delivery != REPLY_RECEIVED && reply->length == 0)
    return NULL;
  size_t length = reply->cut ? 0 : reply->length;
  char *essence = length > RAW_MOST ? copy_essence(flow, reply) : NULL;
  return essence ? essence : copy_text(reply->body, length);
}

static bool brings_successor(const struct flow *flow, const struct reply *reply)
{
  char *found = reply->cut ? NULL : answer_salvage(reply->body, reply->length, flow->record.refresh_token);
  secret_free(found);
  return found != NULL;
}

static struct flow_action doubt(struct flow *flow, const struct answer *answer, const struct reply *reply)
{
  flow->doubted = true;
  flow->configured_is_spent = flow->configured_is_spent || is_configured(flow, flow->pending.refresh_token);
  fail(flow, answer->code, answer->message);
  flow->pending.settles = reply->status == 502 || reply->status == 504 ? GATEWAY_TIME : 0;
  if (brings_successor(flow, reply))
    know_as_spent(flow, flow->pending.refresh_token);
  char *raw = copy_answer(flow, reply);
  bool noted = raw && record_mark(&flow->record, &flow->pending, raw);
  if (raw && !noted) {
    (void)use_reserve(flow);
    noted = record_mark(&flow->record, &flow->pending, raw);
  }
  secret_free(raw);
  if (!can_ask(flow))
    return settle_alone(flow);
  return noted ? save(flow, NOTING, &flow->record) : let_it_settle(flow);
}

static struct flow_action refused(struct flow *flow, const struct answer *answer)
{
  if (!answer->refused_grant) {
    fail_refresh(flow, answer->code, answer->message, words_kept, -1);
    return clear_and_leave(flow);
  }
  flow->unclear = answer->code != CODE_INVALID_GRANT;
  /* what put it into doubt says more */
  if (!flow->doubted || (flow->unclear && flow->outcome.code == CODE_OK))
    fail(flow, answer->code, answer->message);
  if (flow->doubted)
    return relook(flow);
  return flow->unclear && can_ask(flow) ? introspect(flow) : relook(flow);
}

static struct flow_action posted(struct flow *flow, const struct flow_event *event)
{
  struct answer answer;
  struct answer_context known = context(flow);
  struct flow_action next;
  answer_read(&answer, event->reply, &known);
  if (answer.kind == ANSWER_DOUBT && use_reserve(flow)) {
    answer_free(&answer); /* it may have been for want of memory */
    answer_read(&answer, event->reply, &known);
  }
  request_free(&flow->request);
  switch (answer.kind) {
  case ANSWER_TOKENS:
    next = keep(flow, &answer);
    break;
  case ANSWER_REFUSAL:
    next = refused(flow, &answer);
    break;
  case ANSWER_NOT_SPENT:
    next = event->reply->untrusted ? distrusted(flow, &answer) : not_spent(flow, &answer);
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
  if (!can_ask(flow) && record_salvage(&flow->record))
    return go_on_with_salvaged(flow);
  if (!can_ask(flow) && flow->spent_before)
    return not_again(flow); /* an old copy, with its mark */
  if (!can_ask(flow)) {
    flow->keeps_mark = flow->recovering; /* whose request counted will not be known */
    return mark_anew(flow);
  }
  request_free(&flow->request);
  if (!request_introspection(&flow->request, &flow->settings->credentials, flow->record.refresh_token))
    return out_of_memory(flow);
  return post(flow, ASKING);
}

static struct flow_action unspent_after_all(struct flow *flow)
{
  static const char *const safe = "The refresh token is still alive, and stored.";
  flow->doubted = false;
  settle_doubt(flow);
  if (is_configured(flow, flow->pending.refresh_token))
    flow->configured_is_spent = false;
  bool serve = flow->goal == FLOW_TOKEN && alive(flow) && !flow->recovering;
  if (!serve && flow->resends++ < RESENDS_MOST && flow->now.steady < flow->deadline) {
    /* the other's mark says nothing of this process, and does not show that it can save */
    if (flow->recovering && flow->resends == 1)
      return mark_anew(flow);
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

/* A refusal in unknown words, of a refresh token that is alive: it was the request's fault. */
static struct flow_action refused_for_other_reasons(struct flow *flow)
{
  char what[FLOW_MESSAGE];
  flow->unclear = false;
  snprintf(what, sizeof what, "%s", flow->outcome.message);
  fail_refresh(flow, flow->outcome.code, what, "The refresh token is still alive, and stored.", -1);
  return clear_and_leave(flow);
}

static struct flow_action nobody_to_ask(struct flow *flow)
{
  flow->deaf = true;
  if (flow->unclear)
    return relook(flow);
  return flow->recovering ? introspect(flow) : settle_alone(flow);
}

static struct flow_action not_answered(struct flow *flow, const struct introspection *found)
{
  double pause = fmax(backoff(++flow->failures, RETRY_FIRST, RETRY_MOST, &flow->random), found->retry_after);
  bool serve = flow->goal == FLOW_TOKEN && alive(flow);
  if (!serve && found->transient && flow->now.steady + pause < flow->deadline)
    return wait(flow, ASK_PAUSE, pause);
  if (flow->unclear) {
    fail_refresh(flow, flow->outcome.code, flow->outcome.message, words_kept, found->retry_after);
    return clear_and_leave(flow);
  }
  fail_refresh(flow, found->code, found->message,
               "An earlier refresh did not finish, and the server could not be asked what became of it; everything is "
               "stored, and the next call asks again.",
               found->retry_after);
  return leave(flow);
}

static struct flow_action asked(struct flow *flow, const struct flow_event *event)
{
  struct answer_context known = context(flow);
  struct introspection found = answer_introspection(event->reply, &known);
  request_free(&flow->request);
  if (flow->goal == FLOW_STORE)
    return asked_for_given(flow, &found);
  if (found.said == INTROSPECTION_ACTIVE)
    return flow->unclear ? refused_for_other_reasons(flow) : unspent_after_all(flow);
  if (found.said == INTROSPECTION_NONE)
    return found.refused ? nobody_to_ask(flow) : not_answered(flow, &found);
  flow->spent_for_sure = true;
  if (flow->unclear)
    flow->outcome.code = CODE_INVALID_GRANT;
  flow->unclear = false;
  return relook(flow);
}

/* ---- before the grant is called dead ---- */

static struct flow_action relook(struct flow *flow)
{
  flow->looks = 0;
  return step(flow, RELOOKING, FLOW_LOAD);
}

/* The server has carried the refresh out, and its answer is nowhere. */
static struct flow_action lose(struct flow *flow)
{
  char what[FLOW_MESSAGE];
  words_lost(what, flow->settings, &flow->pending, flow->outcome.message);
  report_loss(flow, what, -1);
  flow->pending.lost = flow->now.wall;
  return record_mark(&flow->record, &flow->pending, NULL) ? save(flow, CLEARING, &flow->record) : leave(flow);
}

/* The configured refresh token is of no use either: the grant that was put aside for it is the record again. */
static struct flow_action give_trial_up(struct flow *flow)
{
  char what[FLOW_MESSAGE];
  snprintf(what, sizeof what, "%s", flow->outcome.message);
  bool lost = flow->doubted && !flow->unclear;
  if (lost)
    words_lost(what, flow->settings, &flow->pending, flow->outcome.message);
  fail_refresh(flow, lost ? CODE_LOST_ROTATION : flow->outcome.code, what,
               "The grant that was stored before is kept as it was.", -1);
  bool dead = flow->doubted || flow->spent_for_sure;
  return record_restore(&flow->record, dead, &flow->settings->world) ? save(flow, CLEARING, &flow->record)
                                                                     : leave(flow);
}

/* Before another grant takes the place of this one: what is known of it stays with it. */
static struct flow_action try_configured(struct flow *flow)
{
  char what[FLOW_MESSAGE];
  if (!flow->burying) {
    bool lost = flow->doubted && !flow->unclear;
    enum code code = lost ? CODE_LOST_ROTATION : (flow->unclear ? CODE_BAD_RESPONSE : CODE_INVALID_GRANT);
    words_explain(what, flow->settings, code, flow->outcome.message, "");
    setback_remember(&flow->setback, flow->pending.refresh_token, code, what, -1, flow->now.steady, &flow->random);
    flow->pending.lost = lost ? flow->now.wall : 0;
    if (!flow->doubted || !record_mark(&flow->record, &flow->pending, NULL))
      record_unmark(&flow->record);
  }
  flow->burying = true;
  flow->spent_for_sure = false;
  return start_from_configured(flow);
}

static struct flow_action bury(struct flow *flow)
{
  static const char *const safe = "The stored record is kept as it is.";
  static const char *const unclear =
      "The stored record is kept as it is. If the refresh token has been revoked or has expired, only a new login "
      "helps: "
      "configure the refresh token that you get (LUCID_REFRESH_TOKEN, or the option refresh_token).";
  static const char *const unclear_of_account =
      "The stored record is kept as it is. If the refresh token has been revoked or has expired, only a new login "
      "helps: store its answer with client:store(answer, account).";
  char what[FLOW_MESSAGE];
  if (flow->goal == FLOW_STORE)
    return give(flow);
  if (flow->starting)
    return not_again(flow);
  if (flow->doubted && record_salvage(&flow->record))
    return go_on_with_salvaged(flow);
  if (record_is_trial(&flow->record))
    return give_trial_up(flow);
  if (superseded(flow, true))
    return try_configured(flow);
  if (flow->doubted && !flow->unclear)
    return lose(flow);
  snprintf(what, sizeof what, "%s", flow->outcome.message);
  enum code code = flow->outcome.code == CODE_OK ? CODE_INVALID_GRANT : flow->outcome.code;
  fail_refresh(flow, code, what, !flow->unclear ? safe : flow->settings->account ? unclear_of_account : unclear, -1);
  if (!flow->unclear)
    record_refuse_origin(&flow->record);
  return clear_and_leave(flow);
}

/* Either may be NULL. */
static bool same_token(const char *one, const char *other)
{
  return one && other ? strcmp(one, other) == 0 : !one && !other;
}

static bool is_another(const struct record *known, const struct record *found)
{
  const char *ours = known->refresh_token, *theirs = found->refresh_token;
  if (!ours)
    return true;
  return theirs ? strcmp(ours, theirs) != 0 : found->access_token != NULL;
}

/* The record as it was before the refresh under way, or before an earlier one of this process. */
static bool was_spent(const struct flow *flow, const struct record *found)
{
  char hash[RECORD_HASH];
  if (!found->refresh_token)
    return false;
  record_hash(&flow->settings->world, found->refresh_token, hash);
  return strcmp(hash, flow->pending.refresh_token) == 0 || was_spent_here(flow, hash);
}

static struct flow_action go_on_with(struct flow *flow, struct record *found)
{
  record_free(&flow->record);
  flow->record = *found;
  flow->recovering = flow->doubted = flow->unclear = flow->marked = flow->keeps_mark = false;
  flow->starting = flow->allowed = flow->burying = flow->spent_for_sure = flow->spent_before = false;
  flow->settled = false;
  flow->resends = 0;
  if (flow->turns++ < TURNS_MOST)
    return judge(flow);
  return fail_and_leave(flow, CODE_STORAGE, keeps_changing);
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
  if (compare(flow, event, &found) == ANOTHER)
    return go_on_with(flow, &found);
  if (!flow->holds)
    return mark(flow);
  return time_is_over(flow) || flow->spends >= SPENDS_MOST ? send_nothing_more(flow) : send(flow);
}

/* A storage that lags has not shown at first what came of the request in doubt: the refresh token in it is the record's
 * from now on. */
static bool shows_answer(struct flow *flow, const struct flow_event *event)
{
  struct record found;
  if (!flow->doubted || flow->starting || event->result != FLOW_OK ||
      !record_read(&found, event->text, &flow->settings->world))
    return false;
  bool salvaged = same_token(found.refresh_token, flow->record.refresh_token) && record_salvage(&found);
  record_free(salvaged ? &flow->record : &found);
  if (salvaged)
    flow->record = found;
  return salvaged;
}

static struct flow_action relooked(struct flow *flow, const struct flow_event *event)
{
  struct record found;
  if (compare(flow, event, &found) == ANOTHER)
    return go_on_with(flow, &found);
  if (flow->looks < LOOK_PAUSES)
    return wait(flow, RELOOK_PAUSE, look_pauses[flow->looks++]);
  if (event->result == FLOW_FAILED) /* nobody could look */
    return fail_and_leave(flow, event->code, event->text);
  return shows_answer(flow, event) ? go_on_with_salvaged(flow) : bury(flow);
}

/* ---- what a login gave ---- */

/* Nothing was done, and nothing is wrong with what is stored. */
static struct flow_action decline(struct flow *flow, enum code code)
{
  flow->outcome.code = code;
  return leave(flow);
}

static struct flow_action decline_for_living(struct flow *flow, bool known)
{
  words_living(flow->outcome.message, flow->settings, known);
  return decline(flow, CODE_CONFIG);
}

static struct flow_action decline_spent(struct flow *flow)
{
  words_given_is_spent(flow->outcome.message, flow->settings);
  return decline(flow, CODE_INVALID_GRANT);
}

static struct flow_action decline_expired(struct flow *flow)
{
  words_given_is_expired(flow->outcome.message);
  return decline(flow, CODE_CONFIG);
}

static bool is_given(const struct flow *flow, const char *name)
{
  const char *stored = json_string(flow->record.json, name), *given = json_string(flow->given.fields, name);
  return stored && given ? strcmp(stored, given) == 0 : stored == given;
}

/* Whatever is told to be replaced, a refresh token that is spent is none to start from. */
static bool is_known_as_spent(const struct flow *flow)
{
  struct pending mark;
  const char *given = json_string(flow->given.fields, "refresh_token");
  if (!given)
    return false;
  if (flow->given_is_spent)
    return true;
  if (is_given(flow, "refresh_token"))
    return record_pending(&flow->record, &flow->settings->world, &mark) && mark.lost > 0;
  return record_came_from(&flow->record, given, &flow->settings->world);
}

/* A save that failed may have been one all the same, and a program may store twice. */
static bool is_stored_already(const struct flow *flow)
{
  struct pending mark;
  return flow->record.json && is_given(flow, "refresh_token") && is_given(flow, "access_token") &&
         !record_pending(&flow->record, &flow->settings->world, &mark);
}

static bool has_living_access_token(const struct flow *flow)
{
  struct pending mark;
  const struct record *record = &flow->record;
  return !record_pending(record, &flow->settings->world, &mark) && served_allows(&flow->served, record) &&
         flow->now.wall < record->expires_at && !record_implausible(record, flow->now.wall);
}

static bool can_ask_for_given(const struct flow *flow)
{
  return can_ask(flow) && !words_missing_setting(flow->settings);
}

static struct flow_action ask_for_given(struct flow *flow)
{
  request_free(&flow->request);
  if (!request_introspection(&flow->request, &flow->settings->credentials, flow->record.refresh_token))
    return out_of_memory(flow);
  return post(flow, ASKING);
}

/* Under the lock. Nothing is spent to find out whether the stored grant lives. */
static struct flow_action give_or_decline(struct flow *flow)
{
  const struct record *record = &flow->record;
  bool dead;
  if (!record->json || flow->replaces || is_stored_already(flow))
    return give(flow);
  /* a broken answer may hold the refresh token that lives */
  if (is_foreign(flow) || record_salvage(&flow->record))
    return decline_for_living(flow, false);
  (void)held_back(flow, &dead);
  if (dead || (flow->spent_before && !can_ask_for_given(flow)) || record_is_refused(record))
    return give(flow);
  if (has_living_access_token(flow))
    return decline_for_living(flow, true);
  if (!record->refresh_token)
    return give(flow);
  return can_ask_for_given(flow) ? ask_for_given(flow) : decline_for_living(flow, false);
}

static struct flow_action judge_given(struct flow *flow)
{
  struct pending mark;
  if (!flow->locked)
    return lock(flow);
  if (is_known_as_spent(flow))
    return decline_spent(flow);
  bool under_way = record_pending(&flow->record, &flow->settings->world, &mark) && !(mark.lost > 0);
  if (under_way && !flow->settled) {
    flow->pending = mark;
    return recover(flow);
  }
  return give_or_decline(flow);
}

/* A refresh that was under way has had its time, or introspection that did not answer. */
static struct flow_action settle_for_given(struct flow *flow)
{
  bool settled = flow->settled;
  flow->settled = true;
  return settled ? give_or_decline(flow) : step(flow, LOADING, FLOW_LOAD);
}

static struct flow_action ask_again_for_given(struct flow *flow, const struct introspection *found)
{
  double pause = fmax(backoff(++flow->failures, RETRY_FIRST, RETRY_MOST, &flow->random), found->retry_after);
  if (found->transient && flow->now.steady + pause < flow->deadline)
    return wait(flow, ASK_PAUSE, pause);
  words_explain(flow->outcome.message, flow->settings, found->code, found->message,
                "Whether the stored grant still lives could not be asked, so nothing was changed. { replace = true } "
                "(in C: the flag LUCIDAUTH_REPLACE) stores the answer without asking.");
  return decline(flow, found->code);
}

static struct flow_action asked_for_given(struct flow *flow, const struct introspection *found)
{
  if (found->said == INTROSPECTION_ACTIVE)
    return decline_for_living(flow, true);
  if (found->said == INTROSPECTION_INACTIVE)
    return relook(flow);
  if (!found->refused)
    return ask_again_for_given(flow, found);
  flow->deaf = true;
  return give_or_decline(flow);
}

static struct flow_action save_given(struct flow *flow, struct record *given)
{
  if (!given->refresh_token && !(given->expires_at > flow->now.wall)) {
    record_free(given);
    return decline_expired(flow);
  }
  record_free(&flow->record);
  flow->record = *given;
  if (!record_set_server(&flow->record, flow->settings->token_url))
    return out_of_memory(flow);
  return save(flow, STORING, &flow->record);
}

/* It takes the place of the record in hand. The fields stay for another try. */
static bool make_given(struct flow *flow, struct record *made)
{
  struct answer copy = flow->given;
  double since = fmin(flow->started_at, flow->now.wall);
  copy.fields = cJSON_Duplicate(flow->given.fields, 1);
  bool done = copy.fields && record_give(made, &copy, since, &flow->record, !flow->replaces && !is_stored_already(flow),
                                         !flow->replaces, &flow->settings->world);
  answer_free(&copy);
  return done;
}

static struct flow_action give(struct flow *flow)
{
  struct record made;
  return make_given(flow, &made) ? save_given(flow, &made) : out_of_memory(flow);
}

/* What was there is kept as it is, in the record. */
static struct flow_action give_over_damaged(struct flow *flow, const char *text)
{
  struct record made;
  if (!flow->locked)
    return lock(flow);
  if (strlen(text) > RAW_MOST)
    return damaged(flow);
  if (is_known_as_spent(flow))
    return decline_spent(flow);
  if (!make_given(flow, &made))
    return out_of_memory(flow);
  if (*text && !json_set_string(made.json, "damaged", text)) {
    record_free(&made);
    return out_of_memory(flow);
  }
  return save_given(flow, &made);
}

static struct flow_action given_or_not(struct flow *flow, const struct flow_event *event)
{
  char message[FLOW_MESSAGE];
  if (event->result == FLOW_FAILED) {
    words_not_stored(message, event->text);
    return fail_and_leave(flow, event->code, message);
  }
  take(flow, &flow->record);
  setback_forget(&flow->setback);
  setback_forget(&flow->start_setback);
  succeed(flow);
  note(flow, FLOW_STORED, CODE_OK, "");
  return leave(flow);
}

/* ---- tokens that could not be saved ---- */

static struct flow_action saved_at_last(struct flow *flow)
{
  note(flow, FLOW_SAVED, CODE_OK, "");
  flow->inherited = false;
  flow->record = flow->unsaved;
  flow->unsaved = (struct record){0};
  return judge(flow);
}

static struct flow_action still_unsaved(struct flow *flow, enum code code, const char *message)
{
  if (flow->goal != FLOW_TOKEN || !alive(flow))
    fail(flow, code, message);
  return finish(flow);
}

/* Of a server that does not rotate: the refresh token is the same. */
static bool is_newer(const struct record *ours, const struct record *found)
{
  return same_token(ours->refresh_token, found->refresh_token) && ours->access_token && found->access_token &&
         strcmp(ours->access_token, found->access_token) != 0 && found->expires_at > ours->expires_at;
}

static struct flow_action checked(struct flow *flow, const struct flow_event *event)
{
  struct record found = {0};
  bool read = event->result == FLOW_OK && record_read(&found, event->text, &flow->settings->world);
  if (flow->settings->reads_back && shows(flow, event, &flow->unsaved)) {
    record_free(&found);
    record_free(&flow->record);
    return saved_at_last(flow); /* it was only late */
  }
  /* a parent may have saved the very same, or somebody has stored better ones */
  bool better = !was_spent(flow, &found) && (flow->inherited || is_another(&flow->unsaved, &found));
  if (read && (better || is_newer(&flow->unsaved, &found))) {
    record_free(&flow->unsaved);
    flow->inherited = false;
    return go_on_with(flow, &found);
  }
  record_free(&found);
  return save(flow, SAVING, &flow->unsaved);
}

static struct flow_action saved(struct flow *flow, const struct flow_event *event)
{
  if (event->result == FLOW_FAILED)
    return still_unsaved(flow, event->code, event->text);
  return flow->settings->reads_back ? confirm(flow, SAVING) : saved_at_last(flow);
}

/* ---- whether a storage of the program's own has stored what it was given ---- */

/* Fields beside the grant are not held against the storage: the tokens are there. */
static bool shows(const struct flow *flow, const struct flow_event *event, const struct record *given)
{
  struct record found;
  struct pending unused;
  char fault[160];
  if (event->result != FLOW_OK || !record_read(&found, event->text, &flow->settings->world))
    return false;
  bool marked = record_pending(given, &flow->settings->world, &unused);
  bool same = same_token(found.refresh_token, given->refresh_token) &&
              same_token(found.access_token, given->access_token) &&
              marked == record_pending(&found, &flow->settings->world, &unused);
  record_free(&found);
  if (!same || !marked)
    return same;
  char *text = record_write(given); /* the mark holds an answer */
  same = text && readback_same(text, event->text, fault, sizeof fault);
  secret_free(text);
  return same;
}

static struct flow_action confirmed(struct flow *flow)
{
  switch (flow->confirms) {
  case SAVING:
    return saved_at_last(flow);
  case KEEPING:
    return kept(flow);
  case SALVAGING:
    return salvage_kept(flow);
  default:
    return let_it_settle(flow); /* NOTING */
  }
}

static struct flow_action not_confirmed(struct flow *flow, const struct flow_event *event)
{
  char message[FLOW_MESSAGE];
  if (flow->confirms == NOTING) {
    flow->unnoted = true;
    return let_it_settle(flow);
  }
  if (event->result == FLOW_FAILED)
    snprintf(message, sizeof message, "%s", event->text);
  else
    words_not_shown(message, flow->settings);
  return flow->confirms == SAVING ? still_unsaved(flow, CODE_STORAGE, message) : keep_in_memory(flow, message);
}

/* What cannot be had at once: a storage that was seen to lag has all of the call for it, as has one that is left for
 * good. */
static bool waits_to_confirm(const struct flow *flow)
{
  bool again = flow->confirms == SAVING, patient = flow->lags || flow->goal == FLOW_KEEP;
  if (time_is_over(flow) || (again && flow->goal == FLOW_TOKEN && alive(flow)))
    return false;
  if (flow->served.token && flow->goal == FLOW_TOKEN && flow->now.steady >= flow->served.refresh_at.steady)
    return false;
  return patient || flow->now.steady < flow->back_since + BACK_LEAST;
}

/* A program without the lock has written since; the next call takes up what it finds. */
static bool is_overwritten(const struct flow *flow, const struct flow_event *event, const struct record *given)
{
  struct record found;
  if (event->result != FLOW_OK || !record_read(&found, event->text, &flow->settings->world))
    return false;
  bool another = is_another(given, &found) && !was_spent(flow, &found);
  record_free(&found);
  return another;
}

static struct flow_action looked_whether_stored(struct flow *flow, const struct flow_event *event)
{
  const struct record *given = flow->confirms == SAVING ? &flow->unsaved : &flow->record;
  if (shows(flow, event, given) || is_overwritten(flow, event, given))
    return confirmed(flow);
  if (!waits_to_confirm(flow))
    return not_confirmed(flow, event);
  double pause = fmin(flow->back_pause, fmax(LOCK_PAUSE_FIRST, flow->deadline - flow->now.steady));
  flow->back_pause = fmin(BACK_PAUSE_MOST, 2 * flow->back_pause);
  return wait(flow, CONFIRM_PAUSE, pause);
}

/* ---- another writer came before a save ---- */

static struct flow_action review(struct flow *flow)
{
  flow->reviewed = flow->state;
  if (flow->state == STORING)
    flow->recovering = flow->doubted = flow->settled = false; /* of the record that was there */
  if (flow->state == MARKING || flow->state == STORING)
    return step(flow, LOADING, FLOW_LOAD);
  if (flow->state == SAVING)
    return step(flow, CHECKING, FLOW_LOAD);
  return step(flow, REVIEWING, FLOW_LOAD);
}

/* Whose lock was removed may come back to find that another has gone on, or is at it: a mark that is not there any more
 * is not taken back. */
static bool has_our_mark(const struct flow *flow, const struct flow_event *event)
{
  struct record found = {0};
  struct pending mark;
  bool ours = event->result == FLOW_OK && record_read(&found, event->text, &flow->settings->world) &&
              record_pending(&found, &flow->settings->world, &mark) && mark.pid == flow->pending.pid &&
              strcmp(mark.lock, flow->pending.lock) == 0;
  record_free(&found);
  return ours;
}

/* Of a server that does not rotate: the refresh token is the same. */
static bool read_newer_access_token(const struct flow *flow, const struct flow_event *event, struct record *found)
{
  const char *ours = flow->record.access_token;
  if (!record_read(found, event->text, &flow->settings->world))
    return false;
  if (found->access_token && (!ours || strcmp(found->access_token, ours) != 0))
    return true;
  record_free(found);
  return false;
}

/* Theirs is adopted; what is no record, or none any more, is not brought back for the sake of a mark. */
static struct flow_action reviewed(struct flow *flow, const struct flow_event *event)
{
  struct record found;
  enum finding finding = compare(flow, event, &found);
  if (finding == ANOTHER)
    return go_on_with(flow, &found);
  if (finding == SAME_GRANT && !brings_tokens(flow->reviewed) && !has_our_mark(flow, event))
    return leave(flow);
  if (finding == SAME_GRANT && !brings_tokens(flow->reviewed) && read_newer_access_token(flow, event, &found))
    return go_on_with(flow, &found);
  if (finding == SAME_GRANT || brings_tokens(flow->reviewed))
    return save(flow, flow->reviewed, &flow->record);
  return flow->reviewed == NOTING ? let_it_settle(flow) : leave(flow);
}

/* Somebody else writes all the time: then it is as if it could not be written. */
static struct flow_event give_up_reviewing(const struct flow *flow)
{
  return (struct flow_event){.now = flow->now, .result = FLOW_FAILED, .code = CODE_STORAGE, .text = keeps_changing};
}

/* ---- the machine ---- */

/* The lock may still be the parent's: it is asked for once a flight as long as the token lives. */
static struct flow_action inherit(struct flow *flow, const struct flow_event *event)
{
  if (event->result == FLOW_OK)
    return locked(flow, event);
  if (flow->goal == FLOW_KEEP || alive(flow))
    return finish(flow);
  return event->result == FLOW_BUSY ? lock_is_busy(flow) : fail_and_leave(flow, event->code, event->text);
}

static struct flow_action begin(struct flow *flow)
{
  if (flow->unsaved.json && flow->goal == FLOW_LOOK)
    return finish(flow);
  if (flow->unsaved.json)
    return flow->locked ? step(flow, CHECKING, FLOW_LOAD) : step(flow, INHERITING, FLOW_LOCK);
  if (flow->goal == FLOW_KEEP)
    return finish(flow);
  /* a flight that was broken off has left the lock, and it may be another's by now: a lease does not last */
  if (flow->locked)
    return step(flow, RELEASING, FLOW_UNLOCK);
  return step(flow, LOOKING, FLOW_LOAD);
}

/* A process that was stopped has waited for nobody meanwhile: what it waits for gets the time that it lacks. */
static void pass_time(struct flow *flow, struct moment now)
{
  double absent = now.steady - flow->now.steady - flow->takes - ABSENCE;
  flow->now = now;
  if (!(absent > 0))
    return;
  flow->deadline += absent;
  flow->owner_seen += absent;
  if (flow->busy_since > 0)
    flow->busy_since += absent;
}

/* The waits are over: with what they were for. */
static struct flow_action go_on_after_wait(struct flow *flow)
{
  switch (flow->state) {
  case LOCK_PAUSE:
    return step(flow, LOOKING, FLOW_LOAD);
  case BACK_PAUSE:
    return step(flow, READING_BACK, FLOW_LOAD);
  case CONFIRM_PAUSE:
    return step(flow, CONFIRMING, FLOW_LOAD);
  case FIRST_PAUSE:
    return ask_first(flow);
  case OWNER_PAUSE:
    return step(flow, LOADING, FLOW_LOAD);
  case PAUSING:
    return send_again(flow);
  case ASK_PAUSE:
    return flow->goal == FLOW_STORE ? settle_for_given(flow) : introspect(flow);
  case TORN_PAUSE:
    return step(flow, flow->locked ? LOADING : LOOKING, FLOW_LOAD);
  default:
    return step(flow, RELOOKING, FLOW_LOAD); /* RELOOK_PAUSE */
  }
}

/* What a server said. */
static struct flow_action go_on_after_post(struct flow *flow, const struct flow_event *event)
{
  if (flow->state == ASKING_FIRST)
    return asked_first(flow, event);
  return flow->state == ASKING ? asked(flow, event) : posted(flow, event);
}

static struct flow_action go_on_after_load(struct flow *flow, const struct flow_event *event)
{
  switch (flow->state) {
  case CHECKING:
    return checked(flow, event);
  case READING_BACK:
    return read_back(flow, event);
  case CONFIRMING:
    return looked_whether_stored(flow, event);
  case RESENDING:
    return looked_before_sending(flow, event);
  case RELOOKING:
    return relooked(flow, event);
  case REVIEWING:
    return reviewed(flow, event);
  default:
    return loaded(flow, event); /* LOOKING, LOADING */
  }
}

static struct flow_action go_on_after_save(struct flow *flow, const struct flow_event *event)
{
  switch (flow->state) {
  case SAVING:
    return saved(flow, event);
  case MARKING:
    return marked(flow, event);
  case RETREATING:
    return step(flow, RELOCKING, FLOW_UNLOCK);
  case KEEPING:
    return kept_or_not(flow, event);
  case SALVAGING:
    return salvage_kept_or_not(flow, event);
  case STORING:
    return given_or_not(flow, event);
  case NOTING:
    flow->unnoted = event->result == FLOW_FAILED;
    return flow->settings->reads_back && !flow->unnoted ? confirm(flow, NOTING) : let_it_settle(flow);
  default:
    return leave(flow); /* CLEARING */
  }
}

static struct flow_action go_on_after_unlock(struct flow *flow)
{
  enum state state = flow->state;
  flow->locked = flow->holds = false;
  if (state == RELEASING)
    return step(flow, LOOKING, FLOW_LOAD);
  return state == RELOCKING ? retreated(flow) : finish(flow);
}

static struct flow_action go_on(struct flow *flow, const struct flow_event *event)
{
  switch (flow->asked_for) {
  case FLOW_LOAD:
    return go_on_after_load(flow, event);
  case FLOW_LOCK:
    return flow->state == INHERITING ? inherit(flow, event) : locked(flow, event);
  case FLOW_HOLD:
    return held(flow, event);
  case FLOW_SAVE:
    return go_on_after_save(flow, event);
  case FLOW_UNLOCK:
    return go_on_after_unlock(flow);
  case FLOW_POST:
    return go_on_after_post(flow, event);
  default:
    return go_on_after_wait(flow);
  }
}

struct flow_action flow_next(struct flow *flow, const struct flow_event *event)
{
  struct flow_event told = *event;
  pass_time(flow, event->now);
  if (told.result == FLOW_FAILED && told.code == CODE_OK)
    told.code = CODE_STORAGE; /* a failure without a reason is no success */
  if (flow->telling && (event->result == FLOW_OK || event->result == FLOW_BUSY))
    flow->untold[0] = '\0';
  flow->telling = false;
  if (event->rejected)
    served_hear_of_rejected(&flow->served, event->rejected);
  if (event->result == FLOW_CHANGED && flow->reviews++ < REVIEWS_MOST)
    return review(flow);
  if (event->result == FLOW_CHANGED)
    told = give_up_reviewing(flow);
  return flow->state == IDLE ? begin(flow) : go_on(flow, &told);
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
  flow->started_at = now.wall;
  flow->deadline = deadline;
  flow->recovering = flow->marked = flow->keeps_mark = flow->doubted = flow->unclear = false;
  flow->salvaged = flow->allowed = flow->deaf = flow->starting = flow->burying = flow->relocked = false;
  flow->spent_before = flow->spent_for_sure = flow->lags = flow->unnoted = false;
  flow->replaces = flow->given_is_spent = flow->settled = false;
  flow->spends = flow->turns = 0;
  flow->resends = flow->failures = flow->looks = flow->reviews = 0;
  flow->lock_pause = 0;
  flow->outcome = (struct flow_outcome){0};
}

void flow_give(struct flow *flow, const struct answer *given, bool replaces)
{
  flow->given = *given;
  flow->replaces = replaces;
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
  flow->inherited = flow->unsaved.json != NULL;
  flow->locked = flow->holds = false;
}

void flow_abandon(struct flow *flow, bool unlocked)
{
  if (brings_tokens(flow->state) && !flow->unsaved.json)
    hold_unsaved(flow);
  if (unlocked)
    flow->locked = flow->holds = false;
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
      [FLOW_REJECTED] = "rejected",       [FLOW_LOST] = "lost",       [FLOW_STORED] = "stored"};
  return names[kind];
}
