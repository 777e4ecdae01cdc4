/* One account of a client: its flow, its storage, and the token that it has in use. */
#ifndef ACCOUNT_ACCOUNT_H
#define ACCOUNT_ACCOUNT_H

#include "../drivers/drive.h"
#include "../flow/flow.h"
#include "../lucidauth.h"
#include "history.h"

#include <pthread.h>
#include <stdatomic.h>

enum { REJECTED = 4 };

struct account_list;

struct lucidauth_account {
  /* read by the hot path, written with the mutex held */
  _Atomic(const atomic_uint_least64_t *) generation; /* of the storage: another process announces a change */
  atomic_uint_least64_t seen;                        /* the generation that the token in use belongs to */
  atomic_uint_least64_t serial;                      /* changes with the token; 0: none is in use */
  atomic_int_least64_t good_in;                      /* clock_second: look again in any other */

  struct lucidauth *client;
  struct lucidauth_account *previous, *next, *next_in_place; /* in the client's list, and in its table */
  size_t users;                                              /* handles, and calls that go on; else it rests: */
  struct account_list *rests_in;
  struct lucidauth_account *rests_before, *rests_behind;
  char *name; /* "default" unless the caller named one */

  pthread_mutex_t mutex;      /* over what follows; never held while waiting for anything but `landed` */
  pthread_cond_t landed;      /* a flight has ended */
  struct background_job *job; /* of a client that works in the background, else NULL */
  double spread;              /* 0 to 1: this process's place among those that refresh ahead */
  struct history history;
  uint64_t sat_out;                   /* 1 + the landings before a flight that was waited for long enough; 0: none */
  uint64_t landings;                  /* flights that have ended */
  struct lucidauth_error landed_with; /* what the last one came to */
  uint64_t stores, stored;            /* flights that store a login: begun, and ended */
  struct lucidauth_error stored_with; /* what the last of those came to */
  bool landed_elsewhere;              /* it has stayed with the parent of a fork */
  bool flying;                        /* somebody carries out a flight: flow and store are theirs */
  pthread_t pilot;                    /* who began that flight */
  double took_off;                    /* when, in steady seconds */
  bool sent;                          /* its refresh is with the server, or was */
  bool looked_after;                  /* somebody asks the storage whether it was changed */
  int64_t asked_in;                   /* clock_second of the last answer to that */
  enum flow_goal goal;                /* of that flight */
  lucidauth_flight *flight;           /* of a program that carries it out itself, else NULL */
  bool forked;                        /* this process is a child of the one that used flow and store */
  struct flow_settings settings;      /* the client's; the configured refresh token is the default account's alone */
  struct craft craft;                 /* without a store: LUCIDAUTH_CUSTOM */
  char *token;
  struct moment refresh_at, dead_at;
  char *rejected[REJECTED]; /* not yet told to the flow, which may be in flight */
  int rejections;
  bool rejects;              /* a token was rejected since the last one that was good */
  bool broken_off;           /* the program has ended its last flight early: the lock may still be held */
  struct flow_status status; /* as of the last landing; the message is copied */
  double looked_at;          /* steady seconds: the storage was last looked at for the status; 0: never */
  bool shared;               /* of the store, as of the last landing */
  struct lucidauth_error last_error;
};

/* What an account does when its flight is carried out. */
extern const struct craft_owner account_owner;

/* The storage's generation. */
static inline uint64_t account_generation(const struct lucidauth_account *account, memory_order order)
{
  return atomic_load_explicit(atomic_load_explicit(&account->generation, memory_order_relaxed), order);
}

/* No second of the clock, for good_in. */
#define NEVER INT64_MIN

static inline struct lucidauth_account *account_of(struct craft *craft)
{
  return (struct lucidauth_account *)(void *)((char *)craft - offsetof(struct lucidauth_account, craft));
}

/* NULL: `error` says why. */
struct lucidauth_account *account_new(struct lucidauth *client, const char *name, lucidauth_error *error);

/* The client is closed: the last flight is waited for, and tokens that could not be saved are tried once more. */
void account_end(struct lucidauth_account *account);

/* After account_end. */
void account_free(struct lucidauth_account *account);

/* What would be lost with an account that nobody has. */
enum account_worth {
  ACCOUNT_EMPTY,  /* nothing: the storage has no record, or was not looked at */
  ACCOUNT_STORED, /* nothing that the storage does not have */
  ACCOUNT_STAYS   /* more; or it is in the air */
};

enum account_worth account_worth(struct lucidauth_account *account);

/* Whether it may be dismissed; the background's thread then leaves it alone. */
bool account_may_leave(struct lucidauth_account *account);

/* End and free an account that may leave. */
void account_dismiss(struct lucidauth_account *account);

/* The process ends: wait for a flight that is in the air, and try once more to save what could not be saved. */
void account_settle(struct lucidauth_account *account);

/* Take the account's flight for the calling thread: flow and store are its own until account_land. False:
 * there is an `error`, or, with LUCIDAUTH_OK in it, the token in use is to be used as it is. `wait`: wait for
 * another thread's flight. */
bool account_take_off(struct lucidauth_account *account, enum flow_goal goal, bool wait, lucidauth_error *error);

/* The same for a flight that only saves what could not be saved. False: there is nothing to save, or another flight is
 * under way. */
bool account_take_off_to_keep(struct lucidauth_account *account);

/* The same for one that stores what a login gave, whose fields are the flight's from now on. False: there is an `error`;
 * LUCIDAUTH_NOT_READY, unless `wait`: another one is under way. */
bool account_take_off_to_store(struct lucidauth_account *account, struct answer *given, bool replaces, bool wait,
                               lucidauth_error *error);
/* In the background; with the mutex held, and no flight in the air. */
bool account_take_off_to_store_in_background(struct lucidauth_account *account, struct answer *given, bool replaces);

/* The flight that has taken off is the program's own; NULL: it was. And whether it still is, which ends in the child
 * of a fork. */
void account_give_flight(struct lucidauth_account *account, lucidauth_flight *flight);
bool account_has_flight(struct lucidauth_account *account, const lucidauth_flight *flight);

/* In the middle of a flight, before it waits for a lock: a token that still lives may be handed out meanwhile. */
void account_show(struct lucidauth_account *account);

/* Whether a flight with this goal may refresh, and so end the token in use. */
static inline bool account_may_spend(enum flow_goal goal)
{
  return goal == FLOW_TOKEN || goal == FLOW_REFRESH;
}

/* In the middle of a flight: its refresh is sent. */
void account_note_sent(struct lucidauth_account *account);

/* Whether a flight is in the air that has come so far. In the background alone. */
bool account_has_sent(struct lucidauth_account *account);

/* A copy of the token in use, and its serial (may be NULL). */
char *account_token(struct lucidauth_account *account, uint64_t *serial);

/* Whether a flight is to start by itself, ahead of the expiry or since the record was changed by others; it
 * has then taken off. For the background's thread alone. */
bool account_is_due(struct lucidauth_account *account);

/* Have the background's thread look at the storage, unless a token is in use, which it looks after anyway. */
void account_look(struct lucidauth_account *account);

/* Read the storage here and now for a token that lives, unless one is in use, once a second at most. */
void account_glance(struct lucidauth_account *account);

/* Wait until a flight lands, for at most `seconds`. */
void account_wait(struct lucidauth_account *account, double seconds);

/* Whether it has had a flight. */
bool account_has_landed(struct lucidauth_account *account);

/* If a flight is in the air: hold signals that would end the process, for the caller waits for it. */
void account_hold_signals(struct lucidauth_account *account, struct held_signal *held);

/* Never hand this token out again. */
void account_reject(struct lucidauth_account *account, const char *token);

/* End the flight that account_take_off began: publish its outcome, report its events. Returns the token as a
 * copy, or NULL and the error; NULL and LUCIDAUTH_OK: it was rejected during the flight, or none was asked for. */
char *account_land(struct lucidauth_account *account, uint64_t *serial, lucidauth_error *error);

/* ---- for the other parts of an account; with the mutex held ---- */

/* In the child of a fork, before flow and store are used for the first time. */
bool account_settle_in_child(struct lucidauth_account *account, lucidauth_error *error);

/* Why no flight begins any more; NULL: it may. */
const char *account_grounded(const struct lucidauth_account *account);

/* Whether the flight in the air, or the last one, brings what a caller who came at that moment wants: a refresh that
 * was asked for is not served by one that had begun before. */
bool account_suits(const struct lucidauth_account *account, bool refresh, double since);

/* With no flight in the air. False: there is no thread to be had, or no flight begins any more. */
bool account_take_off_in_background(struct lucidauth_account *account, enum flow_goal goal);

#endif
