/* For Lua: the C function that does nothing, which token() is held against, and a clock.
 *
 *   probe.empty()
 *   probe.now() -> seconds of the steady clock, the same in all processes */
#include <lauxlib.h>
#include <lua.h>
#include <time.h>

static int empty(lua_State *L)
{
  (void)L;
  return 0;
}

static int now(lua_State *L)
{
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  lua_pushnumber(L, (lua_Number)time.tv_sec + (lua_Number)time.tv_nsec / 1e9);
  return 1;
}

__attribute__((visibility("default"))) int luaopen_probe(lua_State *L);

int luaopen_probe(lua_State *L)
{
  lua_newtable(L);
  lua_pushcfunction(L, empty);
  lua_setfield(L, -2, "empty");
  lua_pushcfunction(L, now);
  lua_setfield(L, -2, "now");
  return 1;
}
