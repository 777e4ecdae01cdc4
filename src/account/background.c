#include "background.h"

#include "../system/thread.h"

#include <stdlib.h>

static struct {
  pthread_mutex_t mutex; /* over the rest */
  pthread_cond_t news;   /* for the thread: something is to be done */
  pthread_cond_t ended;  /* from the thread: a flight or a POST has ended, or it itself */
  pthread_t thread;
  bool prepared; /* `ended` is for clock_wait */
  bool running, stopping;
  bool told;      /* that there is something to do, and has not looked yet */
  int users;      /* accounts that are watched, and POSTs */
  unsigned forks; /* between the first process and this one */
  struct background_job *watched;
  struct background_job *handed_in; /* not yet taken over by the thread */
  struct background_post *posts;    /* the same */
  struct http_session *session;     /* the thread's; woken by anybody */
} background = {
    .mutex = PTHREAD_MUTEX_INITIALIZER, .news = PTHREAD_COND_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER};

static void lock_jobs(void)
{
  pthread_mutex_lock(&background.mutex);
}

static void unlock_jobs(void)
{
  pthread_mutex_unlock(&background.mutex);
}

struct background_job *background_job_new(struct lucidauth_account *account)
{
  struct background_job *job = calloc(1, sizeof *job);
  if (job) {
    job->kind = BACKGROUND_FLIGHT;
    job->account = account;
  }
  return job;
}

void background_job_free(struct background_job *job)
{
  free(job);
}

/* ---- the thread's beginning and end; with the mutex held ---- */

static bool start_thread(void *(*body)(void *))
{
  clock_init_condition(&background.news);
  if (!background.prepared) /* nobody has had anything to wait for */
    clock_init_condition(&background.ended);
  background.prepared = true;
  return thread_start(&background.thread, body, true);
}

/* A thread that is about to end is waited for. */
static bool have_thread(void *(*body)(void *))
{
  while (background.stopping)
    pthread_cond_wait(&background.ended, &background.mutex);
  if (!background.running)
    background.running = start_thread(body);
  return background.running;
}

static void tell_thread(void)
{
  background.told = true;
  pthread_cond_signal(&background.news);
  if (background.session)
    http_load(NULL, NULL, 0)->wake(background.session);
}

/* The last user ends the thread. The mutex is given back for a while. */
static void leave_thread(void)
{
  if (--background.users > 0 || !background.running || background.stopping)
    return;
  background.stopping = true;
  tell_thread();
  unlock_jobs();
  pthread_join(background.thread, NULL);
  lock_jobs();
  background.running = background.stopping = false;
  pthread_cond_broadcast(&background.ended);
}

/* ---- handing in ---- */

bool background_watch(struct background_job *job, void *(*body)(void *))
{
  lock_jobs();
  bool possible = have_thread(body);
  if (possible && !job->place.watched) {
    job->place.watched = true;
    job->place.next_watched = background.watched;
    job->place.previous_watched = NULL;
    if (job->place.next_watched)
      job->place.next_watched->place.previous_watched = job;
    background.watched = job;
    background.users++;
  }
  unlock_jobs();
  return possible;
}

/* With the mutex held. */
static void hand_in(struct background_job *job)
{
  job->place.active++;
  job->place.next_handed_in = background.handed_in;
  background.handed_in = job;
  tell_thread();
}

void background_submit(struct background_job *job)
{
  lock_jobs();
  hand_in(job);
  unlock_jobs();
}

bool background_post(struct background_post *post, void *(*body)(void *))
{
  lock_jobs();
  bool possible = have_thread(body);
  if (possible) {
    background.users++;
    post->forks = background.forks;
    post->next = background.posts;
    background.posts = post;
    tell_thread();
  }
  unlock_jobs();
  return possible;
}

bool background_await(struct background_post *post)
{
  lock_jobs();
  bool ours = post->forks == background.forks;
  while (ours && !atomic_load(&post->done))
    pthread_cond_wait(&background.ended, &background.mutex);
  if (ours)
    leave_thread();
  unlock_jobs();
  return ours;
}

/* ---- leaving ---- */

/* With the mutex held. */
static void start_leaving(struct background_job *job)
{
  job->place.leaving = true;
  if (job->place.active > 0)
    tell_thread();
}

static bool is_with_thread(const struct background_job *job)
{
  return job->place.active > 0 || job->place.pinned;
}

static void unwatch(struct background_job *job)
{
  struct background_job *previous = job->place.previous_watched, *next = job->place.next_watched;
  *(previous ? &previous->place.next_watched : &background.watched) = next;
  if (next)
    next->place.previous_watched = previous;
  job->place.watched = false;
}

/* With the mutex held, which is given back for a while. */
static void forget(struct background_job *job)
{
  if (!job->place.watched)
    return;
  unwatch(job);
  leave_thread();
}

void background_leave(struct background_job *job, struct held_signal *held)
{
  lock_jobs();
  start_leaving(job);
  while (is_with_thread(job)) {
    double now = clock_now().steady;
    held_signals_look(held, now);
    clock_wait(&background.ended, &background.mutex, now + PATIENCE_PAUSE);
  }
  forget(job);
  unlock_jobs();
}

bool background_leave_within(struct background_job *job, struct held_signal *held, struct patience *patience,
                             double seconds)
{
  if (!clock_lock(&background.mutex))
    return false;
  start_leaving(job);
  while (is_with_thread(job)) {
    double now = clock_now().steady;
    held_signals_look(held, now);
    patience_look(patience, now, 0);
    if (patience_ends(patience, seconds))
      break;
    clock_wait(&background.ended, &background.mutex, patience_until(patience, seconds));
  }
  bool left = !is_with_thread(job);
  if (left)
    forget(job);
  unlock_jobs();
  return left;
}

bool background_let_go(struct background_job *job)
{
  lock_jobs();
  bool idle = !is_with_thread(job);
  if (idle)
    job->place.leaving = true;
  unlock_jobs();
  return idle;
}

bool background_start_leaving(struct background_job *job)
{
  lock_jobs();
  start_leaving(job);
  bool left = !is_with_thread(job);
  unlock_jobs();
  return left;
}

/* ---- for the thread and its helpers ---- */

bool background_take(struct background_job **jobs, struct background_post **posts)
{
  lock_jobs();
  *jobs = background.handed_in;
  *posts = background.posts;
  bool stop = background.stopping;
  background.told = false;
  background.handed_in = NULL;
  background.posts = NULL;
  unlock_jobs();
  return !stop;
}

void background_ended(struct background_job *job)
{
  lock_jobs();
  job->place.active--;
  pthread_cond_broadcast(&background.ended);
  unlock_jobs();
}

void background_post_done(struct background_post *post)
{
  lock_jobs();
  atomic_store(&post->done, true);
  pthread_cond_broadcast(&background.ended);
  unlock_jobs();
}

void background_step_done(atomic_bool *stepping)
{
  lock_jobs();
  atomic_store(stepping, false);
  tell_thread();
  unlock_jobs();
}

struct background_job *background_pin(const struct background_job *after)
{
  lock_jobs();
  struct background_job *job = after ? after->place.next_watched : background.watched;
  while (job && (job->place.active > 0 || job->place.leaving || job->place.pinned))
    job = job->place.next_watched;
  if (job)
    job->place.pinned = true;
  unlock_jobs();
  return job;
}

void background_unpin(struct background_job *job, bool due)
{
  lock_jobs();
  job->place.pinned = false;
  if (due)
    hand_in(job);
  else if (job->place.active > 0)
    tell_thread();
  pthread_cond_broadcast(&background.ended);
  unlock_jobs();
}

bool background_is_pinned(const struct background_job *job)
{
  lock_jobs();
  bool pinned = job->place.pinned;
  unlock_jobs();
  return pinned;
}

bool background_is_leaving(const struct background_job *job)
{
  lock_jobs();
  bool leaving = job->place.leaving;
  unlock_jobs();
  return leaving;
}

void background_set_session(struct http_session *session)
{
  lock_jobs();
  background.session = session;
  unlock_jobs();
}

bool background_has_news(void)
{
  lock_jobs();
  bool news = background.told;
  unlock_jobs();
  return news;
}

void background_wait_for_news(double seconds)
{
  double until = clock_now().steady + seconds;
  lock_jobs();
  if (!background.told)
    clock_wait(&background.news, &background.mutex, until);
  unlock_jobs();
}

/* ---- fork() ---- */

void background_before_fork(void)
{
  lock_jobs();
}

/* The parent's thread and session are not the child's, nor are its flights. */
void background_after_fork(bool child)
{
  if (child) {
    for (struct background_job *job = background.watched; job; job = job->place.next_watched) {
      job->place.active = 0;
      job->place.watched = job->place.pinned = false;
    }
    background.running = background.stopping = background.told = false;
    background.users = 0;
    background.watched = background.handed_in = NULL;
    background.posts = NULL;
    background.session = NULL;
    background.forks++;
    clock_init_condition(&background.ended);
  }
  unlock_jobs();
}
