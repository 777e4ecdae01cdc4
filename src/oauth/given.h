/* The tokens of a login as a program hands them over: a token answer or a bare refresh token. */
#ifndef CORE_GIVEN_H
#define CORE_GIVEN_H

#include "answer.h"

/* Longer than any token answer (1 MiB), and than any refresh token. */
enum { GIVEN_MOST = 1024 * 1024, GIVEN_TOKEN_MOST = 64 * 1024 };

/* Read it: a token answer as JSON or as a form, or a refresh token alone. NULL: `answer` is ANSWER_TOKENS, to be freed
 * with answer_free. Else one or two sentences that say why it cannot be stored, static, without any of it. */
const char *given_read(struct answer *answer, const char *text, size_t length, const struct answer_context *context);

#endif
