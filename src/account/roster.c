#include "roster.h"

#include "../base/hash.h"
#include "../system/clock.h"
#include "parts.h"

#include <stdlib.h>
#include <string.h>

enum { TABLE_FIRST = 8, LOOKS_AT_RESTLESS = 2, LOOKS_AT_RESTING = 16 };

static size_t hash(const char *name)
{
  uint64_t mixed = hash_bytes(name, strlen(name));
  return (size_t)(mixed ^ mixed >> 32);
}

/* ---- all of them; with the mutex held ---- */

static struct lucidauth_account **place_in_table(struct roster *roster, const char *name)
{
  return &roster->table[hash(name) & (roster->places - 1)];
}

static void put_in_table(struct roster *roster, struct lucidauth_account *account)
{
  struct lucidauth_account **place = place_in_table(roster, account->name);
  account->place.next_in_place = *place;
  *place = account;
}

/* Room for one more. False: out of memory, and there is no table at all; a fuller one than it should be still
 * serves. */
static bool make_room(struct roster *roster)
{
  if (roster->count < roster->places)
    return true;
  size_t places = roster->places ? 2 * roster->places : TABLE_FIRST;
  struct lucidauth_account **table = calloc(places, sizeof(struct lucidauth_account *));
  if (!table)
    return roster->table != NULL;
  free(roster->table);
  roster->table = table;
  roster->places = places;
  for (struct lucidauth_account *account = roster->accounts; account; account = account->place.next)
    put_in_table(roster, account);
  return true;
}

static struct lucidauth_account *find_account(struct roster *roster, const char *name)
{
  struct lucidauth_account *account = roster->table ? *place_in_table(roster, name) : NULL;
  while (account && strcmp(account->name, name) != 0)
    account = account->place.next_in_place;
  return account;
}

static struct lucidauth_account *add_account(struct roster *roster, const char *name, lucidauth_error *error)
{
  if (!make_room(roster)) {
    error_set(error, LUCIDAUTH_STORAGE, "There is not enough memory for an account.");
    return NULL;
  }
  struct lucidauth_account *account = account_new(roster->client, name, error);
  if (!account)
    return NULL;
  account->place.roster = roster;
  account->place.next = roster->accounts;
  if (account->place.next)
    account->place.next->place.previous = account;
  roster->accounts = account;
  roster->count++;
  put_in_table(roster, account);
  return account;
}

static void take_out(struct roster *roster, struct lucidauth_account *account)
{
  struct lucidauth_account **place = place_in_table(roster, account->name);
  while (*place != account)
    place = &(*place)->place.next_in_place;
  *place = account->place.next_in_place;
  if (account->place.previous)
    account->place.previous->place.next = account->place.next;
  else
    roster->accounts = account->place.next;
  if (account->place.next)
    account->place.next->place.previous = account->place.previous;
  roster->count--;
}

/* ---- those that nobody has; with the mutex held ---- */

static void lay(struct account_list *list, struct lucidauth_account *account)
{
  account->place.rests_in = list;
  account->place.rests_before = NULL;
  account->place.rests_behind = list->last;
  *(list->last ? &list->last->place.rests_before : &list->first) = account;
  list->last = account;
}

static void lift(struct lucidauth_account *account)
{
  struct account_list *list = account->place.rests_in;
  if (!list)
    return;
  *(account->place.rests_behind ? &account->place.rests_behind->place.rests_before : &list->first) =
      account->place.rests_before;
  *(account->place.rests_before ? &account->place.rests_before->place.rests_behind : &list->last) =
      account->place.rests_behind;
  account->place.rests_in = NULL;
}

/* Nobody finds it from now on. False: the background's thread is with it. */
static bool dismiss(struct roster *roster, struct lucidauth_account *account, struct lucidauth_account **dismissed)
{
  if (!account_may_leave(account))
    return false;
  lift(account);
  take_out(roster, account);
  account->place.next = *dismissed;
  *dismissed = account;
  return true;
}

/* Nobody has it any more. One with a flight under way is seen to when others are. */
static void rest(struct roster *roster, struct lucidauth_account *account, struct lucidauth_account **dismissed)
{
  lift(account);
  enum account_worth worth = account_worth(account);
  if (worth == ACCOUNT_EMPTY && dismiss(roster, account, dismissed))
    return;
  lay(worth == ACCOUNT_STORED ? &roster->resting : &roster->restless, account);
}

/* A few at a time: so nobody has to go through all. */
static void tidy(struct roster *roster, struct lucidauth_account **dismissed)
{
  for (int i = 0; i < LOOKS_AT_RESTLESS && roster->restless.first; i++)
    rest(roster, roster->restless.first, dismissed);
  for (int i = 0; i < LOOKS_AT_RESTING && roster->resting.first && roster->count > roster->most; i++) {
    struct lucidauth_account *oldest = roster->resting.first;
    if (account_worth(oldest) == ACCOUNT_STAYS || !dismiss(roster, oldest, dismissed)) {
      lift(oldest);
      lay(&roster->restless, oldest);
    }
  }
}

/* Without the mutex: the storage is closed, and the background's thread may end with its last account. */
static void free_all(struct lucidauth_account *dismissed)
{
  for (struct lucidauth_account *account = dismissed, *next; account; account = next) {
    next = account->place.next;
    account_dismiss(account);
  }
}

/* ---- */

void roster_init(struct roster *roster, struct client_shared *client, size_t most)
{
  *roster = (struct roster){.client = client, .most = most};
  pthread_mutex_init(&roster->mutex, NULL);
}

void roster_close(struct roster *roster)
{
  pthread_mutex_lock(&roster->mutex);
  atomic_store(&roster->client->closing, true);
  pthread_mutex_unlock(&roster->mutex);
}

bool roster_start_leaving(struct roster *roster)
{
  bool idle = true;
  pthread_mutex_lock(&roster->mutex);
  for (struct lucidauth_account *account = roster->accounts; account; account = account->place.next)
    if (!account_start_leaving(account))
      idle = false;
  pthread_mutex_unlock(&roster->mutex);
  return idle;
}

void roster_free(struct roster *roster)
{
  for (struct lucidauth_account *account = roster->accounts, *next; account; account = next) {
    next = account->place.next;
    account_free(account);
  }
  free(roster->table);
  pthread_mutex_destroy(&roster->mutex);
}

struct lucidauth_account *roster_take(struct roster *roster, const char *name, lucidauth_error *error)
{
  struct lucidauth_account *dismissed = NULL;
  pthread_mutex_lock(&roster->mutex);
  if (atomic_load(&roster->client->closing)) {
    pthread_mutex_unlock(&roster->mutex);
    error_set(error, LUCIDAUTH_NOT_READY, "This client is being closed. Nothing was changed.");
    return NULL;
  }
  struct lucidauth_account *account = find_account(roster, name);
  if (account) {
    lift(account);
  } else if ((account = add_account(roster, name, error)) != NULL) {
    tidy(roster, &dismissed);
  }
  if (account)
    account->place.users++;
  pthread_mutex_unlock(&roster->mutex);
  free_all(dismissed);
  return account;
}

void roster_hold(struct lucidauth_account *account)
{
  pthread_mutex_lock(&account->place.roster->mutex);
  account->place.users++;
  pthread_mutex_unlock(&account->place.roster->mutex);
}

/* With the mutex held. While the client is being closed its accounts are gone through. */
static void drop_user(struct lucidauth_account *account, struct lucidauth_account **dismissed)
{
  struct roster *roster = account->place.roster;
  if (--account->place.users > 0 || atomic_load(&roster->client->closing))
    return;
  rest(roster, account, dismissed);
  if (roster->count > roster->most)
    tidy(roster, dismissed);
}

void roster_give_back(struct lucidauth_account *account)
{
  struct roster *roster = account->place.roster;
  struct lucidauth_account *dismissed = NULL;
  pthread_mutex_lock(&roster->mutex);
  drop_user(account, &dismissed);
  pthread_mutex_unlock(&roster->mutex);
  free_all(dismissed);
}

struct lucidauth_account *roster_next(struct roster *roster, struct lucidauth_account *account)
{
  if (!clock_lock(&roster->mutex))
    return NULL;
  struct lucidauth_account *next = account ? account->place.next : roster->accounts, *dismissed = NULL;
  if (next) {
    lift(next);
    next->place.users++;
  }
  if (account)
    drop_user(account, &dismissed);
  pthread_mutex_unlock(&roster->mutex);
  free_all(dismissed);
  return next;
}

void roster_visit(struct roster *roster, void (*visit)(struct lucidauth_account *account))
{
  for (struct lucidauth_account *account = roster->accounts, *next; account; account = next) {
    next = account->place.next;
    visit(account);
  }
}

void roster_before_fork(struct roster *roster)
{
  pthread_mutex_lock(&roster->mutex);
}

void roster_after_fork(struct roster *roster)
{
  pthread_mutex_unlock(&roster->mutex);
}
