/* pthread_cancel: a thread that is cancelled inside the library goes on to the end of its call. Anywhere else it would
 * take the answer to a refresh with it, and leave locks and flights behind that nobody ends. */
#ifndef CANCEL_H
#define CANCEL_H

#include <pthread.h>

/* Returns the argument for cancel_allow. */
static inline int cancel_put_off(void)
{
  int before;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
  return before;
}

static inline void cancel_allow(int before)
{
  pthread_setcancelstate(before, NULL);
}

#endif
