#include "drive.h"

#include "../system/clock.h"

static void pause_for(struct craft *craft, const struct flow_action *action)
{
  struct store *store = craft->store;
  if (action->for_others && store->shared)
    store->ops->wait(store, craft->seen, action->seconds);
  else
    clock_sleep(action->seconds);
}

static void carry_out(struct craft *craft, const struct flow_action *action, struct came_of *came)
{
  if (action->step == FLOW_POST) {
    came->posted = drive_post(craft->endpoints, action, &came->response);
    came->event.reply = &came->response.reply;
  } else if (action->step == FLOW_WAIT) {
    pause_for(craft, action);
  } else {
    drive_step(craft, action, came);
  }
}

void drive_blocking(struct craft *craft)
{
  struct flow_event start = {.now = clock_now()};
  struct flow_action action = flow_next(craft->flow, &start);
  while (action.step != FLOW_DONE) {
    struct came_of came = {.event = {.result = FLOW_OK}};
    carry_out(craft, &action, &came);
    came.event.now = clock_now();
    action = flow_next(craft->flow, &came.event);
    drive_clean_up(&came);
  }
}
