/* Logins that the background was given to store, and their outcomes, for callers that come again to hear of them. */
#ifndef ACCOUNT_LOGIN_H
#define ACCOUNT_LOGIN_H

#include "../lucidauth.h"

enum { LOGINS_MOST = 8 };

/* An answer as a caller gives it: one that comes again without its ticket is known by it. */
struct login_key {
  uint64_t fingerprint;
  size_t length;
  bool replaces;
};

struct login_key login_key(const char *answer, size_t length, bool replaces);

/* login.c alone writes it. */
struct login {
  struct login *former;
  uint64_t number;
  struct login_key key;
  bool ended, told;
  double ended_at; /* steady seconds */
  struct lucidauth_error outcome;
};

/* Put another one before the others, of which the last ones stay. NULL: out of memory. */
struct login *logins_add(struct login **logins, const struct login_key *key);

/* NULL: it is not known any more. */
struct login *logins_find(struct login *logins, uint64_t number);

/* The last one with this key, unless its outcome was told, or is older than `since`; or NULL. */
struct login *logins_find_untold(struct login *logins, const struct login_key *key, double since);

/* The outcome, which its caller hears now. */
const lucidauth_error *login_tell(struct login *login);

/* The one that is under way has ended with this outcome. */
void logins_end(struct login *logins, double steady, const struct lucidauth_error *outcome);

/* The one that is under way is the parent's of a fork. */
void logins_forget_unfinished(struct login **logins);

void logins_free(struct login **logins);

#endif
