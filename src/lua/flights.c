/* Flights, for the driver in Lua. */
#include "binding.h"

struct flight {
  lucidauth_flight *flight; /* NULL: ended */
  struct client *client;    /* kept alive by the flight's environment */
};

static void anchor_client(lua_State *L)
{
#if LUA_VERSION_NUM < 502
  lua_createtable(L, 1, 0);
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, 1);
  lua_setfenv(L, -2);
#else
  lua_pushvalue(L, 1);
  lua_setuservalue(L, -2);
#endif
}

/* A flight to come; it keeps its client, the first argument, alive. */
static struct flight *push_flight(lua_State *L, struct client *client)
{
  struct flight *flight = lua_newuserdata(L, sizeof *flight);
  *flight = (struct flight){.client = client};
  luaL_getmetatable(L, FLIGHT);
  lua_setmetatable(L, -2);
  anchor_client(L);
  return flight;
}

/* client:flight(account, refresh) -> flight | nil, token | nil, nil, message, code */
int client_flight(lua_State *L)
{
  char *token = NULL;
  lucidauth_error error;
  struct client *client = check_client(L);
  lucidauth_account *account = account_at(L, client, 2, &error);
  bool refresh = lua_toboolean(L, 3);
  struct flight *flight = push_flight(L, client);
  flight->flight = account ? lucidauth_flight_begin(account, refresh, &token, &error) : NULL;
  if (flight->flight)
    return 1;
  lua_pushnil(L);
  return 1 + push_token(L, token, &error);
}

/* client:keep(account) -> a flight that only saves what could not be saved; nothing when there is nothing to save */
int client_keep(lua_State *L)
{
  struct client *client = check_client(L);
  lucidauth_account *account = account_at(L, client, 2, NULL);
  struct flight *flight = push_flight(L, client);
  flight->flight = account ? lucidauth_flight_keep(account) : NULL;
  return flight->flight ? 1 : 0;
}

static struct flight *check_flight(lua_State *L)
{
  struct flight *flight = luaL_checkudata(L, 1, FLIGHT);
  if (!flight->flight || !flight->client->client)
    luaL_error(L, "this flight has ended, or its client is closed");
  return flight;
}

/* flight:next([result [, text]]) -> step, record or seconds */
int flight_next(lua_State *L)
{
  static const char *const results[] = {"did", "none", "busy", "failed", NULL};
  static const char *const steps[] = {"load", "lock", "save", "unlock", "post", "wait", "done"};
  struct flight *flight = check_flight(L);
  lucidauth_result result = (lucidauth_result)luaL_checkoption(L, 2, "did", results);
  lucidauth_action action = lucidauth_flight_next(flight->flight, result, luaL_optstring(L, 3, NULL));
  lua_pushstring(L, steps[action.step]);
  if (action.record)
    lua_pushstring(L, action.record);
  else
    lua_pushnumber(L, (lua_Number)action.seconds);
  return 2;
}

/* flight:post() */
int flight_post(lua_State *L)
{
  struct flight *flight = check_flight(L);
  lucidauth_flight_post(flight->flight);
  return 0;
}

/* flight:start_post(), and flight:has_posted() -> whether it is done */
int flight_start_post(lua_State *L)
{
  lucidauth_flight_start_post(check_flight(L)->flight);
  return 0;
}

int flight_has_posted(lua_State *L)
{
  lua_pushboolean(L, lucidauth_flight_has_posted(check_flight(L)->flight));
  return 1;
}

/* flight:finish() -> token, or true when none was asked for | nil, message, code */
int flight_finish(lua_State *L)
{
  lucidauth_error error;
  struct flight *flight = check_flight(L);
  lucidauth_flight *ending = flight->flight;
  flight->flight = NULL;
  char *token = lucidauth_flight_end(ending, NULL, &error);
  if (token || error.code != LUCIDAUTH_OK)
    return push_token(L, token, &error);
  lua_pushboolean(L, true);
  return 1;
}

/* A flight whose coroutine was thrown away. A closed client took its flights with it. */
int flight_gc(lua_State *L)
{
  struct flight *flight = luaL_checkudata(L, 1, FLIGHT);
  if (flight->flight && flight->client->client)
    lucidauth_free_token(lucidauth_flight_end(flight->flight, NULL, NULL));
  flight->flight = NULL;
  return 0;
}
