#include "network.h"

#include "invariants.h"
#include "server.h"
#include "transport.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Introspection that is refused is as good as none, which is a condition of its own. */
static enum fate spare_introspection(const struct simulation *sim, enum request_endpoint endpoint, enum fate fate)
{
  bool refused = fate == FATE_DENIED || fate == FATE_REFUSED;
  return refused && endpoint == REQUEST_INTROSPECTION && !sim->conditions.deaf ? FATE_UNAVAILABLE : fate;
}

static enum fate draw_fate(struct simulation *sim)
{
  if (sim->now < sim->down_until)
    return random_chance(&sim->random, 0.8) ? FATE_NOT_SENT : FATE_LOST_BEFORE;
  if (sim->now < sim->odd_until)
    return sim->odd_fate;
  double roll = random_unit(&sim->random);
  for (int i = FATE_GOOD + 1; i < FATES; i++) {
    roll -= sim->conditions.fates[i];
    if (roll < 0)
      return (enum fate)i;
  }
  return FATE_GOOD;
}

static bool reaches_server(enum fate fate)
{
  switch (fate) {
  case FATE_NOT_SENT:
  case FATE_LOST_BEFORE:
  case FATE_ERROR_BEFORE:
  case FATE_PAGE_BEFORE:
  case FATE_SLOW_DOWN:
  case FATE_UNAVAILABLE:
  case FATE_DENIED:
  case FATE_REDIRECT:
  case FATE_REFUSED:
    return false;
  default:
    return true;
  }
}

static struct wire *free_wire(struct simulation *sim)
{
  for (int i = 0; i < WIRES; i++)
    if (sim->wires[i].state == WIRE_FREE)
      return &sim->wires[i];
  return &sim->wires[0];
}

/* Seconds until the connection is there. Negative: nothing is sent any more, as with the real transport. */
static double connecting(struct simulation *sim, const struct worker *worker)
{
  const struct flow_action *action = &worker->action;
  double left = moment_left(action->send_by, simulation_moment(sim, worker));
  double takes = 0;
  if (random_chance(&sim->random, sim->conditions.slow_connect))
    takes = random_unit(&sim->random) * action->seconds * 1.1;
  return takes < left && takes <= action->seconds && sim->now >= worker->starved_until ? takes : -1;
}

static double latency(struct simulation *sim)
{
  if (random_chance(&sim->random, sim->conditions.slow_network))
    return random_magnitude(&sim->random, 1, 100);
  return random_magnitude(&sim->random, 0.001, 0.2);
}

/* `give_up`: true time when the client stops waiting. */
static void schedule(struct simulation *sim, struct wire *wire, double leaves, double give_up)
{
  wire->arrives = fmin(leaves + latency(sim), give_up + random_between(&sim->random, 0, NETWORK_LINGER));
  if (wire->fate == FATE_LATE)
    wire->arrives = give_up + random_between(&sim->random, -NETWORK_LINGER, NETWORK_LINGER);
  wire->arrives = fmax(wire->arrives, sim->now);
  wire->returns = wire->arrives + latency(sim);
  if (wire->fate == FATE_SLOW)
    wire->returns = fmax(wire->returns, give_up + 1);
  if (wire->fate == FATE_GATEWAY)
    wire->arrives = wire->returns + random_between(&sim->random, 0, NETWORK_LINGER);
  if (!reaches_server(wire->fate))
    wire->arrives = INFINITY;
}

static void launch(struct simulation *sim, struct worker *worker, bool reused)
{
  const struct flow_action *action = &worker->action;
  struct wire *wire = free_wire(sim);
  const char *form = strstr(action->request->body, "token=");
  bool refresh = action->request->endpoint == REQUEST_TOKEN;
  *wire = (struct wire){.state = WIRE_SENT,
                        .worker = (int)(worker - sim->workers),
                        .heard = true,
                        .endpoint = action->request->endpoint,
                        .token = refresh || !form ? token_find(action->request->body).refresh : token_read(form + 6),
                        .fate = spare_introspection(sim, action->request->endpoint, draw_fate(sim)),
                        .reused = reused};
  worker->wire = (int)(wire - sim->wires);
  double give_up = sim->now + action->limit, takes = connecting(sim, worker);
  if (takes < 0)
    wire->fate = FATE_NOT_SENT;
  sim->tally->fates[wire->fate]++;
  schedule(sim, wire, sim->now + fmax(takes, 0), give_up);
  worker->due = fmin(wire->returns, give_up);
  worker->phase = PHASE_WAITS;
  if (sim->story) {
    char text[TOKEN_TEXT];
    token_write(text, wire->token);
    simulation_tell(sim, worker, worker->account, "%s %s (%s)", refresh ? "posts" : "asks about", text,
                    fate_name(wire->fate));
  }
  if (refresh && takes >= 0)
    invariants_leaves(sim, worker, wire->token, takes);
  if (refresh && takes >= 0)
    invariants_sent(sim, worker, wire->token);
  else if (refresh)
    invariants_not_sent(worker, wire->token);
  else
    invariants_asked(sim, worker, wire->token);
}

void network_send(struct simulation *sim, struct worker *worker)
{
  launch(sim, worker, TRANSPORT_REUSES && worker->connected);
}

struct wire *network_next(struct simulation *sim)
{
  struct wire *next = NULL;
  for (int i = 0; i < WIRES; i++) {
    struct wire *wire = &sim->wires[i];
    if (wire->state == WIRE_SENT && (!next || wire->arrives < next->arrives))
      next = wire;
  }
  return next && next->arrives < INFINITY ? next : NULL;
}

/* ---- what the server does and says ---- */

static void say(struct wire *wire, int status, const char *body)
{
  wire->reply = (struct reply){.delivery = REPLY_RECEIVED, .whole = true, .status = status};
  if (body != wire->body)
    snprintf(wire->body, sizeof wire->body, "%s", body);
}

static void make_odd(struct simulation *sim, struct wire *wire)
{
  static const char *const odd[] = {",\"access_token\":5}",  ",\"expires_in\":0}",       ",\"expires_in\":\"3600\"}",
                                    ",\"expires_in\":null}", ",\"token_type\":\"MAC\"}", ",\"more\":{\"a\":[1]}} junk"};
  int which = random_below(&sim->random, sizeof odd / sizeof *odd);
  size_t end = strlen(wire->body) - 1;
  snprintf(wire->body + end, sizeof wire->body - end, "%s", odd[which]);
  wire->usable = which != 0 && which != 4;
  if (which == 0)
    wire->issued.access = (struct token){0};
}

static void refuse(struct simulation *sim, struct wire *wire)
{
  static const char *const words[] = {
      "{\"error\":\"computer_says_no\"}",
      "{\"message\":\"Request cannot be processed\"}",
      "{\"error\":\"invalid_request\",\"error_description\":\"bad token\"}",
      "{\"errors\":[{\"code\":17}]}",
      "",
      "<html>No.</html>",
  };
  static const int statuses[] = {400, 400, 404, 422, 410};
  int which = random_below(&sim->random, sizeof words / sizeof *words);
  /* with a status that promises tokens, words alone tell that it is none */
  bool promises = which == 0 && random_chance(&sim->random, 0.5);
  say(wire, promises ? 200 : statuses[random_below(&sim->random, 5)], words[which]);
  wire->unspent = true;
}

static void refresh(struct simulation *sim, struct wire *wire)
{
  char who[16];
  snprintf(who, sizeof who, "p%d", sim->workers[wire->worker].process);
  if (!server_refresh(sim, wire->token, random_chance(&sim->random, sim->conditions.omit), who, &wire->issued)) {
    if (sim->conditions.wording)
      refuse(sim, wire);
    else
      say(wire, 400, "{\"error\":\"invalid_grant\"}");
    return;
  }
  server_write(sim, wire->body, sizeof wire->body, &wire->issued);
  say(wire, 200, wire->body);
  wire->usable = true;
  if (random_chance(&sim->random, sim->conditions.odd))
    make_odd(sim, wire);
}

static void introspect(struct simulation *sim, struct wire *wire)
{
  static const int refusals[] = {401, 403, 404, 405};
  if (sim->now < sim->deaf_until) {
    say(wire, refusals[random_below(&sim->random, 4)], "{\"error\":\"access_denied\"}");
    return;
  }
  wire->active = server_active(sim, wire->token);
  say(wire, 200, wire->active ? "{\"active\":true}" : "{\"active\":false}");
}

static void tell_arrival(const struct simulation *sim, const struct wire *wire)
{
  bool asks = wire->endpoint != REQUEST_TOKEN;
  char sent[TOKEN_TEXT], issued[TOKEN_TEXT];
  if (!sim->story)
    return;
  token_write(sent, wire->token);
  token_write(issued, wire->issued.refresh.kind ? wire->issued.refresh : wire->issued.access);
  simulation_tell(sim, &sim->workers[wire->worker], wire->token.account, "... %s at the server: %s%s%s", sent,
                  asks ? "introspected" : "refreshed",
                  asks ? (wire->active ? ", active" : ", inactive") : (*issued ? ", issued " : ", refused"), issued);
}

static void act(struct simulation *sim, struct wire *wire)
{
  if (wire->endpoint == REQUEST_TOKEN)
    refresh(sim, wire);
  else
    introspect(sim, wire);
  tell_arrival(sim, wire);
}

void network_arrive(struct simulation *sim, struct wire *wire)
{
  struct wire unheard = *wire;
  wire->state = WIRE_ARRIVED;
  act(sim, wire->heard && !wire->over ? wire : &unheard);
  if (!wire->heard)
    wire->state = WIRE_FREE;
}

static void ask_to_wait(struct simulation *sim, struct wire *wire)
{
  double seconds = random_magnitude(&sim->random, 0.1, 200);
  snprintf(wire->retry_after, sizeof wire->retry_after, "%.0f", seconds);
  wire->reply.retry_after = wire->retry_after;
}

/* A single pair is found wherever it stands; of two, nobody knows which. */
static void wrap(struct simulation *sim, struct wire *wire)
{
  char plain[250];
  bool single = sim->conditions.odd == 0 && wire->issued.refresh.kind && random_chance(&sim->random, 0.3);
  if (wire->reply.status != 200)
    return;
  snprintf(plain, sizeof plain, "%s", wire->body);
  if (single)
    snprintf(wire->body, sizeof wire->body, "{\"data\":%s}", plain);
  else
    snprintf(wire->body, sizeof wire->body, "{\"data\":%s,\"same\":%s}", plain, plain);
  wire->intact = single;
}

/* Cut anywhere. */
static void halve(struct simulation *sim, struct wire *wire)
{
  size_t length = strlen(wire->body);
  if (length > 1)
    wire->body[1 + random_below(&sim->random, (int)length - 1)] = '\0';
}

/* What the client sees of it. */
static void spoil(struct simulation *sim, struct wire *wire)
{
  static const int errors[] = {500, 502, 504};
  static const char page[] = "<html><body>Bad Gateway</body></html>";
  int error = errors[random_below(&sim->random, 3)];
  wire->intact =
      wire->fate == FATE_GOOD || wire->fate == FATE_TWICE || wire->fate == FATE_LATE || wire->fate == FATE_SLOW;
  switch (wire->fate) {
  case FATE_HALF:
    halve(sim, wire);
    break;
  case FATE_WRAPPED:
    wrap(sim, wire);
    break;
  case FATE_REFUSED:
    refuse(sim, wire);
    break;
  case FATE_ERROR_BEFORE:
  case FATE_ERROR_AFTER:
    say(wire, error, random_chance(&sim->random, 0.5) ? page : "");
    break;
  case FATE_GATEWAY:
    say(wire, random_chance(&sim->random, 0.5) ? 502 : 504, page);
    break;
  case FATE_PAGE_BEFORE:
  case FATE_PAGE_AFTER:
    say(wire, 200, page);
    break;
  case FATE_CUT:
    wire->reply.cut = true;
    break;
  case FATE_SLOW_DOWN:
    say(wire, 429, "{\"code\":\"tooManyRequests\"}");
    if (random_chance(&sim->random, 0.7))
      ask_to_wait(sim, wire);
    break;
  case FATE_UNAVAILABLE:
    say(wire, 503, "");
    ask_to_wait(sim, wire);
    break;
  case FATE_DENIED:
    say(wire, random_chance(&sim->random, 0.5) ? 401 : 403, "{\"error\":\"invalid_client\"}");
    wire->denied = true;
    break;
  case FATE_REDIRECT:
    say(wire, 302, page);
    wire->reply.location = "https://portal.example/";
    break;
  case FATE_NOT_SENT:
    wire->reply = (struct reply){.delivery = REPLY_NOT_SENT, .error = "connection refused"};
    break;
  case FATE_LOST_BEFORE:
  case FATE_LOST_AFTER:
    wire->reply = (struct reply){.delivery = REPLY_LOST, .error = "connection reset"};
    break;
  default:
    break;
  }
}

/* ---- what the client gets ---- */

static void time_out(struct wire *wire)
{
  wire->intact = false;
  wire->reply = (struct reply){.delivery = REPLY_LOST, .timed_out = true, .error = "time is out"};
  if (wire->fate == FATE_NOT_SENT)
    wire->reply.delivery = REPLY_NOT_SENT;
}

/* A connection that was used before brings the answer to the last request once more. */
static void mix_up(struct worker *worker, struct wire *wire)
{
  worker->stale_answer = false;
  wire->intact = false;
  wire->active = false;
  say(wire, 200, worker->last_answer);
}

static void keep_connection(struct worker *worker, const struct wire *wire)
{
  worker->connected = wire->reply.delivery == REPLY_RECEIVED && !wire->reply.cut;
  worker->stale_answer = wire->fate == FATE_TWICE;
  if (worker->stale_answer)
    memcpy(worker->last_answer, wire->body, sizeof worker->last_answer);
}

bool network_return(struct simulation *sim, struct worker *worker)
{
  struct wire *wire = &sim->wires[worker->wire];
  wire->over = true;
  bool answered = wire->state == WIRE_ARRIVED || wire->fate == FATE_GATEWAY || !reaches_server(wire->fate);
  bool in_time = wire->returns <= sim->now && answered;
  if (in_time)
    spoil(sim, wire);
  else
    time_out(wire);
  if (wire->reused && wire->reply.delivery == REPLY_LOST && !wire->reply.timed_out) {
    simulation_tell(sim, worker, worker->account, "... the connection was an old one: the transport tries a new one");
    network_forget(sim, worker);
    launch(sim, worker, false);
    return false;
  }
  if (wire->reused && worker->stale_answer && wire->reply.delivery == REPLY_RECEIVED)
    mix_up(worker, wire);
  if (TRANSPORT_REUSES)
    keep_connection(worker, wire);
  wire->reply.body = wire->reply.delivery == REPLY_RECEIVED ? wire->body : NULL;
  wire->reply.length = wire->reply.body ? strlen(wire->body) : 0;
  worker->event = (struct flow_event){.result = FLOW_OK, .reply = &wire->reply};
  if (sim->story)
    simulation_tell(sim, worker, worker->account, "... gets %s%.60s",
                    wire->reply.delivery == REPLY_RECEIVED ? "" : (wire->reply.timed_out ? "a timeout" : "an error"),
                    wire->reply.delivery == REPLY_RECEIVED ? (*wire->body ? wire->body : "an empty body") : "");
  return true;
}

void network_forget(struct simulation *sim, struct worker *worker)
{
  if (worker->wire < 0)
    return;
  struct wire *wire = &sim->wires[worker->wire];
  wire->heard = false;
  if (wire->state == WIRE_ARRIVED || wire->arrives == INFINITY)
    wire->state = WIRE_FREE;
  else
    wire->arrives = fmin(wire->arrives, sim->now + random_between(&sim->random, 0, NETWORK_LINGER));
  worker->wire = -1;
}
