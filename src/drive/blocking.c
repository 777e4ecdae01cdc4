#include "drive.h"

#include "../clock.h"
#include "../core/secret.h"

#include <stdio.h>
#include <string.h>

void drive_sha256(const void *data, size_t size, unsigned char digest[32])
{
  char message[1];
  const struct http_ops *http = http_load(message, sizeof message);
  memset(digest, 0, 32);
  if (http)
    http->sha256(data, size, digest);
}

bool drive_post(const struct options *options, const struct flow_action *action, struct http_response *response)
{
  char message[1];
  const struct request *asked = action->request;
  const struct http_ops *http = http_load(message, sizeof message);
  if (!http)
    return false;
  struct http_request request = {.url =
                                     asked->endpoint == REQUEST_TOKEN ? options->token_url : options->introspection_url,
                                 .content_type = asked->content_type,
                                 .authorization = asked->authorization,
                                 .body = asked->body,
                                 .body_length = strlen(asked->body),
                                 .ca_file = options->ca_file,
                                 .connect_timeout = action->seconds,
                                 .timeout = action->limit};
  http->post(&request, response);
  return true;
}

void drive_release(struct http_response *response)
{
  char message[1];
  const struct http_ops *http = http_load(message, sizeof message);
  if (http)
    http->release(response);
}

static enum flow_result result_of(enum store_result result)
{
  static const enum flow_result of[] = {
      [STORE_OK] = FLOW_OK, [STORE_NONE] = FLOW_NONE, [STORE_BUSY] = FLOW_BUSY, [STORE_FAILED] = FLOW_FAILED};
  return of[result];
}

/* The lock is only ever taken for a refresh: what that needs is loaded before anything is promised. */
static enum flow_result take_lock(struct store *store, struct store_error *error)
{
  if (!http_load(error->message, sizeof error->message)) {
    error->code = CODE_CONFIG;
    return FLOW_FAILED;
  }
  return result_of(store->ops->lock(store, error));
}

/* What one step came to, and the memory behind it. */
struct came_of {
  struct flow_event event;
  struct store_error error;
  struct http_response response;
  char *record;
  bool posted;
};

static void load(struct lucidauth_account *account, struct came_of *came)
{
  struct store *store = account->store;
  /* before the record is read: a change in between shows later */
  account->flight_seen = atomic_load_explicit(store->generation, memory_order_acquire);
  came->event.result = result_of(store->ops->load(store, &came->record, &came->error));
  came->event.text = came->record;
}

static void save(struct store *store, const struct flow_action *action, struct came_of *came)
{
  enum store_result result = store->ops->save(store, action->record, &came->error);
  came->event.result = result_of(result);
  if (action->spends && result == STORE_OK)
    store->ops->begin(store);
}

static void unlock(struct lucidauth_account *account)
{
  struct store *store = account->store;
  /* the generation that unlocking settles; a later one may be another process's already */
  account->flight_seen = (atomic_load_explicit(store->generation, memory_order_relaxed) + 1) & ~UINT64_C(1);
  store->ops->unlock(store);
}

static void pause_for(struct lucidauth_account *account, const struct flow_action *action)
{
  struct store *store = account->store;
  if (action->for_others && store->shared)
    store->ops->wait(store, account->flight_seen, action->seconds);
  else
    clock_sleep(action->seconds);
}

static void carry_out(struct lucidauth_account *account, const struct flow_action *action, struct came_of *came)
{
  struct store *store = account->store;
  struct flow_event *event = &came->event;
  switch (action->step) {
  case FLOW_LOAD:
    load(account, came);
    break;
  case FLOW_LOCK:
    event->result = take_lock(store, &came->error);
    break;
  case FLOW_SAVE:
    save(store, action, came);
    break;
  case FLOW_UNLOCK:
    unlock(account);
    break;
  case FLOW_POST:
    came->posted = drive_post(&account->client->options, action, &came->response);
    event->reply = &came->response.reply;
    break;
  case FLOW_WAIT:
    pause_for(account, action);
    break;
  case FLOW_DONE:
    break;
  }
  if (event->result == FLOW_FAILED) {
    event->code = came->error.code;
    event->text = came->error.message;
  }
}

static void clean_up(struct came_of *came)
{
  secret_free(came->record);
  if (came->posted)
    drive_release(&came->response);
}

void drive_blocking(struct lucidauth_account *account)
{
  struct flow_event start = {.now = clock_now()};
  struct flow_action action = flow_next(account->flow, &start);
  while (action.step != FLOW_DONE) {
    struct came_of came = {.event = {.result = FLOW_OK}};
    carry_out(account, &action, &came);
    came.event.now = clock_now();
    action = flow_next(account->flow, &came.event);
    clean_up(&came);
  }
}
