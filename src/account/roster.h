/* A client's accounts by name, and how many users each has. One without users rests, and may leave: at once when it
 * holds nothing, else when there are more than the client keeps and it was not used for the longest time. */
#ifndef ACCOUNT_ROSTER_H
#define ACCOUNT_ROSTER_H

#include "account.h"

#include <pthread.h>

/* Accounts without users, those that were given back first before the others. */
struct account_list {
  struct lucidauth_account *first, *last;
};

/* roster.c alone writes it. */
struct roster {
  struct client_shared *client;
  size_t most;                        /* are kept if they may leave */
  pthread_mutex_t mutex;              /* over the rest; taken before an account's mutex */
  struct lucidauth_account *accounts; /* the newest first */
  struct lucidauth_account **table;   /* the same by their names' hashes, a power of two of places */
  size_t places, count;
  struct account_list resting;  /* they may leave */
  struct account_list restless; /* they could not leave when they were last looked at */
};

/* An account's place among them; also roster.c's. */
struct roster_place {
  struct roster *roster;
  struct lucidauth_account *previous, *next, *next_in_place; /* in the list, and in the table */
  size_t users;                                              /* handles, and calls that go on; 0: it rests, there: */
  struct account_list *rests_in;
  struct lucidauth_account *rests_before, *rests_behind;
};

void roster_init(struct roster *roster, struct client_shared *client, size_t most);

/* From now on no account is added, and no flight begins. */
void roster_close(struct roster *roster);

/* account_start_leaving of them all. */
bool roster_start_leaving(struct roster *roster);

/* After roster_close, and after account_end of all. */
void roster_free(struct roster *roster);

/* The account of that name, made if there is none, with one more user. NULL: `error` says why. */
struct lucidauth_account *roster_take(struct roster *roster, const char *name, lucidauth_error *error);

/* One more user of an account that has one. */
void roster_hold(struct lucidauth_account *account);

/* One user less. */
void roster_give_back(struct lucidauth_account *account);

/* For a visit to them all: the next account, with one more user, behind this one, which has one less; NULL stands for
 * the beginning and for the end. Accounts that are added meanwhile are left out. NULL also when a thread that was
 * interrupted keeps the roster to itself. */
struct lucidauth_account *roster_next(struct roster *roster, struct lucidauth_account *account);

/* Visit them all at once: with the mutex held, or where no other thread is left that uses them. */
void roster_visit(struct roster *roster, void (*visit)(struct lucidauth_account *account));

/* Around fork(): the mutex is held. */
void roster_before_fork(struct roster *roster);
void roster_after_fork(struct roster *roster);

#endif
