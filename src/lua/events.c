/* Events: queued by the library, fetched by the Lua layer. */
#include "binding.h"

#include <stdlib.h>
#include <string.h>

struct event {
  struct event *next;
  lucidauth_event_kind kind;
  lucidauth_code code;
  char *account, *message;
};

static void free_event(struct event *event)
{
  free(event->account);
  free(event->message);
  free(event);
}

void queue_event(void *data, const lucidauth_event *happened)
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

void drop_event(struct client *client)
{
  struct event *event = client->events;
  client->events = event->next;
  if (!client->events)
    client->last_event = &client->events;
  free_event(event);
}

void drop_events(struct client *client)
{
  if (client->client)
    lucidauth_deliver_events(client->client);
  while (client->events)
    drop_event(client);
}

/* client:event() -> name, account, code, message; nothing when there is none left */
int client_event(lua_State *L)
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
