/* A sandbox in a process of its own, as a C test needs it. Whatever goes wrong here ends the test. */
#ifndef SPEC_DRIVE_SANDBOX_H
#define SPEC_DRIVE_SANDBOX_H

#include <cjson/cJSON.h>
#include <sys/types.h>

struct sandbox {
  pid_t process;
  int stdin_pipe; /* the sandbox ends with it */
  int port;
  char url[64];
};

/* With the default account and `accounts` more: account-1, account-2, ... Run from the source's folder. */
void sandbox_start(struct sandbox *sandbox, int accounts);
void sandbox_stop(struct sandbox *sandbox);

/* One of the requests that lua/lucidauth/sandbox/control.lua lists; `body` is JSON or NULL. The caller frees the
 * answer with cJSON_Delete. */
cJSON *sandbox_ask(const struct sandbox *sandbox, const char *method, const char *name, const char *body);

/* One of the log's counts, "token_requests". */
int sandbox_count(const struct sandbox *sandbox, const char *name);

/* A token of an account, "access_token" or "refresh_token"; "" when there is none. Valid until the next call. */
const char *sandbox_token(const struct sandbox *sandbox, const char *account, const char *kind);

#endif
