/* The common parts of all OAuth endpoints' answers: a body that may hold an error, and messages about failures. */
#ifndef OAUTH_REPLY_H
#define OAUTH_REPLY_H

#include "answer.h"

/* Room for the status and all that is quoted of a server's text. */
enum { REPLY_DETAIL = 200 };

/* The body as an object: JSON with any content type, or a form with a token or an error in it. A form counts only when
 * it is whole, since half a form reads like a whole one. NULL: it is neither. The caller owns the tree. */
cJSON *reply_read_body(const struct reply *reply);

/* The meaning of a server's error code. */
struct reply_meaning {
  const char *error;
  enum answer_kind kind;
  enum code code;
};

/* The error in a body, in any shape: OAuth's `error` and `error_description`, the same as an object or a list,
 * `errors`, or `code` and `message` as Lucid's API has them. The body owns all of it. */
struct reply_error {
  bool said;                           /* there is an `error` or `errors` that says something (not null, false, "") */
  const cJSON *name;                   /* a string, a number or a boolean; NULL: none */
  const char *text;                    /* NULL: none */
  const struct reply_meaning *meaning; /* of the name, however it is written (INVALID_GRANT, InvalidGrant); NULL: it is
                                        * not known */
};

/* `body` may be NULL. */
struct reply_error reply_error(const cJSON *body);

/* Whether there is a body that is neither JSON nor a form: a page of a firewall or a proxy. */
bool reply_is_page(const struct reply *reply, const cJSON *body);

/* Write `HTTP 400, invalid_grant: "..."`: the status, and the server's own words as far as they may be shown. `body`
 * may be NULL. */
void reply_describe(char detail[REPLY_DETAIL], const struct reply *reply, const cJSON *body,
                    const struct answer_context *context);

/* Why there is no HTTP answer (delivery is not REPLY_RECEIVED): the code, and a sentence about the `endpoint` ("token
 * endpoint"). */
enum code reply_failure(char message[ANSWER_MESSAGE], const char *endpoint, const struct reply *reply,
                        const struct answer_context *context);

/* Whether a text shows no part of a secret, of this client's or of the reply's. `body` may be NULL. */
bool reply_is_safe(const char *text, const cJSON *body, const struct answer_context *context);

/* Whether a name that a reply brings (a type, a host) may be shown. `body` may be NULL. */
bool reply_may_show(const char *name, const cJSON *body, const struct answer_context *context);

#endif
