/* The answer of a token endpoint, however odd, read as one of four kinds. One rule is behind every case: once the
 * server may have rotated, no token pair is thrown away over a side field. */
#ifndef OAUTH_ANSWER_H
#define OAUTH_ANSWER_H

#include "../base/code.h"
#include "../base/json.h"

#include <stdbool.h>
#include <stddef.h>

/* The outcome of one POST, as a transport reports it. It owns every pointer. */
struct reply {
  enum reply_delivery {
    REPLY_NOT_SENT, /* certain: not a byte of the request left this machine (no route, no TLS, refused) */
    REPLY_LOST,     /* the request, or a part of it, was sent, and no complete answer came back */
    REPLY_RECEIVED  /* an HTTP answer is here, whole unless `cut` */
  } delivery;
  bool timed_out;   /* NOT_SENT or LOST because time ran out */
  bool untrusted;   /* NOT_SENT because no trusted authority signed the server's certificate: no retry helps */
  bool cut;         /* the body went over the limit (1 MiB), the transfer was stopped: no part of it is used */
  bool whole;       /* RECEIVED: the body's length was told and reached (Content-Length, or chunks with their end). Else
                     * the end of the connection ended it, which looks the same where a body was cut */
  int status;       /* HTTP status; 0: none */
  const char *body; /* `length` bytes, not always NUL-terminated; with LOST the part that arrived */
  size_t length;
  const char *retry_after; /* the header's value, or NULL */
  const char *location;    /* the header's value, or NULL */
  const char *error;       /* NOT_SENT and LOST: the transport's own words, or NULL */
};

enum answer_kind {
  ANSWER_TOKENS,    /* the server rotated: `fields` must be saved, even if all else is wrong */
  ANSWER_REFUSAL,   /* the server said no; nothing was spent */
  ANSWER_NOT_SPENT, /* the request did not count: it may be sent again */
  ANSWER_DOUBT      /* it cannot be told whether the refresh token was spent */
};

enum { ANSWER_MESSAGE = 400 };

struct answer {
  enum answer_kind kind;
  enum code code;        /* the code to report. ANSWER_TOKENS: CODE_OK, or CODE_BAD_RESPONSE when there is no usable
                          * access token or its type is not Bearer */
  cJSON *fields;         /* ANSWER_TOKENS: every field of the answer, but an access_token or refresh_token that is no
                          * string, is empty or has a control byte in it is taken out. Else NULL */
  double lifetime;       /* ANSWER_TOKENS: seconds the access token lives, > 0, at most ten years */
  bool expired_at_birth; /* ANSWER_TOKENS: expires_in was below one second; lifetime is ANSWER_LIFETIME_FLOOR */
  double retry_after;    /* ANSWER_NOT_SPENT: seconds the server asked to wait, >= 0; negative: it did not say */
  bool refused_grant;    /* ANSWER_REFUSAL: the server may have refused the refresh token, in any words: no outage,
                          * no "later", not the client's credentials, and no proxy in between */
  char message[ANSWER_MESSAGE]; /* one sentence without full stop, no secret, empty when code is CODE_OK */
};

/* A token that was expired when it arrived is used this long, lest every call refreshes (seconds). */
#define ANSWER_LIFETIME_FLOOR 60.0
#define ANSWER_LIFETIME_CAP (10 * 365.25 * 86400)

struct answer_context {
  double now;              /* epoch seconds when the answer arrived: Retry-After may be a date */
  double default_lifetime; /* seconds, when the server does not say */
  const char *secrets[6];  /* secrets that `message` must not show, even if the server echoes them; NULLs are skipped */
  const char *const *parameters; /* names and values in turn, NULL at the end; or NULL: the values are secrets, too */
  const char *sent;              /* the refresh token that was sent; NULL: none */
};

/* Read a reply to a refresh or a code exchange (RFC 6749 sections 5.1, 5.2 and 6). Fills `answer`; free it with
 * answer_free. Memory that runs out looks like a body that cannot be read. */
void answer_read(struct answer *answer, const struct reply *reply, const struct answer_context *context);
void answer_free(struct answer *answer);

/* The new refresh token in an answer that was broken off, is wrapped into something else or has broken bytes in it: the
 * last string behind that name that came whole and is not the one that was `sent` (NULL: nothing was), the outermost
 * first, else that of a form, a whole pair. NULL: there is none. The caller frees it with secret_free. */
char *answer_salvage(const char *bytes, size_t length, const char *sent);

/* The answer of introspection about a token (RFC 7662 section 2.2). */
struct introspection {
  enum introspection_kind { INTROSPECTION_ACTIVE, INTROSPECTION_INACTIVE, INTROSPECTION_NONE } said;
  /* INTROSPECTION_NONE, no usable answer: */
  enum code code;
  bool transient;     /* asking again soon may help */
  bool refused;       /* the server does not introspect for this client (HTTP 401, 403, 404, 405): as good as none */
  double retry_after; /* seconds the server asked to wait; negative: it did not say */
  char message[ANSWER_MESSAGE];
};

struct introspection answer_introspection(const struct reply *reply, const struct answer_context *context);

#endif
