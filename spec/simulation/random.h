/* Every choice of a run, drawn from its seed. */
#ifndef RANDOM_H
#define RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct random {
  uint64_t state;
};

uint64_t random_next(struct random *random);

/* From 0 up to, but not, 1. */
double random_unit(struct random *random);

double random_between(struct random *random, double least, double most);

/* As likely between 0.001 and 0.01 as between 0.01 and 0.1; `least` > 0. */
double random_magnitude(struct random *random, double least, double most);

/* From 0 to `count` - 1. */
int random_below(struct random *random, int count);

bool random_chance(struct random *random, double probability);

#endif
