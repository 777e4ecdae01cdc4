#include "client.h"

#include "../account/turn.h"
#include "../account/waiting.h"
#include "../base/secret.h"
#include "../oauth/answer.h"
#include "../system/cancel.h"

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
  client->shared.settings = client->options.accounts;
  events_init(&client->shared.events, client->options.on_event, client->options.on_event_data);
  roster_init(&client->roster, &client->shared, client->options.max_accounts);
  int cancel = cancel_put_off();
  process_watch(&client->watch, &client->roster);
  cancel_allow(cancel);
  return client;
}

static bool has_room_for(const struct lucidauth *client, const char *name, lucidauth_error *error)
{
  if (client->options.accounts.storage != LUCIDAUTH_FILE || strcmp(name, "default") == 0)
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
  struct lucidauth_account *account = roster_take(&client->roster, name, error);
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

static void end_account(struct lucidauth_account *account)
{
  if (turn_given(account)) /* of a coroutine that was thrown away, perhaps */
    lucidauth_free_token(lucidauth_flight_end(turn_given(account), NULL, NULL));
  account_end(account);
}

/* Events are given while everything is still in its place: on_event may ask for more. */
void lucidauth_close(lucidauth *client)
{
  if (!client)
    return;
  int cancel = cancel_put_off();
  roster_close(&client->roster);
  roster_visit(&client->roster, end_account);
  events_deliver(&client->shared.events);
  process_forget(&client->watch);
  roster_free(&client->roster);
  events_free(&client->shared.events);
  options_free(&client->options);
  free(client);
  cancel_allow(cancel);
}

bool lucidauth_leave(lucidauth *client)
{
  return roster_start_leaving(&client->roster);
}

/* ---- tokens ---- */

static bool check_own_store(const struct lucidauth_account *account, const char *instead, lucidauth_error *error)
{
  if (account_has_store(account))
    return true;
  error_set(error, LUCIDAUTH_CONFIG, "The storage is the program's own: carry out flights (%s).", instead);
  return false;
}

static bool check_background(const struct lucidauth_account *account, lucidauth_error *error)
{
  if (account_has_background(account))
    return true;
  error_set(error, LUCIDAUTH_CONFIG, "Only a client with the option background can be polled.");
  return false;
}

static char *get(struct lucidauth_account *account, enum flow_goal goal, uint64_t *serial, lucidauth_error *error)
{
  if (!check_own_store(account, "lucidauth_flight_begin", error))
    return NULL;
  int cancel = cancel_put_off();
  char *token = waiting_get(account, goal, serial, error);
  cancel_allow(cancel);
  return token;
}

char *lucidauth_token_of(lucidauth_account *account, uint64_t *serial, lucidauth_error *error)
{
  return get(account, FLOW_TOKEN, serial, error);
}

/* A thread that is cancelled gives the account back first. */
static char *get_by_name(lucidauth *client, const char *name, enum flow_goal goal, lucidauth_error *error)
{
  int cancel = cancel_put_off();
  lucidauth_account *account = lucidauth_get_account(client, name, error);
  char *token = account ? get(account, goal, NULL, error) : NULL;
  lucidauth_release_account(account);
  cancel_allow(cancel);
  return token;
}

char *lucidauth_token(lucidauth *client, const char *name, lucidauth_error *error)
{
  return get_by_name(client, name, FLOW_TOKEN, error);
}

char *lucidauth_refresh(lucidauth *client, const char *name, lucidauth_error *error)
{
  return get_by_name(client, name, FLOW_REFRESH, error);
}

void lucidauth_free_token(char *token)
{
  secret_free(token);
}

char *lucidauth_poll(lucidauth_account *account, lucidauth_ticket *ticket, bool patient, uint64_t *serial,
                     lucidauth_error *error)
{
  if (!check_background(account, error))
    return NULL;
  int cancel = cancel_put_off();
  char *token = waiting_poll(account, ticket, patient, serial, error);
  cancel_allow(cancel);
  return token;
}

void lucidauth_deliver_events(lucidauth *client)
{
  int cancel = cancel_put_off();
  events_deliver(&client->shared.events);
  cancel_allow(cancel);
}

/* ---- storing a login's answer ---- */

static bool store(struct lucidauth_account *account, const char *text, size_t length, unsigned flags,
                  lucidauth_error *error)
{
  struct answer given;
  if (!check_own_store(account, "lucidauth_flight_store", error) ||
      !account_read_given(account, &given, text, length, error))
    return false;
  const struct login_key key = login_key(text, length, flags & LUCIDAUTH_REPLACE);
  bool stored = waiting_store(account, &given, &key, error);
  answer_free(&given);
  events_deliver(account_events(account));
  return stored;
}

bool lucidauth_store(lucidauth *client, const char *name, const char *answer, size_t length, unsigned flags,
                     lucidauth_error *error)
{
  lucidauth_error said = LUCIDAUTH_ERROR_INIT;
  int cancel = cancel_put_off();
  lucidauth_account *account = lucidauth_get_account(client, name, &said);
  bool stored = account && store(account, answer, length, flags, &said);
  lucidauth_release_account(account);
  cancel_allow(cancel);
  error_copy(error, &said);
  return stored;
}

bool lucidauth_poll_store(lucidauth_account *account, lucidauth_ticket *ticket, const char *answer, size_t length,
                          unsigned flags, lucidauth_error *error)
{
  struct answer given = {.kind = ANSWER_DOUBT};
  lucidauth_error said = LUCIDAUTH_ERROR_INIT;
  int cancel = cancel_put_off();
  if (check_background(account, &said) &&
      (waiting_has_joined(ticket) || account_read_given(account, &given, answer, length, &said))) {
    const struct login_key key = login_key(answer, answer ? length : 0, flags & LUCIDAUTH_REPLACE);
    waiting_poll_store(account, ticket, &given, &key, &said);
    answer_free(&given);
  } else {
    ticket->within = 0;
  }
  error_copy(error, &said);
  events_deliver(account_events(account));
  cancel_allow(cancel);
  return said.code == LUCIDAUTH_OK;
}

/* ---- rejecting ---- */

/* A program has the token at hand, or the header that it was sent in; one that was read from a file ends a line.
 * NULL: out of memory. */
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
    account_reject(account, bare);
  lucidauth_release_account(account);
  secret_free(bare);
  cancel_allow(cancel);
  return account != NULL;
}

/* ---- status ---- */

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
    account_look(account);
    account_tell_status(account, &known);
    lucidauth_release_account(account);
  }
  cancel_allow(cancel);
  if (!account)
    return false;
  known.size = status->size;
  memcpy(status, &known, size);
  return true;
}
