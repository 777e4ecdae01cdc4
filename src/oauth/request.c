#include "request.h"

#include "../base/character.h"
#include "../base/json.h"
#include "../base/secret.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct field {
  const char *name, *value;
};

enum { FIELDS = 4 };

static const char *const none[] = {NULL};

static bool unreserved(char c)
{
  return ascii_is_alphanumeric(c) || (c && strchr("-._~", c));
}

/* Append `text` percent-encoded (RFC 3986 section 2.1; a form decodes it as well); returns the new end. */
static char *put_encoded(char *end, const char *text)
{
  for (; *text; text++)
    if (unreserved(*text))
      *end++ = *text;
    else
      end += sprintf(end, "%%%02X", (unsigned char)*text);
  *end = '\0';
  return end;
}

/* Names need no encoding. */
static size_t form_size(const struct field *field)
{
  return field->value ? strlen(field->name) + 3 * strlen(field->value) + 2 : 0;
}

static char *put_form(char *end, bool first, const struct field *field)
{
  if (!field->value)
    return end;
  end += sprintf(end, "%s%s=", first ? "" : "&", field->name);
  return put_encoded(end, field->value);
}

static char *form_body(const struct field fields[FIELDS], const char *const *parameters)
{
  size_t size = 1;
  for (int i = 0; i < FIELDS; i++)
    size += form_size(&fields[i]);
  for (const char *const *p = parameters; *p; p += 2)
    size += form_size(&(struct field){p[0], p[1]});
  char *body = calloc(1, size), *end = body;
  for (int i = 0; body && i < FIELDS; i++)
    end = put_form(end, end == body, &fields[i]);
  for (const char *const *p = parameters; body && *p; p += 2)
    end = put_form(end, end == body, &(struct field){p[0], p[1]});
  return body;
}

static char *json_body(const struct field fields[FIELDS], const char *const *parameters)
{
  cJSON *json = cJSON_CreateObject();
  bool complete = json != NULL;
  for (int i = 0; complete && i < FIELDS; i++)
    complete = !fields[i].value || json_set_string(json, fields[i].name, fields[i].value);
  for (const char *const *p = parameters; complete && *p; p += 2)
    complete = json_set_string(json, p[0], p[1]);
  char *body = complete ? json_write(json) : NULL;
  json_free(json);
  return body;
}

/* RFC 4648 section 4 */
static void put_base64(char *out, const char *text)
{
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const unsigned char *p = (const unsigned char *)text;
  for (size_t left = strlen(text); left > 0; left -= left < 3 ? left : 3, p += 3) {
    unsigned group = (unsigned)p[0] << 16 | (left > 1 ? (unsigned)p[1] << 8 : 0u) | (left > 2 ? (unsigned)p[2] : 0u);
    *out++ = digits[group >> 18];
    *out++ = digits[group >> 12 & 63];
    *out++ = left > 1 ? digits[group >> 6 & 63] : '=';
    *out++ = left > 2 ? digits[group & 63] : '=';
  }
  *out = '\0';
}

/* "Basic ..." of the percent-encoded pair (RFC 6749 section 2.3.1) */
static char *basic_authorization(const struct credentials *credentials)
{
  const char *secret = credentials->client_secret ? credentials->client_secret : "";
  size_t room = 3 * (strlen(credentials->client_id) + strlen(secret)) + 2;
  size_t size = sizeof "Basic " + 4 * ((room + 2) / 3);
  char *pair = calloc(1, room), *header = malloc(size);
  if (pair && header) {
    char *end = put_encoded(pair, credentials->client_id);
    *end++ = ':';
    put_encoded(end, secret);
    put_base64(header + sprintf(header, "Basic "), pair);
  } else {
    free(header);
    header = NULL;
  }
  secret_free(pair);
  return header;
}

static bool build(struct request *request, const struct credentials *credentials, enum request_style style,
                  const struct field own[2], const char *const *parameters)
{
  bool basic = style == REQUEST_BASIC;
  const char *secret = credentials->client_secret;
  const struct field fields[FIELDS] = {own[0],
                                       own[1],
                                       {"client_id", basic ? NULL : credentials->client_id},
                                       {"client_secret", basic || !secret || !*secret ? NULL : secret}};
  bool json = style == REQUEST_JSON;
  request->content_type = json ? "application/json" : "application/x-www-form-urlencoded";
  request->body = json ? json_body(fields, parameters) : form_body(fields, parameters);
  request->authorization = basic ? basic_authorization(credentials) : NULL;
  if (request->body && (request->authorization || !basic))
    return true;
  request_free(request);
  return false;
}

/* Servers in PHP take a dot for an underscore, others a hyphen, or any case. */
static bool names_same(const char *name, const char *reserved)
{
  for (; *name && *reserved; name++, reserved++) {
    char c = ascii_lower(*name);
    if ((strchr(".-", c) ? '_' : c) != *reserved)
      return false;
  }
  return *name == *reserved;
}

/* RFC 6749 appendix A: names are of letters, digits, "-", "." and "_". */
const char *request_parameter_problem(const char *name)
{
  static const char *const reserved[] = {"grant_type", "refresh_token", "client_id", "client_secret"};
  if (!*name)
    return "has an empty name";
  for (const char *p = name; *p; p++)
    if (!unreserved((char)*p) || *p == '~')
      return "has a name that is not of letters, digits, \"-\", \".\" and \"_\"";
  for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
    if (names_same(name, reserved[i]))
      return "has the name of a field that lucidauth fills itself (grant_type, refresh_token, client_id, "
             "client_secret)";
  return NULL;
}

bool request_refresh(struct request *request, const struct credentials *credentials, const char *refresh_token)
{
  const struct field own[2] = {{"grant_type", "refresh_token"}, {"refresh_token", refresh_token}};
  *request = (struct request){.endpoint = REQUEST_TOKEN};
  return build(request, credentials, credentials->style, own, credentials->parameters ? credentials->parameters : none);
}

bool request_introspection(struct request *request, const struct credentials *credentials, const char *refresh_token)
{
  const struct field own[2] = {{"token", refresh_token}, {"token_type_hint", "refresh_token"}};
  *request = (struct request){.endpoint = REQUEST_INTROSPECTION};
  return build(request, credentials, credentials->style == REQUEST_BASIC ? REQUEST_BASIC : REQUEST_FORM, own, none);
}

void request_free(struct request *request)
{
  secret_free(request->body);
  secret_free(request->authorization);
  request->body = request->authorization = NULL;
}
