#include "flight.h"

#include "../base/secret.h"
#include "../record/record.h"
#include "../system/clock.h"
#include "../system/exit.h"

#include <stdio.h>
#include <string.h>

struct http_request flight_request(const struct endpoints *endpoints, const struct flow_action *action)
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

bool flight_send_post(const struct endpoints *endpoints, const struct flow_action *action, struct held_signal *held,
                      struct http_response *response)
{
  struct http_request request = flight_request(endpoints, action);
  const struct http_ops *http = http_load(NULL, NULL, 0);
  request.beat = held ? look_at_signals : NULL;
  request.beat_data = held;
  if (http)
    http->post(&request, response);
  return http != NULL;
}

void flight_release(struct http_response *response)
{
  const struct http_ops *http = http_load(NULL, NULL, 0);
  if (http)
    http->release(response);
}

static enum flow_result flow_result_of(enum store_result result)
{
  static const enum flow_result of[] = {[STORE_OK] = FLOW_OK,
                                        [STORE_NONE] = FLOW_NONE,
                                        [STORE_BUSY] = FLOW_BUSY,
                                        [STORE_CHANGED] = FLOW_CHANGED,
                                        [STORE_FAILED] = FLOW_FAILED};
  return of[result];
}

/* The lock is only ever taken for a refresh: libcurl is loaded before anything is promised. */
static enum flow_result take_lock(struct flight *flight, const char **identity, struct store_error *error)
{
  struct store *store = flight->store;
  if (!http_load(&error->code, error->message, sizeof error->message))
    return FLOW_FAILED;
  enum store_result result = store->ops->lock(store, error);
  if (result == STORE_OK && store->ops->lock_identity)
    *identity = store->ops->lock_identity(store);
  return flow_result_of(result);
}

static void load_record(struct flight *flight, struct flight_event *came)
{
  struct store *store = flight->store;
  /* before the record is read: a change in between shows later */
  flight->seen = atomic_load_explicit(store->generation, memory_order_acquire);
  came->event.result = flow_result_of(store->ops->load(store, &came->record, &came->error));
  came->event.text = came->record;
  flight->empty = came->event.result == FLOW_NONE;
  if (store->ops->spent)
    came->event.spent = store->ops->spent(store);
  if (store->ops->rejected) {
    store->ops->rejected(store, came->rejected);
    came->event.rejected = came->rejected;
  }
}

static enum flow_result hold_resources(struct flight *flight, const char **note, struct store_error *error)
{
  struct store *store = flight->store;
  *note = NULL;
  return store->ops->hold ? flow_result_of(store->ops->hold(store, note, error)) : FLOW_OK;
}

static bool check_may_spend(struct store_error *error)
{
  const char *problem = exit_watch();
  if (!problem)
    return true;
  error->code = CODE_NOT_READY;
  snprintf(error->message, sizeof error->message, "%s", problem);
  return false;
}

static void save_record(struct flight *flight, const struct flow_action *action, struct flight_event *came)
{
  struct store *store = flight->store;
  came->event.result = FLOW_FAILED;
  if (action->spends && !check_may_spend(&came->error))
    return;
  bool mark = action->spends && store->ops->save_mark;
  enum store_result result = (mark ? store->ops->save_mark : store->ops->save)(store, action->record, &came->error);
  came->event.result = flow_result_of(result);
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

static void give_back_lock(struct flight *flight)
{
  struct store *store = flight->store;
  /* the generation that unlocking settles; a later one may be another process's already */
  flight->seen = (atomic_load_explicit(store->generation, memory_order_relaxed) + 1) & ~UINT64_C(1);
  store->ops->unlock(store);
}

void flight_step(struct flight *flight, const struct flow_action *action, struct flight_event *came)
{
  struct flow_event *event = &came->event;
  switch (action->step) {
  case FLOW_LOAD:
    load_record(flight, came);
    break;
  case FLOW_LOCK:
    event->result = take_lock(flight, &event->text, &came->error);
    break;
  case FLOW_HOLD:
    event->result = hold_resources(flight, &event->text, &came->error);
    break;
  case FLOW_SAVE:
    save_record(flight, action, came);
    break;
  case FLOW_UNLOCK:
    give_back_lock(flight);
    break;
  default:
    break;
  }
  if (event->result == FLOW_FAILED) {
    event->code = came->error.code;
    event->text = came->error.message;
  }
}

void flight_clean_up(struct flight_event *came)
{
  secret_free(came->record);
  came->record = NULL;
  if (came->posted)
    flight_release(&came->response);
  came->posted = false;
}

/* ---- on the calling thread ---- */

static void hold_signals(struct flight_run *run)
{
  if (run->flight->holds_signals)
    held_signals_begin(&run->held);
}

/* From the refresh until its tokens are saved, this process alone has them. Where the flow pauses, or waits for others,
 * there are none to lose. */
static void mind_signals(struct flight_run *run)
{
  if (flight_refreshes(&run->action))
    hold_signals(run);
  else if (run->action.step == FLOW_WAIT || run->action.step == FLOW_LOCK)
    held_signals_pass_on(&run->held);
}

static void pause_run(const struct flight *flight, const struct flow_action *action)
{
  struct store *store = flight->store;
  if (action->for_others && store->shared)
    store->ops->wait(store, flight->seen, action->seconds);
  else
    clock_sleep(action->seconds);
}

static void carry_out(struct flight_run *run, struct flight_event *came)
{
  struct flight *flight = run->flight;
  if (run->action.step == FLOW_POST) {
    came->posted =
        flight_send_post(flight->endpoints, &run->action, run->held.holding ? &run->held : NULL, &came->response);
    came->event.reply = &came->response.reply;
  } else if (run->action.step == FLOW_WAIT) {
    pause_run(flight, &run->action);
  } else {
    flight_step(flight, &run->action, came);
  }
}

void flight_run_begin(struct flight_run *run, struct flight *flight)
{
  struct flow_event start = {.now = clock_now()};
  *run = (struct flight_run){.flight = flight};
  if (flow_unsaved(flight->flow))
    hold_signals(run);
  run->action = flow_next(flight->flow, &start);
}

void flight_run_next(struct flight_run *run)
{
  struct flight_event came = {.event = {.result = FLOW_OK}};
  mind_signals(run);
  carry_out(run, &came);
  came.event.now = clock_now();
  run->action = flow_next(run->flight->flow, &came.event);
  flight_clean_up(&came);
}

void flight_run_end(struct flight_run *run)
{
  held_signals_pass_on(&run->held);
}

/* ---- a look at the storage ---- */

/* Whether another process may be about to spend the record's refresh token, or has. */
static bool is_marked(const char *text, const struct world *world)
{
  struct pending mark;
  struct record record = {0};
  bool marked = text && record_read(&record, text, world) && record_pending(&record, world, &mark);
  record_free(&record);
  return marked;
}

bool flight_look(struct flight *flight, const struct world *world)
{
  bool marked = false;
  struct flow_event start = {.now = clock_now()};
  struct flow_action action = flow_next(flight->flow, &start);
  while (action.step != FLOW_DONE && action.step != FLOW_WAIT) {
    struct flight_event came = {.event = {.result = FLOW_OK}};
    flight_step(flight, &action, &came);
    marked = is_marked(came.record, world);
    came.event.now = clock_now();
    action = flow_next(flight->flow, &came.event);
    flight_clean_up(&came);
  }
  if (action.step == FLOW_WAIT)
    flow_abandon(flight->flow, false);
  return action.step == FLOW_DONE && !marked;
}
