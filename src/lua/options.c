/* A table of options, which the Lua layer has checked. */
#include "binding.h"
#include "compat.h"

#include <string.h>

static const char *string_field(lua_State *L, const char *name)
{
  lua_getfield(L, 1, name); /* stays on the stack, so the string stays alive */
  return lua_tostring(L, -1);
}

static double number_field(lua_State *L, const char *name, double otherwise)
{
  lua_getfield(L, 1, name);
  double value = lua_isnil(L, -1) ? otherwise : (double)lua_tonumber(L, -1);
  lua_pop(L, 1);
  return value;
}

static bool flag_field(lua_State *L, const char *name, bool otherwise)
{
  lua_getfield(L, 1, name);
  bool value = lua_isnil(L, -1) ? otherwise : lua_toboolean(L, -1);
  lua_pop(L, 1);
  return value;
}

static int choice_field(lua_State *L, const char *name, const char *const choices[], int otherwise)
{
  lua_getfield(L, 1, name);
  const char *chosen = lua_tostring(L, -1);
  int found = otherwise;
  for (int i = 0; chosen && choices[i]; i++)
    if (strcmp(chosen, choices[i]) == 0)
      found = i;
  lua_pop(L, 1);
  return found;
}

/* A list of strings, which stay alive with the table. */
static const char *const *list_field(lua_State *L, const char *name)
{
  lua_getfield(L, 1, name);
  if (!lua_istable(L, -1)) {
    lua_pop(L, 1);
    return NULL;
  }
  size_t count = lua_rawlen(L, -1);
  const char **list = lua_newuserdata(L, (count + 1) * sizeof *list); /* stays on the stack */
  for (size_t i = 0; i < count; i++) {
    lua_rawgeti(L, -2, (int)i + 1);
    list[i] = lua_tostring(L, -1);
    lua_pop(L, 1);
  }
  list[count] = NULL;
  return list;
}

lucidauth_options read_options(lua_State *L)
{
  static const char *const storages[] = {"file", "directory", "memory", "custom", NULL};
  static const char *const requests[] = {"json", "form", "basic", NULL};
  lucidauth_options options = LUCIDAUTH_OPTIONS_INIT;
  luaL_checkstack(L, 16, NULL);
  options.client_id = string_field(L, "client_id");
  options.client_secret = string_field(L, "client_secret");
  options.refresh_token = string_field(L, "refresh_token");
  options.storage = (lucidauth_storage)choice_field(L, "storage", storages, LUCIDAUTH_FILE);
  options.path = string_field(L, "path");
  options.api_url = string_field(L, "api_url");
  options.token_url = string_field(L, "token_url");
  options.introspection_url = string_field(L, "introspection_url");
  options.token_request = (lucidauth_token_request)choice_field(L, "token_request", requests, LUCIDAUTH_USUAL);
  options.token_parameters = list_field(L, "token_parameters");
  options.refresh_before = number_field(L, "refresh_before", options.refresh_before);
  options.refresh_wait = number_field(L, "refresh_wait", options.refresh_wait);
  options.timeout = number_field(L, "timeout", options.timeout);
  options.lock_timeout = number_field(L, "lock_timeout", options.lock_timeout);
  options.default_lifetime = number_field(L, "default_lifetime", options.default_lifetime);
  options.max_accounts = (size_t)number_field(L, "max_accounts", (double)options.max_accounts);
  options.ca_file = string_field(L, "ca_file");
  options.background = flag_field(L, "background", false);
  options.hold_signals = flag_field(L, "hold_signals", options.hold_signals);
  return options;
}
