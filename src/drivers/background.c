#include "background.h"

#include "../system/clock.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>

/* Seconds. The accounts are looked after this often; what becomes of a lock that another process holds is looked at
 * this often. */
#define ROUND 1.0
#define LOCK_PAUSE 0.005

/* musl's own is 128 KiB; an answer that is nested a thousand levels deep takes more to read. */
enum { STACK = 1024 * 1024 };

/* Threads that are with disks at the same time. One that hangs holds up its own account; so many have to hang before
 * they hold up others. */
enum { HELPERS_MOST = 8 };

struct background_job {
  enum background_kind kind; /* first, as in background_post: what a session returns is one or the other */
  struct craft *craft;

  /* with the mutex held */
  struct background_job *next_watched, *previous_watched;
  bool watched, pinned;                /* looked after; being looked at */
  struct background_job *next_waiting; /* for a helper */
  int active; /* flights: one may have landed, and still be the thread's, when the next one takes off */
  bool leaving;

  /* the thread's own */
  struct background_job *next_active; /* also in the list of those handed in */
  struct flow_action action;          /* what the flow asked for last */
  struct came_of came;                /* of that */
  double wake_at, wait_until;         /* steady seconds; of a flight that waits */
  bool posting;                       /* it waits for a server */
  atomic_bool stepping;               /* it waits for the storage: `came` is a helper's */
};

static struct worker {
  pthread_mutex_t mutex; /* over what follows, except where it says otherwise */
  pthread_cond_t news;   /* for the thread: something is to be done */
  pthread_cond_t landed; /* from the thread: a flight or a POST has ended */
  pthread_t thread;
  bool prepared; /* `landed` is for clock_wait */
  bool running, stopping;
  bool told;      /* that there is something to do, and has not looked yet */
  int users;      /* accounts that are watched, and POSTs */
  unsigned forks; /* between the first process and this one */
  struct background_job *watched;
  struct background_job *handed_in;               /* not yet taken over by the thread */
  struct background_post *posts;                  /* the same */
  struct background_job *waiting, **last_waiting; /* for a helper, the first come first */
  int helpers;
  struct http_session *session; /* made and used by the thread, woken by anybody */

  /* the thread's own */
  struct background_job *active;
  int in_session;
  double next_round;
} worker = {.mutex = PTHREAD_MUTEX_INITIALIZER, .news = PTHREAD_COND_INITIALIZER, .landed = PTHREAD_COND_INITIALIZER};

static void tell_thread(void);
static bool create_thread(pthread_t *thread, void *(*body)(void *), bool joined);

static const struct http_ops *http(void)
{
  return http_load(NULL, 0);
}

/* ---- one flight ---- */

static void land(struct background_job *job)
{
  job->craft->owner->landed(job->craft);
  pthread_mutex_lock(&worker.mutex);
  job->active--;
  pthread_cond_broadcast(&worker.landed);
  pthread_mutex_unlock(&worker.mutex);
}

static bool open_session(void)
{
  if (worker.session)
    return true;
  struct http_session *session = http() ? http()->open() : NULL;
  pthread_mutex_lock(&worker.mutex);
  worker.session = session;
  pthread_mutex_unlock(&worker.mutex);
  return session != NULL;
}

/* True: it is under way, and the session returns the tag. */
static bool start_post(const struct http_request *request, struct http_response *response, void *tag)
{
  *response = (struct http_response){.reply.delivery = REPLY_NOT_SENT};
  if (!open_session() || !http()->begin(worker.session, request, response, tag))
    return false;
  worker.in_session++;
  return true;
}

static void post_for(struct background_job *job)
{
  struct http_request request = drive_request(job->craft->endpoints, &job->action);
  if (job->action.request->endpoint == REQUEST_TOKEN)
    job->craft->owner->sends(job->craft);
  job->posting = start_post(&request, &job->came.response, job);
  job->came.posted = true;
  job->came.event.reply = &job->came.response.reply;
}

static void pause_for(struct background_job *job, double now)
{
  job->wait_until = now + job->action.seconds;
  job->wake_at = job->action.for_others ? fmin(job->wait_until, now + LOCK_PAUSE) : job->wait_until;
}

/* Whoever holds the lock announces the end of it, and the page is cheaper to look at than the lock. */
static bool goes_on_waiting(struct background_job *job, double now)
{
  const struct craft *craft = job->craft;
  if (!job->action.for_others || now >= job->wait_until || !craft->store->shared ||
      atomic_load_explicit(craft->store->generation, memory_order_acquire) != craft->seen)
    return false;
  job->wake_at = fmin(job->wait_until, now + LOCK_PAUSE);
  return true;
}

/* ---- helpers: threads that wait for disks, so that the one that looks after all the accounts does not ---- */

/* Whether the account is due is for the storage to say, too; if it is, it has taken off. */
static void look_after(struct background_job *job)
{
  bool due = job->craft->owner->is_due(job->craft);
  pthread_mutex_lock(&worker.mutex);
  job->pinned = false;
  if (due) {
    job->active++;
    job->next_active = worker.handed_in;
    worker.handed_in = job;
  }
  if (job->active > 0)
    tell_thread();
  pthread_cond_broadcast(&worker.landed);
  pthread_mutex_unlock(&worker.mutex);
}

static void carry_out_step(struct background_job *job)
{
  drive_step(job->craft, &job->action, &job->came);
  pthread_mutex_lock(&worker.mutex);
  atomic_store(&job->stepping, false);
  tell_thread();
  pthread_mutex_unlock(&worker.mutex);
}

static void help_with(struct background_job *job)
{
  if (atomic_load(&job->stepping))
    carry_out_step(job);
  else
    look_after(job);
}

/* With the mutex held. */
static struct background_job *next_waiting(void)
{
  struct background_job *job = worker.waiting;
  if (job)
    worker.waiting = job->next_waiting;
  return job;
}

/* A helper goes when nothing waits for it. */
static void *help(void *unused)
{
  (void)unused;
  pthread_mutex_lock(&worker.mutex);
  for (struct background_job *job; (job = next_waiting()) != NULL; pthread_mutex_lock(&worker.mutex)) {
    pthread_mutex_unlock(&worker.mutex);
    help_with(job);
  }
  worker.helpers--;
  pthread_cond_broadcast(&worker.landed);
  pthread_mutex_unlock(&worker.mutex);
  return NULL;
}

/* Where no helper is to be had the thread waits for the disk by itself. */
static void ask_for_help(struct background_job *job)
{
  pthread_t helper;
  pthread_mutex_lock(&worker.mutex);
  if (!worker.waiting)
    worker.last_waiting = &worker.waiting;
  job->next_waiting = NULL;
  *worker.last_waiting = job;
  worker.last_waiting = &job->next_waiting;
  if (worker.helpers < HELPERS_MOST && create_thread(&helper, help, false))
    worker.helpers++;
  struct background_job *left = worker.helpers > 0 ? NULL : next_waiting();
  pthread_mutex_unlock(&worker.mutex);
  if (left)
    help_with(left);
}

/* ---- the flights ---- */

/* Go on with a flight until it has to wait for something, or has landed: then false, and the job may be gone.
 * `came` holds what came of its last step. */
static bool proceed(struct background_job *job)
{
  for (;;) {
    job->came.event.now = clock_now();
    job->action = flow_next(job->craft->flow, &job->came.event);
    drive_clean_up(&job->came);
    job->came = (struct came_of){.event = {.result = FLOW_OK}};
    if (job->action.step == FLOW_DONE) {
      land(job);
      return false;
    }
    if (job->action.step == FLOW_WAIT) {
      pause_for(job, clock_now().steady);
      return true;
    }
    if (job->action.step != FLOW_POST) {
      job->wake_at = 0;
      atomic_store(&job->stepping, true);
      ask_for_help(job);
      return true;
    }
    post_for(job);
    if (job->posting)
      return true;
  }
}

/* A flight that only waits to try again is left as it stands: what it had stored is settled by whoever comes next. */
static void break_off(struct background_job *job)
{
  struct store *store = job->craft->store;
  flow_abandon(job->craft->flow, true);
  store->ops->unlock(store);
  land(job);
}

/* ---- the thread ---- */

static void take_over(struct background_job *jobs)
{
  while (jobs) {
    struct background_job *job = jobs;
    jobs = job->next_active;
    job->came = (struct came_of){.event = {.result = FLOW_OK}};
    job->wake_at = 0;
    job->posting = false;
    atomic_store(&job->stepping, false);
    job->next_active = worker.active;
    worker.active = job;
  }
}

static void finish_post(struct background_post *post)
{
  pthread_mutex_lock(&worker.mutex);
  atomic_store(&post->done, true);
  pthread_cond_broadcast(&worker.landed);
  pthread_mutex_unlock(&worker.mutex);
}

static void start_posts(struct background_post *posts)
{
  while (posts) {
    struct background_post *post = posts;
    posts = post->next;
    if (!start_post(&post->request, &post->response, post))
      finish_post(post);
  }
}

static void finish_transfer(void *tag)
{
  worker.in_session--;
  if (*(enum background_kind *)tag == BACKGROUND_POST) {
    finish_post(tag);
    return;
  }
  struct background_job *job = tag;
  job->posting = false;
  job->wake_at = 0;
}

/* The storage is with the helper that looks after the account. */
static bool is_pinned(const struct background_job *job)
{
  pthread_mutex_lock(&worker.mutex);
  bool pinned = job->pinned;
  pthread_mutex_unlock(&worker.mutex);
  return pinned;
}

/* With a server or a helper, who will tell. */
static bool is_elsewhere(const struct background_job *job)
{
  return job->posting || atomic_load(&job->stepping) || is_pinned(job);
}

static bool is_leaving(const struct background_job *job)
{
  pthread_mutex_lock(&worker.mutex);
  bool leaving = job->leaving;
  pthread_mutex_unlock(&worker.mutex);
  return leaving;
}

/* True: the flight is still in the air. */
static bool go_on_with(struct background_job *job, double now)
{
  bool waiting = job->action.step == FLOW_WAIT && job->wake_at > 0;
  if (is_elsewhere(job))
    return true;
  if (waiting && is_leaving(job)) {
    break_off(job);
    return false;
  }
  return job->wake_at > now || (waiting && goes_on_waiting(job, now)) || proceed(job);
}

static void go_on(void)
{
  double now = clock_now().steady;
  struct background_job *jobs = worker.active, *next;
  worker.active = NULL;
  for (; jobs; jobs = next) {
    next = jobs->next_active;
    if (go_on_with(jobs, now)) {
      jobs->next_active = worker.active;
      worker.active = jobs;
    }
  }
}

/* Seconds until something is due; an account may have to be looked after. */
static double time_left(double now)
{
  double first = worker.next_round;
  for (const struct background_job *job = worker.active; job; job = job->next_active)
    if (job->wake_at < first && !is_elsewhere(job))
      first = job->wake_at;
  return fmax(first - now, 0);
}

/* With the mutex held. */
static struct background_job *pin(struct background_job *job)
{
  while (job && (job->active > 0 || job->leaving || job->pinned))
    job = job->next_watched;
  if (job)
    job->pinned = true;
  return job;
}

/* A job that is not in the air, held so that nobody takes it away. */
static struct background_job *pin_first(void)
{
  pthread_mutex_lock(&worker.mutex);
  struct background_job *job = pin(worker.watched);
  pthread_mutex_unlock(&worker.mutex);
  return job;
}

static struct background_job *pin_next(const struct background_job *after)
{
  pthread_mutex_lock(&worker.mutex);
  struct background_job *job = pin(after->next_watched);
  pthread_mutex_unlock(&worker.mutex);
  return job;
}

/* Refresh ahead, and see what other programs have changed, with nobody asking. */
static void make_a_round(void)
{
  double now = clock_now().steady;
  if (now < worker.next_round)
    return;
  worker.next_round = now + ROUND;
  struct background_job *job = pin_first(), *next;
  for (; job; job = next) {
    next = pin_next(job); /* while this one is pinned */
    ask_for_help(job);
  }
}

static void sleep_until_news(double seconds)
{
  double until = clock_now().steady + seconds;
  pthread_mutex_lock(&worker.mutex);
  if (!worker.told)
    clock_wait(&worker.news, &worker.mutex, until);
  pthread_mutex_unlock(&worker.mutex);
}

/* A session that was not open yet could not be woken. */
static bool has_news(void)
{
  pthread_mutex_lock(&worker.mutex);
  bool news = worker.told;
  pthread_mutex_unlock(&worker.mutex);
  return news;
}

static void wait_for_something(void)
{
  double seconds = time_left(clock_now().steady);
  if (worker.in_session == 0) {
    sleep_until_news(seconds);
    return;
  }
  if (has_news())
    return;
  void *finished = http()->wait(worker.session, seconds);
  while (finished) {
    finish_transfer(finished);
    finished = worker.in_session > 0 ? http()->wait(worker.session, 0) : NULL;
  }
}

/* False: the thread is to end. */
static bool take_what_was_handed_in(void)
{
  pthread_mutex_lock(&worker.mutex);
  struct background_job *jobs = worker.handed_in;
  struct background_post *posts = worker.posts;
  bool stop = worker.stopping;
  worker.told = false;
  worker.handed_in = NULL;
  worker.posts = NULL;
  pthread_mutex_unlock(&worker.mutex);
  take_over(jobs);
  start_posts(posts);
  return !stop || worker.active || worker.in_session > 0;
}

static void *work(void *unused)
{
  (void)unused;
  while (take_what_was_handed_in()) {
    go_on();
    make_a_round();
    wait_for_something();
  }
  if (worker.session)
    http()->close(worker.session);
  pthread_mutex_lock(&worker.mutex);
  worker.session = NULL;
  while (worker.helpers > 0)
    pthread_cond_wait(&worker.landed, &worker.mutex);
  pthread_mutex_unlock(&worker.mutex);
  return NULL;
}

/* ---- for everybody else; with the mutex held where it says so ---- */

/* Signals are the program's business; those that tell of a fault of this very thread cannot be put off. */
static bool create_thread(pthread_t *thread, void *(*body)(void *), bool joined)
{
  static const int fatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP};
  sigset_t blocked, before;
  pthread_attr_t attributes;
  sigfillset(&blocked);
  for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++)
    sigdelset(&blocked, fatal[i]);
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, STACK);
  pthread_attr_setdetachstate(&attributes, joined ? PTHREAD_CREATE_JOINABLE : PTHREAD_CREATE_DETACHED);
  pthread_sigmask(SIG_SETMASK, &blocked, &before);
  bool created = pthread_create(thread, &attributes, body, NULL) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  return created;
}

/* With the mutex held. */
static bool start_thread(void)
{
  clock_init_condition(&worker.news);
  if (!worker.prepared) /* nobody has had anything to wait for */
    clock_init_condition(&worker.landed);
  worker.prepared = true;
  worker.next_round = 0;
  return create_thread(&worker.thread, work, true);
}

/* With the mutex held. A thread that is about to end is waited for. */
static bool have_thread(void)
{
  while (worker.stopping)
    pthread_cond_wait(&worker.landed, &worker.mutex);
  if (!worker.running)
    worker.running = start_thread();
  return worker.running;
}

/* With the mutex held. */
static void tell_thread(void)
{
  worker.told = true;
  pthread_cond_signal(&worker.news);
  if (worker.session)
    http()->wake(worker.session);
}

/* With the mutex held, which is given back for a while: the last user ends the thread. */
static void leave_thread(void)
{
  if (--worker.users > 0 || !worker.running || worker.stopping)
    return;
  worker.stopping = true;
  tell_thread();
  pthread_mutex_unlock(&worker.mutex);
  pthread_join(worker.thread, NULL);
  pthread_mutex_lock(&worker.mutex);
  worker.running = worker.stopping = false;
  pthread_cond_broadcast(&worker.landed);
}

bool background_is_forbidden(void)
{
  struct rlimit limit;
  return getrlimit(RLIMIT_NPROC, &limit) == 0 && limit.rlim_cur == 0;
}

struct background_job *background_job_new(struct craft *craft)
{
  struct background_job *job = calloc(1, sizeof *job);
  if (job) {
    job->kind = BACKGROUND_FLIGHT;
    job->craft = craft;
  }
  return job;
}

void background_job_free(struct background_job *job)
{
  free(job);
}

bool background_watch(struct background_job *job)
{
  pthread_mutex_lock(&worker.mutex);
  bool possible = have_thread();
  if (possible && !job->watched) {
    job->watched = true;
    job->next_watched = worker.watched;
    job->previous_watched = NULL;
    if (job->next_watched)
      job->next_watched->previous_watched = job;
    worker.watched = job;
    worker.users++;
  }
  pthread_mutex_unlock(&worker.mutex);
  return possible;
}

void background_submit(struct background_job *job)
{
  pthread_mutex_lock(&worker.mutex);
  job->active++;
  job->next_active = worker.handed_in;
  worker.handed_in = job;
  tell_thread();
  pthread_mutex_unlock(&worker.mutex);
}

static void unwatch(struct background_job *job)
{
  *(job->previous_watched ? &job->previous_watched->next_watched : &worker.watched) = job->next_watched;
  if (job->next_watched)
    job->next_watched->previous_watched = job->previous_watched;
  job->watched = false;
}

/* With the mutex held. */
static void start_leaving(struct background_job *job)
{
  job->leaving = true;
  if (job->active > 0)
    tell_thread();
}

static bool is_with_thread(const struct background_job *job)
{
  return job->active > 0 || job->pinned;
}

/* With the mutex held, which is given back for a while. */
static void forget(struct background_job *job)
{
  if (!job->watched)
    return;
  unwatch(job);
  leave_thread();
}

void background_leave(struct background_job *job, struct held_signal *held)
{
  pthread_mutex_lock(&worker.mutex);
  start_leaving(job);
  while (is_with_thread(job)) {
    double now = clock_now().steady;
    held_signals_look(held, now);
    clock_wait(&worker.landed, &worker.mutex, now + PATIENCE_PAUSE);
  }
  forget(job);
  pthread_mutex_unlock(&worker.mutex);
}

bool background_leave_within(struct background_job *job, struct held_signal *held, struct patience *patience,
                             double seconds)
{
  if (!clock_lock(&worker.mutex))
    return false;
  start_leaving(job);
  while (is_with_thread(job)) {
    double now = clock_now().steady;
    held_signals_look(held, now);
    patience_look(patience, now, 0);
    if (patience_ends(patience, seconds))
      break;
    clock_wait(&worker.landed, &worker.mutex, patience_until(patience, seconds));
  }
  bool left = !is_with_thread(job);
  if (left)
    forget(job);
  pthread_mutex_unlock(&worker.mutex);
  return left;
}

bool background_let_go(struct background_job *job)
{
  pthread_mutex_lock(&worker.mutex);
  bool idle = !is_with_thread(job);
  if (idle)
    job->leaving = true;
  pthread_mutex_unlock(&worker.mutex);
  return idle;
}

bool background_start_leaving(struct background_job *job)
{
  pthread_mutex_lock(&worker.mutex);
  start_leaving(job);
  bool left = !is_with_thread(job);
  pthread_mutex_unlock(&worker.mutex);
  return left;
}

bool background_post(struct background_post *post)
{
  pthread_mutex_lock(&worker.mutex);
  bool possible = have_thread();
  if (possible) {
    worker.users++;
    post->forks = worker.forks;
    post->next = worker.posts;
    worker.posts = post;
    tell_thread();
  }
  pthread_mutex_unlock(&worker.mutex);
  return possible;
}

bool background_await(struct background_post *post)
{
  pthread_mutex_lock(&worker.mutex);
  bool ours = post->forks == worker.forks;
  while (ours && !atomic_load(&post->done))
    pthread_cond_wait(&worker.landed, &worker.mutex);
  if (ours)
    leave_thread();
  pthread_mutex_unlock(&worker.mutex);
  return ours;
}

void background_before_fork(void)
{
  pthread_mutex_lock(&worker.mutex);
}

/* The parent's thread, its session and what it was doing are not the child's. */
void background_after_fork(bool child)
{
  if (child) {
    for (struct background_job *job = worker.watched; job; job = job->next_watched) {
      job->active = 0;
      job->watched = job->pinned = job->posting = false;
      atomic_store(&job->stepping, false);
    }
    worker.running = worker.stopping = worker.told = false;
    worker.users = worker.in_session = worker.helpers = 0;
    worker.watched = worker.handed_in = worker.active = worker.waiting = NULL;
    worker.posts = NULL;
    worker.session = NULL;
    worker.forks++;
    clock_init_condition(&worker.landed);
  }
  pthread_mutex_unlock(&worker.mutex);
}
