#include "caller.h"

#include "../oauth/given.h"
#include "invariants.h"
#include "server.h"
#include "storage.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* For those whose grant is called dead. */
enum { LOGINS_KEPT = 8 };

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

/* Some store the last one once more. */
static bool logs_in(struct simulation *sim, struct worker *worker)
{
  const struct account *owner = &sim->accounts[sim->accounts[worker->account].of];
  worker->replaces = random_chance(&sim->random, 0.3);
  if (worker->given.refresh.kind && random_chance(&sim->random, 0.2))
    return true;
  if (owner->grant + LOGINS_KEPT >= GRANTS)
    return false;
  worker->given = server_login_with_tokens(sim, worker->account);
  if (random_chance(&sim->random, 0.3))
    worker->given.access = (struct token){0}; /* a refresh token alone */
  return true;
}

void caller_gives(struct simulation *sim, struct worker *worker)
{
  char text[200], refresh[TOKEN_TEXT];
  struct answer given;
  const struct answer_context context = {.now = simulation_moment(sim, worker).wall, .default_lifetime = 3600};
  token_write(refresh, worker->given.refresh);
  if (worker->given.access.kind)
    server_write(sim, text, sizeof text, &worker->given);
  else
    snprintf(text, sizeof text, "%s", refresh);
  simulation_tell(sim, worker, worker->account, "stores the login %s%s", refresh,
                  worker->replaces ? ", whatever is there" : "");
  if (given_read(&given, text, strlen(text), &context))
    simulation_violate(sim, worker, worker->account, "the login %s cannot be read", refresh);
  else
    flow_give(worker->flow, &given, worker->replaces);
}

bool caller_calls(struct simulation *sim, struct worker *worker, enum flow_goal *goal)
{
  const struct conditions *conditions = &sim->conditions;
  *goal = FLOW_TOKEN;
  if (random_chance(&sim->random, conditions->refresh))
    *goal = FLOW_REFRESH;
  else if (random_chance(&sim->random, conditions->look))
    *goal = FLOW_LOOK;
  else if (random_chance(&sim->random, conditions->store) && logs_in(sim, worker))
    *goal = FLOW_STORE;
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
  if (worker->goal != FLOW_STORE && is_end_of_grant(sim, code) && !account->called_dead) {
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
