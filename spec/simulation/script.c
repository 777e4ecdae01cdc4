#include "script.h"

#include "calendar_of.h"
#include "server.h"
#include "storage.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void script_write(const struct simulation *sim, char *text, size_t size, const struct pair *pair, double dies)
{
  struct civil local;
  server_write(sim, text, size, pair);
  calendar_of_epoch(SIMULATION_EPOCH + dies, &local);
  size_t end = strlen(text) - 1;
  snprintf(text + end, size - end, ",\"expiration\":\"%04d-%02d-%02dT%02d:%02d:%02d.%06d\"}", local.year, local.month,
           local.day, local.hour, local.minute, local.second, local.microsecond);
}

static void sleep(struct simulation *sim, struct script *script)
{
  script->doing = SCRIPT_SLEEPS;
  double left = script->dies > sim->now ? script->dies - sim->now : 0;
  if (left > 300)
    left -= 300;
  script->due = sim->calm ? INFINITY : sim->now + left + random_magnitude(&sim->random, 0.01, 5);
}

static void wake(struct simulation *sim, int account)
{
  struct script *script = &sim->accounts[account].script;
  const struct storage *storage = &sim->accounts[account].storage;
  script->pair = storage->content;
  if (!script->pair.refresh.kind || !random_chance(&sim->random, 0.6)) {
    script->dies = sim->now + sim->conditions.lifetime;
    sleep(sim, script);
    return;
  }
  script->doing = SCRIPT_ASKS;
  script->due = sim->now + random_magnitude(&sim->random, 0.01, 0.3);
}

static void ask(struct simulation *sim, int account)
{
  struct script *script = &sim->accounts[account].script;
  struct pair issued;
  if (!server_refresh(sim, script->pair.refresh, false, "the script", &issued)) {
    script->dies = sim->now + sim->conditions.lifetime;
    sleep(sim, script);
    return;
  }
  simulation_tell(sim, NULL, account, "the script refreshes, and empties the file");
  script->pair = issued;
  script->dies = sim->now + sim->conditions.lifetime;
  script->doing = SCRIPT_WRITES;
  script->due = sim->now + random_magnitude(&sim->random, 0.0001, 0.1);
  if (random_chance(&sim->random, 0.5))
    storage_overwrite(sim, account, "");
}

static void write(struct simulation *sim, int account)
{
  char text[800];
  struct script *script = &sim->accounts[account].script;
  script_write(sim, text, sizeof text, &script->pair, script->dies);
  storage_overwrite(sim, account, text);
  simulation_tell(sim, NULL, account, "the script has written its tokens");
  sleep(sim, script);
}

void script_step(struct simulation *sim, int account)
{
  switch (sim->accounts[account].script.doing) {
  case SCRIPT_SLEEPS:
    wake(sim, account);
    break;
  case SCRIPT_ASKS:
    ask(sim, account);
    break;
  default:
    write(sim, account);
  }
}
