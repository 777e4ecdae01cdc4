/* What drivers tell an account of its flight. */
#include "account.h"

#include "exit.h"

static void locks(struct craft *craft)
{
  account_show(account_of(craft));
}

static void sends(struct craft *craft)
{
  account_note_sent(account_of(craft));
}

static void landed(struct craft *craft)
{
  lucidauth_free_token(account_land(account_of(craft), NULL, NULL));
}

static bool is_due(struct craft *craft)
{
  return account_is_due(account_of(craft));
}

const struct craft_owner account_owner = {
    .objection = exit_watch, .locks = locks, .sends = sends, .landed = landed, .is_due = is_due};
