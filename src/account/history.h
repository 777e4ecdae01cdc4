/* What has happened to an account, for its status. */
#ifndef ACCOUNT_HISTORY_H
#define ACCOUNT_HISTORY_H

#include "../flow/flow.h"
#include "../lucidauth.h"

struct history {
  uint64_t refreshes, failures[LUCIDAUTH_CODES];
  lucidauth_past past[LUCIDAUTH_PAST]; /* a ring; the next place is events % LUCIDAUTH_PAST */
  uint64_t events;
};

/* Something has happened just now. */
void history_add(struct history *history, lucidauth_event_kind kind, lucidauth_code code);

/* A flight has come to this. */
void history_add_flight(struct history *history, const struct flow_outcome *outcome);

/* Fill in the status's share of it. */
void history_tell(const struct history *history, lucidauth_status *status);

#endif
