/* The sandbox as a process of its own, and HTTP to talk to it, for tests and programs in C. */
#ifndef SPEC_ACCOUNT_SANDBOX_H
#define SPEC_ACCOUNT_SANDBOX_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <sys/types.h>

struct sandbox {
  pid_t pid;
  int input; /* it ends when this closes */
  int port;
  char url[64];
  char refresh_token[128]; /* the one it started with */
};

/* Start it on a free port with `lua` as the interpreter and the project's folder `source`. `flags` ends with NULL.
 * Ends the program on failure. */
struct sandbox sandbox_start(const char *lua, const char *source, const char *const flags[]);
void sandbox_stop(struct sandbox *sandbox);

/* One request on a connection of its own. `bearer` and `body` may be NULL. The status; 0: no answer. *answer (may be
 * NULL: not wanted) is the body, to be freed; never NULL. */
int sandbox_ask(int port, const char *method, const char *path, const char *bearer, const char *body, char **answer);

/* One of the requests that lua/lucidauth/sandbox/control.lua lists, "grants" for /sandbox/grants; `body` is JSON or
 * NULL. The caller frees the answer with cJSON_Delete. Ends the program if it is refused. */
cJSON *sandbox_control(const struct sandbox *sandbox, const char *method, const char *name, const char *body);

/* One of the log's counts, "token_requests". */
long sandbox_count(const struct sandbox *sandbox, const char *name);

/* A token of an account, "access_token" or "refresh_token"; "" when there is none. Valid until the next call. */
const char *sandbox_token(const struct sandbox *sandbox, const char *account, const char *kind);

/* Epoch seconds, the sandbox's clock. */
double sandbox_clock(void);

/* Say what is wrong and end the program with status 1. */
_Noreturn void sandbox_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
