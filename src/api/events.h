/* What happens on the way to a token, for the program's on_event. */
#ifndef API_EVENTS_H
#define API_EVENTS_H

#include "../lucidauth.h"

struct lucidauth;

/* Give the event to the program, on this thread. */
void events_give(const struct lucidauth *client, const lucidauth_event *event);

/* Keep it until the program's own thread asks for it. It is dropped when nobody does, the oldest first, and
 * when memory is out. */
void events_queue(struct lucidauth *client, const lucidauth_event *event);

/* Give what was kept. */
void events_deliver(struct lucidauth *client);

#endif
