/* Flights that the program carries out by itself: the same flow, step by step. */
#include "client.h"

#include "../account/turn.h"
#include "../account/worker.h"
#include "../base/secret.h"
#include "../oauth/answer.h"
#include "../system/cancel.h"
#include "../system/thread.h"

#include <stdlib.h>

struct lucidauth_flight {
  struct lucidauth_account *account;
  struct flow_action action; /* the last one that was asked for */
  struct background_post post;
  bool begun;
  bool started; /* the POST is the background's until it is done */
  bool posted;
  bool threadless;         /* nor could be, by the background */
  struct held_signal held; /* signals that came during its POST */
};

static const char *const rejected = "The token was rejected this very moment. Nothing is lost; ask again.";

/* The account's flight has begun, and is this one. */
static lucidauth_flight *given(lucidauth_flight *flight, struct lucidauth_account *account)
{
  flight->account = account;
  roster_hold(account);
  turn_give(account, flight);
  return flight;
}

/* No flight begins: the token in use, or why there is none. */
static char *token_instead(struct lucidauth_account *account, lucidauth_error *error)
{
  char *token = error->code == LUCIDAUTH_OK ? turn_token(account, NULL) : NULL;
  if (error->code == LUCIDAUTH_OK && !token)
    error_set(error, LUCIDAUTH_NOT_READY, "%s", rejected);
  return token;
}

lucidauth_flight *lucidauth_flight_begin(lucidauth_account *account, bool refresh, char **token, lucidauth_error *error)
{
  lucidauth_error said = LUCIDAUTH_ERROR_INIT;
  lucidauth_flight *flight = NULL;
  char *in_use = NULL;
  if (token)
    *token = NULL;
  if (account_has_store(account))
    error_set(&said, LUCIDAUTH_CONFIG,
              "The library uses this storage by itself, under its lock: flights are for LUCIDAUTH_CUSTOM. Ask "
              "lucidauth_token or lucidauth_poll.");
  else if (!(flight = calloc(1, sizeof *flight)))
    error_set(&said, LUCIDAUTH_STORAGE, "There is not enough memory for a refresh. Nothing was changed.");
  else if (turn_begin(account, refresh ? FLOW_REFRESH : FLOW_TOKEN, false, &said))
    return given(flight, account);
  else
    in_use = token_instead(account, &said);
  free(flight);
  error_copy(error, &said);
  if (token)
    *token = in_use;
  else
    secret_free(in_use);
  return NULL;
}

static lucidauth_flight *begin_store_flight(lucidauth_account *account, struct answer *answer, bool replaces,
                                            lucidauth_error *error)
{
  lucidauth_flight *flight = calloc(1, sizeof *flight);
  if (!flight)
    error_set(error, LUCIDAUTH_STORAGE, "There is not enough memory to store the answer. Nothing was changed.");
  else if (turn_begin_to_store(account, answer, replaces, false, error))
    return given(flight, account);
  free(flight);
  return NULL;
}

lucidauth_flight *lucidauth_flight_store(lucidauth_account *account, const char *answer, size_t length, unsigned flags,
                                         lucidauth_error *error)
{
  struct answer read;
  lucidauth_flight *flight = NULL;
  lucidauth_error said = LUCIDAUTH_ERROR_INIT;
  if (account_has_store(account)) {
    error_set(&said, LUCIDAUTH_CONFIG, "The library uses this storage by itself: call lucidauth_store.");
  } else {
    if (account_read_given(account, &read, answer, length, &said))
      flight = begin_store_flight(account, &read, flags & LUCIDAUTH_REPLACE, &said);
    answer_free(&read);
  }
  error_copy(error, &said);
  return flight;
}

lucidauth_flight *lucidauth_flight_keep(lucidauth_account *account)
{
  lucidauth_flight *flight = account_has_store(account) ? NULL : calloc(1, sizeof *flight);
  if (flight && turn_begin_to_save(account))
    return given(flight, account);
  free(flight);
  return NULL;
}

static enum flow_result result_for_flow(lucidauth_result result)
{
  switch (result) {
  case LUCIDAUTH_RESULT_NONE:
    return FLOW_NONE;
  case LUCIDAUTH_RESULT_BUSY:
    return FLOW_BUSY;
  case LUCIDAUTH_RESULT_FAILED:
    return FLOW_FAILED;
  default:
    return FLOW_OK;
  }
}

static struct flow_event event_of(const lucidauth_flight *flight, lucidauth_result result, const char *text)
{
  static const struct reply not_posted = {.delivery = REPLY_NOT_SENT, .error = "the request was not carried out"};
  static const struct reply forbidden = {
      .delivery = REPLY_NOT_SENT,
      .error = "this process may start no thread (its limit RLIMIT_NPROC is 0; HAProxy: set insecure-fork-wanted)"};
  struct flow_event event = {.result = result_for_flow(result), .code = CODE_STORAGE, .text = text ? text : ""};
  if (flight->action.step == FLOW_POST) {
    event.result = FLOW_OK;
    event.reply = flight->posted ? &flight->post.response.reply : flight->threadless ? &forbidden : &not_posted;
  }
  return event;
}

/* In the child of a fork the flight goes on in the parent alone. */
static bool is_of_parent(const lucidauth_flight *flight)
{
  return !turn_is_given(flight->account, flight);
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
    flight_release(&flight->post.response);
  flight->posted = false;
}

static struct flow_action advance(lucidauth_flight *flight, struct flow_event *event)
{
  char message[STORE_MESSAGE];
  struct flight *with = account_flight(flight->account);
  enum code code = CODE_OK;
  if (flight->action.step == FLOW_LOAD)
    with->empty = event->result == FLOW_NONE;
  event->now = clock_now();
  struct flow_action action = flow_next(with->flow, event);
  while (action.step == FLOW_HOLD) { /* a program's own storage holds its resources by itself */
    struct flow_event held = {.now = event->now, .result = FLOW_OK};
    action = flow_next(with->flow, &held);
  }
  if (action.step == FLOW_LOCK)
    turn_show(flight->account);
  /* libcurl, for the refresh, is loaded before anything is promised */
  if (action.step != FLOW_LOCK || http_load(&code, message, sizeof message))
    return action;
  struct flow_event unable = {.now = event->now, .result = FLOW_FAILED, .code = code, .text = message};
  return flow_next(with->flow, &unable);
}

/* Processes that the program's functions start are to inherit no mask, so nothing is held while they save; signals that
 * came before arrive when they have. */
static bool has_nothing_in_hand(const lucidauth_flight *flight)
{
  enum flow_step step = flight->action.step;
  return step == FLOW_WAIT || step == FLOW_LOCK || step == FLOW_DONE;
}

static lucidauth_step step_of(enum flow_step step)
{
  static const lucidauth_step of[] = {
      [FLOW_LOAD] = LUCIDAUTH_STEP_LOAD,     [FLOW_LOCK] = LUCIDAUTH_STEP_LOCK, [FLOW_SAVE] = LUCIDAUTH_STEP_SAVE,
      [FLOW_UNLOCK] = LUCIDAUTH_STEP_UNLOCK, [FLOW_POST] = LUCIDAUTH_STEP_POST, [FLOW_WAIT] = LUCIDAUTH_STEP_WAIT,
      [FLOW_DONE] = LUCIDAUTH_STEP_DONE};
  return of[step];
}

/* All of it is as old as the struct: of a later field `action->size` says whether the program knows it. */
static void show_action(const struct flow_action *action, lucidauth_action *shown)
{
  shown->step = step_of(action->step);
  shown->record = action->record;
  shown->seconds = action->seconds;
}

void lucidauth_flight_next(lucidauth_flight *flight, lucidauth_result result, const char *text,
                           lucidauth_action *action)
{
  struct flow_event event = {.result = FLOW_OK};
  if (is_of_parent(flight)) {
    show_action(&(struct flow_action){.step = FLOW_DONE}, action);
    return;
  }
  int cancel = cancel_put_off();
  await_post(flight);
  if (flight->begun)
    event = event_of(flight, result, text);
  flight->begun = true;
  flight->action = advance(flight, &event);
  let_go_of_response(flight);
  if (has_nothing_in_hand(flight))
    held_signals_pass_on(&flight->held);
  show_action(&flight->action, action);
  cancel_allow(cancel);
}

static bool post_and_hold(lucidauth_flight *flight, const struct endpoints *endpoints)
{
  held_signals_pass_on(&flight->held);
  held_signals_begin(&flight->held);
  bool posted = flight_send_post(endpoints, &flight->action, &flight->held, &flight->post.response);
  held_signals_let_go(&flight->held);
  return posted;
}

void lucidauth_flight_post(lucidauth_flight *flight)
{
  if (flight->action.step != FLOW_POST || flight->posted || is_of_parent(flight))
    return;
  const struct flight *with = account_flight(flight->account);
  int cancel = cancel_put_off();
  flight->posted = with->holds_signals && flight_refreshes(&flight->action)
                       ? post_and_hold(flight, with->endpoints)
                       : flight_send_post(with->endpoints, &flight->action, NULL, &flight->post.response);
  cancel_allow(cancel);
}

void lucidauth_flight_start_post(lucidauth_flight *flight)
{
  if (flight->action.step != FLOW_POST || flight->posted || flight->started || is_of_parent(flight))
    return;
  const struct endpoints *endpoints = account_flight(flight->account)->endpoints;
  flight->post =
      (struct background_post){.kind = BACKGROUND_POST, .request = flight_request(endpoints, &flight->action)};
  int cancel = cancel_put_off();
  flight->started = worker_post(&flight->post);
  flight->posted = flight->started;
  flight->threadless = !flight->started && thread_is_forbidden();
  cancel_allow(cancel);
}

bool lucidauth_flight_has_posted(const lucidauth_flight *flight)
{
  return !flight->started || atomic_load(&flight->post.done);
}

/* The server's answer counts, even if the flight goes no further: the old tokens may be dead. */
static void hear_answer(lucidauth_flight *flight)
{
  await_post(flight);
  if (flight->action.step != FLOW_POST || !flight->posted)
    return;
  struct flow_event event = event_of(flight, LUCIDAUTH_RESULT_OK, NULL);
  flight->action = advance(flight, &event);
}

static char *end_own(lucidauth_flight *flight, uint64_t *serial, lucidauth_error *error)
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
  bool wants_token = turn_take_back(account, flight->action.step != FLOW_DONE);
  lucidauth_error said = LUCIDAUTH_ERROR_INIT;
  char *token = turn_end(account, serial, &said);
  held_signals_pass_on(&flight->held);
  free(flight);
  if (!token && said.code == LUCIDAUTH_OK && wants_token)
    error_set(&said, LUCIDAUTH_NOT_READY, "%s", rejected);
  error_copy(error, &said);
  return token;
}

char *lucidauth_flight_end(lucidauth_flight *flight, uint64_t *serial, lucidauth_error *error)
{
  int cancel = cancel_put_off();
  struct lucidauth_account *account = flight->account;
  char *token = end_own(flight, serial, error);
  roster_give_back(account);
  cancel_allow(cancel);
  return token;
}
