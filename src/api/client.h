/* A client: its settings and its accounts. */
#ifndef API_CLIENT_H
#define API_CLIENT_H

#include "../drivers/drive.h"
#include "../lucidauth.h"

#include <pthread.h>
#include <stdatomic.h>

/* Settings as copied and completed by options_copy. */
struct options {
  struct flow_settings flow;
  enum lucidauth_storage storage;
  bool background, hold_signals;
  size_t max_accounts;
  const char **token_parameters; /* names and values in turn, NULL at the end; NULL: none. Each of them is a copy */
  char *client_id, *client_secret, *refresh_token, *path, *host;
  char *base; /* the folder that a relative path starts from: the program may be elsewhere when it is first used */
  struct endpoints endpoints;
  void (*on_event)(void *data, const lucidauth_event *event);
  void *on_event_data;
};

/* Accounts that nobody has, those that were given back first before the others. */
struct account_list {
  struct lucidauth_account *first, *last;
};

struct lucidauth {
  struct options options;
  pthread_mutex_t mutex;              /* over the accounts' list, table and users; taken before an account's mutex */
  struct lucidauth_account *accounts; /* the newest first */
  struct lucidauth_account **table;   /* the same by their names' hashes, a power of two of places */
  size_t places, account_count;
  struct account_list resting;  /* they may leave */
  struct account_list restless; /* they could not leave when they were last looked at */
  atomic_bool closing;          /* no account is added, and no flight begins any more */
  pthread_mutex_t events_mutex; /* over the events; may be taken with an account's mutex held */
  struct kept_event *events;    /* of the background, oldest first */
  int events_kept;
  struct lucidauth *next;        /* in the list of all clients, for fork */
  atomic_uint_least64_t serials; /* the last one given out */
};

/* Copy, complete from the environment, check. False: `error` names the option and the variable. Free with
 * options_free in both cases. */
bool options_copy(struct options *options, const lucidauth_options *given, lucidauth_error *error);
void options_free(struct options *options);

/* What a program gives to be stored; to be freed with answer_free in both cases. */
struct lucidauth_account;
bool client_read_given(const struct lucidauth_account *account, struct answer *given, const char *text, size_t length,
                       lucidauth_error *error);

#endif
