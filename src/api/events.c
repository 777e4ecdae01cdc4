#include "events.h"

#include "client.h"

#include <stdlib.h>
#include <string.h>

enum { KEPT_MOST = 256 };

struct kept_event {
  struct kept_event *next;
  lucidauth_event_kind kind;
  lucidauth_code code;
  char *account, *message;
};

static void free_event(struct kept_event *event)
{
  free(event->account);
  free(event->message);
  free(event);
}

void events_give(const struct lucidauth *client, const lucidauth_event *event)
{
  if (client->options.on_event)
    client->options.on_event(client->options.on_event_data, event);
}

/* The oldest one; NULL: there is none. */
static struct kept_event *take(struct lucidauth *client)
{
  pthread_mutex_lock(&client->events_mutex);
  struct kept_event *event = client->events;
  if (event) {
    client->events = event->next;
    client->events_kept--;
  }
  pthread_mutex_unlock(&client->events_mutex);
  return event;
}

static void append(struct lucidauth *client, struct kept_event *event)
{
  pthread_mutex_lock(&client->events_mutex);
  struct kept_event **end = &client->events;
  while (*end)
    end = &(*end)->next;
  *end = event;
  bool full = ++client->events_kept > KEPT_MOST;
  pthread_mutex_unlock(&client->events_mutex);
  if (full)
    free_event(take(client));
}

void events_queue(struct lucidauth *client, const lucidauth_event *event)
{
  struct kept_event *kept = client->options.on_event ? calloc(1, sizeof *kept) : NULL;
  if (!kept)
    return;
  kept->kind = event->kind;
  kept->code = event->code;
  kept->account = strdup(event->account);
  kept->message = strdup(event->message);
  if (kept->account && kept->message)
    append(client, kept);
  else
    free_event(kept);
}

void events_deliver(struct lucidauth *client)
{
  for (struct kept_event *event; (event = take(client)) != NULL; free_event(event)) {
    lucidauth_event given = {
        .kind = event->kind, .account = event->account, .code = event->code, .message = event->message};
    events_give(client, &given);
  }
}
