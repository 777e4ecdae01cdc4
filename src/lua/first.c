/* The module as it is at first: token() and authorization() of its own client alone, by its file and the environment.
 * The first call of anything else loads the rest, which is in Lua. */
#include "binding.h"
#include "compat.h"

/* The state that the two functions share, in a table. */
enum { FIRST_MODULE = 1, FIRST_COMPLETE, FIRST_TOKEN, FIRST_AUTHORIZATION, FIRST_CLIENT };

/* The module's own client, which is kept. False: there is none; nil, message, code are pushed. */
static bool push_own_client(lua_State *L, int first)
{
  lua_rawgeti(L, first, FIRST_CLIENT);
  if (!lua_isnil(L, -1))
    return true;
  lua_pop(L, 1);
  lucidauth_options options = LUCIDAUTH_OPTIONS_INIT;
  options.background = false;
  if (push_client(L, options) != 1)
    return false;
  lua_pushvalue(L, -1);
  lua_rawseti(L, first, FIRST_CLIENT);
  return true;
}

/* Keep the topmost values, at the bottom of the stack. */
static int leave(lua_State *L, int count)
{
  for (int i = 1; i <= count; i++) {
    lua_pushvalue(L, i - 1 - count);
    lua_replace(L, i);
  }
  lua_settop(L, count);
  return count;
}

/* Without options there is no handler of events. */
int first_token(lua_State *L)
{
  int first = lua_gettop(L);
  if (!push_own_client(L, first))
    return leave(L, 3);
  int place = lua_gettop(L);
  struct client *client = lua_touserdata(L, place);
  int results = push_account_token(L, client, place + 1);
  drop_events(client);
  if (results > 1)
    return leave(L, results);
  lua_pushvalue(L, place);
  return leave(L, 2);
}

void first_complete(lua_State *L)
{
  int first = lua_gettop(L);
  lua_rawgeti(L, first, FIRST_TOKEN);
  lua_rawgeti(L, first, FIRST_AUTHORIZATION);
  lua_rawgeti(L, first, FIRST_COMPLETE);
  lua_rawgeti(L, first, FIRST_MODULE);
  lua_pushvalue(L, first + 1);
  lua_pushvalue(L, first + 2);
  lua_rawgeti(L, first, FIRST_CLIENT);
  lua_call(L, 4, 2);
  set_slow_function(L, first + 1, first + 3);
  set_slow_function(L, first + 2, first + 4);
  lua_rawgeti(L, first, FIRST_MODULE);
  lua_pushnil(L);
  lua_setmetatable(L, -2);
  lua_settop(L, first - 1);
}

static int complete_and_index(lua_State *L)
{
  lua_settop(L, 2);
  lua_pushvalue(L, lua_upvalueindex(1));
  first_complete(L);
  lua_gettable(L, 1);
  return 1;
}

static int complete_and_traverse(lua_State *L)
{
  lua_settop(L, 1);
  lua_pushvalue(L, lua_upvalueindex(1));
  first_complete(L);
  lua_getglobal(L, "next");
  lua_insert(L, 1);
  return 2;
}

static void set_method(lua_State *L, int first, const char *event, lua_CFunction run)
{
  lua_pushvalue(L, first);
  lua_pushcclosure(L, run, 1);
  lua_setfield(L, -2, event);
}

/* core.first(module, complete) -> token, authorization, the functions of the module, which gets a metatable until
 * complete(module, token, authorization, client or nil) was called. That one returns the functions that the two ask
 * from then on, as those of core.hot. */
int core_first(lua_State *L)
{
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_settop(L, 2);
  lua_createtable(L, FIRST_CLIENT, 0);
  lua_pushvalue(L, 1);
  lua_rawseti(L, 3, FIRST_MODULE);
  lua_pushvalue(L, 2);
  lua_rawseti(L, 3, FIRST_COMPLETE);
  lua_createtable(L, 0, 2);
  set_method(L, 3, "__index", complete_and_index);
  set_method(L, 3, "__pairs", complete_and_traverse);
  lua_setmetatable(L, 1);
  push_first_function(L, 3, false);
  push_first_function(L, 3, true);
  lua_pushvalue(L, 4);
  lua_rawseti(L, 3, FIRST_TOKEN);
  lua_pushvalue(L, 5);
  lua_rawseti(L, 3, FIRST_AUTHORIZATION);
  return 2;
}
