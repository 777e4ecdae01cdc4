/* The hot path: a function that hands a token out as long as it is current. */
#include "binding.h"
#include "compat.h"

#include <stdatomic.h>

enum { HOT_STATE = 1, HOT_TOKEN, HOT_SLOW, HOT_CLIENT };

/* Which token this function may hand out; each has its own, since another may have been the one to notice that the
 * token has changed. */
struct hot {
  const struct client *client; /* kept alive by HOT_CLIENT; NULL: none yet */
  uint64_t serial;             /* of HOT_TOKEN */
  const void *self;            /* what a method is called with, unless it was left out; never followed */
};

/* What the slow function returned lies on the stack: a token and its client, or nil, message, code. An event handler
 * may have fetched another token since. */
COMPAT_CONTINUATION(keep_token)
{
#if LUA_VERSION_NUM >= 503
  (void)status;
  (void)context;
#endif
  if (lua_type(L, 1) != LUA_TSTRING || !lua_isuserdata(L, 2))
    return lua_gettop(L);
  struct hot *hot = lua_touserdata(L, lua_upvalueindex(HOT_STATE));
  const struct client *client = lua_touserdata(L, 2);
  lua_settop(L, 2);
  lua_replace(L, lua_upvalueindex(HOT_CLIENT));
  lua_pushvalue(L, 1);
  lua_replace(L, lua_upvalueindex(HOT_TOKEN));
  hot->client = client;
  hot->serial = lua_tostring(L, 1) == client->token ? client->serial : 0;
  return 1;
}

__attribute__((noinline, cold)) static int call_slow(lua_State *L)
{
  lua_pushvalue(L, lua_upvalueindex(HOT_SLOW));
  lua_insert(L, 1);
  return compat_call(L, lua_gettop(L) - 1, keep_token);
}

__attribute__((always_inline)) static inline int hand_out(lua_State *L, const struct hot *hot, int arguments)
{
  const lucidauth_account *account = hot->client ? hot->client->account : NULL;
  bool plain = lua_gettop(L) <= arguments && (arguments == 0 || lua_topointer(L, 1) == hot->self);
  if (account && plain && lucidauth_is_current(account, hot->serial)) {
    lua_pushvalue(L, lua_upvalueindex(HOT_TOKEN));
    return 1;
  }
  return call_slow(L);
}

static const struct hot *state_of(lua_State *L)
{
  return lua_touserdata(L, lua_upvalueindex(HOT_STATE));
}

/* Flattened: link-time optimization is to put the library's check right here. */
__attribute__((flatten)) static int hot_function(lua_State *L)
{
  return hand_out(L, state_of(L), 0);
}

__attribute__((flatten)) static int hot_method(lua_State *L)
{
  return hand_out(L, state_of(L), 1);
}

/* The module's own function, `lucid.token`. As long as the process has one Lua state, as nearly every one has, there
 * is one such function, and to ask Lua for its upvalue would take a fifth of the whole call. */
static _Atomic(const struct hot *) only;
static atomic_int states;

__attribute__((flatten)) static int hot_only(lua_State *L)
{
  const struct hot *hot = atomic_load_explicit(&only, memory_order_relaxed);
  return hand_out(L, hot ? hot : state_of(L), 0);
}

void hot_open(void)
{
  if (atomic_fetch_add(&states, 1) > 0)
    atomic_store(&only, NULL);
}

static lua_CFunction function_for(const struct hot *hot, bool method)
{
  const struct hot *none = NULL;
  if (method)
    return hot_method;
  return atomic_load(&states) == 1 && atomic_compare_exchange_strong(&only, &none, hot) ? hot_only : hot_function;
}

/* core.hot(slow [, self]) -> a function that returns the default account's token as long as it is current, and what
 * slow(...) returns otherwise; slow returns token, client | nil, message, code. With `self` it is a method of that. */
int core_hot(lua_State *L)
{
  luaL_checktype(L, 1, LUA_TFUNCTION);
  bool method = lua_toboolean(L, 2);
  struct hot *hot = lua_newuserdata(L, sizeof *hot);
  *hot = (struct hot){.self = method ? lua_topointer(L, 2) : NULL};
  lua_pushnil(L);
  lua_pushvalue(L, 1);
  lua_pushnil(L);
  lua_pushcclosure(L, function_for(hot, method), 4);
  return 1;
}
