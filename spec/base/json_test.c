#include "hash.h"
#include "json.h"
#include "secret.h"

#include <float.h>
#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
/* a literal with NULs in it */
#define BYTES(literal) literal, sizeof(literal) - 1
#define FFFD "\xEF\xBF\xBD"

static cJSON *read_text(const char *text)
{
  return json_read(text, strlen(text));
}

static void assert_tree(const cJSON *tree, const char *expected)
{
  char *text = json_write(tree);
  assert_non_null(text);
  assert_string_equal(text, expected);
  secret_free(text);
}

/* What is read must be written as `expected`, and read and written again stay the same. */
static void assert_bytes_read(const char *text, size_t length, const char *expected)
{
  cJSON *tree = json_read(text, length);
  if (!tree)
    fail_msg("not read: %s", text);
  assert_tree(tree, expected);
  json_free(tree);
  tree = json_read_whole(expected, strlen(expected));
  assert_tree(tree, expected);
  json_free(tree);
}

static void assert_read(const char *text, const char *expected)
{
  assert_bytes_read(text, strlen(text), expected);
}

static void values_of_every_type(void **state)
{
  (void)state;
  assert_read("null", "null");
  assert_read(" true ", "true");
  assert_read("false", "false");
  assert_read("\"\"", "\"\"");
  assert_read("{}", "{}");
  assert_read("[ ]", "[]");
  assert_read("[1, \"a\" ,{\"b\" :[null,true,false]}\r\n\t]", "[1,\"a\",{\"b\":[null,true,false]}]");
  assert_read("{\"\":1,\"A\":2,\"a\":3}", "{\"\":1,\"A\":2,\"a\":3}");
}

static void byte_order_mark_and_junk_behind(void **state)
{
  (void)state;
  assert_read("\xEF\xBB\xBF{\"a\":1}", "{\"a\":1}");
  assert_read("{\"a\":1}junk", "{\"a\":1}");
  assert_read("{\"a\":1}{\"a\":2}", "{\"a\":1}");
  assert_read("{\"a\":1}\"open", "{\"a\":1}");
  assert_read("12]", "12");
  assert_bytes_read(BYTES("{\"a\":1}\0\0\xFF"), "{\"a\":1}");
}

static void last_duplicate_wins_at_every_depth(void **state)
{
  (void)state;
  assert_read("{\"a\":1,\"a\":2}", "{\"a\":2}");
  assert_read("{\"a\":1,\"b\":2,\"a\":3,\"c\":4,\"a\":null}", "{\"b\":2,\"c\":4,\"a\":null}");
  assert_read("[{\"x\":{\"a\":{\"a\":1,\"a\":2},\"a\":[{\"b\":1,\"b\":2}]}}]", "[{\"x\":{\"a\":[{\"b\":2}]}}]");
  assert_read("{\"a\":1,\"\\u0061\":2}", "{\"a\":2}");
}

static void many_duplicates_take_no_time(void **state)
{
  (void)state;
  enum { MEMBERS = 100000 };
  char *text = malloc(MEMBERS * 12 + 16), *end = text;
  assert_non_null(text);
  *end++ = '{';
  for (int i = 0; i < MEMBERS; i++)
    end += sprintf(end, "\"%d\":%d,", i % 1000, i % 10);
  end += sprintf(end, "\"z\":0}");
  cJSON *tree = json_read(text, (size_t)(end - text));
  assert_int_equal(cJSON_GetArraySize(tree), 1001);
  json_free(tree);
  free(text);
}

static void broken_utf8_becomes_replacement_characters(void **state)
{
  (void)state;
  static const char *const rows[][2] = {
      {"\"a\xFFz\"", "\"a" FFFD "z\""},
      {"\"\x80\"", "\"" FFFD "\""},
      {"\"\xC3\"", "\"" FFFD "\""},
      {"\"\xC0\x80\"", "\"" FFFD FFFD "\""},
      {"\"\xC1\xBF\"", "\"" FFFD FFFD "\""},
      {"\"\xE0\x9F\xBF\"", "\"" FFFD FFFD FFFD "\""},
      {"\"\xF0\x8F\xBF\xBF\"", "\"" FFFD FFFD FFFD FFFD "\""},
      {"\"\xF4\x90\x80\x80\"", "\"" FFFD FFFD FFFD FFFD "\""},
      {"\"\xF5\x80\x80\x80\"", "\"" FFFD FFFD FFFD FFFD "\""},
      {"\"\xF8\x88\x80\x80\x80\"", "\"" FFFD FFFD FFFD FFFD FFFD "\""},
      {"\"\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF\xF0\x90\x80\x80\"",
       "\"\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF\xF0\x90\x80\x80\""},
      {"\"\xED\xA0\x80\"", "\"" FFFD FFFD FFFD "\""},
      {"\"\xED\xBF\xBF\"", "\"" FFFD FFFD FFFD "\""},
      {"\"\xE2\x82\"", "\"" FFFD FFFD "\""},
      {"\"M\xFCller\"", "\"M" FFFD "ller\""},
      {"{\"\xFF\":1}", "{\"" FFFD "\":1}"},
      {"\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\xED\x9F\xBF\xEE\x80\x80\xF4\x8F\xBF\xBF\"",
       "\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\xED\x9F\xBF\xEE\x80\x80\xF4\x8F\xBF\xBF\""},
  };
  for (size_t i = 0; i < COUNT(rows); i++)
    assert_read(rows[i][0], rows[i][1]);
}

static void nuls_become_another_control_character(void **state)
{
  (void)state;
  assert_bytes_read(BYTES("\"a\0b\""), "\"a\\u0001b\"");
  assert_bytes_read(BYTES("{\0\"a\":1}"), "{\"a\":1}");
  assert_read("\"a\\u0000b\"", "\"a\\u0001b\"");
  assert_read("\"a\\\\u0000b\"", "\"a\\\\u0000b\"");
  assert_read("\"a\\\\\\u0000b\"", "\"a\\\\\\u0001b\"");
  assert_read("{\"\\u0000\":1}", "{\"\\u0001\":1}");
}

static void escapes(void **state)
{
  (void)state;
  assert_read("\"\\\"\\\\\\/\\u0041\\u00e9\\u00E9\"", "\"\\\"\\\\/A\xC3\xA9\xC3\xA9\"");
  assert_read("\"\\b\\f\\n\\r\\t\"", "\"\\u0008\\u000c\\u000a\\u000d\\u0009\"");
  assert_read("\"\\ud800\\udc00\\udbff\\udfff\"", "\"\xF0\x90\x80\x80\xF4\x8F\xBF\xBF\"");
  assert_read("\"\\ud7ff\\ue000\"", "\"\xED\x9F\xBF\xEE\x80\x80\"");
  assert_read("\"\\ud83d\\ude00\"", "\"\xF0\x9F\x98\x80\"");
  /* raw control characters are against the grammar, and harmless */
  assert_read("\"a\nb\tc\x7F\"", "\"a\\u000ab\\u0009c\x7F\"");
}

static void lone_surrogates_are_repaired(void **state)
{
  (void)state;
  assert_read("\"\\ud800\"", "\"" FFFD "\"");
  assert_read("\"\\uDFFF\"", "\"" FFFD "\"");
  assert_read("\"\\ud800x\"", "\"" FFFD "x\"");
  assert_read("\"\\ud800xudc00\"", "\"" FFFD "xudc00\"");
  assert_read("\"\\ud800\\\\dc00\"", "\"" FFFD "\\\\dc00\"");
  assert_read("\"\\ud800\\n\"", "\"" FFFD "\\u000a\"");
  assert_read("\"\\ud800\\u0041\"", "\"" FFFD "A\"");
  assert_read("\"\\ud800\\ud83d\\ude00\"", "\"" FFFD "\xF0\x9F\x98\x80\"");
  assert_read("\"\\ude00\\ud83d\"", "\"" FFFD FFFD "\"");
  assert_read("\"\\ud800\\\\udc00\"", "\"" FFFD "\\\\udc00\"");
}

static void unknown_escapes_stand_for_themselves(void **state)
{
  (void)state;
  assert_read("\"\\x41\"", "\"\\\\x41\"");
  assert_read("\"\\u12\"", "\"\\\\u12\"");
  assert_read("\"\\u12g4\"", "\"\\\\u12g4\"");
  assert_read("\"it\\'s\"", "\"it\\\\'s\"");
  assert_read("\"\\\xC3\xA9\"", "\"\\\\\xC3\xA9\"");
  assert_bytes_read(BYTES("\"\\\0\""), "\"\\\\\\u0001\"");
}

static void numbers_keep_their_value(void **state)
{
  (void)state;
  static const char *const same[] = {
      "0",
      "-0",
      "1",
      "-1",
      "3600",
      "1700000000123",
      "9007199254740992",
      "10000000000000000",
      "123456789012345680",
      "-300000000000000000000",
      "0.1",
      "0.3",
      "1.5",
      "-12.5",
      "1700000000.123",
      "0.000001",
      "0.30000000000000004",
      "1e-7",
      "1e21",
      "-1.5e300",
      "5e-324",
      "1.7976931348623157e308",
      /* not held by a double: their text is kept */
      "12345678901234567890",
      "9007199254740993",
      "0.1234567890123456789",
      "1e400",
      "-1E+400",
      "1e-400",
      "0.10000000000000001",
      "1.0000000000000000000000000000000000000000000000000000000000000000000000001",
      "100000000000000000000000000000000000000000000000000000000000000000000000000001",
      "1e99999999999999999999",
  };
  for (size_t i = 0; i < COUNT(same); i++) {
    char nested[200];
    assert_read(same[i], same[i]);
    snprintf(nested, sizeof nested, "{\"a\":[%s,\"b\"]}", same[i]);
    assert_read(nested, nested);
  }
  assert_read("1e15", "1000000000000000");
  assert_read("1e20", "100000000000000000000");
  assert_read("3600.0", "3600");
  assert_read("1.50E+02", "150");
  assert_read("0.0e5", "0");
  assert_read("1.00000000000000000000000000000000000000000000000000000000000000000000000", "1");
  /* against the grammar, and clear enough */
  assert_read("007", "7");
  assert_read("[1.,2]", "[1,2]");
  assert_read("[012345678901234567890,12345678901234567890.]", "[12345678901234567000,12345678901234567000]");
}

static void numbers_that_do_not_fit_are_raw(void **state)
{
  (void)state;
  double value;
  cJSON *tree = read_text("{\"id\":12345678901234567890,\"huge\":1e400,\"plain\":3600.5}");
  assert_true(cJSON_IsRaw(cJSON_GetObjectItemCaseSensitive(tree, "id")));
  assert_true(cJSON_IsRaw(cJSON_GetObjectItemCaseSensitive(tree, "huge")));
  assert_true(cJSON_IsNumber(cJSON_GetObjectItemCaseSensitive(tree, "plain")));
  assert_true(json_number(tree, "id", &value) && value == 12345678901234567890.0);
  assert_true(json_number(tree, "huge", &value) && isinf(value) && value > 0);
  assert_true(json_number(tree, "plain", &value) && value == 3600.5);
  json_free(tree);
}

static void forged_number_marks_inject_nothing(void **state)
{
  (void)state;
  assert_read("\"\xFF"
              "123\"",
              "\"" FFFD "123\"");
  assert_read("[\"\xFF,1],[\\\"\",2]", "[\"" FFFD ",1],[\\\"\",2]");
  assert_read("\"\\u00ff1\"", "\"\xC3\xBF"
                              "1\"");
  assert_read("{\"\xFF"
              "1\":\"\xFF\"}",
              "{\"" FFFD "1\":\"" FFFD "\"}");
  assert_null(read_text("{12345678901234567890:1}"));
  assert_null(read_text("{1:1}"));
}

static void words_of_python(void **state)
{
  (void)state;
  assert_read("{\"a\":NaN,\"b\":Infinity,\"c\":-Infinity}", "{\"a\":null,\"b\":null,\"c\":null}");
}

static void incomplete_or_senseless_text_is_no_value(void **state)
{
  (void)state;
  static const char *const rows[] = {
      "",
      " ",
      "\xEF\xBB\xBF",
      "<html></html>",
      "OK",
      "{",
      "[",
      "\"",
      "{\"a\"",
      "{\"a\":",
      "{\"a\":1",
      "{\"a\":1,",
      "{\"a\":1,}",
      "[1",
      "[1,",
      "[1,]",
      "[,1]",
      "[1 2]",
      "{\"a\":1 \"b\":2}",
      "{\"a\" 1}",
      "{a:1}",
      "{'a':1}",
      "\"abc",
      "\"abc\\",
      "\"abc\\\"",
      "\"\\u",
      "\"\\u00",
      "{:1}",
      "tru",
      "nul",
      "nan",
      "-",
      "+1",
      ".5",
      "[0x10]",
      "[1e]",
      "[1e+]",
      "[--1]",
      "]",
      "}",
      ",",
      ":",
      "{\"access_token\":\"at\",\"refresh_to",
      "{\"a\":tru}",
      "[truefalse]",
  };
  for (size_t i = 0; i < COUNT(rows); i++)
    if (read_text(rows[i]))
      fail_msg("read as a value: %s", rows[i]);
}

static void whole_text_allows_only_space_behind(void **state)
{
  (void)state;
  static const char *const refused[] = {"{}x", "{}{}", "{},", "1 2", "{}\x01", "{}\xFF"};
  for (size_t i = 0; i < COUNT(refused); i++)
    assert_null(json_read_whole(refused[i], strlen(refused[i])));
  assert_null(json_read_whole(BYTES("{}\0")));
  cJSON *tree = json_read_whole(BYTES("\xEF\xBB\xBF {\"a\":1} \r\n\t"));
  assert_tree(tree, "{\"a\":1}");
  json_free(tree);
}

static cJSON *read_nested(size_t depth)
{
  char *text = malloc(2 * depth);
  assert_non_null(text);
  memset(text, '[', depth);
  memset(text + depth, ']', depth);
  cJSON *tree = json_read(text, 2 * depth);
  free(text);
  return tree;
}

static void nesting_is_limited(void **state)
{
  (void)state;
  cJSON *tree = read_nested(CJSON_NESTING_LIMIT);
  assert_non_null(tree);
  json_free(tree);
  assert_null(read_nested(CJSON_NESTING_LIMIT + 1));
  assert_null(read_nested(500000));
}

static void doubles_are_written_exactly(void **state)
{
  (void)state;
  static const double values[] = {
      0.1 + 0.2,          1.0 / 3,           2.0 / 3, DBL_MAX, DBL_MIN, DBL_EPSILON, -0.0, 5e-324, 1e22, 1e23, 123456.7,
      9007199254740991.0, 1700000000.1234567};
  for (size_t i = 0; i < COUNT(values); i++) {
    double value = 0;
    cJSON *tree = cJSON_CreateObject();
    assert_true(json_set_number(tree, "a", values[i]));
    char *text = json_write(tree);
    json_free(tree);
    tree = read_text(text);
    assert_true(json_number(tree, "a", &value));
    assert_memory_equal(&value, &values[i], sizeof value);
    secret_free(text);
    json_free(tree);
  }
}

static void numbers_that_json_cannot_say_are_null(void **state)
{
  (void)state;
  cJSON *tree = cJSON_CreateObject();
  assert_true(json_set_number(tree, "a", INFINITY));
  assert_true(json_set_number(tree, "b", NAN));
  assert_tree(tree, "{\"a\":null,\"b\":null}");
  json_free(tree);
}

static void numeric_strings_are_numbers(void **state)
{
  (void)state;
  static const struct {
    const char *json;
    double value;
  } rows[] = {
      {"3600", 3600},
      {"3600.0", 3600},
      {"\"3600\"", 3600},
      {"\"3600.5\"", 3600.5},
      {"\" 3600\\n\"", 3600},
      {"\"-5\"", -5},
      {"\"1e3\"", 1000},
      {"1e3", 1000},
      {"\"0.25\"", 0.25},
      {"\"1e400\"", INFINITY},
      {"-1e400", -INFINITY},
      {"1e-400", 0},
      {"360000", 360000},
      {"-9e14", -900000000000000.0},
      {"1e15", 1e15},
      {"12e15", 1.2e16},
      {"9007199254740993e3", 9007199254740993e3},
      {"\"007\"", 7},
      {"0.1234567890123456789", 0.1234567890123456789},
      {"\"0.30000000000000004\"", 0.1 + 0.2},
      {"\"179769313486231570814527423731704356798070567525844996598917\"",
       179769313486231570814527423731704356798070567525844996598917.0},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    char text[200];
    double value = NAN;
    snprintf(text, sizeof text, "{\"n\":%s}", rows[i].json);
    cJSON *tree = read_text(text);
    if (!json_number(tree, "n", &value) || value != rows[i].value)
      fail_msg("%s is read as %.17g", text, value);
    json_free(tree);
  }
}

static void other_values_are_no_numbers(void **state)
{
  (void)state;
  static const char *const rows[] = {
      "\"soon\"",     "\"\"",    "\" \"",   "\"0x10\"", "\"inf\"", "\"nan\"", "\"infinity\"",
      "\"3600s\"",    "\"1 2\"", "\"1,5\"", "\".\"",    "\"-\"",   "\"+1\"",  "\"1e\"",
      "\"1\\u0000\"", "true",    "false",   "null",     "[3600]",  "{}",
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    char text[100];
    double value = 42;
    snprintf(text, sizeof text, "{\"n\":%s}", rows[i]);
    cJSON *tree = read_text(text);
    assert_non_null(tree);
    if (json_number(tree, "n", &value) || value != 42)
      fail_msg("%s passes for a number", text);
    assert_false(json_number(tree, "absent", &value));
    json_free(tree);
  }
  double value;
  assert_false(json_number(NULL, "n", &value));
}

static void strings_and_names(void **state)
{
  (void)state;
  cJSON *tree = read_text("{\"a\":\"x\",\"A\":\"y\",\"n\":1,\"raw\":1e400,\"null\":null}");
  assert_string_equal(json_string(tree, "a"), "x");
  assert_string_equal(json_string(tree, "A"), "y");
  assert_null(json_string(tree, "n"));
  assert_null(json_string(tree, "raw"));
  assert_null(json_string(tree, "null"));
  assert_null(json_string(tree, "absent"));
  assert_null(json_string(NULL, "a"));
  json_free(tree);
  tree = read_text("[1]");
  assert_null(json_string(tree, "a"));
  json_free(tree);
}

static void members_are_set_in_place(void **state)
{
  (void)state;
  cJSON *tree = read_text("{\"a\":1,\"b\":{\"x\":[1]},\"c\":3}");
  assert_true(json_set_string(tree, "b", "\"new\""));
  assert_tree(tree, "{\"a\":1,\"b\":\"\\\"new\\\"\",\"c\":3}");
  assert_true(json_set_number(tree, "c", 4.5));
  assert_true(json_set_number(tree, "a", 0));
  assert_true(json_set(tree, "A", cJSON_CreateArray()));
  assert_tree(tree, "{\"a\":0,\"b\":\"\\\"new\\\"\",\"c\":4.5,\"A\":[]}");
  assert_true(json_set_string(tree, "b", json_string(tree, "b")));
  assert_tree(tree, "{\"a\":0,\"b\":\"\\\"new\\\"\",\"c\":4.5,\"A\":[]}");
  assert_false(json_set(tree, "a", NULL));
  json_remove(tree, "a");
  json_remove(tree, "A");
  json_remove(tree, "absent");
  assert_tree(tree, "{\"b\":\"\\\"new\\\"\",\"c\":4.5}");
  json_remove(tree, "c");
  json_remove(tree, "b");
  assert_tree(tree, "{}");
  assert_true(json_set_string(tree, "b", "again"));
  assert_tree(tree, "{\"b\":\"again\"}");
  json_free(tree);
}

static void nothing_is_written_of_nothing(void **state)
{
  (void)state;
  assert_null(json_write(NULL));
  json_free(NULL);
}

static void decimal_comma_of_the_locale_does_not_matter(void **state)
{
  static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "de_DE", "fr_FR.UTF-8", "ps_AF"};
  double value;
  bool found = false;
  for (size_t i = 0; i < COUNT(names) && !found; i++)
    found = setlocale(LC_NUMERIC, names[i]) && strcmp(localeconv()->decimal_point, ".") != 0;
  if (!found)
    skip(); /* musl has no decimal comma */
  cJSON *tree = read_text("{\"a\":3600.5,\"b\":\"3600.5\",\"c\":\"3600,5\",\"d\":-1.5e-9}");
  assert_true(json_number(tree, "a", &value) && value == 3600.5);
  assert_true(json_number(tree, "b", &value) && value == 3600.5);
  assert_false(json_number(tree, "c", &value));
  assert_true(json_set_number(tree, "e", -0.1234567890123456));
  assert_tree(tree, "{\"a\":3600.5,\"b\":\"3600.5\",\"c\":\"3600,5\",\"d\":-1.5e-9,\"e\":-0.1234567890123456}");
  json_free(tree);
  numbers_keep_their_value(state);
  doubles_are_written_exactly(state);
}

static int restore_locale(void **state)
{
  (void)state;
  return setlocale(LC_NUMERIC, "C") ? 0 : -1;
}

/* The chain of the members holds, wherever one is replaced. */
static void a_member_may_be_replaced_anywhere(void **state)
{
  static const char *const names[] = {"a", "b", "c"};
  (void)state;
  for (int count = 1; count <= 3; count++)
    for (int replaced = 0; replaced < count; replaced++) {
      cJSON *tree = json_read_whole("{}", 2);
      char expected[80] = "{";
      for (int i = 0; i < count; i++) {
        assert_true(json_set_string(tree, names[i], "old"));
        snprintf(expected + strlen(expected), 20, "\"%s\":\"%s\",", names[i], i == replaced ? "new" : "old");
      }
      assert_true(json_set_string(tree, names[replaced], "new"));
      assert_true(json_set_string(tree, "last", "added"));
      strcat(expected, "\"last\":\"added\"}");
      char *text = json_write(tree);
      assert_string_equal(text, expected);
      secret_free(text);
      json_remove(tree, names[replaced]);
      assert_null(json_string(tree, names[replaced]));
      assert_string_equal(json_string(tree, "last"), "added");
      json_free(tree);
    }
}

/* Memory that cJSON gets and gives back, counted, refused at will, and searched for SECRET when it is freed. */
#define SECRET "s3cr3t-t0k3n"

static struct {
  int live, allocations, fail_at, found;
} memory;

static void *counting_malloc(size_t size)
{
  if (++memory.allocations == memory.fail_at)
    return NULL;
  size_t *block = malloc(sizeof(max_align_t) + size);
  assert_non_null(block);
  *block = size;
  memory.live++;
  return (char *)block + sizeof(max_align_t);
}

static void searching_free(void *pointer)
{
  if (!pointer)
    return;
  char *block = (char *)pointer - sizeof(max_align_t);
  size_t size = *(size_t *)(void *)block;
  for (size_t i = 0; i + sizeof SECRET - 1 <= size; i++)
    memory.found += memcmp((char *)pointer + i, SECRET, sizeof SECRET - 1) == 0;
  memory.live--;
  free(block);
}

static int watch_memory(void **state)
{
  (void)state;
  cJSON_Hooks hooks = {counting_malloc, searching_free};
  memset(&memory, 0, sizeof memory);
  cJSON_InitHooks(&hooks);
  return 0;
}

static int unwatch_memory(void **state)
{
  (void)state;
  cJSON_InitHooks(NULL);
  return 0;
}

static void secrets_are_wiped_before_memory_is_freed(void **state)
{
  (void)state;
  static const char text[] = "{\"access_token\":\"" SECRET "\",\"access_token\":\"x" SECRET "\",\"deep\":[{\"" SECRET
                             "\":1e400}],\"n\":1,\"refresh_token\":\"" SECRET "\"}";
  cJSON *tree = read_text(text);
  assert_non_null(tree);
  assert_true(json_set_string(tree, "access_token", "other " SECRET));
  assert_true(json_set_number(tree, "deep", 1));
  json_remove(tree, "refresh_token");
  json_free(tree);
  assert_int_equal(memory.found, 0);
  assert_int_equal(memory.live, 0);
  /* nothing of a torn text ever reaches cJSON, whose parser would free its half of a tree as it is */
  memory.allocations = 0;
  for (size_t length = 0; length < sizeof text - 1; length++)
    assert_null(json_read(text, length));
  assert_int_equal(memory.allocations, 0);
}

static void memory_may_run_out_anywhere(void **state)
{
  (void)state;
  cJSON *tree = NULL;
  int attempts = 0;
  for (; !tree; attempts++) {
    memory.allocations = 0;
    memory.fail_at = attempts + 1;
    tree = read_text("{\"a\":[1,1e400,\"x\"],\"a\":{\"b\":null}}");
    assert_int_equal(tree == NULL, memory.allocations >= memory.fail_at);
    assert_true(tree || memory.live == 0);
  }
  assert_true(attempts > 10);
  assert_tree(tree, "{\"a\":{\"b\":null}}");
  json_free(tree);
  assert_int_equal(memory.live, 0);
}

static void failed_set_leaves_the_object_unchanged(void **state)
{
  (void)state;
  cJSON *tree = read_text("{\"a\":1,\"b\":2}");
  bool set = false;
  int attempts = 0;
  for (; !set; attempts++) {
    memory.allocations = 0;
    memory.fail_at = attempts + 1;
    set = json_set_string(tree, "a", "new");
    memory.fail_at = 0;
    assert_tree(tree, set ? "{\"a\":\"new\",\"b\":2}" : "{\"a\":1,\"b\":2}");
  }
  assert_true(attempts > 2);
  json_free(tree);
  assert_int_equal(memory.live, 0);
}

#define WATCHED(test) cmocka_unit_test_setup_teardown(test, watch_memory, unwatch_memory)

/* Files that an earlier release has written hold some of them. */
static void hashes_are_the_published_ones(void **state)
{
  (void)state;
  assert_true(hash_bytes("", 0) == UINT64_C(0xcbf29ce484222325));
  assert_true(hash_bytes("a", 1) == UINT64_C(0xaf63dc4c8601ec8c));
  assert_true(hash_bytes("foobar", 6) == UINT64_C(0x85944171f73967e8));
  assert_true(hash_bytes("\0\xFF", 2) != hash_bytes("\0", 1));
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(values_of_every_type),
      cmocka_unit_test(byte_order_mark_and_junk_behind),
      cmocka_unit_test(last_duplicate_wins_at_every_depth),
      cmocka_unit_test(many_duplicates_take_no_time),
      cmocka_unit_test(broken_utf8_becomes_replacement_characters),
      cmocka_unit_test(nuls_become_another_control_character),
      cmocka_unit_test(escapes),
      cmocka_unit_test(lone_surrogates_are_repaired),
      cmocka_unit_test(unknown_escapes_stand_for_themselves),
      cmocka_unit_test(numbers_keep_their_value),
      cmocka_unit_test(numbers_that_do_not_fit_are_raw),
      cmocka_unit_test(forged_number_marks_inject_nothing),
      cmocka_unit_test(words_of_python),
      cmocka_unit_test(a_member_may_be_replaced_anywhere),
      cmocka_unit_test(incomplete_or_senseless_text_is_no_value),
      cmocka_unit_test(whole_text_allows_only_space_behind),
      cmocka_unit_test(nesting_is_limited),
      cmocka_unit_test(doubles_are_written_exactly),
      cmocka_unit_test(numbers_that_json_cannot_say_are_null),
      cmocka_unit_test(numeric_strings_are_numbers),
      cmocka_unit_test(other_values_are_no_numbers),
      cmocka_unit_test(strings_and_names),
      cmocka_unit_test(members_are_set_in_place),
      cmocka_unit_test(nothing_is_written_of_nothing),
      cmocka_unit_test_teardown(decimal_comma_of_the_locale_does_not_matter, restore_locale),
      WATCHED(secrets_are_wiped_before_memory_is_freed),
      WATCHED(memory_may_run_out_anywhere),
      WATCHED(failed_set_leaves_the_object_unchanged),
      cmocka_unit_test(hashes_are_the_published_ones),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
