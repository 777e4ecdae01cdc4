/* A flight: a flow's actions, carried out with a store and a transport. */
#ifndef DRIVERS_FLIGHT_H
#define DRIVERS_FLIGHT_H

#include "../flow/flow.h"
#include "../http/http.h"
#include "../store/store.h"
#include "../system/held_signal.h"

/* Where POSTs go, and whom they trust. */
struct endpoints {
  char *token_url, *introspection_url;
  char *ca_file; /* NULL: the system's */
};

/* The means by which an account's flights are carried out, one at a time. */
struct flight {
  struct flow *flow;
  struct store *store; /* NULL: the program's own, which carries flights out by itself */
  const struct endpoints *endpoints;
  uint64_t seen;      /* the generation when the record was last looked at */
  bool holds_signals; /* that would end the process, from a refresh's POST until its tokens are saved */
  bool empty;         /* there was no record then */
};

/* ---- on the calling thread, until it is done ---- */

struct flight_run {
  struct flight *flight;
  struct flow_action action; /* the next one; FLOW_DONE: none is left */
  struct held_signal held;
};

/* The flow has been started (flow_start): ask it for its first action. */
void flight_run_begin(struct flight_run *run, struct flight *flight);

/* Carry that action out, and ask for the next. */
void flight_run_next(struct flight_run *run);

/* Signals that came meanwhile arrive. */
void flight_run_end(struct flight_run *run);

/* A flight that only looks (FLOW_LOOK), without a pause: a record that is being written is not waited for. True: the
 * token that was found may be used. */
bool flight_look(struct flight *flight, const struct world *world);

/* ---- one action at a time ---- */

/* The outcome of an action, and the memory behind it. Starts as {.event = {.result = FLOW_OK}}. */
struct flight_event {
  struct flow_event event; /* for the flow; its time is still to be filled in */
  struct store_error error;
  struct http_response response;
  char *record;
  uint64_t rejected[STORE_REJECTED];
  bool posted; /* there is a response */
};

/* Carry out a LOAD, LOCK, HOLD, SAVE or UNLOCK. When the flow has been told, flight_clean_up wipes and frees. */
void flight_step(struct flight *flight, const struct flow_action *action, struct flight_event *came);
void flight_clean_up(struct flight_event *came);

/* The request of a POST; its strings are the flow's and the endpoints'. */
struct http_request flight_request(const struct endpoints *endpoints, const struct flow_action *action);

/* Whether it is a refresh, and not a question. */
static inline bool flight_refreshes(const struct flow_action *action)
{
  return action->step == FLOW_POST && action->request->endpoint == REQUEST_TOKEN;
}

/* Carry out a POST; it fills the response, which flight_release frees. `held`: signals that are held meanwhile, or
 * NULL. False: libcurl is not loaded (nothing was done). */
bool flight_send_post(const struct endpoints *endpoints, const struct flow_action *action, struct held_signal *held,
                      struct http_response *response);
void flight_release(struct http_response *response);

#endif
