#include "weather.h"

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

static void draw_network(struct weather *weather, struct random *random)
{
  for (int i = FATE_GOOD + 1; i < FATES; i++)
    weather->fates[i] = random_chance(random, 0.7) ? 0 : random_magnitude(random, 0.001, 0.05);
  weather->fates[FATE_WRAPPED] *= 3;
  /* these keep the lock, and everybody waiting, for as long as a timeout */
  weather->fates[FATE_LATE] /= 10;
  weather->fates[FATE_SLOW] /= 10;
  weather->slow_network = maybe(random, 0.02);
  weather->odd = random_chance(random, 0.9) ? 0 : 0.05;
  weather->omit = random_chance(random, 0.8) ? 0 : random_unit(random);
}

static void draw_steps(struct weather *weather, struct random *random)
{
  weather->crash = maybe(random, 0.003);
  weather->crash_with_lock = maybe(random, 0.02);
  weather->crash_in_save = maybe(random, 0.02);
  weather->abandon = random_chance(random, 0.8) ? 0 : 0.005;
  weather->stall = maybe(random, 0.001);
  weather->slow_disk = maybe(random, 0.05);
  weather->load_fails = maybe(random, 0.01);
  weather->lock_fails = maybe(random, 0.02);
  weather->save_fails = maybe(random, 0.06);
  weather->save_fails_late = maybe(random, 0.03);
  weather->lock_vanishes = random_chance(random, 0.8) ? 0 : random_magnitude(random, 0.001, 0.05);
  weather->starve = random_chance(random, 0.6) ? 0 : random_magnitude(random, 0.001, 0.05);
  weather->memory = maybe(random, 0.05);
  weather->slow_connect = maybe(random, 0.02);
  weather->frozen = maybe(random, 0.02);
}

static void draw_calls(struct weather *weather, struct random *random)
{
  weather->refresh = maybe(random, 0.1);
  weather->look = maybe(random, 0.02);
  weather->reject = maybe(random, 0.05);
  weather->flood = maybe(random, 0.02);
  weather->fork = maybe(random, 0.9);
}

static void draw_events(struct weather *weather, struct random *random)
{
  weather->every = random_magnitude(random, 1000, 100000);
  weather->clock_back = maybe(random, 1);
  weather->clock_forward = maybe(random, 1);
  weather->suspend = maybe(random, 1);
  /* where the lock is gone, clocks are all that is left */
  if (weather->lock_vanishes > 0)
    weather->clock_back = weather->clock_forward = weather->suspend = 0;
  weather->machine_crash = maybe(random, 1);
  weather->full = maybe(random, 1);
  weather->down = maybe(random, 1);
  weather->revoke = maybe(random, 0.05);
  weather->login = maybe(random, 0.05);
  weather->restart = maybe(random, 1);
  weather->oddness = maybe(random, 1);
  weather->vanish = random_chance(random, 0.8) ? 0 : random_unit(random);
  weather->set_back = random_chance(random, 0.8) ? 0 : random_unit(random);
  weather->lie = weather->of_program ? maybe(random, 1) : 0;
  weather->deafness = weather->deaf ? random_unit(random) : 0;
}

/* Whose the storages are, and who else uses the grants. */
static void draw_surroundings(struct weather *weather, struct random *random)
{
  weather->introspection = random_chance(random, 0.9);
  weather->deaf = weather->introspection && random_chance(random, 0.1);
  weather->wording = random_chance(random, 0.3);
  weather->script = random_chance(random, 0.1);
  weather->from_script = random_chance(random, 0.2);
  weather->of_program = !weather->script && random_chance(random, 0.3);
  weather->lag = weather->of_program && random_chance(random, 0.5) ? random_magnitude(random, 0.001, 0.8) : 0;
  /* without introspection a flight asks twice in the time of one call: the stored grant, and another login */
  if (!weather->introspection || weather->deaf)
    weather->timeout = fmax(weather->timeout, 1);
  weather->lag = fmin(weather->lag, weather->timeout / 5); /* a call has to see its own saves */
  weather->twin = random_chance(random, 0.1);
  if (weather->twin)
    weather->accounts = 2;
}

void weather_draw(struct weather *weather, struct random *random, int processes)
{
  static const double lifetimes[] = {3600, 3600, 3600, 600, 60, 10};
  static const int crowds[] = {1, 1, 2, 2, 2, 3, 3, 5};
  memset(weather, 0, sizeof *weather);
  weather->processes = processes ? processes : crowds[random_below(random, sizeof crowds / sizeof *crowds)];
  weather->accounts = random_chance(random, 0.3) ? 1 + random_below(random, ACCOUNTS) : 1;
  weather->refreshes = 20 + random_below(random, 80);
  weather->timeout = random_chance(random, 0.1) ? 30 : random_magnitude(random, 0.2, 20);
  weather->lock_timeout = random_chance(random, 0.8) ? 60 : random_between(random, 0.1, 60);
  weather->refresh_wait = random_chance(random, 0.2) ? 2 : random_magnitude(random, 0.01, 2);
  weather->refresh_before = random_chance(random, 0.8) ? 300 : random_between(random, 0, 1000);
  weather->lifetime = lifetimes[random_below(random, sizeof lifetimes / sizeof *lifetimes)];
  draw_surroundings(weather, random);
  draw_network(weather, random);
  draw_steps(weather, random);
  draw_calls(weather, random);
  draw_events(weather, random);
}

void weather_clear(struct weather *weather)
{
  struct weather clear = {.processes = weather->processes,
                          .accounts = weather->accounts,
                          .refreshes = weather->refreshes,
                          .timeout = weather->timeout,
                          .lock_timeout = weather->lock_timeout,
                          .refresh_wait = weather->refresh_wait,
                          .refresh_before = weather->refresh_before,
                          .lifetime = weather->lifetime,
                          .introspection = weather->introspection,
                          .script = weather->script,
                          .from_script = weather->from_script,
                          .twin = weather->twin,
                          .of_program = weather->of_program,
                          .wording = weather->wording,
                          .deaf = weather->deaf,
                          .every = 1e12};
  *weather = clear;
}
