/* Flights in the program's own hands: the same flow that the blocking driver carries out, step by step. */
#include "../account/account.h"
#include "../system/cancel.h"
#include "client.h"

#include "../account/roster.h"
#include "../drivers/background.h"
#include "../drivers/drive.h"
#include "../system/clock.h"
#include "error.h"

#include <stdlib.h>
#include <string.h>

/* A flight in the program's own hands. */
struct lucidauth_flight {
  struct lucidauth_account *account;
  struct flow_action action; /* what was asked last */
  struct background_post post;
  bool begun;
  bool started; /* the POST is the background's until it is done */
  bool posted;
  bool threadless;         /* nor could be, by the background */
  struct held_signal held; /* signals that came during its POST */
};

static const char *const rejected = "The token was rejected this very moment. Nothing is lost; ask again.";

lucidauth_flight *lucidauth_flight_begin(lucidauth_account *account, bool refresh, char **token, lucidauth_error *error)
{
  lucidauth_error failure = {.code = LUCIDAUTH_OK};
  if (token)
    *token = NULL;
  if (account->craft.store) {
    error_set(error, LUCIDAUTH_CONFIG,
              "The library uses this storage by itself, under its lock: flights are for LUCIDAUTH_CUSTOM. Ask "
              "lucidauth_token or lucidauth_poll.");
    return NULL;
  }
  lucidauth_flight *flight = calloc(1, sizeof *flight);
  if (!flight) {
    error_set(error, LUCIDAUTH_STORAGE, "There is not enough memory for a refresh. Nothing was changed.");
    return NULL;
  }
  enum flow_goal goal = refresh ? FLOW_REFRESH : FLOW_TOKEN;
  flight->account = account;
  if (account_take_off(account, goal, false, &failure)) {
    roster_hold(account);
    account_give_flight(account, flight);
    return flight;
  }
  free(flight);
  if (error)
    *error = failure;
  char *in_use = failure.code == LUCIDAUTH_OK ? account_token(account, NULL) : NULL;
  if (failure.code == LUCIDAUTH_OK && !in_use)
    error_set(error, LUCIDAUTH_NOT_READY, "%s", rejected);
  if (token)
    *token = in_use;
  else
    lucidauth_free_token(in_use);
  return NULL;
}

lucidauth_flight *lucidauth_flight_store(lucidauth_account *account, const char *answer, size_t length, unsigned flags,
                                         lucidauth_error *error)
{
  struct answer given;
  lucidauth_error said;
  lucidauth_flight *flight = NULL;
  if (account->craft.store)
    error_set(&said, LUCIDAUTH_CONFIG, "The library uses this storage by itself: call lucidauth_store.");
  else if (client_read_given(account, &given, answer, length, &said)) {
    flight = calloc(1, sizeof *flight);
    if (!flight)
      error_set(&said, LUCIDAUTH_STORAGE, "There is not enough memory to store the answer. Nothing was changed.");
    if (flight && account_take_off_to_store(account, &given, flags & LUCIDAUTH_REPLACE, false, &said)) {
      flight->account = account;
      roster_hold(account);
      account_give_flight(account, flight);
    } else {
      free(flight);
      flight = NULL;
    }
    answer_free(&given);
  }
  if (error)
    *error = said;
  return flight;
}

lucidauth_flight *lucidauth_flight_keep(lucidauth_account *account)
{
  lucidauth_flight *flight = account->craft.store ? NULL : calloc(1, sizeof *flight);
  if (!flight)
    return NULL;
  flight->account = account;
  if (account_take_off_to_keep(account)) {
    roster_hold(account);
    account_give_flight(account, flight);
    return flight;
  }
  free(flight);
  return NULL;
}

static enum flow_result result_of(lucidauth_result result)
{
  switch (result) {
  case LUCIDAUTH_NONE:
    return FLOW_NONE;
  case LUCIDAUTH_BUSY:
    return FLOW_BUSY;
  case LUCIDAUTH_FAILED:
    return FLOW_FAILED;
  default:
    return FLOW_OK;
  }
}

static struct flow_event came_of(const lucidauth_flight *flight, lucidauth_result result, const char *text)
{
  static const struct reply not_posted = {.delivery = REPLY_NOT_SENT, .error = "the request was not carried out"};
  static const struct reply forbidden = {
      .delivery = REPLY_NOT_SENT,
      .error = "this process may start no thread (its limit RLIMIT_NPROC is 0; HAProxy: set insecure-fork-wanted)"};
  struct flow_event event = {.result = result_of(result), .code = CODE_STORAGE, .text = text ? text : ""};
  if (flight->action.step == FLOW_POST) {
    event.result = FLOW_OK;
    event.reply = flight->posted ? &flight->post.response.reply : flight->threadless ? &forbidden : &not_posted;
  }
  return event;
}

/* In the child of a fork the flight goes on in the parent alone. */
static bool is_of_parent(const lucidauth_flight *flight)
{
  return !account_has_flight(flight->account, flight);
}

static void await_post(lucidauth_flight *flight)
{
  if (flight->started && !background_await(&flight->post))
    flight->posted = false;
  flight->started = false;
}

static void let_go_of_response(lucidauth_flight *flight)
{
  await_post(flight);
  if (flight->posted)
    drive_release(&flight->post.response);
  flight->posted = false;
}

static struct flow_action advance(lucidauth_flight *flight, struct flow_event *event)
{
  char message[STORE_MESSAGE];
  if (flight->action.step == FLOW_LOAD)
    flight->account->craft.empty = event->result == FLOW_NONE;
  event->now = clock_now();
  struct flow_action action = flow_next(flight->account->craft.flow, event);
  while (action.step == FLOW_HOLD) { /* what a program's own storage needs it holds by itself */
    struct flow_event held = {.now = event->now, .result = FLOW_OK};
    action = flow_next(flight->account->craft.flow, &held);
  }
  if (action.step == FLOW_LOCK)
    account_show(flight->account);
  /* what a refresh needs is loaded before anything is promised */
  if (action.step != FLOW_LOCK || http_load(message, sizeof message))
    return action;
  struct flow_event unable = {.now = event->now, .result = FLOW_FAILED, .code = CODE_CONFIG, .text = message};
  return flow_next(flight->account->craft.flow, &unable);
}

/* What the program's own functions start is to inherit no mask, so nothing is held while they save; what came before
 * arrives when they have. */
static bool has_nothing_in_hand(const lucidauth_flight *flight)
{
  enum flow_step step = flight->action.step;
  return step == FLOW_WAIT || step == FLOW_LOCK || step == FLOW_DONE;
}

static lucidauth_step step_of(enum flow_step step)
{
  static const lucidauth_step of[] = {
      [FLOW_LOAD] = LUCIDAUTH_LOAD,     [FLOW_LOCK] = LUCIDAUTH_LOCK, [FLOW_SAVE] = LUCIDAUTH_SAVE,
      [FLOW_UNLOCK] = LUCIDAUTH_UNLOCK, [FLOW_POST] = LUCIDAUTH_POST, [FLOW_WAIT] = LUCIDAUTH_WAIT,
      [FLOW_DONE] = LUCIDAUTH_DONE};
  return of[step];
}

lucidauth_action lucidauth_flight_next(lucidauth_flight *flight, lucidauth_result result, const char *text)
{
  struct flow_event event = {.result = FLOW_OK};
  if (is_of_parent(flight))
    return (lucidauth_action){.step = LUCIDAUTH_DONE};
  int cancel = cancel_put_off();
  await_post(flight);
  if (flight->begun)
    event = came_of(flight, result, text);
  flight->begun = true;
  flight->action = advance(flight, &event);
  let_go_of_response(flight);
  if (has_nothing_in_hand(flight))
    held_signals_pass_on(&flight->held);
  cancel_allow(cancel);
  return (lucidauth_action){
      .step = step_of(flight->action.step), .record = flight->action.record, .seconds = flight->action.seconds};
}

static bool post_and_hold(lucidauth_flight *flight)
{
  held_signals_pass_on(&flight->held);
  held_signals_begin(&flight->held);
  bool posted = drive_post(flight->account->craft.endpoints, &flight->action, &flight->held, &flight->post.response);
  held_signals_let_go(&flight->held);
  return posted;
}

void lucidauth_flight_post(lucidauth_flight *flight)
{
  if (flight->action.step != FLOW_POST || flight->posted || is_of_parent(flight))
    return;
  int cancel = cancel_put_off();
  flight->posted = flight->account->craft.holds_signals && flight->action.request->endpoint == REQUEST_TOKEN
                       ? post_and_hold(flight)
                       : drive_post(flight->account->craft.endpoints, &flight->action, NULL, &flight->post.response);
  cancel_allow(cancel);
}

void lucidauth_flight_start_post(lucidauth_flight *flight)
{
  if (flight->action.step != FLOW_POST || flight->posted || flight->started || is_of_parent(flight))
    return;
  flight->post = (struct background_post){.kind = BACKGROUND_POST,
                                          .request = drive_request(flight->account->craft.endpoints, &flight->action)};
  int cancel = cancel_put_off();
  flight->started = background_post(&flight->post);
  flight->posted = flight->started;
  flight->threadless = !flight->started && background_is_forbidden();
  cancel_allow(cancel);
}

bool lucidauth_flight_has_posted(const lucidauth_flight *flight)
{
  return !flight->started || atomic_load(&flight->post.done);
}

/* What the server has said counts, even if the flight goes no further: the old tokens may be dead. */
static void hear_answer(lucidauth_flight *flight)
{
  await_post(flight);
  if (flight->action.step != FLOW_POST || !flight->posted)
    return;
  struct flow_event event = came_of(flight, LUCIDAUTH_DID, NULL);
  flight->action = advance(flight, &event);
}

static char *end(lucidauth_flight *flight, uint64_t *serial, lucidauth_error *error)
{
  struct lucidauth_account *account = flight->account;
  bool left_behind = is_of_parent(flight);
  if (!left_behind)
    hear_answer(flight);
  let_go_of_response(flight);
  if (left_behind) {
    free(flight);
    if (serial)
      *serial = 0;
    error_set(error, LUCIDAUTH_NOT_READY,
              "The refresh goes on in the process that this one was forked from. Nothing is lost; ask again.");
    return NULL;
  }
  account_give_flight(account, NULL);
  account->broken_off = flight->action.step != FLOW_DONE;
  if (account->broken_off)
    flow_abandon(account->craft.flow, false);
  bool keeps = account->goal == FLOW_KEEP || account->goal == FLOW_STORE;
  lucidauth_error said;
  char *token = account_land(account, serial, &said);
  held_signals_pass_on(&flight->held);
  free(flight);
  if (!token && said.code == LUCIDAUTH_OK && !keeps)
    error_set(&said, LUCIDAUTH_NOT_READY, "%s", rejected);
  if (error)
    *error = said;
  return token;
}

char *lucidauth_flight_end(lucidauth_flight *flight, uint64_t *serial, lucidauth_error *error)
{
  int cancel = cancel_put_off();
  struct lucidauth_account *account = flight->account;
  char *token = end(flight, serial, error);
  roster_give_back(account);
  cancel_allow(cancel);
  return token;
}
