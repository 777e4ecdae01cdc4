/* The actions that a flow asks for, and the ways in which a flight ends. */
#include "../base/secret.h"
#include "messages.h"
#include "states.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_MOST 10.0
#define CONNECT_LEAST 1.0
#define RETRY_FIRST 0.5
#define RETRY_MOST 8.0
#define SERVE_LEAST 1.0 /* a token that is served after a failure is not looked after again sooner */

/* Another writer's record may be on its way to the disk: look again after these pauses before anything is
 * called lost. */
static const double look_pauses[] = {0.025, 0.05, 0.1};
enum { LOOK_PAUSES = sizeof look_pauses / sizeof *look_pauses };

static void tell_backoff(struct flow *flow);

struct flow_action flow_wait_for(struct flow *flow, enum state state, double seconds)
{
  struct flow_action action = flow_go_to(flow, state);
  action.seconds = flow->takes = seconds;
  return action;
}

bool flow_may_look_again(const struct flow *flow)
{
  return flow->looks < LOOK_PAUSES;
}

struct flow_action flow_look_again(struct flow *flow, enum state state)
{
  return flow_wait_for(flow, state, look_pauses[flow->looks++]);
}

/* A storage that did not show what was saved is looked at again, after a longer pause each time, but at most `left`
 * seconds. */
struct flow_action flow_look_back_again(struct flow *flow, enum state state, double left)
{
  double pause = fmin(flow->back_pause, fmax(LOCK_PAUSE_FIRST, left));
  flow->back_pause = fmin(BACK_PAUSE_MOST, 2 * flow->back_pause);
  return flow_wait_for(flow, state, pause);
}

/* Seconds before the server is asked again in this flight; `asked`: the pause that it asked for. */
double flow_retry_pause(struct flow *flow, double asked)
{
  return fmax(backoff_seconds(++flow->failures, RETRY_FIRST, RETRY_MOST, &flow->random), asked);
}

/* Give up the memory that was set aside for an answer. False: that was done already. */
bool flow_use_reserve(struct flow *flow)
{
  bool there = flow->reserve != NULL;
  free(flow->reserve);
  flow->reserve = NULL;
  return there;
}

/* False: out of memory. */
bool flow_set_reserve_aside(struct flow *flow)
{
  if (!flow->reserve)
    flow->reserve = malloc(RESERVE);
  return flow->reserve != NULL;
}

bool flow_time_is_over(const struct flow *flow)
{
  return flow->now.steady >= flow->deadline;
}

/* The lock is free again. */
struct flow_action flow_finish_unlocked(struct flow *flow)
{
  flow->locked = flow->holds = false;
  return flow_finish(flow);
}

/* Whether introspection can tell the fate of a refresh token. */
bool flow_can_ask(const struct flow *flow)
{
  return flow->settings->introspection && !flow->deaf;
}

void flow_clear_flight(struct flow *flow)
{
  (void)flow_use_reserve(flow);
  record_free(&flow->record);
  request_free(&flow->request);
  answer_free(&flow->given);
  secret_free(flow->text);
  flow->text = NULL;
  free(flow->listed);
  flow->listed = NULL;
}

/* The end: a failure is covered up as long as the present token still lives. */
struct flow_action flow_finish(struct flow *flow)
{
  struct flow_outcome *outcome = &flow->outcome;
  bool wanted = flow->goal == FLOW_TOKEN || flow->goal == FLOW_REFRESH;
  if (wanted && outcome->code == CODE_OK && !flow->live.token)
    flow_fail(flow, CODE_BAD_RESPONSE, "The server issued the very access token again that the API does not accept.");
  if (wanted && outcome->code == CODE_OK && flow->came_alive && !flow_token_lives(flow))
    flow_fail(flow, CODE_TIMEOUT,
              "The call took longer than the token lives. Nothing is lost: a later call refreshes it.");
  bool serve = wanted && (outcome->code == CODE_OK || flow_can_serve(flow));
  if (serve) {
    double again = fmax(SERVE_LEAST, flow->backoff.until - flow->now.steady);
    outcome->refresh_at = outcome->code == CODE_OK ? flow->live.refresh_at : moment_after(flow->now, again);
    if (flow->unsaved.json)
      outcome->refresh_at = flow->now; /* every call tries to save */
    outcome->dead_at = flow->live.dead_at;
    outcome->token = flow->live.token;
    outcome->code = CODE_OK;
    outcome->message[0] = '\0';
  }
  if (flow->goal == FLOW_STORE && outcome->code == CODE_OK && flow_token_lives(flow)) {
    outcome->token = flow->live.token;
    outcome->refresh_at = flow->live.refresh_at;
    outcome->dead_at = flow->live.dead_at;
  }
  flow_clear_flight(flow);
  return flow_go_to(flow, IDLE);
}

void flow_hold_unsaved(struct flow *flow)
{
  flow->unsaved = flow->record;
  flow->record = (struct record){0};
}

struct flow_action flow_leave(struct flow *flow)
{
  /* a broken answer that could not be stored may hold the only refresh token that lives */
  if (flow->locked && flow->unnoted && flow->doubted && !flow->unsaved.json && flow->record.json)
    flow_hold_unsaved(flow);
  if (!flow->locked || flow->unsaved.json)
    return flow_finish(flow);
  return flow_go_to(flow, UNLOCK_LAST);
}

/* A token that lives covers the failure up, but not in the events. */
static void fail_for_now(struct flow *flow, enum code code, const char *message)
{
  flow_fail(flow, code, message);
  if (flow_can_serve(flow))
    flow_add_note(flow, FLOW_REFRESH_FAILED, code, message);
}

struct flow_action flow_fail_and_leave(struct flow *flow, enum code code, const char *message)
{
  fail_for_now(flow, code, message);
  return flow_leave(flow);
}

struct flow_action flow_out_of_memory(struct flow *flow)
{
  return flow_fail_and_leave(flow, CODE_STORAGE,
                             flow->spends > 0
                                 ? "There is not enough memory to go on. The refresh token may have been spent; the "
                                   "next call settles it. Free some memory, and try again."
                                 : "There is not enough memory to go on. The stored tokens are untouched.");
}

/* The newest tokens are in this process alone, and so the lock stays with it. */
struct flow_action flow_keep_in_memory(struct flow *flow, const char *why)
{
  char message[FLOW_MESSAGE];
  message_unsaved(message, why);
  flow_add_note(flow, FLOW_SAVE_FAILED, CODE_STORAGE, message);
  flow_remember_trouble(flow, CODE_STORAGE, message);
  if (!flow->unsaved.json)
    flow_hold_unsaved(flow);
  return flow_leave(flow);
}

bool flow_brings_tokens(enum state saving)
{
  return saving == SAVE_TOKENS || saving == SAVE_SALVAGED;
}

struct flow_action flow_save(struct flow *flow, enum state state, const struct record *record)
{
  secret_free(flow->text);
  flow->text = record_write(record);
  if (!flow->text && flow_use_reserve(flow))
    flow->text = record_write(record);
  if (!flow->text)
    return flow_brings_tokens(state) ? flow_keep_in_memory(flow, message_no_memory_to_write) : flow_out_of_memory(flow);
  struct flow_action action = flow_go_to(flow, state);
  action.record = flow->text;
  action.spends = state == SAVE_MARK ? flow->pending.refresh_token : NULL;
  action.announces = state == SAVE_LOGIN;
  action.spent = flow->untold[0] ? flow->untold : NULL;
  flow->telling = action.spent != NULL;
  if (state != SAVE_MARK)
    flow->holds = false;
  return action;
}

struct flow_action flow_post(struct flow *flow, enum state state)
{
  double left = fmax(flow->deadline - flow->now.steady, 0);
  struct flow_action action = flow_go_to(flow, state);
  action.request = &flow->request;
  action.seconds = fmin(CONNECT_MOST, fmax(left, CONNECT_LEAST));
  action.limit = fmax(flow->deadline + flow->settings->timeout - flow->now.steady, CONNECT_LEAST);
  flow->takes = action.limit;
  action.send_by = moment_after(flow->now, fmax(left, CONNECT_LEAST));
  flow->sent = flow->now;
  return action;
}

struct flow_action flow_post_introspection(struct flow *flow, const char *refresh_token, enum state state)
{
  request_free(&flow->request);
  if (!request_introspection(&flow->request, &flow->settings->credentials, refresh_token))
    return flow_out_of_memory(flow);
  return flow_post(flow, state);
}

struct answer_context flow_context(const struct flow *flow)
{
  return (struct answer_context){
      .now = flow->now.wall,
      .default_lifetime = flow->settings->default_lifetime,
      .sent = flow->record.refresh_token,
      .parameters = flow->settings->credentials.parameters,
      .secrets = {flow->settings->credentials.client_secret, flow->record.refresh_token, flow->record.access_token,
                  flow->live.token, flow->settings->refresh_token,
                  flow->request.authorization ? flow->request.authorization + strlen("Basic ") : NULL}};
}

/* The mark is taken back: nothing was sent, or nothing that counts. */
struct flow_action flow_take_mark_back(struct flow *flow, enum code code, const char *message)
{
  fail_for_now(flow, code, message);
  if (!flow->marked || flow->doubted)
    return flow_leave(flow);
  record_unmark(&flow->record);
  return flow_save(flow, SAVE_UNMARKED, &flow->record);
}

struct flow_action flow_send_nothing_more(struct flow *flow)
{
  if (flow->outcome.code != CODE_OK) {
    char message[FLOW_MESSAGE];
    flow_fail_refresh(flow, flow->outcome.code, flow->outcome.message, message_kept, -1);
    memcpy(message, flow->outcome.message, sizeof message);
    return flow_take_mark_back(flow, flow->outcome.code, message);
  }
  return flow_take_mark_back(flow, CODE_TIMEOUT,
                             "The time of this call was over before the refresh could be sent. The stored tokens are "
                             "untouched; a later call tries again.");
}

/* The refresh token was not spent: the mark is taken back, unless an earlier POST is still in doubt. */
struct flow_action flow_clear_and_leave(struct flow *flow)
{
  if (flow->doubted)
    return flow_leave(flow);
  flow_know_as_unspent(flow);
  record_unmark(&flow->record);
  tell_backoff(flow);
  (void)flow_tell_rejection(flow);
  return flow_save(flow, SAVE_UNMARKED, &flow->record);
}

/* A broken answer is saved with the rest. */
struct flow_action on_save_unmarked(struct flow *flow, const struct flow_event *event)
{
  flow->unnoted = flow->unnoted && event->result == FLOW_FAILED;
  return flow_leave(flow);
}

/* The server's refusal holds for other processes too, and so it goes into the record. Other failures are of this
 * process's own making: its network, its settings. */
static void tell_backoff(struct flow *flow)
{
  const struct backoff *backoff = &flow->backoff;
  bool said_by_server = backoff->code == CODE_RATE_LIMITED || backoff->code == CODE_SERVER_ERROR;
  if (!said_by_server || strcmp(backoff->of, flow->pending.refresh_token) != 0)
    return;
  struct failure failure = {.since = flow->now.wall,
                            .code = backoff->code,
                            .until = flow->now.wall + backoff->until - flow->now.steady,
                            .message = backoff->message};
  (void)record_fail(&flow->record, &flow->settings->world, &failure);
}

/* A token that the API did not accept is not to be handed out by another process either. False: out of memory. */
bool flow_tell_rejection(struct flow *flow)
{
  return live_token_allows(&flow->live, &flow->record) || !flow->record.bearer || record_reject(&flow->record);
}
