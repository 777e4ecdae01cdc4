#include "client.h"

#include "../account/account.h"
#include "../account/fork.h"
#include "../account/roster.h"
#include "../base/secret.h"
#include "../drivers/background.h"
#include "../drivers/drive.h"
#include "../oauth/given.h"
#include "../system/cancel.h"
#include "../system/clock.h"
#include "error.h"
#include "events.h"
#include "ticket.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

_Static_assert((int)LUCIDAUTH_NOT_READY == (int)CODE_NOT_READY && (int)LUCIDAUTH_TIMEOUT == (int)CODE_TIMEOUT,
               "lucidauth.h repeats the codes of the core");
_Static_assert((int)LUCIDAUTH_EVENT_LOST == (int)FLOW_LOST && (int)LUCIDAUTH_EVENT_STORED == (int)FLOW_STORED,
               "lucidauth.h repeats the notes of the flow");
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
  if (kind == LUCIDAUTH_EVENT_EXPOSED)
    return "exposed";
  return kind == LUCIDAUTH_EVENT_REPAIRED ? "repaired" : flow_note_name((enum flow_note_kind)kind);
}

/* ---- clients and accounts ---- */

/* Sizes in the first release. */
enum {
  FIRST_OPTIONS = offsetof(lucidauth_options, on_event_data) + sizeof(void *),
  FIRST_STATUS = offsetof(lucidauth_status, generation) + sizeof(uint64_t)
};

lucidauth *lucidauth_new(const lucidauth_options *options, lucidauth_error *error)
{
  lucidauth_options given = LUCIDAUTH_OPTIONS_INIT;
  if (options && options->size < FIRST_OPTIONS) {
    error_set(error, LUCIDAUTH_CONFIG,
              "The options have no size: start them from LUCIDAUTH_OPTIONS_INIT, and set what differs.");
    return NULL;
  }
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
  pthread_mutex_init(&client->events_mutex, NULL);
  int cancel = cancel_put_off();
  fork_watch(client);
  cancel_allow(cancel);
  return client;
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
  name = name && *name ? name : "default";
  if (!has_room_for(client, name, error))
    return NULL;
  int cancel = cancel_put_off();
  struct lucidauth_account *account = roster_take(client, name, error);
  cancel_allow(cancel);
  return account;
}

void lucidauth_release_account(lucidauth_account *account)
{
  if (!account)
    return;
  int cancel = cancel_put_off();
  roster_give_back(account);
  cancel_allow(cancel);
}

/* Events are given while everything is still in its place: whoever hears of them may ask for more. */
void lucidauth_close(lucidauth *client)
{
  if (!client)
    return;
  int cancel = cancel_put_off();
  pthread_mutex_lock(&client->mutex);
  atomic_store(&client->closing, true);
  pthread_mutex_unlock(&client->mutex);
  for (struct lucidauth_account *account = client->accounts; account; account = account->next)
    account_end(account);
  events_deliver(client);
  fork_forget(client);
  for (struct lucidauth_account *account = client->accounts, *next; account; account = next) {
    next = account->next;
    account_free(account);
  }
  free(client->table);
  options_free(&client->options);
  pthread_mutex_destroy(&client->mutex);
  pthread_mutex_destroy(&client->events_mutex);
  free(client);
  cancel_allow(cancel);
}

bool lucidauth_leave(lucidauth *client)
{
  bool idle = true;
  pthread_mutex_lock(&client->mutex);
  for (struct lucidauth_account *account = client->accounts; account; account = account->next)
    if (account->job && !background_start_leaving(account->job))
      idle = false;
  pthread_mutex_unlock(&client->mutex);
  return idle;
}

/* This thread flies, or waits for another that does. */
static char *fly_here(struct lucidauth_account *account, enum flow_goal goal, uint64_t *serial, lucidauth_error *error)
{
  lucidauth_error said;
  char *token;
  do {
    said.code = LUCIDAUTH_OK;
    if (account_take_off(account, goal, true, &said)) {
      drive_blocking(&account->craft);
      token = account_land(account, serial, &said);
    } else {
      token = said.code == LUCIDAUTH_OK ? account_token(account, serial) : NULL;
    }
    /* else another thread has rejected it meanwhile */
  } while (!token && said.code == LUCIDAUTH_OK);
  if (error)
    *error = said;
  return token;
}

/* The thread flies, and this one waits for it; where there is none to be had, this one flies. */
static char *ride_along(struct lucidauth_account *account, bool refresh, uint64_t *serial, lucidauth_error *error)
{
  const double look_again = 0.05;
  lucidauth_error said = {.code = LUCIDAUTH_OK};
  lucidauth_ticket ticket = {.refresh = refresh};
  struct held_signal held = {.holding = false};
  char *token;
  enum poll polled;
  while ((polled = ticket_poll(account, &ticket, true, &token, serial, &said)) == POLL_WAIT) {
    account_hold_signals(account, &held);
    account_wait(account, ticket.within = fmin(look_again, ticket.within));
    held_signals_look(&held, clock_now().steady);
    if (!account_has_sent(account))
      held_signals_pass_on(&held);
  }
  held_signals_pass_on(&held);
  if (polled == POLL_NO_THREAD)
    token = fly_here(account, refresh ? FLOW_REFRESH : FLOW_TOKEN, serial, &said);
  if (error)
    *error = said;
  events_deliver(account->client);
  return token;
}

static char *fly(struct lucidauth_account *account, enum flow_goal goal, uint64_t *serial, lucidauth_error *error)
{
  if (!account->craft.store) {
    error_set(error, LUCIDAUTH_CONFIG, "The storage is the program's own: carry out flights (lucidauth_flight_begin).");
    return NULL;
  }
  int cancel = cancel_put_off();
  char *token =
      account->job ? ride_along(account, goal == FLOW_REFRESH, serial, error) : fly_here(account, goal, serial, error);
  cancel_allow(cancel);
  return token;
}

char *lucidauth_poll(lucidauth_account *account, lucidauth_ticket *ticket, bool patient, uint64_t *serial,
                     lucidauth_error *error)
{
  if (!account->job) {
    error_set(error, LUCIDAUTH_CONFIG, "Only a client with the option background can be polled.");
    return NULL;
  }
  char *token;
  int cancel = cancel_put_off();
  if (!patient && !ticket->refresh)
    account_glance(account);
  (void)ticket_poll(account, ticket, patient, &token, serial, error);
  events_deliver(account->client);
  cancel_allow(cancel);
  return token;
}

void lucidauth_deliver_events(lucidauth *client)
{
  int cancel = cancel_put_off();
  events_deliver(client);
  cancel_allow(cancel);
}

char *lucidauth_token_of(lucidauth_account *account, uint64_t *serial, lucidauth_error *error)
{
  return fly(account, FLOW_TOKEN, serial, error);
}

/* A thread that is cancelled gives the account back first. */
static char *fly_by_name(lucidauth *client, const char *name, enum flow_goal goal, lucidauth_error *error)
{
  int cancel = cancel_put_off();
  lucidauth_account *account = lucidauth_get_account(client, name, error);
  char *token = account ? fly(account, goal, NULL, error) : NULL;
  lucidauth_release_account(account);
  cancel_allow(cancel);
  return token;
}

char *lucidauth_token(lucidauth *client, const char *name, lucidauth_error *error)
{
  return fly_by_name(client, name, FLOW_TOKEN, error);
}

char *lucidauth_refresh(lucidauth *client, const char *name, lucidauth_error *error)
{
  return fly_by_name(client, name, FLOW_REFRESH, error);
}

bool client_read_given(const struct lucidauth_account *account, struct answer *given, const char *text, size_t length,
                       lucidauth_error *error)
{
  const struct answer_context context = {.now = clock_now().wall,
                                         .default_lifetime = account->settings.default_lifetime};
  const char *flaw = given_read(given, text ? text : "", text ? length : 0, &context);
  error_set(error, flaw ? LUCIDAUTH_CONFIG : LUCIDAUTH_OK, "%s", flaw ? flaw : "");
  return !flaw;
}

static bool store_here(struct lucidauth_account *account, struct answer *given, unsigned flags, lucidauth_error *error)
{
  lucidauth_error said = {.code = LUCIDAUTH_OK};
  bool flies = account_take_off_to_store(account, given, flags & LUCIDAUTH_REPLACE, true, &said);
  if (flies) {
    drive_blocking(&account->craft);
    lucidauth_free_token(account_land(account, NULL, &said));
  }
  if (error)
    *error = said;
  return flies && said.code == LUCIDAUTH_OK;
}

static bool store_in(struct lucidauth_account *account, const char *text, size_t length, unsigned flags,
                     lucidauth_error *error)
{
  struct answer given;
  if (!account->craft.store) {
    error_set(error, LUCIDAUTH_CONFIG, "The storage is the program's own: carry out flights (lucidauth_flight_store).");
    return false;
  }
  bool stored = client_read_given(account, &given, text, length, error) && store_here(account, &given, flags, error);
  answer_free(&given);
  events_deliver(account->client);
  return stored;
}

bool lucidauth_store(lucidauth *client, const char *name, const char *answer, size_t length, unsigned flags,
                     lucidauth_error *error)
{
  int cancel = cancel_put_off();
  lucidauth_account *account = lucidauth_get_account(client, name, error);
  bool stored = account && store_in(account, answer, length, flags, error);
  lucidauth_release_account(account);
  cancel_allow(cancel);
  return stored;
}

/* With the mutex held; NULL: it goes on, or begins. Else what it came to, or why it does not begin. */
static void poll_store(struct lucidauth_account *account, uint64_t *order, struct answer *given, unsigned flags,
                       lucidauth_error *error)
{
  static const char *const goes_on = "The answer is being stored in the background. Ask again in a moment.";
  if (*order && account->stored == *order) {
    *error = account->stored_with;
    return;
  }
  error_set(error, LUCIDAUTH_NOT_READY, "%s", goes_on);
  bool waits = (account->flying || account->looked_after) && !account->forked;
  /* the outcome of one that another has come behind is not known any more, and to store twice does no harm */
  if (waits || (*order && account->stored < *order && !account->forked))
    return;
  *order = 0;
  if (account_grounded(account))
    error_set(error, LUCIDAUTH_CONFIG, "%s", account_grounded(account));
  else if ((!account->forked || account_settle_in_child(account, error)) &&
           account_take_off_to_store_in_background(account, given, flags & LUCIDAUTH_REPLACE))
    *order = account->stores;
  else if (background_is_forbidden())
    error_set(error, LUCIDAUTH_CONFIG,
              "This process may start no thread (its limit RLIMIT_NPROC is 0; HAProxy: set insecure-fork-wanted), so "
              "the answer was not stored. Nothing was changed.");
}

bool lucidauth_poll_store(lucidauth_account *account, uint64_t *order, const char *answer, size_t length,
                          unsigned flags, lucidauth_error *error)
{
  struct answer given;
  lucidauth_error said;
  int cancel = cancel_put_off();
  if (!account->job)
    error_set(&said, LUCIDAUTH_CONFIG, "Only a client with the option background can be polled.");
  else if (client_read_given(account, &given, answer, length, &said)) {
    pthread_mutex_lock(&account->mutex);
    poll_store(account, order, &given, flags, &said);
    pthread_mutex_unlock(&account->mutex);
    answer_free(&given);
  }
  if (error)
    *error = said;
  events_deliver(account->client);
  cancel_allow(cancel);
  return said.code == LUCIDAUTH_OK;
}

void lucidauth_free_token(char *token)
{
  secret_free(token);
}

/* What a program has at hand is the token, or the header that it was sent in; what was read from a file ends a line.
 * NULL: memory is out. */
static char *token_of_header(const char *value)
{
  static const char scheme[] = "bearer", blanks[] = " \t\r\n";
  const size_t size = sizeof scheme - 1;
  value += strspn(value, blanks);
  if (strncasecmp(value, scheme, size) == 0 && strchr(blanks, value[size]))
    value += size + strspn(value + size, blanks);
  char *token = secret_copy(value);
  for (size_t length = token ? strlen(token) : 0; length > 0 && strchr(blanks, token[length - 1]); length--)
    token[length - 1] = '\0';
  return token;
}

static void look(struct lucidauth_account *account)
{
  if (account->job)
    account_look(account);
  else if (account->craft.store && account_take_off(account, FLOW_LOOK, false, NULL)) {
    drive_blocking(&account->craft);
    account_land(account, NULL, NULL);
  }
}

/* Of an account that the storage does not know a rejection need not be kept. */
static void reject(struct lucidauth_account *account, const char *token)
{
  if (account->settings.account && !account->job && !account_has_landed(account))
    look(account);
  account_reject(account, token);
}

bool lucidauth_reject(lucidauth *client, const char *name, const char *token, lucidauth_error *error)
{
  int cancel = cancel_put_off();
  char *bare = token ? token_of_header(token) : NULL;
  lucidauth_account *account = NULL;
  if (token && !bare)
    error_set(error, LUCIDAUTH_STORAGE, "There is not enough memory to reject a token. Nothing was changed.");
  else if (!bare || !*bare)
    error_set(error, LUCIDAUTH_CONFIG, "There is no token to reject: pass the one that the API did not accept.");
  else
    account = lucidauth_get_account(client, name, error);
  if (account)
    reject(account, bare);
  lucidauth_release_account(account);
  secret_free(bare);
  cancel_allow(cancel);
  return account != NULL;
}

/* ---- status ---- */

static const char *state_name(const struct lucidauth_account *account, struct moment now)
{
  const struct flow_status *known = &account->status;
  if (known->has_token && !moment_has_come(known->refresh_at, now))
    return "ready";
  if (account->last_error.code != LUCIDAUTH_OK)
    return "failing";
  return known->has_token ? "expired" : "empty";
}

static lucidauth_status status_of(struct lucidauth_account *account)
{
  struct moment now = clock_now();
  pthread_mutex_lock(&account->mutex);
  const struct flow_status *known = &account->status;
  lucidauth_status status = {.state = state_name(account, now),
                             .expires_in = known->has_token ? fmax(0, moment_left(known->dead_at, now)) : 0,
                             .lifetime = known->lifetime,
                             .last_refresh = known->last_refresh,
                             .last_error = account->last_error,
                             .retry_in = fmax(0, known->retry_at - now.steady),
                             .unsaved = known->unsaved,
                             .shared = account->shared,
                             .generation = account_generation(account, memory_order_relaxed)};
  history_tell(&account->history, &status);
  pthread_mutex_unlock(&account->mutex);
  return status;
}

bool lucidauth_get_status(lucidauth *client, const char *name, lucidauth_status *status, lucidauth_error *error)
{
  size_t size = status->size < sizeof *status ? status->size : sizeof *status;
  if (size < FIRST_STATUS) {
    error_set(error, LUCIDAUTH_CONFIG, "The status has no size: start it from LUCIDAUTH_STATUS_INIT.");
    return false;
  }
  int cancel = cancel_put_off();
  lucidauth_account *account = lucidauth_get_account(client, name, error);
  lucidauth_status known = {.state = ""};
  if (account) {
    look(account);
    known = status_of(account);
    lucidauth_release_account(account);
  }
  cancel_allow(cancel);
  if (!account)
    return false;
  known.size = status->size;
  memcpy(status, &known, size);
  return true;
}
