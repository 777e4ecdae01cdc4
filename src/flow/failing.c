/* The state of the token in use, and the messages of a flight that fails. */
#include "../oauth/reply.h"
#include "messages.h"
#include "states.h"

#include <stdio.h>
#include <string.h>

bool flow_token_lives(const struct flow *flow)
{
  return live_token_lives(&flow->live, flow->now);
}

/* Whether the token in use will do for this call, whatever becomes of the refresh. */
bool flow_can_serve(const struct flow *flow)
{
  return flow->goal == FLOW_TOKEN && flow_token_lives(flow);
}

/* A token beside a pending mark may die at any moment, or be dead already. */
bool flow_is_fresh(const struct flow *flow, const struct record *record)
{
  struct pending pending;
  return live_token_allows(&flow->live, record) &&
         flow->now.wall < record_refresh_at(record, flow->settings->refresh_before) &&
         !live_token_is_due(&flow->live, record, flow->now) && !record_implausible(record, flow->now.wall) &&
         !record_pending(record, &flow->settings->world, &pending);
}

void flow_take_token(struct flow *flow, const struct record *record)
{
  live_token_take(&flow->live, record, flow->settings->refresh_before, flow->now);
  flow->came_alive = flow_token_lives(flow);
}

void flow_add_note(struct flow *flow, enum flow_note_kind kind, enum code code, const char *message)
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
void flow_remember_trouble(struct flow *flow, enum code code, const char *message)
{
  flow->trouble = code;
  snprintf(flow->trouble_message, sizeof flow->trouble_message, "%s", message);
}

/* The flight ends without a new token. */
void flow_fail(struct flow *flow, enum code code, const char *message)
{
  struct flow_outcome *outcome = &flow->outcome;
  outcome->code = code;
  if (message != outcome->message)
    snprintf(outcome->message, sizeof outcome->message, "%s", message);
  message_capitalize(outcome->message);
  if (*message)
    flow_remember_trouble(flow, code, outcome->message);
}

/* The record in hand holds the token to use, which makes earlier failures good. */
void flow_succeed(struct flow *flow)
{
  flow_take_token(flow, &flow->record);
  backoff_forget(&flow->backoff);
  backoff_forget(&flow->start_backoff);
  flow->outcome.code = flow->trouble = CODE_OK;
  flow->outcome.message[0] = flow->trouble_message[0] = '\0';
}

/* The app that the record says it is of, as servers answer with their client_id; NULL: it does not say, it is this
 * client's, or it may not be shown. */
static const char *other_app(const struct flow *flow)
{
  const char *app = json_string(flow->record.json, "client_id"), *ours = flow->settings->credentials.client_id;
  struct answer_context known = flow_context(flow);
  return app && *app && ours && strcmp(app, ours) != 0 && reply_is_safe(app, NULL, &known) ? app : NULL;
}

static bool is_refusal(enum code code)
{
  return code == CODE_INVALID_CLIENT || code == CODE_INVALID_GRANT || code == CODE_LOST_ROTATION ||
         code == CODE_BAD_RESPONSE;
}

/* A failure of the configured refresh token says nothing of the stored one. */
static struct backoff *backoff_in_hand(struct flow *flow)
{
  bool beside = (flow->starting && flow->record.json) || record_is_trial(&flow->record);
  return beside ? &flow->start_backoff : &flow->backoff;
}

/* It is remembered for the refresh token. */
void flow_report_failure(struct flow *flow, enum code code, const char *message, double server_wait)
{
  flow_fail(flow, code, message);
  backoff_remember(backoff_in_hand(flow), flow->pending.refresh_token, code, message, server_wait, flow->now.steady,
                   &flow->random);
  if (flow->starting) /* it counts, too, once something else is stored */
    flow->start_backoff = *backoff_in_hand(flow);
  flow_add_note(flow, code == CODE_LOST_ROTATION ? FLOW_LOST : FLOW_REFRESH_FAILED, code, message);
}

/* A failure of the server or of the way to it. */
void flow_fail_refresh(struct flow *flow, enum code code, const char *what, const char *safe, double server_wait)
{
  char message[FLOW_MESSAGE];
  message_explain(message, flow->settings, code, what, safe);
  if (is_refusal(code) && other_app(flow))
    message_name_app(message, flow->settings, other_app(flow));
  if (flow->deaf)
    message_add(message, message_no_introspection);
  flow_report_failure(flow, code, message, server_wait);
}

/* The answer is of no use but for a new refresh token, and the failure is remembered for that one. The mark stays. */
void flow_fail_with_successor(struct flow *flow, enum code code, const char *what, const char *safe)
{
  struct pending spent = flow->pending;
  record_hash(&flow->settings->world, flow->record.refresh_token, flow->pending.refresh_token);
  flow_fail_refresh(flow, code, what, safe, -1);
  flow->pending = spent;
}

/* `trusted`: how many seconds it is not asked about again; negative: as after any failure. */
void flow_report_loss(struct flow *flow, const char *what, double trusted)
{
  live_token_ban(&flow->live, flow->record.access_token);
  flow_fail_refresh(flow, CODE_LOST_ROTATION, what, "What is known of it is kept in the storage.", trusted);
}
