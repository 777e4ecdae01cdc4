#include "given.h"

#include "../base/character.h"
#include "../base/secret.h"
#include "reply.h"
#include "token.h"

#include <stdlib.h>
#include <string.h>

static const char out_of_memory[] = "There is not enough memory to store the answer. Nothing was changed.";

/* Without the white space around it, as a file's last line brings it, and without a byte order mark. */
static void trim(const char **text, size_t *length)
{
  if (*length >= 3 && memcmp(*text, "\xEF\xBB\xBF", 3) == 0) {
    *text += 3;
    *length -= 3;
  }
  ascii_trim(text, length);
}

static bool starts_with_word(const char *text, const char *word)
{
  while (*word && ascii_lower(*text) == *word) {
    text++;
    word++;
  }
  return !*word && (!*text || ascii_is_space(*text));
}

static bool is_word_for_nothing(const char *text)
{
  static const char *const words[] = {"null", "nil", "none", "undefined", "true", "false", "nan"};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    if (starts_with_word(text, words[i]))
      return true;
  return false;
}

static bool is_printable(const char *text)
{
  for (; *text; text++)
    if ((unsigned char)*text <= 0x20 || (unsigned char)*text >= 0x7F)
      return false;
  return true;
}

/* NULL: it may be a refresh token. */
static const char *flaw_of_token(const char *text, size_t length)
{
  if (starts_with_word(text, "bearer"))
    return "This is an authorization header (\"Bearer ...\"), whose access token ends soon. Give the refresh token, or "
           "better the whole token answer.";
  if (is_word_for_nothing(text))
    return "This is a word for no value, and no refresh token. Give the token answer, or the refresh token that is in "
           "it.";
  if (strchr("[\"'<", *text))
    return "This is neither a JSON object with tokens in it nor a bare refresh token. Give the token answer as the "
           "server sent it, or the refresh token without quotes.";
  if (strstr(text, "://"))
    return "This is an address, and no refresh token. Exchange the code that it brings for tokens first, and give the "
           "token endpoint's answer.";
  if (length > GIVEN_TOKEN_MOST || !is_printable(text))
    return "This is no refresh token: it is too long, or there is white space or another character in it that no token "
           "has. Give the token answer, or the refresh token that is in it.";
  return NULL;
}

/* RFC 6749 appendix A: tokens are of printable ASCII. */
static bool is_broken(const cJSON *body, const char *name)
{
  const cJSON *found = cJSON_GetObjectItemCaseSensitive(body, name);
  const char *token = json_string(body, name);
  bool fits = token_fits_header(token);
  for (; fits && *token; token++)
    fits = (unsigned char)*token < 0x7F;
  return found && !cJSON_IsNull(found) && !fits;
}

/* Flaws that would go unnoticed and lose a token. */
static const char *flaw_of_fields(const cJSON *body)
{
  if (is_broken(body, "refresh_token"))
    return "The refresh_token in this answer is no string that could be a token. Give the token answer as the server "
           "sent it.";
  if (is_broken(body, "access_token"))
    return "The access_token in this answer is no string that could be a token. Give the token answer as the server "
           "sent it.";
  if (cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(body, "pending")))
    return "This is a token record whose refresh has not ended, so its refresh token may be spent. Give what a new "
           "login gave.";
  return NULL;
}

static const char *read_token_answer(struct answer *answer, const char *text, size_t length,
                                     const struct answer_context *context)
{
  const struct reply reply = {.delivery = REPLY_RECEIVED, .whole = true, .status = 200, .body = text, .length = length};
  answer_read(answer, &reply, context);
  const char *flaw = flaw_of_fields(answer->fields); /* within something else, perhaps */
  const char *access = json_string(answer->fields, "access_token");
  if (answer->kind == ANSWER_REFUSAL || answer->kind == ANSWER_NOT_SPENT)
    return "This is a server's error answer, and there is no token in it. Log in again, and give the answer that "
           "brings tokens.";
  if (answer->kind != ANSWER_TOKENS)
    return "There is neither an access_token nor a refresh_token in this. Give the token answer as the server sent it, "
           "or the refresh token that is in it.";
  if (flaw)
    return flaw;
  if (access && !token_type_is_bearer(json_string(answer->fields, "token_type")))
    return "The token in this answer is not of the type Bearer, which an API call cannot use.";
  if (access && starts_with_word(access, "bearer"))
    return "The access_token in this answer begins with \"Bearer\": that belongs to the header, not to the token.";
  return NULL;
}

static const char no_object[] =
    "This begins like a JSON object, and is none: it was cut off, or changed. Give the token answer as the server sent "
    "it.";

static const char *read_object(struct answer *answer, const char *text, size_t length,
                               const struct answer_context *context)
{
  cJSON *body = json_read_whole(text, length);
  const char *flaw = cJSON_IsObject(body) ? flaw_of_fields(body) : no_object;
  json_free(body);
  return flaw ? flaw : read_token_answer(answer, text, length, context);
}

static const char *take_token(struct answer *answer, const char *token)
{
  answer->kind = ANSWER_TOKENS;
  answer->fields = cJSON_CreateObject();
  return answer->fields && json_set_string(answer->fields, "refresh_token", token) ? NULL : out_of_memory;
}

static bool is_form(const char *text)
{
  return strstr(text, "refresh_token=") || strstr(text, "access_token=") || strstr(text, "error=");
}

static const char *read_form_or_token(struct answer *answer, const char *text, size_t length,
                                      const struct answer_context *context)
{
  const char *flaw = flaw_of_token(text, length);
  if (flaw)
    return flaw;
  return is_form(text) ? read_token_answer(answer, text, length, context) : take_token(answer, text);
}

static const char *read_trimmed(struct answer *answer, const char *text, size_t length,
                                const struct answer_context *context)
{
  if (*text == '{')
    return read_object(answer, text, length, context);
  char *copy = calloc(1, length + 1);
  if (copy)
    memcpy(copy, text, length);
  const char *flaw = copy ? read_form_or_token(answer, copy, length, context) : out_of_memory;
  secret_free(copy);
  return flaw;
}

const char *given_read(struct answer *answer, const char *text, size_t length, const struct answer_context *context)
{
  *answer = (struct answer){.kind = ANSWER_DOUBT, .retry_after = -1};
  trim(&text, &length);
  if (length == 0)
    return "There is nothing to store: the answer is empty.";
  if (length > GIVEN_MOST)
    return "This is far too long for a token answer. Give the token answer as the server sent it.";
  if (memchr(text, '\0', length))
    return "There is a NUL byte in this, which no token answer has. Give the token answer as the server sent it.";
  const char *flaw = read_trimmed(answer, text, length, context);
  if (flaw)
    answer_free(answer);
  return flaw;
}
