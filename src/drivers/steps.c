/* The steps of a flow that every driver carries out in the same way. */
#include "drive.h"

#include "../base/secret.h"
#include "../system/clock.h"

#include <stdio.h>
#include <string.h>

struct http_request drive_request(const struct endpoints *endpoints, const struct flow_action *action)
{
  const struct request *asked = action->request;
  return (struct http_request){.url = asked->endpoint == REQUEST_TOKEN ? endpoints->token_url
                                                                       : endpoints->introspection_url,
                               .content_type = asked->content_type,
                               .authorization = asked->authorization,
                               .body = asked->body,
                               .body_length = strlen(asked->body),
                               .ca_file = endpoints->ca_file,
                               .connect_timeout = action->seconds,
                               .timeout = action->limit,
                               .send_by = action->send_by};
}

static void look_at_signals(void *held)
{
  held_signals_look(held, clock_now().steady);
}

bool drive_post(const struct endpoints *endpoints, const struct flow_action *action, struct held_signal *held,
                struct http_response *response)
{
  struct http_request request = drive_request(endpoints, action);
  const struct http_ops *http = http_load(NULL, 0);
  request.beat = held ? look_at_signals : NULL;
  request.beat_data = held;
  if (http)
    http->post(&request, response);
  return http != NULL;
}

void drive_release(struct http_response *response)
{
  const struct http_ops *http = http_load(NULL, 0);
  if (http)
    http->release(response);
}

static enum flow_result result_of(enum store_result result)
{
  static const enum flow_result of[] = {[STORE_OK] = FLOW_OK,
                                        [STORE_NONE] = FLOW_NONE,
                                        [STORE_BUSY] = FLOW_BUSY,
                                        [STORE_CHANGED] = FLOW_CHANGED,
                                        [STORE_FAILED] = FLOW_FAILED};
  return of[result];
}

/* The lock is only ever taken for a refresh: what that needs is loaded before anything is promised. */
static enum flow_result take_lock(struct craft *craft, const char **identity, struct store_error *error)
{
  struct store *store = craft->store;
  craft->owner->locks(craft);
  if (!http_load(error->message, sizeof error->message)) {
    error->code = CODE_CONFIG;
    return FLOW_FAILED;
  }
  enum store_result result = store->ops->lock(store, error);
  if (result == STORE_OK && store->ops->lock_identity)
    *identity = store->ops->lock_identity(store);
  return result_of(result);
}

static void load(struct craft *craft, struct came_of *came)
{
  struct store *store = craft->store;
  /* before the record is read: a change in between shows later */
  craft->seen = atomic_load_explicit(store->generation, memory_order_acquire);
  came->event.result = result_of(store->ops->load(store, &came->record, &came->error));
  came->event.text = came->record;
  craft->empty = came->event.result == FLOW_NONE;
  if (store->ops->spent)
    came->event.spent = store->ops->spent(store);
  if (store->ops->rejected) {
    store->ops->rejected(store, came->rejected);
    came->event.rejected = came->rejected;
  }
}

static enum flow_result hold(struct craft *craft, const char **note, struct store_error *error)
{
  struct store *store = craft->store;
  *note = NULL;
  return store->ops->hold ? result_of(store->ops->hold(store, note, error)) : FLOW_OK;
}

static bool may_spend(const struct craft *craft, struct store_error *error)
{
  const char *problem = craft->owner->objection();
  if (!problem)
    return true;
  error->code = CODE_NOT_READY;
  snprintf(error->message, sizeof error->message, "%s", problem);
  return false;
}

static void save(struct craft *craft, const struct flow_action *action, struct came_of *came)
{
  struct store *store = craft->store;
  came->event.result = FLOW_FAILED;
  if (action->spends && !may_spend(craft, &came->error))
    return;
  bool mark = action->spends && store->ops->save_mark;
  enum store_result result = (mark ? store->ops->save_mark : store->ops->save)(store, action->record, &came->error);
  came->event.result = result_of(result);
  if (result == STORE_OK && action->spent && store->ops->spend)
    store->ops->spend(store, action->spent);
  if (result == STORE_OK && action->announces)
    store->ops->begin(store); /* unlocking tells that it is done */
  if (!action->spends || result != STORE_OK)
    return;
  store->ops->begin(store);
  if (store->ops->excludes_others && !store->ops->excludes_others(store))
    came->event.result = FLOW_BUSY;
}

static void unlock(struct craft *craft)
{
  struct store *store = craft->store;
  /* the generation that unlocking settles; a later one may be another process's already */
  craft->seen = (atomic_load_explicit(store->generation, memory_order_relaxed) + 1) & ~UINT64_C(1);
  store->ops->unlock(store);
}

void drive_step(struct craft *craft, const struct flow_action *action, struct came_of *came)
{
  struct flow_event *event = &came->event;
  switch (action->step) {
  case FLOW_LOAD:
    load(craft, came);
    break;
  case FLOW_LOCK:
    event->result = take_lock(craft, &event->text, &came->error);
    break;
  case FLOW_HOLD:
    event->result = hold(craft, &event->text, &came->error);
    break;
  case FLOW_SAVE:
    save(craft, action, came);
    break;
  case FLOW_UNLOCK:
    unlock(craft);
    break;
  default:
    break;
  }
  if (event->result == FLOW_FAILED) {
    event->code = came->error.code;
    event->text = came->error.message;
  }
}

void drive_clean_up(struct came_of *came)
{
  secret_free(came->record);
  came->record = NULL;
  if (came->posted)
    drive_release(&came->response);
  came->posted = false;
}
