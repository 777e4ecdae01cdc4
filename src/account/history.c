#include "history.h"

#include "../system/clock.h"

#include <string.h>

void history_add(struct history *history, lucidauth_event_kind kind, lucidauth_code code)
{
  history->past[history->events++ % LUCIDAUTH_PAST] =
      (lucidauth_past){.at = clock_now().wall, .kind = kind, .code = code};
}

void history_add_flight(struct history *history, const struct flow_outcome *outcome)
{
  for (int i = 0; i < outcome->note_count; i++) {
    const struct flow_note *note = &outcome->notes[i];
    history->refreshes += note->kind == FLOW_REFRESHED;
    if (note->code != CODE_OK)
      history->failures[note->code]++;
    history_add(history, (lucidauth_event_kind)note->kind, (lucidauth_code)note->code);
  }
}

void history_tell(const struct history *history, lucidauth_status *status)
{
  uint64_t events = history->events, count = events < LUCIDAUTH_PAST ? events : LUCIDAUTH_PAST;
  for (uint64_t i = 0; i < count; i++)
    status->past[i] = history->past[(events - count + i) % LUCIDAUTH_PAST];
  status->past_count = (int)count;
  status->refreshes = history->refreshes;
  memcpy(status->failures, history->failures, sizeof status->failures);
}
