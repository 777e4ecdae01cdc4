#include "faults.h"

#include "process.h"
#include "server.h"
#include "storage.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void set_clock(struct simulation *sim, int machine, double by)
{
  sim->machines[machine].ahead += by;
  sim->clocks_jumped = sim->now;
  simulation_tell(sim, NULL, -1, "the clock of machine %d is set %s by %.1f s", machine + 1,
                  by < 0 ? "back" : "forward", by < 0 ? -by : by);
}

static void suspend(struct simulation *sim, int machine)
{
  double seconds = random_magnitude(&sim->random, 0.1, 10000);
  simulation_tell(sim, NULL, -1, "machine %d is suspended for %.1f s", machine + 1, seconds);
  if (sim->now < sim->machines[machine].wakes)
    return;
  sim->machines[machine].slept += seconds;
  sim->clocks_jumped = sim->now + seconds;
  sim->machines[machine].wakes = sim->now + seconds;
  for (int i = 0; i < sim->worker_count; i++)
    if (sim->workers[i].machine == machine)
      sim->workers[i].due += seconds;
}

static void go_down(struct simulation *sim, int machine)
{
  simulation_tell(sim, NULL, -1, "machine %d goes down", machine + 1);
  for (int i = 0; i < sim->conditions.processes; i++)
    if (sim->workers[i * sim->conditions.accounts].machine == machine)
      process_kill(sim, i);
}

static void restart(struct simulation *sim)
{
  struct worker *worker = &sim->workers[random_below(&sim->random, sim->worker_count)];
  process_restart(worker, sim->now + 0.001);
}

static bool is_quiet(const struct simulation *sim, int account)
{
  if (sim->accounts[account].flight >= 0)
    return false;
  for (int i = 0; i < sim->worker_count; i++)
    if (sim->workers[i].account == account && sim->workers[i].known.held.refresh.kind)
      return false;
  return true;
}

/* A storage may lie about everything, but not begin to between the mark and the tokens: nobody could notice. */
static void lie(struct simulation *sim, int account)
{
  static const char *const lies[LIES] = {"", "loads nothing", "keeps nothing", "drops fields"};
  struct storage *storage = &sim->accounts[account].storage;
  if (!is_quiet(sim, account))
    return;
  sim->accounts[account].disturbed = true;
  storage->lie = (enum lie)(1 + random_below(&sim->random, LIES - 1));
  storage->honest_at = sim->now + random_magnitude(&sim->random, 1, 10000);
  simulation_tell(sim, NULL, account, "the storage %s for a while", lies[storage->lie]);
}

/* Somebody puts an old copy in place. */
static void set_back(struct simulation *sim, int account)
{
  struct account *of = &sim->accounts[account];
  if (!of->copy || !is_quiet(sim, account))
    return;
  of->disturbed = true;
  simulation_tell(sim, NULL, account, "an old copy of the record is put in place");
  storage_overwrite(sim, account, of->copy);
  of->newest = of->storage.content;
}

static void copy(struct simulation *sim, int account)
{
  struct account *of = &sim->accounts[account];
  free(of->copy);
  of->copy = of->storage.text ? strdup(of->storage.text) : NULL;
}

static void befall_storage(struct simulation *sim, int account)
{
  const struct conditions *conditions = &sim->conditions;
  struct random *random = &sim->random;
  if (random_chance(random, conditions->vanish)) {
    sim->accounts[account].disturbed = true;
    storage_vanish(sim, account, random_magnitude(random, 0.1, 10000));
  }
  if (random_chance(random, conditions->set_back))
    set_back(sim, account);
  if (random_chance(random, conditions->set_back))
    copy(sim, account);
  if (random_chance(random, conditions->lie))
    lie(sim, account);
}

static void befall_server(struct simulation *sim)
{
  static const enum fate odd[] = {FATE_WRAPPED,    FATE_WRAPPED,     FATE_WRAPPED, FATE_HALF,       FATE_REFUSED,
                                  FATE_PAGE_AFTER, FATE_PAGE_BEFORE, FATE_DENIED,  FATE_ERROR_AFTER};
  struct random *random = &sim->random;
  if (random_chance(random, sim->conditions.oddness)) {
    sim->odd_fate = odd[random_below(random, sizeof odd / sizeof *odd)];
    sim->odd_until = sim->now + random_magnitude(random, 1, 1000);
    simulation_tell(sim, NULL, -1, "for %.1f s every answer is: %s", sim->odd_until - sim->now,
                    fate_name(sim->odd_fate));
  }
  if (random_chance(random, sim->conditions.deafness)) {
    sim->deaf_until = random_chance(random, 0.3) ? INFINITY : sim->now + random_magnitude(random, 1, 100000);
    simulation_tell(sim, NULL, -1, "introspection is refused for %.1f s", sim->deaf_until - sim->now);
  }
}

void faults_strike(struct simulation *sim)
{
  const struct conditions *conditions = &sim->conditions;
  struct random *random = &sim->random;
  int machine = random_below(random, MACHINES), account = random_below(random, conditions->accounts);
  sim->fate_due = sim->now + random_between(random, 0, 2) * conditions->every;
  befall_storage(sim, account);
  befall_server(sim);
  if (random_chance(random, conditions->clock_back))
    set_clock(sim, machine, -random_magnitude(random, 0.1, 100000));
  if (random_chance(random, conditions->clock_forward))
    set_clock(sim, machine, random_magnitude(random, 0.1, 100000));
  if (random_chance(random, conditions->suspend))
    suspend(sim, machine);
  if (random_chance(random, conditions->machine_crash))
    go_down(sim, machine);
  if (random_chance(random, conditions->full)) {
    sim->accounts[account].storage.full_until = sim->now + random_magnitude(random, 0.1, 1000);
    simulation_tell(sim, NULL, account, "the disk is full for a while");
  }
  if (random_chance(random, conditions->down)) {
    sim->down_until = sim->now + random_magnitude(random, 0.1, 1000);
    simulation_tell(sim, NULL, -1, "the network is gone for %.1f s", sim->down_until - sim->now);
  }
  if (random_chance(random, conditions->revoke)) {
    server_revoke(sim, account);
    simulation_tell(sim, NULL, account, "the user revokes the grant");
  }
  if (random_chance(random, conditions->login))
    faults_login(sim, account);
  if (random_chance(random, conditions->restart))
    restart(sim);
}

void faults_login(struct simulation *sim, int account)
{
  struct account *asks = &sim->accounts[account];
  struct token token = server_login(sim, account);
  asks->called_dead = false;
  if (!token.kind)
    return;
  for (int i = 0; i < sim->conditions.accounts; i++)
    if (sim->accounts[i].of == asks->of)
      sim->accounts[i].configured = token;
  sim->tally->logins++;
  simulation_tell(sim, NULL, account, "the user logs in again: R%d-%d-0", token.account, token.grant);
  for (int i = 0; i < sim->worker_count; i++)
    if (sim->accounts[sim->workers[i].account].of == asks->of)
      process_restart(&sim->workers[i], sim->now + (sim->calm ? 0.001 : random_magnitude(&sim->random, 0.001, 30)));
}
