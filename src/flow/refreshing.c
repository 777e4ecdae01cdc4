/* The refresh request, and the way on from each kind of answer. */
#include "../base/secret.h"
#include "../oauth/token.h"
#include "messages.h"
#include "states.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RESEND_PAUSE 2.0 /* a provider without introspection is given this long to settle */
#define MARK_FRESH 5.0   /* a mark older than this is set anew before its refresh token is sent */

struct flow_action flow_send_refresh(struct flow *flow)
{
  /* another process reckons from the mark's time */
  double age = fmax(flow->now.steady - flow->pending.steady, flow->now.wall - flow->pending.since);
  if (age > MARK_FRESH && !flow->keeps_mark)
    return flow_begin_refresh(flow);
  /* the zone's data is read from the disk now, and not between the answer and its save */
  struct civil unused;
  (void)flow->settings->world.to_local(flow->now.wall, &unused);
  request_free(&flow->request);
  if (!flow_set_reserve_aside(flow) ||
      !request_refresh(&flow->request, &flow->settings->credentials, flow->record.refresh_token))
    return flow_out_of_memory(flow);
  flow->spends++;
  flow->unsettled = flow->pending;
  return flow_post(flow, POST_REFRESH);
}

static void know_as_spent(struct flow *flow, const char *hash)
{
  if (!flow_was_spent_here(flow, hash))
    flow->spent[flow->spends_known++ % SPENT_KEPT] = token_fingerprint(hash);
}

void flow_settle_doubt(struct flow *flow)
{
  flow->unsettled = (struct pending){0};
}

/* The refresh token of the mark lives. */
void flow_know_as_unspent(struct flow *flow)
{
  flow_settle_doubt(flow);
  if (flow_is_configured(flow, flow->pending.refresh_token))
    flow->configured_is_spent = false;
}

void flow_remember_spent(struct flow *flow)
{
  char hash[RECORD_HASH];
  flow_settle_doubt(flow);
  if (flow->record.refresh_token)
    record_hash(&flow->settings->world, flow->record.refresh_token, hash);
  else
    hash[0] = '\0';
  if (strcmp(hash, flow->pending.refresh_token) == 0)
    return; /* a server that does not rotate */
  know_as_spent(flow, flow->pending.refresh_token);
  snprintf(flow->untold, sizeof flow->untold, "%s", flow->pending.refresh_token);
  flow->configured_is_spent = flow->configured_is_spent || flow_is_configured(flow, flow->pending.refresh_token);
}

struct flow_action flow_tokens_are_kept(struct flow *flow)
{
  record_free(&flow->unsaved);
  return flow_leave(flow);
}

struct flow_action on_save_tokens(struct flow *flow, const struct flow_event *event)
{
  if (event->result == FLOW_FAILED)
    return flow_keep_in_memory(flow, event->text);
  return flow_confirm(flow, SAVE_TOKENS);
}

/* New tokens are in the record. */
static void tokens_have_arrived(struct flow *flow)
{
  flow_remember_spent(flow);
  flow_succeed(flow);
  flow->last_refresh = flow->now.wall;
  flow_add_note(flow, FLOW_REFRESHED, CODE_OK, "");
  if (flow->recovering)
    flow_add_note(flow, FLOW_RECOVERED, CODE_OK, "");
}

/* An answer that has arrived is not to be lost for want of memory. */
static struct flow_action keep_as_it_came(struct flow *flow, struct answer *answer)
{
  if (!record_replace(&flow->record, answer, &flow->settings->world))
    return flow_out_of_memory(flow);
  tokens_have_arrived(flow);
  return flow_keep_in_memory(flow, message_no_memory_to_write);
}

static struct flow_action keep_tokens(struct flow *flow, struct answer *answer)
{
  /* a clock that was set back during the flight would otherwise lengthen the token's life */
  double since = fmin(flow->sent.wall, flow->now.wall);
  flow->replaced = flow->record.access_token ? token_fingerprint(flow->record.access_token) : 0;
  if (!record_rotate(&flow->record, answer, since, &flow->settings->world) &&
      !(flow_use_reserve(flow) && record_rotate(&flow->record, answer, since, &flow->settings->world)))
    return keep_as_it_came(flow, answer);
  (void)record_set_server(&flow->record, flow->settings->token_url);
  tokens_have_arrived(flow);
  if (answer->code != CODE_OK)
    flow_fail_with_successor(flow, answer->code, answer->message, "What the server sent is stored.");
  return flow_save(flow, SAVE_TOKENS, &flow->record);
}

static struct flow_action not_spent(struct flow *flow, const struct answer *answer)
{
  flow->spends--;
  if (!flow->doubted)
    flow_settle_doubt(flow);
  double pause = flow_retry_pause(flow, answer->retry_after);
  bool serve = flow_can_serve(flow);
  if (!serve && flow->now.steady + pause < flow->deadline)
    return flow_wait_for(flow, WAIT_RESEND, pause);
  flow_fail_refresh(flow, answer->code, answer->message, message_kept, answer->retry_after);
  return flow_clear_and_leave(flow);
}

/* No retry makes anybody vouch for the server. */
static struct flow_action distrusted(struct flow *flow, const struct answer *answer)
{
  flow->spends--;
  flow_fail_refresh(flow, answer->code, answer->message, message_distrusted, -1);
  return flow_clear_and_leave(flow);
}

/* As clients without introspection do (RFC 6749): once, after a pause. */
struct flow_action flow_resend_or_give_up(struct flow *flow)
{
  static const char *const safe =
      "The refresh token may have been spent; what is known is stored, and the next call settles it.";
  if (flow->resends++ == 0 && flow->now.steady + RESEND_PAUSE < flow->deadline)
    return flow_wait_for(flow, WAIT_RESEND, RESEND_PAUSE);
  flow_fail_refresh(flow, flow->outcome.code, flow->outcome.message, safe, -1);
  return flow_leave(flow);
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

static struct flow_action keep_doubt(struct flow *flow, const struct answer *answer, const struct reply *reply)
{
  flow->doubted = true;
  flow->configured_is_spent = flow->configured_is_spent || flow_is_configured(flow, flow->pending.refresh_token);
  flow_fail(flow, answer->code, answer->message);
  flow->pending.settles = reply->status == 502 || reply->status == 504 ? GATEWAY_TIME : 0;
  if (brings_successor(flow, reply))
    know_as_spent(flow, flow->pending.refresh_token);
  char *raw = copy_answer(flow, reply);
  bool noted = raw && record_mark(&flow->record, &flow->pending, raw);
  if (raw && !noted) {
    (void)flow_use_reserve(flow);
    noted = record_mark(&flow->record, &flow->pending, raw);
  }
  secret_free(raw);
  if (!flow_can_ask(flow))
    return flow_settle_alone(flow);
  return noted ? flow_save(flow, SAVE_ANSWER, &flow->record) : flow_let_it_settle(flow);
}

struct flow_action on_save_answer(struct flow *flow, const struct flow_event *event)
{
  flow->unnoted = event->result == FLOW_FAILED;
  return flow->unnoted ? flow_let_it_settle(flow) : flow_confirm(flow, SAVE_ANSWER);
}

static struct flow_action go_on_after_refusal(struct flow *flow, const struct answer *answer)
{
  if (!answer->refused_grant) {
    flow_fail_refresh(flow, answer->code, answer->message, message_kept, -1);
    return flow_clear_and_leave(flow);
  }
  flow->unclear = answer->code != CODE_INVALID_GRANT;
  /* the message of the doubt says more */
  if (!flow->doubted || (flow->unclear && flow->outcome.code == CODE_OK))
    flow_fail(flow, answer->code, answer->message);
  if (flow->doubted)
    return flow_look_before_verdict(flow);
  return flow->unclear && flow_can_ask(flow) ? flow_introspect(flow) : flow_look_before_verdict(flow);
}

struct flow_action on_post_refresh(struct flow *flow, const struct flow_event *event)
{
  struct answer answer;
  struct answer_context known = flow_context(flow);
  struct flow_action next;
  answer_read(&answer, event->reply, &known);
  if (answer.kind == ANSWER_DOUBT && flow_use_reserve(flow)) {
    answer_free(&answer); /* it may have been for want of memory */
    answer_read(&answer, event->reply, &known);
  }
  request_free(&flow->request);
  switch (answer.kind) {
  case ANSWER_TOKENS:
    next = keep_tokens(flow, &answer);
    break;
  case ANSWER_REFUSAL:
    next = go_on_after_refusal(flow, &answer);
    break;
  case ANSWER_NOT_SPENT:
    next = event->reply->untrusted ? distrusted(flow, &answer) : not_spent(flow, &answer);
    break;
  default:
    next = keep_doubt(flow, &answer, event->reply);
  }
  answer_free(&answer);
  return next;
}
