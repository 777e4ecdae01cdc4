#include "../base/code.h"
#include "../base/quote.h"
#include "../base/secret.h"
#include "answer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110 */
#define NOW 784111777.0
#define DEFAULT_LIFETIME 1800.0

/* What was sent; the server may echo it. */
#define OLD_REFRESH "oauth2-refresh/old+1"
#define OLD_ACCESS "oauth2-access-old"
#define CLIENT_SECRET "cl\"ient s3cr\xC3\xA9t"

static const struct answer_context context = {
    .now = NOW, .default_lifetime = DEFAULT_LIFETIME, .secrets = {OLD_REFRESH, CLIENT_SECRET, NULL, OLD_ACCESS, ""}};

/* One answer and what must become of it. What is not named must be absent. */
struct row {
  const char *name; /* the row of the table of odd answers, and what is odd */
  int status;       /* 200 when 0 */
  const char *body;
  size_t length; /* of a body with NULs in it; else 0 */
  const char *retry_after, *location;

  enum answer_kind kind;
  enum code code;
  const char *fields;
  double lifetime; /* DEFAULT_LIFETIME when 0 */
  bool expired_at_birth;
  double wait;         /* NOT_SPENT: -1 when the server did not say */
  const char *says[2]; /* parts of the message */
  const char *says_not;
};

#define BODY(literal) .body = (literal), .length = sizeof(literal) - 1
#define PAIR "\"access_token\":\"at\",\"refresh_token\":\"rt\""
#define OBJECT(members) "{" PAIR members "}"
#define TOKENS .kind = ANSWER_TOKENS, .code = CODE_OK
#define UNUSABLE .kind = ANSWER_TOKENS, .code = CODE_BAD_RESPONSE
#define REFUSAL(why) .kind = ANSWER_REFUSAL, .code = (why)
#define NOT_SPENT(why, seconds) .kind = ANSWER_NOT_SPENT, .code = (why), .wait = (seconds)
#define DOUBT(why) .kind = ANSWER_DOUBT, .code = (why)
/* a JSON body that is kept as it is */
#define KEPT(json) .body = (json), TOKENS, .fields = (json)
#define EXPIRES(json) KEPT(OBJECT(",\"expires_in\":" json))
#define DATE(text, seconds) .status = 503, .body = "", .retry_after = (text), NOT_SPENT(CODE_SERVER_ERROR, seconds)
#define UNDATED(text) .status = 503, .body = "", .retry_after = (text), DOUBT(CODE_SERVER_ERROR), .says = {"HTTP 503"}
#define REDIRECT(number, to, host) \
  .status = (number), .body = OBJECT(""), .location = (to), REFUSAL(CODE_BAD_RESPONSE), .says = {#number, host}

static const struct row rows[] = {
    {"plain answer",
     KEPT("{\"access_token\":\"at\",\"refresh_token\":\"rt\",\"client_id\":\"c\",\"expires_in\":3600,"
          "\"expires\":1700000000123,\"scope\":\"a b\",\"token_type\":\"bearer\",\"user_id\":7}"),
     .lifetime = 3600},

    {"1 expires_in is a number", EXPIRES("3600"), .lifetime = 3600},
    {"1 expires_in is a string", EXPIRES("\"3600\""), .lifetime = 3600},
    {"1 expires_in has a fraction of nothing", .body = OBJECT(",\"expires_in\":3600.0"), TOKENS,
     .fields = OBJECT(",\"expires_in\":3600"), .lifetime = 3600},
    {"1 expires_in is a string with a fraction", EXPIRES("\"3600.5\""), .lifetime = 3600.5},
    {"1 expires_in has an exponent", .body = OBJECT(",\"expires_in\":3.6e3"), TOKENS,
     .fields = OBJECT(",\"expires_in\":3600"), .lifetime = 3600},

    {"2 expires_in is missing", KEPT(OBJECT(""))},
    {"2 expires_in is null", EXPIRES("null")},
    {"2 expires_in is an empty string", EXPIRES("\"\"")},
    {"2 expires_in is true", EXPIRES("true")},
    {"2 expires_in is an array", EXPIRES("[3600]")},
    {"2 expires_in is an object", EXPIRES("{}")},
    {"2 expires_in is a word", EXPIRES("\"soon\"")},
    {"2 expires_in is nan", EXPIRES("\"nan\"")},
    {"2 expires_in is not JSON", .body = OBJECT(",\"expires_in\":NaN"), TOKENS,
     .fields = OBJECT(",\"expires_in\":null")},

    {"3 expires_in is 0", EXPIRES("0"), .lifetime = 60, .expired_at_birth = true},
    {"3 expires_in is -0", EXPIRES("-0"), .lifetime = 60, .expired_at_birth = true},
    {"3 expires_in is negative", EXPIRES("-1"), .lifetime = 60, .expired_at_birth = true},
    {"3 expires_in is a negative string", EXPIRES("\"-3600\""), .lifetime = 60, .expired_at_birth = true},
    {"3 expires_in is minus infinity", EXPIRES("-1e400"), .lifetime = 60, .expired_at_birth = true},
    {"3 expires_in is next to nothing", EXPIRES("1e-9"), .lifetime = 60, .expired_at_birth = true},

    {"4 expires_in is 1e20", .body = OBJECT(",\"expires_in\":1e20"), TOKENS,
     .fields = OBJECT(",\"expires_in\":100000000000000000000"), .lifetime = ANSWER_LIFETIME_CAP},
    {"4 expires_in is 1e400", EXPIRES("1e400"), .lifetime = ANSWER_LIFETIME_CAP},
    {"4 expires_in is the string 1e400", EXPIRES("\"1e400\""), .lifetime = ANSWER_LIFETIME_CAP},
    {"4 expires_in has a thousand digits' worth", EXPIRES("123456789012345678901234567890"),
     .lifetime = ANSWER_LIFETIME_CAP},

    {"4 expires_in is a date that is far off", EXPIRES("1795817600")},
    {"4 expires_in is a date in milliseconds that is far off", EXPIRES("1795817600000")},
    {"4 expires_in is a year and more", EXPIRES("86400000")},
    {"4 expires_in is sixty days", EXPIRES("5184000"), .lifetime = 5184000},

    {"5 expires_in is shorter than any margin", EXPIRES("5"), .lifetime = 5},
    {"5 expires_in is one second", EXPIRES("1"), .lifetime = 1},

    {"6 no refresh_token", KEPT("{\"access_token\":\"at\"}")},
    {"6 refresh_token is null", .body = "{\"access_token\":\"at\",\"refresh_token\":null,\"x\":1}", TOKENS,
     .fields = "{\"access_token\":\"at\",\"x\":1}"},
    {"6 refresh_token is empty", .body = "{\"access_token\":\"at\",\"refresh_token\":\"\"}", TOKENS,
     .fields = "{\"access_token\":\"at\"}"},
    {"6 refresh_token is a number", .body = "{\"refresh_token\":12345,\"access_token\":\"at\"}", TOKENS,
     .fields = "{\"access_token\":\"at\"}"},
    {"6 refresh_token is an object", .body = "{\"refresh_token\":{\"a\":[1]},\"access_token\":\"at\"}", TOKENS,
     .fields = "{\"access_token\":\"at\"}"},

    {"7 refresh_token is the old one", KEPT("{\"access_token\":\"at\",\"refresh_token\":\"" OLD_REFRESH "\"}")},

    /* 8: a reply has no content type at all */

    {"9 form", .body = "access_token=at&refresh_token=rt&expires_in=3600&token_type=bearer", TOKENS,
     .fields = OBJECT(",\"expires_in\":\"3600\",\"token_type\":\"bearer\""), .lifetime = 3600},
    {"9 form, percent-encoded", .body = "access_token=a%2Fb%2b%C3%A9&refresh_token=r+t%3D%26&scope=a+b", TOKENS,
     .fields = "{\"access_token\":\"a/b+\xC3\xA9\",\"refresh_token\":\"r t=&\",\"scope\":\"a b\"}"},
    {"9 form, percent-encoded name", .body = "%61ccess%5Ftoken=at", TOKENS, .fields = "{\"access_token\":\"at\"}"},
    {"9 form, quotes and backslashes", .body = "access_token=a%22%5Cn\"\\u0041&x=1", TOKENS,
     .fields = "{\"access_token\":\"a\\\"\\\\n\\\"\\\\u0041\",\"x\":\"1\"}"},
    {"9 form, broken percent signs", .body = "access_token=at&a=%&b=%4&c=%z4&d=%4z", TOKENS,
     .fields = "{\"access_token\":\"at\",\"a\":\"%\",\"b\":\"%4\",\"c\":\"%z4\",\"d\":\"%4z\"}"},
    {"9 form, spaces around", .body = " \t\r\naccess_token=at \r\n", TOKENS, .fields = "{\"access_token\":\"at\"}"},
    {"9 form, all that a name may have", .body = "access_token=at&azAZ09_-.~*=1", TOKENS,
     .fields = "{\"access_token\":\"at\",\"azAZ09_-.~*\":\"1\"}"},
    {"9 form, odd separators", .body = "&&access_token=at&flag&=x&refresh_token=r=t&\r\n", TOKENS,
     .fields = "{\"access_token\":\"at\",\"flag\":\"\",\"\":\"x\",\"refresh_token\":\"r=t\"}"},
    {"9 form, names twice", .body = "access_token=a&refresh_token=r&access_token=b", TOKENS,
     .fields = "{\"refresh_token\":\"r\",\"access_token\":\"b\"}"},
    {"9 form, brackets in names", .body = "access_token=at&scope[]=a&scope%5B%5D=b", TOKENS,
     .fields = "{\"access_token\":\"at\",\"scope[]\":\"b\"}"},
    {"9 form, not UTF-8 in a side field", .body = "access_token=at&name=M%FCller", TOKENS,
     .fields = "{\"access_token\":\"at\",\"name\":\"M\xEF\xBF\xBDller\"}"},
    {"9 form, control bytes in the access token", .body = "access_token=a%0D%0Ab&refresh_token=rt", UNUSABLE,
     .fields = "{\"refresh_token\":\"rt\"}"},
    {"9 form, NUL in the refresh token", .body = "access_token=at&refresh_token=r%00t", TOKENS,
     .fields = "{\"access_token\":\"at\"}"},
    {"9 form, refresh token alone", .body = "refresh_token=rt", UNUSABLE, .fields = "{\"refresh_token\":\"rt\"}"},
    {"9 form, error", .body = "error=invalid_grant&error_description=no+such+token", REFUSAL(CODE_INVALID_GRANT),
     .says = {"HTTP 200, invalid_grant: \"no such token\""}},
    {"9 form, error with status 400", .status = 400, .body = "error=invalid_client", REFUSAL(CODE_INVALID_CLIENT)},
    {"9 form without a word on tokens", .body = "code=1&message=hello", DOUBT(CODE_BAD_RESPONSE),
     .says = {"(HTTP 200)"}},

    {"10 200 invalid_grant", .body = "{\"error\":\"invalid_grant\"}", REFUSAL(CODE_INVALID_GRANT),
     .says = {"refused the refresh token (HTTP 200, invalid_grant)"}},
    {"10 200 bad_refresh_token", .body = "{\"error\":\"bad_refresh_token\"}", REFUSAL(CODE_INVALID_GRANT)},
    {"10 200 invalid_client", .body = "{\"error\":\"invalid_client\"}", REFUSAL(CODE_INVALID_CLIENT)},
    {"10 200 error beside unusable tokens", .body = "{\"error\":\"invalid_grant\",\"access_token\":\"\"}",
     REFUSAL(CODE_INVALID_GRANT)},
    {"10 200 error beside tokens", KEPT(OBJECT(",\"error\":\"invalid_grant\""))},
    {"10 200 error is null", .body = "{\"error\":null}", DOUBT(CODE_BAD_RESPONSE)},
    {"10 200 error is empty", .body = "{\"error\":\"\"}", DOUBT(CODE_BAD_RESPONSE)},
    {"10 200 error is false", .body = "{\"error\":false}", DOUBT(CODE_BAD_RESPONSE)},
    {"10 200 temporarily_unavailable", .body = "{\"error\":\"temporarily_unavailable\"}",
     NOT_SPENT(CODE_SERVER_ERROR, -1)},

    {"11 200 error is an object", .body = "{\"error\":{\"type\":\"x\",\"n\":[1e400]}}", REFUSAL(CODE_BAD_RESPONSE),
     .says = {"HTTP 200, \"x\""}},
    {"11 200 error is a number", .body = "{\"error\":17}", REFUSAL(CODE_BAD_RESPONSE), .says = {"HTTP 200, 17"}},
    {"11 400 error is an object", .status = 400, .body = "{\"error\":{\"code\":190}}", REFUSAL(CODE_BAD_RESPONSE),
     .says = {"HTTP 400, 190"}},
    {"11 400 error is an array", .status = 400, .body = "{\"error\":[\"invalid_grant\"]}", REFUSAL(CODE_INVALID_GRANT)},
    {"11 400 error is true", .status = 400, .body = "{\"error\":true}", REFUSAL(CODE_BAD_RESPONSE)},
    {"11 403 error is an object", .status = 403, .body = "{\"error\":{\"code\":1}}", REFUSAL(CODE_BAD_RESPONSE)},
    {"11 400 unknown error", .status = 400, .body = "{\"error\":\"on_fire\",\"error_description\":\"run\"}",
     REFUSAL(CODE_BAD_RESPONSE), .says = {"refused the request (HTTP 400, \"on_fire\": \"run\")"}},

    {"12 200 HTML", .body = "<html><a href=\"/x?a=1&error=2&access_token=at\">sign in</a></html>",
     DOUBT(CODE_BAD_RESPONSE), .says = {"holds no token (HTTP 200)"}},
    {"12 200 prose", .body = "An error=5 occurred & access_token=none was issued", DOUBT(CODE_BAD_RESPONSE)},
    {"12 200 nothing", .body = "", DOUBT(CODE_BAD_RESPONSE)},
    {"12 200 no body at all", .body = NULL, DOUBT(CODE_BAD_RESPONSE)},
    {"12 200 spaces", .body = " \r\n", DOUBT(CODE_BAD_RESPONSE)},
    {"12 204", .status = 204, .body = "", DOUBT(CODE_BAD_RESPONSE), .says = {"HTTP 204"}},
    {"12 200 {}", .body = "{}", DOUBT(CODE_BAD_RESPONSE)},
    {"12 200 null", .body = "null", DOUBT(CODE_BAD_RESPONSE)},
    {"12 200 []", .body = "[]", DOUBT(CODE_BAD_RESPONSE)},
    {"12 200 array of answers", .body = "[{\"access_token\":\"at\"}]", DOUBT(CODE_BAD_RESPONSE)},
    {"12 200 string", .body = "\"access_token=at&refresh_token=rt\"", DOUBT(CODE_BAD_RESPONSE)},
    {"12 200 number", .body = "17", DOUBT(CODE_BAD_RESPONSE)},
    {"12 200 true", .body = "true", DOUBT(CODE_BAD_RESPONSE)},
    {"12 200 truncated", .body = "{\"access_token\":\"at-secret\",\"refresh_token\":\"rt-sec", DOUBT(CODE_BAD_RESPONSE),
     .says_not = "sec"},
    {"12 200 truncated behind a query", .body = "{\"next\":\"https://x.test/?a=1&access_token=at",
     DOUBT(CODE_BAD_RESPONSE)},
    {"12 200 both tokens unusable", .body = "{\"access_token\":null,\"refresh_token\":7}", DOUBT(CODE_BAD_RESPONSE)},
    {"12 200 nested too deep by a level", .body = "{\"data\":{\"access_token\":\"at\"}}", DOUBT(CODE_BAD_RESPONSE)},
    {"12 200 an API error", .body = "{\"code\":\"internal\",\"message\":\"sorry\"}", DOUBT(CODE_BAD_RESPONSE),
     .says = {"\"internal\": \"sorry\""}},

    {"13 500", .status = 500, .body = "", DOUBT(CODE_SERVER_ERROR), .says = {"failed (HTTP 500)"}},
    {"13 502", .status = 502, .body = "<html>", DOUBT(CODE_SERVER_ERROR), .says = {"HTTP 502"}},
    {"13 504", .status = 504, .body = "", DOUBT(CODE_SERVER_ERROR), .says = {"HTTP 504"}},
    {"13 503 without Retry-After", .status = 503, .body = "", DOUBT(CODE_SERVER_ERROR)},
    {"13 500 with an error", .status = 500, .body = "{\"error\":\"invalid_grant\"}", DOUBT(CODE_SERVER_ERROR),
     .says = {"HTTP 500, invalid_grant"}},
    {"13 500 with tokens", .status = 500, .body = OBJECT(""), DOUBT(CODE_SERVER_ERROR)},
    {"13 500 with Retry-After", .status = 500, .body = "", .retry_after = "5", DOUBT(CODE_SERVER_ERROR)},
    {"13 408", .status = 408, .body = "{\"error\":\"invalid_grant\"}", DOUBT(CODE_TIMEOUT), .says = {"HTTP 408"}},
    {"13 status 0", .status = -1, .body = OBJECT(""), DOUBT(CODE_BAD_RESPONSE)},
    {"13 status 101", .status = 101, .body = OBJECT(""), DOUBT(CODE_BAD_RESPONSE), .says = {"HTTP 101"}},
    {"13 status 600", .status = 600, .body = OBJECT(""), DOUBT(CODE_BAD_RESPONSE)},

    {"14 429 without Retry-After", .status = 429, .body = "", NOT_SPENT(CODE_RATE_LIMITED, -1), .says = {"HTTP 429"}},
    {"14 429 with seconds", .status = 429, .body = "", .retry_after = "17", NOT_SPENT(CODE_RATE_LIMITED, 17)},
    {"14 429 whatever the body", .status = 429, .body = "{\"error\":\"invalid_grant\"}", .retry_after = "0",
     NOT_SPENT(CODE_RATE_LIMITED, 0)},
    {"14 429 with tokens", .status = 429, .body = OBJECT(""), NOT_SPENT(CODE_RATE_LIMITED, -1)},
    {"14 429 of Lucid's", .status = 429,
     .body = "{\"code\":\"tooManyRequests\",\"message\":\"slow\",\"requestId\":\"1\"}", .retry_after = "3",
     NOT_SPENT(CODE_RATE_LIMITED, 3), .says = {"\"tooManyRequests\": \"slow\""}},
    {"14 429 unreadable Retry-After", .status = 429, .body = "", .retry_after = "later",
     NOT_SPENT(CODE_RATE_LIMITED, -1)},
    {"14 503 with seconds", DATE("120", 120)},
    {"14 503 with a fraction", DATE("1.5", 1.5)},
    {"14 503 with spaces", DATE(" 2\t", 2)},
    {"14 503 with a huge number", DATE("99999999999999999999999", ANSWER_LIFETIME_CAP)},
    {"14 503 IMF-fixdate", DATE("Sun, 06 Nov 1994 08:50:37 GMT", 60)},
    {"14 503 IMF-fixdate with one digit", DATE("Sun, 6 Nov 1994 08:50:37 GMT", 60)},
    {"14 503 RFC 850 date", DATE("Sunday, 06-Nov-94 08:49:47 GMT", 10)},
    {"14 503 asctime date", DATE("Sun Nov  6 08:49:38 1994", 1)},
    {"14 503 date of this moment", DATE("Sun, 06 Nov 1994 08:49:37 GMT", 0)},
    {"14 503 past date", DATE("Sat, 05 Nov 1994 08:49:37 GMT", 0)},
    {"14 503 past date of long ago", DATE("Thu, 01 Jan 1970 00:00:00 GMT", 0)},
    {"14 503 past RFC 850 date", DATE("Tuesday, 01-Nov-88 00:00:00 GMT", 0)},
    {"14 503 RFC 850 date of the next century", DATE("Friday, 06-Nov-43 08:49:37 GMT", ANSWER_LIFETIME_CAP)},
    {"14 503 RFC 850 date of this century", DATE("Monday, 06-Nov-45 08:49:37 GMT", 0)},
    {"14 503 leap day", DATE("Thu, 29 Feb 1996 00:00:00 GMT", 41440223)},
    {"14 503 first of March behind it", DATE("Fri, 01 Mar 1996 00:00:00 GMT", 41526623)},
    {"14 503 leap second", DATE("Sat, 31 Dec 1994 23:59:60 GMT", 4806623)},
    {"14 503 no such leap day", UNDATED("Wed, 29 Feb 1995 00:00:00 GMT")},
    {"14 503 no such leap day in 1900", UNDATED("Thu, 29 Feb 1900 00:00:00 GMT")},
    {"14 503 no such day", UNDATED("Fri, 31 Apr 1995 00:00:00 GMT")},
    {"14 503 no such day in December", UNDATED("Sat, 32 Dec 1994 00:00:00 GMT")},
    {"14 503 no such hour", UNDATED("Sun, 06 Nov 1994 24:49:37 GMT")},
    {"14 503 no such month", UNDATED("Sun, 06 Nox 1994 08:49:37 GMT")},
    {"14 503 no such minute", UNDATED("Sun, 06 Nov 1994 08:60:37 GMT")},
    {"14 503 negative day", UNDATED("Sun, -6 Nov 1994 08:49:37 GMT")},
    {"14 503 date without a zone", UNDATED("Sun, 06 Nov 1994 08:49:37")},
    {"14 503 junk behind a date", UNDATED("Sun, 06 Nov 1994 08:49:37 GMT+2")},
    {"14 503 empty", UNDATED("")},
    {"14 503 negative", UNDATED("-5")},
    {"14 503 a word", UNDATED("soon")},
    {"14 503 two numbers", UNDATED("1 2")},
    {"14 503 a point", UNDATED(".")},
    {"14 503 hexadecimal", UNDATED("0x10")},
    {"14 slow_down", .status = 400, .body = "{\"error\":\"slow_down\"}", .retry_after = "9",
     NOT_SPENT(CODE_RATE_LIMITED, 9), .says = {"asks to slow down (HTTP 400, slow_down)"}},
    {"14 temporarily_unavailable", .status = 400, .body = "{\"error\":\"temporarily_unavailable\"}", .retry_after = "9",
     NOT_SPENT(CODE_SERVER_ERROR, 9)},

    {"15 byte order mark", .body = "\xEF\xBB\xBF" OBJECT(""), TOKENS, .fields = OBJECT("")},
    {"15 junk behind the object", .body = OBJECT("") "</body>", TOKENS, .fields = OBJECT("")},
    {"15 NULs behind the object", BODY(OBJECT("") "\0\0"), TOKENS, .fields = OBJECT("")},
    {"15 another object behind the object", .body = OBJECT("") "{\"error\":\"x\"}", TOKENS, .fields = OBJECT("")},
    {"15 duplicate keys",
     .body = "{\"access_token\":\"a1\",\"expires_in\":1,\"refresh_token\":\"r1\",\"access_token\":"
             "\"a2\",\"refresh_token\":\"r2\",\"expires_in\":2,\"x\":{\"y\":1,\"y\":2}}",
     TOKENS, .fields = "{\"access_token\":\"a2\",\"refresh_token\":\"r2\",\"expires_in\":2,\"x\":{\"y\":2}}",
     .lifetime = 2},
    {"15 unusable duplicate wins", .body = "{\"access_token\":\"a1\",\"refresh_token\":\"r1\",\"access_token\":null}",
     UNUSABLE, .fields = "{\"refresh_token\":\"r1\"}"},

    {"16 not UTF-8 in a side field", .body = OBJECT(",\"name\":\"M\xFCller\""), TOKENS,
     .fields = OBJECT(",\"name\":\"M\xEF\xBF\xBDller\"")},
    {"16 not UTF-8 in a name", .body = OBJECT(",\"\xFF\":1"), TOKENS, .fields = OBJECT(",\"\xEF\xBF\xBD\":1")},
    {"16 lone surrogate in a side field", .body = OBJECT(",\"name\":\"\\ud800\""), TOKENS,
     .fields = OBJECT(",\"name\":\"\xEF\xBF\xBD\"")},
    {"16 unknown escape in a side field", .body = OBJECT(",\"name\":\"\\x41\""), TOKENS,
     .fields = OBJECT(",\"name\":\"\\\\x41\"")},
    {"16 NUL in a side field", BODY(OBJECT(",\"name\":\"a\0b\"")), TOKENS, .fields = OBJECT(",\"name\":\"a\\u0001b\"")},

    {"17 token_type is missing", KEPT(OBJECT(""))},
    {"17 bearer", KEPT(OBJECT(",\"token_type\":\"bearer\""))},
    {"17 Bearer", KEPT(OBJECT(",\"token_type\":\"Bearer\""))},
    {"17 BEARER", KEPT(OBJECT(",\"token_type\":\"BEARER\""))},
    {"17 token_type is empty", KEPT(OBJECT(",\"token_type\":\"\""))},
    {"17 token_type is null", KEPT(OBJECT(",\"token_type\":null"))},
    {"17 token_type is a number", KEPT(OBJECT(",\"token_type\":1"))},

    {"18 mac", .body = OBJECT(",\"token_type\":\"mac\",\"expires_in\":10"), UNUSABLE,
     .fields = OBJECT(",\"token_type\":\"mac\",\"expires_in\":10"), .lifetime = 10, .says = {"type \"mac\""}},
    {"18 bear", .body = OBJECT(",\"token_type\":\"bear\""), UNUSABLE, .fields = OBJECT(",\"token_type\":\"bear\"")},
    {"18 bearers", .body = OBJECT(",\"token_type\":\"bearers\""), UNUSABLE,
     .fields = OBJECT(",\"token_type\":\"bearers\"")},
    {"18 the type is a token", .body = "{\"access_token\":\"at-secret\",\"token_type\":\"at-secret\"}", UNUSABLE,
     .fields = "{\"access_token\":\"at-secret\",\"token_type\":\"at-secret\"}",
     .says = {"of another type (its text is left out)"}, .says_not = "at-s"},

    {"19 access_token is missing", .body = "{\"refresh_token\":\"rt\",\"expires_in\":10}", UNUSABLE,
     .fields = "{\"refresh_token\":\"rt\",\"expires_in\":10}", .lifetime = 10,
     .says = {"without a usable access token (HTTP 200)"}},
    {"19 access_token is empty", .body = "{\"access_token\":\"\",\"refresh_token\":\"rt\"}", UNUSABLE,
     .fields = "{\"refresh_token\":\"rt\"}"},
    {"19 access_token is a number", .body = "{\"access_token\":17,\"refresh_token\":\"rt\"}", UNUSABLE,
     .fields = "{\"refresh_token\":\"rt\"}"},
    {"19 access_token is a huge number", .body = "{\"access_token\":12345678901234567890,\"refresh_token\":\"rt\"}",
     UNUSABLE, .fields = "{\"refresh_token\":\"rt\"}"},
    {"19 access_token is null", .body = "{\"access_token\":null,\"refresh_token\":\"rt\"}", UNUSABLE,
     .fields = "{\"refresh_token\":\"rt\"}"},

    {"20 CR LF in access_token", .body = "{\"access_token\":\"a\\r\\nb\",\"refresh_token\":\"rt\"}", UNUSABLE,
     .fields = "{\"refresh_token\":\"rt\"}", .says = {"without a usable access token"}},
    {"20 raw LF in access_token", .body = "{\"access_token\":\"a\nb\",\"refresh_token\":\"rt\"}", UNUSABLE,
     .fields = "{\"refresh_token\":\"rt\"}"},
    {"20 NUL in access_token", .body = "{\"access_token\":\"a\\u0000b\",\"refresh_token\":\"rt\"}", UNUSABLE,
     .fields = "{\"refresh_token\":\"rt\"}"},
    {"20 raw NUL in access_token", BODY("{\"access_token\":\"a\0b\",\"refresh_token\":\"rt\"}"), UNUSABLE,
     .fields = "{\"refresh_token\":\"rt\"}"},
    {"20 DEL in access_token", .body = "{\"access_token\":\"a\x7F\",\"refresh_token\":\"rt\"}", UNUSABLE,
     .fields = "{\"refresh_token\":\"rt\"}"},
    {"20 tab in refresh_token", .body = "{\"access_token\":\"at\",\"refresh_token\":\"r\\tt\"}", TOKENS,
     .fields = "{\"access_token\":\"at\"}"},
    {"20 NUL in refresh_token", .body = "{\"access_token\":\"at\",\"refresh_token\":\"\\u0000\"}", TOKENS,
     .fields = "{\"access_token\":\"at\"}"},
    {"20 control bytes in both", .body = "{\"access_token\":\"a\\n\",\"refresh_token\":\"\\u001f\"}",
     DOUBT(CODE_BAD_RESPONSE)},
    {"20 an escaped backslash is no control byte",
     KEPT("{\"access_token\":\"a\\\\u0000\",\"refresh_token\":\"r\\\\n\"}")},

    {"21 scope is a string", KEPT(OBJECT(",\"scope\":\"a b\""))},
    {"21 scope is an array", KEPT(OBJECT(",\"scope\":[\"a\",\"b\"]"))},
    {"21 scopes", KEPT(OBJECT(",\"scopes\":[\"a\",\"b\"]"))},

    {"one level down", .body = "{\"ok\":true,\"data\":{" PAIR ",\"expires_in\":3600}}", TOKENS,
     .fields = "{\"ok\":true," PAIR ",\"expires_in\":3600}", .lifetime = 3600},
    {"two levels down", .body = "{\"result\":{\"tokens\":[{" PAIR "}]},\"expires_in\":9}", TOKENS,
     .fields = "{\"result\":{\"tokens\":[]},\"expires_in\":9," PAIR "}", .lifetime = 9},
    {"one level down, unusable above", .body = "{\"access_token\":null,\"data\":{" PAIR "}}", TOKENS,
     .fields = "{\"access_token\":\"at\",\"refresh_token\":\"rt\"}"},
    {"one level down, twice", .body = "{\"a\":{" PAIR "},\"b\":{" PAIR "}}", DOUBT(CODE_BAD_RESPONSE)},
    {"one level down, half of it", .body = "{\"a\":{\"access_token\":\"at\"}}", DOUBT(CODE_BAD_RESPONSE)},
    {"one level down, and above", KEPT("{\"access_token\":\"x\",\"data\":{" PAIR "}}")},

    {"22 unknown fields",
     KEPT(OBJECT(",\"user\":{\"id\":12345678901234567890,\"rate\":0.1234567890123456789,\"e\":1e400,"
                 "\"list\":[1.5,-2,\"x\\\"\\\\\",null,true,{\"\":[]}]},"
                 "\"Access_Token\":\"other\""))},

    {"24 301", REDIRECT(301, "https://evil.example/path?q=1", "redirects to evil.example ("), .says_not = "path"},
    {"24 302", REDIRECT(302, "https://user:pw@evil.example:8443/p", "to evil.example ("), .says_not = "pw"},
    {"24 307", REDIRECT(307, "//evil.example?refresh_token=x", "to evil.example ("), .says_not = "?"},
    {"24 308", REDIRECT(308, "http://[2001:db8::1]:80/#f", "to [2001:db8::1] ("), .says_not = "#"},
    {"24 300", REDIRECT(300, "https://e\x01v\xFFil.example\\@good.example", "to another server (its text"),
     .says_not = "il."},
    {"24 302 to a long name",
     REDIRECT(302, "https://login-page.of-the-portal.example:80/", "to login-page.of-the-portal.")},
    {"24 302 to a name of one long part", REDIRECT(302, "https://abcdefghijklmnopqrst.example", "to another server"),
     .says_not = "abc"},
    {"24 302 on the same host", REDIRECT(302, "/login?next=//evil.example", "to another page ("), .says_not = "evil"},
    {"24 302 without a host", REDIRECT(302, "https:///path", "to another page ("), .says_not = "path"},
    {"24 303 without a location", REDIRECT(303, NULL, "to another page (")},
    {"24 302 with an error", .status = 302, .body = "{\"error\":\"invalid_grant\"}", REFUSAL(CODE_BAD_RESPONSE)},
    {"24 302 with a torn secret for a host",
     REDIRECT(302,
              "https://oauth2-\xB0\x92"
              "access-old/",
              "to another server ("),
     .says_not = "old"},
    {"24 302 with a secret for a host", REDIRECT(302, "https://" OLD_ACCESS "/", "to another server ("),
     .says_not = "old"},

    {"25 400 invalid_grant", .status = 400, .body = "{\"error\":\"invalid_grant\",\"error_description\":\"gone\"}",
     REFUSAL(CODE_INVALID_GRANT),
     .says = {"the token endpoint refused the refresh token (HTTP 400, invalid_grant: \"gone\")"}},
    {"25 401 invalid_grant", .status = 401, .body = "{\"error\":\"invalid_grant\"}", REFUSAL(CODE_INVALID_GRANT)},
    {"25 400 bad_refresh_token", .status = 400, .body = "{\"error\":\"bad_refresh_token\"}",
     REFUSAL(CODE_INVALID_GRANT)},
    {"25 400 expired_token", .status = 400, .body = "{\"error\":\"expired_token\"}", REFUSAL(CODE_INVALID_GRANT)},
    {"25 400 token_expired", .status = 400, .body = "{\"error\":\"token_expired\"}", REFUSAL(CODE_INVALID_GRANT)},
    {"25 400 invalid_refresh_token", .status = 400, .body = "{\"error\":\"invalid_refresh_token\"}",
     REFUSAL(CODE_INVALID_GRANT)},
    {"25 400 with tokens", .status = 400, .body = OBJECT(",\"error\":\"invalid_grant\""), REFUSAL(CODE_INVALID_GRANT)},
    {"25 400 without an error", .status = 400, .body = "<html>", REFUSAL(CODE_BAD_RESPONSE),
     .says = {"refused the request (HTTP 400)"}},
    {"25 400 of Lucid's API", .status = 400, .body = "{\"code\":\"badRequest\",\"message\":\"no\",\"requestId\":\"1\"}",
     REFUSAL(CODE_BAD_RESPONSE), .says = {"HTTP 400, \"badRequest\": \"no\""}},
    {"25 404", .status = 404, .body = "", REFUSAL(CODE_BAD_RESPONSE), .says = {"HTTP 404"}},

    {"26 401 invalid_client", .status = 401, .body = "{\"error\":\"invalid_client\"}", REFUSAL(CODE_INVALID_CLIENT),
     .says = {"HTTP 401, invalid_client", "an admin may have disabled the app"}},
    {"26 403 invalid_client", .status = 403, .body = "{\"error\":\"invalid_client\"}", REFUSAL(CODE_INVALID_CLIENT)},
    {"26 400 unauthorized_client", .status = 400, .body = "{\"error\":\"unauthorized_client\"}",
     REFUSAL(CODE_BAD_RESPONSE)},
    {"26 400 incorrect_client_credentials", .status = 400, .body = "{\"error\":\"incorrect_client_credentials\"}",
     REFUSAL(CODE_INVALID_CLIENT)},
    {"26 401 without a body", .status = 401, .body = "", REFUSAL(CODE_INVALID_CLIENT), .says = {"HTTP 401", "admin"}},
    {"26 403 HTML", .status = 403, .body = "<html><h1>Forbidden</h1></html>", REFUSAL(CODE_BAD_RESPONSE),
     .says = {"HTTP 403", "in between"}},
    {"26 401 HTML", .status = 401, .body = "\xEF\xBB\xBF\r\n<!DOCTYPE html>", REFUSAL(CODE_BAD_RESPONSE),
     .says = {"in between"}},
    {"26 403 prose", .status = 403, .body = "error code: 1020", REFUSAL(CODE_BAD_RESPONSE), .says = {"in between"}},
    {"26 403 space", .status = 403, .body = " \r\n", REFUSAL(CODE_INVALID_CLIENT)},
    {"26 403 of Lucid's API", .status = 403, .body = "{\"code\":\"forbidden\",\"message\":\"App is disabled\"}",
     REFUSAL(CODE_INVALID_CLIENT), .says = {"HTTP 403, \"forbidden\": \"App is disabled\"", "admin"}},
};

static void assert_says(const char *message, const char *part)
{
  if (part && !strstr(message, part))
    fail_msg("\"%s\" does not say \"%s\"", message, part);
}

static void assert_fields(const cJSON *fields, const char *expected)
{
  assert_int_equal(fields != NULL, expected != NULL);
  if (!expected)
    return;
  char *text = json_write(fields);
  assert_string_equal(text, expected);
  secret_free(text);
}

static void assert_answer(const struct answer *answer, const struct row *row)
{
  assert_int_equal(answer->kind, row->kind);
  assert_string_equal(code_name(answer->code), code_name(row->code));
  assert_fields(answer->fields, row->fields);
  assert_int_equal(answer->code == CODE_OK, *answer->message == '\0');
  if (row->kind == ANSWER_TOKENS) {
    assert_true(answer->lifetime == (row->lifetime > 0 ? row->lifetime : DEFAULT_LIFETIME));
    assert_int_equal(answer->expired_at_birth, row->expired_at_birth);
  }
  if (row->kind == ANSWER_NOT_SPENT && row->wait >= 0)
    assert_true(answer->retry_after == row->wait);
  else
    assert_true(answer->retry_after < 0);
  assert_says(answer->message, row->says[0]);
  assert_says(answer->message, row->says[1]);
  if (row->says_not && strstr(answer->message, row->says_not))
    fail_msg("\"%s\" says \"%s\"", answer->message, row->says_not);
}

/* The body in memory of just its size, so that reading past it shows. */
static char *exact_copy(const char *body, size_t length)
{
  char *copy = body ? malloc(length ? length : 1) : NULL;
  if (copy)
    memcpy(copy, body, length);
  return copy;
}

static void check_row(void **state)
{
  const struct row *row = *state;
  size_t length = row->length ? row->length : row->body ? strlen(row->body) : 0;
  char *body = exact_copy(row->body, length);
  struct reply reply = {.delivery = REPLY_RECEIVED,
                        .whole = true,
                        .status = row->status == 0  ? 200
                                  : row->status < 0 ? 0
                                                    : row->status,
                        .body = body,
                        .length = length,
                        .retry_after = row->retry_after,
                        .location = row->location};
  struct answer answer;
  answer_read(&answer, &reply, &context);
  free(body);
  assert_answer(&answer, row);
  answer_free(&answer);
  assert_null(answer.fields);
}

/* Rows 23, 27 and 28 are about the connection. */
static void assert_failed(const struct reply *reply, enum answer_kind kind, enum code code, const char *says)
{
  struct answer answer;
  answer_read(&answer, reply, &context);
  assert_int_equal(answer.kind, kind);
  assert_int_equal(answer.code, code);
  assert_null(answer.fields);
  assert_true(answer.retry_after < 0);
  assert_says(answer.message, says);
  answer_free(&answer);
  struct introspection found = answer_introspection(reply, &context);
  assert_int_equal(found.said, INTROSPECTION_NONE);
  assert_int_equal(found.code, code);
  assert_true(found.transient && found.retry_after < 0);
  assert_says(found.message, "introspection endpoint");
}

static void row_23_body_over_the_limit(void **state)
{
  (void)state;
  static const char body[] = OBJECT(",\"active\":true");
  static const int statuses[] = {200, 400, 429, 500};
  for (size_t i = 0; i < COUNT(statuses); i++) {
    struct reply reply = {
        .delivery = REPLY_RECEIVED, .cut = true, .status = statuses[i], .body = body, .length = sizeof body - 1};
    assert_failed(&reply, ANSWER_DOUBT, CODE_BAD_RESPONSE, "too long");
  }
}

static void row_27_not_sent(void **state)
{
  (void)state;
  struct reply reply = {.delivery = REPLY_NOT_SENT, .error = "Could not resolve host: api.example"};
  assert_failed(&reply, ANSWER_NOT_SPENT, CODE_NETWORK, "could not be reached: Could not resolve host: api.example");
  reply.error = NULL;
  assert_failed(&reply, ANSWER_NOT_SPENT, CODE_NETWORK, "the token endpoint could not be reached");
  reply.timed_out = true;
  assert_failed(&reply, ANSWER_NOT_SPENT, CODE_TIMEOUT, "in time");
}

/* A wrong Content-Length, or a server that never closes: the tokens are here all the same. */
static void row_28_lost_behind_the_tokens(void **state)
{
  static const char whole[] = "{\"access_token\":\"A2\",\"refresh_token\":\"R2\",\"expires_in\":60}";
  (void)state;
  for (size_t length = 0; length < sizeof whole; length++) {
    struct reply reply = {.delivery = REPLY_LOST, .status = 200, .body = whole, .length = length, .timed_out = true};
    struct answer answer;
    answer_read(&answer, &reply, &context);
    assert_int_equal(answer.kind, length == sizeof whole - 1 ? ANSWER_TOKENS : ANSWER_DOUBT);
    answer_free(&answer);
  }
  static const char form[] = "access_token=A2&refresh_token=R2";
  struct reply reply = {.delivery = REPLY_LOST, .status = 200, .body = form, .length = sizeof form - 1};
  struct answer answer;
  answer_read(&answer, &reply, &context);
  assert_int_equal(answer.kind, ANSWER_DOUBT);
  answer_free(&answer);
}

/* A form whose end nobody told may have been cut anywhere, within the refresh token or in front of it. */
static void a_form_without_an_end_is_doubt(void **state)
{
  (void)state;
  static const char form[] = "access_token=A2&refresh_token=R2&expires_in=60";
  for (size_t length = 0; length < sizeof form; length++) {
    struct reply reply = {.delivery = REPLY_RECEIVED, .status = 200, .body = form, .length = length};
    struct answer answer;
    answer_read(&answer, &reply, &context);
    assert_int_equal(answer.kind, ANSWER_DOUBT);
    answer_free(&answer);
  }
}

/* JSON says itself where it ends. */
static void json_without_an_end_is_read(void **state)
{
  (void)state;
  static const char json[] = OBJECT("");
  struct reply reply = {.delivery = REPLY_RECEIVED, .status = 200, .body = json, .length = sizeof json - 1};
  struct answer answer;
  answer_read(&answer, &reply, &context);
  assert_int_equal(answer.kind, ANSWER_TOKENS);
  answer_free(&answer);
}

static void row_28_lost(void **state)
{
  (void)state;
  struct reply reply = {.delivery = REPLY_LOST, .status = 200, .error = "Connection reset with " OLD_ACCESS};
  assert_failed(&reply, ANSWER_DOUBT, CODE_NETWORK, "lost before its answer was complete (its text is left out)");
  reply.timed_out = true;
  reply.error = NULL;
  assert_failed(&reply, ANSWER_DOUBT, CODE_TIMEOUT, "the token endpoint did not answer in time");
}

static void read_400(struct answer *answer, const char *body)
{
  struct reply reply = {.delivery = REPLY_RECEIVED, .status = 400, .body = body, .length = strlen(body)};
  answer_read(answer, &reply, &context);
  assert_int_equal(answer->kind, ANSWER_REFUSAL);
}

/* ---- what may be the refresh token's fault ---- */

/* Servers have many words for a dead refresh token; none of them has to be known. */
static void any_definite_refusal_may_be_of_the_grant(void **state)
{
  static const struct {
    int status;
    const char *body;
    bool of_grant;
    enum code code;
  } refusals[] = {
      {400, "{\"error\":\"invalid_grant\"}", true, CODE_INVALID_GRANT},
      {400, "{\"error\":\"INVALID_GRANT\"}", true, CODE_INVALID_GRANT},
      {400, "{\"error\":\"InvalidGrant\"}", true, CODE_INVALID_GRANT},
      {400, "{\"error\":\"invalid grant\"}", true, CODE_INVALID_GRANT},
      {400, "{\"errors\":[{\"errorType\":\"invalid_grant\"}]}", true, CODE_INVALID_GRANT},
      {400, "{\"error\":{\"code\":7,\"type\":\"invalid_grant\"}}", true, CODE_INVALID_GRANT},
      {400, "{\"code\":\"invalid_grant\",\"message\":\"m\"}", true, CODE_INVALID_GRANT},
      {200, "{\"error\":\"bad_refresh_token\"}", true, CODE_INVALID_GRANT},
      {403, "{\"error\":\"unauthorized_client\",\"error_description\":\"refresh_token is invalid\"}", true,
       CODE_BAD_RESPONSE},
      {400, "{\"code\":\"badRequest\",\"message\":\"Invalid refresh token\",\"requestId\":\"r\"}", true,
       CODE_BAD_RESPONSE},
      {400, "", true, CODE_BAD_RESPONSE},
      {400, "{}", true, CODE_BAD_RESPONSE},
      {401, "", true, CODE_INVALID_CLIENT},
      {401, "{\"error\":\"invalid_token\"}", true, CODE_BAD_RESPONSE},
      {400, "{\"error\":\"invalid_request\",\"error_description\":\"refresh token is expired\"}", true,
       CODE_BAD_RESPONSE},
      {400, "{\"error\":17}", true, CODE_BAD_RESPONSE},
      {200, "{\"error\":{\"x\":1}}", true, CODE_BAD_RESPONSE},
      {403, "{\"code\":\"forbidden\",\"message\":\"App is disabled\"}", true, CODE_INVALID_CLIENT},
      {404, "{\"error\":\"token_not_found\"}", true, CODE_BAD_RESPONSE},
      {410, "{\"error\":\"gone\"}", true, CODE_BAD_RESPONSE},
      {422, "{\"code\":\"x\"}", true, CODE_BAD_RESPONSE},
      {401, "{\"error\":\"invalid_client\"}", false, CODE_INVALID_CLIENT},
      {400, "{\"error\":\"Invalid-Client\"}", false, CODE_INVALID_CLIENT},
      {400, "{\"error\":\"incorrect_client_credentials\"}", false, CODE_INVALID_CLIENT},
      {403, "<html><h1>Forbidden</h1></html>", false, CODE_BAD_RESPONSE},
      {400, "<html>", false, CODE_BAD_RESPONSE},
      {404, "", false, CODE_BAD_RESPONSE},
      {405, "{}", false, CODE_BAD_RESPONSE},
      {302, "{\"error\":\"invalid_grant\"}", false, CODE_BAD_RESPONSE},
      {429, "{\"error\":\"invalid_grant\"}", false, CODE_RATE_LIMITED},
      {400, "{\"error\":\"slow_down\"}", false, CODE_RATE_LIMITED},
      {400, "{\"error\":\"temporarily_unavailable\"}", false, CODE_SERVER_ERROR},
      {500, "{\"error\":\"invalid_grant\"}", false, CODE_SERVER_ERROR},
      {408, "", false, CODE_TIMEOUT},
      {200, "{}", false, CODE_BAD_RESPONSE},
      {200, OBJECT(",\"error\":\"invalid_grant\""), false, CODE_OK},
  };
  (void)state;
  for (size_t i = 0; i < COUNT(refusals); i++) {
    const char *body = refusals[i].body;
    struct reply reply = {
        .delivery = REPLY_RECEIVED, .status = refusals[i].status, .body = body, .length = strlen(body)};
    struct answer answer;
    answer_read(&answer, &reply, &context);
    if (answer.refused_grant != refusals[i].of_grant || answer.code != refusals[i].code)
      fail_msg("HTTP %d %s: %d, %s", reply.status, body, answer.refused_grant, code_name(answer.code));
    answer_free(&answer);
  }
}

/* ---- what is quoted of a server's words ---- */

#define SECRET "oauth2-Zk93+QmTLpVw8sYb2/nRc5hGd0+xJe7uBq4aTf1"

/* What a server may make of a secret, in a JSON string. */
static const struct {
  const char *name, *text;
} disguises[] = {
    {"all of it", "oauth2-Zk93+QmTLpVw8sYb2/nRc5hGd0+xJe7uBq4aTf1"},
    {"its last bytes", "pVw8sYb2/nRc5hGd0+xJe7uBq4aTf1"},
    {"without its beginning", "Zk93+QmTLpVw8sYb2/nRc5hGd0+xJe7uBq4aTf1"},
    {"its first half", "token oauth2-Zk93+QmTLpVw8sYb..."},
    {"eight bytes", "is 3+QmTLpV yours"},
    {"eight letters, two words", "is 93Qm TLpVw yours"},
    {"split by spaces", "oaut h2-Z k93+ QmTL pVw8 sYb2 /nRc 5hGd 0+xJ e7uB q4aT f1"},
    {"split by quotes", "oaut'h2-Z'k93+'QmTL"},
    {"split by double quotes", "oaut\\\"h2-Z\\\"k93+\\\"QmTL"},
    {"split into letters", "o a u t h 2 - Z k 9 3 + Q m T L p V w 8"},
    {"in upper case", "ZK93+QMTLPVW8SYB2/"},
    {"in lower case", "zk93+qmtlpvw8syb2/"},
    {"escaped for HTML", "oauth2-Zk93&#43;QmTLpVw8sYb2&#x2F;nRc5hGd0&#43;xJe7uBq4aTf1"},
    {"numbered for HTML", "&#111;&#97;&#117;&#116;&#104;&#50;&#45;&#90;&#107;&#57;&#51;&#43;"},
    {"in base64", "b2F1dGgyLVprOTMrUW1UTHBWdzhzWWIyL25SYzVoR2QwK3hKZTd1QnE0YVRmMQ=="},
    {"in base64, short", "THBWdzhzWWIyL25SYz"},
    {"in base64 of its second byte", "Vnc4c1liMi9uUmM1"},
    {"in base64 of its third byte", "cFZ3OHNZYjIvblJj"},
    {"in base64 for URLs", "dXRoMi1aazkzK1FtVE"},
    {"in base32", "GIWVU2ZZGMVVC3KU"},
    {"in base32, shifted", "LJVTSMZLKFWVIT"},
    {"in hexadecimal", "332b516d544c705677"},
    {"in hexadecimal, in upper case", "332B516D544C705677"},
    {"in hexadecimal with colons", "33:2b:51:6d:54:4c"},
    {"with hexadecimal escapes",
     "\\\\x6f\\\\x61\\\\x75\\\\x74\\\\x68\\\\x32\\\\x2d\\\\x5a\\\\x6b\\\\x39\\\\x33\\\\x2b"},
    {"with JSON escapes",
     "\\\\u006f\\\\u0061\\\\u0075\\\\u0074\\\\u0068\\\\u0032\\\\u002d\\\\u005a\\\\u006b\\\\u0039\\\\u0033\\\\u002b"},
    {"percent-encoded", "%6F%61%75%74%68%32%2D%5A%6B%39%33%2B"},
    {"with what has no width",
     "o\342\200\213a\342\200\213u\342\200\213t\342\200\213h\342\200\2132\342\200\213-"
     "\342\200\213Z\342\200\213k\342\200\2139\342\200\2133\342\200\213+"
     "\342\200\213Q\342\200\213m\342\200\213T\342\200\213L\342\200\213p\342\200\213V\342\200\213w\342\200\2138"},
    {"in full width", "\357\275\217\357\275\201\357\275\225\357\275\224\357\275\210\357\274\222\357\274\215\357\274\272"
                      "\357\275\213\357\274\231\357\274\223\357\274\213\357\274\261\357\275\215\357\274\264\357\274\254"
                      "\357\275\220\357\274\266\357\275\227\357\274\230"},
    {"backwards", "a4qBu7eJx+0dGh5cR"},
};

/* Everywhere that a server has the word. */
static const char *const places[] = {
    "{\"error\":\"invalid_grant\",\"error_description\":\"%s\"}",
    "{\"error\":\"%s\"}",
    "{\"error\":{\"code\":\"%s\",\"message\":\"m\"}}",
    "{\"error\":{\"code\":1,\"message\":\"so: %s\"}}",
    "{\"errors\":[{\"errorType\":\"%s\",\"message\":\"m\"}]}",
    "{\"code\":\"%s\",\"message\":\"m\"}",
    "{\"code\":\"c\",\"message\":\"%s\"}",
    "{\"error\":\"invalid_grant\",\"error_description\":\"A word in front of it: %s\"}",
    "{\"access_token\":\"A\",\"token_type\":\"%s\"}",
};

static void assert_left_out(const char *message, const char *name)
{
  if (!strstr(message, QUOTE_LEFT_OUT))
    fail_msg("%s: %s", name, message);
}

static void no_disguise_of_a_secret_is_quoted(void **state)
{
  (void)state;
  struct answer_context knows = context;
  knows.secrets[2] = SECRET;
  for (size_t i = 0; i < COUNT(disguises); i++)
    for (size_t j = 0; j < COUNT(places); j++) {
      char body[1000];
      struct answer answer;
      snprintf(body, sizeof body, places[j], disguises[i].text);
      struct reply reply = {.delivery = REPLY_RECEIVED, .status = 400, .body = body, .length = strlen(body)};
      if (strstr(body, "token_type"))
        reply.status = 200;
      answer_read(&answer, &reply, &knows);
      assert_left_out(answer.message, disguises[i].name);
      answer_free(&answer);
      if (reply.status == 400)
        assert_left_out(answer_introspection(&reply, &knows).message, disguises[i].name);
    }
}

static void no_secret_of_the_answer_is_quoted(void **state)
{
  static const char *const bodies[] = {
      "{\"access_token\":\"" SECRET "\",%s}",         "{\"refreshToken\":\"" SECRET "\",%s}",
      "{\"x\":[{\"id_token\":[\"" SECRET "\"]}],%s}", "{\"client_secret\":{\"a\":\"" SECRET "\"},%s}",
      "{%s,\"Access-Token\":\"" SECRET "\"}",
  };
  (void)state;
  for (size_t i = 0; i < COUNT(bodies); i++) {
    char body[600];
    struct answer answer;
    snprintf(body, sizeof body, bodies[i], "\"error\":\"invalid_grant\",\"error_description\":\"so: Zk93+QmTLp!\"");
    read_400(&answer, body);
    assert_left_out(answer.message, body);
    answer_free(&answer);
  }
}

/* Each half is too short to be told, and we would put them together. */
static void no_secret_is_put_together(void **state)
{
  (void)state;
  struct answer_context knows = context;
  knows.secrets[2] = SECRET;
  static const char body[] = "{\"error\":\"Zk93\",\"error_description\":\"+QmTLp\"}";
  struct reply reply = {.delivery = REPLY_RECEIVED, .status = 400, .body = body, .length = sizeof body - 1};
  struct answer answer;
  answer_read(&answer, &reply, &knows);
  assert_says(answer.message, "(HTTP 400, \"Zk93\" (its text is left out))");
  answer_free(&answer);
}

static void short_secrets_are_looked_for_as_a_whole(void **state)
{
  (void)state;
  static const struct {
    const char *secret, *text;
    bool shown;
  } rows_of[] = {{"s3cr3t!", "is S3cr3t yours", false},
                 {"s3cr3t!", "is t3rc3s yours", false},
                 {"$$$$$", "is $$$$$ yours", false},
                 {"abc", "is abc yours", true},
                 {"s3cr3t!", "is s3cr yours", true}};
  for (size_t i = 0; i < COUNT(rows_of); i++) {
    const char *const known[] = {rows_of[i].secret, NULL, ""};
    const struct quote_secrets secrets = {known, COUNT(known), NULL};
    assert_int_equal(quote_is_safe(rows_of[i].text, &secrets), rows_of[i].shown);
  }
}

static void what_helps_is_quoted(void **state)
{
  static const char *const shown[][2] = {
      {"{\"error\":\"invalid_grant\",\"error_description\":\"The refresh token has expired (180 days).\"}",
       "(HTTP 400, invalid_grant: \"The refresh token has expired (180 days).\")"},
      {"{\"error\":\"INVALID_GRANT\"}", "(HTTP 400, invalid_grant)"},
      {"{\"error\":\"AADSTS700082\",\"error_description\":\"Inactive for 90 days.\"}",
       "(HTTP 400, \"AADSTS700082\": \"Inactive for 90 days.\")"},
      {"{\"error\":{\"code\":400,\"message\":\"Bad Request\",\"status\":\"INVALID_ARGUMENT\"}}",
       "(HTTP 400, \"INVALID_ARGUMENT\": \"Bad Request\")"},
      {"{\"errors\":[{\"errorType\":\"invalid_grant\",\"message\":\"Refresh token invalid\"}],\"success\":false}",
       "(HTTP 400, invalid_grant: \"Refresh token invalid\")"},
      {"{\"errors\":[\"oops\"]}", "(HTTP 400, \"oops\")"},
      {"{\"code\":\"badRequest\",\"message\":\"Invalid refresh token\",\"requestId\":\"r\"}",
       "(HTTP 400, \"badRequest\": \"Invalid refresh token\")"},
      {"{\"message\":\"No.\"}", "(HTTP 400: \"No.\")"},
      {"{\"error\":\"a_code_that_is_long_but_of_short_parts\"}", "\"a_code_that_is_long_but_of_short_parts\""},
      {"{\"error\":\"a sentence\"}", "(HTTP 400 (its text is left out))"},
      {"{\"error\":\"x\",\"error_description\":\"abcdefghijklmnopqrs\"}", "\"abcdefghijklmnopqrs\""},
      {"{\"error\":\"x\",\"error_description\":\"abcdefghijklmnopqrst\"}", "\"x\" (its text is left out)"},
      {"{\"error\":\"x\",\"error_description\":\"line\\nbreak\"}", "\"x\" (its text is left out)"},
      {"{\"error\":\"x\",\"error_description\":\"Schl\xC3\xBCssel\"}", "\"x\" (its text is left out)"},
      {"{\"error\":\"x\",\"error_description\":\"\\u001b[31m\"}", "\"x\" (its text is left out)"},
  };
  (void)state;
  for (size_t i = 0; i < COUNT(shown); i++) {
    struct answer answer;
    read_400(&answer, shown[i][0]);
    assert_says(answer.message, shown[i][1]);
    answer_free(&answer);
  }
}

static void texts_that_just_fit_are_not_cut(void **state)
{
  (void)state;
  const int fits = QUOTE_LIMIT - (int)strlen("invalid_grant");
  for (int length = fits; length <= fits + 1; length++) {
    char body[300], text[200];
    struct answer answer;
    for (int i = 0; i < length; i++)
      text[i] = "word "[i % 5];
    text[length] = '\0';
    snprintf(body, sizeof body, "{\"error\":\"invalid_grant\",\"error_description\":\"%s\"}", text);
    read_400(&answer, body);
    snprintf(body, sizeof body, "wo%s\")", length == fits ? "" : "...");
    assert_says(answer.message, body);
    answer_free(&answer);
  }
}

static void longest_messages_are_complete(void **state)
{
  (void)state;
  char body[2000], words[501];
  for (size_t i = 0; i < sizeof words - 1; i++)
    words[i] = "some words "[i % 11];
  words[sizeof words - 1] = '\0';
  for (int length = 1; length <= 61; length++) {
    snprintf(body, sizeof body, "{\"code\":\"%.*s\",\"message\":\"%s\"}", length,
             "a_code_a_code_a_code_a_code_a_code_a_code_a_code_a_code_a_code_", words);
    struct reply reply = {.delivery = REPLY_RECEIVED, .status = 403, .body = body, .length = strlen(body)};
    struct answer answer;
    answer_read(&answer, &reply, &context);
    assert_says(answer.message, length <= 60 ? ": \"some words" : "HTTP 403: \"some words");
    assert_says(answer.message, "they may be wrong, or an admin may have disabled the app");
    answer_free(&answer);
  }
}

/* ---- text for people ---- */

static void what_comes_from_outside_is_escaped(void **state)
{
  static const char *const texts[][2] = {
      {"an account", "an account"},
      {"M\xC3\xBCller \xF0\x9F\x98\x80", "M\xC3\xBCller \xF0\x9F\x98\x80"},
      {"a\nb\r\tc\x1B[31m\x7F", "a\\nb\\r\\tc\\x1b[31m\\x7f"},
      {"a\\nb", "a\\nb"},
      {"\xC2\x85\xC2\x9B", "\\u0085\\u009b"},
      {"a\xE2\x80\xAE"
       "b\xE2\x81\xA6"
       "c",
       "a\\u202eb\\u2066c"},
      {"a\xE2\x80\x8B"
       "b\xEF\xBB\xBF"
       "c\xC2\xAD",
       "a\\u200bb\\ufeffc\\u00ad"},
      {"\xE2\x80\xA8\xE2\x80\xA9", "\\u2028\\u2029"},
      {"\xF3\xA0\x81\x81", "\\U000e0041"},
      {"a\xFF\xC3", "a\\xff\\xc3"},
      {"\xED\xA0\x80", "\\xed\\xa0\\x80"},
      {"", ""},
  };
  char out[64];
  (void)state;
  for (size_t i = 0; i < COUNT(texts); i++)
    assert_string_equal(quote_escape(out, sizeof out, texts[i][0]), texts[i][1]);
  assert_string_equal(quote_escape(out, sizeof out, NULL), "");
}

static void what_is_escaped_is_cut_between_characters(void **state)
{
  (void)state;
  for (size_t size = 4; size < 24; size++) {
    char out[24];
    memset(out, '#', sizeof out);
    quote_escape(out, size,
                 "ab\n\xC3\xBC\x1B"
                 "cd\xE2\x80\xAE");
    assert_true(strlen(out) < size);
    for (size_t i = size; i < sizeof out; i++)
      assert_int_equal(out[i], '#');
    const char *tail = size < 19 ? out + strlen(out) - 3 : "...";
    assert_string_equal(tail, "...");
  }
  char out[11];
  assert_string_equal(quote_escape(out, sizeof out, "abc\n\n\n\n"), "abc\\n\\n...");
  assert_string_equal(quote_escape(out, sizeof out, "abcdefghij"), "abcdefghij");
  assert_string_equal(quote_escape(out, sizeof out, "abcdefghijk"), "abcdefg...");
}

static void lifetime_is_sane_whatever_the_default(void **state)
{
  (void)state;
  static const char body[] = OBJECT("");
  static const double defaults[] = {0, -1, 1e300, INFINITY, -INFINITY, NAN};
  struct reply reply = {.delivery = REPLY_RECEIVED, .status = 200, .body = body, .length = sizeof body - 1};
  for (size_t i = 0; i < COUNT(defaults); i++) {
    struct answer_context odd = {.now = NOW, .default_lifetime = defaults[i]};
    struct answer answer;
    answer_read(&answer, &reply, &odd);
    assert_true(answer.lifetime > 0 && answer.lifetime <= ANSWER_LIFETIME_CAP);
    answer_free(&answer);
  }
}

/* A date, or milliseconds: no lifetime of years. */
static void a_lifetime_may_be_told_as_a_date(void **state)
{
  static const struct {
    const char *members;
    double lifetime;
  } cases[] = {
      {"\"expires_in\":1700003600", 3600},
      {"\"expires_in\":\"1700003600\"", 3600},
      {"\"expires_in\":1700003600000", 3600},
      {"\"expires_in\":1699990000", DEFAULT_LIFETIME},
      {"\"expires_in\":1795817600", DEFAULT_LIFETIME},
      {"\"expires_in\":3600000,\"expires\":1700003600000", 3600},
      {"\"expires_in\":3600000,\"expires_at\":1700003590", 3590},
      {"\"expires_in\":3600000", 3600000},
      {"\"expires_in\":86400000", DEFAULT_LIFETIME},
      {"\"expires_in\":86400000,\"expires\":1700086400000", 86400},
      {"\"expires_in\":3600,\"expires\":1700000100000", 3600},
      {"\"expires_in\":1,\"expires\":1700000100000", 1},
      {"\"expires_at\":1700003600", DEFAULT_LIFETIME},
      {"\"expires_at\":1700003600000", DEFAULT_LIFETIME},
      {"\"expires\":1700003600000", DEFAULT_LIFETIME},
      {"\"expires_in\":null,\"expires\":1700003600", DEFAULT_LIFETIME},
      {"\"expires\":1900003600000", DEFAULT_LIFETIME},
      {"\"expires\":3600", DEFAULT_LIFETIME},
      {"\"expires_in\":1e20", ANSWER_LIFETIME_CAP},
  };
  (void)state;
  struct answer_context lately = context;
  lately.now = 1.7e9;
  for (size_t i = 0; i < COUNT(cases); i++) {
    char body[200];
    struct answer answer;
    snprintf(body, sizeof body, "{\"access_token\":\"A\",%s}", cases[i].members);
    struct reply reply = {.delivery = REPLY_RECEIVED, .status = 200, .body = body, .length = strlen(body)};
    answer_read(&answer, &reply, &lately);
    if (answer.lifetime != cases[i].lifetime)
      fail_msg("%s: %g", body, answer.lifetime);
    answer_free(&answer);
  }
}

/* What was sent and is repeated is not what was issued. */
static void tokens_that_were_sent_are_not_unwrapped(void **state)
{
  (void)state;
  static const char body[] = "{\"request\":{\"access_token\":\"A\",\"refresh_token\":\"" OLD_REFRESH "\"}}";
  struct reply reply = {.delivery = REPLY_RECEIVED, .status = 200, .body = body, .length = sizeof body - 1};
  struct answer_context knows = context;
  struct answer answer;
  knows.sent = OLD_REFRESH;
  answer_read(&answer, &reply, &knows);
  assert_int_equal(answer.kind, ANSWER_DOUBT);
  answer_free(&answer);
}

struct introspection_row {
  int status;
  const char *body;
  enum introspection_kind found;
  enum code code;
};

static const struct introspection_row introspections[] = {
    {200, "{\"active\":true,\"expires_in\":1}", INTROSPECTION_ACTIVE, CODE_OK},
    {200, "{\"active\":false}", INTROSPECTION_INACTIVE, CODE_OK},
    {201, "\xEF\xBB\xBF{\"active\":false,\"active\":true}x", INTROSPECTION_ACTIVE, CODE_OK},
    {200, "{\"active\":\"true\"}", INTROSPECTION_ACTIVE, CODE_OK},
    {200, "{\"active\":\"false\"}", INTROSPECTION_INACTIVE, CODE_OK},
    {200, "{\"active\":1}", INTROSPECTION_ACTIVE, CODE_OK},
    {200, "{\"active\":0}", INTROSPECTION_INACTIVE, CODE_OK},
    {200, "{\"active\":null}", INTROSPECTION_NONE, CODE_BAD_RESPONSE},
    {200, "{\"active\":2}", INTROSPECTION_NONE, CODE_BAD_RESPONSE},
    {200, "{\"active\":\"\"}", INTROSPECTION_NONE, CODE_BAD_RESPONSE},
    {200, "{\"active\":\"yes\"}", INTROSPECTION_NONE, CODE_BAD_RESPONSE},
    {200, "{\"active\":[false]}", INTROSPECTION_NONE, CODE_BAD_RESPONSE},
    {200, "{\"Active\":false}", INTROSPECTION_NONE, CODE_BAD_RESPONSE},
    {200, "{}", INTROSPECTION_NONE, CODE_BAD_RESPONSE},
    {200, "[]", INTROSPECTION_NONE, CODE_BAD_RESPONSE},
    {200, "false", INTROSPECTION_NONE, CODE_BAD_RESPONSE},
    {200, "", INTROSPECTION_NONE, CODE_BAD_RESPONSE},
    {200, "{\"active\":fal", INTROSPECTION_NONE, CODE_BAD_RESPONSE},
    {200, "<html>", INTROSPECTION_NONE, CODE_BAD_RESPONSE},
    {200, "active=false", INTROSPECTION_NONE, CODE_BAD_RESPONSE},
    {300, "{\"active\":false}", INTROSPECTION_NONE, CODE_BAD_RESPONSE},
    {302, "{\"active\":false}", INTROSPECTION_NONE, CODE_BAD_RESPONSE},
    {400, "{\"active\":false}", INTROSPECTION_NONE, CODE_BAD_RESPONSE},
    {400, "{\"error\":\"invalid_client\"}", INTROSPECTION_NONE, CODE_INVALID_CLIENT},
    {401, "{\"active\":false}", INTROSPECTION_NONE, CODE_INVALID_CLIENT},
    {403, "", INTROSPECTION_NONE, CODE_INVALID_CLIENT},
    {404, "", INTROSPECTION_NONE, CODE_BAD_RESPONSE},
    {408, "", INTROSPECTION_NONE, CODE_TIMEOUT},
    {429, "{\"active\":true}", INTROSPECTION_NONE, CODE_RATE_LIMITED},
    {500, "{\"active\":true}", INTROSPECTION_NONE, CODE_SERVER_ERROR},
    {503, "", INTROSPECTION_NONE, CODE_SERVER_ERROR},
    {600, "{\"active\":true}", INTROSPECTION_NONE, CODE_BAD_RESPONSE},
    {0, "{\"active\":true}", INTROSPECTION_NONE, CODE_BAD_RESPONSE},
};

static void introspection_answers(void **state)
{
  (void)state;
  for (size_t i = 0; i < COUNT(introspections); i++) {
    const struct introspection_row *row = &introspections[i];
    struct reply reply = {
        .delivery = REPLY_RECEIVED, .status = row->status, .body = row->body, .length = strlen(row->body)};
    char status[20];
    struct introspection found = answer_introspection(&reply, &context);
    snprintf(status, sizeof status, "HTTP %d", row->status);
    if (found.said != row->found || found.code != row->code)
      fail_msg("HTTP %d %s: %d, %s", row->status, row->body, (int)found.said, code_name(found.code));
    if (row->found == INTROSPECTION_NONE)
      assert_says(found.message, status);
    else
      assert_string_equal(found.message, "");
  }
}

/* Asked once more at once, a server that refuses refuses once more. */
static void introspection_is_tried_again_where_that_may_help(void **state)
{
  (void)state;
  static const struct {
    int status;
    const char *retry_after;
    bool transient;
    double wait;
    bool refused;
  } cases[] = {{429, "7", true, 7, false},    {503, "90", true, 90, false}, {500, NULL, true, -1, false},
               {408, NULL, true, -1, false},  {200, NULL, true, -1, false}, {302, NULL, true, -1, false},
               {400, NULL, false, -1, false}, {401, NULL, false, -1, true}, {403, NULL, false, -1, true},
               {404, NULL, false, -1, true},  {405, NULL, false, -1, true}};
  for (size_t i = 0; i < COUNT(cases); i++) {
    struct reply reply = {
        .delivery = REPLY_RECEIVED, .status = cases[i].status, .body = "", .retry_after = cases[i].retry_after};
    struct introspection found = answer_introspection(&reply, &context);
    assert_int_equal(found.said, INTROSPECTION_NONE);
    assert_int_equal(found.transient, cases[i].transient);
    assert_int_equal(found.refused, cases[i].refused);
    assert_true(found.retry_after == cases[i].wait);
  }
}

static void introspection_that_is_not_there_names_its_option(void **state)
{
  (void)state;
  struct reply reply = {.delivery = REPLY_RECEIVED, .status = 404, .body = ""};
  assert_says(answer_introspection(&reply, &context).message, "introspection_url");
}

static void a_refusal_that_repeats_the_refresh_token_is_one(void **state)
{
  (void)state;
  static const char body[] = "{\"error\":\"invalid_grant\",\"refresh_token\":\"" OLD_REFRESH "\"}";
  struct reply reply = {.delivery = REPLY_RECEIVED, .status = 200, .body = body, .length = sizeof body - 1};
  struct answer_context knows = context;
  struct answer answer;
  knows.sent = OLD_REFRESH;
  answer_read(&answer, &reply, &knows);
  assert_int_equal(answer.kind, ANSWER_REFUSAL);
  assert_int_equal(answer.code, CODE_INVALID_GRANT);
  answer_free(&answer);
}

static void introspection_quotes_no_secret(void **state)
{
  (void)state;
  static const char body[] = "{\"error\":\"invalid_request\",\"error_description\":\"token " OLD_REFRESH "\"}";
  struct reply reply = {.delivery = REPLY_RECEIVED, .status = 400, .body = body, .length = sizeof body - 1};
  struct introspection found = answer_introspection(&reply, &context);
  assert_int_equal(found.said, INTROSPECTION_NONE);
  assert_says(found.message, "(HTTP 400, \"invalid_request\" (its text is left out))");
}

static void every_code_has_its_own_name(void **state)
{
  (void)state;
  for (int i = 0; i < CODE_COUNT; i++) {
    assert_non_null(code_name((enum code)i));
    for (int j = 0; j < i; j++)
      assert_string_not_equal(code_name((enum code)i), code_name((enum code)j));
  }
  assert_string_equal(code_name(CODE_INVALID_GRANT), "invalid_grant");
  assert_string_equal(code_name(CODE_NOT_READY), "not_ready");
  assert_string_equal(code_name(CODE_COUNT), "unknown");
}

int main(void)
{
  static struct CMUnitTest odd_answers[COUNT(rows)];
  const struct CMUnitTest others[] = {
      cmocka_unit_test(row_23_body_over_the_limit),
      cmocka_unit_test(row_27_not_sent),
      cmocka_unit_test(a_form_without_an_end_is_doubt),
      cmocka_unit_test(json_without_an_end_is_read),
      cmocka_unit_test(row_28_lost),
      cmocka_unit_test(row_28_lost_behind_the_tokens),
      cmocka_unit_test(any_definite_refusal_may_be_of_the_grant),
      cmocka_unit_test(no_disguise_of_a_secret_is_quoted),
      cmocka_unit_test(no_secret_of_the_answer_is_quoted),
      cmocka_unit_test(no_secret_is_put_together),
      cmocka_unit_test(short_secrets_are_looked_for_as_a_whole),
      cmocka_unit_test(what_helps_is_quoted),
      cmocka_unit_test(texts_that_just_fit_are_not_cut),
      cmocka_unit_test(longest_messages_are_complete),
      cmocka_unit_test(what_comes_from_outside_is_escaped),
      cmocka_unit_test(what_is_escaped_is_cut_between_characters),
      cmocka_unit_test(lifetime_is_sane_whatever_the_default),
      cmocka_unit_test(a_lifetime_may_be_told_as_a_date),
      cmocka_unit_test(tokens_that_were_sent_are_not_unwrapped),
      cmocka_unit_test(introspection_answers),
      cmocka_unit_test(introspection_is_tried_again_where_that_may_help),
      cmocka_unit_test(introspection_that_is_not_there_names_its_option),
      cmocka_unit_test(a_refusal_that_repeats_the_refresh_token_is_one),
      cmocka_unit_test(introspection_quotes_no_secret),
      cmocka_unit_test(every_code_has_its_own_name),
  };
  for (size_t i = 0; i < COUNT(rows); i++)
    odd_answers[i] = (struct CMUnitTest){rows[i].name, check_row, NULL, NULL, (void *)(uintptr_t)&rows[i]};
  int failed = cmocka_run_group_tests(odd_answers, NULL, NULL);
  return failed + cmocka_run_group_tests(others, NULL, NULL);
}
