#include "roster.h"

#include "../api/error.h"
#include "../system/clock.h"
#include "account.h"

#include <stdlib.h>
#include <string.h>

enum { TABLE_FIRST = 8, LOOKS_AT_RESTLESS = 2, LOOKS_AT_RESTING = 16 };

/* FNV-1a. */
static size_t hash(const char *name)
{
  uint64_t mixed = UINT64_C(14695981039346656037);
  for (; *name; name++)
    mixed = (mixed ^ (unsigned char)*name) * UINT64_C(1099511628211);
  return (size_t)(mixed ^ mixed >> 32);
}

/* ---- all of them; with the client's mutex held ---- */

static struct lucidauth_account **place_of(struct lucidauth *client, const char *name)
{
  return &client->table[hash(name) & (client->places - 1)];
}

static void put_in_table(struct lucidauth *client, struct lucidauth_account *account)
{
  struct lucidauth_account **place = place_of(client, account->name);
  account->next_in_place = *place;
  *place = account;
}

/* Room for one more. False: memory is out, and there is no table at all; a fuller one than it should be still
 * serves. */
static bool make_room(struct lucidauth *client)
{
  if (client->account_count < client->places)
    return true;
  size_t places = client->places ? 2 * client->places : TABLE_FIRST;
  struct lucidauth_account **table = calloc(places, sizeof(struct lucidauth_account *));
  if (!table)
    return client->table != NULL;
  free(client->table);
  client->table = table;
  client->places = places;
  for (struct lucidauth_account *account = client->accounts; account; account = account->next)
    put_in_table(client, account);
  return true;
}

static struct lucidauth_account *find(struct lucidauth *client, const char *name)
{
  struct lucidauth_account *account = client->table ? *place_of(client, name) : NULL;
  while (account && strcmp(account->name, name) != 0)
    account = account->next_in_place;
  return account;
}

static struct lucidauth_account *add(struct lucidauth *client, const char *name, lucidauth_error *error)
{
  if (!make_room(client)) {
    error_set(error, LUCIDAUTH_STORAGE, "There is not enough memory for an account.");
    return NULL;
  }
  struct lucidauth_account *account = account_new(client, name, error);
  if (!account)
    return NULL;
  account->next = client->accounts;
  if (account->next)
    account->next->previous = account;
  client->accounts = account;
  client->account_count++;
  put_in_table(client, account);
  return account;
}

static void take_out(struct lucidauth *client, struct lucidauth_account *account)
{
  struct lucidauth_account **place = place_of(client, account->name);
  while (*place != account)
    place = &(*place)->next_in_place;
  *place = account->next_in_place;
  if (account->previous)
    account->previous->next = account->next;
  else
    client->accounts = account->next;
  if (account->next)
    account->next->previous = account->previous;
  client->account_count--;
}

/* ---- those that nobody has; with the client's mutex held ---- */

static void lay(struct account_list *list, struct lucidauth_account *account)
{
  account->rests_in = list;
  account->rests_before = NULL;
  account->rests_behind = list->last;
  *(list->last ? &list->last->rests_before : &list->first) = account;
  list->last = account;
}

static void lift(struct lucidauth_account *account)
{
  struct account_list *list = account->rests_in;
  if (!list)
    return;
  *(account->rests_behind ? &account->rests_behind->rests_before : &list->first) = account->rests_before;
  *(account->rests_before ? &account->rests_before->rests_behind : &list->last) = account->rests_behind;
  account->rests_in = NULL;
}

/* Nobody finds it from now on. False: the background's thread is with it. */
static bool dismiss(struct lucidauth *client, struct lucidauth_account *account, struct lucidauth_account **dismissed)
{
  if (!account_may_leave(account))
    return false;
  lift(account);
  take_out(client, account);
  account->next = *dismissed;
  *dismissed = account;
  return true;
}

/* Nobody has it any more. One that is still in the air is seen to when others are. */
static void rest(struct lucidauth *client, struct lucidauth_account *account, struct lucidauth_account **dismissed)
{
  lift(account);
  enum account_worth worth = account_worth(account);
  if (worth == ACCOUNT_EMPTY && dismiss(client, account, dismissed))
    return;
  lay(worth == ACCOUNT_STORED ? &client->resting : &client->restless, account);
}

/* A few at a time: so nobody has to go through all. */
static void tidy(struct lucidauth *client, struct lucidauth_account **dismissed)
{
  for (int i = 0; i < LOOKS_AT_RESTLESS && client->restless.first; i++)
    rest(client, client->restless.first, dismissed);
  for (int i = 0; i < LOOKS_AT_RESTING && client->resting.first && client->account_count > client->options.max_accounts;
       i++) {
    struct lucidauth_account *oldest = client->resting.first;
    if (account_worth(oldest) == ACCOUNT_STAYS || !dismiss(client, oldest, dismissed)) {
      lift(oldest);
      lay(&client->restless, oldest);
    }
  }
}

/* Without the mutex: the storage is closed, and the background's thread may end with its last account. */
static void free_all(struct lucidauth_account *dismissed)
{
  for (struct lucidauth_account *account = dismissed, *next; account; account = next) {
    next = account->next;
    account_dismiss(account);
  }
}

/* ---- */

struct lucidauth_account *roster_take(struct lucidauth *client, const char *name, lucidauth_error *error)
{
  struct lucidauth_account *dismissed = NULL;
  pthread_mutex_lock(&client->mutex);
  if (atomic_load(&client->closing)) {
    pthread_mutex_unlock(&client->mutex);
    error_set(error, LUCIDAUTH_NOT_READY, "This client is being closed. Nothing was changed.");
    return NULL;
  }
  struct lucidauth_account *account = find(client, name);
  if (account) {
    lift(account);
  } else if ((account = add(client, name, error)) != NULL) {
    tidy(client, &dismissed);
  }
  if (account)
    account->users++;
  pthread_mutex_unlock(&client->mutex);
  free_all(dismissed);
  return account;
}

void roster_hold(struct lucidauth_account *account)
{
  pthread_mutex_lock(&account->client->mutex);
  account->users++;
  pthread_mutex_unlock(&account->client->mutex);
}

/* With the mutex held. While the client is being closed its accounts are gone through. */
static void give_back(struct lucidauth_account *account, struct lucidauth_account **dismissed)
{
  struct lucidauth *client = account->client;
  if (--account->users > 0 || atomic_load(&client->closing))
    return;
  rest(client, account, dismissed);
  if (client->account_count > client->options.max_accounts)
    tidy(client, dismissed);
}

void roster_give_back(struct lucidauth_account *account)
{
  struct lucidauth *client = account->client;
  struct lucidauth_account *dismissed = NULL;
  pthread_mutex_lock(&client->mutex);
  give_back(account, &dismissed);
  pthread_mutex_unlock(&client->mutex);
  free_all(dismissed);
}

struct lucidauth_account *roster_next(struct lucidauth *client, struct lucidauth_account *account)
{
  if (!clock_lock(&client->mutex))
    return NULL;
  struct lucidauth_account *next = account ? account->next : client->accounts, *dismissed = NULL;
  if (next) {
    lift(next);
    next->users++;
  }
  if (account)
    give_back(account, &dismissed);
  pthread_mutex_unlock(&client->mutex);
  free_all(dismissed);
  return next;
}
