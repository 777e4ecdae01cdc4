/* One source for Lua 5.1 (LuaJIT) to 5.4. */
#ifndef LUA_COMPAT_H
#define LUA_COMPAT_H

#include <lauxlib.h>
#include <lua.h>

/* Lua 5.1 and 5.2 have none, and LuaJIT runs modules that were built for 5.1. */
extern __attribute__((weak)) int(lua_isyieldable)(lua_State *L);

#if LUA_VERSION_NUM < 502

#define compat_setfuncs(L, functions) luaL_register(L, NULL, functions)

#define lua_rawlen(L, index) lua_objlen(L, index)

/* A userdata's table. */
#define compat_setuservalue(L, index) lua_setfenv(L, index)
#define compat_getuservalue(L, index) lua_getfenv(L, index)

/* Lua 5.1 cannot call a function that yields from C; the Lua layer puts a Lua function in this one's place
 * where that matters. */
#define compat_continue(L, continuation) continuation(L)
#define compat_call(L, arguments, continuation) (lua_call(L, arguments, LUA_MULTRET), compat_continue(L, continuation))
#define COMPAT_CONTINUATION(name) static int name(lua_State *L)

#elif LUA_VERSION_NUM < 503

#define compat_setfuncs(L, functions) luaL_setfuncs(L, functions, 0)
#define compat_continue(L, continuation) continuation(L)
#define compat_call(L, arguments, continuation) \
  (lua_callk(L, arguments, LUA_MULTRET, 0, continuation), compat_continue(L, continuation))
#define COMPAT_CONTINUATION(name) static int name(lua_State *L)

#else

#define compat_setfuncs(L, functions) luaL_setfuncs(L, functions, 0)
#define compat_continue(L, continuation) continuation(L, LUA_OK, 0)
#define compat_call(L, arguments, continuation) \
  (lua_callk(L, arguments, LUA_MULTRET, 0, continuation), compat_continue(L, continuation))
#define COMPAT_CONTINUATION(name) static int name(lua_State *L, int status, lua_KContext context)

#endif

#if LUA_VERSION_NUM >= 502
#define compat_setuservalue(L, index) lua_setuservalue(L, index)
#define compat_getuservalue(L, index) ((void)lua_getuservalue(L, index))
#endif

#endif
