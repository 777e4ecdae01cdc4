#include "client.h"

#include "account.h"
#include "clock.h"
#include "core/secret.h"
#include "drive/drive.h"
#include "fork.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert((int)LUCIDAUTH_NOT_READY == (int)CODE_NOT_READY && (int)LUCIDAUTH_TIMEOUT == (int)CODE_TIMEOUT,
               "lucidauth.h repeats the codes of the core");
_Static_assert((int)LUCIDAUTH_EVENT_LOST == (int)FLOW_LOST, "lucidauth.h repeats the notes of the flow");
_Static_assert(sizeof((lucidauth_error *)0)->message >= FLOW_MESSAGE, "an outcome's message fits an error");

const char *lucidauth_version(void)
{
  return LUCIDAUTH_VERSION;
}

const char *lucidauth_code_name(lucidauth_code code)
{
  return code_name((enum code)code);
}

const char *lucidauth_event_name(lucidauth_event_kind kind)
{
  return kind == LUCIDAUTH_EVENT_REPAIRED ? "repaired" : flow_note_name((enum flow_note_kind)kind);
}

/* ---- clients and accounts ---- */

lucidauth *lucidauth_new(const lucidauth_options *options, lucidauth_error *error)
{
  lucidauth_options given = LUCIDAUTH_OPTIONS_INIT;
  if (options)
    memcpy(&given, options, options->size < sizeof given ? options->size : sizeof given);
  struct lucidauth *client = calloc(1, sizeof *client);
  if (!client) {
    error_set(error, LUCIDAUTH_CONFIG, "There is not enough memory for a client.");
    return NULL;
  }
  if (!options_copy(&client->options, &given, error)) {
    options_free(&client->options);
    free(client);
    return NULL;
  }
  pthread_mutex_init(&client->mutex, NULL);
  fork_watch(client);
  return client;
}

static struct lucidauth_account *find_account(struct lucidauth *client, const char *name)
{
  for (struct lucidauth_account *account = client->accounts; account; account = account->next)
    if (strcmp(account->name, name) == 0)
      return account;
  return NULL;
}

static bool has_room_for(const struct lucidauth *client, const char *name, lucidauth_error *error)
{
  if (client->options.storage != LUCIDAUTH_FILE || strcmp(name, "default") == 0)
    return true;
  error_set(error, LUCIDAUTH_CONFIG,
            "The token file %s holds one account, so there is no account \"%.100s\": use a directory as the storage, "
            "it has a file for each account.",
            client->options.path, name);
  return false;
}

lucidauth_account *lucidauth_get_account(lucidauth *client, const char *name, lucidauth_error *error)
{
  name = name ? name : "default";
  if (!has_room_for(client, name, error))
    return NULL;
  pthread_mutex_lock(&client->mutex);
  struct lucidauth_account *account = find_account(client, name);
  if (!account && (account = account_new(client, name, error)) != NULL) {
    account->next = client->accounts;
    client->accounts = account;
  }
  pthread_mutex_unlock(&client->mutex);
  return account;
}

void lucidauth_close(lucidauth *client)
{
  if (!client)
    return;
  fork_forget(client);
  for (struct lucidauth_account *account = client->accounts, *next; account; account = next) {
    next = account->next;
    account_free(account);
  }
  options_free(&client->options);
  pthread_mutex_destroy(&client->mutex);
  free(client);
}

static char *fly(struct lucidauth_account *account, enum flow_goal goal, uint64_t *serial, lucidauth_error *error)
{
  lucidauth_error failure = {.code = LUCIDAUTH_OK};
  if (!account->store) {
    error_set(error, LUCIDAUTH_CONFIG, "The storage is the program's own: carry out flights (lucidauth_flight_begin).");
    return NULL;
  }
  if (!account_take_off(account, goal, true, &failure)) {
    if (error)
      *error = failure;
    return failure.code == LUCIDAUTH_OK ? account_token(account, serial) : NULL;
  }
  drive_blocking(account);
  return account_land(account, serial, error);
}

char *lucidauth_token_of(lucidauth_account *account, uint64_t *serial, lucidauth_error *error)
{
  return fly(account, FLOW_TOKEN, serial, error);
}

char *lucidauth_token(lucidauth *client, const char *name, lucidauth_error *error)
{
  lucidauth_account *account = lucidauth_get_account(client, name, error);
  return account ? fly(account, FLOW_TOKEN, NULL, error) : NULL;
}

char *lucidauth_refresh(lucidauth *client, const char *name, lucidauth_error *error)
{
  lucidauth_account *account = lucidauth_get_account(client, name, error);
  return account ? fly(account, FLOW_REFRESH, NULL, error) : NULL;
}

void lucidauth_free_token(char *token)
{
  secret_free(token);
}

void lucidauth_reject(lucidauth *client, const char *name, const char *token)
{
  lucidauth_account *account = lucidauth_get_account(client, name, NULL);
  if (account)
    account_reject(account, token);
}

/* ---- status ---- */

static const char *state_name(const struct lucidauth_account *account, double wall)
{
  const struct flow_status *known = &account->status;
  if (known->has_token && wall < known->refresh_at)
    return "ready";
  if (account->last_error.code != LUCIDAUTH_OK)
    return "failing";
  return known->has_token ? "expired" : "empty";
}

static void look(struct lucidauth_account *account)
{
  if (account->store && account_take_off(account, FLOW_LOOK, false, NULL)) {
    drive_blocking(account);
    account_land(account, NULL, NULL);
  }
}

bool lucidauth_get_status(lucidauth *client, const char *name, lucidauth_status *status)
{
  lucidauth_account *account = lucidauth_get_account(client, name, NULL);
  if (!account)
    return false;
  look(account);
  struct moment now = clock_now();
  pthread_mutex_lock(&account->mutex);
  const struct flow_status *known = &account->status;
  *status = (lucidauth_status){.state = state_name(account, now.wall),
                               .expires_in = known->has_token ? fmax(0, known->dead_at - now.wall) : 0,
                               .last_refresh = known->last_refresh,
                               .last_error = account->last_error,
                               .retry_in = fmax(0, known->retry_at - now.steady),
                               .unsaved = known->unsaved,
                               .shared = account->store && account->store->shared,
                               .generation = atomic_load_explicit(account->generation, memory_order_relaxed)};
  pthread_mutex_unlock(&account->mutex);
  return true;
}
