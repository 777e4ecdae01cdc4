/* Preloaded beside a sanitizer's runtime, so that only the interpreter under test runs with it: of the programs that a
 * spec starts, curl hangs under it and date fails. */
#include <stdlib.h>

__attribute__((constructor)) static void unpreload(void)
{
  unsetenv("LD_PRELOAD");
  unsetenv("LD_LIBRARY_PATH");
}
