/* How an account stands, as a table. */
#include "binding.h"

static void set_number(lua_State *L, const char *name, double value)
{
  lua_pushnumber(L, (lua_Number)value);
  lua_setfield(L, -2, name);
}

static void set_count(lua_State *L, const char *name, uint64_t value)
{
  lua_pushinteger(L, (lua_Integer)value);
  lua_setfield(L, -2, name);
}

static void set_last_error(lua_State *L, const lucidauth_status *status)
{
  if (status->last_error.code == LUCIDAUTH_OK)
    return;
  lua_createtable(L, 0, 2);
  lua_pushstring(L, lucidauth_code_name(status->last_error.code));
  lua_setfield(L, -2, "code");
  lua_pushstring(L, status->last_error.message);
  lua_setfield(L, -2, "message");
  lua_setfield(L, -2, "last_error");
}

static void set_failures(lua_State *L, const lucidauth_status *status)
{
  lua_newtable(L);
  for (int code = LUCIDAUTH_OK + 1; code < LUCIDAUTH_CODES; code++)
    if (status->failures[code] > 0)
      set_count(L, lucidauth_code_name((lucidauth_code)code), status->failures[code]);
  lua_setfield(L, -2, "failures");
}

static void set_past(lua_State *L, const lucidauth_status *status)
{
  lua_createtable(L, status->past_count, 0);
  for (int i = 0; i < status->past_count; i++) {
    lucidauth_code code = status->past[i].code;
    lua_createtable(L, 0, 3);
    set_number(L, "at", status->past[i].at);
    lua_pushstring(L, lucidauth_event_name(status->past[i].kind));
    lua_setfield(L, -2, "name");
    if (code != LUCIDAUTH_OK) {
      lua_pushstring(L, lucidauth_code_name(code));
      lua_setfield(L, -2, "code");
    }
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "past");
}

/* client:status([account]) -> table | nil, message, code */
int client_status(lua_State *L)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_status status = LUCIDAUTH_STATUS_INIT;
  struct client *client = check_client(L);
  const char *account = luaL_optstring(L, 2, NULL);
  if (!lucidauth_get_status(client->client, account, &status, &error))
    return push_error(L, &error);
  lua_createtable(L, 0, 6);
  lua_pushstring(L, status.state);
  lua_setfield(L, -2, "state");
  lua_pushboolean(L, status.unsaved);
  lua_setfield(L, -2, "unsaved");
  lua_pushboolean(L, status.shared);
  lua_setfield(L, -2, "shared");
  set_count(L, "generation", status.generation);
  set_number(L, "expires_in", status.expires_in);
  if (status.last_refresh > 0)
    set_number(L, "last_refresh", status.last_refresh);
  if (status.retry_in > 0)
    set_number(L, "retry_in", status.retry_in);
  set_number(L, "lifetime", status.lifetime);
  set_count(L, "refreshes", status.refreshes);
  set_failures(L, &status);
  set_past(L, &status);
  set_last_error(L, &status);
  return 1;
}
