/* The binding: Lua values in and out of lucidauth.h, no decision. Its users are the Lua files beside it, which check
 * the arguments of scripts. A comment before each function says its parameters and results. */
#ifndef LUA_BINDING_H
#define LUA_BINDING_H

#include "../lucidauth.h"

#include <lauxlib.h>
#include <lua.h>

#define CLIENT "lucidauth.core.client"
#define FLIGHT "lucidauth.core.flight"
#define TICKET "lucidauth.core.ticket"
#define HOT "lucidauth.core.hot"

struct event;
struct names;

/* An account that something holds on to, until its client is closed at the latest. Starts as {0}. */
struct held {
  lucidauth_account *account; /* NULL: none */
  struct held *next, **place; /* among those of the client */
};

struct client {
  lucidauth *client;          /* NULL: closed */
  lucidauth_account *account; /* that was asked for last; NULL: there was none, or something else holds it */
  uint64_t serial;            /* of its token that was returned */
  const char *token;          /* where Lua keeps that one; to be compared, not to be read; NULL: there is none */
  struct held *held;
  struct names *names; /* of the hot path */
  size_t names_most;
  struct event *events, **last_event;
};

/* clients.c */

/* nil, message, code */
int push_error(lua_State *L, const lucidauth_error *error);

/* The token, or nil, message, code. Takes the token; when Lua runs out of memory while it copies, the C copy leaks. */
int push_token(lua_State *L, char *token, const lucidauth_error *error);

/* The first argument; raises when it is closed. */
struct client *check_client(lua_State *L);

/* The account that is named there, or the default one, as the client's: until another is asked for. NULL: `error` says
 * why. */
lucidauth_account *account_at(lua_State *L, struct client *client, int index, lucidauth_error *error);

/* Hold on to the client's account, instead of the client. */
void hold_account(struct held *held, struct client *client);
void release_held(struct held *held);

/* The client is closed, and its accounts are gone. */
void forget_accounts(struct client *client);

/* An on_event; `data` is the client. */
void queue_event(void *data, const lucidauth_event *happened);

/* The oldest of the queue, which is not empty. */
void drop_event(struct client *client);
/* The events are not wanted. */
void drop_events(struct client *client);
int client_event(lua_State *L);

/* A new client, or nil, message, code. Its events are queued, in spite of the options. */
int push_client(lua_State *L, lucidauth_options options);

/* The token of the account at the index, or nil, message, code. */
int push_account_token(lua_State *L, struct client *client, int index);

int core_new(lua_State *L);
int core_ticket(lua_State *L);
int ticket_gc(lua_State *L);
int client_token(lua_State *L);
int client_poll(lua_State *L);
int client_refresh(lua_State *L);
int client_store(lua_State *L);
int client_poll_store(lua_State *L);
int client_reject(lua_State *L);
int client_leave(lua_State *L);
int client_close(lua_State *L);
int client_gc(lua_State *L);

/* options.c */

/* Of the table at the bottom of the stack; its strings stay on the stack. */
lucidauth_options read_options(lua_State *L);

/* status.c */

int client_status(lua_State *L);

/* flights.c */

int client_new_flight(lua_State *L);
int flight_begin(lua_State *L);
int flight_keep(lua_State *L);
int flight_store(lua_State *L);
int flight_is_flying(lua_State *L);
int flight_next(lua_State *L);
int flight_post(lua_State *L);
int flight_start_post(lua_State *L);
int flight_has_posted(lua_State *L);
int flight_finish(lua_State *L);
int flight_gc(lua_State *L);

/* first.c */

int core_first(lua_State *L);

/* With the first table at the top: token, client; or nil, message, code. */
int first_token(lua_State *L);

/* With the first table at the top, which goes: loads the rest of the module. */
void first_complete(lua_State *L);

/* hot.c */

/* lucid.token and lucid.authorization, with the first table instead of a slow function. */
void push_first_function(lua_State *L, int table, bool header);

/* They ask this function from now on. */
void set_slow_function(lua_State *L, int function, int slow);

int core_hot(lua_State *L);
int hot_gc(lua_State *L);

/* The module is loaded into a Lua state. */
void hot_open(void);

/* system.c */

int core_sleep(lua_State *L);
int core_clock_of_waits(lua_State *L);
int core_has_http(lua_State *L);
int core_process(lua_State *L);
int core_thread(lua_State *L);
int core_is_running(lua_State *L);
int core_can_yield(lua_State *L);
int core_pack(lua_State *L);
int core_in_c_locale(lua_State *L);
int core_sha256(lua_State *L);

#endif
