/* What happens to everybody at once, or to the user: clocks that jump, a machine that goes down, a full disk, a
 * network that is gone, a grant that is revoked, a new login. */
#ifndef FAULTS_H
#define FAULTS_H

#include "simulation.h"

void faults_strike(struct simulation *sim);

/* The user logs in again and configures the new refresh token; the processes are started anew with it, one after
 * the other. */
void faults_login(struct simulation *sim, int account);

#endif
