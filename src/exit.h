/* The end of the process by exit() or by returning from main, with clients still open. */
#ifndef EXIT_H
#define EXIT_H

/* From now on the end of the process waits for flights that are in the air, and tries once more to save what could not
 * be saved. To be called when libcurl and its TLS library are set up, whose own last steps are then taken later. */
void exit_watch(void);

#endif
