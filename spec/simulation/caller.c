#include "caller.h"

#include "invariants.h"
#include "server.h"
#include "storage.h"

#include <math.h>
#include <stdio.h>

static void call_at(struct simulation *sim, struct worker *worker, double due)
{
  worker->phase = PHASE_THINKS;
  worker->due = fmax(due, sim->now + 0.001);
  if (worker->restart_wanted && worker->due > worker->restart_due)
    worker->due = fmax(worker->restart_due, sim->now + 0.001);
}

/* Most callers come when the token is about to be refreshed: that is when it gets crowded. */
static void call_later(struct simulation *sim, struct worker *worker)
{
  double left = moment_left(worker->refresh_at, simulation_moment(sim, worker));
  if (left <= 0 || left > 1e6)
    left = random_magnitude(&sim->random, 0.01, 10);
  double roll = random_unit(&sim->random);
  if (roll < 0.75)
    call_at(sim, worker, sim->now + left + random_magnitude(&sim->random, 0.0001, 1000));
  else if (roll < 0.85)
    call_at(sim, worker, sim->now + random_unit(&sim->random) * left);
  else
    call_at(sim, worker, sim->now + left + random_magnitude(&sim->random, 0.1, 2 * sim->conditions.lifetime));
}

bool caller_calls(struct simulation *sim, struct worker *worker, enum flow_goal *goal)
{
  const struct conditions *conditions = &sim->conditions;
  *goal = FLOW_TOKEN;
  if (random_chance(&sim->random, conditions->refresh))
    *goal = FLOW_REFRESH;
  else if (random_chance(&sim->random, conditions->look))
    *goal = FLOW_LOOK;
  bool good = worker->cached[0] && !moment_has_come(worker->refresh_at, simulation_moment(sim, worker)) &&
              worker->seen == sim->accounts[worker->account].storage.version;
  if (!good || *goal != FLOW_TOKEN || sim->calm)
    return true;
  call_later(sim, worker);
  return false;
}

static void reject(struct simulation *sim, struct worker *worker, struct token token)
{
  char text[TOKEN_TEXT];
  token_write(text, token);
  simulation_tell(sim, worker, worker->account, "rejects %s", text);
  flow_reject(worker->flow, text);
  storage_reject(sim, worker, token, text);
  invariants_rejected(worker, token);
  worker->cached[0] = '\0';
}

/* Threads that were slow come with tokens of long ago. */
static void reject_old_ones(struct simulation *sim, struct worker *worker, struct token token)
{
  for (int i = random_below(&sim->random, 3); i > 0 && token.serial > 1; i--) {
    token.serial--;
    reject(sim, worker, token);
  }
}

static bool use(struct simulation *sim, struct worker *worker, struct token token)
{
  bool accepted = server_accepts(sim, token);
  if (random_chance(&sim->random, sim->conditions.flood))
    reject_old_ones(sim, worker, token);
  if (accepted && !random_chance(&sim->random, sim->conditions.reject))
    return true;
  reject(sim, worker, token);
  return false;
}

static void served(struct simulation *sim, struct worker *worker, const struct flow_outcome *outcome)
{
  snprintf(worker->cached, sizeof worker->cached, "%s", outcome->token);
  worker->refresh_at = outcome->refresh_at;
  if (!use(sim, worker, token_read(outcome->token))) {
    call_at(sim, worker, sim->now + random_magnitude(&sim->random, 0.001, 1));
  } else if (sim->calm && !flow_unsaved(worker->flow)) {
    worker->calm_successes++;
    call_at(sim, worker, INFINITY);
  } else {
    call_later(sim, worker);
  }
}

/* What a user takes for a reason to log in again. */
static bool is_end_of_grant(const struct simulation *sim, enum code code)
{
  return code == CODE_INVALID_GRANT || code == CODE_LOST_ROTATION ||
         (code == CODE_BAD_RESPONSE && sim->conditions.wording);
}

static void failed(struct simulation *sim, struct worker *worker, enum code code)
{
  struct account *account = &sim->accounts[worker->account];
  worker->cached[0] = '\0';
  if (is_end_of_grant(sim, code) && !account->called_dead) {
    account->called_dead = true;
    account->login_due = sim->now + random_magnitude(&sim->random, 0.1, 10);
  }
  call_at(sim, worker, sim->now + random_magnitude(&sim->random, code == CODE_LOCKED ? 10 : 0.05, 300));
}

void caller_landed(struct simulation *sim, struct worker *worker)
{
  const struct flow_outcome *outcome = flow_outcome(worker->flow);
  worker->flying = false;
  if (sim->story)
    simulation_tell(sim, worker, worker->account, "ends: %s %s",
                    outcome->token ? outcome->token : code_name(outcome->code), outcome->message);
  if (outcome->token)
    served(sim, worker, outcome);
  else if (outcome->code != CODE_OK)
    failed(sim, worker, outcome->code);
  else
    call_later(sim, worker);
}
