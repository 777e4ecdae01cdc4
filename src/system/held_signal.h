/* A signal that a system call or a library sends this thread although its failure is told anyway, held back: whoever
 * does not expect it would be ended by it in the middle of a refresh. */
#ifndef HELD_SIGNAL_H
#define HELD_SIGNAL_H

#include <signal.h>
#include <stdbool.h>

struct held_signal {
  int number;
  sigset_t mask; /* the thread's, as it was */
  bool pending;  /* one was on its way already: it is not ours */
};

/* From here on the thread gets no signal of this number. */
void held_signal_begin(struct held_signal *held, int number);

/* What came meanwhile is dropped, and all is as it was. */
void held_signal_end(const struct held_signal *held);

#endif
