#include "report.h"

#include "../base/quote.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void error_set(lucidauth_error *error, lucidauth_code code, const char *format, ...)
{
  if (!error)
    return;
  va_list arguments;
  va_start(arguments, format);
  error->code = code;
  char message[sizeof error->message];
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  /* paths, names of accounts, a storage's own words: none of it may forge a line or drive a terminal */
  quote_escape(error->message, sizeof error->message, message);
}

void error_clear(lucidauth_error *error)
{
  error_set(error, LUCIDAUTH_OK, "%s", "");
}

void error_copy(lucidauth_error *error, const lucidauth_error *from)
{
  if (!error)
    return;
  error->code = from->code;
  memcpy(error->message, from->message, strlen(from->message) + 1);
}

/* ---- events ---- */

enum { KEPT_MOST = 256 };

struct kept_event {
  struct kept_event *next;
  lucidauth_event_kind kind;
  lucidauth_code code;
  char *account, *message;
};

static void free_kept_event(struct kept_event *event)
{
  free(event->account);
  free(event->message);
  free(event);
}

void events_init(struct events *events, void (*on_event)(void *data, const lucidauth_event *event), void *data)
{
  *events = (struct events){.on_event = on_event, .data = data};
  pthread_mutex_init(&events->mutex, NULL);
}

/* The oldest one; NULL: there is none. */
static struct kept_event *take_event(struct events *events)
{
  pthread_mutex_lock(&events->mutex);
  struct kept_event *event = events->oldest;
  if (event) {
    events->oldest = event->next;
    events->kept--;
  }
  pthread_mutex_unlock(&events->mutex);
  return event;
}

void events_free(struct events *events)
{
  for (struct kept_event *event; (event = take_event(events)) != NULL;)
    free_kept_event(event);
  pthread_mutex_destroy(&events->mutex);
}

void events_give(const struct events *events, const lucidauth_event *event)
{
  lucidauth_event given = *event;
  given.size = sizeof given;
  if (events->on_event)
    events->on_event(events->data, &given);
}

static void keep_event(struct events *events, struct kept_event *event)
{
  pthread_mutex_lock(&events->mutex);
  struct kept_event **end = &events->oldest;
  while (*end)
    end = &(*end)->next;
  *end = event;
  bool full = ++events->kept > KEPT_MOST;
  pthread_mutex_unlock(&events->mutex);
  if (full)
    free_kept_event(take_event(events));
}

void events_queue(struct events *events, const lucidauth_event *event)
{
  struct kept_event *kept = events->on_event ? calloc(1, sizeof *kept) : NULL;
  if (!kept)
    return;
  kept->kind = event->kind;
  kept->code = event->code;
  kept->account = strdup(event->account);
  kept->message = strdup(event->message);
  if (kept->account && kept->message)
    keep_event(events, kept);
  else
    free_kept_event(kept);
}

void events_deliver(struct events *events)
{
  for (struct kept_event *event; (event = take_event(events)) != NULL; free_kept_event(event)) {
    lucidauth_event given = {
        .kind = event->kind, .account = event->account, .code = event->code, .message = event->message};
    events_give(events, &given);
  }
}

void events_before_fork(struct events *events)
{
  pthread_mutex_lock(&events->mutex);
}

void events_after_fork(struct events *events)
{
  pthread_mutex_unlock(&events->mutex);
}
