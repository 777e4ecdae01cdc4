/* Signals that are held back from this thread, so that they do not end the process in the middle of a refresh. */
#ifndef HELD_SIGNAL_H
#define HELD_SIGNAL_H

#include <signal.h>
#include <stdbool.h>

struct held_signal {
  sigset_t held; /* none of them was on its way before */
  sigset_t mask; /* the thread's, as it was */
  sigset_t came; /* of those to be passed on: they have come, and the program has not seen them yet */
  double first;  /* steady seconds: when the first of them was seen; 0: none was */
  bool holding;
};

/* Whether it tells of a fault of the very thread that gets it: such a signal cannot be put off. */
bool held_signal_is_of_a_fault(int number);

/* ---- one that a system call or a library sends this thread although its failure is told anyway ---- */

/* From here on the thread gets no signal of this number. */
void held_signal_begin(struct held_signal *held, int number);

/* Signals that came meanwhile are dropped, and the mask is as it was. */
void held_signal_end(const struct held_signal *held);

/* ---- those that would end the process, as others send them: the program has said nothing of them ---- */

/* From here on the thread gets none of them; nothing happens if it holds them already. `held` starts as {0}. Those that
 * the program handles, ignores or blocks are left alone, and so are those that tell of a fault of this thread. */
void held_signals_begin(struct held_signal *held);

/* To be called every now and then as long as they are held, since signals of one kind are not counted: one that comes a
 * second or more after the first is obeyed at once. */
void held_signals_look(struct held_signal *held, double steady);

/* The mask is as it was; signals that came meanwhile are kept for held_signals_pass_on. */
void held_signals_let_go(struct held_signal *held);

/* Release them, if they are held; signals that came meanwhile arrive now. */
void held_signals_pass_on(struct held_signal *held);

#endif
