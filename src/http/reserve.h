/* Memory set aside before a request is sent, for what libcurl asks for while the answer arrives: where the system has
 * none left at that moment, the token that was spent must not be lost over it. Thread-safe. */
#ifndef HTTP_RESERVE_H
#define HTTP_RESERVE_H

#include <stdbool.h>
#include <stddef.h>

struct share;

/* One more transfer, with its share. False: out of memory. */
bool reserve_hold(void);

/* One less, which has been `opened` or not. */
void reserve_drop(bool opened);

/* From here on a transfer may take from the reserve. False: others have taken of its share, since memory is out. */
bool reserve_open(void);

/* NULL: there is nothing, or no transfer has opened the reserve. `share` is for reserve_give_back, which takes memory
 * that is wiped. */
void *reserve_take(size_t size, struct share **share);
void reserve_give_back(struct share *share);

/* Around fork(). */
void reserve_before_fork(void);
void reserve_after_fork(void);

#endif
