/* The configured refresh token, which starts an empty storage and takes the place of a dead grant. */
#include "messages.h"
#include "states.h"

#include <stdio.h>
#include <string.h>

/* Whether the record holds the configured refresh token alone; a salvaged one is more. */
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

static bool forbids(const struct backoff *backoff, const char hash[RECORD_HASH], double now)
{
  return backoff_is_death(backoff, hash) || backoff_holds(backoff, hash, now);
}

/* Whether the configured refresh token is to be tried: the user has logged in again since the grant was started. */
bool flow_superseded(const struct flow *flow, bool dead)
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
  return !forbids(&flow->start_backoff, hash, flow->now.steady) && !forbids(&flow->backoff, hash, flow->now.steady);
}

static struct flow_action begin_from_configured(struct flow *flow)
{
  struct record before = flow->record;
  flow->starting = flow->recovering = flow->doubted = flow->unclear = flow->marked = flow->spent_before = false;
  flow->keeps_mark = false; /* it is of the stored refresh token */
  flow->resends = 0;
  flow_fail(flow, CODE_OK, ""); /* the failure so far is of another refresh token */
  bool started = record_start(&flow->record, flow->settings->refresh_token, &before, &flow->settings->world);
  record_free(&before);
  return started ? flow_begin_refresh(flow) : flow_out_of_memory(flow);
}

/* The stored grant was never tried, and nothing is known against it. */
static bool stored_may_live(struct flow *flow)
{
  bool dead;
  (void)flow_held_back(flow, &dead);
  return !flow->burying && is_as_given(flow) && !dead;
}

/* Nobody has called it alive that could know, and it was spent before: it is not sent again. */
struct flow_action flow_not_again(struct flow *flow)
{
  char message[FLOW_MESSAGE];
  bool stored = flow->record.json != NULL;
  if (!flow->starting) {
    message_set_back(message, flow->settings);
    flow_fail(flow, CODE_INVALID_GRANT, message);
    return flow_look_before_verdict(flow);
  }
  message_used_before(message, flow->settings, stored);
  if (flow->deaf)
    message_add(message, message_no_introspection);
  if (stored && stored_may_live(flow)) {
    backoff_remember(&flow->start_backoff, flow->pending.refresh_token, CODE_INVALID_GRANT, message, -1,
                     flow->now.steady, &flow->random);
    flow->starting = flow->spent_for_sure = false;
    return flow_begin_refresh(flow);
  }
  if (!stored || !flow->burying) {
    flow_report_failure(flow, CODE_INVALID_GRANT, message, -1);
    return flow_leave(flow);
  }
  /* the stored grant is dead, and is called so */
  backoff_remember(&flow->start_backoff, flow->pending.refresh_token, CODE_INVALID_GRANT, message, -1, flow->now.steady,
                   &flow->random);
  record_hash(&flow->settings->world, flow->record.refresh_token, flow->pending.refresh_token);
  flow->starting = false;
  return flow_call_dead(flow);
}

/* A refresh token that may be spent is sent when introspection calls it alive. */
struct flow_action flow_ask_first(struct flow *flow)
{
  const char *token = flow->starting ? flow->settings->refresh_token : flow->record.refresh_token;
  record_hash(&flow->settings->world, token, flow->pending.refresh_token);
  if (!flow_can_ask(flow))
    return flow_not_again(flow);
  return flow_post_introspection(flow, token, POST_INTROSPECTION_FIRST);
}

/* Another folder or program may have spent it, or an earlier record of this storage that is gone. */
struct flow_action flow_start_from_configured(struct flow *flow)
{
  flow->starting = true;
  return flow_can_ask(flow) || flow->configured_is_spent ? flow_ask_first(flow) : begin_from_configured(flow);
}

struct flow_action on_post_introspection_first(struct flow *flow, const struct flow_event *event)
{
  struct answer_context known = flow_context(flow);
  struct introspection found = answer_introspection(event->reply, &known);
  request_free(&flow->request);
  flow->deaf = found.said == INTROSPECTION_NONE && found.refused;
  if (found.said == INTROSPECTION_INACTIVE) {
    flow->spent_for_sure = true;
    return flow->starting ? flow_look_before_verdict(flow) : flow_not_again(flow);
  }
  if (flow->deaf && (flow->starting ? flow->configured_is_spent : flow->spent_before))
    return flow->starting ? flow_look_before_verdict(flow) : flow_not_again(flow);
  if (found.said == INTROSPECTION_ACTIVE || flow->deaf) {
    flow->allowed = true;
    return flow->starting ? begin_from_configured(flow) : flow_begin_refresh(flow);
  }
  double pause = flow_retry_pause(flow, found.retry_after);
  if (found.transient && flow->now.steady + pause < flow->deadline)
    return flow_wait_for(flow, WAIT_INTROSPECTION_FIRST, pause);
  flow_fail_refresh(flow, found.code, found.message,
                    event->reply->untrusted
                        ? message_distrusted
                        : "Whether the refresh token was used before could not be asked, so it was not "
                          "sent; nothing was changed.",
                    found.retry_after);
  return flow_leave(flow);
}

/* The configured refresh token is of no use either: the grant that was put aside for it is the record again. */
struct flow_action flow_give_trial_up(struct flow *flow)
{
  char what[FLOW_MESSAGE];
  snprintf(what, sizeof what, "%s", flow->outcome.message);
  bool lost = flow->doubted && !flow->unclear;
  if (lost)
    message_lost(what, flow->settings, &flow->pending, flow->outcome.message);
  flow_fail_refresh(flow, lost ? CODE_LOST_ROTATION : flow->outcome.code, what,
                    "The grant that was stored before is kept as it was.", -1);
  bool dead = flow->doubted || flow->spent_for_sure;
  return record_restore(&flow->record, dead, &flow->settings->world) ? flow_save(flow, SAVE_UNMARKED, &flow->record)
                                                                     : flow_leave(flow);
}

/* Before another grant takes the place of this one: its doubts stay with it. */
struct flow_action flow_try_configured(struct flow *flow)
{
  char what[FLOW_MESSAGE];
  if (!flow->burying) {
    bool lost = flow->doubted && !flow->unclear;
    enum code code = lost ? CODE_LOST_ROTATION : (flow->unclear ? CODE_BAD_RESPONSE : CODE_INVALID_GRANT);
    message_explain(what, flow->settings, code, flow->outcome.message, "");
    backoff_remember(&flow->backoff, flow->pending.refresh_token, code, what, -1, flow->now.steady, &flow->random);
    flow->pending.lost = lost ? flow->now.wall : 0;
    if (!flow->doubted || !record_mark(&flow->record, &flow->pending, NULL))
      record_unmark(&flow->record);
  }
  flow->burying = true;
  flow->spent_for_sure = false;
  return flow_start_from_configured(flow);
}

bool flow_is_configured(const struct flow *flow, const char *hash)
{
  char configured[RECORD_HASH];
  if (!flow->settings->refresh_token)
    return false;
  record_hash(&flow->settings->world, flow->settings->refresh_token, configured);
  return strcmp(configured, hash) == 0;
}
