/* A client: its options and its accounts. */
#ifndef API_CLIENT_H
#define API_CLIENT_H

#include "../account/process.h"
#include "../account/roster.h"
#include "../lucidauth.h"

/* Options as copied and completed by options_copy. */
struct options {
  struct account_settings accounts; /* its strings are these: */
  const char **token_parameters;    /* names and values in turn, NULL at the end; NULL: none. Each of them is a copy */
  char *client_id, *client_secret, *refresh_token, *path, *base, *host;
  size_t max_accounts;
  void (*on_event)(void *data, const lucidauth_event *event);
  void *on_event_data;
};

struct lucidauth {
  struct options options;
  struct client_shared shared;
  struct roster roster;
  struct process_watch watch;
};

/* Copy, complete from the environment, check. False: `error` names the option and the variable. Free with
 * options_free in both cases. */
bool options_copy(struct options *options, const lucidauth_options *given, lucidauth_error *error);
void options_free(struct options *options);

#endif
