#include "status.h"

#include "../system/clock.h"
#include "report.h"

#include <math.h>
#include <string.h>

/* Seconds between two looks at a storage for the status alone. */
#define LOOK_PAUSE 1.0

void status_add(struct account_status *status, lucidauth_event_kind kind, lucidauth_code code)
{
  status->past[status->events++ % LUCIDAUTH_PAST] = (struct past){.at = clock_now().wall, .kind = kind, .code = code};
}

static void add_notes(struct account_status *status, const struct flow_outcome *outcome)
{
  for (int i = 0; i < outcome->note_count; i++) {
    const struct flow_note *note = &outcome->notes[i];
    status->refreshes += note->kind == FLOW_REFRESHED;
    if (note->code != CODE_OK)
      status->failures[note->code]++;
    status_add(status, (lucidauth_event_kind)note->kind, (lucidauth_code)note->code);
  }
}

void status_keep(struct account_status *status, const struct flow *flow, const struct store *store)
{
  status->flow = flow_status(flow);
  status->shared = store && store->shared;
  error_set(&status->last_error, (lucidauth_code)status->flow.last_code, "%s", status->flow.last_error);
  status->flow.last_error = NULL;
  add_notes(status, flow_outcome(flow));
}

void status_keep_rejection(struct account_status *status, const struct flow *flow)
{
  status->flow.has_token = flow_status(flow).has_token;
}

bool status_has_token(const struct account_status *status)
{
  return status->flow.has_token;
}

bool status_look_is_due(struct account_status *status)
{
  double now = clock_now().steady;
  if (status->looked_at != 0 && now - status->looked_at < LOOK_PAUSE)
    return false;
  status->looked_at = now;
  return true;
}

static const char *state_name(const struct account_status *status, struct moment now)
{
  if (status->flow.has_token && !moment_has_come(status->flow.refresh_at, now))
    return "ready";
  if (status->last_error.code != LUCIDAUTH_OK)
    return "failing";
  return status->flow.has_token ? "expired" : "empty";
}

static void tell_past(const struct account_status *status, lucidauth_status *told)
{
  uint64_t events = status->events, count = events < LUCIDAUTH_PAST ? events : LUCIDAUTH_PAST;
  for (uint64_t i = 0; i < count; i++) {
    const struct past *past = &status->past[(events - count + i) % LUCIDAUTH_PAST];
    told->past[i].at = past->at;
    told->past[i].kind = past->kind;
    told->past[i].code = past->code;
  }
  told->past_count = (int)count;
  told->refreshes = status->refreshes;
  memcpy(told->failures, status->failures, sizeof told->failures);
}

void status_tell(const struct account_status *status, lucidauth_status *told)
{
  struct moment now = clock_now();
  const struct flow_status *known = &status->flow;
  *told = (lucidauth_status){.state = state_name(status, now),
                             .expires_in = known->has_token ? fmax(0, moment_left(known->dead_at, now)) : 0,
                             .lifetime = known->lifetime,
                             .last_refresh = known->last_refresh,
                             .last_error.code = status->last_error.code,
                             .retry_in = fmax(0, known->retry_at - now.steady),
                             .unsaved = known->unsaved,
                             .shared = status->shared};
  memcpy(told->last_error.message, status->last_error.message, sizeof told->last_error.message);
  tell_past(status, told);
}
