/* What the answers of all OAuth endpoints have in common: a body that may hold an error, and words for what went
 * wrong. */
#ifndef CORE_REPLY_H
#define CORE_REPLY_H

#include "answer.h"

/* Room for the status and all that is quoted of a server's text. */
enum { REPLY_DETAIL = 200 };

/* The body as an object: JSON, whatever its content type says, or a form with a token or an error in it. A form counts
 * only when it is whole, since half of one can be read as well. NULL: it is neither. The caller owns the tree. */
cJSON *reply_read_body(const struct reply *reply);

/* The `error` of a body, of any type; NULL when there is none, or it says nothing (null, false, ""). Owned by the
 * body. */
const cJSON *reply_error(const cJSON *body);

/* What an error code of a server's means. */
struct reply_meaning {
  const char *error;
  enum answer_kind kind;
  enum code code;
};

/* NULL: `error` is not a string (NULL is allowed), or an unknown one. */
const struct reply_meaning *reply_meaning(const cJSON *error);

/* Write `HTTP 400, invalid_grant: "..."`: the status, and the error of the body in its own words. `body` may be
 * NULL. */
void reply_describe(char detail[REPLY_DETAIL], const struct reply *reply, const cJSON *body,
                    const struct answer_context *context);

/* Why there is no HTTP answer (delivery is not REPLY_RECEIVED): the code, and a sentence about the `endpoint` ("token
 * endpoint"). */
enum code reply_failure(char message[ANSWER_MESSAGE], const char *endpoint, const struct reply *reply,
                        const struct answer_context *context);

/* Quote one text of a reply with the context's secrets hidden, and those of `body` (may be NULL), too. */
size_t reply_quote(char *out, const char *text, size_t limit, const cJSON *body, const struct answer_context *context);

#endif
