/* Records: what a file of ours or of Lucid's example script says, and what is written into one. */
#include "../base/calendar.h"
#include "record.h"

#include "../base/secret.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define assert_near(number, expected, within) \
  _assert_true(fabs((number) - (expected)) <= (within), #number " is near " #expected, __FILE__, __LINE__)
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* ---- a world with one change of its clocks ---- */

/* From here on the clock is set back by an hour: 02:00 UTC+2 becomes 01:00 UTC+1. The other world sets it forward at
 * the same moment. 2021-10-31T00:00:00Z. */
#define CHANGE 1635638400.0
#define HOUR 3600.0

/* glibc hides timegm in strict C11. */
static double utc(const struct civil *time)
{
  int year = time->month > 2 ? time->year : time->year - 1;
  int days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * ((time->month + 9) % 12) + 2) / 5 + time->day;
  return (days - 719469) * 86400.0 + time->hour * HOUR + time->minute * 60.0 + time->second + time->microsecond / 1e6;
}

static bool read_as(double epoch, double offset, struct civil *local)
{
  double micros = floor((epoch + offset) * 1e6 + 0.5), whole = floor(micros / 1e6);
  time_t seconds = (time_t)whole;
  const struct tm *tm = gmtime(&seconds);
  if (!tm)
    return false;
  *local = (struct civil){tm->tm_year + 1900,         tm->tm_mon + 1, tm->tm_mday, tm->tm_hour, tm->tm_min, tm->tm_sec,
                          (int)(micros - whole * 1e6)};
  return true;
}

static bool back_to_local(double epoch, struct civil *local)
{
  return read_as(epoch, epoch < CHANGE ? 2 * HOUR : HOUR, local);
}

static double back_from_local(const struct civil *local)
{
  double first = utc(local) - 2 * HOUR;
  return first < CHANGE ? first : utc(local) - HOUR;
}

static bool no_local(double epoch, struct civil *local)
{
  (void)epoch;
  (void)local;
  return false;
}

static double never(const struct civil *local)
{
  (void)local;
  return NAN;
}

/* Enough to tell texts apart. */
static void digest(const void *data, size_t size, unsigned char out[32])
{
  const unsigned char *bytes = data;
  unsigned hash = 2166136261u;
  for (size_t i = 0; i < size; i++)
    hash = (hash ^ bytes[i]) * 16777619u;
  for (int i = 0; i < 32; i++, hash *= 16777619u)
    out[i] = (unsigned char)(hash >> 24);
}

static const struct world world = {back_to_local, back_from_local, digest};
static const struct world timeless = {no_local, never, digest};

/* ---- helpers ---- */

static struct record read_text(const char *text)
{
  struct record record;
  if (!record_read(&record, text, &world))
    fail_msg("not read: %s", text);
  return record;
}

static double expiry_of(const char *text)
{
  struct record record = read_text(text);
  double at = record.expires_at;
  record_free(&record);
  return at;
}

static double expiration(const char *time)
{
  char text[200];
  snprintf(text, sizeof text, "{\"access_token\":\"A\",\"expiration\":\"%s\"}", time);
  return expiry_of(text);
}

static void assert_text(const struct record *record, const char *expected)
{
  char *text = record_write(record);
  assert_non_null(text);
  assert_string_equal(text, expected);
  secret_free(text);
}

/* An answer with these fields; the test owns it. */
static struct answer answer_with(const char *fields, double lifetime)
{
  struct answer answer = {.kind = ANSWER_TOKENS, .lifetime = lifetime, .fields = json_read(fields, strlen(fields))};
  assert_non_null(answer.fields);
  return answer;
}

/* The record `before` after an answer with `fields` to a request of the moment `since`. */
static struct record rotated(const char *before, const char *fields, double lifetime, double since)
{
  struct record record = read_text(before);
  struct answer answer = answer_with(fields, lifetime);
  assert_true(record_rotate(&record, &answer, since, &world));
  answer_free(&answer);
  return record;
}

/* ---- reading ---- */

static void what_is_a_record(void **state)
{
  static const char *const good[] = {
      "{\"access_token\":\"A\"}",
      "{\"refresh_token\":\"R\"}",
      " {\n\"refresh_token\" : \"R\", \"access_token\":\"A\" } \n",
      "{\"refresh_token\":\"R\",\"access_token\":null}",
      "{\"refresh_token\":\"R\",\"access_token\":42,\"expires_in\":{}}",
  };
  static const char *const bad[] = {
      "",
      "{",
      "{}",
      "[]",
      "null",
      "42",
      "\"access_token\"",
      "access_token=A&refresh_token=R",
      "<html>",
      "[{\"access_token\":\"A\"}]",
      "{\"access_token\":\"A\"",
      "{\"access_token\":\"A\"} and more",
      "{\"access_token\":\"A\"}{\"access_token\":\"B\"}",
      "{\"access_token\":\"\",\"refresh_token\":\"\"}",
      "{\"access_token\":\"A\\nB\"}",
      "{\"refresh_token\":\"A\\u0000B\"}",
      "{\"Access_token\":\"A\",\"REFRESH_TOKEN\":\"R\"}",
      "{\"tokens\":{\"access_token\":\"A\"}}",
  };
  (void)state;
  for (size_t i = 0; i < COUNT(good); i++) {
    struct record record = read_text(good[i]);
    assert_true(record.access_token || record.refresh_token);
    record_free(&record);
  }
  for (size_t i = 0; i < COUNT(bad); i++) {
    struct record record;
    if (record_read(&record, bad[i], &world))
      fail_msg("read: %s", bad[i]);
    assert_null(record.json);
    assert_null(record.access_token);
    assert_null(record.refresh_token);
    assert_true(isnan(record.expires_at));
  }
}

static void tokens_that_cannot_be_used_are_none(void **state)
{
  (void)state;
  struct record record = read_text("{\"access_token\":\"A\\r\\nX: y\",\"refresh_token\":\"R\"}");
  assert_null(record.access_token);
  assert_string_equal(record.refresh_token, "R");
  record_free(&record);
  record = read_text("{\"access_token\":\"A\",\"refresh_token\":\"R\\u007f\"}");
  assert_string_equal(record.access_token, "A");
  assert_null(record.refresh_token);
  record_free(&record);
}

static void the_type_is_bearer_or_unsaid(void **state)
{
  static const char *const bearer[] = {"\"bearer\"", "\"Bearer\"", "\"BEARER\"", "\"\"", "null", "42"};
  static const char *const other[] = {"\"mac\"", "\"bearer \"", "\"beare\"", "\"bearers\"", "\"DPoP\""};
  char text[100];
  (void)state;
  for (size_t i = 0; i < COUNT(bearer); i++) {
    snprintf(text, sizeof text, "{\"access_token\":\"A\",\"token_type\":%s}", bearer[i]);
    struct record record = read_text(text);
    assert_true(record.bearer);
    record_free(&record);
  }
  for (size_t i = 0; i < COUNT(other); i++) {
    snprintf(text, sizeof text, "{\"access_token\":\"A\",\"token_type\":%s}", other[i]);
    struct record record = read_text(text);
    assert_false(record.bearer);
    record_free(&record);
  }
}

static void our_own_expiry_counts_first(void **state)
{
  (void)state;
  assert_near(expiry_of("{\"access_token\":\"A\",\"expires_at\":1000.5,"
                        "\"expiration\":\"2021-01-01T00:00:00\",\"expires\":5000}"),
              1000.5, 0);
  assert_near(expiry_of("{\"access_token\":\"A\",\"expires_at\":\"1000.5\"}"), 1000.5, 0);
  assert_near(expiry_of("{\"access_token\":\"A\",\"expires_at\":1635638400.123}"), 1635638400.123, 0);
  assert_near(expiry_of("{\"access_token\":\"A\",\"expires_at\":1635638400123}"), 1635638400.123, 1e-6);
}

static void an_expiry_that_is_no_number_does_not_count(void **state)
{
  static const char *const odd[] = {"null", "\"\"", "\"soon\"", "true", "[1]", "{}", "1e999", "-1e999", "\"NaN\""};
  char text[200];
  (void)state;
  for (size_t i = 0; i < COUNT(odd); i++) {
    snprintf(text, sizeof text,
             "{\"access_token\":\"A\",\"expires_at\":%s,\"expiration\":\"2021-10-30T12:00:00\",\"expires\":5000}",
             odd[i]);
    assert_near(expiry_of(text), CHANGE - 14 * HOUR, 0);
    snprintf(text, sizeof text, "{\"access_token\":\"A\",\"expires_at\":%s,\"expires\":5000}", odd[i]);
    assert_near(expiry_of(text), 5, 0);
    snprintf(text, sizeof text, "{\"access_token\":\"A\",\"expires_at\":%s,\"expires\":%s}", odd[i], odd[i]);
    assert_true(isnan(expiry_of(text)));
  }
}

static void expiration_as_python_writes_it(void **state)
{
  (void)state;
  assert_near(expiration("2021-10-30T12:00:00"), CHANGE - 14 * HOUR, 0);
  assert_near(expiration("2021-10-30T12:00:00.500000"), CHANGE - 14 * HOUR + 0.5, 1e-6);
  assert_near(expiration("2021-10-30T12:00:00.000001"), CHANGE - 14 * HOUR + 1e-6, 1e-6);
  assert_near(expiration("2021-10-30T12:00:00.999999"), CHANGE - 14 * HOUR + 1, 2e-6);
  assert_near(expiration("2021-10-30T12:00:00.25"), CHANGE - 14 * HOUR + 0.25, 1e-6);
  assert_near(expiration("2021-10-30T12:00:00.123456789"), CHANGE - 14 * HOUR + 0.123456, 1e-6);
  assert_near(expiration("2021-10-30 12:00:00"), CHANGE - 14 * HOUR, 0);
}

static void expiration_in_the_hour_that_comes_twice(void **state)
{
  (void)state;
  assert_near(expiration("2021-10-31T00:59:59"), CHANGE - HOUR - 1, 0);
  assert_near(expiration("2021-10-31T01:00:00"), CHANGE - HOUR, 0);
  assert_near(expiration("2021-10-31T01:59:59.999999"), CHANGE, 2e-6);
  assert_near(expiration("2021-10-31T02:00:00"), CHANGE + HOUR, 0);
}

/* The script adds `lifetime` to a reading of the clock. */
static double written_with(const char *sum, const char *lifetime)
{
  char text[200];
  snprintf(text, sizeof text, "{\"access_token\":\"A\",\"expires_in\":%s,\"expiration\":\"%s\"}", lifetime, sum);
  return expiry_of(text);
}

static void a_lifetime_over_the_change_of_the_clock(void **state)
{
  (void)state;
  /* at 01:30, which may have been the first one */
  assert_near(written_with("2021-10-31T02:30:00", "3600"), CHANGE + HOUR / 2, 0);
  assert_near(written_with("2021-10-31T02:30:00.250000", "3600"), CHANGE + HOUR / 2 + 0.25, 1e-6);
  assert_near(written_with("2021-10-31T02:30:00", "\"3600\""), CHANGE + HOUR / 2, 0);
  /* at 00:30 */
  assert_near(written_with("2021-10-31T02:30:00", "7200"), CHANGE + HOUR / 2, 0);
  assert_near(written_with("2021-10-31T01:30:00", "3600"), CHANGE - HOUR / 2, 0);
  assert_near(written_with("2021-10-31T12:30:00", "43200"), CHANGE + 10.5 * HOUR, 0);
  /* behind it, and long before */
  assert_near(written_with("2021-10-31T03:30:00", "3600"), CHANGE + 2.5 * HOUR, 0);
  assert_near(written_with("2021-10-30T12:00:00", "3600"), CHANGE - 14 * HOUR, 0);
  /* the offset says it */
  assert_near(written_with("2021-10-31T02:30:00+01:00", "3600"), CHANGE + 1.5 * HOUR, 0);
}

static void a_lifetime_that_is_none_changes_nothing(void **state)
{
  static const char *const odd[] = {"0", "-3600", "null", "\"soon\"", "1e300", "1e999", "1e-9"};
  (void)state;
  for (size_t i = 0; i < COUNT(odd); i++)
    assert_near(written_with("2021-10-31T02:30:00", odd[i]), CHANGE + 1.5 * HOUR, 0);
  assert_near(written_with("1970-01-01T00:30:00", "3600"), -1.5 * HOUR, 0);
}

/* The script has added it to its clock all the same. */
static void a_lifetime_that_is_a_date_says_the_end_itself(void **state)
{
  (void)state;
  assert_near(written_with("2078-09-26T02:30:00", "1635638400"), 1635638400, 0);
  assert_near(written_with("2078-09-26T02:30:00", "\"1635638400\""), 1635638400, 0);
  assert_near(written_with("9999-09-26T02:30:00", "1635638400123"), 1635638400.123, 1e-6);
  struct record record = read_text("{\"access_token\":\"A\",\"expires_in\":1635638400}");
  assert_near(record.expires_at, 1635638400, 0);
  assert_true(isnan(record.lifetime));
  assert_near(record_refresh_at(&record, 300), 1635638100, 0);
  record_free(&record);
  assert_near(expiry_of("{\"access_token\":\"A\",\"expires_in\":1635638400,\"expires_at\":1700000000}"), 1700000000, 0);
}

static void days_and_their_dates(void **state)
{
  (void)state;
  for (long day = 0; day < 3000000; day += 13) {
    struct civil date;
    calendar_civil((double)day * 86400 + 86399.5, &date);
    assert_int_equal(calendar_days(date.year, date.month, date.day), day);
    assert_true(date.month >= 1 && date.month <= 12 && date.day >= 1 && date.day <= 31 && date.hour == 23);
    assert_near(calendar_epoch(&date), (double)day * 86400 + 86399.5, 1e-4);
  }
}

static void expiration_with_an_offset(void **state)
{
  (void)state;
  assert_near(expiration("2021-10-31T00:00:00+00:00"), CHANGE, 0);
  assert_near(expiration("2021-10-31T00:00:00Z"), CHANGE, 0);
  assert_near(expiration("2021-10-31T05:45:00.5+05:45"), CHANGE + 0.5, 1e-6);
  assert_near(expiration("2021-10-30T20:30:00-03:30"), CHANGE, 0);
  assert_near(expiration("2021-10-30T20:30:00-0330"), CHANGE, 0);
  assert_near(expiration("1970-01-01T00:00:00Z"), 0, 0);
  assert_near(expiration("2000-02-29T12:00:00Z"), 951825600, 0);
  assert_near(expiration("2000-03-01T00:00:00Z"), 951868800, 0);
  assert_near(expiration("9999-12-31T23:59:59Z"), 253402300799.0, 0);
}

static void expiration_that_is_no_time(void **state)
{
  static const char *const odd[] = {"",
                                    "soon",
                                    "1635638400",
                                    "2021-10-31",
                                    "2021-10-31T",
                                    "2021-10-31T12",
                                    "2021-10-31T12:00",
                                    "2021-10-31X12:00:00",
                                    "2021-10-31T12:00:00 or so",
                                    "2021-10-31T12:00:00+",
                                    "2021-10-31T12:00:00+soon",
                                    "12:00:00",
                                    "Sun, 31 Oct 2021 12:00:00 GMT",
                                    "2021-13-01T00:00:00Z",
                                    "2021-00-01T00:00:00Z",
                                    "2021-01-32T00:00:00Z",
                                    "2021-01-00T00:00:00Z",
                                    "2021-01-01T24:00:00Z",
                                    "2021-01-01T00:60:00Z",
                                    "2021-01-01T00:00:61Z",
                                    "2021-13-01T00:00:00",
                                    "2021-01-01T-1:00:00"};
  (void)state;
  for (size_t i = 0; i < COUNT(odd); i++)
    if (!isnan(expiration(odd[i])))
      fail_msg("taken for a time: %s", odd[i]);
}

static void expiration_that_no_clock_here_shows(void **state)
{
  struct record record;
  (void)state;
  assert_true(record_read(&record, "{\"access_token\":\"A\",\"expiration\":\"2021-10-31T12:00:00\",\"expires\":5000}",
                          &timeless));
  assert_near(record.expires_at, 5, 0);
  record_free(&record);
}

static void lifetime(void **state)
{
  static const struct {
    const char *fields;
    double expected; /* 0: unknown */
  } rows[] = {{"\"expires_at\":1000,\"obtained_at\":400", 600},
              {"\"expires_at\":1000,\"obtained_at\":400,\"expires_in\":3600", 600},
              {"\"expires_at\":1000,\"expires_in\":3600", 3600},
              {"\"expires_at\":1000,\"expires_in\":\"3600\"", 3600},
              {"\"expires_at\":1000,\"obtained_at\":1000,\"expires_in\":3600", 3600},
              {"\"expires_at\":1000,\"obtained_at\":2000,\"expires_in\":3600", 3600},
              {"\"expires_in\":3600", 3600},
              {"\"expires_at\":1000", 0},
              {"\"expires_at\":1000,\"expires_in\":0", 0},
              {"\"expires_at\":1000,\"expires_in\":-1", 0},
              {"\"expires_at\":1000,\"expires_in\":1e999", 0}};
  char text[200];
  (void)state;
  for (size_t i = 0; i < COUNT(rows); i++) {
    snprintf(text, sizeof text, "{\"access_token\":\"A\",%s}", rows[i].fields);
    struct record record = read_text(text);
    if (rows[i].expected > 0)
      assert_near(record.lifetime, rows[i].expected, 0);
    else
      assert_true(isnan(record.lifetime));
    record_free(&record);
  }
}

/* ---- when to refresh ---- */

static double refresh_at(const char *fields, double before)
{
  char text[200];
  snprintf(text, sizeof text, "{\"access_token\":\"A\",%s}", fields);
  struct record record = read_text(text);
  double at = record_refresh_at(&record, before);
  record_free(&record);
  return at;
}

static void refresh_ahead_of_the_expiry(void **state)
{
  (void)state;
  assert_near(refresh_at("\"expires_at\":10000,\"obtained_at\":6400", 300), 9700, 0);
  assert_near(refresh_at("\"expires_at\":10000,\"obtained_at\":6400", 0), 10000, 0);
}

static void refresh_at_most_a_quarter_of_the_lifetime_ahead(void **state)
{
  (void)state;
  assert_near(refresh_at("\"expires_at\":10000,\"obtained_at\":6400", 900), 9100, 0);
  assert_near(refresh_at("\"expires_at\":10000,\"obtained_at\":6400", 901), 9100, 0);
  assert_near(refresh_at("\"expires_at\":10000,\"obtained_at\":9900", 300), 9975, 0);
  assert_near(refresh_at("\"expires_at\":10000,\"obtained_at\":9999", 300), 9999.75, 0);
}

static void refresh_when_the_lifetime_is_unknown(void **state)
{
  (void)state;
  assert_near(refresh_at("\"expires_at\":10000", 300), 9700, 0);
  assert_near(refresh_at("\"expires_in\":3600", 300), 0, 0);
  assert_near(refresh_at("\"colour\":\"blue\"", 300), 0, 0);
}

static void an_expiry_beyond_the_lifetime_is_implausible(void **state)
{
  (void)state;
  struct record record = read_text("{\"access_token\":\"A\",\"expires_at\":10000,\"obtained_at\":6400}");
  assert_false(record_implausible(&record, 6400));
  assert_false(record_implausible(&record, 20000));
  assert_false(record_implausible(&record, 6340)); /* another machine's clock, a minute behind */
  assert_true(record_implausible(&record, 6339));
  assert_true(record_implausible(&record, 0));
  record_free(&record);
  record = read_text("{\"access_token\":\"A\",\"expires_at\":10000}");
  assert_false(record_implausible(&record, 0));
  record_free(&record);
  record = read_text("{\"access_token\":\"A\",\"expires_in\":3600}");
  assert_false(record_implausible(&record, 0));
  record_free(&record);
}

/* ---- writing ---- */

static void a_record_to_start_from(void **state)
{
  struct record record, read;
  (void)state;
  assert_true(record_start(&record, "R0", &(struct record){0}, &world));
  assert_string_equal(record.refresh_token, "R0");
  assert_null(record.access_token);
  assert_true(record_came_from(&record, "R0", &world));
  assert_false(record_came_from(&record, "R1", &world));
  char *text = record_write(&record);
  read = read_text(text);
  assert_string_equal(read.refresh_token, "R0");
  assert_true(record_came_from(&read, "R0", &world));
  secret_free(text);
  record_free(&read);
  record_free(&record);
}

static void rotation_lays_the_answer_over_the_record(void **state)
{
  (void)state;
  struct record record =
      rotated("{\"access_token\":\"A0\",\"note\":{\"a\":[1,{\"b\":null}]},\"refresh_token\":\"R0\",\"scope\":\"old\"}",
              "{\"access_token\":\"A1\",\"refresh_token\":\"R1\",\"expires_in\":3600,\"scope\":\"new\",\"more\":[[]]}",
              3600, CHANGE - 3 * HOUR + 0.25);
  assert_string_equal(record.access_token, "A1");
  assert_string_equal(record.refresh_token, "R1");
  assert_near(record.expires_at, CHANGE - 2 * HOUR + 0.25, 0);
  assert_near(record.lifetime, 3600, 0);
  assert_true(record.bearer);
  assert_text(&record,
              "{\"access_token\":\"A1\",\"note\":{\"a\":[1,{\"b\":null}]},\"refresh_token\":\"R1\",\"scope\":\"new\","
              "\"expires_in\":3600,\"more\":[[]],\"expires_at\":1635631200.25,"
              "\"obtained_at\":1635627600.25,\"expiration\":\"2021-10-31T00:00:00.250000\","
              "\"spent\":[\"0ddc1857e88e044b1a969d4afcdfc30b4ada527a37e792634f6cf823f664b493\"]}");
  record_free(&record);
}

static void rotation_writes_local_time_through_the_change(void **state)
{
  static const struct {
    double at;
    const char *expected;
  } rows[] = {{CHANGE - HOUR, "2021-10-31T01:00:00.000000"},
              {CHANGE - 0.001, "2021-10-31T01:59:59.999000"},
              {CHANGE, "2021-10-31T01:00:00.000000"},
              {CHANGE + HOUR, "2021-10-31T02:00:00.000000"}};
  (void)state;
  for (size_t i = 0; i < COUNT(rows); i++) {
    struct record record = rotated("{\"refresh_token\":\"R0\"}", "{\"access_token\":\"A1\"}", 3600, rows[i].at - 3600);
    assert_string_equal(json_string(record.json, "expiration"), rows[i].expected);
    assert_near(record.expires_at, rows[i].at, 0.001);
    record_free(&record);
  }
}

static void rotation_where_no_clock_shows_the_time(void **state)
{
  struct record record;
  struct answer answer = answer_with("{\"access_token\":\"A1\"}", 3600);
  (void)state;
  assert_true(record_read(&record, "{\"refresh_token\":\"R0\",\"expiration\":\"2021-10-30T12:00:00\"}", &timeless));
  assert_true(record_rotate(&record, &answer, 1000, &timeless));
  assert_null(json_string(record.json, "expiration"));
  assert_near(record.expires_at, 4600, 0);
  answer_free(&answer);
  record_free(&record);
}

static void rotation_keeps_milliseconds_and_no_more(void **state)
{
  (void)state;
  struct record record = rotated("{\"refresh_token\":\"R0\"}", "{\"access_token\":\"A1\"}", 3600, 1635627600.9876543);
  assert_near(record.expires_at, 1635631200.987, 1e-6);
  char *text = record_write(&record);
  assert_non_null(strstr(text, "\"expires_at\":1635631200.987,"));
  secret_free(text);
  record_free(&record);
}

static void rotation_keeps_a_refresh_token_that_is_not_replaced(void **state)
{
  (void)state;
  struct record record = rotated("{\"access_token\":\"A0\",\"refresh_token\":\"R0\",\"origin\":\"abc\"}",
                                 "{\"access_token\":\"A1\"}", 3600, 1000);
  assert_string_equal(record.refresh_token, "R0");
  assert_string_equal(json_string(record.json, "origin"), "abc");
  record_free(&record);
}

static void rotation_keeps_no_access_token(void **state)
{
  (void)state;
  struct record record =
      rotated("{\"access_token\":\"A0\",\"refresh_token\":\"R0\"}", "{\"refresh_token\":\"R1\"}", 3600, 1000);
  assert_null(record.access_token);
  assert_string_equal(record.refresh_token, "R1");
  record_free(&record);
}

static void rotation_forgets_the_old_type(void **state)
{
  (void)state;
  struct record record =
      rotated("{\"refresh_token\":\"R0\",\"token_type\":\"mac\"}", "{\"access_token\":\"A1\"}", 3600, 1000);
  assert_true(record.bearer);
  record_free(&record);
  record = rotated("{\"refresh_token\":\"R0\"}", "{\"access_token\":\"A1\",\"token_type\":\"mac\"}", 3600, 1000);
  assert_false(record.bearer);
  record_free(&record);
}

static void rotation_ends_the_mark(void **state)
{
  struct pending pending;
  (void)state;
  struct record record = read_text("{\"refresh_token\":\"R0\"}");
  struct pending mark = {.since = 1000, .pid = 42, .host = "here"};
  record_hash(&world, "R0", mark.refresh_token);
  assert_true(record_mark(&record, &mark, NULL));
  assert_true(record_pending(&record, &world, &pending));
  struct answer answer = answer_with("{\"access_token\":\"A1\"}", 3600);
  assert_true(record_rotate(&record, &answer, 1000, &world));
  assert_false(record_pending(&record, &world, &pending));
  assert_null(cJSON_GetObjectItemCaseSensitive(record.json, "pending"));
  answer_free(&answer);
  record_free(&record);
}

static void a_token_that_was_dead_at_birth_is_left_alone_for_a_while(void **state)
{
  (void)state;
  struct record record = read_text("{\"refresh_token\":\"R0\"}");
  struct answer answer = answer_with("{\"access_token\":\"A1\",\"expires_in\":0}", ANSWER_LIFETIME_FLOOR);
  answer.expired_at_birth = true;
  assert_true(record_rotate(&record, &answer, 1000, &world));
  assert_near(record_refresh_at(&record, 300), 1000 + ANSWER_LIFETIME_FLOOR, 0.001);
  answer_free(&answer);
  record_free(&record);
}

static void what_is_written_is_read_as_it_was(void **state)
{
  (void)state;
  struct record record = rotated("{\"refresh_token\":\"R0\",\"id\":12345678901234567890,\"big\":1e400,"
                                 "\"\\u00fc\":\"\\ud83c\\udf0d /\",\"deep\":[{\"x\":{\"y\":[]}}]}",
                                 "{\"access_token\":\"A1\",\"refresh_token\":\"R1\"}", 3600, CHANGE);
  char *text = record_write(&record), *again;
  assert_non_null(strstr(text, "\"id\":12345678901234567890"));
  struct record read = read_text(text);
  assert_near(read.expires_at, record.expires_at, 0);
  assert_near(read.lifetime, record.lifetime, 0);
  again = record_write(&read);
  assert_string_equal(again, text);
  secret_free(text);
  secret_free(again);
  record_free(&read);
  record_free(&record);
}

static void nothing_is_written_of_nothing(void **state)
{
  struct record record = {0};
  (void)state;
  record_free(&record);
  assert_null(record_write(&record));
  record_free(&record);
}

/* ---- the mark and the origin ---- */

static void a_mark_says_who_and_when(void **state)
{
  struct record record = read_text("{\"access_token\":\"A0\",\"refresh_token\":\"R0\"}");
  struct pending mark = {.since = 1635638400.125, .pid = 4242, .host = "a-host"}, found;
  (void)state;
  record_hash(&world, "R0", mark.refresh_token);
  assert_false(record_pending(&record, &world, &found));
  assert_true(record_mark(&record, &mark, NULL));
  assert_true(record_mark(&record, &mark, "raw \"answer\""));
  char *text = record_write(&record);
  struct record read = read_text(text);
  assert_true(record_pending(&read, &world, &found));
  assert_string_equal(found.refresh_token, mark.refresh_token);
  assert_near(found.since, mark.since, 0);
  assert_int_equal(found.pid, 4242);
  assert_string_equal(found.host, "a-host");
  assert_string_equal(json_string(cJSON_GetObjectItem(read.json, "pending"), "answer"), "raw \"answer\"");
  assert_null(strstr(strstr(text, "\"pending\""), "R0"));
  record_unmark(&read);
  assert_false(record_pending(&read, &world, &found));
  assert_text(&read, "{\"access_token\":\"A0\",\"refresh_token\":\"R0\"}");
  secret_free(text);
  record_free(&read);
  record_free(&record);
}

static void a_mark_for_another_refresh_token_does_not_count(void **state)
{
  struct record record = read_text("{\"refresh_token\":\"R1\"}");
  struct pending mark = {.since = 1, .pid = 1, .host = "h"}, found;
  (void)state;
  record_hash(&world, "R0", mark.refresh_token);
  assert_true(record_mark(&record, &mark, NULL));
  assert_false(record_pending(&record, &world, &found));
  record_free(&record);
}

static void a_mark_in_odd_shape(void **state)
{
  static const char *const none[] = {"null",
                                     "42",
                                     "[]",
                                     "{}",
                                     "\"x\"",
                                     "{\"refresh_token_sha256\":42}",
                                     "{\"refresh_token_sha256\":\"x\",\"since\":1}"};
  char hash[RECORD_HASH], text[300];
  struct pending found;
  (void)state;
  for (size_t i = 0; i < COUNT(none); i++) {
    snprintf(text, sizeof text, "{\"refresh_token\":\"R0\",\"pending\":%s}", none[i]);
    struct record record = read_text(text);
    assert_false(record_pending(&record, &world, &found));
    record_free(&record);
  }
  record_hash(&world, "R0", hash);
  snprintf(text, sizeof text,
           "{\"refresh_token\":\"R0\",\"pending\":{\"refresh_token_sha256\":\"%s\",\"since\":\"x\",\"pid\":1e300,"
           "\"host\":null}}",
           hash);
  struct record record = read_text(text);
  assert_true(record_pending(&record, &world, &found));
  assert_near(found.since, 0, 0);
  assert_int_equal(found.pid, 0);
  assert_true(strlen(found.host) > 0);
  record_free(&record);
  snprintf(text, sizeof text, "{\"access_token\":\"A0\",\"pending\":{\"refresh_token_sha256\":\"%s\"}}", hash);
  record = read_text(text);
  assert_false(record_pending(&record, &world, &found));
  record_free(&record);
}

/* ---- what a broken answer still holds ---- */

#define SENT "sent/1"

static const struct broken {
  const char *bytes;
  size_t length;
  const char *token; /* NULL: none */
} broken[] = {
#define BROKEN(text, found)           \
  {                                   \
    (text), sizeof(text) - 1, (found) \
  }
    BROKEN("{\"token_type\":\"Bearer\",\"refresh_token\":\"rotated-1\",\"access_tok", "rotated-1"),
    BROKEN("{\"refresh_token\":\"rot\\/ated+1=\",\"access_tok", "rot/ated+1="),
    BROKEN("{\"refresh_token\":\"rot\\u002fated\\u002B1=\"", "rot/ated+1="),
    BROKEN("{\"refresh_token\":\"a\\\"b\\\\c\\b\"", NULL), /* \b is no byte of a header */
    BROKEN("{\"refresh_token\":\"a\\\"b\\\\c\"", "a\"b\\c"),
    BROKEN("{\"refresh_token\":\"a\\q\\u00g\"", "a\\q\\u00g"),
    BROKEN("{\"refresh_token\":\"a\\ud83d\\ude00\"", "a\xF0\x9F\x98\x80"),
    BROKEN("{\"refresh_token\":\"a\\ud83d\"", NULL),
    BROKEN("{\"refresh_token\":\"a\\u0000\"", NULL),
    BROKEN("{\"refresh_token\":\"a\0b\"", NULL),
    BROKEN("{\"refresh_token\":\"a\xFF"
           "b\"",
           NULL),
    BROKEN("{\"refresh_token\":\"a\nb\"", NULL),
    BROKEN("{\"refresh_token\":\"\"", NULL),
    BROKEN("{\"refr\\u0065sh\\u005Ftoken\":\"R1\"", "R1"),
    BROKEN("{\"refresh_token\" \r\n:\t \"R1\"", "R1"),
    BROKEN("{\"refresh_token\":\"half", NULL),
    BROKEN("{\"refresh_token\":\"half\\\"", NULL),
    BROKEN("{\"refresh_token\":\"R1\",\"refresh_token\":\"half", "R1"),
    BROKEN("{\"refresh_token\":17,\"x\":\"y\"", NULL),
    BROKEN("{\"refresh_token\":null,\"x\":\"y\"", NULL),
    BROKEN("{\"refresh_token\":[\"R1\"]", NULL),
    BROKEN("{\"refresh_token\",\"R1\":1", NULL),
    BROKEN("{\"x\":\"refresh_token\",\"y\":\"R1\"", NULL),
    BROKEN("{\"old_refresh_token\":\"R1\",\"refresh_token_expires_in\":\"9\",\"Refresh_Token\":\"R2\"", NULL),
    /* of equal names the last */
    BROKEN("{\"refresh_token\":\"R1\",\"refresh_token\":\"R2\",", "R2"),
    BROKEN("{\"refresh_token\":\"R1\",\"refresh_tok\\u0065n\":\"R2\",", "R2"),
    BROKEN("{\"refresh_token\":\"R2\",\"old\":{\"refresh_token\":\"R1\"},\"x", "R2"),
    BROKEN("{\"old\":{\"refresh_token\":\"R1\"},\"refresh_token\":\"R2\",\"x", "R2"),
    BROKEN("{\"a\":[{\"b\":\"}]\\\"}\"}],\"refresh_token\":\"R2\",\"old\":{\"refresh_token\":\"R1\"},\"x", "R2"),
    /* never the one that was sent */
    BROKEN("{\"refresh_token\":\"" SENT "\"", NULL),
    BROKEN("{\"refresh_token\":\"s\\u0065nt\\/1\"", NULL),
    BROKEN("{\"refresh_token\":\"R1\",\"request\":{\"refresh_token\":\"" SENT "\"}", "R1"),
    BROKEN("{\"refresh_token\":\"R1\",\"refresh_token\":\"" SENT "\"", "R1"),
    BROKEN("{\"refresh_token\":\"" SENT "\",\"data\":{\"refresh_token\":\"R1\"", "R1"),
    /* the text of another string */
    BROKEN("{\"x\":\"\\\"refresh_token\\\":\\\"R1\\\"\",", NULL),
    BROKEN("{\"x\":\"\\\"refresh_token\\\":\\\"R1\\\"\",\"refresh_token\":\"R2\"", "R2"),
    BROKEN("{\"refresh_token\":\"R2\",\"x\":\"\\\\\\\"refresh_token\\\":\\\"R1\\\"\",", "R2"),
    BROKEN("\"{\\\"refresh_token\\\":\\\"R1\\\"}\"", NULL),
    /* wrapped */
    BROKEN("<html><pre class=\"x\">{\"refresh_token\":\"R1\"}</pre>", "R1"),
    BROKEN(")]}',\n{\"refresh_token\":\"R1\"}", "R1"),
    BROKEN("It's \"odd: {\"refresh_token\":\"R1\"}", "R1"),
    BROKEN("callback({\"ok\":true,\"data\":{\"refresh_token\":\"R1\"}});", "R1"),
    BROKEN("[{\"refresh_token\":\"R1\"}]", "R1"),
    BROKEN("{\"a\":\"b,\"refresh_token\":\"R1\"}", "R1"),
    BROKEN("{\"path\":\"C:\\\",\"refresh_token\":\"R1\"}", "R1"),
    BROKEN("\xFE\xFF\0{\"refresh_token\":\"R1\"}", "R1"),
    /* a form */
    BROKEN("access_token=a&refresh_token=r-ha", NULL),
    BROKEN("access_token=a&refresh_token=r%2B1&expires", "r+1"),
    BROKEN("refresh_token=r1&refresh_token=r2&x=", "r2"),
    BROKEN("refresh_token=sent%2F1&x=", NULL),
    BROKEN("<a href=\"/x?refresh_token=r1&y=2\">", NULL),
    BROKEN("&", NULL),
    BROKEN("", NULL),
    BROKEN("\"", NULL),
    BROKEN("\\", NULL),
    BROKEN("\"refresh_token\"", NULL),
    BROKEN("\"refresh_token\":", NULL),
    BROKEN("\"refresh_token\":\"", NULL),
#undef BROKEN
};

static void assert_salvaged(const char *bytes, size_t length, const char *token)
{
  char *found = answer_salvage(bytes, length, SENT);
  if (found ? !token || strcmp(found, token) != 0 : token != NULL)
    fail_msg("%.*s: %s", (int)length, bytes, found ? found : "none");
  secret_free(found);
}

/* In memory of just its size, so that reading past it shows. */
static void a_token_that_came_whole_is_found(void **state)
{
  (void)state;
  for (size_t i = 0; i < COUNT(broken); i++) {
    char *copy = malloc(broken[i].length + 1);
    char *exact = copy + 1;
    memcpy(exact, broken[i].bytes, broken[i].length);
    assert_salvaged(exact, broken[i].length, broken[i].token);
    free(copy);
  }
  assert_salvaged(NULL, 0, NULL);
}

/* Wherever the answer is cut, and whichever byte of it is broken: the token is found whole or not at all. */
static void no_part_of_a_token_is_found(void **state)
{
  static const char whole[] = "{\"a\":\"b\",\"refresh_token\":\"rot\\/1\",\"c\":[{\"d\":\"e\"}]}";
  static const char bad[] = {'\xFF', '\0', '\x01'};
  (void)state;
  size_t name = (size_t)(strstr(whole, "\"refresh") - whole), end = (size_t)(strstr(whole, ",\"c\"") - whole);
  for (size_t length = 0; length < sizeof whole; length++)
    assert_salvaged(whole, length, length < end ? NULL : "rot/1");
  for (size_t i = 0; i < sizeof whole - 1; i++)
    for (size_t j = 0; j < sizeof bad; j++) {
      char copy[sizeof whole];
      memcpy(copy, whole, sizeof whole);
      copy[i] = bad[j];
      bool hit = i >= name && i < end && whole[i] != ':';
      assert_salvaged(copy, sizeof whole - 1, hit ? NULL : "rot/1");
    }
}

static void a_token_that_was_salvaged_takes_the_place_of_the_spent_one(void **state)
{
  static const char kept[] = "{\"refresh_token\":\"rot\\/1\",\"acc";
  struct pending mark = {.since = 1, .pid = 1, .host = "h"};
  struct record record = read_text("{\"access_token\":\"A0\",\"refresh_token\":\"R0\",\"x\":1}");
  (void)state;
  assert_false(record_salvage(&record));
  record_hash(&world, "R0", mark.refresh_token);
  assert_true(record_mark(&record, &mark, kept));
  assert_true(record_salvage(&record));
  assert_string_equal(record.refresh_token, "rot/1");
  assert_null(record.access_token);
  assert_text(&record, "{\"refresh_token\":\"rot/1\",\"x\":1}");
  assert_false(record_salvage_from(&record, kept, sizeof kept - 1)); /* now it is the one that is sent */
  assert_true(record_salvage_from(&record, "\"refresh_token\":\"R2\"", 20));
  assert_string_equal(record.refresh_token, "R2");
  record_free(&record);
}

static void a_hash_is_lower_case_hexadecimal(void **state)
{
  char one[RECORD_HASH], other[RECORD_HASH];
  (void)state;
  record_hash(&world, "R0", one);
  record_hash(&world, "R1", other);
  assert_int_equal(strlen(one), 64);
  assert_int_equal(strspn(one, "0123456789abcdef"), 64);
  assert_string_not_equal(one, other);
}

static void a_grant_comes_from_its_origin_or_its_present_token(void **state)
{
  (void)state;
  struct record record;
  assert_true(record_start(&record, "R0", &(struct record){0}, &world));
  struct answer answer = answer_with("{\"access_token\":\"A1\",\"refresh_token\":\"R1\"}", 3600);
  assert_true(record_rotate(&record, &answer, 1000, &world));
  assert_true(record_came_from(&record, "R0", &world));
  assert_true(record_came_from(&record, "R1", &world));
  assert_false(record_came_from(&record, "R2", &world));
  answer_free(&answer);
  record_free(&record);
  record = read_text("{\"access_token\":\"A0\"}");
  assert_false(record_came_from(&record, "R0", &world));
  record_free(&record);
}

/* A process that still has it configured would else take it for a login that nobody has tried. */
static void a_refused_origin_is_remembered_by_the_grants_that_follow(void **state)
{
  (void)state;
  struct record first, second, third;
  assert_true(record_start(&first, "R0", &(struct record){0}, &world));
  assert_true(record_start(&second, "R1", &first, &world));
  assert_false(record_came_from(&second, "R0", &world));
  record_free(&second);
  record_refuse_origin(&first);
  assert_true(record_start(&second, "R1", &first, &world));
  assert_true(record_came_from(&second, "R0", &world));
  assert_true(record_start(&third, "R2", &second, &world));
  assert_true(record_came_from(&third, "R0", &world));
  assert_false(record_came_from(&third, "R1", &world));
  record_free(&first);
  record_free(&second);
  record_free(&third);
}

static void the_essentials_are_what_a_grant_goes_on_with(void **state)
{
  (void)state;
  static const char whole[] = "{\"access_token\":\"a\",\"blob\":{\"refresh_token\":\"x\"},\"refresh_token\":\"r\","
                              "\"token_type\":\"bearer\",\"scope\":\"s\",\"expires_in\":3600,\"expires_at\":1.5,"
                              "\"obtained_at\":1,\"pending\":{\"held\":\"h\"},\"server\":\"https://s\",\"n\":null}";
  char *less = record_essentials(whole);
  assert_string_equal(less, "{\"access_token\":\"a\",\"refresh_token\":\"r\",\"token_type\":\"bearer\","
                            "\"expires_in\":3600,\"expires_at\":1.5,\"obtained_at\":1,"
                            "\"pending\":{\"held\":\"h\"},\"server\":\"https://s\"}");
  assert_null(record_essentials(less));
  assert_null(record_essentials("[1]"));
  assert_null(record_essentials("{\"access_token\":\"a\",\"blob\":1"));
  secret_free(less);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_is_a_record),
      cmocka_unit_test(tokens_that_cannot_be_used_are_none),
      cmocka_unit_test(the_type_is_bearer_or_unsaid),
      cmocka_unit_test(our_own_expiry_counts_first),
      cmocka_unit_test(an_expiry_that_is_no_number_does_not_count),
      cmocka_unit_test(expiration_as_python_writes_it),
      cmocka_unit_test(expiration_in_the_hour_that_comes_twice),
      cmocka_unit_test(a_lifetime_over_the_change_of_the_clock),
      cmocka_unit_test(a_lifetime_that_is_none_changes_nothing),
      cmocka_unit_test(a_lifetime_that_is_a_date_says_the_end_itself),
      cmocka_unit_test(days_and_their_dates),
      cmocka_unit_test(expiration_with_an_offset),
      cmocka_unit_test(expiration_that_is_no_time),
      cmocka_unit_test(expiration_that_no_clock_here_shows),
      cmocka_unit_test(lifetime),
      cmocka_unit_test(refresh_ahead_of_the_expiry),
      cmocka_unit_test(refresh_at_most_a_quarter_of_the_lifetime_ahead),
      cmocka_unit_test(refresh_when_the_lifetime_is_unknown),
      cmocka_unit_test(an_expiry_beyond_the_lifetime_is_implausible),
      cmocka_unit_test(a_record_to_start_from),
      cmocka_unit_test(rotation_lays_the_answer_over_the_record),
      cmocka_unit_test(rotation_writes_local_time_through_the_change),
      cmocka_unit_test(rotation_where_no_clock_shows_the_time),
      cmocka_unit_test(rotation_keeps_milliseconds_and_no_more),
      cmocka_unit_test(rotation_keeps_a_refresh_token_that_is_not_replaced),
      cmocka_unit_test(rotation_keeps_no_access_token),
      cmocka_unit_test(rotation_forgets_the_old_type),
      cmocka_unit_test(rotation_ends_the_mark),
      cmocka_unit_test(a_token_that_was_dead_at_birth_is_left_alone_for_a_while),
      cmocka_unit_test(what_is_written_is_read_as_it_was),
      cmocka_unit_test(nothing_is_written_of_nothing),
      cmocka_unit_test(a_mark_says_who_and_when),
      cmocka_unit_test(a_mark_for_another_refresh_token_does_not_count),
      cmocka_unit_test(a_mark_in_odd_shape),
      cmocka_unit_test(a_token_that_came_whole_is_found),
      cmocka_unit_test(no_part_of_a_token_is_found),
      cmocka_unit_test(a_token_that_was_salvaged_takes_the_place_of_the_spent_one),
      cmocka_unit_test(a_hash_is_lower_case_hexadecimal),
      cmocka_unit_test(a_grant_comes_from_its_origin_or_its_present_token),
      cmocka_unit_test(the_essentials_are_what_a_grant_goes_on_with),
      cmocka_unit_test(a_refused_origin_is_remembered_by_the_grants_that_follow),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
