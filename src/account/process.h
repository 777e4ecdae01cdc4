/* All clients of the process, when it forks or ends. A child of a fork owns nothing of its parent's flights, neither
 * their locks nor their threads. The end of the process waits for flights, and tries once more to save unsaved
 * tokens. */
#ifndef ACCOUNT_PROCESS_H
#define ACCOUNT_PROCESS_H

#include "roster.h"

/* One client's, for as long as it is watched. */
struct process_watch {
  struct roster *roster;
  struct process_watch *next;
};

/* From now on these accounts are seen to. Not to be called with the roster's mutex held. */
void process_watch(struct process_watch *watch, struct roster *roster);
void process_forget(struct process_watch *watch);

#endif
