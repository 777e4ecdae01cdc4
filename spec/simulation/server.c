#include "server.h"

#include "invariants.h"

#include <stdio.h>

struct token server_login(struct simulation *sim, int account)
{
  int of = sim->accounts[account].of;
  struct account *owner = &sim->accounts[of];
  if (owner->grant + 1 == GRANTS)
    return (struct token){0};
  owner->grant++;
  return (struct token){.kind = 'R', .account = of, .grant = owner->grant};
}

struct pair server_login_with_tokens(struct simulation *sim, int account)
{
  struct token refresh = server_login(sim, account);
  struct grant *grant = server_grant(sim, refresh);
  if (!grant)
    return (struct pair){0};
  grant->access = 1;
  grant->dies = sim->now + sim->conditions.lifetime;
  return (struct pair){.refresh = refresh, .access = {'A', refresh.account, refresh.grant, grant->access}};
}

struct grant *server_grant(struct simulation *sim, struct token token)
{
  if (!token.kind || token.account >= sim->conditions.accounts || token.grant > sim->accounts[token.account].grant)
    return NULL;
  struct grant *grant = &sim->accounts[token.account].grants[token.grant];
  return token.serial <= (token.kind == 'R' ? grant->refresh : grant->access) ? grant : NULL;
}

static void punish(struct simulation *sim, struct grant *grant, struct token token, const char *who)
{
  char text[TOKEN_TEXT];
  token_write(text, token);
  grant->revoked = true;
  simulation_tell(sim, NULL, token.account,
                  "the server sees %s, which is spent, again (from %s), and revokes the grant", text, who);
  invariants_reuse(sim, token, who);
}

bool server_refresh(struct simulation *sim, struct token token, bool omit, const char *who, struct pair *issued)
{
  struct grant *grant = token.kind == 'R' ? server_grant(sim, token) : NULL;
  *issued = (struct pair){0};
  if (!grant || grant->revoked)
    return false;
  if (token.serial < grant->refresh) {
    punish(sim, grant, token, who);
    return false;
  }
  if (!omit && grant->refresh + 1 < SERIALS)
    issued->refresh = (struct token){'R', token.account, token.grant, ++grant->refresh};
  issued->access = (struct token){'A', token.account, token.grant, ++grant->access};
  grant->dies = sim->now + sim->conditions.lifetime;
  sim->refreshes++;
  sim->tally->refreshes++;
  return true;
}

bool server_active(const struct simulation *sim, struct token token)
{
  const struct grant *grant = server_grant((struct simulation *)(uintptr_t)sim, token);
  return grant && !grant->revoked && token.serial == grant->refresh;
}

bool server_accepts(const struct simulation *sim, struct token token)
{
  const struct grant *grant = server_grant((struct simulation *)(uintptr_t)sim, token);
  return grant && !grant->revoked && token.serial == grant->access && sim->now < grant->dies;
}

void server_revoke(struct simulation *sim, int account)
{
  struct account *of = &sim->accounts[sim->accounts[account].of];
  of->grants[of->grant].revoked = true;
}

void server_write(const struct simulation *sim, char *body, size_t size, const struct pair *issued)
{
  char access[TOKEN_TEXT], refresh[TOKEN_TEXT];
  token_write(access, issued->access);
  token_write(refresh, issued->refresh);
  int length = snprintf(body, size, "{\"access_token\":\"%s\",", access);
  if (issued->refresh.kind)
    length += snprintf(body + length, size - (size_t)length, "\"refresh_token\":\"%s\",", refresh);
  snprintf(body + length, size - (size_t)length, "\"expires_in\":%.0f,\"token_type\":\"bearer\"}",
           sim->conditions.lifetime);
}
