/* The token that an account has in use. Everything here but the hot path is called with the account's mutex held. */
#ifndef ACCOUNT_IN_USE_H
#define ACCOUNT_IN_USE_H

#include "account.h"

/* It has time left, due or not. */
bool in_use_lives(const struct lucidauth_account *account, struct moment now);

bool in_use_is(const struct lucidauth_account *account, const char *token);

/* Another process has announced a change since the token was put in use. */
bool in_use_was_announced(const struct lucidauth_account *account);

/* Due by neither clock, nor changed by a process that announces it. */
bool in_use_seems_good(const struct lucidauth_account *account);

/* Whether another program has rewritten the record. The mutex is given back while the disk is asked; the storage is
 * this thread's as long as that takes. */
bool in_use_rewritten(struct lucidauth_account *account);

/* The second look: it seems good, and was not rewritten; the disk is asked once a second. The background's thread asks the disk by
 * itself, and what another thread is asking is not waited for: a slow disk is not to hold up anybody else. The mutex
 * may be given back for a while. */
bool in_use_still_good(struct lucidauth_account *account);

void in_use_withdraw(struct lucidauth_account *account);

/* Another one, of which no more is known: the hot path leaves it alone. */
void in_use_replace(struct lucidauth_account *account, const char *token);

/* The one that a flight has landed with. */
void in_use_put(struct lucidauth_account *account, const struct flow_outcome *outcome);

#endif
