#include "process.h"

#include "calendar_of.h"
#include "caller.h"
#include "invariants.h"
#include "network.h"
#include "storage.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void digest(const void *data, size_t size, unsigned char out[32])
{
  /* FNV-1a: tells the tokens of a simulation apart, at a hundredth of the cost */
  const unsigned char *bytes = data;
  uint64_t hash = 0xCBF29CE484222325u;
  for (size_t i = 0; i < size; i++)
    hash = (hash ^ bytes[i]) * 0x100000001B3u;
  for (size_t i = 0; i < 32; i++)
    out[i] = (unsigned char)(hash >> (i % 8) * 8);
}

/* ---- memory that runs out ---- */

static int allocations_left = -1; /* until one fails; negative: none does */

static void *allocate(size_t size)
{
  if (allocations_left >= 0 && allocations_left-- == 0)
    return NULL;
  return malloc(size);
}

static void watch_memory(void)
{
  static cJSON_Hooks hooks = {allocate, free};
  cJSON_InitHooks(&hooks);
}

static struct flow_settings settings(const struct simulation *sim, const struct worker *worker)
{
  const struct conditions *conditions = &sim->conditions;
  return (struct flow_settings){
      .credentials = {.client_id = "cid", .client_secret = "hush"},
      .refresh_token = worker->configured,
      .storage = "the storage",
      .refresh_before = conditions->refresh_before,
      .refresh_wait = conditions->refresh_wait,
      .timeout = conditions->timeout,
      .lock_timeout = conditions->lock_timeout,
      .default_lifetime = 3600,
      .introspection = conditions->introspection,
      .reads_back = sim->accounts[worker->account].storage.of_program,
      .pid = 1000 + (long)worker->life,
      .host = worker->machine ? "two" : "one",
      .world = {.to_local = calendar_of_epoch, .from_local = calendar_epoch, .sha256 = digest}};
}

void process_start(struct simulation *sim, struct worker *worker)
{
  watch_memory();
  token_write(worker->configured, sim->accounts[worker->account].configured);
  worker->settings = settings(sim, worker);
  worker->flow = flow_new(&worker->settings, random_next(&sim->random));
  worker->wire = -1;
  worker->lock = 0;
  worker->holds = false;
  worker->starved_until = sim->now;
  worker->flying = worker->restart_wanted = worker->connected = worker->stale_answer = false;
  worker->cached[0] = '\0';
  worker->phase = PHASE_THINKS;
  worker->due = sim->now + random_magnitude(&sim->random, 0.001, sim->calm ? 1 : 30);
}

void process_free(struct worker *worker)
{
  flow_free(worker->flow);
  worker->flow = NULL;
  free(worker->loaded);
  worker->loaded = NULL;
}

static void end(struct simulation *sim, struct worker *worker)
{
  network_forget(sim, worker);
  storage_drop_lock(sim, worker);
  invariants_died(worker);
  process_free(worker);
  worker->life++;
  process_start(sim, worker);
}

void process_kill(struct simulation *sim, int process)
{
  sim->tally->crashes++;
  simulation_tell(sim, NULL, -1, "p%d is killed", process);
  for (int i = 0; i < sim->worker_count; i++)
    if (sim->workers[i].process == process)
      end(sim, &sim->workers[i]);
}

void process_restart(struct worker *worker, double due)
{
  worker->restart_wanted = true;
  worker->restart_due = due;
  if (!worker->flying && worker->due > due)
    worker->due = due;
}

/* ---- actions ---- */

static double disk(struct simulation *sim)
{
  if (random_chance(&sim->random, sim->conditions.slow_disk))
    return random_magnitude(&sim->random, 0.01, 3);
  return random_magnitude(&sim->random, 0.00005, 0.002);
}

/* Between the mark and the request. */
static void freeze(struct simulation *sim, struct worker *worker)
{
  double seconds = random_magnitude(&sim->random, 0.1, 5 * sim->conditions.timeout);
  simulation_tell(sim, worker, worker->account, "is frozen for %.2f s before it sends", seconds);
  worker->due += seconds;
  worker->excused += seconds;
}

static void follow(struct simulation *sim, struct worker *worker)
{
  switch (worker->action.step) {
  case FLOW_DONE:
    invariants_landed(sim, worker);
    caller_landed(sim, worker);
    break;
  case FLOW_WAIT:
    worker->phase = PHASE_WAITS;
    worker->due = sim->now + worker->action.seconds;
    break;
  case FLOW_POST:
    worker->phase = PHASE_BEGINS;
    worker->decided = simulation_moment(sim, worker).steady;
    worker->due = sim->now + random_magnitude(&sim->random, 0.00001, 0.001);
    if (worker->lock && random_chance(&sim->random, 4 * sim->conditions.lock_vanishes)) {
      storage_remove_lock(sim, worker->account);
      freeze(sim, worker);
    } else if (random_chance(&sim->random, sim->conditions.frozen)) {
      freeze(sim, worker);
    }
    break;
  default:
    worker->phase = PHASE_BEGINS;
    worker->due = sim->now + disk(sim);
    worker->excused += worker->due - sim->now;
  }
}

static void tell_flow(struct simulation *sim, struct worker *worker)
{
  bool refreshed = worker->wire >= 0 && sim->wires[worker->wire].endpoint == REQUEST_TOKEN;
  if (worker->wire >= 0)
    invariants_told(sim, worker, &sim->wires[worker->wire]);
  if (refreshed && random_chance(&sim->random, sim->conditions.memory))
    allocations_left = random_below(&sim->random, 60);
  worker->event.now = simulation_moment(sim, worker);
  int state = flow_state(worker->flow);
  worker->action = flow_next(worker->flow, &worker->event);
  diagram_draw(&sim->tally->diagram, state, flow_state(worker->flow));
  allocations_left = -1;
  sim->tally->steps++;
  network_forget(sim, worker);
  invariants_stepped(sim, worker);
  follow(sim, worker);
}

static bool crashes(struct simulation *sim, struct worker *worker)
{
  bool holds = sim->accounts[worker->account].storage.owner == (int)(worker - sim->workers);
  if (!random_chance(&sim->random, sim->conditions.crash + (holds ? sim->conditions.crash_with_lock : 0)))
    return false;
  process_kill(sim, worker->process);
  return true;
}

static bool is_abandoned(struct simulation *sim, struct worker *worker)
{
  if (!random_chance(&sim->random, sim->conditions.abandon))
    return false;
  /* while new tokens are not stored, the lock has to stay where they are */
  bool unsaved = flow_unsaved(worker->flow) || (worker->action.step == FLOW_SAVE && !worker->action.spends);
  bool unknown = worker->action.step == FLOW_LOCK || worker->action.step == FLOW_UNLOCK;
  bool unlocked = !unsaved && (unknown || random_chance(&sim->random, 0.5));
  simulation_tell(sim, worker, worker->account, "breaks its flight off%s", unlocked ? ", and gives the lock back" : "");
  flow_abandon(worker->flow, unlocked);
  network_forget(sim, worker);
  if (unlocked)
    storage_drop_lock(sim, worker);
  invariants_abandoned(worker);
  caller_landed(sim, worker);
  return true;
}

/* The effect is there; the process may still be gone before it knows, or be held up. */
static void returned(struct simulation *sim, struct worker *worker)
{
  worker->phase = PHASE_RETURNS;
  worker->known.effect = sim->now;
  if (worker->lock && random_chance(&sim->random, sim->conditions.lock_vanishes))
    storage_remove_lock(sim, worker->account);
  if (crashes(sim, worker))
    return;
  if (random_chance(&sim->random, sim->conditions.stall)) {
    double held_up = random_magnitude(&sim->random, 0.01, 10);
    simulation_tell(sim, worker, worker->account, "is held up for %.2f s", held_up);
    worker->excused += held_up;
    worker->due = sim->now + held_up;
  } else if (random_chance(&sim->random, 0.2)) {
    worker->due = sim->now + random_magnitude(&sim->random, 0.00001, 0.001);
    worker->excused += worker->due - sim->now;
  } else if (!is_abandoned(sim, worker)) {
    tell_flow(sim, worker);
  }
}

static void take_effect(struct simulation *sim, struct worker *worker)
{
  invariants_acts(sim, worker);
  if (worker->action.step == FLOW_SAVE && random_chance(&sim->random, sim->conditions.crash_in_save)) {
    storage_tear(sim, worker);
    process_kill(sim, worker->process);
    return;
  }
  if (crashes(sim, worker))
    return;
  switch (worker->action.step) {
  case FLOW_LOAD:
    storage_load(sim, worker);
    break;
  case FLOW_LOCK:
    storage_lock(sim, worker);
    break;
  case FLOW_HOLD:
    storage_hold(sim, worker);
    break;
  case FLOW_SAVE:
    storage_save(sim, worker);
    break;
  case FLOW_UNLOCK:
    storage_unlock(sim, worker);
    break;
  default:
    network_send(sim, worker);
    return;
  }
  returned(sim, worker);
}

static void waited(struct simulation *sim, struct worker *worker)
{
  if (random_chance(&sim->random, sim->conditions.starve)) {
    worker->starved_until = sim->now + random_magnitude(&sim->random, 0.1, 1000);
    simulation_tell(sim, worker, worker->account, "gets no descriptors any more");
  }
  worker->event = (struct flow_event){.result = FLOW_OK};
  if (worker->wire < 0 || network_return(sim, worker))
    returned(sim, worker);
}

static void take_off(struct simulation *sim, struct worker *worker, enum flow_goal goal)
{
  struct moment now = simulation_moment(sim, worker);
  static const char *const goals[] = {"wants a token", "wants a new token", "looks", "wants to save", "logs in"};
  simulation_tell(sim, worker, worker->account, "%s", goals[goal]);
  sim->tally->flights++;
  worker->goal = goal;
  worker->flying = true;
  worker->event = (struct flow_event){.result = FLOW_OK};
  invariants_took_off(sim, worker);
  flow_start(worker->flow, goal, now, now.steady + worker->settings.timeout);
  if (goal == FLOW_STORE)
    caller_gives(sim, worker);
  tell_flow(sim, worker);
}

/* As daemon(3) does: the parent is gone, and with it the lock; the child has its memory. */
static void fork_away(struct simulation *sim, struct worker *worker)
{
  simulation_tell(sim, worker, worker->account, "forks, and the parent ends");
  worker->life++;
  worker->settings.pid = 1000 + (long)worker->life;
  storage_drop_lock(sim, worker);
  flow_disown(worker->flow);
  worker->known.inherited = true;
}

static void think(struct simulation *sim, struct worker *worker)
{
  enum flow_goal goal;
  bool ends = worker->restart_wanted && sim->now >= worker->restart_due;
  if (flow_unsaved(worker->flow) && random_chance(&sim->random, sim->conditions.fork))
    fork_away(sim, worker);
  if (ends && (!flow_unsaved(worker->flow) || worker->goal == FLOW_KEEP)) {
    simulation_tell(sim, worker, worker->account, "ends, and starts anew");
    end(sim, worker);
  } else if (ends) {
    take_off(sim, worker, FLOW_KEEP);
  } else if (caller_calls(sim, worker, &goal)) {
    take_off(sim, worker, goal);
  }
}

void process_step(struct simulation *sim, struct worker *worker)
{
  if (sim->now < sim->machines[worker->machine].wakes) {
    worker->due = sim->machines[worker->machine].wakes;
    return;
  }
  switch (worker->phase) {
  case PHASE_THINKS:
    think(sim, worker);
    break;
  case PHASE_BEGINS:
    take_effect(sim, worker);
    break;
  case PHASE_WAITS:
    waited(sim, worker);
    break;
  default:
    if (!crashes(sim, worker) && !is_abandoned(sim, worker))
      tell_flow(sim, worker);
  }
}
