/* One account of a client: its flow, its storage, and the token that it has in use. Its parts are for this folder alone
 * (parts.h). */
#ifndef ACCOUNT_ACCOUNT_H
#define ACCOUNT_ACCOUNT_H

#include "../drivers/flight.h"
#include "../lucidauth.h"
#include "report.h"

/* The settings that all accounts of a client have. */
struct account_settings {
  struct flow_settings flow;
  enum lucidauth_storage storage;
  const char *path, *base; /* the folder that a relative path starts from: the program may be elsewhere by then */
  struct endpoints endpoints;
  bool background, hold_signals;
};

/* The things that they share. */
struct client_shared {
  struct account_settings settings;
  struct events events;
  atomic_bool closing; /* no account is added, and no flight begins any more */
};

/* NULL: `error` says why. */
struct lucidauth_account *account_new(struct client_shared *client, const char *name, lucidauth_error *error);

/* The client is closed: the last flight is waited for, and tokens that could not be saved are tried once more. A flight
 * that the program carries out by itself was ended before. */
void account_end(struct lucidauth_account *account);

/* After account_end. */
void account_free(struct lucidauth_account *account);

/* The loss if an account goes that nobody has. */
enum account_worth {
  ACCOUNT_EMPTY,  /* nothing: the storage has no record, or was not looked at */
  ACCOUNT_STORED, /* nothing that the storage does not have */
  ACCOUNT_STAYS   /* more; or a flight is under way */
};

enum account_worth account_worth(struct lucidauth_account *account);

/* Whether it may be dismissed; the background's thread then leaves it alone. */
bool account_may_leave(struct lucidauth_account *account);

/* End and free an account that may leave. */
void account_dismiss(struct lucidauth_account *account);

/* lucidauth_leave: whether account_end would not have to wait for the background's thread. */
bool account_start_leaving(struct lucidauth_account *account);

/* The process ends: wait for a flight that is under way, and try once more to save unsaved tokens. */
void account_settle(struct lucidauth_account *account);

struct events *account_events(struct lucidauth_account *account);

/* The means of its flights. While a flight is the program's own, so are they. */
struct flight *account_flight(struct lucidauth_account *account);

/* Whether the storage is one of the library's, and whether the background's thread carries flights out. */
bool account_has_store(const struct lucidauth_account *account);
bool account_has_background(const struct lucidauth_account *account);

/* Read a login's answer that the program wants stored. False: `error` says why. Free it with answer_free in both
 * cases. */
struct answer;
bool account_read_given(const struct lucidauth_account *account, struct answer *given, const char *text, size_t length,
                        lucidauth_error *error);

/* Never hand this token out again. */
void account_reject(struct lucidauth_account *account, const char *token);

/* Look at the storage for the status: the background's thread does, where there is one; unless a token is in use, which
 * it looks after anyway. */
void account_look(struct lucidauth_account *account);

/* With the background: read the storage on this thread for a token that lives, unless one is in use, once a second at
 * most. */
void account_read_now(struct lucidauth_account *account);

void account_tell_status(struct lucidauth_account *account, lucidauth_status *status);

/* Around fork(), every account. */
void account_before_fork(struct lucidauth_account *account);
void account_after_fork_in_parent(struct lucidauth_account *account);
void account_after_fork_in_child(struct lucidauth_account *account);

#endif
