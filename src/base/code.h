/* The error codes. Programs compare them; people read the message beside them. */
#ifndef BASE_CODE_H
#define BASE_CODE_H

/* The order is part of the public interface: lucidauth.h repeats it, and a static assertion compares. */
enum code {
  CODE_OK,
  CODE_CONFIG,         /* a setting is missing or cannot be used */
  CODE_INVALID_CLIENT, /* the server does not accept client_id and client_secret */
  CODE_INVALID_GRANT,  /* the server refuses the refresh token */
  CODE_LOST_ROTATION,  /* a refresh was spent and its answer never arrived */
  CODE_NETWORK,        /* the server could not be reached, or this process lacks the means to */
  CODE_TIMEOUT,        /* no answer in time */
  CODE_RATE_LIMITED,   /* the server said: later */
  CODE_SERVER_ERROR,   /* the server failed */
  CODE_BAD_RESPONSE,   /* the server's answer makes no sense or cannot be used */
  CODE_STORAGE,        /* the token storage cannot be read or written */
  CODE_LOCKED,         /* another process holds the account's lock for too long */
  CODE_NOT_READY,      /* no token yet, and this caller may not wait */
  CODE_COUNT
};

/* The code's name as users see it, "invalid_grant" for CODE_INVALID_GRANT; never NULL, never freed. */
const char *code_name(enum code code);

#endif
