/* What Lua itself lacks: to sleep, a clock that nobody sets, the process, SHA-256. */
#include "../http/http.h"
#include "binding.h"

#include <time.h>
#include <unistd.h>

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

/* core.clock() -> seconds of a clock that nobody sets */
int core_clock(lua_State *L)
{
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  lua_pushnumber(L, (lua_Number)now.tv_sec + (lua_Number)now.tv_nsec / 1e9);
  return 1;
}

/* core.process() -> this process's number */
int core_process(lua_State *L)
{
  lua_pushinteger(L, (lua_Integer)getpid());
  return 1;
}

/* core.sha256(text) -> the digest's 32 bytes | nil, message; loads what a refresh needs */
int core_sha256(lua_State *L)
{
  size_t size;
  char message[512];
  unsigned char digest[32];
  const char *text = luaL_checklstring(L, 1, &size);
  const struct http_ops *http = http_load(message, sizeof message);
  if (!http) {
    lua_pushnil(L);
    lua_pushstring(L, message);
    return 2;
  }
  http->sha256(text, size, digest);
  lua_pushlstring(L, (const char *)digest, sizeof digest);
  return 1;
}
