/* How a caller comes to its token: it carries a flight out, waits for another's, or asks again and again while the
 * background's thread does it. Thread cancellation is off meanwhile. */
#ifndef ACCOUNT_WAITING_H
#define ACCOUNT_WAITING_H

#include "../flow/flow.h"
#include "../lucidauth.h"
#include "login.h"

struct answer;

/* lucidauth_token and lucidauth_refresh: FLOW_TOKEN, FLOW_REFRESH. */
char *waiting_get(struct lucidauth_account *account, enum flow_goal goal, uint64_t *serial, lucidauth_error *error);

/* lucidauth_poll. */
char *waiting_poll(struct lucidauth_account *account, lucidauth_ticket *ticket, bool patient, uint64_t *serial,
                   lucidauth_error *error);

/* Whether the ticket waits for a flight already. */
bool waiting_has_joined(const lucidauth_ticket *ticket);

/* lucidauth_store and lucidauth_poll_store, of an answer that was read already; a ticket that has joined a flight needs
 * none of it. */
bool waiting_store(struct lucidauth_account *account, struct answer *given, const struct login_key *key,
                   lucidauth_error *error);
void waiting_poll_store(struct lucidauth_account *account, lucidauth_ticket *ticket, struct answer *given,
                        const struct login_key *key, lucidauth_error *error);

#endif
