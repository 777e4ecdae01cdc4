/* One thread a process that carries out flights, so that nobody else has to wait for a lock, a disk or a server. Here
 * are its jobs, its beginning and its end; its work is in worker.c. It starts when the first flight is handed to it,
 * and ends with the last client that uses it. */
#ifndef ACCOUNT_BACKGROUND_H
#define ACCOUNT_BACKGROUND_H

#include "../drivers/flight.h"
#include "../drivers/helpers.h"
#include "../system/clock.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct lucidauth_account;

/* The first member of both kinds of job, by which the thread tells them apart. */
enum background_kind { BACKGROUND_FLIGHT, BACKGROUND_POST };

/* An account that the thread looks after, and its flights. */
struct background_job {
  enum background_kind kind;
  struct lucidauth_account *account;

  /* background.c's, with its mutex held */
  struct {
    struct background_job *next_watched, *previous_watched, *next_handed_in;
    bool watched, pinned; /* looked after; being looked at */
    bool leaving;
    int active; /* flights: one may have ended, and still be the thread's, when the next one begins */
  } place;

  /* worker.c's, for the thread alone */
  struct {
    struct background_job *next;
    struct flow_action action; /* the last one that the flow asked for */
    struct flight_event came;  /* of that */
    struct helper_task task;
    double wake_at, wait_until; /* steady seconds; of a flight that waits */
    bool posting;               /* it waits for a server */
    atomic_bool stepping;       /* it waits for the storage: `came` is a helper's */
  } run;
};

/* One POST of a flight that the program carries out by itself. Starts as {.kind = BACKGROUND_POST} with its request. */
struct background_post {
  enum background_kind kind;
  struct http_request request;
  struct http_response response;
  struct background_post *next;
  unsigned forks; /* when it was started */
  atomic_bool done;
};

/* NULL: out of memory. */
struct background_job *background_job_new(struct lucidauth_account *account);
void background_job_free(struct background_job *job);

/* ---- from any thread ---- */

/* From now on the account is looked after, and there is a thread to do it, which runs `body`. False: there is none to
 * be had. */
bool background_watch(struct background_job *job, void *(*body)(void *));

/* After that: carry out the account's flight, which has begun; the thread ends it. */
void background_submit(struct background_job *job);

/* Start the POST; its strings stay where they are until it is done. False: there is no thread to be had. */
bool background_post(struct background_post *post, void *(*body)(void *));

/* Wait until it is done. False: it is the parent's, which was forked meanwhile; the response is then not to be
 * touched. */
bool background_await(struct background_post *post);

/* Forget the account; waits until its flight has ended. A flight that is only waiting to try again is broken off.
 * Signals that are held meanwhile are looked at. */
void background_leave(struct background_job *job, struct held_signal *held);

/* The same for the end of the process, until so many seconds have been waited. False: the flight is still under way, or
 * this very thread was interrupted in here. */
bool background_leave_within(struct background_job *job, struct held_signal *held, struct patience *patience,
                             double seconds);

/* For background_leave, where nobody is to wait: from now on the account is left alone. False, and nothing is changed:
 * the thread is with it. */
bool background_let_go(struct background_job *job);

/* The beginning of that, which does not wait: whether its flight has ended. */
bool background_start_leaving(struct background_job *job);

/* ---- from the thread and its helpers ---- */

/* Take the jobs and POSTs that were handed in since the last time, lists by place.next_handed_in and by next. False:
 * the thread is to end. */
bool background_take(struct background_job **jobs, struct background_post **posts);

/* The account's flight has ended, and the POST is done. */
void background_ended(struct background_job *job);
void background_post_done(struct background_post *post);

/* The thread is to look again, since a step is done: `done` is set to false before. */
void background_step_done(atomic_bool *stepping);

/* The next account to be looked after, behind `after` or (NULL) the first, which nobody takes away until it was looked
 * at; NULL: there is none. And: it was, and a flight has begun (`due`). */
struct background_job *background_pin(const struct background_job *after);
void background_unpin(struct background_job *job, bool due);

bool background_is_pinned(const struct background_job *job);
bool background_is_leaving(const struct background_job *job);

/* The session that is to be woken when there is news; NULL: none. Its maker alone uses it otherwise. */
void background_set_session(struct http_session *session);

/* Whether there is news that background_take has not taken yet; wait for it, for at most `seconds`. */
bool background_has_news(void);
void background_wait_for_news(double seconds);

/* ---- fork(): the thread stays with the parent, and the child may start one of its own ---- */

void background_before_fork(void);
void background_after_fork(bool child);

#endif
