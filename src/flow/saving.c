/* Tokens that could not be saved, storages that do not keep a record, and other writers. */
#include "../base/secret.h"
#include "../oauth/token.h"
#include "../record/readback.h"
#include "messages.h"
#include "states.h"

#include <stdio.h>
#include <string.h>

#define BACK_LEAST 1.0 /* one that has shown the mark at once is to show the new tokens within this */

static bool shows(const struct flow *flow, const struct flow_event *event, const struct record *given);

struct flow_action flow_load_saved(struct flow *flow)
{
  return flow_go_to(flow, LOAD_SAVED);
}

static struct flow_action saved_at_last(struct flow *flow)
{
  flow_add_note(flow, FLOW_SAVED, CODE_OK, "");
  flow->inherited = false;
  flow->record = flow->unsaved;
  flow->unsaved = (struct record){0};
  /* another may have had the same from an old copy, while a parent's lock was free */
  flow->spent_before = flow->record.refresh_token && flow_is_known_spent(flow, flow->record.refresh_token);
  return flow_judge(flow);
}

static struct flow_action still_unsaved(struct flow *flow, enum code code, const char *message)
{
  if (!flow_can_serve(flow))
    flow_fail(flow, code, message);
  return flow_finish(flow);
}

/* Of a server that does not rotate: the refresh token is the same. The access token is another, and not the one that was
 * stored before ours. */
static bool is_newer(const struct flow *flow, const struct record *found)
{
  const struct record *ours = &flow->unsaved;
  return flow_same_token(ours->refresh_token, found->refresh_token) && ours->access_token && found->access_token &&
         strcmp(ours->access_token, found->access_token) != 0 &&
         token_fingerprint(found->access_token) != flow->replaced;
}

struct flow_action on_load_before_unsaved(struct flow *flow, const struct flow_event *event)
{
  struct record found = {0};
  bool read = event->result == FLOW_OK && record_read(&found, event->text, &flow->settings->world);
  if (flow->settings->reads_back && shows(flow, event, &flow->unsaved)) {
    record_free(&found);
    record_free(&flow->record);
    return saved_at_last(flow); /* it was only late */
  }
  /* a parent may have saved the very same, or somebody has stored better ones */
  bool better = !flow_was_spent(flow, &found) && (flow->inherited || flow_is_another(&flow->unsaved, &found));
  if (read && (better || is_newer(flow, &found))) {
    record_free(&flow->unsaved);
    flow->inherited = false;
    return flow_go_on_with(flow, &found);
  }
  record_free(&found);
  flow_hear_of_listed(flow, event);
  return flow_save(flow, SAVE_UNSAVED, &flow->unsaved);
}

struct flow_action on_save_unsaved(struct flow *flow, const struct flow_event *event)
{
  if (event->result == FLOW_FAILED)
    return still_unsaved(flow, event->code, event->text);
  return flow_confirm(flow, SAVE_UNSAVED);
}

/* Fields beside the grant are not held against the storage: the tokens are there. */
static bool shows(const struct flow *flow, const struct flow_event *event, const struct record *given)
{
  struct record found;
  struct pending unused;
  char fault[160];
  if (event->result != FLOW_OK || !record_read(&found, event->text, &flow->settings->world))
    return false;
  bool marked = record_pending(given, &flow->settings->world, &unused);
  bool same = flow_same_token(found.refresh_token, given->refresh_token) &&
              flow_same_token(found.access_token, given->access_token) &&
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
  case SAVE_UNSAVED:
    return saved_at_last(flow);
  case SAVE_TOKENS:
    return flow_tokens_are_kept(flow);
  case SAVE_SALVAGED:
    return flow_salvaged_is_kept(flow);
  case SAVE_LOGIN:
    return flow_login_is_kept(flow);
  default:
    return flow_let_it_settle(flow); /* SAVE_ANSWER */
  }
}

/* A save has succeeded. A storage of the program's own may say so, and not have done it. */
struct flow_action flow_confirm(struct flow *flow, enum state save)
{
  flow->confirms = save;
  if (!flow->settings->reads_back)
    return confirmed(flow);
  flow->back_pause = BACK_PAUSE_FIRST;
  flow->back_since = flow->now.steady;
  return flow_go_to(flow, LOAD_SAVED);
}

static struct flow_action not_confirmed(struct flow *flow, const struct flow_event *event)
{
  char message[FLOW_MESSAGE];
  if (flow->confirms == SAVE_ANSWER) {
    flow->unnoted = true;
    return flow_let_it_settle(flow);
  }
  if (event->result == FLOW_FAILED)
    snprintf(message, sizeof message, "%s", event->text);
  else
    message_not_shown(message, flow->settings);
  if (flow->confirms == SAVE_LOGIN)
    return flow_login_is_not_kept(flow, CODE_STORAGE, message);
  return flow->confirms == SAVE_UNSAVED ? still_unsaved(flow, CODE_STORAGE, message)
                                        : flow_keep_in_memory(flow, message);
}

/* The time for a read-back: a storage that was seen to lag has all of the call, as has one that is left for good. */
static bool waits_to_confirm(const struct flow *flow)
{
  bool again = flow->confirms == SAVE_UNSAVED;
  bool patient =
      flow->lags || flow->goal == FLOW_KEEP || flow->goal == FLOW_STORE; /* no mark has shown whether it lags */
  if (flow->confirms == SAVE_LOGIN && flow->now.steady < flow->back_since + BACK_LEAST)
    return true;
  if (flow_time_is_over(flow) || (again && flow_can_serve(flow)))
    return false;
  if (flow->live.token && flow->goal == FLOW_TOKEN && flow->now.steady >= flow->live.refresh_at.steady)
    return false;
  return patient || flow->now.steady < flow->back_since + BACK_LEAST;
}

/* A program without the lock has written since; the next call takes its record up. */
static bool is_overwritten(const struct flow *flow, const struct flow_event *event, const struct record *given)
{
  struct record found;
  if (event->result != FLOW_OK || !record_read(&found, event->text, &flow->settings->world))
    return false;
  bool another = flow_is_another(given, &found) && !flow_was_spent(flow, &found);
  record_free(&found);
  return another;
}

struct flow_action on_load_saved(struct flow *flow, const struct flow_event *event)
{
  const struct record *given = flow->confirms == SAVE_UNSAVED ? &flow->unsaved : &flow->record;
  if (shows(flow, event, given))
    return confirmed(flow);
  if (flow->confirms != SAVE_LOGIN && is_overwritten(flow, event, given)) /* beside a login it is the old record */
    return confirmed(flow);
  if (!waits_to_confirm(flow))
    return not_confirmed(flow, event);
  double left = flow_time_is_over(flow) ? BACK_PAUSE_MOST : flow->deadline - flow->now.steady;
  return flow_look_back_again(flow, WAIT_SAVED, left);
}

struct flow_action flow_review(struct flow *flow)
{
  flow->reviewed = flow->state;
  if (flow->state == SAVE_LOGIN)
    flow->recovering = flow->doubted = flow->settled = false; /* of the record that was there */
  if (flow->state == SAVE_MARK || flow->state == SAVE_LOGIN)
    return flow_go_to(flow, LOAD_LOCKED);
  if (flow->state == SAVE_UNSAVED)
    return flow_go_to(flow, LOAD_BEFORE_UNSAVED);
  return flow_go_to(flow, LOAD_CHANGED);
}

/* A process whose lock was removed may come back to find that another has gone on, or is at it: a mark that is not there
 * any more is not taken back. */
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
bool flow_read_newer_access_token(const struct flow *flow, const struct flow_event *event, struct record *found)
{
  const char *ours = flow->record.access_token;
  if (!record_read(found, event->text, &flow->settings->world))
    return false;
  if (found->access_token && (!ours || strcmp(found->access_token, ours) != 0))
    return true;
  record_free(found);
  return false;
}

/* Another writer's record is adopted; a record that is gone is not brought back for the sake of a mark. */
struct flow_action on_load_changed(struct flow *flow, const struct flow_event *event)
{
  struct record found;
  enum finding finding = flow_compare(flow, event, &found);
  if (finding == ANOTHER)
    return flow_go_on_with(flow, &found);
  if (finding == SAME_GRANT && !flow_brings_tokens(flow->reviewed) && !has_our_mark(flow, event))
    return flow_leave(flow);
  if (finding == SAME_GRANT && !flow_brings_tokens(flow->reviewed) && flow_read_newer_access_token(flow, event, &found))
    return flow_go_on_with(flow, &found);
  if (finding == SAME_GRANT || flow_brings_tokens(flow->reviewed))
    return flow_save(flow, flow->reviewed, &flow->record);
  return flow->reviewed == SAVE_ANSWER ? flow_let_it_settle(flow) : flow_leave(flow);
}

/* Somebody else writes all the time: then it is as if it could not be written. */
struct flow_event flow_give_up_reviewing(const struct flow *flow)
{
  return (struct flow_event){
      .now = flow->now, .result = FLOW_FAILED, .code = CODE_STORAGE, .text = message_keeps_changing};
}
