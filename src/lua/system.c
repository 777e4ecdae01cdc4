/* Functions that Lua lacks: sleep, a clock that is never set, the process's number, the state of coroutines,
 * SHA-256. */
#include "../http/http.h"
#include "../system/clock.h"
#include "binding.h"
#include "compat.h"

#include <locale.h>
#include <time.h>
#include <unistd.h>
#ifdef __APPLE__
#include <xlocale.h>
#endif

/* core.sleep(seconds): blocks the whole process */
int core_sleep(lua_State *L)
{
  double seconds = (double)luaL_checknumber(L, 1);
  if (!(seconds > 0))
    return 0;
  double whole = seconds < 86400 ? (double)(long)seconds : 86400;
  struct timespec left = {.tv_sec = (time_t)whole, .tv_nsec = (long)((seconds - whole) * 1e9)};
  if (seconds >= 86400)
    left.tv_nsec = 0;
  while (nanosleep(&left, &left) != 0)
    continue;
  return 0;
}

/* A clock of waits: clock([within [, steady]]) -> seconds that this process ran. `within`: the caller sleeps now, and
 * looks again in so many seconds. `steady`: the steady clock's reading. */
static int ran(lua_State *L)
{
  struct ran *clock = lua_touserdata(L, lua_upvalueindex(1));
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  double within = (double)luaL_optnumber(L, 1, -1);
  double steady = (double)luaL_optnumber(L, 2, (lua_Number)now.tv_sec + (lua_Number)now.tv_nsec / 1e9);
  lua_pushnumber(L, (lua_Number)ran_look(clock, steady, within));
  return 1;
}

/* core.clock_of_waits() -> a new one. core.ran is the one on which all waits in Lua take their time; each Lua state has
 * its own, as several threads may have one each. */
int core_clock_of_waits(lua_State *L)
{
  struct ran *clock = lua_newuserdata(L, sizeof *clock);
  *clock = (struct ran){0};
  lua_pushcclosure(L, ran, 1);
  return 1;
}

/* core.process() -> this process's number */
int core_process(lua_State *L)
{
  lua_pushinteger(L, (lua_Integer)getpid());
  return 1;
}

/* core.thread() -> the coroutine that runs, the main one too, whose number coroutine.running does not always tell */
int core_thread(lua_State *L)
{
  lua_pushthread(L);
  return 1;
}

/* core.is_running(coroutine, function) -> whether a call of the function has begun there and not ended; a call that an
 * error has ended is no longer running, though its stack is still there */
int core_is_running(lua_State *L)
{
  bool found = false;
  lua_Debug frame;
  lua_State *thread = lua_tothread(L, 1);
  bool lives = thread && lua_status(thread) <= LUA_YIELD && lua_checkstack(thread, 1);
  for (int level = 0; lives && !found && lua_getstack(thread, level, &frame); level++) {
    lua_getinfo(thread, "f", &frame);
    found = lua_topointer(thread, -1) == lua_topointer(L, 2);
    lua_pop(thread, 1);
  }
  lua_pushboolean(L, found);
  return 1;
}

/* core.can_yield() -> whether this coroutine may yield: not in the main program, nor below a function in C that cannot
 * be left, such as require or string.gsub. True where Lua does not say (5.1, 5.2). */
int core_can_yield(lua_State *L)
{
  lua_pushboolean(L, !lua_isyieldable || lua_isyieldable(L));
  return 1;
}

/* core.pack(...) -> a table of them, and `n`: no hook can run between a call and the note of its results */
int core_pack(lua_State *L)
{
  int count = lua_gettop(L);
  lua_createtable(L, count, 1);
  lua_insert(L, 1);
  for (int i = count; i > 0; i--)
    lua_rawseti(L, 1, i);
  lua_pushinteger(L, count);
  lua_setfield(L, 1, "n");
  return 1;
}

/* core.in_c_locale(function, ...) -> the function's results, called with a decimal point in numbers; other threads have
 * their locale. It cannot yield. */
int core_in_c_locale(lua_State *L)
{
  locale_t with_point = newlocale(LC_NUMERIC_MASK, "C", (locale_t)0);
  locale_t before = with_point ? uselocale(with_point) : (locale_t)0;
  int failed = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
  if (with_point) {
    uselocale(before);
    freelocale(with_point);
  }
  return failed ? lua_error(L) : lua_gettop(L);
}

/* core.has_http() -> whether the part that a refresh needs can be read, though not loaded yet | false, message */
int core_has_http(lua_State *L)
{
  char message[512] = "";
  lua_pushboolean(L, http_locate(message, sizeof message));
  lua_pushstring(L, message);
  return 2;
}

/* core.sha256(text) -> the digest's 32 bytes | nil, message; loads the module that a refresh needs */
int core_sha256(lua_State *L)
{
  size_t size;
  char message[512];
  unsigned char digest[32];
  const char *text = luaL_checklstring(L, 1, &size);
  const struct http_ops *http = http_load(NULL, message, sizeof message);
  if (!http) {
    lua_pushnil(L);
    lua_pushstring(L, message);
    return 2;
  }
  http->sha256(text, size, digest);
  lua_pushlstring(L, (const char *)digest, sizeof digest);
  return 1;
}
