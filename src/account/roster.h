/* A client's accounts by name, and who has them. One that nobody has rests, and may leave: at once when it holds
 * nothing, else when there are more than `max_accounts` and it was not used for the longest time. */
#ifndef ACCOUNT_ROSTER_H
#define ACCOUNT_ROSTER_H

#include "../api/client.h"

/* The account of that name, made if there is none, with one more user. NULL: `error` says why. */
struct lucidauth_account *roster_take(struct lucidauth *client, const char *name, lucidauth_error *error);

/* One more user of an account that has one. */
void roster_hold(struct lucidauth_account *account);

/* One user less. */
void roster_give_back(struct lucidauth_account *account);

/* For one who visits them all: the next account, with one more user, behind this one, which has one less; NULL stands
 * for the beginning and for the end. Accounts that are added meanwhile are left out. NULL also when a thread that was
 * interrupted keeps the roster to itself. */
struct lucidauth_account *roster_next(struct lucidauth *client, struct lucidauth_account *account);

#endif
