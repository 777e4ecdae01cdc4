#include "storage.h"

#include "invariants.h"

#include <stdlib.h>
#include <string.h>

static struct storage *storage_of(struct simulation *sim, const struct worker *worker)
{
  return &sim->accounts[worker->account].storage;
}

static void fail(struct worker *worker, const char *text)
{
  worker->event = (struct flow_event){.result = FLOW_FAILED, .code = CODE_STORAGE, .text = text};
}

static void put(struct simulation *sim, struct storage *storage, const char *text)
{
  free(storage->text);
  storage->text = strdup(text);
  storage->content = token_find(text);
  storage->changed = sim->now;
  storage->version++;
}

static void drop_leftover(struct storage *storage)
{
  free(storage->leftover);
  storage->leftover = NULL;
}

static const char *describe(char out[2 * TOKEN_TEXT], const char *text)
{
  struct pair pair = token_find(text);
  char refresh[TOKEN_TEXT], access[TOKEN_TEXT];
  token_write(refresh, pair.refresh);
  token_write(access, pair.access);
  strcpy(out, *refresh ? refresh : "no refresh token");
  strcat(out, "/");
  strcat(out, *access ? access : "none");
  if (strstr(text, "\"pending\":"))
    strcat(out, ", marked");
  return out;
}

void storage_load(struct simulation *sim, struct worker *worker)
{
  struct storage *storage = storage_of(sim, worker);
  char what[2 * TOKEN_TEXT];
  worker->event = (struct flow_event){.result = FLOW_NONE};
  free(worker->loaded);
  worker->loaded = NULL;
  if (random_chance(&sim->random, sim->weather.load_fails)) {
    fail(worker, "The storage cannot be read.");
    simulation_tell(sim, worker, worker->account, "loads: it fails");
    return;
  }
  bool told = worker->tries > 0 && worker->seen == storage->version;
  worker->seen = storage->version;
  if (storage->text) {
    worker->loaded = strdup(storage->text);
    worker->event = (struct flow_event){.result = FLOW_OK, .text = worker->loaded};
  }
  if (sim->story && !told)
    simulation_tell(sim, worker, worker->account, "loads: %s", storage->text ? describe(what, storage->text) : "empty");
  invariants_loaded(sim, worker);
}

static void save(struct simulation *sim, struct worker *worker)
{
  struct storage *storage = storage_of(sim, worker);
  put(sim, storage, worker->action.record);
  drop_leftover(storage);
  worker->seen = storage->version;
  sim->tally->saves++;
  invariants_saved(sim, worker);
}

void storage_save(struct simulation *sim, struct worker *worker)
{
  struct storage *storage = storage_of(sim, worker);
  char what[2 * TOKEN_TEXT];
  const char *outcome = "";
  worker->event = (struct flow_event){.result = FLOW_CHANGED};
  if (worker->seen != storage->version) {
    simulation_tell(sim, worker, worker->account, "does not save: somebody else has written");
    return;
  }
  bool full = sim->now < storage->full_until || random_chance(&sim->random, sim->weather.save_fails);
  bool late = !full && random_chance(&sim->random, sim->weather.save_fails_late);
  worker->event = (struct flow_event){.result = FLOW_OK};
  if (full) {
    fail(worker, "The disk is full.");
    outcome = ": the disk is full";
  } else if (late) {
    fail(worker, "The folder cannot be synced.");
    outcome = ": it is there, but said to have failed";
  }
  sim->tally->failed_saves += full || late;
  if (sim->story)
    simulation_tell(sim, worker, worker->account, "saves %s%s", describe(what, worker->action.record), outcome);
  if (!full)
    save(sim, worker);
}

void storage_tear(struct simulation *sim, struct worker *worker)
{
  struct storage *storage = storage_of(sim, worker);
  switch (random_below(&sim->random, 3)) {
  case 0:
    simulation_tell(sim, worker, worker->account, "dies in a save, before the temporary file is complete");
    drop_leftover(storage);
    break;
  case 1:
    simulation_tell(sim, worker, worker->account, "dies in a save, before the rename");
    drop_leftover(storage);
    storage->leftover = strdup(worker->action.record);
    break;
  default:
    simulation_tell(sim, worker, worker->account, "dies in a save, behind the rename");
    save(sim, worker);
  }
}

void storage_lock(struct simulation *sim, struct worker *worker)
{
  struct storage *storage = storage_of(sim, worker);
  worker->event = (struct flow_event){.result = FLOW_OK};
  if (random_chance(&sim->random, sim->weather.lock_fails)) {
    fail(worker, "The lock cannot be had.");
    simulation_tell(sim, worker, worker->account, "locks: it fails");
    return;
  }
  if (storage->owner >= 0) {
    worker->event.result = FLOW_BUSY;
    if (worker->tries++ == 0)
      simulation_tell(sim, worker, worker->account, "waits for the lock: p%d holds it",
                      sim->workers[storage->owner].process);
    return;
  }
  worker->tries = 0;
  storage->owner = (int)(worker - sim->workers);
  simulation_tell(sim, worker, worker->account, "locks%s",
                  storage->leftover ? ", and puts a dead writer's temporary file in place" : "");
  if (storage->leftover) {
    put(sim, storage, storage->leftover);
    drop_leftover(storage);
    invariants_rolled_forward(sim, worker->account);
  }
}

void storage_unlock(struct simulation *sim, struct worker *worker)
{
  simulation_tell(sim, worker, worker->account, "unlocks");
  worker->event = (struct flow_event){.result = FLOW_OK};
  storage_drop_lock(sim, worker);
  invariants_unlocked(sim, worker);
}

void storage_drop_lock(struct simulation *sim, const struct worker *worker)
{
  struct account *account = &sim->accounts[worker->account];
  int self = (int)(worker - sim->workers);
  if (account->storage.owner == self)
    account->storage.owner = -1;
  if (account->flight == self)
    account->flight = -1;
}

void storage_overwrite(struct simulation *sim, int account, const char *text)
{
  struct storage *storage = &sim->accounts[account].storage;
  put(sim, storage, text);
  drop_leftover(storage);
}

void storage_free(struct storage *storage)
{
  free(storage->text);
  free(storage->leftover);
  storage->text = storage->leftover = NULL;
}
