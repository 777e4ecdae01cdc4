/* The refresh flow of one account: a state machine that decides and never does. A driver asks it for
 * the next action, carries it out and tells the result, until it says FLOW_DONE. It is written once; drivers that
 * block, run in a thread or yield carry out the same steps.
 *
 *   LOAD        look without a lock: fresh? done
 *   LOCK        one refresh at a time, over everything below
 *   LOAD        again: another process may have refreshed meanwhile
 *   HOLD        the resources that saving the answer will take
 *   SAVE        the pending mark, durable before the refresh token is spent
 *   POST        the refresh, once
 *   SAVE        the new tokens, mark cleared
 *   UNLOCK
 *
 * A flow outlives its flights: between them it remembers the token in use, the server's refusals, when to
 * try again, and a record that could not be saved. It is used by one thread at a time. */
#ifndef FLOW_FLOW_H
#define FLOW_FLOW_H

#include "../base/world.h"
#include "../oauth/answer.h"
#include "../oauth/request.h"
#include "../record/record.h"

#include <stdbool.h>
#include <stdint.h>

enum { FLOW_MESSAGE = 900, FLOW_NOTES = 8, FLOW_FINGERPRINTS = 4 };

/* The settings of a flow; the client owns them and keeps them unchanged while the flow lives. Times in seconds. */
struct flow_settings {
  struct credentials credentials;
  const char *refresh_token; /* configured: starts an empty storage; NULL: none */
  const char *storage;       /* names the storage in messages */
  const char *account;       /* names the account in messages; NULL: the default one */
  const char *token_url;     /* whose tokens these are; NULL: it does not matter */
  double refresh_before;     /* refresh this long ahead of the expiry */
  double refresh_wait;       /* wait this long for another process's refresh while the present token still lives */
  double timeout;            /* a call's deadline, waiting and retries included */
  double lock_timeout;       /* a lock held by another for longer is reported */
  double default_lifetime;   /* of a token whose answer does not say */
  bool introspection;        /* the provider has an introspection endpoint */
  bool reads_back;           /* the storage is the program's own, and so is its lock */
  bool another_provider;     /* it is not Lucid: messages speak of "the provider" */
  long pid;                  /* for the pending mark */
  const char *host;
  struct world world;
};

enum flow_goal {
  FLOW_TOKEN,   /* a token that works */
  FLOW_REFRESH, /* a new one, whatever the expiry of the present one */
  FLOW_LOOK,    /* only look at the stored record, for flow_status */
  FLOW_KEEP,    /* only save tokens that could not be saved before */
  FLOW_STORE    /* store a login, which flow_give hands over */
};

enum flow_step { FLOW_LOAD, FLOW_LOCK, FLOW_HOLD, FLOW_SAVE, FLOW_UNLOCK, FLOW_POST, FLOW_WAIT, FLOW_DONE };

/* The next action. Pointers stay valid until the next call of flow_next. */
struct flow_action {
  enum flow_step step;
  const char *record; /* SAVE: the text to store; secret */
  const char *spends; /* SAVE: it is the mark before a POST, of the refresh token with this hash; others are told
                                  * that a refresh is in flight. Else NULL */
  bool announces;     /* SAVE: the tokens change without a mark having told others so */
  const char *spent;  /* SAVE: the refresh token with this hash is known to be spent, for the storage's own list, be the
                        * record there or not. Else NULL */
  const struct request *request; /* POST */
  double seconds;                /* WAIT: how long. POST: how long connecting may take */
  bool for_others;               /* WAIT: for the lock holder; it may end as soon as the lock is free */
  double limit;                  /* POST: how long all of it may take */
  struct moment send_by;         /* POST: nothing is sent any more once this has come */
};

/* The result of an action. */
struct flow_event {
  struct moment now;
  enum flow_result {
    FLOW_OK,
    FLOW_NONE,    /* LOAD: there is no record */
    FLOW_BUSY,    /* LOCK: another holds it. SAVE of the mark: it is saved, but the lock keeps nobody out any more */
    FLOW_CHANGED, /* SAVE: nothing was written, for another writer has changed the record since it was last loaded */
    FLOW_FAILED   /* `code` and `text` say why */
  } result;
  enum code code;    /* FAILED */
  const char *text;  /* LOAD, OK: the record. LOCK, OK: the lock's identity, another's in its place differs. HOLD,
                              * OK: the words for it in the mark. Both may be NULL. FAILED: one or two sentences, no secret */
  const char *spent; /* LOAD: hashes that the storage knows of by itself, with spaces between, or NULL */
  const uint64_t *rejected;  /* LOAD: fingerprints of access tokens, FLOW_FINGERPRINTS of them, 0: none; or NULL */
  const struct reply *reply; /* POST: the reply, of any kind; result is FLOW_OK */
};

/* Events on the way, for the user's on_event. */
enum flow_note_kind {
  FLOW_REFRESHED,
  FLOW_ADOPTED,
  FLOW_REFRESH_FAILED,
  FLOW_SAVE_FAILED,
  FLOW_SAVED,
  FLOW_RECOVERED,
  FLOW_REJECTED,
  FLOW_LOST,
  FLOW_STORED = FLOW_LOST + 3 /* the numbers between are the storages' own events */
};

struct flow_note {
  enum flow_note_kind kind;
  enum code code;             /* of the failures */
  char message[FLOW_MESSAGE]; /* empty when the kind says it all */
};

/* The end of a flight. */
struct flow_outcome {
  enum code code;                    /* CODE_OK: `token` is good */
  char message[FLOW_MESSAGE];        /* says what happened, whether anything was lost and what to do; no secret */
  const char *token;                 /* owned by the flow, valid until the next flight starts; NULL on failure */
  struct moment refresh_at, dead_at; /* of the token */
  int note_count;
  struct flow_note notes[FLOW_NOTES]; /* long, and nearly always none: those behind the last are never touched */
};

/* All but the notes behind the last. */
void flow_copy_outcome(struct flow_outcome *copy, const struct flow_outcome *outcome);

/* The flow's memory between flights, for status(). */
struct flow_status {
  bool has_token;                    /* one is known that may be handed out by the clock */
  struct moment refresh_at, dead_at; /* of the token */
  double lifetime;                   /* seconds in all; 0: unknown */
  bool unsaved;                      /* the newest tokens are in this process's memory alone */
  double last_refresh;               /* epoch seconds of the last refresh by this process; 0: none */
  enum code last_code;               /* of the last failure that no success has followed; CODE_OK: none */
  const char *last_error;            /* its message, owned by the flow */
  double retry_at;                   /* steady seconds: the server is not asked again before; 0: no failure */
};

struct flow;

/* `seed` starts the jitter of the back-off. NULL: out of memory. */
struct flow *flow_new(const struct flow_settings *settings, uint64_t seed);
void flow_free(struct flow *flow);

/* Begin a flight. `deadline` is in seconds of the steady clock; a POST that was sent is waited for past it.
 * Not while another is under way. */
void flow_start(struct flow *flow, enum flow_goal goal, struct moment now, double deadline);

/* After a start with FLOW_STORE: the login, as given_read has read it; its fields are the flow's from now on.
 * `replaces`: also a grant that lives. */
void flow_give(struct flow *flow, const struct answer *given, bool replaces);

/* The next action; `event` tells the result of the last one (ignored at the first call except for its time). After FLOW_DONE: the outcome. */
struct flow_action flow_next(struct flow *flow, const struct flow_event *event);
const struct flow_outcome *flow_outcome(const struct flow *flow);

/* The API did not accept this access token: never hand it out again. Not during a flight. */
void flow_reject(struct flow *flow, const char *token);

/* In the child after fork(): the lock is the parent's. Tokens that could not be saved are saved by whichever of the two
 * gets the lock first: the parent may end without having done it. Not when a flight was in the air. */
void flow_disown(struct flow *flow);

/* The token in use, also in the middle of a flight; NULL: there is none, or a refresh that others began may have killed
 * it. */
const char *flow_token(const struct flow *flow);

/* Whether this is the token in use. */
bool flow_uses(const struct flow *flow, const char *token);

/* Break off a flight where it stands. Tokens that were on their way to the storage count as not saved.
 * `unlocked`: the lock is given back by other means; else the next flight gives it back first,
 * or goes on under it when there is something to save. */
void flow_abandon(struct flow *flow, bool unlocked);

/* A record that could not be saved yet waits in memory, and the lock is held for it. */
bool flow_unsaved(const struct flow *flow);

struct flow_status flow_status(const struct flow *flow);

/* Where a flow stands, for stories and diagrams: states are numbered from 0, the one between two flights. */
int flow_state(const struct flow *flow);

/* "LOAD_UNLOCKED": the step that the state asks for, and its purpose. NULL: there is no such state. */
const char *flow_state_name(int state);

/* "refreshed", "save_failed", ...; never NULL. */
const char *flow_note_name(enum flow_note_kind kind);

#endif
