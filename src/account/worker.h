/* The background's thread at work: it carries flights out side by side, and looks after the
 * accounts whose flights it has had: it refreshes ahead of their expiry without being asked, and looks for changes that
 * announce themselves to nobody. */
#ifndef ACCOUNT_WORKER_H
#define ACCOUNT_WORKER_H

#include "background.h"

/* With the account's mutex held and no flight under way: begin one, and hand it to the thread. False: there is no
 * thread to be had, or no flight begins any more. */
bool worker_begin(struct lucidauth_account *account, enum flow_goal goal);

struct answer;
struct login_key;

/* The same for one that stores a login's answer. NULL: there is no thread, or no memory. */
struct login *worker_begin_to_store(struct lucidauth_account *account, struct answer *given,
                                    const struct login_key *key);

/* background_post. */
bool worker_post(struct background_post *post);

/* In the child of a fork: the parent's thread is not here, nor are its flights. */
void worker_after_fork(void);

#endif
