/* A program that runs a Lua script, as lua does: host <script>. What it exports besides stands in files of its own.
 * WITH_LIBRARY: it takes a token from the C library first, and refreshes it when the script has ended. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdbool.h>
#include <stdio.h>

#ifdef WITH_LIBRARY

#include "../../src/lucidauth.h"

static bool take(char *function(lucidauth *, const char *, lucidauth_error *), lucidauth *client)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  char *token = client ? function(client, NULL, &error) : NULL;
  if (!token)
    fprintf(stderr, "the C library: %s\n", error.message);
  else
    printf("library %s\n", token);
  lucidauth_free_token(token);
  return token;
}

#endif

static int run(const char *script)
{
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  int failed = !script || luaL_dofile(L, script);
  if (failed)
    fprintf(stderr, "%s\n", lua_tostring(L, -1));
  lua_close(L);
  return failed;
}

int main(int count, char **arguments)
{
  const char *script = count < 2 ? NULL : arguments[1];
#ifdef WITH_LIBRARY
  lucidauth *client = lucidauth_new(NULL, NULL);
  int failed = !take(lucidauth_token, client) || run(script) || !take(lucidauth_refresh, client);
  lucidauth_close(client);
  return failed;
#else
  return run(script);
#endif
}
