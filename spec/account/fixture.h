/* Shared by the tests of accounts: a token file of their own, clients that use it and the endpoint inside the
 * process. */
#ifndef SPEC_ACCOUNT_FIXTURE_H
#define SPEC_ACCOUNT_FIXTURE_H

#include "../lucidauth.h"
#include "endpoint.h"

#include <stdatomic.h>
#include <stdbool.h>

struct fixture {
  char folder[64], path[80]; /* of the token file; nothing is there yet */
  char record[8192];         /* in a storage of the test's own */
};

extern struct fixture fixture;

/* For cmocka; they start and stop the endpoint, too. */
int fixture_set_up(void **state);
int fixture_tear_down(void **state);

/* Of a client of that file, with the refresh token "R0". */
lucidauth_options fixture_options(bool background);

/* The client, or the end of the test. */
lucidauth *fixture_open(const lucidauth_options *options);
lucidauth *fixture_client(bool background);

/* Store "A0" and "R0"; "A0" lives for so many seconds more of its hour. */
void fixture_store(double seconds);

/* The same beside the mark of a refresh that another process left unfinished. */
void fixture_store_unfinished(double seconds);

/* In the same folder, for LUCIDAUTH_DIRECTORY: the account's token file has this text. */
void fixture_store_account(const char *account, const char *text);

/* Whether the token file has this text in it. */
bool fixture_stored(const char *text);

/* Wait until the flag is set; false: it never was. */
bool fixture_wait_for(atomic_bool *flag);

/* Ends the test unless this is the token, and frees it. */
void fixture_assert_token(char *token, const char *expected);

/* Of a client whose flights the test carries out by itself, at a provider without introspection. */
lucidauth_options fixture_own_storage(void);

/* Carry out one step of such a flight, with a storage that keeps what it is given, and go on to the next. */
lucidauth_action fixture_step(lucidauth_flight *flight, const lucidauth_action *action);

/* The exit status of a child process; 128 and more: the signal that has ended it. */
int fixture_status(int child);

#endif
