/* A refresh in doubt: introspection, another request, a refresh token that was found in a broken answer, or the end of
 * the grant. */
#include "messages.h"
#include "states.h"

#include <stdio.h>

/* A refresh token came in a broken answer, and is the record's now. It is used once a flight: a server that breaks every
 * answer would have it rotate for ever. */
static struct flow_action go_on_with_salvaged(struct flow *flow)
{
  static const char *const safe = "The refresh token that came with it is stored.";
  static const char *const earlier = "the answer to an earlier refresh made no sense";
  bool again = flow->salvaged;
  flow_remember_spent(flow);
  (void)record_remember_spent(&flow->record, flow->pending.refresh_token);
  flow->salvaged = flow->recovering = true;
  flow->doubted = flow->marked = flow->keeps_mark = false;
  flow->spent_before = flow_is_known_spent(flow, flow->record.refresh_token); /* an old copy, with its answer */
  flow->stops = again || flow_time_is_over(flow);
  if (flow->stops)
    flow_fail_with_successor(flow, CODE_BAD_RESPONSE, *flow->outcome.message ? flow->outcome.message : earlier, safe);
  return flow_save(flow, SAVE_SALVAGED, &flow->record);
}

struct flow_action flow_salvaged_is_kept(struct flow *flow)
{
  if (flow->stops)
    return flow_leave(flow);
  return flow->spent_before ? flow_ask_first(flow) : flow_begin_refresh(flow);
}

struct flow_action on_save_salvaged(struct flow *flow, const struct flow_event *event)
{
  if (event->result == FLOW_FAILED) {
    if (flow->outcome.code == CODE_OK) /* there is no access token with it */
      flow_fail(flow, event->code, event->text);
    return flow_keep_in_memory(flow, event->text);
  }
  return flow->stops ? flow_confirm(flow, SAVE_SALVAGED) : flow_salvaged_is_kept(flow);
}

/* Without introspection. The part of the answer that arrived is in the mark. */
struct flow_action flow_settle_alone(struct flow *flow)
{
  return record_salvage(&flow->record) ? go_on_with_salvaged(flow) : flow_resend_or_give_up(flow);
}

struct flow_action flow_introspect(struct flow *flow)
{
  if (!flow_can_ask(flow) && record_salvage(&flow->record))
    return go_on_with_salvaged(flow);
  if (!flow_can_ask(flow) && flow->spent_before)
    return flow_not_again(flow); /* an old copy, with its mark */
  if (!flow_can_ask(flow)) {
    flow->keeps_mark = flow->recovering; /* whose request counted will not be known */
    return flow_begin_refresh_anew(flow);
  }
  return flow_post_introspection(flow, flow->record.refresh_token, POST_INTROSPECTION);
}

struct flow_action flow_ask_what_became(struct flow *flow)
{
  return flow->goal == FLOW_STORE ? flow_settle_for_login(flow) : flow_introspect(flow);
}

static struct flow_action unspent_after_all(struct flow *flow)
{
  static const char *const safe = "The refresh token is still alive, and stored.";
  flow->doubted = false;
  flow_know_as_unspent(flow);
  bool serve = flow_can_serve(flow) && !flow->recovering;
  if (!serve && flow->resends++ < RESENDS_MOST && flow->now.steady < flow->deadline) {
    /* the other's mark says nothing of this process, and does not show that it can save */
    if (flow->recovering && flow->resends == 1)
      return flow_begin_refresh_anew(flow);
    return flow_look_before_resend(flow);
  }
  if (flow->outcome.code == CODE_OK)
    flow_fail(flow, CODE_TIMEOUT,
              "A process left a refresh unfinished, and to settle that took all the time of this call");
  char what[FLOW_MESSAGE + 32];
  int length = snprintf(what, sizeof what, "%s", flow->outcome.message);
  if (flow->resends > 1)
    snprintf(what + length, sizeof what - (size_t)length, " (%d times in a row)", flow->resends);
  flow_fail_refresh(flow, flow->outcome.code, what, safe, -1);
  return flow_clear_and_leave(flow);
}

/* A refusal in unknown words, of a refresh token that is alive: it was the request's fault. */
static struct flow_action refused_for_other_reasons(struct flow *flow)
{
  char what[FLOW_MESSAGE];
  flow->unclear = false;
  snprintf(what, sizeof what, "%s", flow->outcome.message);
  flow_fail_refresh(flow, flow->outcome.code, what, "The refresh token is still alive, and stored.", -1);
  return flow_clear_and_leave(flow);
}

static struct flow_action nobody_to_ask(struct flow *flow)
{
  flow->deaf = true;
  if (flow->unclear)
    return flow_look_before_verdict(flow);
  return flow->recovering ? flow_introspect(flow) : flow_settle_alone(flow);
}

static struct flow_action not_answered(struct flow *flow, const struct introspection *found)
{
  double pause = flow_retry_pause(flow, found->retry_after);
  bool serve = flow_can_serve(flow);
  if (!serve && found->transient && flow->now.steady + pause < flow->deadline)
    return flow_wait_for(flow, WAIT_SETTLE, pause);
  if (flow->unclear) {
    flow_fail_refresh(flow, flow->outcome.code, flow->outcome.message, message_kept, found->retry_after);
    return flow_clear_and_leave(flow);
  }
  flow_fail_refresh(
      flow, found->code, found->message,
      "An earlier refresh did not finish, and the server could not be asked what became of it; everything is "
      "stored, and the next call asks again.",
      found->retry_after);
  return flow_leave(flow);
}

struct flow_action on_post_introspection(struct flow *flow, const struct flow_event *event)
{
  struct answer_context known = flow_context(flow);
  struct introspection found = answer_introspection(event->reply, &known);
  request_free(&flow->request);
  if (flow->goal == FLOW_STORE)
    return flow_go_on_for_login(flow, &found);
  if (found.said == INTROSPECTION_ACTIVE)
    return flow->unclear ? refused_for_other_reasons(flow) : unspent_after_all(flow);
  if (found.said == INTROSPECTION_NONE)
    return found.refused ? nobody_to_ask(flow) : not_answered(flow, &found);
  flow->spent_for_sure = true;
  if (flow->unclear)
    flow->outcome.code = CODE_INVALID_GRANT;
  flow->unclear = false;
  return flow_look_before_verdict(flow);
}

/* Another writer may have spent the refresh token meanwhile, or brought a better one. */
struct flow_action flow_look_before_resend(struct flow *flow)
{
  return flow_go_to(flow, LOAD_BEFORE_RESEND);
}

struct flow_action on_load_before_resend(struct flow *flow, const struct flow_event *event)
{
  struct record found;
  if (event->result == FLOW_NONE)
    return flow_judge_empty(flow);
  if (flow_compare(flow, event, &found) == ANOTHER)
    return flow_go_on_with(flow, &found);
  if (flow->recovering && flow_read_newer_access_token(flow, event, &found))
    return flow_go_on_with(flow, &found);
  if (!flow->holds)
    return flow_begin_refresh(flow);
  return flow_time_is_over(flow) || flow->spends >= SPENDS_MOST ? flow_send_nothing_more(flow)
                                                                : flow_send_refresh(flow);
}

struct flow_action flow_look_before_verdict(struct flow *flow)
{
  flow->looks = 0;
  return flow_go_to(flow, LOAD_BEFORE_VERDICT);
}

struct flow_action flow_load_before_verdict(struct flow *flow)
{
  return flow_go_to(flow, LOAD_BEFORE_VERDICT);
}

/* The server has carried the refresh out, and its answer is nowhere. */
static struct flow_action lose(struct flow *flow)
{
  char what[FLOW_MESSAGE];
  message_lost(what, flow->settings, &flow->pending, flow->outcome.message);
  flow_report_loss(flow, what, -1);
  flow->pending.lost = flow->now.wall;
  return record_mark(&flow->record, &flow->pending, NULL) ? flow_save(flow, SAVE_UNMARKED, &flow->record)
                                                          : flow_leave(flow);
}

struct flow_action flow_call_dead(struct flow *flow)
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
    return flow_store_login(flow);
  if (flow->starting)
    return flow_not_again(flow);
  if (flow->doubted && record_salvage(&flow->record))
    return go_on_with_salvaged(flow);
  if (record_is_trial(&flow->record))
    return flow_give_trial_up(flow);
  if (flow_superseded(flow, true))
    return flow_try_configured(flow);
  if (flow->doubted && !flow->unclear)
    return lose(flow);
  snprintf(what, sizeof what, "%s", flow->outcome.message);
  enum code code = flow->outcome.code == CODE_OK ? CODE_INVALID_GRANT : flow->outcome.code;
  flow_fail_refresh(flow, code, what,
                    !flow->unclear            ? safe
                    : flow->settings->account ? unclear_of_account
                                              : unclear,
                    -1);
  if (!flow->unclear)
    record_refuse_origin(&flow->record);
  return flow_clear_and_leave(flow);
}

/* A storage that lags has not shown the answer to the request in doubt at first: the refresh token in it is the record's
 * from now on. */
static bool shows_answer(struct flow *flow, const struct flow_event *event)
{
  struct record found;
  if (!flow->doubted || flow->starting || event->result != FLOW_OK ||
      !record_read(&found, event->text, &flow->settings->world))
    return false;
  bool salvaged = flow_same_token(found.refresh_token, flow->record.refresh_token) && record_salvage(&found);
  record_free(salvaged ? &flow->record : &found);
  if (salvaged)
    flow->record = found;
  return salvaged;
}

struct flow_action on_load_before_verdict(struct flow *flow, const struct flow_event *event)
{
  struct record found;
  if (flow_compare(flow, event, &found) == ANOTHER)
    return flow_go_on_with(flow, &found);
  if (flow_may_look_again(flow))
    return flow_look_again(flow, WAIT_BEFORE_VERDICT);
  if (event->result == FLOW_FAILED) /* nobody could look */
    return flow_fail_and_leave(flow, event->code, event->text);
  return shows_answer(flow, event) ? go_on_with_salvaged(flow) : flow_call_dead(flow);
}
