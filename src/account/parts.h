/* The parts of an account, for the files of this folder alone. Each part is written by the file of its name. */
#ifndef ACCOUNT_PARTS_H
#define ACCOUNT_PARTS_H

#include "../drivers/flight.h"
#include "account.h"
#include "roster.h"
#include "status.h"
#include "token_in_use.h"
#include "turn.h"

struct lucidauth_account {
  struct token_in_use in_use; /* first, since the hot path reads it */
  struct turn turn;
  struct account_status status;
  struct roster_place place;
  struct background_job *job; /* NULL: the client works without the background */

  char *name; /* "default" unless the caller named one */
  struct client_shared *client;
  struct flow_settings settings; /* the client's; the configured refresh token is the default account's alone */
  struct flight flight;          /* of the thread that has the turn */
  pthread_mutex_t mutex;         /* over all of it; not held while waiting for anything but the turn */
};

/* Differs between processes and accounts, which is all that jitter needs. */
uint64_t account_seed(const struct lucidauth_account *account);

/* Tell the program of something: at once, or with the background when it asks next. */
void account_report(const struct lucidauth_account *account, lucidauth_event_kind kind, lucidauth_code code,
                    const char *message);

#endif
