/* The binding: Lua values in and out of lucidauth.h, no decision. Its users are the Lua files beside it,
 * which check what scripts pass. */
#include "../http/http.h"
#include "../lucidauth.h"
#include "compat.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CLIENT "lucidauth.core.client"
#define FLIGHT "lucidauth.core.flight"
#define TICKET "lucidauth.core.ticket"

struct event {
  struct event *next;
  lucidauth_event_kind kind;
  lucidauth_code code;
  char *account, *message;
};

struct client {
  lucidauth_account *account; /* the default account; NULL: not used yet, or closed */
  uint64_t serial;            /* of its token that was returned last; 0: none */
  const char *token;          /* where Lua keeps that one; to be compared, not to be read */
  lucidauth *client;          /* NULL: closed */
  struct event *events, **last_event;
};

struct flight {
  lucidauth_flight *flight; /* NULL: ended */
  struct client *client;    /* kept alive by the flight's environment */
};

/* ---- results ---- */

static int push_error(lua_State *L, const lucidauth_error *error)
{
  lua_pushnil(L);
  lua_pushstring(L, error->message);
  lua_pushstring(L, lucidauth_code_name(error->code));
  return 3;
}

/* Takes the token. When Lua runs out of memory while it copies, the C copy leaks. */
static int push_token(lua_State *L, char *token, const lucidauth_error *error)
{
  if (!token)
    return push_error(L, error);
  lua_pushstring(L, token);
  lucidauth_free_token(token);
  return 1;
}

/* ---- events: queued by the library, fetched by the Lua layer ---- */

static void free_event(struct event *event)
{
  free(event->account);
  free(event->message);
  free(event);
}

static void queue_event(void *data, const lucidauth_event *happened)
{
  struct client *client = data;
  struct event *event = calloc(1, sizeof *event);
  if (!event)
    return;
  event->kind = happened->kind;
  event->code = happened->code;
  event->account = strdup(happened->account);
  event->message = strdup(happened->message);
  *client->last_event = event;
  client->last_event = &event->next;
}

static void drop_event(struct client *client)
{
  struct event *event = client->events;
  client->events = event->next;
  if (!client->events)
    client->last_event = &client->events;
  free_event(event);
}

static struct client *check_client(lua_State *L)
{
  struct client *client = luaL_checkudata(L, 1, CLIENT);
  if (!client->client)
    luaL_error(L, "this lucidauth client is closed");
  return client;
}

/* client:event() -> name, account, code, message; nothing when there is none left */
static int client_event(lua_State *L)
{
  struct client *client = luaL_checkudata(L, 1, CLIENT);
  if (client->client)
    lucidauth_deliver_events(client->client);
  struct event *event = client->events;
  if (!event)
    return 0;
  lua_pushstring(L, lucidauth_event_name(event->kind));
  lua_pushstring(L, event->account);
  if (event->code == LUCIDAUTH_OK)
    lua_pushnil(L);
  else
    lua_pushstring(L, lucidauth_code_name(event->code));
  lua_pushstring(L, event->message);
  drop_event(client);
  return 4;
}

/* ---- options ---- */

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

static int choice_field(lua_State *L, const char *name, const char *const choices[])
{
  lua_getfield(L, 1, name);
  const char *chosen = lua_tostring(L, -1);
  int found = 0;
  for (int i = 0; chosen && choices[i]; i++)
    if (strcmp(chosen, choices[i]) == 0)
      found = i;
  lua_pop(L, 1);
  return found;
}

static lucidauth_options read_options(lua_State *L)
{
  static const char *const storages[] = {"file", "directory", "memory", "custom", NULL};
  static const char *const requests[] = {"json", "form", "basic", NULL};
  lucidauth_options options = LUCIDAUTH_OPTIONS_INIT;
  luaL_checkstack(L, 16, NULL);
  options.client_id = string_field(L, "client_id");
  options.client_secret = string_field(L, "client_secret");
  options.refresh_token = string_field(L, "refresh_token");
  options.storage = (lucidauth_storage)choice_field(L, "storage", storages);
  options.path = string_field(L, "path");
  options.api_url = string_field(L, "api_url");
  options.token_url = string_field(L, "token_url");
  options.introspection_url = string_field(L, "introspection_url");
  options.token_request = (lucidauth_token_request)choice_field(L, "token_request", requests);
  options.refresh_before = number_field(L, "refresh_before", options.refresh_before);
  options.refresh_wait = number_field(L, "refresh_wait", options.refresh_wait);
  options.timeout = number_field(L, "timeout", options.timeout);
  options.lock_timeout = number_field(L, "lock_timeout", options.lock_timeout);
  options.default_lifetime = number_field(L, "default_lifetime", options.default_lifetime);
  options.ca_file = string_field(L, "ca_file");
  lua_getfield(L, 1, "background");
  options.background = lua_toboolean(L, -1);
  return options;
}

/* ---- clients ---- */

/* core.new(options) -> client | nil, message, code */
static int core_new(lua_State *L)
{
  lucidauth_error error;
  luaL_checktype(L, 1, LUA_TTABLE);
  struct client *client = lua_newuserdata(L, sizeof *client);
  *client = (struct client){.last_event = &client->events};
  luaL_getmetatable(L, CLIENT);
  lua_setmetatable(L, -2);
  int place = lua_gettop(L);
  lucidauth_options options = read_options(L);
  options.on_event = queue_event;
  options.on_event_data = client;
  client->client = lucidauth_new(&options, &error);
  if (!client->client)
    return push_error(L, &error);
  lua_pushvalue(L, place);
  return 1;
}

/* Serves close() and __gc alike; a second time it does nothing. */
static int client_close(lua_State *L)
{
  struct client *client = luaL_checkudata(L, 1, CLIENT);
  client->token = NULL;
  client->account = NULL;
  lucidauth_close(client->client);
  client->client = NULL;
  return 0;
}

/* client:leave() -> whether no flight is in the air; from then on one that waits to try again is broken off. */
static int client_leave(lua_State *L)
{
  struct client *client = luaL_checkudata(L, 1, CLIENT);
  lua_pushboolean(L, !client->client || lucidauth_leave(client->client));
  return 1;
}

static int client_gc(lua_State *L)
{
  struct client *client = luaL_checkudata(L, 1, CLIENT);
  client_close(L);
  while (client->events)
    drop_event(client);
  return 0;
}

static lucidauth_account *account_at(lua_State *L, struct client *client, int index, lucidauth_error *error)
{
  if (!lua_isnoneornil(L, index))
    return lucidauth_get_account(client->client, luaL_checkstring(L, index), error);
  if (!client->account)
    client->account = lucidauth_get_account(client->client, NULL, error);
  return client->account;
}

/* As push_token; it also remembers that this is the default account's token, with this serial. */
static int push_serial_token(lua_State *L, struct client *client, const lucidauth_account *account, char *token,
                             uint64_t serial, const lucidauth_error *error)
{
  int results = push_token(L, token, error);
  if (account && account == client->account) {
    client->serial = serial;
    client->token = results == 1 ? lua_tostring(L, -1) : NULL;
  }
  return results;
}

/* client:token([account]) -> token | nil, message, code */
static int client_token(lua_State *L)
{
  lucidauth_error error;
  uint64_t serial = 0;
  struct client *client = check_client(L);
  lucidauth_account *account = account_at(L, client, 2, &error);
  char *token = account ? lucidauth_token_of(account, &serial, &error) : NULL;
  return push_serial_token(L, client, account, token, serial, &error);
}

/* client:refresh([account]) -> token | nil, message, code */
static int client_refresh(lua_State *L)
{
  lucidauth_error error;
  struct client *client = check_client(L);
  return push_token(L, lucidauth_refresh(client->client, luaL_optstring(L, 2, NULL), &error), &error);
}

/* core.ticket(refresh) -> a caller's wish for a token, for poll */
static int core_ticket(lua_State *L)
{
  lucidauth_ticket *ticket = lua_newuserdata(L, sizeof *ticket);
  *ticket = (lucidauth_ticket){.refresh = lua_toboolean(L, 1)};
  luaL_getmetatable(L, TICKET);
  lua_setmetatable(L, -2);
  return 1;
}

/* client:poll(ticket, account, patient) -> token | nil, message, code; never waits */
static int client_poll(lua_State *L)
{
  lucidauth_error error;
  uint64_t serial = 0;
  struct client *client = check_client(L);
  lucidauth_ticket *ticket = luaL_checkudata(L, 2, TICKET);
  lucidauth_account *account = account_at(L, client, 3, &error);
  char *token = account ? lucidauth_poll(account, ticket, lua_toboolean(L, 4), &serial, &error) : NULL;
  return push_serial_token(L, client, account, token, serial, &error);
}

/* client:reject(account, token) -> true | nil, message, code */
static int client_reject(lua_State *L)
{
  size_t length;
  lucidauth_error error;
  struct client *client = check_client(L);
  const char *account = luaL_optstring(L, 2, NULL), *token = luaL_checklstring(L, 3, &length);
  /* no token holds a NUL byte: what stands before it is not what was rejected */
  bool heard = strlen(token) == length ? lucidauth_reject(client->client, account, token, &error)
                                       : lucidauth_get_account(client->client, account, &error) != NULL;
  if (!heard)
    return push_error(L, &error);
  lua_pushboolean(L, true);
  return 1;
}

static void set_number(lua_State *L, const char *name, double value)
{
  lua_pushnumber(L, (lua_Number)value);
  lua_setfield(L, -2, name);
}

static void set_count(lua_State *L, const char *name, uint64_t value)
{
  lua_pushinteger(L, (lua_Integer)value);
  lua_setfield(L, -2, name);
}

static void set_last_error(lua_State *L, const lucidauth_error *error)
{
  if (error->code == LUCIDAUTH_OK)
    return;
  lua_createtable(L, 0, 2);
  lua_pushstring(L, lucidauth_code_name(error->code));
  lua_setfield(L, -2, "code");
  lua_pushstring(L, error->message);
  lua_setfield(L, -2, "message");
  lua_setfield(L, -2, "last_error");
}

static void set_failures(lua_State *L, const lucidauth_status *status)
{
  lua_newtable(L);
  for (int code = LUCIDAUTH_OK + 1; code < LUCIDAUTH_CODES; code++)
    if (status->failures[code] > 0)
      set_count(L, lucidauth_code_name((lucidauth_code)code), status->failures[code]);
  lua_setfield(L, -2, "failures");
}

static void set_past(lua_State *L, const lucidauth_status *status)
{
  lua_createtable(L, status->past_count, 0);
  for (int i = 0; i < status->past_count; i++) {
    const lucidauth_past *event = &status->past[i];
    lua_createtable(L, 0, 3);
    set_number(L, "at", event->at);
    lua_pushstring(L, lucidauth_event_name(event->kind));
    lua_setfield(L, -2, "name");
    if (event->code != LUCIDAUTH_OK) {
      lua_pushstring(L, lucidauth_code_name(event->code));
      lua_setfield(L, -2, "code");
    }
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "past");
}

/* client:status([account]) -> table | nil, message, code */
static int client_status(lua_State *L)
{
  lucidauth_error error;
  lucidauth_status status;
  struct client *client = check_client(L);
  const char *account = luaL_optstring(L, 2, NULL);
  if (!lucidauth_get_account(client->client, account, &error) ||
      !lucidauth_get_status(client->client, account, &status))
    return push_error(L, &error);
  lua_createtable(L, 0, 6);
  lua_pushstring(L, status.state);
  lua_setfield(L, -2, "state");
  lua_pushboolean(L, status.unsaved);
  lua_setfield(L, -2, "unsaved");
  lua_pushboolean(L, status.shared);
  lua_setfield(L, -2, "shared");
  set_count(L, "generation", status.generation);
  set_number(L, "expires_in", status.expires_in);
  if (status.last_refresh > 0)
    set_number(L, "last_refresh", status.last_refresh);
  if (status.retry_in > 0)
    set_number(L, "retry_in", status.retry_in);
  set_number(L, "lifetime", status.lifetime);
  set_count(L, "refreshes", status.refreshes);
  set_failures(L, &status);
  set_past(L, &status);
  set_last_error(L, &status.last_error);
  return 1;
}

/* ---- flights, for the driver in Lua ---- */

static void anchor_client(lua_State *L)
{
#if LUA_VERSION_NUM < 502
  lua_createtable(L, 1, 0);
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, 1);
  lua_setfenv(L, -2);
#else
  lua_pushvalue(L, 1);
  lua_setuservalue(L, -2);
#endif
}

/* A flight to come; it keeps its client, the first argument, alive. */
static struct flight *push_flight(lua_State *L, struct client *client)
{
  struct flight *flight = lua_newuserdata(L, sizeof *flight);
  *flight = (struct flight){.client = client};
  luaL_getmetatable(L, FLIGHT);
  lua_setmetatable(L, -2);
  anchor_client(L);
  return flight;
}

/* client:flight(account, refresh) -> flight | nil, token | nil, nil, message, code */
static int client_flight(lua_State *L)
{
  char *token = NULL;
  lucidauth_error error;
  struct client *client = check_client(L);
  lucidauth_account *account = account_at(L, client, 2, &error);
  bool refresh = lua_toboolean(L, 3);
  struct flight *flight = push_flight(L, client);
  flight->flight = account ? lucidauth_flight_begin(account, refresh, &token, &error) : NULL;
  if (flight->flight)
    return 1;
  lua_pushnil(L);
  return 1 + push_token(L, token, &error);
}

/* client:keep(account) -> a flight that only saves what could not be saved; nothing when there is nothing to save */
static int client_keep(lua_State *L)
{
  struct client *client = check_client(L);
  lucidauth_account *account = account_at(L, client, 2, NULL);
  struct flight *flight = push_flight(L, client);
  flight->flight = account ? lucidauth_flight_keep(account) : NULL;
  return flight->flight ? 1 : 0;
}

static struct flight *check_flight(lua_State *L)
{
  struct flight *flight = luaL_checkudata(L, 1, FLIGHT);
  if (!flight->flight || !flight->client->client)
    luaL_error(L, "this flight has ended, or its client is closed");
  return flight;
}

/* flight:next([result [, text]]) -> step, record or seconds */
static int flight_next(lua_State *L)
{
  static const char *const results[] = {"did", "none", "busy", "failed", NULL};
  static const char *const steps[] = {"load", "lock", "save", "unlock", "post", "wait", "done"};
  struct flight *flight = check_flight(L);
  lucidauth_result result = (lucidauth_result)luaL_checkoption(L, 2, "did", results);
  lucidauth_action action = lucidauth_flight_next(flight->flight, result, luaL_optstring(L, 3, NULL));
  lua_pushstring(L, steps[action.step]);
  if (action.record)
    lua_pushstring(L, action.record);
  else
    lua_pushnumber(L, (lua_Number)action.seconds);
  return 2;
}

/* flight:post() */
static int flight_post(lua_State *L)
{
  struct flight *flight = check_flight(L);
  lucidauth_flight_post(flight->flight);
  return 0;
}

/* flight:start_post(), and flight:has_posted() -> whether it is done */
static int flight_start_post(lua_State *L)
{
  lucidauth_flight_start_post(check_flight(L)->flight);
  return 0;
}

static int flight_has_posted(lua_State *L)
{
  lua_pushboolean(L, lucidauth_flight_has_posted(check_flight(L)->flight));
  return 1;
}

/* flight:finish() -> token, or true when none was asked for | nil, message, code */
static int flight_finish(lua_State *L)
{
  lucidauth_error error;
  struct flight *flight = check_flight(L);
  lucidauth_flight *ending = flight->flight;
  flight->flight = NULL;
  char *token = lucidauth_flight_end(ending, NULL, &error);
  if (token || error.code != LUCIDAUTH_OK)
    return push_token(L, token, &error);
  lua_pushboolean(L, true);
  return 1;
}

/* A flight whose coroutine was thrown away. A closed client took its flights with it. */
static int flight_gc(lua_State *L)
{
  struct flight *flight = luaL_checkudata(L, 1, FLIGHT);
  if (flight->flight && flight->client->client)
    lucidauth_free_token(lucidauth_flight_end(flight->flight, NULL, NULL));
  flight->flight = NULL;
  return 0;
}

/* ---- the hot path ---- */

enum { HOT_STATE = 1, HOT_TOKEN, HOT_SLOW, HOT_CLIENT };

/* Which token this function may hand out; each has its own, since another may have been the one to notice that the
 * token has changed. */
struct hot {
  const struct client *client; /* kept alive by HOT_CLIENT; NULL: none yet */
  uint64_t serial;             /* of HOT_TOKEN */
};

/* What the slow function returned lies on the stack: a token and its client, or nil, message, code. An event handler
 * may have fetched another token since. */
COMPAT_CONTINUATION(keep_token)
{
#if LUA_VERSION_NUM >= 502
  (void)status;
  (void)context;
#endif
  if (lua_type(L, 1) != LUA_TSTRING || !lua_isuserdata(L, 2))
    return lua_gettop(L);
  struct hot *hot = lua_touserdata(L, lua_upvalueindex(HOT_STATE));
  const struct client *client = lua_touserdata(L, 2);
  lua_settop(L, 2);
  lua_replace(L, lua_upvalueindex(HOT_CLIENT));
  lua_pushvalue(L, 1);
  lua_replace(L, lua_upvalueindex(HOT_TOKEN));
  hot->client = client;
  hot->serial = lua_tostring(L, 1) == client->token ? client->serial : 0;
  return 1;
}

__attribute__((noinline, cold)) static int call_slow(lua_State *L)
{
  lua_pushvalue(L, lua_upvalueindex(HOT_SLOW));
  lua_insert(L, 1);
  return compat_call(L, lua_gettop(L) - 1, keep_token);
}

__attribute__((always_inline)) static inline int hand_out(lua_State *L, int arguments)
{
  const struct hot *hot = lua_touserdata(L, lua_upvalueindex(HOT_STATE));
  const lucidauth_account *account = hot->client ? hot->client->account : NULL;
  if (account && lua_gettop(L) <= arguments && lucidauth_is_current(account, hot->serial)) {
    lua_pushvalue(L, lua_upvalueindex(HOT_TOKEN));
    return 1;
  }
  return call_slow(L);
}

/* Flattened: link-time optimization is to put the library's check right here. */
__attribute__((flatten)) static int hot_function(lua_State *L)
{
  return hand_out(L, 0);
}

__attribute__((flatten)) static int hot_method(lua_State *L)
{
  return hand_out(L, 1);
}

/* core.hot(slow, is_method) -> a function that returns the default account's token as long as it is current,
 * and what slow(...) returns otherwise; slow returns token, client | nil, message, code */
static int core_hot(lua_State *L)
{
  luaL_checktype(L, 1, LUA_TFUNCTION);
  bool method = lua_toboolean(L, 2);
  struct hot *hot = lua_newuserdata(L, sizeof *hot);
  *hot = (struct hot){.client = NULL};
  lua_pushnil(L);
  lua_pushvalue(L, 1);
  lua_pushnil(L);
  lua_pushcclosure(L, method ? hot_method : hot_function, 4);
  return 1;
}

/* core.sleep(seconds): blocks the whole process */
static int core_sleep(lua_State *L)
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
static int core_clock(lua_State *L)
{
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  lua_pushnumber(L, (lua_Number)now.tv_sec + (lua_Number)now.tv_nsec / 1e9);
  return 1;
}

/* core.process() -> this process's number */
static int core_process(lua_State *L)
{
  lua_pushinteger(L, (lua_Integer)getpid());
  return 1;
}

/* core.sha256(text) -> the digest's 32 bytes | nil, message; loads what a refresh needs */
static int core_sha256(lua_State *L)
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

/* ---- the module ---- */

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
  static const luaL_Reg client_methods[] = {
      {"token", client_token},   {"poll", client_poll},     {"refresh", client_refresh}, {"reject", client_reject},
      {"status", client_status}, {"flight", client_flight}, {"keep", client_keep},       {"event", client_event},
      {"leave", client_leave},   {"close", client_close},   {"__gc", client_gc},         {NULL, NULL}};
  static const luaL_Reg flight_methods[] = {{"next", flight_next},
                                            {"post", flight_post},
                                            {"start_post", flight_start_post},
                                            {"has_posted", flight_has_posted},
                                            {"finish", flight_finish},
                                            {"__gc", flight_gc},
                                            {NULL, NULL}};
  static const luaL_Reg functions[] = {{"new", core_new},       {"hot", core_hot},     {"ticket", core_ticket},
                                       {"sleep", core_sleep},   {"clock", core_clock}, {"process", core_process},
                                       {"sha256", core_sha256}, {NULL, NULL}};
  new_class(L, CLIENT, client_methods);
  new_class(L, FLIGHT, flight_methods);
  luaL_newmetatable(L, TICKET);
  lua_pop(L, 1);
  lua_newtable(L);
  compat_setfuncs(L, functions);
  lua_pushstring(L, lucidauth_version());
  lua_setfield(L, -2, "version");
  return 1;
}
