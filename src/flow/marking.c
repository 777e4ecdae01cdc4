/* Before a refresh: the mark of an earlier one, the resources for the answer, and the mark of this one. */
#include "../record/readback.h"
#include "messages.h"
#include "states.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define SETTLE_TIME 1.0      /* a request may still be on its way when its sender is gone: it is given so long */
#define CLOCK_SLACK 60.0     /* clocks of two machines differ by this much without either being wrong */
#define OWNER_PAUSE_MOST 0.5 /* between two looks at a record whose lock was removed */

/* Ask for the fate of a request, but not before it has had its time: "not spent" would else be true for a moment
 * only. */
struct flow_action flow_let_it_settle(struct flow *flow)
{
  return flow_wait_for(flow, WAIT_SETTLE, fmin(fmax(flow->pending.settles, SETTLE_TIME), GATEWAY_TIME));
}

/* The flight that set the mark is long over, by both clocks of the machine that it was on. */
static bool is_long_over(const struct flow *flow)
{
  const struct pending *mark = &flow->pending;
  double by_wall = flow->now.wall - mark->since, by_steady = flow->now.steady - mark->steady;
  return mark->lasts > 0 && strcmp(mark->host, flow->settings->host) == 0 && fmin(by_wall, by_steady) > mark->lasts;
}

/* Process and moment do not tell alone: containers number their processes alike, and a process that goes on with a
 * refresh in doubt leaves both in the mark. */
static bool is_own_mark(const struct flow *flow, const struct pending *mark)
{
  return mark->pid == flow->settings->pid && mark->since == flow->marked_at &&
         fabs(mark->lasts - flow->marks_last) < 0.001 && strcmp(mark->lock, flow->marked_under) == 0;
}

/* The mark was set under another lock than the one that is held: its owner may be at work. It is over when its time
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
  bool serves = flow_can_serve(flow);
  message_owner_may_live(message, flow->settings, &flow->pending);
  if (serves && waited >= flow->settings->refresh_wait) {
    flow_fail(flow, CODE_LOCKED, message); /* the token may die before the lock is given back */
    return flow_leave(flow);
  }
  if (flow_time_is_over(flow))
    return flow_fail_and_leave(flow, CODE_LOCKED, message);
  return flow_wait_for(flow, WAIT_OWNER,
                       fmin(OWNER_PAUSE_MOST, fmax(LOCK_PAUSE_FIRST, flow->deadline - flow->now.steady)));
}

/* A refresh under way is given its time once a call, even past the deadline; the next one is left to the next call. */
static bool has_waited_enough(const struct flow *flow)
{
  return flow->waited && flow_time_is_over(flow);
}

/* The process that set the mark may have died just now. */
struct flow_action flow_recover(struct flow *flow)
{
  if (owner_may_live(flow))
    return wait_for_owner(flow);
  if (has_waited_enough(flow))
    return flow_fail_and_leave(
        flow, CODE_TIMEOUT,
        "A process left a refresh unfinished, and to settle that took all the time of this call. Everything is stored, "
        "and the next call settles it.");
  flow->recovering = flow->doubted = flow->waited = true;
  if (is_long_over(flow))
    return flow->goal == FLOW_STORE ? flow_settle_for_login(flow) : flow_introspect(flow);
  return flow_let_it_settle(flow);
}

static struct flow_action put_mark(struct flow *flow)
{
  double lasts = 2 * flow->settings->timeout + GATEWAY_TIME;
  if (flow->keeps_mark) {
    /* it tells of another's refresh, and for how long this process may be at work on it */
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
  if (!flow_set_reserve_aside(flow) || !flow_tell_rejection(flow) || !record_mark(&flow->record, &flow->pending, NULL))
    return flow_out_of_memory(flow);
  return flow_save(flow, SAVE_MARK, &flow->record);
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

struct flow_action flow_begin_refresh(struct flow *flow)
{
  if (!flow->recovering && !flow->marked && is_in_doubt(flow))
    return flow_recover(flow);
  if (flow->spent_before && !flow->allowed && !flow->recovering && !flow->marked)
    return flow_ask_first(flow);
  if (flow_time_is_over(flow) || flow->spends >= SPENDS_MOST)
    return flow_send_nothing_more(flow);
  return flow->holds ? put_mark(flow) : flow_go_to(flow, HOLD_FOR_ANSWER);
}

/* A mark that was found is replaced. A storage of the program's own may lag, and have shown the record of a while ago. */
struct flow_action flow_begin_refresh_anew(struct flow *flow)
{
  return flow->settings->reads_back ? flow_look_before_resend(flow) : flow_begin_refresh(flow);
}

struct flow_action on_hold_for_answer(struct flow *flow, const struct flow_event *event)
{
  if (event->result == FLOW_FAILED)
    return flow_take_mark_back(flow, event->code, event->text);
  flow->holds = true;
  snprintf(flow->held, sizeof flow->held, "%s", event->text ? event->text : "");
  return put_mark(flow);
}

struct flow_action on_save_mark(struct flow *flow, const struct flow_event *event)
{
  if (event->result == FLOW_FAILED)
    return flow_fail_and_leave(flow, event->code, event->text);
  flow->marked = true;
  if (event->result == FLOW_BUSY) {
    if (flow->recovering) /* the mark says more than this flight's own */
      return flow_go_to(flow, UNLOCK_RETREAT);
    record_unmark(&flow->record);
    return flow_save(flow, SAVE_RETREAT, &flow->record);
  }
  flow->back_pause = BACK_PAUSE_FIRST;
  return flow->settings->reads_back ? flow_go_to(flow, LOAD_MARK) : flow_send_refresh(flow);
}

/* Somebody has removed the lock: the one that is there now is asked for. */
struct flow_action flow_lock_again(struct flow *flow)
{
  char message[FLOW_MESSAGE];
  flow->locked = flow->holds = flow->marked = false;
  if (!flow->relocked) {
    flow->relocked = true;
    return flow_ask_for_lock(flow);
  }
  snprintf(message, sizeof message,
           "The lock file of %s is removed again and again, so that nothing keeps two processes from refreshing at the "
           "same time. Nothing was sent. Let nobody remove files that end in .lock.",
           flow->settings->storage);
  return flow_fail_and_leave(flow, CODE_STORAGE, message);
}

struct flow_action flow_unlock_to_lock_again(struct flow *flow)
{
  return flow_go_to(flow, UNLOCK_RETREAT);
}

struct flow_action flow_load_mark(struct flow *flow)
{
  return flow_go_to(flow, LOAD_MARK);
}

/* A storage may be behind for a while, such as a replica. */
struct flow_action on_load_mark(struct flow *flow, const struct flow_event *event)
{
  char fault[160], message[FLOW_MESSAGE];
  const char *text = event->result == FLOW_OK ? event->text : NULL;
  if (event->result == FLOW_FAILED)
    return flow_take_mark_back(flow, event->code, event->text);
  if (readback_same(flow->text, text, fault, sizeof fault))
    return flow_send_refresh(flow);
  if (!flow_time_is_over(flow)) {
    flow->lags = true;
    return flow_look_back_again(flow, WAIT_MARK, flow->deadline - flow->now.steady);
  }
  message_not_kept(message, flow->settings, fault);
  return flow_take_mark_back(flow, CODE_STORAGE, message);
}
