/* A program that runs a Lua script, as lua does: host <script>. What it exports besides stands in a file of its own. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>

int main(int count, char **arguments)
{
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  int failed = count < 2 || luaL_dofile(L, arguments[1]);
  if (failed)
    fprintf(stderr, "%s\n", lua_tostring(L, -1));
  lua_close(L);
  return failed;
}
