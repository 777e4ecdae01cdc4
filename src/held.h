/* A signal that a system call or a library sends this thread although its failure is told anyway, held back: whoever
 * does not expect it would be ended by it in the middle of a refresh. */
#ifndef HELD_H
#define HELD_H

#include <signal.h>
#include <stdbool.h>

struct held {
  int number;
  sigset_t mask; /* the thread's, as it was */
  bool pending;  /* one was on its way already: it is not ours */
};

/* From here on the thread gets no signal of this number. */
void held_begin(struct held *held, int number);

/* What came meanwhile is dropped, and all is as it was. */
void held_end(const struct held *held);

#endif
