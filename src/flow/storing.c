/* Storing a login. */
#include "messages.h"
#include "states.h"

#include <math.h>
#include <string.h>

/* Nothing was done, and nothing is wrong with the stored grant. */
static struct flow_action decline(struct flow *flow, enum code code)
{
  flow->outcome.code = code;
  return flow_leave(flow);
}

static struct flow_action decline_for_living(struct flow *flow, bool known)
{
  message_living(flow->outcome.message, flow->settings, known);
  return decline(flow, CODE_CONFIG);
}

static struct flow_action decline_spent(struct flow *flow)
{
  message_given_is_spent(flow->outcome.message, flow->settings);
  return decline(flow, CODE_INVALID_GRANT);
}

static struct flow_action decline_in_doubt(struct flow *flow)
{
  message_given_is_in_doubt(flow->outcome.message, flow->settings);
  return decline(flow, CODE_CONFIG);
}

static struct flow_action decline_expired(struct flow *flow)
{
  message_given_is_expired(flow->outcome.message);
  return decline(flow, CODE_CONFIG);
}

static bool is_given(const struct flow *flow, const char *name)
{
  const char *stored = json_string(flow->record.json, name), *given = json_string(flow->given.fields, name);
  return stored && given ? strcmp(stored, given) == 0 : stored == given;
}

/* Even with `replaces`, a refresh token that is spent is none to start from. */
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

/* Stored anew it would lose its mark, and be sent again without a question. */
static bool is_in_doubt(const struct flow *flow)
{
  struct pending mark;
  return flow->record.json && json_string(flow->given.fields, "refresh_token") && is_given(flow, "refresh_token") &&
         record_pending(&flow->record, &flow->settings->world, &mark);
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
  return !record_pending(record, &flow->settings->world, &mark) && live_token_allows(&flow->live, record) &&
         flow->now.wall < record->expires_at && !record_implausible(record, flow->now.wall);
}

static bool can_ask_for_login(const struct flow *flow)
{
  return flow_can_ask(flow) && !message_missing_setting(flow->settings);
}

/* Under the lock. Nothing is spent to find out whether the stored grant lives. */
static struct flow_action store_or_decline(struct flow *flow)
{
  const struct record *record = &flow->record;
  bool dead;
  if (!record->json || flow->replaces || is_stored_already(flow))
    return flow_store_login(flow);
  /* a broken answer may hold the refresh token that lives */
  if (flow_is_foreign(flow) || record_salvage(&flow->record))
    return decline_for_living(flow, false);
  (void)flow_held_back(flow, &dead);
  if (dead || (flow->spent_before && !can_ask_for_login(flow)) || record_is_refused(record))
    return flow_store_login(flow);
  if (has_living_access_token(flow))
    return decline_for_living(flow, true);
  if (!record->refresh_token)
    return flow_store_login(flow);
  return can_ask_for_login(flow) ? flow_post_introspection(flow, record->refresh_token, POST_INTROSPECTION)
                                 : decline_for_living(flow, false);
}

/* Another one may have begun meanwhile. */
static bool has_had_its_time(const struct flow *flow, const struct pending *mark)
{
  return flow->settled && mark->since == flow->pending.since &&
         strcmp(mark->refresh_token, flow->pending.refresh_token) == 0;
}

struct flow_action flow_judge_login(struct flow *flow)
{
  struct pending mark;
  if (!flow->locked)
    return flow_ask_for_lock(flow);
  if (is_known_as_spent(flow))
    return decline_spent(flow);
  if (is_in_doubt(flow))
    return decline_in_doubt(flow);
  bool under_way = record_pending(&flow->record, &flow->settings->world, &mark) && !(mark.lost > 0);
  if (under_way && !has_had_its_time(flow, &mark)) {
    flow->pending = mark;
    flow->settled = false;
    return flow_recover(flow);
  }
  return store_or_decline(flow);
}

/* A refresh that was under way has had its time, or introspection that did not answer. */
struct flow_action flow_settle_for_login(struct flow *flow)
{
  bool settled = flow->settled;
  flow->settled = true;
  return settled ? store_or_decline(flow) : flow_go_to(flow, LOAD_LOCKED);
}

static struct flow_action ask_again_for_login(struct flow *flow, const struct introspection *found)
{
  double pause = flow_retry_pause(flow, found->retry_after);
  if (found->transient && flow->now.steady + pause < flow->deadline)
    return flow_wait_for(flow, WAIT_SETTLE, pause);
  message_explain(flow->outcome.message, flow->settings, found->code, found->message,
                  "Whether the stored grant still lives could not be asked, so nothing was changed. { replace = true } "
                  "(in C: the flag LUCIDAUTH_REPLACE) stores the answer without asking.");
  return decline(flow, found->code);
}

struct flow_action flow_go_on_for_login(struct flow *flow, const struct introspection *found)
{
  if (found->said == INTROSPECTION_ACTIVE)
    return decline_for_living(flow, true);
  if (found->said == INTROSPECTION_INACTIVE)
    return flow_look_before_verdict(flow);
  if (!found->refused)
    return ask_again_for_login(flow, found);
  flow->deaf = true;
  return store_or_decline(flow);
}

static struct flow_action save_login(struct flow *flow, struct record *given)
{
  if (!given->refresh_token && !(given->expires_at > flow->now.wall)) {
    record_free(given);
    return decline_expired(flow);
  }
  record_free(&flow->record);
  flow->record = *given;
  if (!record_set_server(&flow->record, flow->settings->token_url))
    return flow_out_of_memory(flow);
  return flow_save(flow, SAVE_LOGIN, &flow->record);
}

/* It takes the place of the record in hand. The fields stay for another try. */
static bool make_login(struct flow *flow, struct record *made)
{
  struct answer copy = flow->given;
  double since = fmin(flow->started_at, flow->now.wall);
  copy.fields = cJSON_Duplicate(flow->given.fields, 1);
  bool done = copy.fields && record_give(made, &copy, since, &flow->record, !flow->replaces && !is_stored_already(flow),
                                         !flow->replaces, &flow->settings->world);
  answer_free(&copy);
  return done;
}

struct flow_action flow_store_login(struct flow *flow)
{
  struct record made;
  return make_login(flow, &made) ? save_login(flow, &made) : flow_out_of_memory(flow);
}

/* The damaged text is kept as it is, in the record. */
struct flow_action flow_store_over_damaged(struct flow *flow, const char *text)
{
  struct record made;
  if (!flow->locked)
    return flow_ask_for_lock(flow);
  if (strlen(text) > RAW_MOST)
    return flow_damaged(flow);
  if (is_known_as_spent(flow))
    return decline_spent(flow);
  if (!make_login(flow, &made))
    return flow_out_of_memory(flow);
  if (*text && !json_set_string(made.json, "damaged", text)) {
    record_free(&made);
    return flow_out_of_memory(flow);
  }
  return save_login(flow, &made);
}

struct flow_action flow_login_is_not_kept(struct flow *flow, enum code code, const char *why)
{
  char message[FLOW_MESSAGE];
  message_not_stored(message, why);
  return flow_fail_and_leave(flow, code, message);
}

struct flow_action flow_login_is_kept(struct flow *flow)
{
  flow_succeed(flow);
  flow_add_note(flow, FLOW_STORED, CODE_OK, "");
  return flow_leave(flow);
}

struct flow_action on_save_login(struct flow *flow, const struct flow_event *event)
{
  if (event->result == FLOW_FAILED)
    return flow_login_is_not_kept(flow, event->code, event->text);
  return flow_confirm(flow, SAVE_LOGIN);
}
