#include "request.h"

#include "json.h"
#include "secret.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct field {
  const char *name, *value;
};

enum { FIELDS = 4 };

static bool unreserved(unsigned char c)
{
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c && strchr("-._~", c));
}

/* Append `text` percent-encoded (RFC 3986 section 2.1; a form decodes it as well); returns the new end. */
static char *put_encoded(char *end, const char *text)
{
  for (const unsigned char *p = (const unsigned char *)text; *p; p++)
    if (unreserved(*p))
      *end++ = (char)*p;
    else
      end += sprintf(end, "%%%02X", *p);
  *end = '\0';
  return end;
}

static char *form_body(const struct field fields[FIELDS])
{
  size_t size = 1;
  for (int i = 0; i < FIELDS && fields[i].name; i++)
    if (fields[i].value)
      size += strlen(fields[i].name) + 3 * strlen(fields[i].value) + 2;
  char *body = calloc(1, size), *end = body;
  for (int i = 0; body && i < FIELDS && fields[i].name; i++) {
    if (!fields[i].value)
      continue;
    end += sprintf(end, "%s%s=", end == body ? "" : "&", fields[i].name);
    end = put_encoded(end, fields[i].value);
  }
  return body;
}

static char *json_body(const struct field fields[FIELDS])
{
  cJSON *json = cJSON_CreateObject();
  bool complete = json != NULL;
  for (int i = 0; complete && i < FIELDS && fields[i].name; i++)
    complete = !fields[i].value || json_set_string(json, fields[i].name, fields[i].value);
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
                  const struct field own[2])
{
  bool basic = style == REQUEST_BASIC;
  const char *secret = credentials->client_secret;
  const struct field fields[FIELDS] = {own[0],
                                       own[1],
                                       {"client_id", basic ? NULL : credentials->client_id},
                                       {"client_secret", basic || !secret || !*secret ? NULL : secret}};
  bool json = style == REQUEST_JSON;
  request->content_type = json ? "application/json" : "application/x-www-form-urlencoded";
  request->body = json ? json_body(fields) : form_body(fields);
  request->authorization = basic ? basic_authorization(credentials) : NULL;
  if (request->body && (request->authorization || !basic))
    return true;
  request_free(request);
  return false;
}

bool request_refresh(struct request *request, const struct credentials *credentials, const char *refresh_token)
{
  const struct field own[2] = {{"grant_type", "refresh_token"}, {"refresh_token", refresh_token}};
  *request = (struct request){.endpoint = REQUEST_TOKEN};
  return build(request, credentials, credentials->style, own);
}

bool request_introspection(struct request *request, const struct credentials *credentials, const char *refresh_token)
{
  const struct field own[2] = {{"token", refresh_token}, {"token_type_hint", "refresh_token"}};
  *request = (struct request){.endpoint = REQUEST_INTROSPECTION};
  return build(request, credentials, credentials->style == REQUEST_BASIC ? REQUEST_BASIC : REQUEST_FORM, own);
}

void request_free(struct request *request)
{
  secret_free(request->body);
  secret_free(request->authorization);
  request->body = request->authorization = NULL;
}
