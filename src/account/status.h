/* An account's state and its last events, for lucidauth_get_status. All is called with the account's mutex
 * held. */
#ifndef ACCOUNT_STATUS_H
#define ACCOUNT_STATUS_H

#include "../flow/flow.h"
#include "../lucidauth.h"
#include "../store/store.h"

/* Starts as {0}; status.c alone writes it. */
struct account_status {
  struct flow_status flow; /* as of the end of the last flight; without its message, which is here: */
  struct lucidauth_error last_error;
  bool shared;      /* of the store, as of then */
  double looked_at; /* steady seconds: the storage was last looked at for the status; 0: never */
  uint64_t refreshes, failures[LUCIDAUTH_CODES];
  struct past {
    double at; /* epoch seconds */
    lucidauth_event_kind kind;
    lucidauth_code code;
  } past[LUCIDAUTH_PAST]; /* a ring; the next place is events % LUCIDAUTH_PAST */
  uint64_t events;
};

/* Something has happened just now. */
void status_add(struct account_status *status, lucidauth_event_kind kind, lucidauth_code code);

/* A flight of this flow has ended. `store` may be NULL. */
void status_keep(struct account_status *status, const struct flow *flow, const struct store *store);

/* Between flights a token was rejected. */
void status_keep_rejection(struct account_status *status, const struct flow *flow);

/* Whether a token is known that may be handed out by the clock, and whether a look at the storage for one is due; it is
 * then taken for done. */
bool status_has_token(const struct account_status *status);
bool status_look_is_due(struct account_status *status);

/* All but the generation. */
void status_tell(const struct account_status *status, lucidauth_status *told);

#endif
