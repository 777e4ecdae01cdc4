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

/* client:new_flight() -> a flight that is to take off; it keeps its client alive */
int client_new_flight(lua_State *L)
{
  struct client *client = check_client(L);
  struct flight *flight = lua_newuserdata(L, sizeof *flight);
  *flight = (struct flight){.client = client};
  luaL_getmetatable(L, FLIGHT);
  lua_setmetatable(L, -2);
  anchor_client(L);
  return 1;
}

static struct flight *check_grounded(lua_State *L)
{
  struct flight *flight = luaL_checkudata(L, 1, FLIGHT);
  if (flight->flight || !flight->client->client)
    luaL_error(L, "this flight is in the air, or its client is closed");
  return flight;
}

/* flight:begin(account, refresh) -> true | false, token | false, nil, message, code */
int flight_begin(lua_State *L)
{
  char *token = NULL;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  struct flight *flight = check_grounded(L);
  lucidauth_account *account = account_at(L, flight->client, 2, &error);
  bool refresh = lua_toboolean(L, 3);
  flight->flight = account ? lucidauth_flight_begin(account, refresh, &token, &error) : NULL;
  lua_pushboolean(L, flight->flight != NULL);
  return flight->flight ? 1 : 1 + push_token(L, token, &error);
}

/* flight:store(account, answer, replace) -> true | false, nil, message, code */
int flight_store(lua_State *L)
{
  size_t length;
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  struct flight *flight = check_grounded(L);
  lucidauth_account *account = account_at(L, flight->client, 2, &error);
  const char *answer = luaL_checklstring(L, 3, &length);
  unsigned flags = lua_toboolean(L, 4) ? LUCIDAUTH_REPLACE : 0;
  flight->flight = account ? lucidauth_flight_store(account, answer, length, flags, &error) : NULL;
  lua_pushboolean(L, flight->flight != NULL);
  return flight->flight ? 1 : 1 + push_error(L, &error);
}

/* flight:keep(account) -> whether there is something to save, and nothing but that */
int flight_keep(lua_State *L)
{
  struct flight *flight = check_grounded(L);
  lucidauth_account *account = account_at(L, flight->client, 2, NULL);
  flight->flight = account ? lucidauth_flight_keep(account) : NULL;
  lua_pushboolean(L, flight->flight != NULL);
  return 1;
}

/* A closed client took its flights with it. */
static bool is_flying(const struct flight *flight)
{
  return flight->flight && flight->client->client;
}

/* flight:is_flying() -> whether it has begun, and has not been ended */
int flight_is_flying(lua_State *L)
{
  lua_pushboolean(L, is_flying(luaL_checkudata(L, 1, FLIGHT)));
  return 1;
}

static struct flight *check_flight(lua_State *L)
{
  struct flight *flight = luaL_checkudata(L, 1, FLIGHT);
  if (!is_flying(flight))
    luaL_error(L, "this flight has ended, or its client is closed");
  return flight;
}

/* flight:next([result [, text]]) -> step, record or seconds */
int flight_next(lua_State *L)
{
  static const char *const results[] = {"ok", "none", "busy", "failed", NULL};
  static const char *const steps[] = {"load", "lock", "save", "unlock", "post", "wait", "done"};
  struct flight *flight = check_flight(L);
  lucidauth_result result = (lucidauth_result)luaL_checkoption(L, 2, "ok", results);
  lucidauth_action action = LUCIDAUTH_ACTION_INIT;
  lucidauth_flight_next(flight->flight, result, luaL_optstring(L, 3, NULL), &action);
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

/* flight:finish() -> token, or true when none was asked for | nil, message, code; a second time it does nothing */
int flight_finish(lua_State *L)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  struct flight *flight = luaL_checkudata(L, 1, FLIGHT);
  if (!is_flying(flight))
    return 0;
  lucidauth_flight *ending = flight->flight;
  flight->flight = NULL;
  char *token = lucidauth_flight_end(ending, NULL, &error);
  if (token || error.code != LUCIDAUTH_OK)
    return push_token(L, token, &error);
  lua_pushboolean(L, true);
  return 1;
}

/* A flight whose coroutine was thrown away. */
int flight_gc(lua_State *L)
{
  struct flight *flight = luaL_checkudata(L, 1, FLIGHT);
  if (is_flying(flight))
    lucidauth_free_token(lucidauth_flight_end(flight->flight, NULL, NULL));
  flight->flight = NULL;
  return 0;
}
