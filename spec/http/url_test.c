/* Which URLs secrets may be sent to. */
#include "../../src/http/http.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

static void test_good(void **state)
{
  (void)state;
  const char *urls[] = {
      "https://api.lucid.co/oauth2/token",
      "HTTPS://API.LUCID.CO",
      "https://a",
      "https://a:1/",
      "https://a:65535?x=/@:",
      "https://192.0.2.1/",
      "https://[2001:db8::1]:8443/token",
      "https://a/b@c",
      "https://a?b@c",
      "https://a_b-c.d/%20~!$&'()*+,;=",
      "http://localhost",
      "HTTP://LocalHost:8080/token?x",
      "http://localhost/",
      "http://localhost?x",
      "http://127.0.0.1",
      "http://127.0.0.1:80/",
      "http://127.255.0.9/x",
      "http://127.0.0.0/",
      "http://[::1]",
      "http://[::1]:8080/x",
  };
  for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
    const char *problem = http_url_problem(urls[i]);
    if (problem)
      print_error("%s: %s\n", urls[i], problem);
    assert_null(problem);
  }
}

static void test_bad(void **state)
{
  (void)state;
  struct {
    const char *url, *problem;
  } rows[] = {
      {NULL, "empty"},
      {"", "empty"},
      {"api.lucid.co", "https://"},
      {"/oauth2/token", "https://"},
      {"//localhost/", "https://"},
      {"http:/localhost/", "https://"},
      {"http:localhost", "https://"},
      {"https:/a", "https://"},
      {"httpss://localhost", "https://"},
      {"ftp://localhost/", "https://"},
      {"file:///etc/passwd", "https://"},
      {"javascript:https://a", "https://"},
      {" https://a", "character"},
      {"https://a ", "character"},
      {"https://a/b c", "character"},
      {"https://a\t/", "character"},
      {"https://a\r\nX: y", "character"},
      {"https://a\x01", "character"},
      {"https://a\x7f", "character"},
      {"https://\xc3\xa9xample.com", "character"},
      {"https://a\xc2\xa0", "character"},
      {"http://localhost\\@evil.com/", "character"},
      {"https://a/\"x\"", "character"},
      {"https://a/{id}", "character"},
      {"http://localhost@evil.com/", "user name"},
      {"http://localhost:80@evil.com/", "user name"},
      {"http://localhost:@evil.com/", "user name"},
      {"http://@localhost/", "user name"},
      {"https://user:secret@api.lucid.co/", "user name"},
      {"https://@/", "user name"},
      {"http://localhost#@evil.com/", "'#'"},
      {"https://a/#x", "'#'"},
      {"https://", "no host"},
      {"https:///a", "no host"},
      {"https://?a", "no host"},
      {"https://:443/", "no host"},
      {"http://", "no host"},
      {"https://a:", "port"},
      {"https://a:0/", "port"},
      {"https://a:65536/", "port"},
      {"https://a:99999999999999999999/", "port"},
      {"https://a:+1/", "port"},
      {"https://a:1x/", "port"},
      {"https://[::1]:/", "port"},
      {"https://[::1]x/", "port"},
      {"https://a]b/", "port"},
      {"https://2001:db8::g/", "port"},
      {"https://::1/", "host"},
      {"https://[]/", "host"},
      {"https://[::1/", "host"},
      {"https://[::1%25eth0]/", "host"},
      {"https://a%2eb/", "host"},
      {"https://a,b/", "host"},
      {"https://a;b/", "host"},
      {"http://api.lucid.co/", "https"},
      {"http://localhost.evil.com/", "https"},
      {"http://localhost./", "https"},
      {"http://xlocalhost/", "https"},
      {"http://local/", "https"},
      {"http://127.0.0.1.evil.com/", "https"},
      {"http://127.0.0.1./", "https"},
      {"http://127.0.0/", "https"},
      {"http://127.1/", "https"},
      {"http://127/", "https"},
      {"http://127./", "https"},
      {"http://127.0.0.256/", "https"},
      {"http://127.0.0.01/", "https"},
      {"http://127.0.0.1111111111111/", "https"},
      {"http://127.0..1/", "https"},
      {"http://127.0.0.0x1/", "https"},
      {"http://0127.0.0.1/", "https"},
      {"http://2130706433/", "https"},
      {"http://0x7f.0.0.1/", "https"},
      {"http://128.0.0.1/", "https"},
      {"http://1270.0.0.1/", "https"},
      {"http://0.0.0.0/", "https"},
      {"http://[::]/", "https"},
      {"http://[::2]/", "https"},
      {"http://[0:0:0:0:0:0:0:1]/", "https"},
      {"http://[::ffff:127.0.0.1]/", "https"},
      {"http://[127.0.0.1]/", "https"},
      {"http://[::1].evil.com/", "port"},
      {"http://[localhost]/", "host"},
      {"http://%6cocalhost/", "host"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    const char *problem = http_url_problem(rows[i].url);
    if (!problem || !strstr(problem, rows[i].problem))
      print_error("%s: %s\n", rows[i].url ? rows[i].url : "NULL", problem ? problem : "no problem");
    assert_non_null(problem);
    assert_non_null(strstr(problem, rows[i].problem));
  }
}

/* No byte of a URL may be read twice in different ways: every single byte put after a good host. */
static void test_every_byte(void **state)
{
  (void)state;
  for (int byte = 1; byte < 256; byte++) {
    char url[32];
    snprintf(url, sizeof url, "http://127.0.0.1%cevil", byte);
    const char *problem = http_url_problem(url);
    if (byte == '/' || byte == '?')
      assert_null(problem);
    else
      assert_non_null(problem);
  }
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_good),
      cmocka_unit_test(test_bad),
      cmocka_unit_test(test_every_byte),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
