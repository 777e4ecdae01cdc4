/* fork(): a child owns nothing of its parent's flights, neither their locks nor their threads. */
#ifndef FORK_H
#define FORK_H

struct lucidauth;

/* From now on the client's accounts are disowned in every child of this process. */
void fork_watch(struct lucidauth *client);
void fork_forget(struct lucidauth *client);

#endif
