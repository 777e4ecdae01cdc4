/* The hot path: functions that hand a token out as long as it is current. */
#include "binding.h"
#include "compat.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { HOT_STATE = 1, HOT_TOKEN, HOT_SLOW, HOT_CLIENT, HOT_STRINGS, HOT_SELF };

/* Which token of the default account this function may hand out; each has its own, since another may have been the one
 * to notice that the token has changed. */
struct hot {
  struct held held;      /* the account */
  uint64_t serial;       /* of HOT_TOKEN */
  struct client *client; /* kept alive by HOT_CLIENT; NULL: none yet */
  const void *self;      /* the one object whose method this is, kept alive by HOT_SELF; NULL: it is a function */
  bool header;           /* "Bearer " stands before the token */
};

/* ---- accounts by their names: those that were asked for last, for all functions of a client ---- */

enum { NAMES_MOST = 256 };

/* The client's table, HOT_STRINGS, has the name's string, so that no other takes its place in memory, the token and the
 * header. */
struct name {
  const char *text;
  struct held held;
  uint64_t serial;
};

enum { NAME_STRING = 1, TOKEN_STRING, HEADER_STRING, STRINGS };

struct names {
  size_t last; /* place; there is a power of two of them */
  struct name at[];
};

/* NULL: out of memory, or the client keeps too few accounts. */
static struct names *names_of(struct client *client)
{
  size_t most = client->names_most < NAMES_MOST ? client->names_most : NAMES_MOST, count = 1;
  if (client->names || most == 0)
    return client->names;
  while (2 * count <= most)
    count *= 2;
  client->names = calloc(1, sizeof *client->names + count * sizeof client->names->at[0]);
  if (client->names)
    client->names->last = count - 1;
  return client->names;
}

/* Strings lie at multiples of 8. */
static size_t name_index(const struct names *names, const char *text)
{
  uint64_t mixed = (uint64_t)(uintptr_t)text / 8 * UINT64_C(0x9E3779B97F4A7C15);
  return (size_t)(mixed >> 32) & names->last;
}

static int string_at(size_t place, int which)
{
  return (int)place * STRINGS + which;
}

/* ---- the long way ---- */

static void set_upvalue(lua_State *L, int upvalue, int index)
{
  lua_pushvalue(L, index);
  lua_replace(L, lua_upvalueindex(upvalue));
}

/* Behind the token; the stack is then: token, client, account or nil, header. */
static void push_header(lua_State *L)
{
  lua_settop(L, 3);
  lua_pushliteral(L, "Bearer ");
  lua_pushvalue(L, 1);
  lua_concat(L, 2);
}

/* An event handler may have fetched another token since. */
static bool is_returned_last(lua_State *L, const struct client *client)
{
  return lua_tostring(L, 1) == client->token && client->account;
}

static void turn_to(lua_State *L, struct hot *hot, struct client *client)
{
  if (hot->client == client)
    return;
  release_held(&hot->held);
  set_upvalue(L, HOT_CLIENT, 2);
  compat_getuservalue(L, 2);
  lua_replace(L, lua_upvalueindex(HOT_STRINGS));
  hot->client = client;
}

static void keep_default(lua_State *L, struct hot *hot, struct client *client)
{
  release_held(&hot->held);
  if (!is_returned_last(L, client))
    return;
  set_upvalue(L, HOT_TOKEN, hot->header ? 4 : 1);
  hold_account(&hot->held, client);
  hot->serial = client->serial;
}

static void keep_named(lua_State *L, struct client *client)
{
  struct names *names = is_returned_last(L, client) ? names_of(client) : NULL;
  if (!names)
    return;
  const char *text = lua_tostring(L, 3);
  size_t place = name_index(names, text);
  struct name *name = &names->at[place];
  name->text = NULL;
  compat_getuservalue(L, 2);
  lua_pushvalue(L, 3);
  lua_rawseti(L, -2, string_at(place, NAME_STRING));
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, string_at(place, TOKEN_STRING));
  lua_pushvalue(L, 4);
  lua_rawseti(L, -2, string_at(place, HEADER_STRING));
  name->text = text;
  name->serial = client->serial;
  hold_account(&name->held, client);
}

/* The slow function's results are on the stack: a token, its client and its account's name; a token alone, which is not
 * to be kept; or nil, message, code. A method that was called on another object returns that object's token. */
COMPAT_CONTINUATION(keep_token)
{
#if LUA_VERSION_NUM >= 503
  (void)status;
  (void)context;
#endif
  if (lua_type(L, 1) != LUA_TSTRING)
    return lua_gettop(L);
  struct hot *hot = lua_touserdata(L, lua_upvalueindex(HOT_STATE));
  push_header(L);
  struct client *client = lua_touserdata(L, 2);
  if (client && (!hot->self || hot->client == client)) {
    turn_to(L, hot, client);
    if (lua_isnil(L, 3))
      keep_default(L, hot, client);
    else
      keep_named(L, client);
  }
  lua_settop(L, hot->header ? 4 : 1);
  return 1;
}

/* As long as nothing else of the module was asked for, the first table stands where the slow function comes. */
__attribute__((noinline, cold)) static int call_slow(lua_State *L)
{
  if (lua_istable(L, lua_upvalueindex(HOT_SLOW))) {
    bool plain = lua_isnoneornil(L, 1);
    if (plain)
      lua_settop(L, 0);
    lua_pushvalue(L, lua_upvalueindex(HOT_SLOW));
    if (plain) {
      first_token(L);
      return compat_continue(L, keep_token);
    }
    first_complete(L);
  }
  lua_pushvalue(L, lua_upvalueindex(HOT_SLOW));
  lua_insert(L, 1);
  return compat_call(L, lua_gettop(L) - 1, keep_token);
}

/* ---- the short way ---- */

__attribute__((always_inline)) static inline bool is_current(const struct held *held, uint64_t serial)
{
  return held->account && lucidauth_is_current(held->account, serial);
}

__attribute__((noinline, flatten)) static int hand_out_named(lua_State *L, const struct hot *hot, int index)
{
  const struct names *names = hot->client ? hot->client->names : NULL;
  if (!names)
    return call_slow(L);
  const char *text = lua_tostring(L, index);
  size_t place = name_index(names, text);
  const struct name *name = &names->at[place];
  if (name->text != text || !is_current(&name->held, name->serial))
    return call_slow(L);
  lua_rawgeti(L, lua_upvalueindex(HOT_STRINGS), string_at(place, hot->header ? HEADER_STRING : TOKEN_STRING));
  return 1;
}

/* LuaJIT takes its time to find that there is no argument. */
__attribute__((always_inline)) static inline int type_at(lua_State *L, int index)
{
#if LUA_VERSION_NUM < 502
  if (lua_gettop(L) < index)
    return LUA_TNONE;
#endif
  return lua_type(L, index);
}

/* Further arguments do not matter. */
__attribute__((always_inline)) static inline int hand_out(lua_State *L, const struct hot *hot, bool method)
{
  if (method && lua_topointer(L, 1) != hot->self)
    return call_slow(L);
  int type = type_at(L, method + 1);
  if (type == LUA_TSTRING)
    return hand_out_named(L, hot, method + 1);
  if (type > LUA_TNIL || !is_current(&hot->held, hot->serial))
    return call_slow(L);
  lua_pushvalue(L, lua_upvalueindex(HOT_TOKEN));
  return 1;
}

static const struct hot *state_of(lua_State *L)
{
  return lua_touserdata(L, lua_upvalueindex(HOT_STATE));
}

/* Flattened: link-time optimization is to put the library's check right here. */
__attribute__((flatten)) static int hot_function(lua_State *L)
{
  return hand_out(L, state_of(L), false);
}

__attribute__((flatten)) static int hot_method(lua_State *L)
{
  return hand_out(L, state_of(L), true);
}

/* The first function of each kind, as `lucid.token`. As long as the process has one Lua state, as nearly every one has,
 * it needs not to ask Lua for its upvalue, which would take a fifth of the whole call. */
enum kind { TOKEN_FUNCTION, HEADER_FUNCTION, TOKEN_METHOD, HEADER_METHOD, KINDS };

static _Atomic(const struct hot *) first[KINDS];
static atomic_bool given[KINDS];
static atomic_int states;

#define FIRST_OF(name, kind, method)                                                  \
  __attribute__((flatten)) static int name(lua_State *L)                              \
  {                                                                                   \
    const struct hot *hot = atomic_load_explicit(&first[kind], memory_order_relaxed); \
    return hand_out(L, hot ? hot : state_of(L), method);                              \
  }

FIRST_OF(first_token_function, TOKEN_FUNCTION, false)
FIRST_OF(first_header_function, HEADER_FUNCTION, false)
FIRST_OF(first_token_method, TOKEN_METHOD, true)
FIRST_OF(first_header_method, HEADER_METHOD, true)

void hot_open(void)
{
  if (atomic_fetch_add(&states, 1) > 0)
    for (int kind = 0; kind < KINDS; kind++)
      atomic_store(&first[kind], NULL);
}

static lua_CFunction function_for(const struct hot *hot)
{
  static const lua_CFunction firsts[] = {first_token_function, first_header_function, first_token_method,
                                         first_header_method};
  int kind = (hot->self ? TOKEN_METHOD : TOKEN_FUNCTION) + hot->header;
  if (atomic_load(&states) != 1 || atomic_exchange(&given[kind], true))
    return hot->self ? hot_method : hot_function;
  atomic_store(&first[kind], hot);
  return firsts[kind];
}

int hot_gc(lua_State *L)
{
  struct hot *hot = luaL_checkudata(L, 1, HOT);
  for (int kind = 0; kind < KINDS; kind++)
    if (atomic_load(&first[kind]) == hot)
      atomic_store(&first[kind], NULL);
  release_held(&hot->held);
  return 0;
}

/* Its upvalues are on the stack: slow, header, self or nil, client or nil. */
static void push_function(lua_State *L, int slow)
{
  bool header = lua_toboolean(L, slow + 1);
  int self = slow + 2, client = slow + 3;
  struct hot *hot = lua_newuserdata(L, sizeof *hot);
  *hot = (struct hot){.header = header, .self = lua_topointer(L, self), .client = lua_touserdata(L, client)};
  luaL_getmetatable(L, HOT);
  lua_setmetatable(L, -2);
  lua_pushnil(L);
  lua_pushvalue(L, slow);
  lua_pushvalue(L, client);
  if (hot->client)
    compat_getuservalue(L, client);
  else
    lua_pushnil(L);
  lua_pushvalue(L, self);
  lua_pushcclosure(L, function_for(hot), 6);
}

/* core.hot(slow, header [, self, client]) -> a function of an account's name that returns its token as long as it is
 * current, or with `header` the value of the Authorization header. Else it asks slow(...), which returns token, client,
 * name | token | nil, message, code. With `self` it is a method of it, and slow's first argument is the object it was
 * called on. */
int core_hot(lua_State *L)
{
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 4);
  push_function(L, 1);
  return 1;
}

void push_first_function(lua_State *L, int table, bool header)
{
  int slow = lua_gettop(L) + 1;
  lua_pushvalue(L, table);
  lua_pushboolean(L, header);
  lua_pushnil(L);
  lua_pushnil(L);
  push_function(L, slow);
  lua_replace(L, slow);
  lua_settop(L, slow);
}

void set_slow_function(lua_State *L, int function, int slow)
{
  lua_pushvalue(L, slow);
  lua_setupvalue(L, function, HOT_SLOW);
}
