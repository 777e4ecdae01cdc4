/* The table of the flow's states, and the functions that its owner calls. */
#include "states.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define ABSENCE 1.0 /* a step that takes longer than it should by more than this: the process did not run */

static struct flow_action begin(struct flow *flow)
{
  if (flow->unsaved.json && flow->goal == FLOW_LOOK)
    return flow_finish(flow);
  if (flow->unsaved.json)
    return flow->locked ? flow_go_to(flow, LOAD_BEFORE_UNSAVED) : flow_go_to(flow, LOCK_INHERITED);
  if (flow->goal == FLOW_KEEP)
    return flow_finish(flow);
  /* a flight that was broken off has left the lock, and it may be another's by now: a lease does not last */
  if (flow->locked)
    return flow_go_to(flow, UNLOCK_LEFT);
  return flow_go_to(flow, LOAD_UNLOCKED);
}

static struct flow_action begin_unlocked(struct flow *flow)
{
  flow->locked = flow->holds = false;
  return flow_load_unlocked(flow);
}

/* A process that was stopped has not waited meanwhile: its deadlines move by the time in which it did not run. */
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

/* The step that each state asks of the driver, and its handler: `hears` needs the result of the step, `goes_on`, after a
 * wait or an unlock, does not. */
struct row {
  const char *name;
  enum flow_step step;
  struct flow_action (*hears)(struct flow *flow, const struct flow_event *event);
  struct flow_action (*goes_on)(struct flow *flow);
};

#define ROW(state, asks, handler) [state] = {#state, FLOW_##asks, .hears = (handler)}
#define ROW_ON(state, asks, handler) [state] = {#state, FLOW_##asks, .goes_on = (handler)}

static const struct row rows[] = {
    ROW_ON(IDLE, DONE, begin),
    /* look, lock, and look again */
    ROW_ON(UNLOCK_LEFT, UNLOCK, begin_unlocked),
    ROW(LOAD_UNLOCKED, LOAD, on_load),
    ROW_ON(WAIT_TORN, WAIT, flow_load_once_more),
    ROW(LOCK_RECORD, LOCK, on_lock_record),
    ROW_ON(WAIT_LOCK, WAIT, flow_load_unlocked),
    ROW(LOAD_LOCKED, LOAD, on_load),
    ROW_ON(WAIT_OWNER, WAIT, flow_load_locked),
    /* is the refresh token spent? */
    ROW(POST_INTROSPECTION_FIRST, POST, on_post_introspection_first),
    ROW_ON(WAIT_INTROSPECTION_FIRST, WAIT, flow_ask_first),
    /* the refresh */
    ROW(HOLD_FOR_ANSWER, HOLD, on_hold_for_answer),
    ROW(SAVE_MARK, SAVE, on_save_mark),
    ROW(LOAD_MARK, LOAD, on_load_mark),
    ROW_ON(WAIT_MARK, WAIT, flow_load_mark),
    ROW(POST_REFRESH, POST, on_post_refresh),
    ROW(SAVE_TOKENS, SAVE, on_save_tokens),
    ROW(LOAD_SAVED, LOAD, on_load_saved),
    ROW_ON(WAIT_SAVED, WAIT, flow_load_saved),
    /* once more, or in doubt */
    ROW_ON(WAIT_RESEND, WAIT, flow_look_before_resend),
    ROW(LOAD_BEFORE_RESEND, LOAD, on_load_before_resend),
    ROW(SAVE_ANSWER, SAVE, on_save_answer),
    ROW_ON(WAIT_SETTLE, WAIT, flow_ask_what_became),
    ROW(POST_INTROSPECTION, POST, on_post_introspection),
    ROW(SAVE_SALVAGED, SAVE, on_save_salvaged),
    ROW(LOAD_BEFORE_VERDICT, LOAD, on_load_before_verdict),
    ROW_ON(WAIT_BEFORE_VERDICT, WAIT, flow_load_before_verdict),
    /* others */
    ROW(LOAD_CHANGED, LOAD, on_load_changed),
    ROW_ON(SAVE_RETREAT, SAVE, flow_unlock_to_lock_again),
    ROW_ON(UNLOCK_RETREAT, UNLOCK, flow_lock_again),
    /* tokens that could not be saved, and those of a login */
    ROW(LOCK_INHERITED, LOCK, on_lock_inherited),
    ROW(LOAD_BEFORE_UNSAVED, LOAD, on_load_before_unsaved),
    ROW(SAVE_UNSAVED, SAVE, on_save_unsaved),
    ROW(SAVE_LOGIN, SAVE, on_save_login),
    /* the end */
    ROW(SAVE_UNMARKED, SAVE, on_save_unmarked),
    ROW_ON(UNLOCK_LAST, UNLOCK, flow_finish_unlocked),
};

struct flow_action flow_go_to(struct flow *flow, enum state state)
{
  flow->state = state;
  flow->takes = 0;
  return (struct flow_action){.step = rows[state].step};
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
    live_token_hear_of_rejected(&flow->live, event->rejected);
  if (event->result == FLOW_CHANGED && flow->reviews++ < REVIEWS_MOST)
    return flow_review(flow);
  if (event->result == FLOW_CHANGED)
    told = flow_give_up_reviewing(flow);
  const struct row *row = &rows[flow->state];
  return row->goes_on ? row->goes_on(flow) : row->hears(flow, &told);
}

struct flow *flow_new(const struct flow_settings *settings, uint64_t seed)
{
  struct flow *flow = malloc(sizeof *flow);
  if (!flow)
    return NULL;
  memset(flow, 0, offsetof(struct flow, outcome.notes));
  flow->settings = settings;
  flow->random = seed;
  return flow;
}

void flow_free(struct flow *flow)
{
  if (!flow)
    return;
  flow_clear_flight(flow);
  record_free(&flow->unsaved);
  live_token_free(&flow->live);
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
  flow->replaces = flow->given_is_spent = flow->settled = flow->waited = false;
  flow->spends = flow->turns = 0;
  flow->resends = flow->failures = flow->looks = flow->reviews = 0;
  flow->lock_pause = 0;
  memset(&flow->outcome, 0, offsetof(struct flow_outcome, notes));
}

void flow_give(struct flow *flow, const struct answer *given, bool replaces)
{
  flow->given = *given;
  flow->replaces = replaces;
}

void flow_copy_outcome(struct flow_outcome *copy, const struct flow_outcome *outcome)
{
  size_t notes = (size_t)outcome->note_count * sizeof outcome->notes[0];
  memcpy(copy, outcome, offsetof(struct flow_outcome, notes) + notes);
}

const struct flow_outcome *flow_outcome(const struct flow *flow)
{
  return &flow->outcome;
}

const char *flow_token(const struct flow *flow)
{
  struct pending pending;
  bool doubtful = flow->record.json && record_pending(&flow->record, &flow->settings->world, &pending);
  return doubtful ? NULL : flow->live.token;
}

bool flow_uses(const struct flow *flow, const char *token)
{
  return live_token_is(&flow->live, token);
}

void flow_reject(struct flow *flow, const char *token)
{
  live_token_reject(&flow->live, token);
}

void flow_disown(struct flow *flow)
{
  flow->inherited = flow->unsaved.json != NULL;
  flow->locked = flow->holds = false;
}

void flow_abandon(struct flow *flow, bool unlocked)
{
  if (flow_brings_tokens(flow->state) && !flow->unsaved.json)
    flow_hold_unsaved(flow);
  if (unlocked)
    flow->locked = flow->holds = false;
  flow->state = IDLE;
  flow_clear_flight(flow);
  flow_fail(flow, CODE_NOT_READY,
            "The refresh was broken off. What it had stored stays, and the next call goes on from there.");
}

bool flow_unsaved(const struct flow *flow)
{
  return flow->unsaved.json != NULL;
}

struct flow_status flow_status(const struct flow *flow)
{
  return (struct flow_status){.has_token = flow->live.token != NULL,
                              .refresh_at = flow->live.refresh_at,
                              .dead_at = flow->live.dead_at,
                              .lifetime = flow->live.lifetime,
                              .unsaved = flow_unsaved(flow),
                              .last_refresh = flow->last_refresh,
                              .last_code = flow->trouble,
                              .last_error = flow->trouble_message,
                              .retry_at = flow->backoff.of[0] ? flow->backoff.until : 0};
}

int flow_state(const struct flow *flow)
{
  return (int)flow->state;
}

const char *flow_state_name(int state)
{
  return state >= 0 && state < STATES ? rows[state].name : NULL;
}

const char *flow_note_name(enum flow_note_kind kind)
{
  static const char *const names[] = {
      [FLOW_REFRESHED] = "refreshed",     [FLOW_ADOPTED] = "adopted", [FLOW_REFRESH_FAILED] = "refresh_failed",
      [FLOW_SAVE_FAILED] = "save_failed", [FLOW_SAVED] = "saved",     [FLOW_RECOVERED] = "recovered",
      [FLOW_REJECTED] = "rejected",       [FLOW_LOST] = "lost",       [FLOW_STORED] = "stored"};
  return names[kind];
}
