/* What becomes of a caller's wish for a token while the background's thread flies. */
#ifndef API_TICKET_H
#define API_TICKET_H

#include "../account/account.h"

enum poll {
  POLL_ANSWERED,
  POLL_WAIT,     /* a flight is under way: ask again, after account_wait perhaps */
  POLL_NO_THREAD /* there is none to be had that would fly: ask again later, or fly */
};

/* lucidauth_poll. */
enum poll ticket_poll(struct lucidauth_account *account, lucidauth_ticket *ticket, bool patient, char **token,
                      uint64_t *serial, lucidauth_error *error);

#endif
