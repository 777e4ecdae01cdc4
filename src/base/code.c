#include "code.h"

static const char *const names[CODE_COUNT] = {
    [CODE_OK] = "ok",
    [CODE_CONFIG] = "config",
    [CODE_INVALID_CLIENT] = "invalid_client",
    [CODE_INVALID_GRANT] = "invalid_grant",
    [CODE_LOST_ROTATION] = "lost_rotation",
    [CODE_NETWORK] = "network",
    [CODE_TIMEOUT] = "timeout",
    [CODE_RATE_LIMITED] = "rate_limited",
    [CODE_SERVER_ERROR] = "server_error",
    [CODE_BAD_RESPONSE] = "bad_response",
    [CODE_STORAGE] = "storage",
    [CODE_LOCKED] = "locked",
    [CODE_NOT_READY] = "not_ready",
};

const char *code_name(enum code code)
{
  /* compared as unsigned: whether an enum has a sign is up to the compiler */
  return (unsigned)code < CODE_COUNT ? names[code] : "unknown";
}
