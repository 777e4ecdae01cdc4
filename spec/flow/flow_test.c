/* The refresh flow, step by step, with every outcome of every step in the test's hand. */
#include "../../src/base/secret.h"
#include "../../src/flow/flow.h"
#include "../../src/oauth/given.h"
#include "../../src/oauth/token.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW 1000000.0
#define HOUR 3600.0

/* ---- the world of a test ---- */

static int zone_looks; /* the first one reads the disk */

static bool to_local(double epoch, struct civil *local)
{
  zone_looks++;
  *local = (struct civil){.year = 2020, .month = 1, .day = 1, .second = (int)fmod(epoch, 60)};
  return true;
}

static double from_local(const struct civil *local)
{
  (void)local;
  return NAN;
}

/* Enough to tell the tests' tokens apart. */
static void digest(const void *data, size_t size, unsigned char out[32])
{
  const unsigned char *bytes = data;
  for (size_t i = 0; i < 32; i++)
    out[i] = (unsigned char)(i < size ? bytes[i] : size);
}

struct driver {
  struct flow_settings settings;
  struct flow *flow;
  struct moment now;
  char *stored;            /* NULL: nothing */
  char steps[400];         /* what was asked, in one word each */
  struct reply replies[8]; /* for the POSTs, in turn; the last one is repeated */
  int posts, waits, busy, failing_saves, failing_loads;
  struct reply says; /* to every introspection, if it says anything; else `replies` do, in turn */
  const char *spent; /* that the storage knows of by itself */
  const uint64_t *rejected;
  const char *lock;  /* what tells the lock from others */
  int removed_locks; /* marks that are saved under a lock that is gone */
  const char *reads; /* what a storage that lies gives back for LOADs after a mark; "": nothing */
  int lies;          /* so many of them */
  int introspections;
  bool unreadable_later; /* once introspection was asked */
  double freezes;        /* seconds that the process is stopped behind the first mark */
  double saving;         /* seconds that a save takes, and is not a mark's */
  double unlocking;      /* that the unlock takes */
  int fails_after_mark;  /* saves that fail and are not a mark's */
  int forgotten;         /* saves that do nothing, and are not a mark's */
  const char *appears;   /* what another writer stores at the first WAIT */
  const char *intrudes;  /* and just before the first SAVE that is not a mark */
  double waited;
  char body[400];    /* of the last POST */
  const char *given; /* what a login gave */
  bool replaces;     /* and is to take the place of a grant that lives */
  int announcements;
};

static const struct reply ok_reply = {.delivery = REPLY_RECEIVED,
                                      .whole = true,
                                      .status = 200,
                                      .body = "{\"access_token\":\"A2\",\"refresh_token\":\"R2\",\"expires_in\":3600}",
                                      .length = 62};
static const struct reply lost = {.delivery = REPLY_LOST, .error = "connection reset"};
static const struct reply not_sent = {.delivery = REPLY_NOT_SENT, .error = "connection refused"};

static const struct reply alive_reply = {
    .delivery = REPLY_RECEIVED, .status = 200, .body = "{\"active\":true}", .length = 15};
static const struct reply dead_reply = {
    .delivery = REPLY_RECEIVED, .status = 200, .body = "{\"active\":false}", .length = 16};

static struct reply answer(int status, const char *body)
{
  return (struct reply){
      .delivery = REPLY_RECEIVED, .whole = true, .status = status, .body = body, .length = strlen(body)};
}

static void store(struct driver *driver, const char *text)
{
  free(driver->stored);
  driver->stored = text ? strdup(text) : NULL;
}

static int set_up(void **state)
{
  struct driver *driver = calloc(1, sizeof *driver);
  zone_looks = 0;
  driver->settings =
      (struct flow_settings){.credentials = {.client_id = "cid", .client_secret = "hush"},
                             .storage = "the storage",
                             .refresh_before = 300,
                             .refresh_wait = 2,
                             .timeout = 30,
                             .lock_timeout = 60,
                             .default_lifetime = HOUR,
                             .introspection = true,
                             .pid = 42,
                             .host = "here",
                             .world = {.to_local = to_local, .from_local = from_local, .sha256 = digest}};
  driver->now = (struct moment){.wall = NOW, .steady = 50};
  driver->flow = flow_new(&driver->settings, 1);
  driver->replies[0] = ok_reply;
  *state = driver;
  return 0;
}

static int tear_down(void **state)
{
  struct driver *driver = *state;
  flow_free(driver->flow);
  free(driver->stored);
  free(driver);
  return 0;
}

static const char *record(const char *access, const char *refresh, double expires_at)
{
  static char text[4][300];
  static int turn;
  char *out = text[turn++ % 4];
  snprintf(out, 300,
           "{\"access_token\":\"%s\",\"refresh_token\":\"%s\",\"expires_at\":%.0f,\"obtained_at\":%.0f,\"extra\":[1]}",
           access, refresh, expires_at, expires_at - HOUR);
  return out;
}

static const char *marked(const char *refresh)
{
  static char text[600];
  unsigned char bytes[32];
  char hash[65];
  digest(refresh, strlen(refresh), bytes);
  for (int i = 0; i < 32; i++)
    snprintf(hash + 2 * i, 3, "%02x", bytes[i]);
  snprintf(text, sizeof text,
           "{\"access_token\":\"A1\",\"refresh_token\":\"%s\",\"expires_at\":%.0f,\"pending\":"
           "{\"refresh_token_sha256\":\"%s\",\"since\":999990,\"pid\":7,\"host\":\"elsewhere\"}}",
           refresh, NOW + HOUR, hash);
  return text;
}

/* ---- carrying out ---- */

static void log_step(struct driver *driver, const char *word)
{
  strncat(driver->steps, *driver->steps ? " " : "", sizeof driver->steps - strlen(driver->steps) - 1);
  strncat(driver->steps, word, sizeof driver->steps - strlen(driver->steps) - 1);
}

static void fail_event(struct flow_event *event)
{
  event->result = FLOW_FAILED;
  event->code = CODE_STORAGE;
  event->text = "The disk is full.";
}

static void do_load(struct driver *driver, struct flow_event *event)
{
  log_step(driver, "load");
  event->spent = driver->spent;
  event->rejected = driver->rejected;
  bool lies = driver->reads && driver->lies > 0 && strstr(driver->steps, "mark");
  if (lies) {
    driver->lies--;
    event->result = *driver->reads ? FLOW_OK : FLOW_NONE;
    event->text = *driver->reads ? driver->reads : NULL;
  } else if (driver->unreadable_later && driver->introspections > 0) {
    fail_event(event);
  } else if (driver->failing_loads > 0) {
    driver->failing_loads--;
    fail_event(event);
  } else if (!driver->stored) {
    event->result = FLOW_NONE;
  } else {
    event->text = driver->stored;
  }
}

static void pass(struct driver *driver, double seconds)
{
  driver->now.wall += seconds;
  driver->now.steady += seconds;
}

static void do_save(struct driver *driver, const struct flow_action *action, struct flow_event *event)
{
  if (driver->intrudes && !action->spends) {
    log_step(driver, "changed");
    store(driver, driver->intrudes);
    driver->intrudes = NULL;
    event->result = FLOW_CHANGED;
    return;
  }
  log_step(driver, action->spends ? "mark" : "save");
  if (driver->failing_saves > 0 || (!action->spends && driver->fails_after_mark > 0)) {
    driver->failing_saves -= driver->failing_saves > 0;
    driver->fails_after_mark -= !action->spends;
    fail_event(event);
  } else if (!action->spends && driver->forgotten > 0) {
    driver->forgotten--;
  } else {
    store(driver, action->record);
    driver->announcements += action->announces;
    if (!action->spends)
      pass(driver, driver->saving);
    if (action->spends) {
      pass(driver, driver->freezes);
      driver->freezes = 0;
    }
    if (action->spends && driver->removed_locks-- > 0)
      event->result = FLOW_BUSY;
  }
}

static void do_post(struct driver *driver, const struct flow_action *action, struct flow_event *event)
{
  int last = 0;
  while (last + 1 < 8 && (driver->replies[last + 1].status || driver->replies[last + 1].error))
    last++;
  log_step(driver, action->request->endpoint == REQUEST_TOKEN ? "post" : "introspect");
  assert_true(zone_looks > 0 || action->request->endpoint != REQUEST_TOKEN);
  driver->introspections += action->request->endpoint == REQUEST_INTROSPECTION;
  if (action->request->endpoint == REQUEST_INTROSPECTION && driver->says.status) {
    event->reply = &driver->says;
    return;
  }
  snprintf(driver->body, sizeof driver->body, "%s", action->request->body);
  event->reply = &driver->replies[driver->posts < last ? driver->posts : last];
  driver->posts++;
}

static void do_wait(struct driver *driver, const struct flow_action *action)
{
  log_step(driver, "wait");
  driver->waits++;
  driver->waited += action->seconds;
  pass(driver, action->seconds);
  if (driver->appears)
    store(driver, driver->appears);
  driver->appears = NULL;
}

static struct flow_event carry_out(struct driver *driver, const struct flow_action *action)
{
  struct flow_event event = {.result = FLOW_OK};
  if (action->step == FLOW_LOAD)
    do_load(driver, &event);
  else if (action->step == FLOW_SAVE)
    do_save(driver, action, &event);
  else if (action->step == FLOW_POST)
    do_post(driver, action, &event);
  else if (action->step == FLOW_WAIT)
    do_wait(driver, action);
  else if (action->step == FLOW_HOLD)
    log_step(driver, "hold");
  else if (action->step == FLOW_UNLOCK) {
    log_step(driver, "unlock");
    pass(driver, driver->unlocking);
  } else if (action->step == FLOW_LOCK) {
    log_step(driver, "lock");
    event.result = driver->busy-- > 0 ? FLOW_BUSY : FLOW_OK;
    event.text = driver->lock;
  }
  event.now = driver->now;
  return event;
}

static void start(struct driver *driver, enum flow_goal goal)
{
  flow_start(driver->flow, goal, driver->now, driver->now.steady + driver->settings.timeout);
  if (goal == FLOW_STORE) {
    struct answer given;
    const struct answer_context context = {.now = driver->now.wall, .default_lifetime = HOUR};
    assert_null(given_read(&given, driver->given, strlen(driver->given), &context));
    flow_give(driver->flow, &given, driver->replaces);
  }
}

static const struct flow_outcome *fly(struct driver *driver, enum flow_goal goal)
{
  driver->steps[0] = '\0';
  driver->posts = driver->waits = driver->introspections = 0;
  driver->waited = 0;
  start(driver, goal);
  struct flow_event event = {.now = driver->now};
  struct flow_action action = flow_next(driver->flow, &event);
  for (int i = 0; action.step != FLOW_DONE; i++) {
    assert_true(i < 5000);
    event = carry_out(driver, &action);
    action = flow_next(driver->flow, &event);
  }
  return flow_outcome(driver->flow);
}

static const struct flow_outcome *token(struct driver *driver)
{
  return fly(driver, FLOW_TOKEN);
}

static void start_anew(struct driver *driver)
{
  flow_free(driver->flow);
  driver->flow = flow_new(&driver->settings, 1);
}

static void check_token(const struct flow_outcome *outcome, const char *expected)
{
  assert_string_equal(outcome->message, "");
  assert_int_equal(outcome->code, CODE_OK);
  assert_string_equal(outcome->token, expected);
}

static void check_failure(const struct flow_outcome *outcome, enum code code, const char *part)
{
  assert_null(outcome->token);
  assert_string_equal(code_name(outcome->code), code_name(code));
  assert_non_null(strstr(outcome->message, part));
  assert_null(strstr(outcome->message, "hush"));
}

static bool noted(const struct flow_outcome *outcome, enum flow_note_kind kind)
{
  for (int i = 0; i < outcome->note_count; i++)
    if (outcome->notes[i].kind == kind)
      return true;
  return false;
}

static void check_trouble(const struct driver *driver, enum code code, const char *part)
{
  struct flow_status status = flow_status(driver->flow);
  assert_string_equal(code_name(status.last_code), code_name(code));
  assert_non_null(strstr(status.last_error, part));
}

/* ---- the straight way ---- */

static void a_fresh_record_is_served_without_a_lock(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW + HOUR));
  const struct flow_outcome *outcome = token(driver);
  check_token(outcome, "A1");
  assert_string_equal(driver->steps, "load");
  assert_true(outcome->refresh_at.wall == NOW + HOUR - 300);
  assert_true(outcome->dead_at.wall == NOW + HOUR);
  assert_true(outcome->refresh_at.steady == driver->now.steady + HOUR - 300);
  assert_true(outcome->dead_at.steady == driver->now.steady + HOUR);
}

static void an_expired_record_is_refreshed_under_the_lock(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  const struct flow_outcome *outcome = token(driver);
  check_token(outcome, "A2");
  assert_string_equal(driver->steps, "load lock load hold mark post save unlock");
  assert_non_null(strstr(driver->body, "\"refresh_token\":\"R1\""));
  assert_non_null(strstr(driver->stored, "\"refresh_token\":\"R2\""));
  assert_non_null(strstr(driver->stored, "\"extra\":[1]"));
  assert_null(strstr(driver->stored, "pending"));
  assert_true(noted(outcome, FLOW_REFRESHED));
  check_token(token(driver), "A2");
  assert_string_equal(driver->steps, "load");
}

static void a_refresh_starts_ahead_of_the_expiry(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW + 299));
  check_token(token(driver), "A2");
}

static void an_empty_storage_starts_from_the_configured_token(void **state)
{
  struct driver *driver = *state;
  driver->says = alive_reply;
  driver->settings.refresh_token = "R0";
  check_token(token(driver), "A2");
  assert_string_equal(driver->steps, "load lock load introspect hold mark post save unlock");
  assert_non_null(strstr(driver->body, "\"refresh_token\":\"R0\""));
  assert_non_null(strstr(driver->stored, "\"origin\""));
}

static void without_any_refresh_token_the_message_says_what_to_set(void **state)
{
  struct driver *driver = *state;
  check_failure(token(driver), CODE_CONFIG, "LUCID_REFRESH_TOKEN (or the option refresh_token)");
}

static void without_a_client_id_a_good_token_is_served_and_a_refresh_is_not_tried(void **state)
{
  struct driver *driver = *state;
  driver->settings.credentials.client_id = NULL;
  store(driver, record("A1", "R1", NOW + HOUR));
  check_token(token(driver), "A1");
  store(driver, record("A1", "R1", NOW - 1));
  check_failure(token(driver), CODE_CONFIG, "LUCID_CLIENT_ID (option client_id)");
  assert_string_equal(driver->steps, "load");
}

static void what_another_process_refreshed_is_adopted_under_the_lock(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->busy = 1;
  driver->appears = record("A9", "R9", NOW + HOUR);
  check_token(token(driver), "A9");
  assert_string_equal(driver->steps, "load lock wait load");
  assert_int_equal(driver->posts, 0);
}

static void refresh_asks_for_a_new_token_whatever_the_expiry(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW + HOUR));
  check_token(token(driver), "A1");
  check_token(fly(driver, FLOW_REFRESH), "A2");
  assert_int_equal(driver->posts, 1);
}

/* ---- locks ---- */

static void a_busy_lock_is_waited_for_only_briefly_while_the_token_lives(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW + 100));
  driver->busy = 100000;
  double began = driver->now.steady;
  check_token(token(driver), "A1");
  assert_true(driver->now.steady - began >= 2 && driver->waited < 2.002);
  assert_int_equal(driver->posts, 0);
}

static void a_busy_lock_ends_at_the_callers_deadline(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->busy = 100000;
  double began = driver->now.steady;
  check_failure(token(driver), CODE_TIMEOUT, "another process was refreshing");
  assert_true(driver->now.steady - began >= 30 && driver->waited < 30.002);
}

static void a_lock_that_is_held_for_too_long_is_reported(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->busy = 100000;
  token(driver);
  check_failure(token(driver), CODE_LOCKED, "has been held for 60 seconds by another process");
  check_failure(token(driver), CODE_LOCKED, "end it, and its lock ends with it");
}

/* It may be the only one that has the new tokens. */
static void nobody_is_told_to_kill_a_process_that_refreshes(void **state)
{
  struct driver *driver = *state;
  store(driver, marked("R1"));
  flow_reject(driver->flow, "A1");
  driver->busy = 100000;
  check_failure(token(driver), CODE_TIMEOUT, "process 7 on elsewhere");
  check_failure(token(driver), CODE_LOCKED, "process 7 on elsewhere");
  check_failure(token(driver), CODE_LOCKED, "do not kill it");
}

/* Nobody knows whether who took it still runs, and the lock does not end with it. */
static void a_programs_own_lock_needs_a_lease(void **state)
{
  struct driver *driver = *state;
  driver->settings.reads_back = true;
  store(driver, record("A1", "R1", NOW - 1));
  driver->busy = 100000;
  token(driver);
  for (int marks = 0; marks < 2; marks++) {
    check_failure(token(driver), CODE_LOCKED, "a lock needs a lease");
    assert_null(strstr(flow_outcome(driver->flow)->message, "end it"));
    assert_null(strstr(flow_outcome(driver->flow)->message, "kill"));
    store(driver, marked("R1"));
    flow_reject(driver->flow, "A1");
  }
  assert_non_null(strstr(flow_outcome(driver->flow)->message, "process 7 on elsewhere"));
}

/* ---- a named account ---- */

static void messages_of_a_named_account_name_it(void **state)
{
  static const struct {
    const char *stored, *answer;
    enum code code;
  } cases[] = {
      {"", NULL, CODE_CONFIG},
      {"no record", NULL, CODE_STORAGE},
      {"{\"access_token\":\"A1\",\"expires_at\":1}", NULL, CODE_INVALID_GRANT},
      {"{\"access_token\":\"A1\",\"refresh_token\":\"RA\",\"expires_at\":1,\"server\":\"https://other.example\"}", NULL,
       CODE_CONFIG},
      {"{\"refresh_token\":\"RB\"}", "{\"error\":\"invalid_grant\"}", CODE_INVALID_GRANT},
      {"{\"refresh_token\":\"RC\"}", "{\"error\":\"invalid_client\"}", CODE_INVALID_CLIENT},
  };
  struct driver *driver = *state;
  driver->settings.account = "anna\n";
  driver->settings.token_url = "https://api.lucid.co/oauth2/token";
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    store(driver, *cases[i].stored ? cases[i].stored : NULL);
    if (cases[i].answer)
      driver->replies[0] = answer(400, cases[i].answer);
    check_failure(token(driver), cases[i].code, "account \"anna\\n\"");
    const char *message = flow_outcome(driver->flow)->message;
    assert_null(strstr(message, "takes the dead one's place"));
    assert_true(*message >= 'A' && *message <= 'Z');
  }
  store(driver, "{\"refresh_token\":\"RD\"}");
  driver->busy = 100000;
  token(driver);
  check_failure(token(driver), CODE_LOCKED, "account \"anna\\n\"");
}

/* ---- another app's tokens ---- */

#define OF_APP(refresh_token, app) \
  "{\"access_token\":\"A1\",\"refresh_token\":\"" refresh_token "\",\"expires_at\":1,\"client_id\":" app "}"

static void another_apps_tokens_are_called_so_when_they_are_refused(void **state)
{
  static const char *const refusals[] = {"{\"error\":\"invalid_grant\"}", "{\"error\":\"invalid_client\"}",
                                         "{\"error\":\"unauthorized_client\"}"};
  static const char *const records[] = {OF_APP("Ra", "\"their\\napp\""), OF_APP("Rb", "\"their\\napp\""),
                                        OF_APP("Rc", "\"their\\napp\"")};
  static const char *const ours[] = {OF_APP("Rd", "\"cid\""), OF_APP("Re", "7"), OF_APP("Rf", "\"\""),
                                     OF_APP("hidden-refresh-token", "\"hidden-refresh-token\""),
                                     OF_APP("Rg", "\"hidden-parameter\"")};
  static const char *const parameters[] = {"audience", "hidden-parameter", NULL};
  struct driver *driver = *state;
  for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
    store(driver, records[i]);
    driver->replies[0] = answer(400, refusals[i]);
    token(driver);
    assert_non_null(
        strstr(flow_outcome(driver->flow)->message, "belong to the app their\\napp, and this client is cid"));
  }
  driver->settings.credentials.parameters = parameters;
  for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
    store(driver, ours[i]);
    driver->replies[0] = answer(400, refusals[0]);
    check_failure(token(driver), CODE_INVALID_GRANT, "Log in");
    assert_null(strstr(flow_outcome(driver->flow)->message, "belong to the app"));
  }
}

static void another_apps_tokens_are_not_refused_ahead_of_the_server(void **state)
{
  struct driver *driver = *state;
  store(driver, OF_APP("R1", "\"their app\""));
  check_token(token(driver), "A2");
}

/* ---- storage ---- */

static void a_storage_that_cannot_be_written_costs_no_refresh_token(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->failing_saves = 1;
  check_failure(token(driver), CODE_STORAGE, "The disk is full.");
  assert_string_equal(driver->steps, "load lock load hold mark unlock");
}

static void tokens_that_cannot_be_saved_are_served_and_saved_later(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  token(driver);
  driver->now.wall += HOUR;
  driver->replies[0] = answer(200, "{\"access_token\":\"A3\",\"refresh_token\":\"R3\",\"expires_in\":3600}");
  driver->settings.refresh_before = 0;
  driver->failing_saves = 0;
  struct flow_event event = {.now = driver->now};
  flow_start(driver->flow, FLOW_TOKEN, driver->now, driver->now.steady + 30);
  driver->steps[0] = '\0';
  struct flow_action action = flow_next(driver->flow, &event);
  while (action.step != FLOW_DONE) {
    if (action.step == FLOW_SAVE && !action.spends)
      driver->failing_saves = 1;
    event = carry_out(driver, &action);
    action = flow_next(driver->flow, &event);
  }
  check_token(flow_outcome(driver->flow), "A3");
  assert_string_equal(driver->steps, "load lock load hold mark post save");
  assert_true(noted(flow_outcome(driver->flow), FLOW_SAVE_FAILED));
  assert_true(flow_unsaved(driver->flow));
  check_trouble(driver, CODE_STORAGE, "in this process's memory");
  const struct flow_outcome *outcome = token(driver);
  check_token(outcome, "A3");
  assert_string_equal(driver->steps, "load save unlock");
  assert_true(noted(outcome, FLOW_SAVED));
  assert_false(flow_unsaved(driver->flow));
  assert_non_null(strstr(driver->stored, "R3"));
  check_trouble(driver, CODE_OK, "");
}

/* The mark of the refresh that brought it, with the access token before it, is no newer record. */
static void an_access_token_that_cannot_be_saved_waits_beside_its_own_mark(void **state)
{
  struct driver *driver = *state;
  for (int own = 0; own < 2; own++) {
    start_anew(driver);
    driver->settings.reads_back = own;
    store(driver, record("A1", "R1", NOW - 1));
    driver->replies[0] = answer(200, "{\"access_token\":\"A2\",\"expires_in\":3600}");
    driver->fails_after_mark = 1;
    check_token(token(driver), "A2");
    assert_true(flow_unsaved(driver->flow));
    assert_non_null(strstr(driver->stored, "pending"));
    check_token(token(driver), "A2");
    assert_string_equal(driver->steps, own ? "load save load unlock" : "load save unlock");
    assert_non_null(strstr(driver->stored, "A2"));
    assert_null(strstr(driver->stored, "pending"));
  }
}

static void a_damaged_record_is_left_alone(void **state)
{
  struct driver *driver = *state;
  static const char *const damaged[] = {"", "{", "[]", "null", "{\"a\":1}", "hello", "{\"access_token\":\"\"}"};
  driver->settings.refresh_token = "R0";
  for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++) {
    store(driver, damaged[i]);
    check_failure(token(driver), CODE_STORAGE, "does not hold a token record");
    assert_string_equal(driver->steps, "load wait load wait load wait load");
    assert_string_equal(driver->stored, damaged[i]);
  }
}

static void a_record_that_is_just_being_rewritten_is_waited_for(void **state)
{
  struct driver *driver = *state;
  store(driver, "{\"access_token\": \"A1");
  driver->appears = record("A1", "R1", NOW + HOUR);
  check_token(token(driver), "A1");
  assert_string_equal(driver->steps, "load wait load");
}

static void an_unreadable_storage_does_not_take_the_token_away(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW + 400));
  check_token(token(driver), "A1");
  driver->now.wall += 200;
  driver->failing_loads = 1;
  const struct flow_outcome *outcome = token(driver);
  check_token(outcome, "A1");
  assert_true(noted(outcome, FLOW_REFRESH_FAILED));
}

/* ---- the server says no ---- */

static void a_refusal_keeps_the_record_and_is_remembered(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = answer(400, "{\"error\":\"invalid_grant\"}");
  check_failure(token(driver), CODE_INVALID_GRANT, "Log in to Lucid again");
  assert_string_equal(driver->steps, "load lock load hold mark post load wait load wait load wait load save unlock");
  assert_non_null(strstr(driver->stored, "R1"));
  assert_null(strstr(driver->stored, "pending"));
  for (int i = 0; i < 100; i++) {
    check_failure(token(driver), CODE_INVALID_GRANT, "Log in to Lucid again");
    assert_int_equal(driver->posts, 0);
  }
  store(driver, record("A5", "R5", NOW + HOUR));
  check_token(token(driver), "A5");
}

static void a_refusal_looks_again_before_it_is_believed(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = answer(400, "{\"error\":\"invalid_grant\"}");
  driver->appears = record("A9", "R9", NOW + HOUR);
  const struct flow_outcome *outcome = token(driver);
  check_token(outcome, "A9");
  assert_int_equal(driver->posts, 1);
  assert_non_null(strstr(driver->stored, "R9"));
}

static void a_new_login_takes_a_dead_grants_place(void **state)
{
  struct driver *driver = *state;
  driver->says = alive_reply;
  driver->settings.refresh_token = "R0";
  token(driver);
  driver->settings.refresh_token = "NEW";
  check_token(token(driver), "A2");
  assert_string_equal(driver->steps, "load");
  driver->now.wall += HOUR;
  driver->replies[0] = answer(400, "{\"error\":\"invalid_grant\"}");
  driver->replies[1] = answer(200, "{\"access_token\":\"A7\",\"refresh_token\":\"R7\"}");
  check_token(token(driver), "A7");
  assert_non_null(strstr(driver->body, "\"refresh_token\":\"NEW\""));
  assert_int_equal(driver->posts, 2);
}

static void the_token_a_dead_grant_started_from_is_not_tried_again(void **state)
{
  struct driver *driver = *state;
  driver->says = alive_reply;
  driver->settings.refresh_token = "R0";
  token(driver);
  driver->now.wall += HOUR;
  driver->replies[0] = answer(400, "{\"error\":\"invalid_grant\"}");
  check_failure(token(driver), CODE_INVALID_GRANT, "Log in");
  assert_int_equal(driver->posts, 1);
}

static void a_wrong_client_secret_erases_nothing(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = answer(403, "{\"error\":\"invalid_client\"}");
  check_failure(token(driver), CODE_INVALID_CLIENT, "LUCID_CLIENT_SECRET");
  assert_string_equal(driver->steps, "load lock load hold mark post save unlock");
  assert_non_null(strstr(driver->stored, "R1"));
}

/* ---- another provider ---- */

static void check_provider(struct driver *driver, enum code code, const char *needle)
{
  check_failure(token(driver), code, needle);
  assert_null(strstr(flow_outcome(driver->flow)->message, "Lucid"));
}

static void another_provider_is_not_called_lucid(void **state)
{
  static const struct {
    struct reply reply;
    enum code code;
    const char *needle;
  } cases[] = {
      {{.delivery = REPLY_RECEIVED, .status = 401, .body = "{\"error\":\"invalid_client\"}", .length = 26},
       CODE_INVALID_CLIENT,
       "token_request"},
      {{.delivery = REPLY_RECEIVED, .status = 401, .body = "{\"error\":\"invalid_client\"}", .length = 26},
       CODE_INVALID_CLIENT,
       "client_secret = false"},
      {{.delivery = REPLY_RECEIVED, .status = 415, .body = "", .length = 0}, CODE_BAD_RESPONSE, "token_request"},
      {{.delivery = REPLY_RECEIVED, .status = 400, .body = "{\"error\":\"invalid_request\"}", .length = 27},
       CODE_BAD_RESPONSE,
       "token_parameters"},
      {{.delivery = REPLY_RECEIVED, .status = 404, .body = "", .length = 0}, CODE_BAD_RESPONSE, "token_url"},
      {{.delivery = REPLY_RECEIVED, .status = 400, .body = "{\"error\":\"invalid_grant\"}", .length = 25},
       CODE_INVALID_GRANT,
       "the provider"},
  };
  struct driver *driver = *state;
  driver->settings.another_provider = true;
  driver->settings.introspection = false;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char refresh_token[] = {'R', (char)('a' + i), '\0'}; /* another one's failure is remembered */
    store(driver, record("A1", refresh_token, NOW - 1));
    driver->replies[0] = cases[i].reply;
    check_provider(driver, cases[i].code, cases[i].needle);
  }
}

static void another_provider_need_not_know_a_secret(void **state)
{
  struct driver *driver = *state;
  driver->settings.another_provider = true;
  driver->settings.introspection = false;
  driver->settings.credentials.client_secret = NULL;
  store(driver, record("A1", "R1", NOW - 1));
  check_provider(driver, CODE_CONFIG, "client_secret = false");
  driver->settings.credentials.client_secret = "";
  driver->replies[0] = answer(401, "{\"error\":\"invalid_client\"}");
  check_provider(driver, CODE_INVALID_CLIENT, "if the app has one, set LUCID_CLIENT_SECRET");
  driver->settings.credentials.client_id = NULL;
  store(driver, record("A1", "R2", NOW - 1));
  check_provider(driver, CODE_CONFIG, "LUCID_CLIENT_ID");
  store(driver, NULL);
  check_provider(driver, CODE_CONFIG, "Log in to the provider");
  store(driver, "no record");
  check_provider(driver, CODE_STORAGE, "log in to the provider");
}

static void what_is_sent_besides_is_in_no_message(void **state)
{
  static const char *const parameters[] = {"first", "hidden-value-1", "second", "hidden-value-2", NULL};
  struct driver *driver = *state;
  driver->settings.credentials.parameters = parameters;
  driver->settings.introspection = false;
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = answer(400, "{\"error\":\"invalid_request\",\"error_description\":\"what is hidden-value-2\"}");
  check_failure(token(driver), CODE_BAD_RESPONSE, "left out");
  assert_null(strstr(flow_outcome(driver->flow)->message, "hidden"));
  assert_non_null(strstr(driver->body, "\"second\":\"hidden-value-2\""));
}

/* ---- what comes from outside ---- */

static void names_from_outside_forge_no_line(void **state)
{
  struct driver *driver = *state;
  driver->settings.account = "anna\nERROR: \x1B[2J\xE2\x80\xAE";
  driver->settings.storage = "a\rfile";
  check_failure(token(driver), CODE_CONFIG, "\"anna\\nERROR: \\x1b[2J\\u202e\": the token storage a\\rfile is empty");
  driver->settings.token_url = "https://api.lucid.co/oauth2/token";
  store(driver,
        "{\"access_token\":\"A1\",\"refresh_token\":\"R1\",\"expires_at\":1,\"server\":\"https://x\\u0007\\n\"}");
  check_failure(token(driver), CODE_CONFIG, "issued by https://x\\x07\\n, and");
}

/* ---- memory ---- */

static bool no_memory;

bool __real_json_overlay(cJSON *object, cJSON *fields, bool (*left_out)(const char *name));
bool __wrap_json_overlay(cJSON *object, cJSON *fields, bool (*left_out)(const char *name));

bool __wrap_json_overlay(cJSON *object, cJSON *fields, bool (*left_out)(const char *name))
{
  return !no_memory && __real_json_overlay(object, fields, left_out);
}

static void tokens_that_arrive_when_memory_is_out_are_kept_and_saved_later(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  no_memory = true;
  const struct flow_outcome *outcome = token(driver);
  no_memory = false;
  check_token(outcome, "A2");
  assert_true(noted(outcome, FLOW_SAVE_FAILED));
  assert_true(flow_unsaved(driver->flow));
  driver->replies[0] = answer(200, "{\"access_token\":\"A3\",\"refresh_token\":\"R3\",\"expires_in\":3600}");
  check_token(token(driver), "A3");
  assert_non_null(strstr(driver->body, "\"R2\""));
}

/* ---- another server's tokens ---- */

static const char *issued_by(const char *url)
{
  static char text[400];
  snprintf(text, sizeof text,
           "{\"access_token\":\"A1\",\"refresh_token\":\"R1\",\"expires_at\":%.0f,\"server\":\"%s\"}", NOW - 1, url);
  return text;
}

static void another_server_s_tokens_are_neither_sent_nor_replaced(void **state)
{
  struct driver *driver = *state;
  driver->settings.token_url = "http://127.0.0.1:8080/oauth2/token";
  driver->settings.refresh_token = "R0";
  store(driver, issued_by("https://api.lucid.co"));
  check_failure(token(driver), CODE_CONFIG, "issued by https://api.lucid.co");
  check_failure(fly(driver, FLOW_REFRESH), CODE_CONFIG, "LUCID_TOKEN_FILE");
  assert_int_equal(driver->posts, 0);
  assert_non_null(strstr(driver->stored, "R1"));
}

static void the_same_server_s_are(void **state)
{
  static const char *const urls[][3] = {
      {"https://api.lucid.co", "https://API.lucid.co/v2/token", "https://API.lucid.co"},
      {"http://127.0.0.1:8080", "http://localhost:9090/oauth2/token", "http://localhost:9090"},
  };
  for (size_t i = 0; i < 2; i++) {
    struct driver *driver = *state;
    driver->settings.token_url = urls[i][1];
    store(driver, issued_by(urls[i][0]));
    check_token(token(driver), "A2");
    assert_non_null(strstr(driver->stored, urls[i][2]));
    tear_down(state);
    set_up(state);
  }
}

static void and_so_are_those_of_a_file_that_does_not_say(void **state)
{
  struct driver *driver = *state;
  driver->settings.token_url = "https://api.lucid.co/oauth2/token";
  store(driver, record("A1", "R1", NOW - 1));
  check_token(token(driver), "A2");
  assert_non_null(strstr(driver->stored, "\"server\":\"https://api.lucid.co\""));
}

/* ---- a program that takes no lock, or a new login ---- */

static void what_another_stores_during_a_pause_is_adopted_and_nothing_sent_again(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = not_sent;
  driver->appears = record("A9", "R9", NOW + HOUR);
  check_token(token(driver), "A9");
  assert_string_equal(driver->steps, "load lock load hold mark post wait load unlock");
}

static void what_another_stores_is_not_overwritten_by_new_tokens(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->intrudes = record("A9", "R9", NOW + HOUR);
  check_token(token(driver), "A9");
  assert_string_equal(driver->steps, "load lock load hold mark post changed load unlock");
  assert_non_null(strstr(driver->stored, "R9"));
}

static void nor_by_what_clears_the_mark(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = answer(403, "{\"error\":\"invalid_client\"}");
  driver->intrudes = record("A9", "R9", NOW + HOUR);
  check_token(token(driver), "A9");
  assert_non_null(strstr(driver->stored, "R9"));
}

static void nor_by_a_senseless_answer(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = answer(200, "<html>");
  driver->intrudes = record("A9", "R9", NOW + HOUR);
  check_token(token(driver), "A9");
  assert_string_equal(driver->steps, "load lock load hold mark post changed load unlock");
}

static void a_record_that_was_only_touched_does_not_stop_new_tokens(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->intrudes = record("A1", "R1", NOW - 2);
  check_token(token(driver), "A2");
  assert_string_equal(driver->steps, "load lock load hold mark post changed load save unlock");
  assert_non_null(strstr(driver->stored, "R2"));
}

static void a_file_that_was_taken_away_does_not_either_but_no_mark_brings_it_back(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = answer(403, "{\"error\":\"invalid_client\"}");
  driver->intrudes = "";
  check_failure(token(driver), CODE_INVALID_CLIENT, "");
  assert_string_equal(driver->stored, "");
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = ok_reply;
  driver->intrudes = "";
  flow_free(driver->flow);
  driver->flow = flow_new(&driver->settings, 1);
  check_token(token(driver), "A2");
  assert_non_null(strstr(driver->stored, "R2"));
}

/* ---- the server says later ---- */

static struct flow *another_process(struct driver *driver)
{
  flow_free(driver->flow);
  driver->flow = flow_new(&driver->settings, 2);
  return driver->flow;
}

static void what_the_server_said_holds_for_other_processes(void **state)
{
  struct driver *driver = *state;
  driver->settings.timeout = 1;
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = answer(503, "");
  driver->replies[0].retry_after = "600";
  check_failure(token(driver), CODE_SERVER_ERROR, "later");
  another_process(driver);
  check_failure(token(driver), CODE_SERVER_ERROR, "later");
  assert_int_equal(driver->posts, 0);
}

static void but_not_once_the_clock_was_set_back(void **state)
{
  struct driver *driver = *state;
  what_the_server_said_holds_for_other_processes(state);
  driver->now.wall -= 24 * HOUR;
  another_process(driver);
  driver->replies[0] = ok_reply;
  check_token(token(driver), "A2");
}

static void an_outage_is_covered_up_while_the_token_lives(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW + 100));
  driver->replies[0] = not_sent;
  const struct flow_outcome *outcome = token(driver);
  check_token(outcome, "A1");
  assert_true(noted(outcome, FLOW_REFRESH_FAILED));
  assert_int_equal(driver->posts, 1);
  assert_int_equal(driver->waits, 0);
  assert_true(outcome->refresh_at.wall > NOW);
  check_token(token(driver), "A1");
  assert_int_equal(driver->posts, 0);
}

/* ---- the status ---- */

static void a_storage_that_fails_stays_in_the_status_until_a_success(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW + 100));
  driver->failing_saves = 1;
  check_token(token(driver), "A1");
  check_trouble(driver, CODE_STORAGE, "The disk is full.");
  fly(driver, FLOW_LOOK);
  check_trouble(driver, CODE_STORAGE, "The disk is full.");
  check_token(token(driver), "A2");
  check_trouble(driver, CODE_OK, "");
}

static void an_outage_is_waited_for_when_there_is_no_token(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = driver->replies[1] = not_sent;
  driver->replies[2] = ok_reply;
  check_token(token(driver), "A2");
  assert_string_equal(driver->steps, "load lock load hold mark post wait load post wait load post save unlock");
}

static void an_outage_ends_with_the_deadline_and_the_mark_is_taken_back(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = not_sent;
  check_failure(token(driver), CODE_NETWORK, "tries again");
  assert_true(driver->waited <= 30);
  assert_null(strstr(driver->stored, "pending"));
}

static void retry_after_is_honoured_up_to_the_deadline(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = answer(429, "slow down");
  driver->replies[0].retry_after = "20";
  driver->replies[1] = ok_reply;
  check_token(token(driver), "A2");
  assert_true(driver->waited >= 20);
  driver->now.wall += HOUR;
  driver->replies[0].retry_after = "120";
  check_failure(token(driver), CODE_RATE_LIMITED, "later");
  assert_int_equal(driver->waits, 0);
  driver->now.steady += 60;
  check_failure(token(driver), CODE_RATE_LIMITED, "later");
  assert_int_equal(driver->posts, 0);
}

/* ---- doubt ---- */

static void a_lost_answer_is_settled_by_introspection(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = lost;
  driver->replies[1] = answer(200, "{\"active\":true}");
  driver->replies[2] = ok_reply;
  check_token(token(driver), "A2");
  assert_string_equal(driver->steps, "load lock load hold mark post wait introspect load post save unlock");
}

/* The gateway gives up; the server behind it does not know, and rotates a moment later. */
static void a_gateway_s_error_is_given_time_before_it_is_asked_about(void **state)
{
  static const int statuses[] = {500, 502, 504};
  for (size_t i = 0; i < 3; i++) {
    struct driver *driver = *state;
    store(driver, record("A1", "R1", NOW - 1));
    driver->replies[0] = answer(statuses[i], "");
    driver->replies[1] = answer(200, "{\"active\":false}");
    check_failure(token(driver), CODE_LOST_ROTATION, "");
    assert_true(driver->waited >= (statuses[i] == 500 ? 1 : 5));
    assert_non_null(strstr(driver->steps, "post save wait introspect"));
    tear_down(state);
    set_up(state);
  }
}

static void introspection_that_refuses_is_not_asked_again_and_again(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = lost;
  driver->says = answer(404, "");
  driver->replies[1] = answer(400, "{\"error\":\"invalid_grant\"}");
  check_failure(token(driver), CODE_LOST_ROTATION, "introspection_url = false");
  assert_int_equal(driver->introspections, 1);
  assert_int_equal(driver->posts, 2);
}

static void introspection_says_when_to_come_back(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = lost;
  driver->replies[1] = answer(429, "");
  driver->replies[1].retry_after = "600";
  check_failure(token(driver), CODE_RATE_LIMITED, "");
  assert_int_equal(driver->posts, 2);
  assert_true(flow_status(driver->flow).retry_at >= driver->now.steady + 590);
}

static void a_broken_answer_s_refresh_token_is_found_in_it(void **state)
{
  static const char *const bodies[] = {"{\"access_token\":\"A2\",\"refresh_token\" : \"R2\",\"expi",
                                       "{\"access_token\":\"A2\",\"refresh_token\":\"R2\",}"};
  for (size_t i = 0; i < 2; i++) {
    struct driver *driver = *state;
    store(driver, record("A1", "R1", NOW - 1));
    driver->replies[0] = answer(200, bodies[i]);
    if (i == 0)
      driver->replies[0].delivery = REPLY_LOST;
    driver->replies[1] = answer(200, "{\"active\":false}");
    driver->replies[2] = answer(200, "{\"access_token\":\"A3\",\"refresh_token\":\"R3\",\"expires_in\":3600}");
    const struct flow_outcome *outcome = token(driver);
    check_token(outcome, "A3");
    assert_non_null(strstr(driver->body, "\"R2\""));
    assert_true(noted(outcome, FLOW_RECOVERED));
    assert_null(strstr(driver->stored, "pending"));
    tear_down(state);
    set_up(state);
  }
}

static void but_half_a_refresh_token_is_none(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = answer(200, "{\"access_token\":\"A2\",\"refresh_token\":\"R2");
  driver->replies[1] = answer(200, "{\"active\":false}");
  check_failure(token(driver), CODE_LOST_ROTATION, "");
  assert_int_equal(driver->posts, 2);
}

static void a_spent_token_is_called_lost_and_never_sent_again(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW + 100));
  driver->replies[0] = answer(200, "<html>");
  driver->replies[1] = answer(200, "{\"active\":false}");
  const struct flow_outcome *outcome = token(driver);
  check_failure(outcome, CODE_LOST_ROTATION, "process 42 on here");
  assert_true(noted(outcome, FLOW_LOST));
  assert_string_equal(
      driver->steps,
      "load lock load hold mark post save wait introspect load wait load wait load wait load save unlock");
  assert_non_null(strstr(driver->stored, "<html>"));
  check_failure(token(driver), CODE_LOST_ROTATION, "Log in to Lucid again");
  assert_int_equal(driver->posts, 0);
}

static void a_resend_happens_three_times_at_most(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  for (int i = 0; i < 8; i += 2) {
    driver->replies[i] = lost;
    driver->replies[i + 1] = answer(200, "{\"active\":true}");
  }
  check_failure(token(driver), CODE_NETWORK, "in a row");
  assert_int_equal(driver->posts, 8);
  assert_null(strstr(driver->stored, "pending"));
}

static void without_introspection_there_is_one_resend_after_a_pause(void **state)
{
  struct driver *driver = *state;
  driver->settings.introspection = false;
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = lost;
  driver->replies[1] = ok_reply;
  check_token(token(driver), "A2");
  assert_string_equal(driver->steps, "load lock load hold mark post wait load post save unlock");
  driver->now.wall += HOUR;
  driver->replies[1] = answer(400, "{\"error\":\"invalid_grant\"}");
  check_failure(token(driver), CODE_LOST_ROTATION, "the new tokens are lost");
}

static void a_dead_process_s_refresh_is_settled_first(void **state)
{
  struct driver *driver = *state;
  store(driver, marked("R1"));
  driver->replies[0] = answer(200, "{\"active\":true}");
  driver->replies[1] = ok_reply;
  const struct flow_outcome *outcome = token(driver);
  check_token(outcome, "A2");
  assert_true(noted(outcome, FLOW_RECOVERED));
  assert_string_equal(driver->steps, "load lock load wait introspect hold mark post save unlock");
}

static void a_dead_process_s_refresh_that_takes_all_the_time_to_settle_is_a_timeout(void **state)
{
  struct driver *driver = *state;
  driver->settings.timeout = 0.5;
  store(driver, marked("R1"));
  driver->now.wall = 999990; /* the mark was set just now */
  flow_reject(driver->flow, "A1");
  driver->replies[0] = answer(200, "{\"active\":true}");
  driver->replies[1] = ok_reply;
  check_failure(token(driver), CODE_TIMEOUT, "still alive");
  assert_string_equal(driver->steps, "load lock load wait introspect save unlock");
}

static void a_second_unfinished_refresh_is_left_to_the_next_call_once_the_time_is_over(void **state)
{
  struct driver *driver = *state;
  for (int stores = 0; stores < 2; stores++) {
    driver->settings.timeout = 0.5;
    store(driver, marked("R1"));
    flow_reject(driver->flow, "A1");
    driver->appears = marked("R9");
    driver->says = dead_reply;
    driver->given = "R5";
    check_failure(fly(driver, stores ? FLOW_STORE : FLOW_TOKEN), CODE_TIMEOUT, "took all the time of this call");
    assert_int_equal(driver->waits, 1);
    assert_non_null(strstr(driver->stored, "R9"));
    assert_null(strstr(driver->steps, "save"));
  }
}

/* Else it would be spent without knowing whether its successor can be saved, and nobody would be told. */
static void a_dead_process_s_refresh_token_is_sent_behind_a_mark_of_one_s_own(void **state)
{
  struct driver *driver = *state;
  store(driver, marked("R1"));
  flow_reject(driver->flow, "A1");
  driver->replies[0] = answer(200, "{\"active\":true}");
  driver->failing_saves = 1;
  check_failure(token(driver), CODE_STORAGE, "");
  assert_string_equal(driver->steps, "load lock load wait introspect hold mark unlock");
  assert_non_null(strstr(driver->stored, "elsewhere"));
  driver->replies[1] = answer(200, "{\"active\":true}");
  driver->replies[2] = answer(200, "{}");
  driver->replies[3] = answer(200, "{\"active\":false}");
  check_failure(token(driver), CODE_LOST_ROTATION, "");
  assert_null(strstr(driver->stored, "elsewhere"));
}

static void without_introspection_a_dead_process_s_refresh_token_is_sent_again(void **state)
{
  struct driver *driver = *state;
  driver->settings.introspection = false;
  store(driver, marked("R1"));
  driver->replies[0] = answer(400, "{\"error\":\"invalid_grant\"}");
  check_failure(token(driver), CODE_LOST_ROTATION, "process 7 on elsewhere");
  assert_int_equal(strncmp(driver->steps, "load lock load wait hold mark post", 29), 0);
  assert_non_null(strstr(driver->stored, "elsewhere"));
}

static void a_dead_process_s_lost_refresh_names_it(void **state)
{
  struct driver *driver = *state;
  store(driver, marked("R1"));
  driver->replies[0] = answer(200, "{\"active\":false}");
  check_failure(token(driver), CODE_LOST_ROTATION, "process 7 on elsewhere");
  assert_non_null(strstr(driver->stored, "pending"));
}

static void introspection_that_is_not_answered_is_asked_again(void **state)
{
  struct driver *driver = *state;
  store(driver, marked("R1"));
  flow_reject(driver->flow, "A1");
  driver->replies[0] = not_sent;
  driver->replies[1] = answer(200, "{\"active\":true}");
  driver->replies[2] = ok_reply;
  check_token(token(driver), "A2");
  assert_string_equal(driver->steps, "load lock load wait introspect wait introspect hold mark post save unlock");
}

static void a_mark_that_is_of_another_token_counts_for_nothing(void **state)
{
  struct driver *driver = *state;
  char text[600];
  snprintf(text, sizeof text, "%s", marked("R1"));
  memcpy(strstr(text, "\"R1\""), "\"RX\"", 4);
  store(driver, text);
  check_token(token(driver), "A1");
}

/* ---- rejection and clocks ---- */

static void a_rejected_token_is_never_served_again(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW + HOUR));
  check_token(token(driver), "A1");
  flow_reject(driver->flow, "A1");
  driver->replies[0] = not_sent;
  check_failure(token(driver), CODE_NETWORK, "");
  driver->now.steady += 1000;
  driver->now.wall += 1000;
  driver->replies[0] = ok_reply;
  check_token(token(driver), "A2");
}

static void after_a_rejection_another_process_s_token_is_adopted(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW + HOUR));
  token(driver);
  store(driver, record("A9", "R9", NOW + HOUR));
  flow_reject(driver->flow, "A1");
  check_token(token(driver), "A9");
  assert_int_equal(driver->posts, 0);
}

static void an_expiry_beyond_the_lifetime_is_not_believed(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW + 10 * HOUR));
  check_token(token(driver), "A2");
}

static void a_clock_that_was_set_back_does_not_lengthen_a_tokens_life(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW + HOUR));
  check_token(token(driver), "A1");
  driver->now.wall -= 5 * HOUR;
  check_token(token(driver), "A2");
  assert_true(flow_outcome(driver->flow)->dead_at.wall == NOW - 4 * HOUR);
}

/* So little that the stored expiry still looks right. */
static void a_clock_that_was_set_back_a_little_does_not_either(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW + HOUR));
  check_token(token(driver), "A1");
  pass(driver, HOUR / 2);
  driver->now.wall -= HOUR / 3;
  check_token(token(driver), "A1");
  pass(driver, HOUR / 2);
  check_token(token(driver), "A2");
}

static void a_token_that_died_by_the_steady_clock_is_not_served_in_an_outage(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW + HOUR));
  check_token(token(driver), "A1");
  pass(driver, HOUR);
  driver->now.wall -= HOUR / 3;
  driver->replies[0] = not_sent;
  check_failure(token(driver), CODE_NETWORK, "untouched");
}

/* It may live, and there is nothing better. */
static void a_token_with_an_expiry_beyond_its_lifetime_is_served_in_an_outage_alone(void **state)
{
  struct driver *driver = *state;
  store(driver, "{\"access_token\":\"A1\",\"refresh_token\":\"R1\",\"expires_in\":3600,\"expires_at\":1e15,"
                "\"obtained_at\":1000}");
  driver->replies[0] = not_sent;
  const struct flow_outcome *outcome = token(driver);
  check_token(outcome, "A1");
  assert_int_equal(driver->posts, 1);
  assert_true(noted(outcome, FLOW_REFRESH_FAILED));
}

static void but_whoever_had_it_in_use_knows_what_is_left(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW + HOUR));
  check_token(token(driver), "A1");
  driver->now.wall -= 5 * HOUR;
  driver->replies[0] = not_sent;
  check_token(token(driver), "A1");
  pass(driver, HOUR);
  check_failure(token(driver), CODE_NETWORK, "");
}

static void a_clock_that_was_set_forward_leaves_what_is_left(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW + HOUR));
  check_token(token(driver), "A1");
  driver->now.wall += HOUR / 2;
  check_token(token(driver), "A1");
  assert_string_equal(driver->steps, "load");
}

static void a_machine_that_slept_past_the_expiry_refreshes(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW + HOUR));
  check_token(token(driver), "A1");
  driver->now.wall += HOUR;
  check_token(token(driver), "A2");
}

static void a_lifetime_counts_from_before_the_request(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  const struct flow_outcome *outcome = token(driver);
  assert_true(outcome->dead_at.wall == NOW + HOUR);
}

static void a_token_that_is_not_bearer_is_kept_and_not_served(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = answer(200, "{\"access_token\":\"A2\",\"refresh_token\":\"R2\",\"token_type\":\"mac\"}");
  check_failure(token(driver), CODE_BAD_RESPONSE, "");
  assert_non_null(strstr(driver->stored, "R2"));
  check_failure(token(driver), CODE_BAD_RESPONSE, "Bearer");
  assert_int_equal(driver->posts, 0);
}

/* ---- empty is not unused ---- */

static void a_configured_token_that_was_used_elsewhere_is_not_sent(void **state)
{
  struct driver *driver = *state;
  driver->says = dead_reply;
  driver->settings.refresh_token = "R0";
  check_failure(token(driver), CODE_INVALID_GRANT, "was used before, or it has expired");
  assert_int_equal(driver->posts, 0);
  assert_null(driver->stored);
  check_failure(token(driver), CODE_INVALID_GRANT, "No successor of it is stored in the token storage");
  assert_int_equal(driver->introspections, 0);
}

static void an_outage_of_introspection_spends_no_configured_token(void **state)
{
  struct driver *driver = *state;
  driver->says = answer(503, "");
  driver->settings.refresh_token = "R0";
  check_failure(token(driver), CODE_SERVER_ERROR, "it was not sent");
  assert_int_equal(driver->posts, 0);
  assert_true(driver->waited <= 30);
}

static void introspection_that_is_refused_is_as_good_as_none(void **state)
{
  static const int statuses[] = {401, 403, 404, 405};
  struct driver *driver = *state;
  for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++) {
    start_anew(driver);
    store(driver, NULL);
    driver->says = answer(statuses[i], "");
    driver->settings.refresh_token = "R0";
    check_token(token(driver), "A2");
    assert_int_equal(driver->posts, 1);
  }
}

static void a_record_that_vanishes_does_not_have_its_token_spent_again(void **state)
{
  struct driver *driver = *state;
  driver->settings.introspection = false;
  driver->settings.refresh_token = "R0";
  check_token(token(driver), "A2");
  store(driver, NULL);
  check_failure(fly(driver, FLOW_REFRESH), CODE_INVALID_GRANT, "was used before");
  assert_int_equal(driver->posts, 0);
  driver->settings.refresh_token = "NEW";
  start_anew(driver);
  check_token(fly(driver, FLOW_REFRESH), "A2");
}

static void what_the_storage_knows_as_spent_is_not_sent_without_introspection_s_word(void **state)
{
  struct driver *driver = *state;
  char hash[RECORD_HASH];
  record_hash(&driver->settings.world, "R0", hash);
  driver->spent = hash;
  driver->settings.introspection = false;
  driver->settings.refresh_token = "R0";
  check_failure(token(driver), CODE_INVALID_GRANT, "was used before");
  assert_int_equal(driver->posts, 0);
  driver->settings.introspection = true;
  driver->says = alive_reply;
  check_token(fly(driver, FLOW_REFRESH), "A2");
}

/* The storage was empty when it failed; a record has come since. */
static void what_failed_with_the_configured_token_is_remembered_beside_another_record(void **state)
{
  struct driver *driver = *state;
  char untried[300], hash[RECORD_HASH];
  driver->settings.refresh_token = "R0";
  driver->says =
      (struct reply){.delivery = REPLY_RECEIVED, .whole = true, .status = 503, .body = "", .retry_after = "600"};
  check_failure(token(driver), CODE_SERVER_ERROR, "");
  record_hash(&driver->settings.world, "R1", hash);
  snprintf(untried, sizeof untried, "{\"refresh_token\":\"R1\",\"origin\":\"%s\"}", hash);
  store(driver, untried);
  check_token(token(driver), "A2");
  assert_int_equal(driver->introspections, 0);
  assert_non_null(strstr(driver->body, "\"refresh_token\":\"R1\""));
}

static void a_configured_token_is_not_called_spent_while_another_writer_stores_tokens(void **state)
{
  struct driver *driver = *state;
  static const char *const stored[] = {"A8", "A9"};
  static const struct reply words[] = {
      {.delivery = REPLY_RECEIVED, .status = 404, .body = "", .whole = true},
      {.delivery = REPLY_RECEIVED, .status = 200, .body = "{\"active\":false}", .length = 16}};
  char hash[RECORD_HASH];
  record_hash(&driver->settings.world, "R0", hash);
  driver->settings.refresh_token = "R0";
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    store(driver, NULL);
    driver->spent = hash;
    driver->says = words[i];
    driver->appears = record(stored[i], i ? "R9" : "R8", driver->now.wall + HOUR);
    check_token(token(driver), stored[i]);
    assert_int_equal(driver->posts, 0);
    flow_reject(driver->flow, stored[i]);
  }
}

static void a_storage_that_was_set_back_has_its_token_asked_about(void **state)
{
  struct driver *driver = *state;
  const char *old = record("A1", "R1", NOW - 1);
  store(driver, old);
  check_token(token(driver), "A2");
  store(driver, old);
  driver->says = dead_reply;
  check_failure(fly(driver, FLOW_REFRESH), CODE_INVALID_GRANT, "spent before");
  assert_int_equal(driver->posts, 0);
}

/* ---- storages of the program's own ---- */

static void a_storage_that_keeps_nothing_is_found_before_anything_is_sent(void **state)
{
  static const char *const lies[] = {"", "[]",
                                     "{\"access_token\":\"A1\",\"refresh_token\":\"R1\",\"expires_in\":3600}"};
  static const char *const faults[] = {"load returned no record", "load returned no record", "dropped the field"};
  struct driver *driver = *state;
  driver->settings.reads_back = true;
  for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
    store(driver, record("A1", "R1", driver->now.wall - 1));
    driver->reads = lies[i];
    driver->lies = 100000;
    check_failure(token(driver), CODE_STORAGE, faults[i]);
    assert_int_equal(driver->posts, 0);
    assert_true(driver->waited > 29 && driver->waited < 30.01);
  }
}

static void a_storage_that_lags_is_waited_for(void **state)
{
  struct driver *driver = *state;
  driver->settings.reads_back = true;
  store(driver, record("A1", "R1", NOW - 1));
  driver->reads = record("A1", "R1", NOW - 1);
  driver->lies = 3;
  check_token(token(driver), "A2");
  assert_string_equal(driver->steps,
                      "load lock load hold mark load wait load wait load wait load post save load unlock");
}

static void a_token_that_died_while_it_was_saved_is_not_handed_out(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = answer(200, "{\"access_token\":\"A2\",\"refresh_token\":\"R2\",\"expires_in\":10}");
  driver->saving = 20;
  check_failure(token(driver), CODE_TIMEOUT, "longer than the token lives");
  assert_int_equal(driver->posts, 1);
  driver->saving = 0;
  driver->replies[0] = answer(200, "{\"access_token\":\"A3\",\"refresh_token\":\"R3\",\"expires_in\":10}");
  check_token(token(driver), "A3");
  assert_non_null(strstr(driver->body, "\"refresh_token\":\"R2\""));
}

static int count(const struct driver *driver, const char *word)
{
  int found = 0;
  for (const char *at = driver->steps; (at = strstr(at, word)); at += strlen(word))
    found++;
  return found;
}

static void new_tokens_that_a_storage_drops_stay_in_memory(void **state)
{
  struct driver *driver = *state;
  driver->settings.reads_back = true;
  store(driver, record("A1", "R1", NOW - 1));
  driver->forgotten = 2;
  check_token(token(driver), "A2");
  assert_true(noted(flow_outcome(driver->flow), FLOW_SAVE_FAILED));
  check_trouble(driver, CODE_STORAGE, "save was given them, and load does not return them");
  assert_true(flow_unsaved(driver->flow));
  assert_true(driver->waited < 1.5);
  assert_int_equal(count(driver, "unlock"), 0);
  check_token(token(driver), "A2");
  assert_string_equal(driver->steps, "load save load"); /* a token that lives is not waited for */
  check_token(token(driver), "A2");
  assert_string_equal(driver->steps, "load save load unlock");
  assert_true(noted(flow_outcome(driver->flow), FLOW_SAVED));
  assert_false(flow_unsaved(driver->flow));
  assert_non_null(strstr(driver->stored, "\"R2\""));
}

static void new_tokens_that_show_late_are_not_saved_twice(void **state)
{
  struct driver *driver = *state;
  driver->settings.reads_back = true;
  store(driver, record("A1", "R1", NOW - 1));
  driver->forgotten = 1;
  check_token(token(driver), "A2");
  assert_true(flow_unsaved(driver->flow));
  store(driver, "{\"access_token\":\"A2\",\"refresh_token\":\"R2\",\"expires_at\":1003600,\"obtained_at\":1000000}");
  check_token(token(driver), "A2");
  assert_string_equal(driver->steps, "load unlock");
  assert_true(noted(flow_outcome(driver->flow), FLOW_SAVED));
}

static void side_fields_that_a_storage_drops_do_not_count(void **state)
{
  struct driver *driver = *state;
  driver->settings.reads_back = true;
  store(driver, record("A1", "R1", NOW - 1));
  driver->intrudes = NULL;
  driver->appears = "{\"access_token\":\"A2\",\"refresh_token\":\"R2\"}";
  driver->forgotten = 1;
  check_token(token(driver), "A2");
  assert_false(flow_unsaved(driver->flow));
  assert_false(noted(flow_outcome(driver->flow), FLOW_SAVE_FAILED));
}

static void a_broken_answer_that_a_storage_drops_stays_in_memory(void **state)
{
  struct driver *driver = *state;
  driver->settings.reads_back = true;
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = answer(200, "{\"data\":{\"refresh_token\":\"R2\"}}");
  driver->says = answer(503, "");
  driver->forgotten = 1;
  check_failure(token(driver), CODE_SERVER_ERROR, "could not be asked");
  assert_true(flow_unsaved(driver->flow));
  driver->says = dead_reply;
  driver->replies[0] = answer(200, "{\"access_token\":\"A3\",\"refresh_token\":\"R3\"}");
  check_token(fly(driver, FLOW_REFRESH), "A3");
  assert_non_null(strstr(driver->body, "\"R2\""));
}

static void a_process_knows_a_request_in_doubt_whose_mark_was_forgotten(void **state)
{
  struct driver *driver = *state;
  for (int from = 0; from < 2; from++) {
    bool own = from == 1;
    driver->settings.reads_back = own;
    char name[2][4] = {"R10", "R20"};
    store(driver, record("A1", name[from], driver->now.wall - 1));
    driver->replies[0] = lost;
    driver->says = answer(503, "");
    check_failure(fly(driver, FLOW_REFRESH), CODE_SERVER_ERROR, "could not be asked");
    assert_int_equal(driver->posts, 1);
    store(driver, record("A1", name[from], driver->now.wall - 1));
    driver->says = dead_reply;
    check_failure(fly(driver, FLOW_REFRESH), CODE_LOST_ROTATION, "carried out");
    assert_int_equal(driver->posts, 0);
    store(driver, record("A1", name[from], driver->now.wall - 1));
    driver->says = alive_reply;
    driver->replies[0] = answer(200, own ? "{\"access_token\":\"A21\",\"refresh_token\":\"R21\"}"
                                         : "{\"access_token\":\"A11\",\"refresh_token\":\"R11\"}");
    check_token(fly(driver, FLOW_REFRESH), own ? "A21" : "A11");
    assert_true(driver->introspections > 0);
  }
}

/* ---- locks that are gone ---- */

static void a_lock_that_is_removed_before_the_request_is_taken_anew(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->removed_locks = 1;
  check_token(token(driver), "A2");
  assert_string_equal(driver->steps, "load lock load hold mark save unlock lock load hold mark post save unlock");
  store(driver, record("A1", "R3", NOW - 1));
  driver->removed_locks = 9;
  check_failure(fly(driver, FLOW_REFRESH), CODE_STORAGE, "Nothing was sent");
  assert_int_equal(driver->posts, 0);
  assert_null(strstr(driver->stored, "pending"));
}

/* `lock`: what the mark says of its own. */
static void store_mark_of(struct driver *driver, const char *lock)
{
  char text[700];
  const char *plain = marked("R1"), *since = strstr(plain, "\"since\"");
  snprintf(text, sizeof text, "%.*s\"lock\":\"%s\",\"lasts\":65,%s", (int)(since - plain), plain, lock, since);
  store(driver, text);
}

static void a_refresh_under_a_lock_that_is_gone_is_given_its_time(void **state)
{
  struct driver *driver = *state;
  flow_reject(driver->flow, "A1");
  store_mark_of(driver, "1");
  driver->lock = "2";
  driver->says = alive_reply;
  double began = driver->now.wall;
  check_failure(token(driver), CODE_LOCKED, "although its lock is gone");
  check_failure(token(driver), CODE_LOCKED, "although its lock is gone");
  assert_int_equal(driver->introspections + driver->posts, 0);
  check_token(token(driver), "A2");
  assert_true(driver->now.wall - began >= 65); /* another host's clocks are not believed */
}

static void a_token_that_dies_while_its_time_passes_leaves_a_word(void **state)
{
  struct driver *driver = *state;
  char text[700];
  const char *plain = marked("R1"), *since = strstr(plain, "\"since\"");
  driver->now.wall = NOW + HOUR - 3;
  snprintf(text, sizeof text, "%.*s\"lock\":\"1\",\"lasts\":65,\"since\":%.0f,\"pid\":7,\"host\":\"elsewhere\"}}",
           (int)(since - plain), plain, driver->now.wall);
  store(driver, text);
  driver->lock = "2";
  check_token(token(driver), "A1");
  driver->unlocking = 5;
  check_failure(token(driver), CODE_LOCKED, "although its lock is gone");
}

static void its_answer_is_adopted_meanwhile(void **state)
{
  struct driver *driver = *state;
  flow_reject(driver->flow, "A1");
  store_mark_of(driver, "1");
  driver->lock = "2";
  driver->appears = record("A9", "R9", NOW + HOUR);
  check_token(token(driver), "A9");
  assert_int_equal(driver->introspections + driver->posts, 0);
}

static void under_the_same_lock_its_owner_is_dead(void **state)
{
  struct driver *driver = *state;
  flow_reject(driver->flow, "A1");
  store_mark_of(driver, "1");
  driver->lock = "1";
  driver->says = alive_reply;
  check_token(token(driver), "A2");
  assert_true(driver->waited <= 1);
}

/* In two containers both may have the same number, and marks are told apart to the millisecond. */
static void anothers_mark_of_the_same_number_and_moment_is_not_ours(void **state)
{
  struct driver *driver = *state;
  static const char *const locks[] = {"2", "1"};
  driver->lock = "1";
  store(driver, record("A1", "R1", NOW - 1));
  check_token(token(driver), "A2");
  for (int i = 0; i < 2; i++) {
    char text[900];
    const char *plain = marked("R2"), *since = strstr(plain, "\"since\"");
    snprintf(text, sizeof text,
             "%.*s\"lock\":\"%s\",\"lasts\":65,\"since\":%.0f,\"steady\":50,\"pid\":42,\"host\":\"here\"}}",
             (int)(since - plain), plain, locks[i], NOW);
    store(driver, text);
    flow_reject(driver->flow, "A1");
    driver->lock = "3";
    driver->now = (struct moment){.wall = NOW, .steady = 50};
    driver->says = alive_reply;
    driver->replies[0] = answer(200, "{\"access_token\":\"A3\",\"refresh_token\":\"R3\",\"expires_in\":3600}");
    if (i == 0) {
      check_failure(fly(driver, FLOW_REFRESH), CODE_LOCKED, "although its lock is gone");
      assert_int_equal(driver->introspections + driver->posts, 0);
    } else {
      check_token(fly(driver, FLOW_REFRESH), "A3");
    }
  }
}

static void a_process_that_was_stopped_marks_anew_before_it_sends(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->freezes = 1000;
  check_token(token(driver), "A2");
  assert_string_equal(driver->steps, "load lock load hold mark mark post save unlock");
}

/* ---- rejections elsewhere ---- */

static void what_another_process_rejected_is_not_handed_out(void **state)
{
  struct driver *driver = *state;
  uint64_t rejected[FLOW_FINGERPRINTS] = {token_fingerprint("A1")};
  store(driver, record("A1", "R1", NOW + HOUR));
  check_token(token(driver), "A1");
  driver->rejected = rejected;
  driver->replies[0] = answer(429, "");
  check_failure(token(driver), CODE_RATE_LIMITED, "");
}

static void a_rejection_is_left_in_the_record_for_others(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW + HOUR));
  check_token(token(driver), "A1");
  flow_reject(driver->flow, "A1");
  driver->replies[0] = answer(429, "");
  check_failure(token(driver), CODE_RATE_LIMITED, "");
  start_anew(driver);
  check_failure(token(driver), CODE_RATE_LIMITED, "");
}

/* ---- answers are not polite ---- */

static void a_broken_answer_s_refresh_token_is_used_without_introspection(void **state)
{
  struct driver *driver = *state;
  static const char cut[] = "{\"token_type\":\"Bearer\",\"refresh_token\":\"rotated-1\",\"access_tok";
  driver->settings.introspection = false;
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = (struct reply){.delivery = REPLY_LOST, .status = 200, .body = cut, .length = sizeof cut - 1};
  driver->replies[1] = ok_reply;
  check_token(token(driver), "A2");
  assert_int_equal(driver->posts, 2);
  assert_non_null(strstr(driver->body, "\"refresh_token\":\"rotated-1\""));
}

static void a_server_that_breaks_every_answer_is_left_alone(void **state)
{
  static char bodies[8][120];
  struct driver *driver = *state;
  for (int introspection = 0; introspection < 2; introspection++) {
    driver->settings.introspection = introspection;
    driver->says = dead_reply;
    store(driver, record("A1", "R1", driver->now.wall - 1));
    for (int i = 0; i < 8; i++) {
      snprintf(bodies[i], sizeof bodies[i], "<html>\"refresh_token\":\"broken-%d-%d\"", introspection, i);
      driver->replies[i] = answer(200, bodies[i]);
    }
    check_failure(token(driver), CODE_BAD_RESPONSE, "is stored");
    assert_int_equal(driver->posts, 2);
    assert_non_null(strstr(driver->stored, introspection ? "broken-1-1" : "broken-0-1"));
    assert_null(strstr(driver->stored, "pending"));
    start_anew(driver);
  }
}

/* The mark of another process, and the answer that came to it. */
static const char *marked_with_answer(void)
{
  static char text[900];
  const char *plain = marked("R1"), *since = strstr(plain, "\"since\"");
  snprintf(text, sizeof text, "%.*s\"answer\":\"{\\\"refresh_token\\\":\\\"R7\\\",\\\"access_to\",%s",
           (int)(since - plain), plain, since);
  return text;
}

static void a_broken_answer_that_a_storage_shows_late_is_used(void **state)
{
  struct driver *driver = *state;
  store(driver, marked("R1"));
  driver->says = dead_reply;
  driver->appears = marked_with_answer();
  check_token(fly(driver, FLOW_REFRESH), "A2");
  assert_non_null(strstr(driver->body, "\"refresh_token\":\"R7\""));
}

/* The first time it could not be saved, or that was said. */
static void a_broken_answer_that_is_saved_with_the_loss_keeps_no_lock(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = answer(200, "<html>");
  driver->says = dead_reply;
  driver->fails_after_mark = 1;
  check_failure(token(driver), CODE_LOST_ROTATION, "");
  assert_false(flow_unsaved(driver->flow));
  assert_non_null(strstr(driver->steps, "unlock"));
}

static void a_broken_answer_in_an_old_copy_is_asked_about(void **state)
{
  struct driver *driver = *state;
  char hash[RECORD_HASH];
  record_hash(&driver->settings.world, "R7", hash);
  store(driver, marked_with_answer());
  driver->spent = hash;
  driver->says = dead_reply;
  check_failure(fly(driver, FLOW_REFRESH), CODE_INVALID_GRANT, "");
  assert_int_equal(driver->posts, 0);
}

static void a_broken_answer_s_refresh_token_loses_to_no_old_login(void **state)
{
  struct driver *driver = *state;
  static const char cut[] = "{\"refresh_token\":\"rotated-1\",\"access_tok";
  driver->settings.introspection = false;
  driver->settings.refresh_token = "R0";
  driver->replies[0] = (struct reply){.delivery = REPLY_LOST, .status = 200, .body = cut, .length = sizeof cut - 1};
  driver->replies[1] = answer(429, "");
  check_failure(token(driver), CODE_RATE_LIMITED, "");
  driver->settings.refresh_token = "OTHER";
  start_anew(driver);
  driver->replies[0] = ok_reply;
  driver->replies[1] = (struct reply){0};
  check_token(fly(driver, FLOW_REFRESH), "A2");
  assert_non_null(strstr(driver->body, "\"refresh_token\":\"rotated-1\""));
}

static void a_broken_answer_s_refresh_token_that_cannot_be_saved_is_kept(void **state)
{
  struct driver *driver = *state;
  static const char cut[] = "{\"refresh_token\":\"rotated-1\",\"access_tok";
  driver->settings.introspection = false;
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = (struct reply){.delivery = REPLY_LOST, .status = 200, .body = cut, .length = sizeof cut - 1};
  driver->replies[1] = ok_reply;
  driver->fails_after_mark = 1;
  assert_null(token(driver)->token);
  assert_true(flow_unsaved(driver->flow));
  assert_int_equal(driver->posts, 1);
  driver->replies[0] = ok_reply;
  driver->replies[1] = (struct reply){0};
  check_token(token(driver), "A2");
  assert_non_null(strstr(driver->body, "\"refresh_token\":\"rotated-1\""));
}

static void no_grant_is_called_dead_while_the_storage_cannot_be_read(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = lost;
  driver->says = dead_reply;
  driver->unreadable_later = true;
  check_failure(token(driver), CODE_STORAGE, "disk is full");
  assert_non_null(strstr(driver->stored, "pending"));
  assert_null(strstr(driver->stored, "\"lost\""));
}

/* The mark of the grant before it says nothing of it. */
static void a_login_is_tried_behind_a_mark_of_its_own(void **state)
{
  struct driver *driver = *state;
  char hash[RECORD_HASH];
  driver->settings.introspection = false;
  driver->settings.refresh_token = "NEW";
  flow_reject(driver->flow, "A1");
  store(driver, marked("R1"));
  driver->replies[0] = answer(400, "{\"error\":\"invalid_grant\"}");
  driver->replies[1] = lost;
  token(driver);
  record_hash(&driver->settings.world, "NEW", hash);
  assert_non_null(strstr(driver->stored, "\"refresh_token\":\"NEW\""));
  assert_non_null(strstr(strstr(driver->stored, "\"pending\":"), hash));
}

static void a_failure_without_a_reason_is_no_success(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  flow_start(driver->flow, FLOW_TOKEN, driver->now, driver->now.steady + 30);
  struct flow_event event = {.now = driver->now};
  struct flow_action action = flow_next(driver->flow, &event);
  while (action.step != FLOW_LOCK) {
    event = carry_out(driver, &action);
    action = flow_next(driver->flow, &event);
  }
  event = (struct flow_event){.now = driver->now, .result = FLOW_FAILED, .text = ""};
  action = flow_next(driver->flow, &event);
  assert_int_equal(action.step, FLOW_DONE);
  assert_null(flow_outcome(driver->flow)->token);
  assert_int_equal(flow_outcome(driver->flow)->code, CODE_STORAGE);
}

/* ---- refusals in any words ---- */

static const struct {
  int status;
  const char *body;
} refusals[] = {{403, "{\"error\":\"unauthorized_client\",\"error_description\":\"refresh_token is invalid\"}"},
                {400, "{\"code\":\"badRequest\",\"message\":\"Invalid refresh token\",\"requestId\":\"r\"}"},
                {400, "{\"errors\":[{\"errorType\":\"invalid_grant\"}]}"},
                {400, ""},
                {400, "{\"error\":\"invalid_request\",\"error_description\":\"refresh token is expired\"}"},
                {400, "{\"error\":\"invalid_grant\"}"},
                {401, "{\"error\":\"INVALID_TOKEN\"}"},
                {200, "{\"error\":{\"code\":7}}"}};

static void after_any_refusal_a_new_login_is_used(void **state)
{
  struct driver *driver = *state;
  for (size_t i = 0; i < 2 * sizeof refusals / sizeof *refusals; i++) {
    driver->settings.introspection = i % 2;
    driver->settings.refresh_token = NULL;
    start_anew(driver);
    store(driver, record("A1", "R1", driver->now.wall - 1));
    driver->says = dead_reply;
    driver->replies[0] = answer(refusals[i / 2].status, refusals[i / 2].body);
    driver->replies[1] = (struct reply){0};
    const struct flow_outcome *outcome = token(driver);
    assert_null(outcome->token);
    assert_non_null(strstr(outcome->message, "(LUCID_REFRESH_TOKEN, or the option refresh_token)"));
    assert_true(!driver->settings.introspection || outcome->code == CODE_INVALID_GRANT);
    assert_int_equal(driver->posts, 1);
    assert_non_null(strstr(driver->stored, "\"refresh_token\":\"R1\""));
    driver->settings.refresh_token = "NEW";
    start_anew(driver);
    driver->settings.introspection = false;
    driver->replies[1] = ok_reply;
    check_token(token(driver), "A2");
    assert_int_equal(driver->posts, 2);
    assert_non_null(strstr(driver->body, "\"refresh_token\":\"NEW\""));
    assert_null(strstr(driver->stored, "\"before\""));
  }
}

static void a_new_login_that_is_refused_too_leaves_the_stored_grant(void **state)
{
  struct driver *driver = *state;
  driver->settings.introspection = false;
  driver->settings.refresh_token = "NEW";
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = answer(400, "{\"error\":\"invalid_grant\"}");
  check_failure(token(driver), CODE_INVALID_GRANT, "is kept as it was");
  assert_int_equal(driver->posts, 2);
  assert_non_null(strstr(driver->stored, "\"refresh_token\":\"R1\""));
  assert_null(strstr(driver->stored, "NEW"));
  check_failure(token(driver), CODE_INVALID_GRANT, "");
  assert_int_equal(driver->posts, 0);
}

static void a_new_login_that_was_used_elsewhere_is_not_sent(void **state)
{
  struct driver *driver = *state;
  driver->says = dead_reply;
  driver->settings.refresh_token = "NEW";
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = answer(400, "{\"error\":\"invalid_grant\"}");
  check_failure(token(driver), CODE_INVALID_GRANT, "Log in to Lucid again");
  assert_int_equal(driver->posts, 1);
  assert_non_null(strstr(driver->stored, "\"refresh_token\":\"R1\""));
  assert_null(strstr(driver->stored, "pending"));
  check_failure(token(driver), CODE_INVALID_GRANT, "");
  assert_int_equal(driver->posts + driver->introspections, 0);
}

static void the_stored_grant_stays_until_the_new_login_has_brought_tokens(void **state)
{
  struct driver *driver = *state;
  driver->settings.introspection = false;
  driver->settings.refresh_token = "NEW";
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = answer(400, "{\"error\":\"invalid_grant\"}");
  driver->replies[1] = answer(429, "");
  check_failure(token(driver), CODE_RATE_LIMITED, "");
  assert_non_null(strstr(driver->stored, "\"before\":{\"access_token\":\"A1\",\"refresh_token\":\"R1\""));
  driver->replies[0] = ok_reply;
  driver->replies[1] = (struct reply){0};
  check_token(fly(driver, FLOW_REFRESH), "A2");
  assert_null(strstr(driver->stored, "\"before\""));
}

static void a_refusal_of_a_token_that_is_alive_is_the_request_s(void **state)
{
  struct driver *driver = *state;
  driver->says = alive_reply;
  driver->settings.refresh_token = "NEW";
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = answer(400, "{\"error\":\"invalid_request\"}");
  check_failure(token(driver), CODE_BAD_RESPONSE, "still alive");
  assert_int_equal(driver->posts, 1);
}

static void a_wrong_client_secret_tries_no_configured_token(void **state)
{
  struct driver *driver = *state;
  driver->says = answer(401, "{\"error\":\"invalid_client\"}");
  driver->settings.refresh_token = "NEW";
  store(driver, record("A1", "R1", NOW - 1));
  driver->replies[0] = answer(401, "{\"error\":\"invalid_client\"}");
  check_failure(token(driver), CODE_INVALID_CLIENT, "");
  assert_int_equal(driver->posts, 1);
}

static void tokens_of_another_server_are_not_handed_out(void **state)
{
  struct driver *driver = *state;
  char text[400];
  const char *plain = record("A1", "R1", NOW + HOUR);
  snprintf(text, sizeof text, "{\"server\":\"https://one.example\",%s", plain + 1);
  store(driver, text);
  driver->settings.token_url = "https://two.example/token";
  check_failure(token(driver), CODE_CONFIG, "one.example");
  driver->settings.token_url = "https://one.example/token";
  check_token(token(driver), "A1");
}

/* ---- tokens that a parent could not save ---- */

static void a_child_saves_what_its_parent_could_not(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->fails_after_mark = 1;
  check_token(token(driver), "A2");
  assert_true(flow_unsaved(driver->flow));
  flow_disown(driver->flow);
  driver->busy = 1;
  check_token(token(driver), "A2"); /* the parent has the lock */
  assert_true(flow_unsaved(driver->flow));
  assert_string_equal(driver->steps, "lock");
  check_token(token(driver), "A2");
  assert_false(flow_unsaved(driver->flow));
  assert_non_null(strstr(driver->stored, "\"R2\""));
}

static void a_child_does_not_save_over_what_its_parent_saved(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->fails_after_mark = 1;
  check_token(token(driver), "A2");
  flow_disown(driver->flow);
  store(driver, record("A3", "R3", NOW + HOUR));
  check_token(token(driver), "A3");
  assert_false(flow_unsaved(driver->flow));
  assert_non_null(strstr(driver->stored, "\"R3\""));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

/* ---- what a login gave ---- */

static const char login[] = "{\"access_token\":\"A5\",\"refresh_token\":\"R5\",\"expires_in\":3600,\"scope\":\"s\"}";

static const struct flow_outcome *give(struct driver *driver, const char *given)
{
  driver->given = given;
  return fly(driver, FLOW_STORE);
}

static void check_stored(struct driver *driver, const struct flow_outcome *outcome)
{
  assert_string_equal(outcome->message, "");
  assert_int_equal(outcome->code, CODE_OK);
  assert_true(noted(outcome, FLOW_STORED));
  assert_non_null(strstr(driver->stored, "R5"));
  assert_null(strstr(driver->stored, "pending"));
}

static void check_declined(struct driver *driver, const char *part)
{
  bool others_write = driver->appears || driver->intrudes;
  char *before = others_write ? NULL : strdup(driver->stored);
  const struct flow_outcome *outcome = give(driver, login);
  check_failure(outcome, CODE_CONFIG, part);
  assert_non_null(strstr(outcome->message, "{ replace = true }"));
  if (!others_write)
    assert_string_equal(driver->stored, before);
  assert_null(strstr(driver->stored, "R5"));
  assert_null(strstr(driver->steps, "save"));
  assert_null(strstr(driver->steps, "mark"));
  assert_null(strstr(driver->steps, "post"));
  assert_int_equal(flow_status(driver->flow).last_code, CODE_OK);
  free(before);
}

static void a_login_starts_an_empty_storage(void **state)
{
  struct driver *driver = *state;
  driver->settings.token_url = "https://issuer.example/token";
  const struct flow_outcome *outcome = give(driver, login);
  check_stored(driver, outcome);
  assert_string_equal(outcome->token, "A5");
  assert_string_equal(driver->steps, "load lock load save unlock");
  assert_int_equal(driver->announcements, 1);
  assert_non_null(strstr(driver->stored, "\"origin\":"));
  assert_non_null(strstr(driver->stored, "\"scope\":\"s\""));
  assert_non_null(strstr(driver->stored, "\"server\":\"https://issuer.example\""));
  check_token(token(driver), "A5");
  assert_string_equal(driver->steps, "load");
}

static void a_bare_refresh_token_is_refreshed_at_the_next_call(void **state)
{
  struct driver *driver = *state;
  const struct flow_outcome *outcome = give(driver, "R5\n");
  check_stored(driver, outcome);
  assert_null(outcome->token);
  assert_null(strstr(driver->stored, "expire"));
  check_token(token(driver), "A2");
  assert_non_null(strstr(driver->body, "\"refresh_token\":\"R5\""));
  assert_int_equal(driver->posts, 1);
}

static void a_login_loses_to_no_refresh_token_that_is_configured(void **state)
{
  struct driver *driver = *state;
  driver->settings.refresh_token = "R0";
  driver->says = alive_reply;
  check_stored(driver, give(driver, "R5"));
  check_token(token(driver), "A2");
  assert_non_null(strstr(driver->body, "\"refresh_token\":\"R5\""));
}

static void a_grant_that_lives_is_replaced_only_when_told_so(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW + HOUR));
  check_declined(driver, "a grant that lives");
  assert_string_equal(driver->steps, "load lock load unlock");
  check_token(token(driver), "A1");
  driver->replaces = true;
  check_stored(driver, give(driver, login));
  assert_null(strstr(driver->stored, "R1"));
  check_token(token(driver), "A5");
}

static void introspection_says_whether_a_grant_without_a_good_access_token_lives(void **state)
{
  struct driver *driver = *state;
  driver->says = alive_reply;
  store(driver, record("A1", "R1", NOW - 1));
  check_declined(driver, "a grant that lives");
  assert_int_equal(driver->introspections, 1);
  driver->says = dead_reply;
  check_stored(driver, give(driver, login));
  assert_null(strstr(driver->steps, "post"));
}

static void without_an_answer_of_introspection_nothing_is_replaced(void **state)
{
  struct driver *driver = *state;
  driver->says = answer(500, "");
  store(driver, record("A1", "R1", NOW - 1));
  const struct flow_outcome *outcome = give(driver, login);
  assert_int_equal(outcome->code, CODE_SERVER_ERROR);
  assert_non_null(strstr(outcome->message, "{ replace = true }"));
  assert_non_null(strstr(driver->stored, "R1"));
  driver->replaces = true;
  check_stored(driver, give(driver, login));
  assert_int_equal(driver->introspections, 0);
}

static void without_introspection_a_grant_may_live_until_it_is_known_as_dead(void **state)
{
  struct driver *driver = *state;
  driver->settings.introspection = false;
  store(driver, record("A1", "R1", NOW - 1));
  check_declined(driver, "may still live");
  driver->replies[0] = answer(400, "{\"error\":\"invalid_grant\"}");
  check_failure(token(driver), CODE_INVALID_GRANT, "invalid_grant");
  check_stored(driver, give(driver, login));
  check_token(token(driver), "A5");
  assert_int_equal(flow_status(driver->flow).last_code, CODE_OK);
}

static void a_grant_that_is_lost_is_replaced(void **state)
{
  struct driver *driver = *state;
  driver->replies[0] = lost;
  driver->says = dead_reply;
  store(driver, record("A1", "R1", NOW - 1));
  check_failure(token(driver), CODE_LOST_ROTATION, "lost");
  check_failure(give(driver, record("A1", "R1", NOW + HOUR)), CODE_INVALID_GRANT, "used before");
  check_stored(driver, give(driver, login));
  assert_int_equal(driver->introspections, 0);
  check_token(token(driver), "A5");
}

static void an_access_token_without_a_refresh_token_is_replaced_once_it_has_ended(void **state)
{
  struct driver *driver = *state;
  char text[200];
  snprintf(text, sizeof text, "{\"access_token\":\"A1\",\"expires_at\":%.0f}", NOW + HOUR);
  store(driver, text);
  check_declined(driver, "a grant that lives");
  snprintf(text, sizeof text, "{\"access_token\":\"A1\",\"expires_at\":%.0f}", NOW - 1);
  store(driver, text);
  check_stored(driver, give(driver, login));
  assert_int_equal(driver->introspections, 0);
}

static void what_is_damaged_is_kept_in_the_record_that_takes_its_place(void **state)
{
  struct driver *driver = *state;
  store(driver, "{\"refresh_token\":\"R1");
  check_stored(driver, give(driver, login));
  assert_non_null(strstr(driver->stored, "\"damaged\":\"{\\\"refresh_token\\\":\\\"R1\""));
  check_token(token(driver), "A5");
}

static void a_refresh_in_flight_is_waited_for(void **state)
{
  struct driver *driver = *state;
  for (int replaces = 0; replaces < 2; replaces++) {
    store(driver, marked("R1"));
    driver->replaces = replaces;
    driver->busy = 100000;
    const struct flow_outcome *outcome = give(driver, login);
    assert_int_equal(outcome->code, replaces ? CODE_LOCKED : CODE_TIMEOUT); /* the one lock for so long */
    assert_non_null(strstr(driver->stored, "R1"));
    assert_null(strstr(driver->steps, "save"));
    driver->busy = 0;
  }
}

static void a_refresh_under_another_lock_is_waited_for(void **state)
{
  struct driver *driver = *state;
  char text[700];
  snprintf(text, sizeof text, "%.*s,\"lock\":\"old\",\"lasts\":65}}", (int)strlen(marked("R1")) - 2, marked("R1"));
  store(driver, text);
  driver->lock = "new";
  driver->replaces = true;
  assert_int_equal(give(driver, login)->code, CODE_LOCKED);
  assert_non_null(strstr(driver->stored, "R1"));
  assert_null(strstr(driver->steps, "save"));
}

static void a_refresh_that_its_process_left_unfinished_is_settled(void **state)
{
  struct driver *driver = *state;
  store(driver, marked("R1"));
  driver->says = alive_reply;
  check_declined(driver, "a grant that lives");
  assert_string_equal(driver->steps, "load lock load wait load introspect unlock");
  driver->says = dead_reply;
  check_stored(driver, give(driver, login));
  store(driver, marked("R1"));
  driver->replaces = true;
  check_stored(driver, give(driver, login));
  assert_string_equal(driver->steps, "load lock load wait load save unlock");
}

static void and_what_it_brings_meanwhile_is_a_grant_that_lives(void **state)
{
  struct driver *driver = *state;
  store(driver, marked("R1"));
  driver->appears = record("A9", "R9", NOW + HOUR);
  check_declined(driver, "a grant that lives");
  assert_non_null(strstr(driver->stored, "R9"));
}

static void a_refresh_token_that_was_spent_is_not_stored(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R5", NOW - 1));
  check_token(token(driver), "A2");
  driver->replaces = true;
  check_failure(give(driver, login), CODE_INVALID_GRANT, "used before");
  assert_non_null(strstr(driver->stored, "R2"));
  check_token(token(driver), "A2");
}

/* Its mark would be gone, and it would be sent again without a question. */
static void a_refresh_token_whose_refresh_is_in_doubt_is_not_stored_again(void **state)
{
  struct driver *driver = *state;
  for (int replaces = 0; replaces < 2; replaces++) {
    driver->replaces = replaces;
    driver->says = replaces ? alive_reply : dead_reply;
    store(driver, marked("R5"));
    check_failure(give(driver, login), CODE_CONFIG, "not known yet");
    assert_non_null(strstr(driver->stored, "pending"));
    assert_null(strstr(driver->steps, "save"));
  }
}

static void a_login_that_another_writer_comes_before_is_judged_anew(void **state)
{
  struct driver *driver = *state;
  driver->intrudes = record("A9", "R9", NOW + HOUR);
  check_declined(driver, "a grant that lives");
}

static void a_login_that_cannot_be_saved_is_with_its_user_alone(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW + HOUR));
  check_token(token(driver), "A1");
  driver->replaces = true;
  driver->failing_saves = 1;
  check_failure(give(driver, login), CODE_STORAGE, "keep it");
  assert_false(flow_unsaved(driver->flow));
  assert_non_null(strstr(driver->steps, "unlock"));
  check_token(token(driver), "A1");
  check_stored(driver, give(driver, login));
  driver->replaces = false;
  check_stored(driver, give(driver, login)); /* the very same once more */
}

static void a_login_waits_until_a_storage_of_ones_own_shows_it(void **state)
{
  struct driver *driver = *state;
  driver->settings.reads_back = true;
  check_stored(driver, give(driver, login));
  assert_string_equal(driver->steps, "load lock load save load unlock");
  store(driver, record("A1", "R1", NOW + HOUR));
  driver->replaces = true;
  driver->forgotten = 1;
  check_failure(give(driver, login), CODE_STORAGE, "keep it");
  assert_non_null(strstr(driver->stored, "R1"));
  assert_true(driver->waited >= 1);
  assert_false(flow_unsaved(driver->flow));
  check_stored(driver, give(driver, login));
}

/* Its lock may be the parent's. */
static void a_login_is_not_called_stored_beside_tokens_of_a_parent(void **state)
{
  struct driver *driver = *state;
  store(driver, record("A1", "R1", NOW - 1));
  driver->fails_after_mark = 1;
  check_token(token(driver), "A2");
  flow_disown(driver->flow);
  driver->busy = 100000;
  driver->replaces = true;
  check_failure(give(driver, login), CODE_TIMEOUT, "");
  assert_null(strstr(driver->stored, "R5"));
  driver->busy = 0;
  check_stored(driver, give(driver, login));
}

static void a_login_that_is_refused_leaves_the_dead_grant_and_not_the_replaced_one(void **state)
{
  struct driver *driver = *state;
  for (int replaces = 0; replaces < 2; replaces++) {
    store(driver, record("A1", "R1", replaces ? NOW + HOUR : NOW - 1));
    driver->replaces = replaces;
    driver->says = dead_reply;
    check_stored(driver, give(driver, "R5"));
    driver->replies[0] = answer(400, "{\"error\":\"invalid_grant\"}");
    assert_int_equal(token(driver)->code, CODE_INVALID_GRANT);
    assert_true((strstr(driver->stored, "R1") != NULL) == (replaces == 0));
    flow_free(driver->flow);
    driver->flow = flow_new(&driver->settings, 1);
  }
}

static void a_login_that_is_handed_over_late_ends_when_it_ends(void **state)
{
  struct driver *driver = *state;
  driver->now.wall = 1.7e9;
  const struct flow_outcome *outcome =
      give(driver, "{\"access_token\":\"A5\",\"refresh_token\":\"R5\",\"expires_in\":3600,\"expires_at\":1700000600}");
  assert_true(outcome->dead_at.wall == 1.7e9 + 600);
  driver->replaces = true;
  check_failure(give(driver, "{\"access_token\":\"A6\",\"expires_at\":1699999999}"), CODE_CONFIG, "has expired");
}

/* ---- how long a lock is held ---- */

#define CALL 1.0 /* seconds that a function of a storage takes; docs/STORAGE.md reckons with them */
#define LEAST_LEASE(timeout) (2 * (timeout) + 20.0)

static unsigned pick(unsigned *random, unsigned choices)
{
  *random = *random * 1664525u + 1013904223u;
  return (*random >> 16) % choices;
}

/* What a server may answer at its worst: late, and nothing that helps. */
static void choose_replies(struct driver *driver, unsigned *random)
{
  const struct reply worst[] = {lost,
                                not_sent,
                                answer(502, "<html>"),
                                answer(400, "{\"error\":\"invalid_grant\"}"),
                                answer(200, "{\"refresh_token\":\"R"),
                                answer(400, ""),
                                ok_reply};
  const struct reply said[] = {dead_reply, alive_reply, answer(503, ""), answer(403, "{}")};
  for (int i = 0; i < 8; i++)
    driver->replies[i] = worst[pick(random, sizeof worst / sizeof *worst)];
  driver->says = said[pick(random, sizeof said / sizeof *said)];
}

/* The time that a step takes, beside what a WAIT has let pass. */
static double step_takes(const struct flow_action *action, unsigned *random)
{
  if (action->step == FLOW_POST)
    return action->limit * pick(random, 5) / 4;
  return action->step == FLOW_WAIT || action->step == FLOW_HOLD ? 0 : CALL;
}

/* Seconds from getting the lock to having given it back. */
static double hold_of(struct driver *driver, unsigned *random)
{
  double since = 0, held = 0;
  driver->steps[0] = '\0';
  start(driver, FLOW_REFRESH);
  struct flow_event event = {.now = driver->now};
  struct flow_action action = flow_next(driver->flow, &event);
  for (int i = 0; action.step != FLOW_DONE; i++) {
    assert_true(i < 5000);
    pass(driver, step_takes(&action, random));
    event = carry_out(driver, &action);
    since = action.step == FLOW_LOCK && event.result == FLOW_OK ? driver->now.steady : since;
    held = action.step == FLOW_UNLOCK ? fmax(held, driver->now.steady - since) : held;
    action = flow_next(driver->flow, &event);
  }
  return held;
}

static void the_smallest_lease_outlasts_every_refresh(void **state)
{
  struct driver *driver = *state;
  unsigned random = 1;
  double longest = 0;
  driver->settings.reads_back = true;
  int rounds = getenv("SPEC_SLOWED") ? 400 : 4000;
  for (int round = 0; round < rounds; round++) {
    flow_free(driver->flow);
    driver->flow = flow_new(&driver->settings, (uint64_t)round + 1);
    driver->settings.introspection = pick(&random, 4) > 0;
    driver->settings.refresh_token = pick(&random, 2) ? "R9" : NULL;
    driver->posts = 0;
    choose_replies(driver, &random);
    store(driver, pick(&random, 4) ? record("A1", "R1", driver->now.wall - 1) : marked("R1"));
    longest = fmax(longest, hold_of(driver, &random));
  }
  assert_true(longest <= LEAST_LEASE(driver->settings.timeout));
  assert_true(longest > 2 * driver->settings.timeout + 5);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      TEST(a_fresh_record_is_served_without_a_lock),
      TEST(an_expired_record_is_refreshed_under_the_lock),
      TEST(a_refresh_starts_ahead_of_the_expiry),
      TEST(an_empty_storage_starts_from_the_configured_token),
      TEST(without_any_refresh_token_the_message_says_what_to_set),
      TEST(without_a_client_id_a_good_token_is_served_and_a_refresh_is_not_tried),
      TEST(what_another_process_refreshed_is_adopted_under_the_lock),
      TEST(refresh_asks_for_a_new_token_whatever_the_expiry),
      TEST(a_busy_lock_is_waited_for_only_briefly_while_the_token_lives),
      TEST(a_busy_lock_ends_at_the_callers_deadline),
      TEST(a_lock_that_is_held_for_too_long_is_reported),
      TEST(nobody_is_told_to_kill_a_process_that_refreshes),
      TEST(a_programs_own_lock_needs_a_lease),
      TEST(messages_of_a_named_account_name_it),
      TEST(another_apps_tokens_are_called_so_when_they_are_refused),
      TEST(another_apps_tokens_are_not_refused_ahead_of_the_server),
      TEST(a_storage_that_cannot_be_written_costs_no_refresh_token),
      TEST(tokens_that_cannot_be_saved_are_served_and_saved_later),
      TEST(an_access_token_that_cannot_be_saved_waits_beside_its_own_mark),
      TEST(a_damaged_record_is_left_alone),
      TEST(a_record_that_is_just_being_rewritten_is_waited_for),
      TEST(an_unreadable_storage_does_not_take_the_token_away),
      TEST(a_refusal_keeps_the_record_and_is_remembered),
      TEST(a_refusal_looks_again_before_it_is_believed),
      TEST(a_new_login_takes_a_dead_grants_place),
      TEST(the_token_a_dead_grant_started_from_is_not_tried_again),
      TEST(a_wrong_client_secret_erases_nothing),
      TEST(another_provider_is_not_called_lucid),
      TEST(another_provider_need_not_know_a_secret),
      TEST(what_is_sent_besides_is_in_no_message),
      TEST(names_from_outside_forge_no_line),
      TEST(tokens_that_arrive_when_memory_is_out_are_kept_and_saved_later),
      TEST(another_server_s_tokens_are_neither_sent_nor_replaced),
      TEST(the_same_server_s_are),
      TEST(and_so_are_those_of_a_file_that_does_not_say),
      TEST(what_another_stores_during_a_pause_is_adopted_and_nothing_sent_again),
      TEST(what_another_stores_is_not_overwritten_by_new_tokens),
      TEST(nor_by_what_clears_the_mark),
      TEST(nor_by_a_senseless_answer),
      TEST(a_record_that_was_only_touched_does_not_stop_new_tokens),
      TEST(a_file_that_was_taken_away_does_not_either_but_no_mark_brings_it_back),
      TEST(what_the_server_said_holds_for_other_processes),
      TEST(but_not_once_the_clock_was_set_back),
      TEST(an_outage_is_covered_up_while_the_token_lives),
      TEST(a_storage_that_fails_stays_in_the_status_until_a_success),
      TEST(an_outage_is_waited_for_when_there_is_no_token),
      TEST(an_outage_ends_with_the_deadline_and_the_mark_is_taken_back),
      TEST(retry_after_is_honoured_up_to_the_deadline),
      TEST(a_lost_answer_is_settled_by_introspection),
      TEST(a_gateway_s_error_is_given_time_before_it_is_asked_about),
      TEST(introspection_that_refuses_is_not_asked_again_and_again),
      TEST(introspection_says_when_to_come_back),
      TEST(a_broken_answer_s_refresh_token_is_found_in_it),
      TEST(but_half_a_refresh_token_is_none),
      TEST(a_spent_token_is_called_lost_and_never_sent_again),
      TEST(a_resend_happens_three_times_at_most),
      TEST(without_introspection_there_is_one_resend_after_a_pause),
      TEST(a_dead_process_s_refresh_is_settled_first),
      TEST(a_dead_process_s_refresh_that_takes_all_the_time_to_settle_is_a_timeout),
      TEST(a_second_unfinished_refresh_is_left_to_the_next_call_once_the_time_is_over),
      TEST(a_dead_process_s_refresh_token_is_sent_behind_a_mark_of_one_s_own),
      TEST(without_introspection_a_dead_process_s_refresh_token_is_sent_again),
      TEST(a_dead_process_s_lost_refresh_names_it),
      TEST(introspection_that_is_not_answered_is_asked_again),
      TEST(a_mark_that_is_of_another_token_counts_for_nothing),
      TEST(a_rejected_token_is_never_served_again),
      TEST(after_a_rejection_another_process_s_token_is_adopted),
      TEST(an_expiry_beyond_the_lifetime_is_not_believed),
      TEST(a_clock_that_was_set_back_does_not_lengthen_a_tokens_life),
      TEST(a_clock_that_was_set_back_a_little_does_not_either),
      TEST(a_token_that_died_by_the_steady_clock_is_not_served_in_an_outage),
      TEST(a_token_with_an_expiry_beyond_its_lifetime_is_served_in_an_outage_alone),
      TEST(but_whoever_had_it_in_use_knows_what_is_left),
      TEST(a_clock_that_was_set_forward_leaves_what_is_left),
      TEST(a_machine_that_slept_past_the_expiry_refreshes),
      TEST(a_lifetime_counts_from_before_the_request),
      TEST(a_token_that_is_not_bearer_is_kept_and_not_served),
      TEST(a_configured_token_that_was_used_elsewhere_is_not_sent),
      TEST(an_outage_of_introspection_spends_no_configured_token),
      TEST(introspection_that_is_refused_is_as_good_as_none),
      TEST(a_record_that_vanishes_does_not_have_its_token_spent_again),
      TEST(what_the_storage_knows_as_spent_is_not_sent_without_introspection_s_word),
      TEST(what_failed_with_the_configured_token_is_remembered_beside_another_record),
      TEST(a_configured_token_is_not_called_spent_while_another_writer_stores_tokens),
      TEST(a_storage_that_was_set_back_has_its_token_asked_about),
      TEST(a_storage_that_keeps_nothing_is_found_before_anything_is_sent),
      TEST(a_storage_that_lags_is_waited_for),
      TEST(a_token_that_died_while_it_was_saved_is_not_handed_out),
      TEST(new_tokens_that_a_storage_drops_stay_in_memory),
      TEST(new_tokens_that_show_late_are_not_saved_twice),
      TEST(side_fields_that_a_storage_drops_do_not_count),
      TEST(a_broken_answer_that_a_storage_drops_stays_in_memory),
      TEST(a_process_knows_a_request_in_doubt_whose_mark_was_forgotten),
      TEST(a_lock_that_is_removed_before_the_request_is_taken_anew),
      TEST(a_refresh_under_a_lock_that_is_gone_is_given_its_time),
      TEST(a_token_that_dies_while_its_time_passes_leaves_a_word),
      TEST(its_answer_is_adopted_meanwhile),
      TEST(under_the_same_lock_its_owner_is_dead),
      TEST(anothers_mark_of_the_same_number_and_moment_is_not_ours),
      TEST(a_process_that_was_stopped_marks_anew_before_it_sends),
      TEST(what_another_process_rejected_is_not_handed_out),
      TEST(a_rejection_is_left_in_the_record_for_others),
      TEST(a_broken_answer_s_refresh_token_is_used_without_introspection),
      TEST(a_server_that_breaks_every_answer_is_left_alone),
      TEST(a_broken_answer_that_a_storage_shows_late_is_used),
      TEST(a_broken_answer_that_is_saved_with_the_loss_keeps_no_lock),
      TEST(a_broken_answer_in_an_old_copy_is_asked_about),
      TEST(a_broken_answer_s_refresh_token_loses_to_no_old_login),
      TEST(a_broken_answer_s_refresh_token_that_cannot_be_saved_is_kept),
      TEST(no_grant_is_called_dead_while_the_storage_cannot_be_read),
      TEST(a_login_is_tried_behind_a_mark_of_its_own),
      TEST(a_failure_without_a_reason_is_no_success),
      TEST(after_any_refusal_a_new_login_is_used),
      TEST(a_new_login_that_is_refused_too_leaves_the_stored_grant),
      TEST(a_new_login_that_was_used_elsewhere_is_not_sent),
      TEST(the_stored_grant_stays_until_the_new_login_has_brought_tokens),
      TEST(a_refusal_of_a_token_that_is_alive_is_the_request_s),
      TEST(a_wrong_client_secret_tries_no_configured_token),
      TEST(tokens_of_another_server_are_not_handed_out),
      TEST(a_child_saves_what_its_parent_could_not),
      TEST(a_child_does_not_save_over_what_its_parent_saved),
      TEST(a_login_starts_an_empty_storage),
      TEST(a_bare_refresh_token_is_refreshed_at_the_next_call),
      TEST(a_login_loses_to_no_refresh_token_that_is_configured),
      TEST(a_grant_that_lives_is_replaced_only_when_told_so),
      TEST(introspection_says_whether_a_grant_without_a_good_access_token_lives),
      TEST(without_an_answer_of_introspection_nothing_is_replaced),
      TEST(without_introspection_a_grant_may_live_until_it_is_known_as_dead),
      TEST(a_grant_that_is_lost_is_replaced),
      TEST(an_access_token_without_a_refresh_token_is_replaced_once_it_has_ended),
      TEST(what_is_damaged_is_kept_in_the_record_that_takes_its_place),
      TEST(a_refresh_in_flight_is_waited_for),
      TEST(a_refresh_under_another_lock_is_waited_for),
      TEST(a_refresh_that_its_process_left_unfinished_is_settled),
      TEST(and_what_it_brings_meanwhile_is_a_grant_that_lives),
      TEST(a_refresh_token_that_was_spent_is_not_stored),
      TEST(a_refresh_token_whose_refresh_is_in_doubt_is_not_stored_again),
      TEST(a_login_that_another_writer_comes_before_is_judged_anew),
      TEST(a_login_that_cannot_be_saved_is_with_its_user_alone),
      TEST(a_login_waits_until_a_storage_of_ones_own_shows_it),
      TEST(a_login_is_not_called_stored_beside_tokens_of_a_parent),
      TEST(a_login_that_is_refused_leaves_the_dead_grant_and_not_the_replaced_one),
      TEST(a_login_that_is_handed_over_late_ends_when_it_ends),
      TEST(the_smallest_lease_outlasts_every_refresh),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
