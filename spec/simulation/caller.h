/* The program that uses a worker's tokens: when it calls, for what, and what it does with the answer. */
#ifndef CALLER_H
#define CALLER_H

#include "simulation.h"

/* Time has come for a call. False: the token in hand still does. */
bool caller_calls(struct simulation *sim, struct worker *worker, enum flow_goal *goal);

/* A flight that stores a login has begun: hand the login over. */
void caller_gives(struct simulation *sim, struct worker *worker);

/* The call has ended. */
void caller_landed(struct simulation *sim, struct worker *worker);

#endif
