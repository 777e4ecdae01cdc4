/* Memory set aside before a request is sent, for libcurl's allocations while the answer arrives. If the system is out
 * of memory at that moment, the answer to the token that was spent must not be lost. Thread-safe. */
#ifndef HTTP_RESERVE_H
#define HTTP_RESERVE_H

#include <stdbool.h>
#include <stddef.h>

struct share;

/* One more transfer, with its share. False: out of memory. */
bool reserve_hold(void);

/* One less, which has been `opened` or not. */
void reserve_drop(bool opened);

/* From here on a transfer may take from the reserve. False: others have taken of its share, because the process is out
 * of memory. */
bool reserve_open(void);

/* NULL: there is nothing, or no transfer has opened the reserve. `share` is for reserve_give_back, which takes memory
 * that is wiped. */
void *reserve_take(size_t size, struct share **share);
void reserve_give_back(struct share *share);

/* Around fork(). */
void reserve_before_fork(void);
void reserve_after_fork(void);

#endif
