/* The bodies of requests, byte for byte. */
#include "request.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const struct credentials plain = {.client_id = "an-id", .client_secret = "a-secret"};

/* What RFC 3986 wants encoded, and what JSON wants escaped. */
static const struct credentials odd = {.client_id = "i d&=+", .client_secret = "\"s\\%/\xC3\xBC:~-._"};

static struct credentials styled(const struct credentials *credentials, enum request_style style)
{
  struct credentials copy = *credentials;
  copy.style = style;
  return copy;
}

static struct request refresh(const struct credentials *credentials, enum request_style style, const char *token)
{
  struct request request;
  struct credentials copy = styled(credentials, style);
  assert_true(request_refresh(&request, &copy, token));
  assert_int_equal(request.endpoint, REQUEST_TOKEN);
  return request;
}

static struct request introspection(const struct credentials *credentials, enum request_style style, const char *token)
{
  struct request request;
  struct credentials copy = styled(credentials, style);
  assert_true(request_introspection(&request, &copy, token));
  assert_int_equal(request.endpoint, REQUEST_INTROSPECTION);
  return request;
}

/* `authorization` NULL: there is none. Frees the request. */
static void assert_request(struct request request, const char *type, const char *body, const char *authorization)
{
  assert_string_equal(request.content_type, type);
  assert_string_equal(request.body, body);
  if (authorization)
    assert_string_equal(request.authorization, authorization);
  else
    assert_null(request.authorization);
  request_free(&request);
  assert_null(request.body);
  assert_null(request.authorization);
}

#define JSON "application/json"
#define FORM "application/x-www-form-urlencoded"

static void refresh_as_json(void **state)
{
  (void)state;
  assert_request(refresh(&plain, REQUEST_JSON, "a-token"), JSON,
                 "{\"grant_type\":\"refresh_token\",\"refresh_token\":\"a-token\",\"client_id\":\"an-id\","
                 "\"client_secret\":\"a-secret\"}",
                 NULL);
  assert_request(refresh(&odd, REQUEST_JSON, "t\xC3\xB6k\"en\\"), JSON,
                 "{\"grant_type\":\"refresh_token\",\"refresh_token\":\"t\xC3\xB6k\\\"en\\\\\","
                 "\"client_id\":\"i d&=+\",\"client_secret\":\"\\\"s\\\\%/\xC3\xBC:~-._\"}",
                 NULL);
}

static void refresh_as_form(void **state)
{
  (void)state;
  assert_request(refresh(&plain, REQUEST_FORM, "a-token"), FORM,
                 "grant_type=refresh_token&refresh_token=a-token&client_id=an-id&client_secret=a-secret", NULL);
  assert_request(refresh(&odd, REQUEST_FORM, "t\xC3\xB6k en"), FORM,
                 "grant_type=refresh_token&refresh_token=t%C3%B6k%20en&client_id=i%20d%26%3D%2B&"
                 "client_secret=%22s%5C%25%2F%C3%BC%3A~-._",
                 NULL);
}

/* RFC 6749 section 2.3.1: id and secret are percent-encoded before they become user and password. */
static void refresh_as_basic(void **state)
{
  (void)state;
  assert_request(refresh(&plain, REQUEST_BASIC, "a-token"), FORM, "grant_type=refresh_token&refresh_token=a-token",
                 "Basic YW4taWQ6YS1zZWNyZXQ=");
  /* i%20d%26%3D%2B:%22s%5C%25%2F%C3%BC%3A~-._ */
  assert_request(refresh(&odd, REQUEST_BASIC, "a-token"), FORM, "grant_type=refresh_token&refresh_token=a-token",
                 "Basic aSUyMGQlMjYlM0QlMkI6JTIycyU1QyUyNSUyRiVDMyVCQyUzQX4tLl8=");
}

/* Each length of the last group of base64. */
static void basic_is_padded(void **state)
{
  static const char *const secrets[] = {"s", "se", "sec", "secr"};
  static const char *const headers[] = {"Basic aTpz", "Basic aTpzZQ==", "Basic aTpzZWM=", "Basic aTpzZWNy"};
  (void)state;
  for (int i = 0; i < 4; i++) {
    const struct credentials credentials = {.client_id = "i", .client_secret = secrets[i]};
    assert_request(refresh(&credentials, REQUEST_BASIC, "R"), FORM, "grant_type=refresh_token&refresh_token=R",
                   headers[i]);
  }
}

/* RFC 6749 section 2.3.1: an empty secret may be left out, and servers that know no secret want none. */
static void a_public_client_sends_no_secret(void **state)
{
  static const char *const none[] = {NULL, ""};
  (void)state;
  for (int i = 0; i < 2; i++) {
    const struct credentials public = {.client_id = "an-id", .client_secret = none[i]};
    assert_request(refresh(&public, REQUEST_JSON, "R"), JSON,
                   "{\"grant_type\":\"refresh_token\",\"refresh_token\":\"R\",\"client_id\":\"an-id\"}", NULL);
    assert_request(refresh(&public, REQUEST_FORM, "R"), FORM,
                   "grant_type=refresh_token&refresh_token=R&client_id=an-id", NULL);
    assert_request(refresh(&public, REQUEST_BASIC, "R"), FORM, "grant_type=refresh_token&refresh_token=R",
                   "Basic YW4taWQ6");
    assert_request(introspection(&public, REQUEST_JSON, "R"), FORM,
                   "token=R&token_type_hint=refresh_token&client_id=an-id", NULL);
  }
}

static void introspection_is_always_a_form(void **state)
{
  static const char *const body =
      "token=a%2Ftoken&token_type_hint=refresh_token&client_id=an-id&client_secret=a-secret";
  (void)state;
  assert_request(introspection(&plain, REQUEST_JSON, "a/token"), FORM, body, NULL);
  assert_request(introspection(&plain, REQUEST_FORM, "a/token"), FORM, body, NULL);
  assert_request(introspection(&plain, REQUEST_BASIC, "a/token"), FORM, "token=a%2Ftoken&token_type_hint=refresh_token",
                 "Basic YW4taWQ6YS1zZWNyZXQ=");
}

/* All bytes that a token can have, each where the encoding makes the most of it. */
static void every_byte_arrives(void **state)
{
  char token[256], expected[1024] = "grant_type=refresh_token&refresh_token=", *end = expected + strlen(expected);
  size_t length = 0;
  (void)state;
  for (int byte = 1; byte < 256; byte++) {
    static const char digits[] = "0123456789ABCDEF";
    bool kept = (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') ||
                strchr("-._~", byte) != NULL;
    token[length++] = (char)byte;
    if (!kept)
      *end++ = '%';
    *end++ = kept ? (char)byte : digits[byte >> 4];
    if (!kept)
      *end++ = digits[byte & 15];
  }
  token[length] = *end = '\0';
  const struct credentials credentials = {.client_id = "i", .client_secret = "s"};
  assert_request(refresh(&credentials, REQUEST_BASIC, token), FORM, expected, "Basic aTpz");
}

static void long_values_fit(void **state)
{
  static char token[20001];
  (void)state;
  memset(token, '%', sizeof token - 1);
  const struct credentials credentials = {.client_id = token, .client_secret = token};
  struct request request = refresh(&credentials, REQUEST_FORM, token);
  assert_int_equal(strlen(request.body),
                   strlen("grant_type=refresh_token&refresh_token=&client_id=&client_secret=") + 9 * strlen(token));
  request_free(&request);
  request = refresh(&credentials, REQUEST_BASIC, token);
  assert_int_equal(strlen(request.authorization), strlen("Basic ") + (6 * strlen(token) + 1 + 2) / 3 * 4);
  request_free(&request);
}

static void an_empty_request_may_be_freed(void **state)
{
  struct request request = {0};
  (void)state;
  request_free(&request);
  request_free(&request);
  assert_null(request.body);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(refresh_as_json),
      cmocka_unit_test(refresh_as_form),
      cmocka_unit_test(refresh_as_basic),
      cmocka_unit_test(basic_is_padded),
      cmocka_unit_test(a_public_client_sends_no_secret),
      cmocka_unit_test(introspection_is_always_a_form),
      cmocka_unit_test(every_byte_arrives),
      cmocka_unit_test(long_values_fit),
      cmocka_unit_test(an_empty_request_may_be_freed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
