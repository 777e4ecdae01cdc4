#include "drive.h"

#include "../system/clock.h"

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
  if (action->step == FLOW_POST) {
    came->posted = drive_post(&account->client->options, action, &came->response);
    came->event.reply = &came->response.reply;
  } else if (action->step == FLOW_WAIT) {
    pause_for(account, action);
  } else {
    drive_step(account, action, came);
  }
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
    drive_clean_up(&came);
  }
}
