/* The ledger of a lock file, beside the page. It holds the names of the owner's temporary files, so that the next lock
 * holder finds them after a crash. It also holds the last refresh tokens that were spent here, by their hashes, which
 * outlive the record. Both lie within the page's file, in places of their own. Only the lock holder writes them,
 * through a descriptor and not through the mapping: a file that is cut short under it then raises no signal.
 * Half-written and foreign bytes do not pass for an entry. The file never grows. */
#ifndef STORE_LEDGER_H
#define STORE_LEDGER_H

#include "../record/record.h"

#include <stdbool.h>
#include <stddef.h>

enum {
  LEDGER_FROM = 256, /* bytes of the page's file, those of LEDGER_END not included */
  LEDGER_END = 4096,
  LEDGER_NAMES = 4,
  LEDGER_NAME = 25, /* 24 hexadecimal digits and a NUL */
  LEDGER_SPENT = 64,
  LEDGER_TEXT = LEDGER_SPENT * RECORD_HASH /* hashes with spaces between, and a NUL */
};

/* Whether it is such a name: the content of a file is not trusted. */
bool ledger_is_name(const char *name);

/* Put a name in place number `place` (below LEDGER_NAMES) of the file. False: it could not be written. */
bool ledger_put_name(int fd, int place, const char *name);

/* Read them; an empty one: there is none in that place. */
void ledger_names(int fd, char names[LEDGER_NAMES][LEDGER_NAME]);

/* Add a hash; the oldest of LEDGER_SPENT goes. */
void ledger_spend(int fd, const char *hash);

/* All that are there, the oldest first. */
void ledger_spent(int fd, char text[LEDGER_TEXT]);

#endif
