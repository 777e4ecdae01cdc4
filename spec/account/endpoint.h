/* A token endpoint inside the process, in the place of libcurl: it rotates "A1", "R1" to "A2", "R2" and so on, starting
 * from "R0", and says what it has seen. Forked children talk to the same one. */
#ifndef SPEC_ACCOUNT_ENDPOINT_H
#define SPEC_ACCOUNT_ENDPOINT_H

#include <stdatomic.h>
#include <stdbool.h>

struct endpoint {
  atomic_int rotation; /* the tokens in use are A<rotation> and R<rotation> */
  atomic_int status;   /* of its answers; 200: tokens for the right refresh token */
  atomic_int posts;    /* refreshes that have arrived */
  atomic_int reuses;   /* of them, those with a dead refresh token */
  atomic_int answered; /* of them, those that an answer was given to */
  atomic_int gate;     /* as many refreshes are answered; others wait */
  atomic_int asked;    /* introspections */
};

extern struct endpoint *endpoint;

enum { ENDPOINT_PATIENCE = 120 }; /* seconds that a test waits for what must come */

/* A new one, that answers at once. */
void endpoint_start(void);
void endpoint_stop(void);

/* Answers no refresh from now on until it is told to go on, or until it is to answer one more. */
void endpoint_hold(void);
void endpoint_answer(int count);
void endpoint_go_on(void);

/* Wait until so many refreshes have arrived. */
bool endpoint_has_seen(int posts);

/* Seconds of the steady clock, and a pause that is short for people. */
double endpoint_now(void);
void endpoint_pause(void);

#endif
