#include "worker.h"

#include "../base/secret.h"
#include "parts.h"

#include <math.h>

/* Seconds. The accounts are looked after this often; a lock that another process holds is looked at this
 * often. */
#define ROUND 1.0
#define LOCK_PAUSE 0.005

/* The thread's own: no other touches it. */
static struct {
  struct background_job *active; /* flights under way, by run.next */
  struct http_session *session;
  int in_session; /* POSTs */
  double next_round;
} worker;

static const struct http_ops *http(void)
{
  return http_load(NULL, NULL, 0);
}

/* ---- one flight ---- */

static void end_flight(struct background_job *job)
{
  secret_free(turn_end(job->account, NULL, NULL));
  background_ended(job);
}

static bool open_session(void)
{
  if (worker.session)
    return true;
  worker.session = http() ? http()->open() : NULL;
  background_set_session(worker.session);
  return worker.session != NULL;
}

/* True: it is under way, and the session returns the tag. */
static bool start_post(const struct http_request *request, struct http_response *response, void *tag)
{
  static const char *const short_of = "this process has no memory or no file descriptor left (ulimit -n)";
  *response = (struct http_response){.reply = {.delivery = REPLY_NOT_SENT, .error = short_of}};
  if (!open_session() || !http()->begin(worker.session, request, response, tag))
    return false;
  worker.in_session++;
  return true;
}

static void post_for(struct background_job *job)
{
  struct http_request request = flight_request(job->account->flight.endpoints, &job->run.action);
  struct flight_event *came = &job->run.came;
  if (flight_refreshes(&job->run.action))
    turn_note_sent(job->account);
  job->run.posting = start_post(&request, &came->response, job);
  came->posted = true;
  came->event.reply = &came->response.reply;
}

static void pause_flight(struct background_job *job, double now)
{
  job->run.wait_until = now + job->run.action.seconds;
  job->run.wake_at = job->run.action.for_others ? fmin(job->run.wait_until, now + LOCK_PAUSE) : job->run.wait_until;
}

/* The lock's holder announces the end of it, and the page is cheaper to look at than the lock. */
static bool goes_on_waiting(struct background_job *job, double now)
{
  const struct flight *flight = &job->account->flight;
  if (!job->run.action.for_others || now >= job->run.wait_until || !flight->store->shared ||
      atomic_load_explicit(flight->store->generation, memory_order_acquire) != flight->seen)
    return false;
  job->run.wake_at = fmin(job->run.wait_until, now + LOCK_PAUSE);
  return true;
}

/* On a helper's thread. */
static void carry_out_step(void *data)
{
  struct background_job *job = data;
  if (job->run.action.step == FLOW_LOCK)
    turn_show(job->account);
  flight_step(&job->account->flight, &job->run.action, &job->run.came);
  background_step_done(&job->run.stepping);
}

static void ask_helper(struct background_job *job, void (*run)(void *data))
{
  job->run.task = (struct helper_task){.run = run, .data = job};
  helpers_run(&job->run.task);
}

/* Go on with a flight until it has to wait for something, or has ended: then false, and the job may be gone.
 * `came` holds the outcome of its last step. */
static bool proceed(struct background_job *job)
{
  for (;;) {
    job->run.came.event.now = clock_now();
    job->run.action = flow_next(job->account->flight.flow, &job->run.came.event);
    flight_clean_up(&job->run.came);
    job->run.came = (struct flight_event){.event = {.result = FLOW_OK}};
    if (job->run.action.step == FLOW_DONE) {
      end_flight(job);
      return false;
    }
    if (job->run.action.step == FLOW_WAIT) {
      pause_flight(job, clock_now().steady);
      return true;
    }
    if (job->run.action.step != FLOW_POST) {
      job->run.wake_at = 0;
      atomic_store(&job->run.stepping, true);
      ask_helper(job, carry_out_step);
      return true;
    }
    post_for(job);
    if (job->run.posting)
      return true;
  }
}

/* A flight that only waits to try again is left as it stands: the next one settles its mark. */
static void break_off(struct background_job *job)
{
  struct flight *flight = &job->account->flight;
  flow_abandon(flight->flow, true);
  flight->store->ops->unlock(flight->store);
  end_flight(job);
}

/* ---- all flights ---- */

static void take_over(struct background_job *jobs)
{
  while (jobs) {
    struct background_job *job = jobs;
    jobs = job->place.next_handed_in;
    job->run.came = (struct flight_event){.event = {.result = FLOW_OK}};
    job->run.wake_at = 0;
    job->run.posting = false;
    atomic_store(&job->run.stepping, false);
    job->run.next = worker.active;
    worker.active = job;
  }
}

static void start_posts(struct background_post *posts)
{
  while (posts) {
    struct background_post *post = posts;
    posts = post->next;
    if (!start_post(&post->request, &post->response, post))
      background_post_done(post);
  }
}

static void finish_transfer(void *tag)
{
  worker.in_session--;
  if (*(enum background_kind *)tag == BACKGROUND_POST) {
    background_post_done(tag);
    return;
  }
  struct background_job *job = tag;
  job->run.posting = false;
  job->run.wake_at = 0;
}

/* It waits for a server or a helper, which will tell. One that is pinned has its storage with a helper. */
static bool is_elsewhere(const struct background_job *job)
{
  return job->run.posting || atomic_load(&job->run.stepping) || background_is_pinned(job);
}

/* True: the flight is still under way. */
static bool go_on_with(struct background_job *job, double now)
{
  bool waiting = job->run.action.step == FLOW_WAIT && job->run.wake_at > 0;
  if (is_elsewhere(job))
    return true;
  if (waiting && background_is_leaving(job)) {
    break_off(job);
    return false;
  }
  return job->run.wake_at > now || (waiting && goes_on_waiting(job, now)) || proceed(job);
}

static void go_on_with_all(void)
{
  double now = clock_now().steady;
  struct background_job *jobs = worker.active, *next;
  worker.active = NULL;
  for (; jobs; jobs = next) {
    next = jobs->run.next;
    if (go_on_with(jobs, now)) {
      jobs->run.next = worker.active;
      worker.active = jobs;
    }
  }
}

/* On a helper's thread: whether the account is due is for the storage to say, too. */
static void look_after(void *data)
{
  struct background_job *job = data;
  background_unpin(job, turn_begin_if_due(job->account));
}

/* Refresh ahead, and notice other programs' changes, with nobody asking. */
static void make_a_round(void)
{
  double now = clock_now().steady;
  if (now < worker.next_round)
    return;
  worker.next_round = now + ROUND;
  struct background_job *job = background_pin(NULL), *next;
  for (; job; job = next) {
    next = background_pin(job); /* while this one is pinned */
    ask_helper(job, look_after);
  }
}

/* ---- the thread ---- */

/* Seconds until something is due; an account may have to be looked after. */
static double time_to_next(double now)
{
  double first = worker.next_round;
  for (const struct background_job *job = worker.active; job; job = job->run.next)
    if (job->run.wake_at < first && !is_elsewhere(job))
      first = job->run.wake_at;
  return fmax(first - now, 0);
}

/* A session that was not open yet could not be woken: so the news is looked for first. */
static void wait_for_something(void)
{
  double seconds = time_to_next(clock_now().steady);
  if (worker.in_session == 0) {
    background_wait_for_news(seconds);
    return;
  }
  if (background_has_news())
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
  struct background_job *jobs;
  struct background_post *posts;
  bool stays = background_take(&jobs, &posts);
  take_over(jobs);
  start_posts(posts);
  return stays || worker.active || worker.in_session > 0;
}

static void close_session(void)
{
  if (!worker.session)
    return;
  struct http_session *session = worker.session;
  worker.session = NULL;
  background_set_session(NULL); /* nobody wakes it from now on */
  http()->close(session);
}

static void *work(void *unused)
{
  (void)unused;
  worker.next_round = 0;
  while (take_what_was_handed_in()) {
    go_on_with_all();
    make_a_round();
    wait_for_something();
  }
  close_session();
  helpers_wait();
  return NULL;
}

/* ---- for everybody else ---- */

bool worker_begin(struct lucidauth_account *account, enum flow_goal goal)
{
  if (turn_refusal(account) || !background_watch(account->job, work))
    return false;
  turn_start(account, goal);
  background_submit(account->job);
  return true;
}

struct login *worker_begin_to_store(struct lucidauth_account *account, struct answer *given,
                                    const struct login_key *key)
{
  bool possible = !turn_refusal(account) && background_watch(account->job, work);
  struct login *login = possible ? turn_start_to_store(account, given, key) : NULL;
  if (login)
    background_submit(account->job);
  return login;
}

bool worker_post(struct background_post *post)
{
  return background_post(post, work);
}

void worker_after_fork(void)
{
  worker.active = NULL;
  worker.session = NULL;
  worker.in_session = 0;
}
