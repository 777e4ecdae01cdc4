/* Clients: their values in Lua, the accounts that these hold on to, events, and the tokens that they bring. */
#include "binding.h"
#include "compat.h"

#include <stdlib.h>
#include <string.h>

/* ---- values ---- */

int push_error(lua_State *L, const lucidauth_error *error)
{
  lua_pushnil(L);
  lua_pushstring(L, error->message);
  lua_pushstring(L, lucidauth_code_name(error->code));
  return 3;
}

/* Takes the token. When Lua runs out of memory while it copies, the C copy leaks. */
int push_token(lua_State *L, char *token, const lucidauth_error *error)
{
  if (!token)
    return push_error(L, error);
  lua_pushstring(L, token);
  lucidauth_free_token(token);
  return 1;
}

/* true | nil, message, code */
static int push_success(lua_State *L, bool succeeded, const lucidauth_error *error)
{
  if (!succeeded)
    return push_error(L, error);
  lua_pushboolean(L, true);
  return 1;
}

struct client *check_client(lua_State *L)
{
  struct client *client = luaL_checkudata(L, 1, CLIENT);
  if (!client->client)
    luaL_error(L, "this lucidauth client is closed");
  return client;
}

/* ---- accounts that Lua values hold on to ---- */

void hold_account(struct held *held, struct client *client)
{
  release_held(held);
  if (!client->account)
    return;
  *held = (struct held){.account = client->account, .next = client->held, .place = &client->held};
  if (held->next)
    held->next->place = &held->next;
  client->held = held;
  client->account = NULL;
}

static lucidauth_account *unlink_held(struct held *held)
{
  lucidauth_account *account = held->account;
  *held->place = held->next;
  if (held->next)
    held->next->place = held->place;
  held->account = NULL;
  return account;
}

void release_held(struct held *held)
{
  if (held->account)
    lucidauth_release_account(unlink_held(held));
}

void forget_accounts(struct client *client)
{
  while (client->held)
    (void)unlink_held(client->held);
  client->account = NULL;
  client->token = NULL;
}

lucidauth_account *account_at(lua_State *L, struct client *client, int index, lucidauth_error *error)
{
  const char *name = lua_isnoneornil(L, index) ? NULL : luaL_checkstring(L, index);
  lucidauth_account *former = client->account;
  client->token = NULL;
  client->account = lucidauth_get_account(client->client, name, error);
  lucidauth_release_account(former);
  return client->account;
}

/* ---- events: queued by the library, fetched by the Lua layer ---- */

struct event {
  struct event *next;
  lucidauth_event_kind kind;
  lucidauth_code code;
  char *account, *message;
};

static void free_queued_event(struct event *event)
{
  free(event->account);
  free(event->message);
  free(event);
}

void queue_event(void *data, const lucidauth_event *happened)
{
  struct client *client = data;
  struct event *event = calloc(1, sizeof *event);
  if (!event)
    return;
  event->kind = happened->kind;
  event->code = happened->code;
  event->account = strdup(happened->account);
  event->message = strdup(happened->message);
  *client->last_event = event;
  client->last_event = &event->next;
}

void drop_event(struct client *client)
{
  struct event *event = client->events;
  client->events = event->next;
  if (!client->events)
    client->last_event = &client->events;
  free_queued_event(event);
}

void drop_events(struct client *client)
{
  if (client->client)
    lucidauth_deliver_events(client->client);
  while (client->events)
    drop_event(client);
}

/* client:event() -> name, account, code, message; nothing when there is none left */
int client_event(lua_State *L)
{
  struct client *client = luaL_checkudata(L, 1, CLIENT);
  if (client->client)
    lucidauth_deliver_events(client->client);
  struct event *event = client->events;
  if (!event)
    return 0;
  lua_pushstring(L, lucidauth_event_name(event->kind));
  lua_pushstring(L, event->account);
  if (event->code == LUCIDAUTH_OK)
    lua_pushnil(L);
  else
    lua_pushstring(L, lucidauth_code_name(event->code));
  lua_pushstring(L, event->message);
  drop_event(client);
  return 4;
}

/* ---- tokens ---- */

struct ticket {
  lucidauth_ticket ticket;
  struct held held; /* while its caller waits */
};

int push_client(lua_State *L, lucidauth_options options)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  struct client *client = lua_newuserdata(L, sizeof *client);
  *client = (struct client){.last_event = &client->events};
  luaL_getmetatable(L, CLIENT);
  lua_setmetatable(L, -2);
  int place = lua_gettop(L);
  lua_newtable(L);
  compat_setuservalue(L, place);
  client->names_most = options.max_accounts / 2;
  options.on_event = queue_event;
  options.on_event_data = client;
  client->client = lucidauth_new(&options, &error);
  if (!client->client)
    return push_error(L, &error);
  return 1;
}

/* core.new(options) -> client | nil, message, code */
int core_new(lua_State *L)
{
  luaL_checktype(L, 1, LUA_TTABLE);
  return push_client(L, read_options(L));
}

/* Serves close() and __gc alike; a second time it does nothing. */
int client_close(lua_State *L)
{
  struct client *client = luaL_checkudata(L, 1, CLIENT);
  forget_accounts(client);
  lucidauth_close(client->client);
  client->client = NULL;
  return 0;
}

/* client:leave() -> whether no flight is in the air; from then on one that waits to try again is broken off. */
int client_leave(lua_State *L)
{
  struct client *client = luaL_checkudata(L, 1, CLIENT);
  lua_pushboolean(L, !client->client || lucidauth_leave(client->client));
  return 1;
}

int client_gc(lua_State *L)
{
  struct client *client = luaL_checkudata(L, 1, CLIENT);
  client_close(L);
  while (client->events)
    drop_event(client);
  free(client->names);
  client->names = NULL;
  return 0;
}

/* As push_token; it also remembers that this is the account's token, with this serial. */
static int push_serial_token(lua_State *L, struct client *client, const lucidauth_account *account, char *token,
                             uint64_t serial, const lucidauth_error *error)
{
  int results = push_token(L, token, error);
  if (account && account == client->account) {
    client->serial = serial;
    client->token = results == 1 ? lua_tostring(L, -1) : NULL;
  }
  return results;
}

int push_account_token(lua_State *L, struct client *client, int index)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  uint64_t serial = 0;
  lucidauth_account *account = account_at(L, client, index, &error);
  char *token = account ? lucidauth_token_of(account, &serial, &error) : NULL;
  return push_serial_token(L, client, account, token, serial, &error);
}

/* client:token([account]) -> token | nil, message, code */
int client_token(lua_State *L)
{
  return push_account_token(L, check_client(L), 2);
}

/* client:refresh([account]) -> token | nil, message, code */
int client_refresh(lua_State *L)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  struct client *client = check_client(L);
  return push_token(L, lucidauth_refresh(client->client, luaL_optstring(L, 2, NULL), &error), &error);
}

/* client:store(account, answer, replace) -> true | nil, message, code */
int client_store(lua_State *L)
{
  size_t length;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  struct client *client = check_client(L);
  const char *answer = luaL_checklstring(L, 3, &length);
  unsigned flags = lua_toboolean(L, 4) ? LUCIDAUTH_REPLACE : 0;
  bool stored = lucidauth_store(client->client, luaL_optstring(L, 2, NULL), answer, length, flags, &error);
  return push_success(L, stored, &error);
}

/* core.ticket(refresh) -> a caller's wish for a token, for poll */
int core_ticket(lua_State *L)
{
  struct ticket *ticket = lua_newuserdata(L, sizeof *ticket);
  *ticket = (struct ticket){.ticket = LUCIDAUTH_TICKET_INIT};
  ticket->ticket.refresh = lua_toboolean(L, 1);
  luaL_getmetatable(L, TICKET);
  lua_setmetatable(L, -2);
  return 1;
}

int ticket_gc(lua_State *L)
{
  struct ticket *ticket = luaL_checkudata(L, 1, TICKET);
  release_held(&ticket->held);
  return 0;
}

/* Behind the results: the seconds within which to ask again, if there may be an answer then. The ticket holds on to the
 * account meanwhile. */
static int push_wait(lua_State *L, struct client *client, struct ticket *ticket, int results,
                     const lucidauth_error *error)
{
  if (!client->account || error->code != LUCIDAUTH_NOT_READY || ticket->ticket.within <= 0) {
    release_held(&ticket->held);
    return results;
  }
  hold_account(&ticket->held, client);
  lua_pushnumber(L, ticket->ticket.within);
  return results + 1;
}

/* client:poll(ticket, account, patient) -> token | nil, message, code, seconds; never waits. Behind "not_ready": in
 * `seconds` there may be an answer, even if the refresh goes on; without them there will be none. */
int client_poll(lua_State *L)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  uint64_t serial = 0;
  struct client *client = check_client(L);
  struct ticket *ticket = luaL_checkudata(L, 2, TICKET);
  lucidauth_account *account = account_at(L, client, 3, &error);
  char *token = account ? lucidauth_poll(account, &ticket->ticket, lua_toboolean(L, 4), &serial, &error) : NULL;
  int results = push_serial_token(L, client, account, token, serial, &error);
  return push_wait(L, client, ticket, results, &error);
}

/* client:poll_store(ticket, account, answer, replace) -> true | nil, message, code, seconds; never waits. Behind
 * "not_ready": with `seconds`, ask again with this ticket within them; without, it is the end. */
int client_poll_store(lua_State *L)
{
  size_t length;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  struct client *client = check_client(L);
  struct ticket *ticket = luaL_checkudata(L, 2, TICKET);
  lucidauth_account *account = account_at(L, client, 3, &error);
  const char *answer = luaL_checklstring(L, 4, &length);
  unsigned flags = lua_toboolean(L, 5) ? LUCIDAUTH_REPLACE : 0;
  bool stored = account && lucidauth_poll_store(account, &ticket->ticket, answer, length, flags, &error);
  int results = push_success(L, stored, &error);
  return push_wait(L, client, ticket, results, &error);
}

/* client:reject(account, token) -> true | nil, message, code */
int client_reject(lua_State *L)
{
  size_t length;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  struct client *client = check_client(L);
  const char *account = luaL_optstring(L, 2, NULL), *token = luaL_checklstring(L, 3, &length);
  /* no token holds a NUL byte, so the text before it is not the token that was rejected */
  bool heard = strlen(token) == length ? lucidauth_reject(client->client, account, token, &error)
                                       : account_at(L, client, 2, &error) != NULL;
  return push_success(L, heard, &error);
}
