/* Threads that wait for disks, so that the one that looks after all accounts does not. They live as long as there is
 * something to wait for. */
#ifndef DRIVERS_HELPERS_H
#define DRIVERS_HELPERS_H

#include <stdbool.h>

/* Starts as {.run = ..., .data = ...}, and stays in its place until it runs. */
struct helper_task {
  void (*run)(void *data);
  void *data;
  struct helper_task *next;
};

/* Run it on a helper's thread, the first come first; on this one where there is none to be had. */
void helpers_run(struct helper_task *task);

/* Wait until all tasks are done. */
void helpers_wait(void);

/* Around fork(): helpers and their tasks stay with the parent. */
void helpers_before_fork(void);
void helpers_after_fork(bool child);

#endif
