/* The virtual network: what becomes of each POST. */
#ifndef NETWORK_H
#define NETWORK_H

#include "simulation.h"

/* How long after a client has given up, or died, its request may still reach the server. */
#define NETWORK_LINGER 0.8

/* The worker's POST leaves now. worker->due is when its answer, or its failure, is there. */
void network_send(struct simulation *sim, struct worker *worker);

/* The request reaches the server now. */
void network_arrive(struct simulation *sim, struct wire *wire);

/* What the worker has been waiting for, in worker->event. False: the transport sends the request again by itself,
 * and the worker goes on waiting. */
bool network_return(struct simulation *sim, struct worker *worker);

/* Nobody waits for the answer of this worker's POST any more, if there is one. */
void network_forget(struct simulation *sim, struct worker *worker);

/* When the next request reaches the server; infinity: none is on its way. */
struct wire *network_next(struct simulation *sim);

#endif
