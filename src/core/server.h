/* Which server a URL names. */
#ifndef CORE_SERVER_H
#define CORE_SERVER_H

#include <stdbool.h>
#include <stddef.h>

/* How many bytes of a URL name the server: scheme, host and port. */
size_t server_length(const char *url);

/* Whether two URLs name one server: the same scheme, host and port, whatever the path. All servers on this machine
 * count as one: there a program is tried out, and the port differs from run to run. */
bool server_is_same(const char *url, const char *other);

#endif
