#include "waiting.h"

#include "../base/secret.h"
#include "../system/thread.h"
#include "parts.h"
#include "worker.h"

#include <math.h>
#include <string.h>

static const char *const takes_too_long =
    "The refresh takes too long. It goes on, and nothing is lost; ask again later.";
static const char *const under_way =
    "There is no token yet: a refresh is under way in the background. Nothing is lost; ask again in a moment.";
static const char *const no_thread =
    "The system has no thread for a refresh in the background: too many of them run, or it is out of memory. Nothing "
    "was changed; ask again in a moment.";
static const char *const forbidden =
    "This process may not start threads any more: its limit of processes (RLIMIT_NPROC) is 0, so nothing refreshes the "
    "token in the background. Nothing was changed. HAProxy sets that limit unless its configuration says "
    "insecure-fork-wanted in the section global: add that line, and restart it.";

/* ---- on this thread ---- */

/* This thread carries a flight out, or waits for another that does. */
static char *get_here(struct lucidauth_account *account, enum flow_goal goal, uint64_t *serial, lucidauth_error *error)
{
  lucidauth_error said = LUCIDAUTH_ERROR_INIT;
  char *token;
  do {
    said.code = LUCIDAUTH_OK;
    if (turn_begin(account, goal, true, &said)) {
      turn_run(account);
      token = turn_end(account, serial, &said);
    } else {
      token = said.code == LUCIDAUTH_OK ? turn_token(account, serial) : NULL;
    }
    /* else another thread has rejected it meanwhile */
  } while (!token && said.code == LUCIDAUTH_OK);
  error_copy(error, &said);
  return token;
}

static bool store_here(struct lucidauth_account *account, struct answer *given, bool replaces, lucidauth_error *error)
{
  bool begun = turn_begin_to_store(account, given, replaces, true, error);
  if (begun) {
    turn_run(account);
    secret_free(turn_end(account, NULL, error));
  }
  return begun && error->code == LUCIDAUTH_OK;
}

/* ---- a ticket: one caller's wish, while the background's thread carries the flight out ---- */

enum poll {
  POLL_ANSWERED,
  POLL_WAIT,     /* a flight is under way: ask again, after turn_wait perhaps */
  POLL_NO_THREAD /* there is none to be had that would carry one out: ask again later, or do it here */
};

/* A lucidauth_ticket as it is used here. */
struct ticket {
  bool refresh;
  double within;
  bool joined;     /* it waits for a flight, */
  uint64_t flight; /* with this number; of a login, for that */
  double begun;    /* steady seconds; 0: it was not looked at yet */
  struct patience patience;
};

_Static_assert(sizeof(struct ticket) <= sizeof((lucidauth_ticket *)0)->reserved, "a ticket has room for what is kept");

static struct ticket read_ticket(const lucidauth_ticket *given)
{
  struct ticket ticket;
  memcpy(&ticket, given->reserved, sizeof ticket);
  ticket.refresh = given->refresh;
  ticket.within = given->within;
  return ticket;
}

static void write_ticket(lucidauth_ticket *given, const struct ticket *ticket)
{
  memcpy(given->reserved, ticket, sizeof *ticket);
  given->within = ticket->within;
}

bool waiting_has_joined(const lucidauth_ticket *given)
{
  return read_ticket(given).joined;
}

/* With the mutex held: have a flight under way that this ticket can wait for. False: there is no thread to be had. */
static bool join_flight(struct lucidauth_account *account, struct ticket *ticket)
{
  bool taken = turn_is_taken(account);
  if (ticket->joined || (taken && !turn_suits(account, ticket->refresh, ticket->begun)))
    return true;
  if (!taken && !worker_begin(account, ticket->refresh ? FLOW_REFRESH : FLOW_TOKEN))
    return false;
  ticket->joined = true;
  ticket->flight = turn_number(account);
  return true;
}

/* The caller was to come back after `within` seconds at the latest. */
static void look_at_the_time(struct ticket *ticket, double steady)
{
  if (ticket->begun == 0)
    ticket->begun = steady;
  patience_look(&ticket->patience, steady, ticket->within);
}

static bool has_waited(const struct ticket *ticket, double seconds)
{
  return patience_ends(&ticket->patience, seconds);
}

/* With the mutex held. */
static bool flight_is_over(const struct lucidauth_account *account, const struct ticket *ticket)
{
  return ticket->joined && turn_is_over(account, ticket->flight);
}

/* The token in use may die at any moment, by this process's refresh or another one's; callers that can wait for that
 * do, once a flight. */
static bool is_changing(const struct lucidauth_account *account)
{
  return turn_may_change_token(account) || in_use_was_announced(&account->in_use);
}

/* With the mutex held: answer at once where that is possible. True: it is answered. */
static bool answer_ticket(struct lucidauth_account *account, const struct ticket *ticket, bool patient,
                          struct moment now, lucidauth_error *error)
{
  bool over = flight_is_over(account, ticket);
  bool served = !ticket->refresh && in_use_lives(&account->in_use, now);
  error_clear(error);
  if (served && (!is_changing(account) || over || !patient))
    return true;
  if (served && has_waited(ticket, account->settings.refresh_wait)) {
    /* until this flight, and this generation, ends the token is handed out without waiting */
    turn_stop_waiting(account);
    in_use_overlook(&account->in_use);
    return true;
  }
  if (over) {
    error_copy(error, turn_outcome(account));
    return true;
  }
  if (!ticket->joined && turn_refusal(account)) {
    error_set(error, LUCIDAUTH_NOT_READY, "%s", turn_refusal(account));
    return true;
  }
  if (!has_waited(ticket, turn_longest_wait(account)))
    return false;
  error_set(error, LUCIDAUTH_TIMEOUT, "%s", turn_is_taken(account) ? takes_too_long : no_thread);
  return true;
}

/* There is no thread; `within` 0: nor will there be one. */
static void tell_of_no_thread(struct ticket *ticket, lucidauth_error *error)
{
  bool never = thread_is_forbidden();
  if (never)
    ticket->within = 0;
  error_set(error, LUCIDAUTH_NOT_READY, "%s", never ? forbidden : no_thread);
}

/* Seconds until the ticket has waited long enough for an answer. A token that lives may be in the storage alone: the
 * flight then ends with it after refresh_wait. */
static double time_to_answer(const struct lucidauth_account *account, const struct ticket *ticket)
{
  double waited = ticket->patience.waited, patience = account->settings.refresh_wait;
  double left = (!ticket->refresh && waited < patience ? patience : turn_longest_wait(account)) - waited;
  return left > 0 ? left : PATIENCE_PAUSE;
}

static enum poll poll_ticket(struct lucidauth_account *account, struct ticket *ticket, bool patient, char **token,
                             uint64_t *serial, lucidauth_error *error)
{
  struct moment now = clock_now();
  lucidauth_error said = LUCIDAUTH_ERROR_INIT;
  pthread_mutex_lock(&account->mutex);
  look_at_the_time(ticket, now.steady);
  bool done = !turn_settle_in_child(account, &said) || (!ticket->refresh && turn_token_is_good(account));
  bool joined = true;
  if (!done) {
    if (flight_is_over(account, ticket) && turn_was_in_vain(account))
      ticket->joined = false;
    joined = join_flight(account, ticket);
    done = answer_ticket(account, ticket, patient, now, &said);
    ticket->within = time_to_answer(account, ticket);
  }
  *token = done && said.code == LUCIDAUTH_OK ? in_use_copy(&account->in_use, NULL) : NULL;
  if (serial)
    *serial = in_use_serial(&account->in_use);
  pthread_mutex_unlock(&account->mutex);
  if (!done && joined)
    error_set(&said, LUCIDAUTH_NOT_READY, "%s", under_way);
  else if (!done)
    tell_of_no_thread(ticket, &said);
  error_copy(error, &said);
  return done ? POLL_ANSWERED : joined ? POLL_WAIT : POLL_NO_THREAD;
}

char *waiting_poll(struct lucidauth_account *account, lucidauth_ticket *given, bool patient, uint64_t *serial,
                   lucidauth_error *error)
{
  char *token;
  struct ticket ticket = read_ticket(given);
  if (!patient && !ticket.refresh)
    account_read_now(account);
  (void)poll_ticket(account, &ticket, patient, &token, serial, error);
  write_ticket(given, &ticket);
  events_deliver(&account->client->events);
  return token;
}

/* With the signals that would lose the answer to a refresh that is under way. */
static void wait_for_background(struct lucidauth_account *account, struct ticket *ticket, struct held_signal *held)
{
  const double look_again = 0.05;
  turn_hold_signals(account, held);
  turn_wait(account, ticket->within = fmin(look_again, ticket->within));
  held_signals_look(held, clock_now().steady);
  if (!turn_has_sent(account))
    held_signals_pass_on(held);
}

/* The background's thread carries the flight out, and this one waits for it; where there is no thread to be had, this
 * one does it. */
static char *get_from_background(struct lucidauth_account *account, bool refresh, uint64_t *serial,
                                 lucidauth_error *error)
{
  lucidauth_error said = LUCIDAUTH_ERROR_INIT;
  struct ticket ticket = {.refresh = refresh};
  struct held_signal held = {.holding = false};
  char *token;
  enum poll polled;
  while ((polled = poll_ticket(account, &ticket, true, &token, serial, &said)) == POLL_WAIT)
    wait_for_background(account, &ticket, &held);
  held_signals_pass_on(&held);
  if (polled == POLL_NO_THREAD)
    token = get_here(account, refresh ? FLOW_REFRESH : FLOW_TOKEN, serial, &said);
  error_copy(error, &said);
  events_deliver(&account->client->events);
  return token;
}

char *waiting_get(struct lucidauth_account *account, enum flow_goal goal, uint64_t *serial, lucidauth_error *error)
{
  return account->job ? get_from_background(account, goal == FLOW_REFRESH, serial, error)
                      : get_here(account, goal, serial, error);
}

/* ---- storing a login's answer ---- */

static const char *const being_stored =
    "The login's answer is being stored in the background. Call again with the same answer in a moment, and you hear "
    "what came of it.";
static const char *const stored_later = "The login's answer is not stored yet: something else is under way with this "
                                        "account's tokens. Call again with the same answer in a moment.";
static const char *const stores_too_long = "Storing the login's answer takes too long. It goes on: keep the answer, "
                                           "and call again with it later to hear what came of it.";
static const char *const never_stored =
    "The login's answer could not be stored: something else was under way with this account's tokens for too long, or "
    "the system has no thread for it. Nothing was changed; store the same answer again later.";
static const char *const outcome_forgotten =
    "The outcome of this answer is not known here any more: others were stored after it, or this process was forked. "
    "Store it again if the account does not work.";
static const char *const forbidden_to_store =
    "This process may not start threads any more: its limit of processes (RLIMIT_NPROC) is 0, so nothing stores the "
    "login's answer. Nothing was changed. HAProxy sets that limit unless its configuration says insecure-fork-wanted "
    "in the section global: add that line, and restart it.";

/* The login that this ticket waits for. A caller that comes without its ticket hears the outcome that nobody has heard
 * yet. */
static struct login *find_login(const struct lucidauth_account *account, const struct ticket *ticket,
                                const struct login_key *key, double steady)
{
  struct login *logins = turn_logins(account);
  return ticket->joined ? logins_find(logins, ticket->flight)
                        : logins_find_untold(logins, key, steady - account->settings.timeout);
}

static enum poll tell_login(struct login *login, struct ticket *ticket, lucidauth_error *error)
{
  error_copy(error, login_tell(login));
  ticket->joined = false;
  return POLL_ANSWERED;
}

static enum poll refuse_login(lucidauth_code code, const char *why, lucidauth_error *error)
{
  error_set(error, code, "%s", why);
  return POLL_ANSWERED;
}

/* The ticket's login is under way, or cannot begin yet. */
static enum poll wait_for_login(const struct lucidauth_account *account, struct ticket *ticket, bool busy,
                                lucidauth_error *error)
{
  double most = turn_longest_wait(account);
  if (has_waited(ticket, most))
    return refuse_login(LUCIDAUTH_TIMEOUT, ticket->joined ? stores_too_long : never_stored, error);
  ticket->within = most > ticket->patience.waited ? most - ticket->patience.waited : PATIENCE_PAUSE;
  error_set(error, LUCIDAUTH_NOT_READY, "%s", ticket->joined ? being_stored : stored_later);
  return ticket->joined || busy ? POLL_WAIT : POLL_NO_THREAD;
}

/* With the mutex held. */
static enum poll store_or_wait(struct lucidauth_account *account, struct ticket *ticket, struct answer *given,
                               const struct login_key *key, lucidauth_error *error)
{
  bool busy = turn_is_busy(account);
  struct login *login = find_login(account, ticket, key, clock_now().steady);
  if (ticket->joined && !login)
    return refuse_login(LUCIDAUTH_NOT_READY, outcome_forgotten, error);
  if (!login && turn_refusal(account))
    return refuse_login(LUCIDAUTH_NOT_READY, turn_refusal(account), error);
  if (!login && !busy)
    login = worker_begin_to_store(account, given, key);
  if (login && login->ended)
    return tell_login(login, ticket, error);
  if (!login && !busy && thread_is_forbidden()) {
    error_set(error, LUCIDAUTH_NOT_READY, "%s", forbidden_to_store);
    return POLL_NO_THREAD;
  }
  ticket->joined = login != NULL;
  ticket->flight = login ? login->number : 0;
  return wait_for_login(account, ticket, busy, error);
}

static enum poll poll_to_store(struct lucidauth_account *account, struct ticket *ticket, struct answer *given,
                               const struct login_key *key, lucidauth_error *error)
{
  pthread_mutex_lock(&account->mutex);
  look_at_the_time(ticket, clock_now().steady);
  ticket->within = 0;
  bool settled = turn_settle_in_child(account, error);
  enum poll polled = settled ? store_or_wait(account, ticket, given, key, error) : POLL_ANSWERED;
  pthread_mutex_unlock(&account->mutex);
  return polled;
}

void waiting_poll_store(struct lucidauth_account *account, lucidauth_ticket *of, struct answer *given,
                        const struct login_key *key, lucidauth_error *error)
{
  struct ticket ticket = read_ticket(of);
  (void)poll_to_store(account, &ticket, given, key, error);
  write_ticket(of, &ticket);
}

/* As get_from_background. */
static bool store_in_background(struct lucidauth_account *account, struct answer *given, const struct login_key *key,
                                lucidauth_error *error)
{
  struct ticket ticket = {.refresh = false};
  struct held_signal held = {.holding = false};
  enum poll polled;
  while ((polled = poll_to_store(account, &ticket, given, key, error)) == POLL_WAIT)
    wait_for_background(account, &ticket, &held);
  held_signals_pass_on(&held);
  return polled == POLL_NO_THREAD ? store_here(account, given, key->replaces, error) : error->code == LUCIDAUTH_OK;
}

bool waiting_store(struct lucidauth_account *account, struct answer *given, const struct login_key *key,
                   lucidauth_error *error)
{
  return account->job ? store_in_background(account, given, key, error)
                      : store_here(account, given, key->replaces, error);
}
