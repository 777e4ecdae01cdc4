/* Workers: the flow of one account in one process, carried out action by action, and the caller behind it. */
#ifndef PROCESS_H
#define PROCESS_H

#include "simulation.h"

/* Start a new process for this worker, with an empty memory. */
void process_start(struct simulation *sim, struct worker *worker);

/* The worker's next step is due. */
void process_step(struct simulation *sim, struct worker *worker);

/* Kill a process: all its workers, their memory, their locks. New ones start soon. */
void process_kill(struct simulation *sim, int process);

/* End the worker's process in good order as soon as its flight is over, and start another one with what is
 * configured by then. */
void process_restart(struct worker *worker, double due);

void process_free(struct worker *worker);

#endif
