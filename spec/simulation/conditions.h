/* What goes wrong in an episode, and how often. Each kind of fault is absent from about half of all episodes, so
 * that rare ones are not drowned by frequent ones. */
#ifndef CONDITIONS_H
#define CONDITIONS_H

#include "random.h"

#include <stdbool.h>

/* What becomes of a request and its answer. */
enum fate {
  FATE_GOOD,
  FATE_NOT_SENT,     /* no connection */
  FATE_LOST_BEFORE,  /* the connection broke before the server had read it */
  FATE_LOST_AFTER,   /* the server acted on it, the answer was lost */
  FATE_LATE,         /* the server acts on it when the client has just given up, or is about to */
  FATE_SLOW,         /* the server acts on it at once, the answer comes when the client has given up */
  FATE_HALF,         /* half of the answer's body arrives, and looks whole */
  FATE_ERROR_BEFORE, /* 500 or 502, nothing was done */
  FATE_ERROR_AFTER,  /* 500, 502 or 504, it was done */
  FATE_PAGE_BEFORE,  /* 200 with a web page instead of the server's answer */
  FATE_PAGE_AFTER,
  FATE_CUT,         /* an answer without end */
  FATE_SLOW_DOWN,   /* 429 */
  FATE_UNAVAILABLE, /* 503 with Retry-After */
  FATE_DENIED,      /* 401 or 403, invalid_client */
  FATE_REDIRECT,
  FATE_TWICE,   /* the answer is sent a second time */
  FATE_WRAPPED, /* the tokens lie one level down */
  FATE_REFUSED, /* in words that nobody knows, nothing was done */
  FATE_GATEWAY, /* 502 or 504 by a gateway that has given up, while the server is still about to act on it */
  FATES
};

const char *fate_name(enum fate fate);

struct conditions {
  int processes, accounts;
  int refreshes; /* until it clears up */
  double timeout, lock_timeout, refresh_wait, refresh_before;
  double lifetime; /* of access tokens */
  bool introspection;
  bool script;      /* another program writes without the lock */
  bool from_script; /* the first record is one of its */
  bool twin;        /* the second account is another folder's, with the first one's refresh token */
  bool of_program;  /* the storages are the program's own */
  bool wording;     /* dead refresh tokens are refused in words that nobody knows */
  bool deaf;        /* introspection refuses to answer, for a while or always */
  double lag;       /* seconds that storages lag behind at most */

  /* probabilities: of a POST's fates */
  double fates[FATES];
  double slow_network; /* of a POST that takes seconds */
  double odd;          /* of an answer with a strange side field */
  double omit;         /* of an answer without a refresh token */

  /* of a step's */
  double crash, crash_with_lock, crash_in_save, abandon, stall, slow_disk;
  double load_fails, lock_fails, save_fails, save_fails_late;
  double lock_vanishes, starve, memory, slow_connect, frozen;
  double drop; /* of a save by a storage of the program's own that says it has saved */

  /* of a call's */
  double refresh, look, store, reject, flood, fork;

  /* seconds between two */
  double every; /* of any of the following */
  double clock_back, clock_forward, suspend, machine_crash, full, down, revoke, login, restart, vanish, set_back, lie,
      deafness, oddness; /* their shares */
};

/* `processes`: 0 for any number. */
void conditions_draw(struct conditions *conditions, struct random *random, int processes);

/* From now on nothing goes wrong. */
void conditions_clear(struct conditions *conditions);

#endif
