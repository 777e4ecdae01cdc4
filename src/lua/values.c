/* What the other files push and take: failures, tokens, clients. */
#include "binding.h"

int push_error(lua_State *L, const lucidauth_error *error)
{
  lua_pushnil(L);
  lua_pushstring(L, error->message);
  lua_pushstring(L, lucidauth_code_name(error->code));
  return 3;
}

/* Takes the token. When Lua runs out of memory while it copies, the C copy leaks. */
int push_token(lua_State *L, char *token, const lucidauth_error *error)
{
  if (!token)
    return push_error(L, error);
  lua_pushstring(L, token);
  lucidauth_free_token(token);
  return 1;
}

struct client *check_client(lua_State *L)
{
  struct client *client = luaL_checkudata(L, 1, CLIENT);
  if (!client->client)
    luaL_error(L, "this lucidauth client is closed");
  return client;
}
