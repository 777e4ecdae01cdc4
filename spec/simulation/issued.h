/* Virtual tokens say what they are: R2-0-7 is the refresh token number 7 of the login number 0 of account 2. */
#ifndef ISSUED_H
#define ISSUED_H

#include <stdbool.h>

enum { TOKEN_TEXT = 40 };

struct token {
  char kind; /* 'R', 'A'; 0: none */
  int account, grant, serial;
};

struct pair {
  struct token access, refresh;
};

void token_write(char text[TOKEN_TEXT], struct token token);

/* `text` may go on behind the token. No token: kind is 0. */
struct token token_read(const char *text);

/* The tokens of a JSON object or a form, by their names; secrets in other members are not looked at. NULL is
 * allowed. */
struct pair token_find(const char *text);

/* The tokens of the grant that a record has put aside. */
struct pair token_find_aside(const char *text);

/* Whether the answer that a record keeps with its mark holds this token, whole. */
bool token_in_kept_answer(const char *text, struct token token);

bool token_same(struct token a, struct token b);

/* Whether refresh token a was issued before b. */
bool token_older(struct token a, struct token b);

#endif
