/* A client: its settings, its accounts, and the token that each account has in use. */
#ifndef CLIENT_H
#define CLIENT_H

#include "core/flow.h"
#include "http/http.h"
#include "lucidauth.h"
#include "store/store.h"

#include <pthread.h>
#include <stdatomic.h>

/* A flight in the program's own hands. */
struct lucidauth_flight {
  struct lucidauth_account *account;
  struct flow_action action; /* what was asked last */
  struct http_response response;
  bool begun, posted;
};

enum { REJECTED = 4 };

struct lucidauth_account {
  /* read by the hot path, written with the mutex held */
  const atomic_uint_least64_t *generation; /* of the storage: another process announces a change */
  atomic_uint_least64_t seen;              /* the generation that the token in use belongs to */
  atomic_uint_least64_t serial;            /* changes with the token; 0: none is in use */
  atomic_uint_least64_t good_until;        /* clock_coarse: look again from here on */

  struct lucidauth *client;
  struct lucidauth_account *next;
  char *name; /* "default" unless the caller named one */

  pthread_mutex_t mutex; /* over what follows; never held while waiting for anything but `landed` */
  pthread_cond_t landed; /* a flight has ended */
  bool flying;           /* somebody carries out a flight: flow and store are theirs */
  enum flow_goal goal;   /* of that flight */
  uint64_t flight_seen;  /* the generation when that flight last looked at the record */
  bool forked;           /* this process is a child of the one that used flow and store */
  struct flow *flow;
  struct store *store; /* NULL: LUCIDAUTH_CUSTOM */
  char *token;
  double refresh_at, dead_at; /* epoch seconds */
  char *rejected[REJECTED];   /* not yet told to the flow, which may be in flight */
  int rejections;
  struct flow_status status; /* as of the last landing; the message is copied */
  struct lucidauth_error last_error;
};

/* Settings as copied and completed by options_copy. */
struct options {
  struct flow_settings flow;
  enum lucidauth_storage storage;
  char *client_id, *client_secret, *refresh_token, *path, *ca_file, *host;
  char *token_url, *introspection_url;
  void (*on_event)(void *data, const lucidauth_event *event);
  void *on_event_data;
};

struct lucidauth {
  struct options options;
  pthread_mutex_t mutex; /* over the list of accounts */
  struct lucidauth_account *accounts;
  struct lucidauth *next;        /* in the list of all clients, for fork */
  atomic_uint_least64_t serials; /* the last one given out */
};

/* Copy, complete from the environment, check. False: `error` names the option and the variable. Free with
 * options_free in both cases. */
bool options_copy(struct options *options, const lucidauth_options *given, lucidauth_error *error);
void options_free(struct options *options);

/* Fill in an error; `error` may be NULL. */
void error_set(lucidauth_error *error, lucidauth_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Take the account's flight for the calling thread: flow and store are its own until account_land. False:
 * there is an `error`, or, with LUCIDAUTH_OK in it, the token in use is to be used as it is. `wait`: wait for
 * another thread's flight. */
bool account_take_off(struct lucidauth_account *account, enum flow_goal goal, bool wait, lucidauth_error *error);

/* A copy of the token in use, and its serial (may be NULL). */
char *account_token(struct lucidauth_account *account, uint64_t *serial);

/* End the flight that account_take_off began: publish its outcome, report its events. Returns the token as a
 * copy, or NULL and the error. */
char *account_land(struct lucidauth_account *account, uint64_t *serial, lucidauth_error *error);

#endif
