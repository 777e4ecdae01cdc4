/* The record is loaded, without the lock and under it, and judged: serve it, leave it, or refresh it. */
#include "../oauth/origin.h"
#include "../oauth/token.h"
#include "messages.h"
#include "states.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOCK_PAUSE_MOST 0.05
#define LOST_TRUSTED 60.0 /* another process's news of a lost refresh is believed this long */

struct flow_action flow_damaged(struct flow *flow)
{
  char message[FLOW_MESSAGE];
  message_damaged(message, flow->settings);
  return flow_fail_and_leave(flow, CODE_STORAGE, message);
}

static struct flow_action empty(struct flow *flow)
{
  char message[FLOW_MESSAGE];
  message_empty(message, flow->settings);
  return flow_fail_and_leave(flow, CODE_CONFIG, message);
}

static struct flow_action grantless(struct flow *flow)
{
  char message[FLOW_MESSAGE];
  message_grantless(message, flow->settings);
  return flow_fail_and_leave(flow, CODE_INVALID_GRANT, message);
}

bool flow_is_foreign(const struct flow *flow)
{
  const char *server = record_server(&flow->record);
  return server && flow->settings->token_url && !origin_is_same(server, flow->settings->token_url);
}

static struct flow_action foreign(struct flow *flow)
{
  char message[FLOW_MESSAGE];
  message_foreign(message, flow->settings, record_server(&flow->record));
  return flow_fail_and_leave(flow, CODE_CONFIG, message);
}

static struct flow_action not_bearer(struct flow *flow)
{
  return flow_fail_and_leave(
      flow, CODE_BAD_RESPONSE,
      "The server issued a token that is not of the type Bearer, which an API call cannot use. It is "
      "kept in the storage; refresh() asks for another.");
}

static struct flow_action serve_stored(struct flow *flow)
{
  bool other = live_token_differs(&flow->live, &flow->record);
  flow_succeed(flow);
  flow->busy_since = 0;
  if (other)
    flow_add_note(flow, FLOW_ADOPTED, CODE_OK, "");
  return flow_leave(flow);
}

/* The refresh token that would be spent; NULL: none. */
static const char *candidate(const struct flow *flow)
{
  return flow->record.refresh_token ? flow->record.refresh_token : flow->settings->refresh_token;
}

static void hear_of_backoff(struct flow *flow)
{
  struct failure failure;
  char hash[RECORD_HASH];
  if (!record_failure(&flow->record, &flow->settings->world, flow->now.wall, &failure))
    return;
  record_hash(&flow->settings->world, flow->record.refresh_token, hash);
  backoff_take_over(&flow->backoff, hash, failure.code, failure.message,
                    flow->now.steady + failure.until - flow->now.wall, flow->now.steady);
}

bool flow_held_back(struct flow *flow, bool *dead)
{
  char hash[RECORD_HASH];
  struct pending mark;
  *dead = record_pending(&flow->record, &flow->settings->world, &mark) && mark.lost > 0;
  if (!flow->backoff.of[0] || !candidate(flow))
    return false;
  record_hash(&flow->settings->world, candidate(flow), hash);
  *dead = *dead || backoff_is_death(&flow->backoff, hash);
  return flow->goal == FLOW_TOKEN && backoff_holds(&flow->backoff, hash, flow->now.steady);
}

/* Another process has asked the server about the refresh under way, and was told that it is lost. */
static bool is_known_lost(struct flow *flow)
{
  struct pending found;
  if (flow->goal != FLOW_TOKEN || !record_pending(&flow->record, &flow->settings->world, &found) || !(found.lost > 0) ||
      fabs(flow->now.wall - found.lost) > LOST_TRUSTED || flow_superseded(flow, true))
    return false;
  flow->pending = found;
  return true;
}

/* The server is not asked again yet. */
static struct flow_action fail_as_before(struct flow *flow)
{
  flow_fail(flow, flow->backoff.code, flow->backoff.message);
  return flow_leave(flow);
}

static struct flow_action lost_already(struct flow *flow)
{
  char what[FLOW_MESSAGE];
  if (backoff_is_death(&flow->backoff, flow->pending.refresh_token))
    return fail_as_before(flow);
  message_lost(what, flow->settings, &flow->pending, flow->outcome.message);
  flow_report_loss(flow, what, flow->pending.lost + LOST_TRUSTED - flow->now.wall);
  return flow_leave(flow);
}

/* The record as just loaded is in hand. Under the lock this starts a refresh, without it it asks for the lock. */
struct flow_action flow_judge(struct flow *flow)
{
  struct record *record = &flow->record;
  if (flow->goal == FLOW_STORE)
    return flow_judge_login(flow);
  bool dead, for_use = flow->goal == FLOW_TOKEN || flow->goal == FLOW_REFRESH;
  if (flow_is_foreign(flow))
    return for_use ? foreign(flow) : flow_leave(flow);
  if (flow->goal != FLOW_REFRESH && flow_is_fresh(flow, record))
    return serve_stored(flow);
  flow_take_token(flow, record);
  if (flow->goal == FLOW_TOKEN && record->access_token && !record->bearer && flow->now.wall < record->expires_at &&
      !record_implausible(record, flow->now.wall))
    return not_bearer(flow);
  if (!for_use)
    return flow_leave(flow);
  hear_of_backoff(flow);
  bool held = flow_held_back(flow, &dead);
  if (held && !flow_superseded(flow, dead))
    return fail_as_before(flow);
  if (is_known_lost(flow))
    return lost_already(flow);
  if (message_missing_setting(flow->settings))
    return flow_fail_and_leave(flow, CODE_CONFIG, message_missing_setting(flow->settings));
  if (!flow->locked)
    return flow_ask_for_lock(flow);
  if (flow_superseded(flow, dead))
    return flow_start_from_configured(flow);
  return record->refresh_token ? flow_begin_refresh(flow) : grantless(flow);
}

struct flow_action flow_judge_empty(struct flow *flow)
{
  bool dead;
  record_free(&flow->record);
  if (flow->goal == FLOW_LOOK || flow->goal == FLOW_KEEP)
    return flow_leave(flow);
  if (flow->goal == FLOW_STORE)
    return flow_judge_login(flow);
  if (!flow->settings->refresh_token)
    return empty(flow);
  if (flow_held_back(flow, &dead))
    return fail_as_before(flow);
  if (message_missing_setting(flow->settings))
    return flow_fail_and_leave(flow, CODE_CONFIG, message_missing_setting(flow->settings));
  return flow->locked ? flow_start_from_configured(flow) : flow_ask_for_lock(flow);
}

static bool is_listed(const char *hashes, const char *hash)
{
  return hashes && strstr(hashes, hash);
}

bool flow_was_spent_here(const struct flow *flow, const char *hash)
{
  uint64_t fingerprint = token_fingerprint(hash);
  for (int i = 0; i < SPENT_KEPT; i++)
    if (flow->spent[i] == fingerprint)
      return true;
  return false;
}

bool flow_is_known_spent(const struct flow *flow, const char *refresh_token)
{
  char hash[RECORD_HASH];
  record_hash(&flow->settings->world, refresh_token, hash);
  return flow_was_spent_here(flow, hash) || is_listed(flow->listed, hash);
}

void flow_hear_of_listed(struct flow *flow, const struct flow_event *event)
{
  free(flow->listed);
  flow->listed = event->spent ? strdup(event->spent) : NULL;
}

/* A record can vanish or be set back; a spent refresh token stays spent. Asked under the lock alone: there it counts,
 * and there the hash function is loaded. */
static void hear_of_spent(struct flow *flow, const struct flow_event *event)
{
  char hash[RECORD_HASH];
  const char *configured = flow->settings->refresh_token, *stored = flow->record.refresh_token;
  flow->spent_before = flow->given_is_spent = false;
  if (!flow->locked)
    return;
  flow_hear_of_listed(flow, event);
  const char *given = json_string(flow->given.fields, "refresh_token");
  if (given)
    flow->given_is_spent = flow_is_known_spent(flow, given);
  if (configured) {
    record_hash(&flow->settings->world, configured, hash);
    bool is_successor = stored && strcmp(stored, configured) != 0 &&
                        record_came_from(&flow->record, configured, &flow->settings->world);
    if (is_successor || is_listed(flow->listed, hash))
      flow->configured_is_spent = true;
  }
  if (stored)
    flow->spent_before = flow_is_known_spent(flow, stored);
}

struct flow_action flow_load_unlocked(struct flow *flow)
{
  return flow_go_to(flow, LOAD_UNLOCKED);
}

struct flow_action flow_load_locked(struct flow *flow)
{
  return flow_go_to(flow, LOAD_LOCKED);
}

struct flow_action flow_load_once_more(struct flow *flow)
{
  return flow->locked ? flow_load_locked(flow) : flow_load_unlocked(flow);
}

struct flow_action on_load(struct flow *flow, const struct flow_event *event)
{
  if (event->result == FLOW_FAILED)
    return flow_fail_and_leave(flow, event->code, event->text);
  record_free(&flow->record);
  bool read = event->result == FLOW_OK && record_read(&flow->record, event->text, &flow->settings->world);
  hear_of_spent(flow, event);
  if (event->result == FLOW_NONE)
    return flow_judge_empty(flow);
  if (read)
    return flow_judge(flow);
  if (flow_may_look_again(flow))
    return flow_look_again(flow, WAIT_TORN);
  return flow->goal == FLOW_STORE ? flow_store_over_damaged(flow, event->text) : flow_damaged(flow);
}

struct flow_action flow_ask_for_lock(struct flow *flow)
{
  return flow_go_to(flow, LOCK_RECORD);
}

static struct flow_action lock_is_stuck(struct flow *flow, double busy)
{
  char message[FLOW_MESSAGE];
  struct pending mark;
  bool refreshing = record_pending(&flow->record, &flow->settings->world, &mark);
  message_lock_held(message, flow->settings, refreshing ? &mark : NULL, busy);
  return flow_fail_and_leave(flow, CODE_LOCKED, message);
}

static struct flow_action lock_takes_too_long(struct flow *flow)
{
  char message[FLOW_MESSAGE];
  struct pending mark;
  bool refreshing = record_pending(&flow->record, &flow->settings->world, &mark);
  message_lock_waited_for(message, flow->settings, refreshing ? &mark : NULL);
  return flow_fail_and_leave(flow, CODE_TIMEOUT, message);
}

/* No pause outlasts its cause. */
static struct flow_action wait_for_lock(struct flow *flow, double left)
{
  flow->lock_pause = fmin(LOCK_PAUSE_MOST, fmax(LOCK_PAUSE_FIRST, flow->lock_pause * 2));
  double pause = backoff_seconds(1, flow->lock_pause, flow->lock_pause, &flow->random);
  struct flow_action action = flow_wait_for(flow, WAIT_LOCK, fmin(pause, fmax(LOCK_PAUSE_FIRST, left)));
  action.for_others = true;
  return action;
}

static struct flow_action lock_is_busy(struct flow *flow)
{
  /* once for all flights that meet the same holder */
  if (flow->busy_since == 0)
    flow->busy_since = flow->now.steady;
  double busy = flow->now.steady - flow->busy_since;
  bool serves = flow_can_serve(flow);
  if (serves && busy >= flow->settings->refresh_wait) {
    flow_fail(flow, CODE_LOCKED, "");
    return flow_finish(flow);
  }
  if (busy >= flow->settings->lock_timeout)
    return lock_is_stuck(flow, busy);
  if (flow->now.steady >= flow->deadline)
    return lock_takes_too_long(flow);
  double left = fmin(flow->settings->lock_timeout - busy, flow->deadline - flow->now.steady);
  return wait_for_lock(flow, serves ? fmin(left, flow->settings->refresh_wait - busy) : left);
}

struct flow_action on_lock_record(struct flow *flow, const struct flow_event *event)
{
  if (event->result == FLOW_BUSY)
    return lock_is_busy(flow);
  if (event->result == FLOW_FAILED)
    return flow_fail_and_leave(flow, event->code, event->text);
  flow->locked = true;
  flow->busy_since = 0;
  snprintf(flow->lock, sizeof flow->lock, "%s", event->text ? event->text : "");
  return flow_go_to(flow, flow->unsaved.json ? LOAD_BEFORE_UNSAVED : LOAD_LOCKED);
}

/* The lock may still be the parent's: it is asked for once a flight as long as the token lives. A login needs it. */
struct flow_action on_lock_inherited(struct flow *flow, const struct flow_event *event)
{
  if (event->result == FLOW_OK)
    return on_lock_record(flow, event);
  if (flow->goal == FLOW_KEEP || (flow->goal != FLOW_STORE && flow_token_lives(flow)))
    return flow_finish(flow);
  return event->result == FLOW_BUSY ? lock_is_busy(flow) : flow_fail_and_leave(flow, event->code, event->text);
}

/* Either may be NULL. */
bool flow_same_token(const char *one, const char *other)
{
  return one && other ? strcmp(one, other) == 0 : !one && !other;
}

bool flow_is_another(const struct record *known, const struct record *found)
{
  const char *ours = known->refresh_token, *theirs = found->refresh_token;
  if (!ours)
    return true;
  return theirs ? strcmp(ours, theirs) != 0 : found->access_token != NULL;
}

/* The record as it was before the refresh under way, or before an earlier one of this process. */
bool flow_was_spent(const struct flow *flow, const struct record *found)
{
  char hash[RECORD_HASH];
  if (!found->refresh_token)
    return false;
  record_hash(&flow->settings->world, found->refresh_token, hash);
  return strcmp(hash, flow->pending.refresh_token) == 0 || flow_was_spent_here(flow, hash);
}

struct flow_action flow_go_on_with(struct flow *flow, struct record *found)
{
  record_free(&flow->record);
  flow->record = *found;
  flow->recovering = flow->doubted = flow->unclear = flow->marked = flow->keeps_mark = false;
  flow->starting = flow->allowed = flow->burying = flow->spent_for_sure = flow->spent_before = false;
  flow->settled = false;
  flow->resends = 0;
  if (flow->turns++ < TURNS_MOST)
    return flow_judge(flow);
  return flow_fail_and_leave(flow, CODE_STORAGE, message_keeps_changing);
}

/* The record that a LOAD found, held against the one in hand; ANOTHER is in `found`, for go_on_with. */
enum finding flow_compare(const struct flow *flow, const struct flow_event *event, struct record *found)
{
  *found = (struct record){0};
  if (event->result != FLOW_OK || !record_read(found, event->text, &flow->settings->world))
    return NO_RECORD;
  if (flow_is_another(&flow->record, found) && !flow_was_spent(flow, found))
    return ANOTHER;
  record_free(found);
  return SAME_GRANT;
}
