#include "helpers.h"

#include "../system/thread.h"

/* So many at a time. One that hangs with its disk holds up its own account; so many have to hang before they hold up
 * others. */
enum { HELPERS_MOST = 8 };

static struct {
  pthread_mutex_t mutex; /* over the rest; not held while a task runs */
  pthread_cond_t gone;   /* a helper has ended */
  int count;
  struct helper_task *waiting, **last_waiting; /* the first come first */
} helpers = {.mutex = PTHREAD_MUTEX_INITIALIZER, .gone = PTHREAD_COND_INITIALIZER};

/* With the mutex held. */
static void append_task(struct helper_task *task)
{
  if (!helpers.waiting)
    helpers.last_waiting = &helpers.waiting;
  task->next = NULL;
  *helpers.last_waiting = task;
  helpers.last_waiting = &task->next;
}

/* With the mutex held. */
static struct helper_task *take_task(void)
{
  struct helper_task *task = helpers.waiting;
  if (task)
    helpers.waiting = task->next;
  return task;
}

/* A helper goes when nothing waits for it. */
static void *help(void *unused)
{
  (void)unused;
  pthread_mutex_lock(&helpers.mutex);
  for (struct helper_task *task; (task = take_task()) != NULL; pthread_mutex_lock(&helpers.mutex)) {
    pthread_mutex_unlock(&helpers.mutex);
    task->run(task->data);
  }
  helpers.count--;
  pthread_cond_broadcast(&helpers.gone);
  pthread_mutex_unlock(&helpers.mutex);
  return NULL;
}

void helpers_run(struct helper_task *task)
{
  pthread_t helper;
  pthread_mutex_lock(&helpers.mutex);
  append_task(task);
  if (helpers.count < HELPERS_MOST && thread_start(&helper, help, false))
    helpers.count++;
  struct helper_task *left = helpers.count > 0 ? NULL : take_task();
  pthread_mutex_unlock(&helpers.mutex);
  if (left)
    left->run(left->data);
}

void helpers_wait(void)
{
  pthread_mutex_lock(&helpers.mutex);
  while (helpers.count > 0)
    pthread_cond_wait(&helpers.gone, &helpers.mutex);
  pthread_mutex_unlock(&helpers.mutex);
}

void helpers_before_fork(void)
{
  pthread_mutex_lock(&helpers.mutex);
}

/* A child that waited for the parent's threads would wait for ever: the condition starts anew. */
void helpers_after_fork(bool child)
{
  if (child) {
    helpers.count = 0;
    helpers.waiting = NULL;
    pthread_cond_init(&helpers.gone, NULL);
  }
  pthread_mutex_unlock(&helpers.mutex);
}
