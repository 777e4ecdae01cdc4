#include "misfortune.h"

#include "process.h"
#include "server.h"

static void set_clock(struct simulation *sim, int machine, double by)
{
  sim->machines[machine].ahead += by;
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
  sim->machines[machine].wakes = sim->now + seconds;
  for (int i = 0; i < sim->worker_count; i++)
    if (sim->workers[i].machine == machine)
      sim->workers[i].due += seconds;
}

static void go_down(struct simulation *sim, int machine)
{
  simulation_tell(sim, NULL, -1, "machine %d goes down", machine + 1);
  for (int i = 0; i < sim->weather.processes; i++)
    if (sim->workers[i * sim->weather.accounts].machine == machine)
      process_kill(sim, i);
}

static void restart(struct simulation *sim)
{
  struct worker *worker = &sim->workers[random_below(&sim->random, sim->worker_count)];
  process_restart(worker, sim->now + 0.001);
}

void misfortune_strike(struct simulation *sim)
{
  const struct weather *weather = &sim->weather;
  struct random *random = &sim->random;
  int machine = random_below(random, MACHINES), account = random_below(random, weather->accounts);
  sim->fate_due = sim->now + random_between(random, 0, 2) * weather->every;
  if (random_chance(random, weather->clock_back))
    set_clock(sim, machine, -random_magnitude(random, 0.1, 100000));
  if (random_chance(random, weather->clock_forward))
    set_clock(sim, machine, random_magnitude(random, 0.1, 100000));
  if (random_chance(random, weather->suspend))
    suspend(sim, machine);
  if (random_chance(random, weather->machine_crash))
    go_down(sim, machine);
  if (random_chance(random, weather->full)) {
    sim->accounts[account].storage.full_until = sim->now + random_magnitude(random, 0.1, 1000);
    simulation_tell(sim, NULL, account, "the disk is full for a while");
  }
  if (random_chance(random, weather->down)) {
    sim->down_until = sim->now + random_magnitude(random, 0.1, 1000);
    simulation_tell(sim, NULL, -1, "the network is gone for %.1f s", sim->down_until - sim->now);
  }
  if (random_chance(random, weather->revoke)) {
    server_revoke(sim, account);
    simulation_tell(sim, NULL, account, "the user revokes the grant");
  }
  if (random_chance(random, weather->login))
    misfortune_login(sim, account);
  if (random_chance(random, weather->restart))
    restart(sim);
}

void misfortune_login(struct simulation *sim, int account)
{
  struct account *of = &sim->accounts[account];
  struct token token = server_login(sim, account);
  of->called_dead = false;
  if (!token.kind)
    return;
  of->configured = token;
  sim->tally->logins++;
  simulation_tell(sim, NULL, account, "the user logs in again: R%d-%d-0", account, token.grant);
  for (int i = 0; i < sim->worker_count; i++)
    if (sim->workers[i].account == account)
      process_restart(&sim->workers[i], sim->now + (sim->calm ? 0.001 : random_magnitude(&sim->random, 0.001, 30)));
}
