#include "exit.h"

#include "cancel.h"

#include <stdatomic.h>
#include <stdlib.h>

static atomic_bool watched, begun;
static void (*_Atomic at_exit)(void);

void exit_set(void (*settle)(void))
{
  atomic_store(&at_exit, settle);
}

static void on_exit_of_process(void)
{
  int cancel = cancel_put_off();
  void (*settle)(void) = atomic_load(&at_exit);
  atomic_store(&begun, true);
  if (settle)
    settle();
  cancel_allow(cancel);
}

/* Twice does no harm: two threads may come here at once. */
static bool watch(void)
{
  if (!atomic_load(&watched) && atexit(on_exit_of_process) == 0)
    atomic_store(&watched, true);
  return atomic_load(&watched);
}

const char *exit_watch(void)
{
  if (!watch())
    return "This process is out of memory: it could not be told of its own end (atexit), which might then cut a "
           "refresh "
           "off. Nothing was changed; free some memory and try again.";
  if (exit_has_begun())
    return "This process is ending, so no refresh begins any more: its answer could be lost. Nothing was changed.";
  return NULL;
}

bool exit_has_begun(void)
{
  return atomic_load(&begun);
}
