/* One flight at a time: whose turn it is to use an account's flow and store, and how the last flight ended. */
#ifndef ACCOUNT_TURN_H
#define ACCOUNT_TURN_H

#include "../flow/flow.h"
#include "../lucidauth.h"
#include "../system/clock.h"
#include "../system/held_signal.h"
#include "login.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum { TURN_REJECTED = 4 };

/* turn.c alone writes it. */
struct turn {
  pthread_cond_t over;           /* a flight has ended, or a question to the storage is answered */
  bool taken;                    /* a flight is under way: flow and store belong to the thread that carries it out */
  bool asking;                   /* a thread asks the storage whether it was changed: the store belongs to it */
  pthread_t thread;              /* that began the flight */
  double began;                  /* steady seconds */
  enum flow_goal goal;           /* of that flight, or of the last one */
  bool sent;                     /* its refresh is with the server, or was */
  lucidauth_flight *own;         /* of a program that carries it out by itself; else NULL */
  bool broken_off;               /* the program has ended its last flight early: the lock may still be held */
  bool forked;                   /* this process is a child of the one that used flow and store */
  uint64_t ended;                /* flights */
  lucidauth_error outcome;       /* of the last one */
  bool left_in_parent;           /* it goes on in the parent of a fork */
  uint64_t waited_for;           /* number of a flight that was waited for long enough; 0: none */
  struct login *logins;          /* that the background was given to store, the last one first */
  char *rejected[TURN_REJECTED]; /* during a flight, whose flow is another thread's: it is told before the next */
  int rejections;
  bool rejects; /* a token was rejected since the last one that was good */
};

struct account_status;
struct answer;

/* Open flow and store. False: `error` says why; turn_free is still to be called. */
bool turn_init(struct lucidauth_account *account, lucidauth_error *error);
void turn_free(struct lucidauth_account *account);

/* ---- flights ---- */

/* Begin a flight: flow and store are the calling thread's until turn_end. False: there is an `error`, or, with
 * LUCIDAUTH_OK in it, the token in use is to be used as it is. `wait`: wait for another thread's flight. */
bool turn_begin(struct lucidauth_account *account, enum flow_goal goal, bool wait, lucidauth_error *error);

/* The same for a flight that only saves unsaved tokens. False: there is nothing to save, or another flight is
 * under way. */
bool turn_begin_to_save(struct lucidauth_account *account);

/* The same for one that stores a login's answer, whose fields are the flight's from now on. False: there is an `error`;
 * LUCIDAUTH_NOT_READY, unless `wait`: another one is under way. */
bool turn_begin_to_store(struct lucidauth_account *account, struct answer *given, bool replaces, bool wait,
                         lucidauth_error *error);

/* The same ahead of the token's expiry, or since others have changed the record. False: it is not due. For helpers of
 * the background's thread. */
bool turn_begin_if_due(struct lucidauth_account *account);

/* The same for a look at the storage, once a second at most. False: a token is in use, or another thread has the
 * turn. */
bool turn_begin_to_look(struct lucidauth_account *account);

/* Carry the flight out on this thread. */
void turn_run(struct lucidauth_account *account);

/* Carry a look out on this thread, without a pause: a record that is being written is not waited for. */
void turn_run_look(struct lucidauth_account *account);

/* Before the flight waits for the lock: a token that still lives may be handed out meanwhile. */
void turn_show(struct lucidauth_account *account);

/* Its refresh is about to be sent; and whether one is under way that has come so far. */
void turn_note_sent(struct lucidauth_account *account);
bool turn_has_sent(struct lucidauth_account *account);

/* End the flight: publish its outcome, report its events. Returns the token as a copy, or NULL and the error; NULL and
 * LUCIDAUTH_OK: it was rejected during the flight, or none was asked for. */
char *turn_end(struct lucidauth_account *account, uint64_t *serial, lucidauth_error *error);

/* The flight that has begun is carried out by the program itself. */
void turn_give(struct lucidauth_account *account, lucidauth_flight *own);

/* Whether it still is, which ends in the child of a fork. */
bool turn_is_given(struct lucidauth_account *account, const lucidauth_flight *own);

/* The program ends it, early perhaps; turn_end is next. Returns whether a token is wanted of it. */
bool turn_take_back(struct lucidauth_account *account, bool early);

/* NULL: there is none that is carried out by the program. Only while nobody else uses the account. */
lucidauth_flight *turn_given(const struct lucidauth_account *account);

/* ---- everything else ---- */

/* A copy of the token in use, and its serial (may be NULL). */
char *turn_token(struct lucidauth_account *account, uint64_t *serial);

/* Whether the account has had a flight. */
bool turn_has_ended(struct lucidauth_account *account);

/* Wait until the flight that is under way ends, for at most `seconds`. */
void turn_wait(struct lucidauth_account *account, double seconds);

/* The process ends: wait for a flight on another thread, with the signals that are held meanwhile. False: it is still
 * under way, or this very thread was interrupted in here. */
bool turn_wait_for_last(struct lucidauth_account *account, struct held_signal *held, struct patience *patience,
                        double seconds);

/* If a flight is under way: hold signals that would end the process, for the caller waits for it. */
void turn_hold_signals(struct lucidauth_account *account, struct held_signal *held);

/* In the child of a fork, with the mutex held: nothing of the parent's flights is its own. */
void turn_forked(struct lucidauth_account *account);

/* ---- with the account's mutex held ---- */

/* Begin the flight that flow and store are free for. */
void turn_start(struct lucidauth_account *account, enum flow_goal goal);

/* The same for one that stores a login's answer, and whose outcome is kept. NULL: out of memory. */
struct login *turn_start_to_store(struct lucidauth_account *account, struct answer *given, const struct login_key *key);

/* In the child of a fork, before flow and store are used for the first time; nothing happens elsewhere. */
bool turn_settle_in_child(struct lucidauth_account *account, lucidauth_error *error);

/* Why no flight begins any more; NULL: it may. */
const char *turn_refusal(const struct lucidauth_account *account);

/* A flight is under way; flow and store are in use by one, or by a question to the storage. */
bool turn_is_taken(const struct lucidauth_account *account);
bool turn_is_busy(const struct lucidauth_account *account);

/* Whether nobody holds on to anything of the account's, nor does the storage's lock. */
bool turn_is_idle(const struct lucidauth_account *account);

/* Whether the flight under way, or the last one, brings what a caller wants that came at this moment: a refresh that
 * was asked for is not served by one that had begun before. */
bool turn_suits(const struct lucidauth_account *account, bool refresh, double since);

/* Whether a flight is under way that may refresh, and so end the token in use, and was not waited for long enough. */
bool turn_may_change_token(const struct lucidauth_account *account);
void turn_stop_waiting(struct lucidauth_account *account);

/* The token in use is still good: not due by any clock, nor announced as changed by another process, nor is its record
 * rewritten. The disk is asked once a second; the background's thread asks it by itself, and another thread's
 * question is not waited for: a slow disk is not to hold up anybody else. The mutex may be given back for a while. */
bool turn_token_is_good(struct lucidauth_account *account);

/* Never hand this token out again. Returns whether it was in use. And whether a token was rejected since the last one
 * that was good. */
bool turn_reject(struct lucidauth_account *account, const char *token);
bool turn_has_rejected(const struct lucidauth_account *account);

/* Whether to look at the storage, once a second at most: there is no token in use, and no flight is under way. */
bool turn_look_is_due(struct lucidauth_account *account);

/* The number of the flight under way, or of the next; and of a flight: whether it has ended, in vain perhaps. */
uint64_t turn_number(const struct lucidauth_account *account);
bool turn_is_over(const struct lucidauth_account *account, uint64_t number);
bool turn_was_in_vain(const struct lucidauth_account *account);
const lucidauth_error *turn_outcome(const struct lucidauth_account *account);

/* Logins that the background was given to store. */
struct login *turn_logins(const struct lucidauth_account *account);

/* Seconds that a caller waits for a flight. */
double turn_longest_wait(const struct lucidauth_account *account);

#endif
