/* What has to hold at every step. Each function is told what has just happened. */
#ifndef INVARIANTS_H
#define INVARIANTS_H

#include "simulation.h"

/* A refresh token leaves this worker for the token endpoint; or for introspection. */
void invariants_sent(struct simulation *sim, struct worker *worker, struct token token);
void invariants_leaves(struct simulation *sim, struct worker *worker, struct token token, double in);
void invariants_not_sent(struct worker *worker, struct token token);
void invariants_asked(struct simulation *sim, struct worker *worker, struct token token);

/* The flow is about to be told what became of its POST. */
void invariants_told(struct simulation *sim, struct worker *worker, const struct wire *wire);

/* The server has seen a spent refresh token. */
void invariants_reuse(struct simulation *sim, struct token token, const char *who);

/* An action but a POST is about to take effect; a save is tried. */
void invariants_acts(struct simulation *sim, struct worker *worker);
void invariants_saves(struct simulation *sim, struct worker *worker);

/* A login is about to take the record's place. */
void invariants_stores(struct simulation *sim, struct worker *worker);

void invariants_loaded(struct simulation *sim, struct worker *worker);
void invariants_saved(struct simulation *sim, struct worker *worker);
void invariants_rolled_forward(struct simulation *sim, int account);
void invariants_unlocked(struct simulation *sim, struct worker *worker);

void invariants_took_off(struct simulation *sim, struct worker *worker);
void invariants_stepped(struct simulation *sim, struct worker *worker);
void invariants_landed(struct simulation *sim, struct worker *worker);
void invariants_rejected(struct worker *worker, struct token token);

/* The flight was broken off: only what was on its way to the storage is still there. */
void invariants_abandoned(struct worker *worker);

/* The worker's memory is gone. */
void invariants_died(struct worker *worker);

#endif
