#include "ticket.h"

#include "../account/in_use.h"
#include "../base/secret.h"
#include "../drivers/background.h"
#include "../system/clock.h"
#include "error.h"

/* Seconds that a flight has to come to its end once its deadline has passed. */
#define LANDING_TIME 0.1

/* With the mutex held: have a flight under way that this ticket can wait for. False: there is no thread to be had. */
static bool board(struct lucidauth_account *account, lucidauth_ticket *ticket)
{
  enum flow_goal goal = ticket->refresh ? FLOW_REFRESH : FLOW_TOKEN;
  if (ticket->boarded || (account->flying && !account_suits(account, ticket->refresh, ticket->begun)))
    return true;
  if (!account->flying && !account_take_off_in_background(account, goal))
    return false;
  ticket->boarded = true;
  ticket->landing = account->landings + 1;
  return true;
}

/* Seconds that a ticket is waited with. An answer whose refresh was sent has the time that the flow gives it; a flight
 * that comes to its own end at the deadline says more than a timeout. */
static double longest_wait(const struct lucidauth_account *account)
{
  return account->settings.timeout * (account->flying && account->sent ? 2 : 1) + LANDING_TIME;
}

/* The caller was to come back after `within` seconds at the latest. */
static void look_at_the_time(lucidauth_ticket *ticket, double steady)
{
  struct patience patience = {.waited = ticket->waited, .looked = ticket->looked, .woke = ticket->woke};
  if (ticket->begun == 0)
    ticket->begun = steady;
  patience_look(&patience, steady, ticket->within);
  ticket->waited = patience.waited;
  ticket->looked = patience.looked;
  ticket->woke = patience.woke;
}

static bool has_waited(const lucidauth_ticket *ticket, double seconds)
{
  return patience_ends(&(struct patience){.waited = ticket->waited, .woke = ticket->woke}, seconds);
}

static bool has_landed(const struct lucidauth_account *account, const lucidauth_ticket *ticket)
{
  return ticket->boarded && account->landings >= ticket->landing;
}

/* With the mutex held. The flight was the parent's of a fork, or the token that it has brought was rejected before its
 * passengers came to see it. */
static void leave_if_in_vain(const struct lucidauth_account *account, lucidauth_ticket *ticket)
{
  bool rejected = account->landed_with.code == LUCIDAUTH_OK && !account->token;
  if (has_landed(account, ticket) && (rejected || account->landed_elsewhere))
    ticket->boarded = false;
}

static const char *const takes_too_long =
    "The refresh takes too long. It goes on, and nothing is lost; ask again later.";
static const char *const under_way =
    "There is no token yet: a refresh is under way in the background. Nothing is lost; ask again in a moment.";
static const char *const no_thread =
    "The system has no thread for a refresh in the background: too many of them run, or memory is out. Nothing was "
    "changed; ask again in a moment.";

static const char *const forbidden =
    "This process may not start threads any more: its limit of processes (RLIMIT_NPROC) is 0, so nothing refreshes the "
    "token in the background. Nothing was changed. HAProxy sets that limit unless its configuration says "
    "insecure-fork-wanted in the section global: add that line, and restart it.";

/* The token in use may die at any moment, by this process's refresh or another one's; who can wait for that does, once a
 * flight. */
static bool is_changing(const struct lucidauth_account *account)
{
  bool refreshing = account->flying && account_may_spend(account->goal) && account->sat_out != account->landings + 1;
  return refreshing || in_use_was_announced(account);
}

/* Until this flight, and this generation, ends the token is handed out without waiting. */
static void sit_out(struct lucidauth_account *account)
{
  account->sat_out = account->landings + 1;
  atomic_store_explicit(&account->seen, account_generation(account, memory_order_seq_cst), memory_order_relaxed);
}

/* With the mutex held: what there is to say at once. True: it is said. */
static bool answer_ticket(struct lucidauth_account *account, const lucidauth_ticket *ticket, bool patient,
                          struct moment now, lucidauth_error *error)
{
  bool landed = has_landed(account, ticket);
  bool served = !ticket->refresh && in_use_lives(account, now);
  error_set(error, LUCIDAUTH_OK, "%s", "");
  if (served && (!is_changing(account) || landed || !patient))
    return true;
  if (served && has_waited(ticket, account->settings.refresh_wait)) {
    sit_out(account);
    return true;
  }
  if (landed) {
    if (error)
      *error = account->landed_with;
    return true;
  }
  if (!ticket->boarded && account_grounded(account)) {
    error_set(error, LUCIDAUTH_NOT_READY, "%s", account_grounded(account));
    return true;
  }
  if (!has_waited(ticket, longest_wait(account)))
    return false;
  error_set(error, LUCIDAUTH_TIMEOUT, "%s", account->flying ? takes_too_long : no_thread);
  return true;
}

/* There is no thread; `within` 0: nor will there be one. */
static void tell_of_no_thread(lucidauth_ticket *ticket, lucidauth_error *error)
{
  bool never = background_is_forbidden();
  if (never)
    ticket->within = 0;
  error_set(error, LUCIDAUTH_NOT_READY, "%s", never ? forbidden : no_thread);
}

/* Seconds until the ticket has waited long enough for an answer. A token that lives may be in the storage alone: the
 * flight then lands with it after refresh_wait. */
static double time_left(const struct lucidauth_account *account, const lucidauth_ticket *ticket)
{
  double waited = ticket->waited, patience = account->settings.refresh_wait;
  double left = (!ticket->refresh && waited < patience ? patience : longest_wait(account)) - waited;
  return left > 0 ? left : PATIENCE_PAUSE;
}

enum poll ticket_poll(struct lucidauth_account *account, lucidauth_ticket *ticket, bool patient, char **token,
                      uint64_t *serial, lucidauth_error *error)
{
  struct moment now = clock_now();
  lucidauth_error said = {.code = LUCIDAUTH_OK};
  pthread_mutex_lock(&account->mutex);
  look_at_the_time(ticket, now.steady);
  bool settled = !account->forked || account_settle_in_child(account, &said);
  bool done = !settled || (!ticket->refresh && in_use_still_good(account));
  bool boarded = true;
  if (!done) {
    leave_if_in_vain(account, ticket);
    boarded = board(account, ticket);
    done = answer_ticket(account, ticket, patient, now, &said);
    ticket->within = time_left(account, ticket);
  }
  *token = done && said.code == LUCIDAUTH_OK ? secret_copy(account->token) : NULL;
  if (serial)
    *serial = atomic_load_explicit(&account->serial, memory_order_relaxed);
  pthread_mutex_unlock(&account->mutex);
  if (!done && boarded)
    error_set(&said, LUCIDAUTH_NOT_READY, "%s", under_way);
  else if (!done)
    tell_of_no_thread(ticket, &said);
  if (error)
    *error = said;
  return done ? POLL_ANSWERED : boarded ? POLL_WAIT : POLL_NO_THREAD;
}
