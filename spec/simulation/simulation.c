#include "simulation.h"

#include "faults.h"
#include "invariants.h"
#include "network.h"
#include "process.h"
#include "script.h"
#include "server.h"
#include "storage.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An episode clears up after so many steps in any case, and has to come to rest within this many seconds. */
enum { STEPS_MOST = 40000 };
#define CALM_MOST 20000.0

bool simulation_can_ask(const struct simulation *sim)
{
  return sim->conditions.introspection && !sim->conditions.deaf;
}

bool simulation_strict(const struct simulation *sim, int account)
{
  return !sim->conditions.script && !sim->conditions.twin && simulation_can_ask(sim) &&
         !sim->accounts[account].disturbed;
}

struct moment simulation_moment(const struct simulation *sim, const struct worker *worker)
{
  const struct machine *machine = &sim->machines[worker->machine];
  return (struct moment){.wall = floor((SIMULATION_EPOCH + sim->now + machine->ahead) * 1000) / 1000,
                         .steady = 1000 + sim->now - machine->slept};
}

/* ---- the story ---- */

static void tell(const struct simulation *sim, const struct worker *worker, int account, const char *format,
                 va_list arguments)
{
  char who[20] = "", where[20] = "";
  if (worker)
    snprintf(who, sizeof who, "p%d", worker->process);
  if (account >= 0)
    snprintf(where, sizeof where, "a%d", account);
  printf("%14.6f  %-3s %-3s ", sim->now, where, who);
  vprintf(format, arguments);
  putchar('\n');
}

void simulation_tell(const struct simulation *sim, const struct worker *worker, int account, const char *format, ...)
{
  va_list arguments;
  if (!sim->story)
    return;
  va_start(arguments, format);
  tell(sim, worker, account, format, arguments);
  va_end(arguments);
}

void simulation_violate(struct simulation *sim, const struct worker *worker, int account, const char *format, ...)
{
  va_list arguments;
  if (sim->violated)
    return;
  sim->violated = true;
  int length = worker ? snprintf(sim->violation, VIOLATION, "p%d, account %d: ", worker->process, account)
                      : snprintf(sim->violation, VIOLATION, "account %d: ", account);
  va_start(arguments, format);
  vsnprintf(sim->violation + length, VIOLATION - (size_t)length, format, arguments);
  va_end(arguments);
  simulation_tell(sim, worker, account, "VIOLATION %s", sim->violation);
}

/* ---- an episode ---- */

static void set_up_account(struct simulation *sim, int number)
{
  struct account *account = &sim->accounts[number];
  struct pair issued;
  char text[800];
  account->of = sim->conditions.twin ? 0 : number;
  account->storage.owner = account->flight = account->grant = -1;
  account->storage.lock = 1;
  account->storage.of_program = sim->conditions.of_program;
  account->storage.lag = sim->conditions.lag;
  account->configured = account->of == number ? server_login(sim, number) : sim->accounts[account->of].configured;
  account->script.due = sim->conditions.script ? random_unit(&sim->random) : INFINITY;
  if (!sim->conditions.from_script || account->of != number)
    return;
  server_refresh(sim, account->configured, false, "the script", &issued);
  script_write(sim, text, sizeof text, &issued, sim->conditions.lifetime);
  storage_overwrite(sim, number, text);
  account->newest = account->storage.content;
}

static void set_up(struct simulation *sim, uint64_t seed, int processes)
{
  sim->random.state = sim->seed = seed;
  conditions_draw(&sim->conditions, &sim->random, processes);
  for (int i = 0; i < sim->conditions.accounts; i++)
    set_up_account(sim, i);
  for (int i = 0; i < MACHINES; i++)
    sim->machines[i].ahead = random_chance(&sim->random, 0.8) ? 0 : random_between(&sim->random, -100, 100);
  sim->apart = random_chance(&sim->random, 0.3) && sim->conditions.lock_vanishes == 0;
  for (int process = 0; process < sim->conditions.processes; process++)
    for (int account = 0; account < sim->conditions.accounts; account++) {
      struct worker *worker = &sim->workers[sim->worker_count++];
      worker->process = process;
      worker->account = account;
      worker->machine = sim->apart ? process % MACHINES : 0;
    }
  for (int i = 0; i < sim->worker_count; i++)
    process_start(sim, &sim->workers[i]);
  sim->fate_due = random_unit(&sim->random) * sim->conditions.every;
}

static void clear_up(struct simulation *sim)
{
  simulation_tell(sim, NULL, -1, "---- from here on nothing goes wrong ----");
  sim->calm = true;
  sim->calm_since = sim->now;
  sim->fate_due = INFINITY;
  sim->down_until = sim->odd_until = sim->now;
  if (sim->deaf_until < INFINITY)
    sim->deaf_until = sim->now;
  conditions_clear(&sim->conditions);
  for (int i = 0; i < sim->conditions.accounts; i++) {
    sim->accounts[i].storage.full_until = sim->now;
    sim->accounts[i].storage.lie = LIE_NONE;
    if (sim->accounts[i].script.doing == SCRIPT_SLEEPS)
      sim->accounts[i].script.due = INFINITY;
  }
  for (int i = 0; i < sim->worker_count; i++)
    sim->workers[i].starved_until = sim->now;
  for (int i = 0; i < sim->worker_count; i++)
    if (sim->workers[i].phase == PHASE_THINKS)
      sim->workers[i].due = fmin(sim->workers[i].due, sim->now + random_magnitude(&sim->random, 0.001, 100));
}

static bool at_rest(const struct simulation *sim)
{
  /* two folders take every login from one another where nobody can be asked */
  if (sim->conditions.twin && sim->accounts[0].grant + 1 == GRANTS)
    return true;
  for (int i = 0; i < sim->worker_count; i++)
    if (!sim->workers[i].calm_successes)
      return false;
  return true;
}

static void run_wires_and_workers(struct simulation *sim)
{
  struct wire *wire = network_next(sim);
  struct worker *worker = &sim->workers[0];
  for (int i = 1; i < sim->worker_count; i++)
    if (sim->workers[i].due < worker->due)
      worker = &sim->workers[i];
  if (wire && wire->arrives <= worker->due) {
    sim->now = fmax(sim->now, wire->arrives);
    network_arrive(sim, wire);
  } else {
    sim->now = fmax(sim->now, worker->due);
    process_step(sim, worker);
  }
}

static double next_due(const struct simulation *sim)
{
  double due = INFINITY;
  for (int i = 0; i < sim->worker_count; i++)
    due = fmin(due, sim->workers[i].due);
  return due;
}

/* Whether something happened to an account other than by its workers. */
static bool run_account(struct simulation *sim, int number, double due)
{
  struct account *account = &sim->accounts[number];
  struct storage *storage = &account->storage;
  if (storage->vanished && storage->back_at <= due) {
    sim->now = fmax(sim->now, storage->back_at);
    storage_come_back(sim, number);
    return true;
  }
  if (storage->lie && storage->honest_at <= due) {
    simulation_tell(sim, NULL, number, "the storage is honest again");
    storage->lie = LIE_NONE;
  }
  if (account->called_dead && account->login_due <= due) {
    sim->now = fmax(sim->now, account->login_due);
    faults_login(sim, number);
    return true;
  }
  if (account->script.due <= due) {
    sim->now = fmax(sim->now, account->script.due);
    script_step(sim, number);
    return true;
  }
  return false;
}

static void run_one(struct simulation *sim)
{
  double due = next_due(sim);
  if (sim->fate_due <= due) {
    sim->now = fmax(sim->now, sim->fate_due);
    faults_strike(sim);
    return;
  }
  for (int i = 0; i < sim->conditions.accounts; i++)
    if (run_account(sim, i, due))
      return;
  run_wires_and_workers(sim);
}

static bool has_room(const struct simulation *sim)
{
  for (int i = 0; i < sim->conditions.accounts; i++) {
    const struct account *account = &sim->accounts[sim->accounts[i].of];
    if (account->grant + 4 >= GRANTS || account->grants[account->grant].refresh + SERIALS / 4 >= SERIALS)
      return false;
  }
  return true;
}

static void tear_down(struct simulation *sim)
{
  for (int i = 0; i < sim->worker_count; i++)
    process_free(&sim->workers[i]);
  for (int i = 0; i < sim->conditions.accounts; i++) {
    storage_free(&sim->accounts[i].storage);
    free(sim->accounts[i].copy);
  }
}

static void check_rest(struct simulation *sim)
{
  for (int i = 0; i < sim->worker_count; i++)
    if (!sim->workers[i].calm_successes)
      simulation_violate(sim, &sim->workers[i], sim->workers[i].account,
                         "nothing has gone wrong for %.0f s, and there still is no token", sim->now - sim->calm_since);
}

bool simulation_run(struct simulation *sim, uint64_t seed, int processes, struct tally *tally, bool story)
{
  memset(sim, 0, sizeof *sim);
  sim->tally = tally;
  sim->story = story;
  tally->episodes++;
  set_up(sim, seed, processes);
  for (int step = 0; !sim->violated && !at_rest(sim); step++) {
    if (!sim->calm && (sim->refreshes >= sim->conditions.refreshes || step > STEPS_MOST || !has_room(sim)))
      clear_up(sim);
    if (sim->calm && sim->now > sim->calm_since + CALM_MOST)
      check_rest(sim);
    run_one(sim);
  }
  tear_down(sim);
  return !sim->violated;
}
