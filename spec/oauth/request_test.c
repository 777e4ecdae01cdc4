/* The bodies of requests, byte for byte. */
#include "origin.h"
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

static void parameters_stand_behind(void **state)
{
  static const char *const parameters[] = {"audience", "https://a.example/?x&y=\"z\"", "scope", "a b", NULL};
  struct credentials more = plain;
  (void)state;
  more.parameters = parameters;
  assert_request(refresh(&more, REQUEST_JSON, "R"), JSON,
                 "{\"grant_type\":\"refresh_token\",\"refresh_token\":\"R\",\"client_id\":\"an-id\","
                 "\"client_secret\":\"a-secret\",\"audience\":\"https://a.example/?x&y=\\\"z\\\"\",\"scope\":\"a b\"}",
                 NULL);
  assert_request(refresh(&more, REQUEST_FORM, "R"), FORM,
                 "grant_type=refresh_token&refresh_token=R&client_id=an-id&client_secret=a-secret&"
                 "audience=https%3A%2F%2Fa.example%2F%3Fx%26y%3D%22z%22&scope=a%20b",
                 NULL);
  assert_request(refresh(&more, REQUEST_BASIC, "R"), FORM,
                 "grant_type=refresh_token&refresh_token=R&audience=https%3A%2F%2Fa.example%2F%3Fx%26y%3D%22z%22&"
                 "scope=a%20b",
                 "Basic YW4taWQ6YS1zZWNyZXQ=");
  assert_request(introspection(&more, REQUEST_FORM, "R"), FORM,
                 "token=R&token_type_hint=refresh_token&client_id=an-id&client_secret=a-secret", NULL);
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

struct pair {
  const char *url, *other;
};

static void assert_pairs(const struct pair *pairs, size_t count, bool same)
{
  for (size_t i = 0; i < count; i++)
    if (origin_is_same(pairs[i].url, pairs[i].other) != same || origin_is_same(pairs[i].other, pairs[i].url) != same)
      fail_msg("%s and %s", pairs[i].url, pairs[i].other);
}

static void servers_that_are_one(void **state)
{
  static const struct pair pairs[] = {
      {"https://api.lucid.co", "https://api.lucid.co/oauth2/token?a#b"},
      {"https://api.lucid.co", "https://api.lucid.co:443"},
      {"https://api.lucid.co:443/", "HTTPS://API.Lucid.CO?x"},
      {"https://api.lucid.co", "https://api.lucid.co:0443/"},
      {"http://api.lucid.co", "http://api.lucid.co:80"},
      {"https://api.lucid.co:8443", "https://API.lucid.co:8443/x"},
      {"https://[2001:db8::1]", "https://[2001:DB8::1]:443/"},
      {"https://[2001:db8::1]", "https://[2001:0db8:0:0:0:0:0:1]"},
      {"https://[1:2:3:4:5:6:7:8]", "https://[01:002:0003:4:5:6:7:8]"},
      {"https://[2001:db8::]", "https://[2001:db8:0:0::]"},
      {"https://[::ffff:0:1]", "https://[0::ffff:0:1]"},
      {"http://127.0.0.1:1234", "http://127.0.0.1:4321"},
      {"http://127.0.0.1:1234", "https://localhost"},
      {"http://LOCALHOST:1/x", "http://[::1]:2/"},
      {"http://127.255.0.9", "http://localhost:99"},
  };
  (void)state;
  assert_pairs(pairs, sizeof pairs / sizeof *pairs, true);
}

static void servers_that_are_two(void **state)
{
  static const struct pair pairs[] = {
      {"http://127.0.0.1:1234", "https://localhost.example.com"},
      {"http://127.0.0.1:1234", "https://127.example.com"},
      {"http://127.0.0.1:1234", "https://127.0.0.1.example.com"},
      {"http://127.0.0.1:1234", "https://[::1].example.com"},
      {"http://127.0.0.1:1234", "https://localhost@example.com"},
      {"http://127.0.0.1:1234", "https://example.com#localhost"},
      {"http://127.0.0.1:1234", "https://localhostile"},
      {"http://127.0.0.1", "http://127.0.0.01"},
      {"http://127.0.0.1", "http://127.1"},
      {"http://127.0.0.1", "http://2130706433"},
      {"http://127.0.0.1", "http://127.0.0.1."},
      {"http://localhost", "http://localhost."},
      {"http://localhost", "http://a.localhost"},
      {"http://localhost", "http://127.0.0.256"},
      {"http://[::1]", "http://[::ffff:127.0.0.1]"},
      {"http://[::1]", "http://[::2]"},
      {"https://api.lucid.co", "https://api.lucid.co:8443"},
      {"https://api.lucid.co", "https://api.lucid.co:80"},
      {"https://api.lucid.co", "http://api.lucid.co"},
      {"https://api.lucid.co:443", "http://api.lucid.co:443"},
      {"https://api.lucid.co", "https://api.lucid.com"},
      {"https://api.lucid.co", "https://api.lucid.co.example.com"},
      {"https://api.lucid.co", "https://api.lucid.co."},
      {"https://api.lucid.co", "https://xapi.lucid.co"},
      {"https://api.lucid.co", "https://user@api.lucid.co"},
      {"https://api.lucid.co", "https://api.lucid.co@example.com"},
      {"https://api.lucid.co", "https://api.lucid.co\\.example.com"},
      {"https://api.lucid.co", "https://api.lucid.co:65979"}, /* 443 in sixteen bits */
      {"https://api.lucid.co", "https://api.lucid.co:4294967739"},
      {"https://api.lucid.co", "https://api.lucid.co:"},
      {"https://api.lucid.co", "api.lucid.co"},
      {"https://[2001:db8::1]", "https://[2001:db8::1:0]"},
      {"https://[1:2:3:4:5:6:7:8]", "https://[1:2:3:4:5:6:7:8:9]"},
      {"https://[1:2:3:4:5:6:7:8]", "https://[1:2:3:4:5:6:7:8::]"},
      {"https://[::1:2]", "https://[::12]"},
      {"https://[:]", "https://[::]"},
      {"https://[1::2::3]", "https://[1::2:0:3]"},
      {"", ""},
      {"https://", "https://"},
      {"api.lucid.co", "api.lucid.co"},
  };
  (void)state;
  assert_pairs(pairs, sizeof pairs / sizeof *pairs, false);
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
      cmocka_unit_test(parameters_stand_behind),
      cmocka_unit_test(basic_is_padded),
      cmocka_unit_test(a_public_client_sends_no_secret),
      cmocka_unit_test(introspection_is_always_a_form),
      cmocka_unit_test(every_byte_arrives),
      cmocka_unit_test(long_values_fit),
      cmocka_unit_test(an_empty_request_may_be_freed),
      cmocka_unit_test(servers_that_are_one),
      cmocka_unit_test(servers_that_are_two),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
