/* The functions that the pure part gets from outside. Their results depend on their arguments alone; they do not wait,
 * read or remember. */
#ifndef BASE_WORLD_H
#define BASE_WORLD_H

#include <stdbool.h>
#include <stddef.h>

/* A wall clock reading without a zone, as Python's naive datetime has it. */
struct civil {
  int year, month, day; /* month and day count from 1 */
  int hour, minute, second;
  int microsecond;
};

/* Two clocks at one moment, in seconds; or a deadline by both, which has come when either says so. */
struct moment {
  double wall;   /* since the epoch; may be set back, goes on during suspend */
  double steady; /* since any fixed point; never set back, may stand still during suspend */
};

static inline bool moment_has_come(struct moment deadline, struct moment now)
{
  return now.wall >= deadline.wall || now.steady >= deadline.steady;
}

/* Seconds until then, by the clock that says less. */
static inline double moment_left(struct moment deadline, struct moment now)
{
  double by_wall = deadline.wall - now.wall, by_steady = deadline.steady - now.steady;
  return by_wall < by_steady ? by_wall : by_steady;
}

static inline struct moment moment_after(struct moment from, double seconds)
{
  return (struct moment){.wall = from.wall + seconds, .steady = from.steady + seconds};
}

struct world {
  /* Epoch seconds as local time. False when it cannot be expressed. */
  bool (*to_local)(double epoch, struct civil *local);
  /* Local time as epoch seconds: the earlier moment when the hour occurs twice. NaN when it cannot be expressed. */
  double (*from_local)(const struct civil *local);
  /* SHA-256 (FIPS 180-4). */
  void (*sha256)(const void *data, size_t size, unsigned char digest[32]);
};

#endif
