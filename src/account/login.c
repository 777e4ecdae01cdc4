#include "login.h"

#include "../base/hash.h"

#include <stdlib.h>

/* The answer of a moment ago is told from another, and nobody gains by a likeness. */
struct login_key login_key(const char *answer, size_t length, bool replaces)
{
  return (struct login_key){.fingerprint = hash_bytes(answer, length), .length = length, .replaces = replaces};
}

static void drop_behind(struct login *login)
{
  struct login *former = login->former;
  login->former = NULL;
  logins_free(&former);
}

struct login *logins_add(struct login **logins, const struct login_key *key)
{
  struct login *login = calloc(1, sizeof *login);
  if (!login)
    return NULL;
  login->former = *logins;
  login->number = *logins ? (*logins)->number + 1 : 1;
  login->key = *key;
  *logins = login;
  int count = 1;
  for (struct login *next = login; next; next = next->former)
    if (count++ == LOGINS_MOST)
      drop_behind(next);
  return login;
}

struct login *logins_find(struct login *logins, uint64_t number)
{
  while (logins && logins->number != number)
    logins = logins->former;
  return logins;
}

static bool is_of(const struct login *login, const struct login_key *key)
{
  const struct login_key *own = &login->key;
  return own->replaces == key->replaces && own->length == key->length && own->fingerprint == key->fingerprint;
}

struct login *logins_find_untold(struct login *logins, const struct login_key *key, double since)
{
  while (logins && !is_of(logins, key))
    logins = logins->former;
  bool late = logins && logins->ended && (logins->told || logins->ended_at < since);
  return late ? NULL : logins;
}

const lucidauth_error *login_tell(struct login *login)
{
  login->told = true;
  return &login->outcome;
}

void logins_end(struct login *logins, double steady, const struct lucidauth_error *outcome)
{
  if (!logins || logins->ended)
    return;
  logins->ended = true;
  logins->ended_at = steady;
  logins->outcome = *outcome;
}

void logins_forget_unfinished(struct login **logins)
{
  struct login *login = *logins;
  if (!login || login->ended)
    return;
  *logins = login->former;
  free(login);
}

void logins_free(struct login **logins)
{
  while (*logins) {
    struct login *login = *logins;
    *logins = login->former;
    free(login);
  }
}
