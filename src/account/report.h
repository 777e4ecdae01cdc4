/* Errors, and events on the way to a token, for callers. */
#ifndef ACCOUNT_REPORT_H
#define ACCOUNT_REPORT_H

#include "../lucidauth.h"

#include <pthread.h>

/* Fill in an error; `error` may be NULL. It may be the program's own struct, which these functions alone write: never
 * its size, and of a later release's fields those that its size covers. The fields up to `message` were there from the
 * first release on, so their former values do not matter. */
void error_set(lucidauth_error *error, lucidauth_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same with LUCIDAUTH_OK. */
void error_clear(lucidauth_error *error);

/* The same with what another says. */
void error_copy(lucidauth_error *error, const lucidauth_error *from);

/* A client's events, for the program's on_event. */
struct events {
  void (*on_event)(void *data, const lucidauth_event *event); /* NULL: nobody hears of them */
  void *data;
  pthread_mutex_t mutex;     /* over the rest; may be taken with an account's mutex held */
  struct kept_event *oldest; /* of those that are kept */
  int kept;
};

void events_init(struct events *events, void (*on_event)(void *data, const lucidauth_event *event), void *data);
void events_free(struct events *events);

/* Give the event to the program, on this thread; its size is filled in here. */
void events_give(const struct events *events, const lucidauth_event *event);

/* Keep it until the program's own thread asks for it. When nobody does it is dropped, the oldest first, and when out of
 * memory. */
void events_queue(struct events *events, const lucidauth_event *event);

/* Give the kept ones to the program, on this thread. */
void events_deliver(struct events *events);

/* Around fork(): the mutex is held. */
void events_before_fork(struct events *events);
void events_after_fork(struct events *events);

#endif
