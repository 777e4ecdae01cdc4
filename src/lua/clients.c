/* Clients, and the tokens that they bring. */
#include "binding.h"
#include "compat.h"

#include <stdlib.h>
#include <string.h>

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
  if (!lucidauth_store(client->client, luaL_optstring(L, 2, NULL), answer, length, flags, &error))
    return push_error(L, &error);
  lua_pushboolean(L, true);
  return 1;
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
  let_go(&ticket->held);
  return 0;
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
  bool waits = !token && error.code == LUCIDAUTH_NOT_READY && ticket->ticket.within > 0;
  int results = push_serial_token(L, client, account, token, serial, &error);
  if (waits)
    hold(&ticket->held, client);
  else
    let_go(&ticket->held);
  if (!waits)
    return results;
  lua_pushnumber(L, ticket->ticket.within);
  return results + 1;
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
  bool waits = account && !stored && error.code == LUCIDAUTH_NOT_READY && ticket->ticket.within > 0;
  if (waits)
    hold(&ticket->held, client);
  else
    let_go(&ticket->held);
  if (stored) {
    lua_pushboolean(L, true);
    return 1;
  }
  int results = push_error(L, &error);
  if (!waits)
    return results;
  lua_pushnumber(L, ticket->ticket.within);
  return results + 1;
}

/* client:reject(account, token) -> true | nil, message, code */
int client_reject(lua_State *L)
{
  size_t length;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  struct client *client = check_client(L);
  const char *account = luaL_optstring(L, 2, NULL), *token = luaL_checklstring(L, 3, &length);
  /* no token holds a NUL byte: what stands before it is not what was rejected */
  bool heard = strlen(token) == length ? lucidauth_reject(client->client, account, token, &error)
                                       : account_at(L, client, 2, &error) != NULL;
  if (!heard)
    return push_error(L, &error);
  lua_pushboolean(L, true);
  return 1;
}
