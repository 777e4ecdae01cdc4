#include "fork.h"

#include "../api/client.h"
#include "../drivers/background.h"
#include "../http/http.h"
#include "../store/mapping.h"
#include "../system/clock.h"
#include "account.h"
#include "roster.h"

#include <dlfcn.h>
#include <pthread.h>

static pthread_mutex_t clients_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct lucidauth *clients;

static void for_each_account(void (*visit)(struct lucidauth_account *account))
{
  for (struct lucidauth *client = clients; client; client = client->next)
    for (struct lucidauth_account *account = client->accounts; account; account = account->next)
      visit(account);
}

void fork_visit_accounts(void (*visit)(struct lucidauth_account *account))
{
  if (!clock_lock(&clients_mutex))
    return;
  for (struct lucidauth *client = clients; client; client = client->next)
    for (struct lucidauth_account *account = NULL; (account = roster_next(client, account)) != NULL;)
      visit(account);
  pthread_mutex_unlock(&clients_mutex);
}

static void lock_account(struct lucidauth_account *account)
{
  pthread_mutex_lock(&account->mutex);
}

static void unlock_account(struct lucidauth_account *account)
{
  pthread_mutex_unlock(&account->mutex);
}

static void disown_account(struct lucidauth_account *account)
{
  if (account->craft.store)
    account->craft.store->ops->forked(account->craft.store);
  /* the parent's waiting threads are not here, and whoever destroys the old one waits for them */
  clock_init_condition(&account->landed);
  account->forked = true;
  pthread_mutex_unlock(&account->mutex);
}

/* The locks in the order in which they are taken elsewhere. */
static void before_fork(void)
{
  pthread_mutex_lock(&clients_mutex);
  for (struct lucidauth *client = clients; client; client = client->next)
    pthread_mutex_lock(&client->mutex);
  for_each_account(lock_account);
  background_before_fork();
  for (struct lucidauth *client = clients; client; client = client->next)
    pthread_mutex_lock(&client->events_mutex);
  http_before_fork();
  mapping_before_fork();
}

static void after_fork(void (*visit)(struct lucidauth_account *account))
{
  mapping_after_fork();
  http_after_fork();
  for (struct lucidauth *client = clients; client; client = client->next)
    pthread_mutex_unlock(&client->events_mutex);
  for_each_account(visit);
  for (struct lucidauth *client = clients; client; client = client->next)
    pthread_mutex_unlock(&client->mutex);
  pthread_mutex_unlock(&clients_mutex);
}

static void after_fork_in_parent(void)
{
  background_after_fork(false);
  after_fork(unlock_account);
}

static void after_fork_in_child(void)
{
  background_after_fork(true);
  after_fork(disown_account);
}

/* The handlers outlive any dlclose: a Lua state may end, and another fork, while the process goes on. */
static void stay_loaded(void)
{
#if defined(RTLD_NODELETE)
  Dl_info self;
  if (dladdr((void *)&clients_mutex, &self) && self.dli_fname)
    (void)dlopen(self.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
#endif
}

static void watch_forks(void)
{
  stay_loaded();
  pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

void fork_watch(struct lucidauth *client)
{
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, watch_forks);
  pthread_mutex_lock(&clients_mutex);
  client->next = clients;
  clients = client;
  pthread_mutex_unlock(&clients_mutex);
}

void fork_forget(struct lucidauth *client)
{
  pthread_mutex_lock(&clients_mutex);
  for (struct lucidauth **place = &clients; *place; place = &(*place)->next)
    if (*place == client) {
      *place = client->next;
      break;
    }
  pthread_mutex_unlock(&clients_mutex);
}
