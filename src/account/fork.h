/* fork(): a child owns nothing of its parent's flights, neither their locks nor their threads. */
#ifndef ACCOUNT_FORK_H
#define ACCOUNT_FORK_H

struct lucidauth;
struct lucidauth_account;

/* From now on the client's accounts are disowned in every child of this process. */
void fork_watch(struct lucidauth *client);
void fork_forget(struct lucidauth *client);

/* Visit every account of every client. For the end of the process: whoever holds the list for longer than a moment then
 * is not waited for, and nobody is visited. */
void fork_visit_accounts(void (*visit)(struct lucidauth_account *account));

#endif
