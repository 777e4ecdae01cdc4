/* The module's tables. */
#include "binding.h"
#include "compat.h"

static void new_class(lua_State *L, const char *name, const luaL_Reg *methods)
{
  luaL_newmetatable(L, name);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  compat_setfuncs(L, methods);
  lua_pop(L, 1);
}

__attribute__((visibility("default"))) int luaopen_lucidauth_core(lua_State *L);

int luaopen_lucidauth_core(lua_State *L)
{
  static const luaL_Reg client_methods[] = {{"token", client_token},
                                            {"poll", client_poll},
                                            {"refresh", client_refresh},
                                            {"store", client_store},
                                            {"poll_store", client_poll_store},
                                            {"reject", client_reject},
                                            {"status", client_status},
                                            {"new_flight", client_new_flight},
                                            {"event", client_event},
                                            {"leave", client_leave},
                                            {"close", client_close},
                                            {"__gc", client_gc},
                                            {NULL, NULL}};
  static const luaL_Reg flight_methods[] = {{"begin", flight_begin},
                                            {"keep", flight_keep},
                                            {"store", flight_store},
                                            {"is_flying", flight_is_flying},
                                            {"next", flight_next},
                                            {"post", flight_post},
                                            {"start_post", flight_start_post},
                                            {"has_posted", flight_has_posted},
                                            {"finish", flight_finish},
                                            {"__gc", flight_gc},
                                            {NULL, NULL}};
  static const luaL_Reg ticket_methods[] = {{"__gc", ticket_gc}, {NULL, NULL}};
  static const luaL_Reg hot_methods[] = {{"__gc", hot_gc}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"new", core_new},
                                       {"hot", core_hot},
                                       {"first", core_first},
                                       {"ticket", core_ticket},
                                       {"sleep", core_sleep},
                                       {"clock_of_waits", core_clock_of_waits},
                                       {"process", core_process},
                                       {"thread", core_thread},
                                       {"is_running", core_is_running},
                                       {"can_yield", core_can_yield},
                                       {"pack", core_pack},
                                       {"in_c_locale", core_in_c_locale},
                                       {"has_http", core_has_http},
                                       {"sha256", core_sha256},
                                       {NULL, NULL}};
  hot_open();
  new_class(L, CLIENT, client_methods);
  new_class(L, FLIGHT, flight_methods);
  new_class(L, TICKET, ticket_methods);
  new_class(L, HOT, hot_methods);
  lua_newtable(L);
  compat_setfuncs(L, functions);
  core_clock_of_waits(L);
  lua_setfield(L, -2, "ran");
  lua_pushstring(L, lucidauth_version());
  lua_setfield(L, -2, "version");
  return 1;
}
