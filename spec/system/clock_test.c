/* Local time as the C library's zones have it, through every kind of change of the clocks. Needs the time zone data. */
#define _GNU_SOURCE
#include "clock.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define HOUR 3600.0

static void live_in(const char *zone)
{
  assert_int_equal(setenv("TZ", zone, 1), 0);
  tzset();
}

static int back_to_utc(void **state)
{
  (void)state;
  live_in("UTC0");
  return 0;
}

static struct civil reading(const char *text)
{
  struct civil time = {0};
  int fields = sscanf(text, "%d-%d-%dT%d:%d:%d.%6d", &time.year, &time.month, &time.day, &time.hour, &time.minute,
                      &time.second, &time.microsecond);
  assert_true(fields >= 6);
  return time;
}

/* A moment, by its reading in UTC. */
static double moment(const char *text)
{
  struct civil time = reading(text);
  struct tm tm = {.tm_year = time.year - 1900,
                  .tm_mon = time.month - 1,
                  .tm_mday = time.day,
                  .tm_hour = time.hour,
                  .tm_min = time.minute,
                  .tm_sec = time.second};
  return (double)timegm(&tm) + time.microsecond / 1e6;
}

static bool same(const struct civil *one, const struct civil *other)
{
  return one->year == other->year && one->month == other->month && one->day == other->day && one->hour == other->hour &&
         one->minute == other->minute && one->second == other->second && one->microsecond == other->microsecond;
}

static void assert_moment(const char *zone, const char *local, const char *expected)
{
  struct civil time = reading(local);
  live_in(zone);
  double got = clock_from_local(&time);
  if (!(fabs(got - moment(expected)) < 1e-6))
    fail_msg("%s in %s is %.0f s off %s UTC", local, zone, got - moment(expected), expected);
}

static void assert_reading(const char *zone, const char *utc, const char *expected)
{
  struct civil got, wanted = reading(expected);
  live_in(zone);
  assert_true(clock_to_local(moment(utc), &got));
  if (!same(&got, &wanted))
    fail_msg("%s UTC is not %s in %s", utc, expected, zone);
}

struct row {
  const char *zone, *local, *utc;
};

static void check_rows(const struct row *rows, size_t count, bool both_ways)
{
  for (size_t i = 0; i < count; i++) {
    assert_moment(rows[i].zone, rows[i].local, rows[i].utc);
    if (both_ways)
      assert_reading(rows[i].zone, rows[i].utc, rows[i].local);
  }
}

static void readings_that_come_once(void **state)
{
  static const struct row rows[] = {
      {"UTC", "2021-07-01T12:34:56", "2021-07-01T12:34:56"},
      {"America/New_York", "2021-07-01T12:00:00", "2021-07-01T16:00:00"},
      {"America/New_York", "2021-01-01T12:00:00", "2021-01-01T17:00:00"},
      {"Europe/Berlin", "2021-07-01T00:30:00", "2021-06-30T22:30:00"},
      {"Europe/Berlin", "2021-01-01T00:30:00", "2020-12-31T23:30:00"},
      {"Europe/Dublin", "2021-07-01T12:00:00", "2021-07-01T11:00:00"},
      {"Europe/Dublin", "2021-01-01T12:00:00", "2021-01-01T12:00:00"},
      {"Asia/Kathmandu", "2021-01-01T05:45:00", "2021-01-01T00:00:00"},
      {"Australia/Lord_Howe", "2021-01-01T11:00:00", "2021-01-01T00:00:00"},
      {"Australia/Lord_Howe", "2021-07-01T10:30:00", "2021-07-01T00:00:00"},
      {"Pacific/Kiritimati", "2021-01-01T14:00:00", "2021-01-01T00:00:00"},
      {"Pacific/Pago_Pago", "2020-12-31T13:00:00", "2021-01-01T00:00:00"},
      {"Africa/Casablanca", "2021-07-01T13:00:00", "2021-07-01T12:00:00"},
      {"UTC", "2024-02-29T23:59:59", "2024-02-29T23:59:59"},
      {"UTC", "1970-01-01T00:00:00", "1970-01-01T00:00:00"},
      {"UTC", "1969-12-31T23:59:58", "1969-12-31T23:59:58"},
      {"UTC", "2038-01-19T03:14:08", "2038-01-19T03:14:08"},
  };
  (void)state;
  check_rows(rows, COUNT(rows), true);
}

static void readings_that_come_twice_mean_the_first_time(void **state)
{
  static const struct row rows[] = {
      {"America/New_York", "2021-11-07T01:00:00", "2021-11-07T05:00:00"},
      {"America/New_York", "2021-11-07T01:59:59", "2021-11-07T05:59:59"},
      {"Europe/Berlin", "2021-10-31T02:00:00", "2021-10-31T00:00:00"},
      {"Europe/Berlin", "2021-10-31T02:30:00.25", "2021-10-31T00:30:00.25"},
      {"Europe/Berlin", "2021-10-31T02:59:59.999999", "2021-10-31T00:59:59.999999"},
      {"Europe/Dublin", "2021-10-31T01:30:00", "2021-10-31T00:30:00"},
      {"Australia/Lord_Howe", "2021-04-04T01:45:00", "2021-04-03T14:45:00"},
      /* no daylight saving on either side */
      {"Europe/Moscow", "2014-10-26T01:30:00", "2014-10-25T21:30:00"},
      {"Asia/Pyongyang", "2015-08-14T23:45:00", "2015-08-14T14:45:00"},
  };
  (void)state;
  check_rows(rows, COUNT(rows), true);
}

static void both_rounds_of_an_hour_read_alike(void **state)
{
  (void)state;
  assert_reading("America/New_York", "2021-11-07T05:30:00", "2021-11-07T01:30:00");
  assert_reading("America/New_York", "2021-11-07T06:30:00", "2021-11-07T01:30:00");
  assert_reading("Europe/Moscow", "2014-10-25T21:30:00", "2014-10-26T01:30:00");
  assert_reading("Europe/Moscow", "2014-10-25T22:30:00", "2014-10-26T01:30:00");
}

static void the_edges_of_the_hour_that_comes_twice(void **state)
{
  static const struct row rows[] = {
      {"Europe/Berlin", "2021-10-31T01:59:59", "2021-10-30T23:59:59"},
      {"Europe/Berlin", "2021-10-31T03:00:00", "2021-10-31T02:00:00"},
      {"America/New_York", "2021-11-07T00:59:59", "2021-11-07T04:59:59"},
      {"America/New_York", "2021-11-07T02:00:00", "2021-11-07T07:00:00"},
  };
  (void)state;
  check_rows(rows, COUNT(rows), true);
}

/* As if the clock had not been set yet: what a program meant that added seconds to a reading. */
static void readings_that_are_skipped_count_on(void **state)
{
  static const struct row rows[] = {
      {"America/New_York", "2021-03-14T02:00:00", "2021-03-14T07:00:00"},
      {"America/New_York", "2021-03-14T02:30:00", "2021-03-14T07:30:00"},
      {"Europe/Berlin", "2021-03-28T02:59:59", "2021-03-28T01:59:59"},
      {"Europe/Dublin", "2021-03-28T01:30:00", "2021-03-28T01:30:00"},
      {"Australia/Lord_Howe", "2021-10-03T02:15:00", "2021-10-02T15:45:00"},
      {"Asia/Pyongyang", "2018-05-04T23:45:00", "2018-05-04T15:15:00"},
      {"Pacific/Apia", "2011-12-30T12:00:00", "2011-12-30T22:00:00"},
  };
  (void)state;
  check_rows(rows, COUNT(rows), false);
}

static void the_edges_of_the_hour_that_is_skipped(void **state)
{
  static const struct row rows[] = {
      {"America/New_York", "2021-03-14T01:59:59", "2021-03-14T06:59:59"},
      {"America/New_York", "2021-03-14T03:00:00", "2021-03-14T07:00:00"},
      {"Europe/Berlin", "2021-03-28T01:59:59.5", "2021-03-28T00:59:59.5"},
      {"Europe/Berlin", "2021-03-28T03:00:00", "2021-03-28T01:00:00"},
      {"Pacific/Apia", "2011-12-29T23:59:59", "2011-12-30T09:59:59"},
      {"Pacific/Apia", "2011-12-31T00:00:00", "2011-12-30T10:00:00"},
  };
  (void)state;
  check_rows(rows, COUNT(rows), true);
}

/* Every ten minutes of three days around each change: a reading is the same there and back, and the moment that it
 * stands for is never later than the one it was read at. */
static void there_and_back_through_every_change(void **state)
{
  static const struct row changes[] = {
      {"UTC", "", "2021-06-01T00:00:00"},
      {"America/New_York", "", "2021-03-14T07:00:00"},
      {"America/New_York", "", "2021-11-07T06:00:00"},
      {"Europe/Berlin", "", "2021-03-28T01:00:00"},
      {"Europe/Berlin", "", "2021-10-31T01:00:00"},
      {"Europe/Dublin", "", "2021-03-28T01:00:00"},
      {"Europe/Dublin", "", "2021-10-31T01:00:00"},
      {"Australia/Lord_Howe", "", "2021-04-03T15:00:00"},
      {"Australia/Lord_Howe", "", "2021-10-02T15:30:00"},
      {"Africa/Casablanca", "", "2021-04-11T02:00:00"},
      {"Africa/Casablanca", "", "2021-05-16T02:00:00"},
      {"Europe/Moscow", "", "2014-10-25T22:00:00"},
      {"Asia/Pyongyang", "", "2015-08-14T15:00:00"},
      {"Asia/Pyongyang", "", "2018-05-04T15:00:00"},
      {"Pacific/Apia", "", "2011-12-30T10:00:00"},
  };
  (void)state;
  for (size_t i = 0; i < COUNT(changes); i++) {
    double middle = moment(changes[i].utc);
    live_in(changes[i].zone);
    for (double at = middle - 36 * HOUR; at < middle + 36 * HOUR; at += 600) {
      struct civil read, again;
      assert_true(clock_to_local(at, &read));
      double back = clock_from_local(&read);
      assert_true(clock_to_local(back, &again));
      if (back > at || back < at - 24 * HOUR || !same(&read, &again))
        fail_msg("%s, %+.1f hours from the change: %.0f s off", changes[i].zone, (at - middle) / HOUR, back - at);
    }
  }
}

static void microseconds_are_rounded_to_the_nearest(void **state)
{
  static const struct {
    double epoch;
    int second, microsecond;
  } rows[] = {{0, 0, 0},           {0.25, 0, 250000},   {1.9999994, 1, 999999}, {1.9999996, 2, 0},
              {59.0000004, 59, 0}, {30.0000006, 30, 1}, {-0.25, 59, 750000}};
  (void)state;
  live_in("UTC0");
  for (size_t i = 0; i < COUNT(rows); i++) {
    struct civil local;
    assert_true(clock_to_local(rows[i].epoch, &local));
    assert_int_equal(local.second, rows[i].second);
    assert_int_equal(local.microsecond, rows[i].microsecond);
  }
}

static void moments_that_no_calendar_shows(void **state)
{
  static const double odd[] = {NAN, INFINITY, -INFINITY, 1e18, -1e18, 1e300};
  (void)state;
  live_in("Europe/Berlin");
  for (size_t i = 0; i < COUNT(odd); i++) {
    struct civil local;
    assert_false(clock_to_local(odd[i], &local));
  }
}

static void the_zone_may_change_while_the_program_runs(void **state)
{
  (void)state;
  assert_moment("America/New_York", "2021-07-01T12:00:00", "2021-07-01T16:00:00");
  assert_moment("Asia/Tokyo", "2021-07-01T12:00:00", "2021-07-01T03:00:00");
  assert_moment("STD0DST-1,100/0,200/0", "2021-07-01T12:00:00", "2021-07-01T11:00:00");
  assert_moment("America/New_York", "2021-07-01T12:00:00", "2021-07-01T16:00:00");
}

static void the_clocks_go(void **state)
{
  struct moment first = clock_now(), second = clock_now();
  uint64_t coarse = clock_coarse();
  (void)state;
  assert_true(fabs(first.wall - (double)time(NULL)) < 60);
  assert_true(second.steady >= first.steady);
  assert_true(clock_coarse() >= coarse);
  /* the same clock, but for the step it moves in */
  assert_true(fabs((double)coarse / 1e9 - second.steady) < 10);
}

static void sleep_takes_anything(void **state)
{
  static const double none[] = {0, -1, NAN, -INFINITY};
  (void)state;
  struct moment before = clock_now();
  for (size_t i = 0; i < COUNT(none); i++)
    clock_sleep(none[i]);
  assert_true(clock_now().steady - before.steady < 10);
  before = clock_now();
  clock_sleep(0.002);
  assert_true(clock_now().steady - before.steady >= 0.002);
}

/* ---- patience ---- */

static void wait_in_steps(struct patience *patience, double *steady, double step, int steps)
{
  for (int i = 0; i < steps; i++)
    patience_look(patience, *steady += step, 0);
}

static void time_that_was_waited_counts(void **state)
{
  (void)state;
  double steady = 1000;
  struct patience patience = {0};
  patience_look(&patience, steady, 0);
  assert_false(patience_ends(&patience, 2));
  wait_in_steps(&patience, &steady, PATIENCE_PAUSE, 7);
  assert_false(patience_ends(&patience, 2));
  assert_true(patience_until(&patience, 2) <= steady + PATIENCE_PAUSE);
  wait_in_steps(&patience, &steady, PATIENCE_PAUSE, 1);
  assert_true(patience_ends(&patience, 2));
}

static void a_freeze_counts_little_and_is_followed_by_another_look(void **state)
{
  (void)state;
  double steady = 1000;
  struct patience patience = {0}, late = {.waited = 1.9, .looked = steady};
  patience_look(&patience, steady, 0);
  wait_in_steps(&patience, &steady, 1000, 1);
  assert_true(patience.waited <= PATIENCE_GAP);
  wait_in_steps(&late, &steady, 1000, 1);
  assert_false(patience_ends(&late, 2));
  assert_true(patience_until(&late, 2) > steady);
  wait_in_steps(&late, &steady, PATIENCE_PAUSE, 1);
  assert_true(patience_ends(&late, 2));
}

static void a_machine_that_is_always_slow_comes_to_an_end(void **state)
{
  (void)state;
  double steady = 1000;
  struct patience patience = {0};
  patience_look(&patience, steady, 0);
  int looks = 0;
  for (; looks < 20 && !patience_ends(&patience, 5); looks++)
    wait_in_steps(&patience, &steady, 3, 1);
  assert_in_range(looks, 5, 6);
}

static void time_counts_unless_a_look_that_was_announced_comes_late(void **state)
{
  (void)state;
  struct ran ran = {0};
  assert_true(ran_look(&ran, 1000, -1) == 0);
  assert_true(ran_look(&ran, 1500, 0.25) == 500); /* nobody had said that he would look */
  assert_true(ran_look(&ran, 1501, 0.25) == 501); /* a busy machine */
  assert_true(ran_look(&ran, 5000, 0.25) == 501.25);
  assert_true(ran_look(&ran, 5000.25, -1) == 501.5);
  assert_true(ran_look(&ran, 6000, 8) == 1501.25);
  assert_true(ran_look(&ran, 6001, 2) == 1502.25);
  assert_true(ran_look(&ran, 9000, -1) == 1504.25); /* the one who was to come first */
  assert_true(ran_look(&ran, 8000, -1) == 1504.25);
}

static void waits_end_where_every_look_comes_late(void **state)
{
  (void)state;
  struct ran ran = {0};
  double steady = 1000;
  int looks = 0;
  for (ran_look(&ran, steady, 0); ran.seconds < 10 && looks < 40; looks++)
    ran_look(&ran, steady += 3, 0);
  assert_in_range(looks, 10, 11);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(time_that_was_waited_counts),
      cmocka_unit_test(a_freeze_counts_little_and_is_followed_by_another_look),
      cmocka_unit_test(a_machine_that_is_always_slow_comes_to_an_end),
      cmocka_unit_test(time_counts_unless_a_look_that_was_announced_comes_late),
      cmocka_unit_test(waits_end_where_every_look_comes_late),
      cmocka_unit_test_teardown(readings_that_come_once, back_to_utc),
      cmocka_unit_test_teardown(readings_that_come_twice_mean_the_first_time, back_to_utc),
      cmocka_unit_test_teardown(both_rounds_of_an_hour_read_alike, back_to_utc),
      cmocka_unit_test_teardown(the_edges_of_the_hour_that_comes_twice, back_to_utc),
      cmocka_unit_test_teardown(readings_that_are_skipped_count_on, back_to_utc),
      cmocka_unit_test_teardown(the_edges_of_the_hour_that_is_skipped, back_to_utc),
      cmocka_unit_test_teardown(there_and_back_through_every_change, back_to_utc),
      cmocka_unit_test_teardown(microseconds_are_rounded_to_the_nearest, back_to_utc),
      cmocka_unit_test_teardown(moments_that_no_calendar_shows, back_to_utc),
      cmocka_unit_test_teardown(the_zone_may_change_while_the_program_runs, back_to_utc),
      cmocka_unit_test(the_clocks_go),
      cmocka_unit_test(sleep_takes_anything),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
