/* The virtual Lucid: it rotates, the old pair dies at once, and whoever spends a refresh token twice loses the
 * whole grant. */
#ifndef SERVER_H
#define SERVER_H

#include "simulation.h"

/* A new login: the account's next grant. Returns its refresh token. False in `kind`: there is no room for more. */
struct token server_login(struct simulation *sim, int account);

/* The same, with the access token that comes with it. */
struct pair server_login_with_tokens(struct simulation *sim, int account);

/* Rotate. `issued`: the new tokens, without a refresh token when the old one is kept. False: invalid_grant. `who`
 * asks, for the story. */
bool server_refresh(struct simulation *sim, struct token token, bool omit, const char *who, struct pair *issued);

bool server_active(const struct simulation *sim, struct token token);

/* Whether an API call with this access token would work. */
bool server_accepts(const struct simulation *sim, struct token token);

void server_revoke(struct simulation *sim, int account);

/* The grant that a token is of; NULL: the server never issued such a token. */
struct grant *server_grant(struct simulation *sim, struct token token);

/* The JSON of an answer with these tokens. */
void server_write(const struct simulation *sim, char *body, size_t size, const struct pair *issued);

#endif
