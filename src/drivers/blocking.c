#include "drive.h"

#include "../system/clock.h"

/* A flight on this thread. */
struct journey {
  struct craft *craft;
  struct held_signal held;
};

static void hold_signals(struct journey *journey)
{
  if (journey->craft->holds_signals)
    held_signals_begin(&journey->held);
}

/* From the refresh until its tokens are saved they are in this process alone. Where the flow pauses, or waits for
 * others, it has none in its hands. */
static void mind_signals(struct journey *journey, const struct flow_action *action)
{
  if (action->step == FLOW_POST && action->request->endpoint == REQUEST_TOKEN)
    hold_signals(journey);
  else if (action->step == FLOW_WAIT || action->step == FLOW_LOCK)
    held_signals_pass_on(&journey->held);
}

static void pause_for(struct craft *craft, const struct flow_action *action)
{
  struct store *store = craft->store;
  if (action->for_others && store->shared)
    store->ops->wait(store, craft->seen, action->seconds);
  else
    clock_sleep(action->seconds);
}

static void carry_out(struct journey *journey, const struct flow_action *action, struct came_of *came)
{
  struct craft *craft = journey->craft;
  if (action->step == FLOW_POST) {
    came->posted = drive_post(craft->endpoints, action, journey->held.holding ? &journey->held : NULL, &came->response);
    came->event.reply = &came->response.reply;
  } else if (action->step == FLOW_WAIT) {
    pause_for(craft, action);
  } else {
    drive_step(craft, action, came);
  }
}

void drive_blocking(struct craft *craft)
{
  struct journey journey = {.craft = craft};
  struct flow_event start = {.now = clock_now()};
  if (flow_unsaved(craft->flow))
    hold_signals(&journey);
  struct flow_action action = flow_next(craft->flow, &start);
  while (action.step != FLOW_DONE) {
    struct came_of came = {.event = {.result = FLOW_OK}};
    mind_signals(&journey, &action);
    carry_out(&journey, &action, &came);
    came.event.now = clock_now();
    action = flow_next(craft->flow, &came.event);
    drive_clean_up(&came);
  }
  held_signals_pass_on(&journey.held);
}
