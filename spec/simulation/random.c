#include "random.h"

#include <math.h>

/* splitmix64 (Steele, Lea, Flood 2014) */
uint64_t random_next(struct random *random)
{
  uint64_t z = random->state += 0x9E3779B97F4A7C15u;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
  z = (z ^ z >> 27) * 0x94D049BB133111EBu;
  return z ^ z >> 31;
}

double random_unit(struct random *random)
{
  return (double)(random_next(random) >> 11) / 9007199254740992.0;
}

double random_between(struct random *random, double least, double most)
{
  return least + (most - least) * random_unit(random);
}

double random_magnitude(struct random *random, double least, double most)
{
  return exp(random_between(random, log(least), log(most)));
}

int random_below(struct random *random, int count)
{
  return (int)(random_unit(random) * count);
}

bool random_chance(struct random *random, double probability)
{
  return probability > 0 && random_unit(random) < probability;
}
