#include "conditions.h"

#include "simulation.h"

#include <math.h>
#include <string.h>

const char *fate_name(enum fate fate)
{
  static const char *const names[FATES] = {
      [FATE_GOOD] = "answered",
      [FATE_NOT_SENT] = "no connection",
      [FATE_LOST_BEFORE] = "lost before the server",
      [FATE_LOST_AFTER] = "answer lost",
      [FATE_LATE] = "reaches the server late",
      [FATE_SLOW] = "answer too late",
      [FATE_HALF] = "half an answer",
      [FATE_ERROR_BEFORE] = "500 without doing it",
      [FATE_ERROR_AFTER] = "500 after doing it",
      [FATE_PAGE_BEFORE] = "a web page without doing it",
      [FATE_PAGE_AFTER] = "a web page after doing it",
      [FATE_CUT] = "an endless answer",
      [FATE_SLOW_DOWN] = "429",
      [FATE_UNAVAILABLE] = "503 with Retry-After",
      [FATE_DENIED] = "invalid_client",
      [FATE_REDIRECT] = "redirect",
      [FATE_TWICE] = "answered twice",
      [FATE_WRAPPED] = "tokens one level down",
      [FATE_REFUSED] = "refused in unknown words",
      [FATE_GATEWAY] = "given up by a gateway too soon",
  };
  return names[fate];
}

/* Nothing in half of all episodes, else anything up to `most`. */
static double maybe(struct random *random, double most)
{
  return random_chance(random, 0.5) ? 0 : random_magnitude(random, most / 100, most);
}

static void draw_network(struct conditions *conditions, struct random *random)
{
  for (int i = FATE_GOOD + 1; i < FATES; i++)
    conditions->fates[i] = random_chance(random, 0.7) ? 0 : random_magnitude(random, 0.001, 0.05);
  conditions->fates[FATE_WRAPPED] *= 3;
  /* these keep the lock, and everybody waiting, for as long as a timeout */
  conditions->fates[FATE_LATE] /= 10;
  conditions->fates[FATE_SLOW] /= 10;
  conditions->slow_network = maybe(random, 0.02);
  conditions->odd = random_chance(random, 0.9) ? 0 : 0.05;
  conditions->omit = random_chance(random, 0.8) ? 0 : random_unit(random);
}

static void draw_steps(struct conditions *conditions, struct random *random)
{
  conditions->crash = maybe(random, 0.003);
  conditions->crash_with_lock = maybe(random, 0.02);
  conditions->crash_in_save = maybe(random, 0.02);
  conditions->abandon = random_chance(random, 0.8) ? 0 : 0.005;
  conditions->stall = maybe(random, 0.001);
  conditions->slow_disk = maybe(random, 0.05);
  conditions->load_fails = maybe(random, 0.01);
  conditions->lock_fails = maybe(random, 0.02);
  conditions->save_fails = maybe(random, 0.06);
  conditions->save_fails_late = maybe(random, 0.03);
  conditions->lock_vanishes = random_chance(random, 0.8) ? 0 : random_magnitude(random, 0.001, 0.05);
  conditions->starve = random_chance(random, 0.6) ? 0 : random_magnitude(random, 0.001, 0.05);
  conditions->memory = maybe(random, 0.05);
  conditions->slow_connect = maybe(random, 0.02);
  conditions->frozen = maybe(random, 0.02);
  conditions->drop = conditions->of_program ? maybe(random, 0.05) : 0;
}

static void draw_calls(struct conditions *conditions, struct random *random)
{
  conditions->refresh = maybe(random, 0.1);
  conditions->look = maybe(random, 0.02);
  conditions->reject = maybe(random, 0.05);
  conditions->flood = maybe(random, 0.02);
  conditions->fork = maybe(random, 0.9);
  conditions->store = maybe(random, 0.1);
}

static void draw_events(struct conditions *conditions, struct random *random)
{
  conditions->every = random_magnitude(random, 1000, 100000);
  conditions->clock_back = maybe(random, 1);
  conditions->clock_forward = maybe(random, 1);
  conditions->suspend = maybe(random, 1);
  /* where the lock is gone, clocks are all that is left */
  if (conditions->lock_vanishes > 0)
    conditions->clock_back = conditions->clock_forward = conditions->suspend = 0;
  conditions->machine_crash = maybe(random, 1);
  conditions->full = maybe(random, 1);
  conditions->down = maybe(random, 1);
  conditions->revoke = maybe(random, 0.05);
  conditions->login = maybe(random, 0.05);
  conditions->restart = maybe(random, 1);
  conditions->oddness = maybe(random, 1);
  conditions->vanish = random_chance(random, 0.8) ? 0 : random_unit(random);
  conditions->set_back = random_chance(random, 0.8) ? 0 : random_unit(random);
  conditions->lie = conditions->of_program ? maybe(random, 1) : 0;
  conditions->deafness = conditions->deaf ? random_unit(random) : 0;
}

/* Whose the storages are, and who else uses the grants. */
static void draw_surroundings(struct conditions *conditions, struct random *random)
{
  conditions->introspection = random_chance(random, 0.9);
  conditions->deaf = conditions->introspection && random_chance(random, 0.1);
  conditions->wording = random_chance(random, 0.3);
  conditions->script = random_chance(random, 0.1);
  conditions->from_script = random_chance(random, 0.2);
  conditions->of_program = !conditions->script && random_chance(random, 0.3);
  conditions->lag = conditions->of_program && random_chance(random, 0.5) ? random_magnitude(random, 0.001, 0.8) : 0;
  /* without introspection a flight asks twice in the time of one call: the stored grant, and another login */
  if (!conditions->introspection || conditions->deaf)
    conditions->timeout = fmax(conditions->timeout, 1);
  conditions->lag = fmin(conditions->lag, conditions->timeout / 5); /* a call has to see its own saves */
  conditions->twin = random_chance(random, 0.1);
  if (conditions->twin)
    conditions->accounts = 2;
}

void conditions_draw(struct conditions *conditions, struct random *random, int processes)
{
  static const double lifetimes[] = {3600, 3600, 3600, 600, 60, 10};
  static const int crowds[] = {1, 1, 2, 2, 2, 3, 3, 5};
  memset(conditions, 0, sizeof *conditions);
  conditions->processes = processes ? processes : crowds[random_below(random, sizeof crowds / sizeof *crowds)];
  conditions->accounts = random_chance(random, 0.3) ? 1 + random_below(random, ACCOUNTS) : 1;
  conditions->refreshes = 20 + random_below(random, 80);
  conditions->timeout = random_chance(random, 0.1) ? 30 : random_magnitude(random, 0.2, 20);
  conditions->lock_timeout = random_chance(random, 0.8) ? 60 : random_between(random, 0.1, 60);
  conditions->refresh_wait = random_chance(random, 0.2) ? 2 : random_magnitude(random, 0.01, 2);
  conditions->refresh_before = random_chance(random, 0.8) ? 300 : random_between(random, 0, 1000);
  conditions->lifetime = lifetimes[random_below(random, sizeof lifetimes / sizeof *lifetimes)];
  draw_surroundings(conditions, random);
  draw_network(conditions, random);
  draw_steps(conditions, random);
  draw_calls(conditions, random);
  draw_events(conditions, random);
}

void conditions_clear(struct conditions *conditions)
{
  struct conditions clear = {.processes = conditions->processes,
                             .accounts = conditions->accounts,
                             .refreshes = conditions->refreshes,
                             .timeout = conditions->timeout,
                             .lock_timeout = conditions->lock_timeout,
                             .refresh_wait = conditions->refresh_wait,
                             .refresh_before = conditions->refresh_before,
                             .lifetime = conditions->lifetime,
                             .introspection = conditions->introspection,
                             .script = conditions->script,
                             .from_script = conditions->from_script,
                             .twin = conditions->twin,
                             .of_program = conditions->of_program,
                             .wording = conditions->wording,
                             .deaf = conditions->deaf,
                             .every = 1e12};
  *conditions = clear;
}
