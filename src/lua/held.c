/* Accounts that Lua values hold on to. */
#include "binding.h"

void hold(struct held *held, struct client *client)
{
  let_go(held);
  if (!client->account)
    return;
  *held = (struct held){.account = client->account, .next = client->held, .place = &client->held};
  if (held->next)
    held->next->place = &held->next;
  client->held = held;
  client->account = NULL;
}

static lucidauth_account *unlink_held(struct held *held)
{
  lucidauth_account *account = held->account;
  *held->place = held->next;
  if (held->next)
    held->next->place = held->place;
  held->account = NULL;
  return account;
}

void let_go(struct held *held)
{
  if (held->account)
    lucidauth_release_account(unlink_held(held));
}

void forget_accounts(struct client *client)
{
  while (client->held)
    (void)unlink_held(client->held);
  client->account = NULL;
  client->token = NULL;
}

lucidauth_account *account_at(lua_State *L, struct client *client, int index, lucidauth_error *error)
{
  const char *name = lua_isnoneornil(L, index) ? NULL : luaL_checkstring(L, index);
  lucidauth_account *former = client->account;
  client->token = NULL;
  client->account = lucidauth_get_account(client->client, name, error);
  lucidauth_release_account(former);
  return client->account;
}
