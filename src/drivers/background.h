/* One thread a process that carries out flights, so that nobody else has to wait for a lock, a disk or a server.
 * Where it would itself have to wait for a disk, a helper does that for it, a thread that lives as long as there is
 * something to wait for: flights are side by side whatever they wait for. It starts when the first flight is handed
 * to it, looks after the accounts whose flights it has had (refreshing them ahead of their expiry without being
 * asked, and looking for changes that announce themselves to nobody), and ends with the last client that uses it. */
#ifndef DRIVERS_BACKGROUND_H
#define DRIVERS_BACKGROUND_H

#include "../system/clock.h"
#include "drive.h"

#include <stdatomic.h>
#include <stdbool.h>

/* What the thread knows of an account's flights; made with it. NULL: memory is out. */
struct background_job *background_job_new(struct craft *craft);
void background_job_free(struct background_job *job);

/* From now on the account is looked after, and there is a thread to do it. False: there is none to be had. */
bool background_watch(struct background_job *job);

/* Where there is none: whether the process may never have one again. */
bool background_is_forbidden(void);

/* After that: carry out the account's flight, which has begun; the thread lands it. */
void background_submit(struct background_job *job);

/* Forget the account; waits until its flight has landed. A flight that is only waiting to try again is broken off.
 * Signals that are held meanwhile are looked at. */
void background_leave(struct background_job *job, struct held_signal *held);

/* The same for the end of the process, until so many seconds have been waited. False: the flight is still in the air,
 * or this very thread was interrupted in here. */
bool background_leave_within(struct background_job *job, struct held_signal *held, struct patience *patience,
                             double seconds);

/* For background_leave, where nobody is to wait: from now on the account is left alone. False, and nothing is changed:
 * the thread is with it. */
bool background_let_go(struct background_job *job);

/* The beginning of that, which does not wait: whether its flight has landed. */
bool background_start_leaving(struct background_job *job);

enum background_kind { BACKGROUND_FLIGHT, BACKGROUND_POST };

/* One POST of a flight in the program's own hands. Starts as {.kind = BACKGROUND_POST} with its request. */
struct background_post {
  enum background_kind kind;
  struct http_request request;
  struct http_response response;
  struct background_post *next;
  unsigned forks; /* when it was started */
  atomic_bool done;
};

/* Start it; its strings stay where they are until it is done. False: there is no thread to be had. */
bool background_post(struct background_post *post);

/* Wait until it is done. False: it is the parent's, which was forked meanwhile; the response is then not to be
 * touched. */
bool background_await(struct background_post *post);

/* Around fork(): the thread stays with the parent, and the child may start one of its own. */
void background_before_fork(void);
void background_after_fork(bool child);

#endif
