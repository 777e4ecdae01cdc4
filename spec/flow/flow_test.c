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

struct desk {
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

static void store(struct desk *desk, const char *text)
{
  free(desk->stored);
  desk->stored = text ? strdup(text) : NULL;
}

static int set_up(void **state)
{
  struct desk *desk = calloc(1, sizeof *desk);
  zone_looks = 0;
  desk->settings = (struct flow_settings){.credentials = {.client_id = "cid", .client_secret = "hush"},
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
  desk->now = (struct moment){.wall = NOW, .steady = 50};
  desk->flow = flow_new(&desk->settings, 1);
  desk->replies[0] = ok_reply;
  *state = desk;
  return 0;
}

static int tear_down(void **state)
{
  struct desk *desk = *state;
  flow_free(desk->flow);
  free(desk->stored);
  free(desk);
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

static void log_step(struct desk *desk, const char *word)
{
  strncat(desk->steps, *desk->steps ? " " : "", sizeof desk->steps - strlen(desk->steps) - 1);
  strncat(desk->steps, word, sizeof desk->steps - strlen(desk->steps) - 1);
}

static void fail_event(struct flow_event *event)
{
  event->result = FLOW_FAILED;
  event->code = CODE_STORAGE;
  event->text = "The disk is full.";
}

static void do_load(struct desk *desk, struct flow_event *event)
{
  log_step(desk, "load");
  event->spent = desk->spent;
  event->rejected = desk->rejected;
  bool lies = desk->reads && desk->lies > 0 && strstr(desk->steps, "mark");
  if (lies) {
    desk->lies--;
    event->result = *desk->reads ? FLOW_OK : FLOW_NONE;
    event->text = *desk->reads ? desk->reads : NULL;
  } else if (desk->unreadable_later && desk->introspections > 0) {
    fail_event(event);
  } else if (desk->failing_loads > 0) {
    desk->failing_loads--;
    fail_event(event);
  } else if (!desk->stored) {
    event->result = FLOW_NONE;
  } else {
    event->text = desk->stored;
  }
}

static void pass(struct desk *desk, double seconds)
{
  desk->now.wall += seconds;
  desk->now.steady += seconds;
}

static void do_save(struct desk *desk, const struct flow_action *action, struct flow_event *event)
{
  if (desk->intrudes && !action->spends) {
    log_step(desk, "changed");
    store(desk, desk->intrudes);
    desk->intrudes = NULL;
    event->result = FLOW_CHANGED;
    return;
  }
  log_step(desk, action->spends ? "mark" : "save");
  if (desk->failing_saves > 0 || (!action->spends && desk->fails_after_mark > 0)) {
    desk->failing_saves -= desk->failing_saves > 0;
    desk->fails_after_mark -= !action->spends;
    fail_event(event);
  } else if (!action->spends && desk->forgotten > 0) {
    desk->forgotten--;
  } else {
    store(desk, action->record);
    desk->announcements += action->announces;
    if (!action->spends)
      pass(desk, desk->saving);
    if (action->spends) {
      pass(desk, desk->freezes);
      desk->freezes = 0;
    }
    if (action->spends && desk->removed_locks-- > 0)
      event->result = FLOW_BUSY;
  }
}

static void do_post(struct desk *desk, const struct flow_action *action, struct flow_event *event)
{
  int last = 0;
  while (last + 1 < 8 && (desk->replies[last + 1].status || desk->replies[last + 1].error))
    last++;
  log_step(desk, action->request->endpoint == REQUEST_TOKEN ? "post" : "introspect");
  assert_true(zone_looks > 0 || action->request->endpoint != REQUEST_TOKEN);
  desk->introspections += action->request->endpoint == REQUEST_INTROSPECTION;
  if (action->request->endpoint == REQUEST_INTROSPECTION && desk->says.status) {
    event->reply = &desk->says;
    return;
  }
  snprintf(desk->body, sizeof desk->body, "%s", action->request->body);
  event->reply = &desk->replies[desk->posts < last ? desk->posts : last];
  desk->posts++;
}

static void do_wait(struct desk *desk, const struct flow_action *action)
{
  log_step(desk, "wait");
  desk->waits++;
  desk->waited += action->seconds;
  pass(desk, action->seconds);
  if (desk->appears)
    store(desk, desk->appears);
  desk->appears = NULL;
}

static struct flow_event carry_out(struct desk *desk, const struct flow_action *action)
{
  struct flow_event event = {.result = FLOW_OK};
  if (action->step == FLOW_LOAD)
    do_load(desk, &event);
  else if (action->step == FLOW_SAVE)
    do_save(desk, action, &event);
  else if (action->step == FLOW_POST)
    do_post(desk, action, &event);
  else if (action->step == FLOW_WAIT)
    do_wait(desk, action);
  else if (action->step == FLOW_HOLD)
    log_step(desk, "hold");
  else if (action->step == FLOW_UNLOCK) {
    log_step(desk, "unlock");
    pass(desk, desk->unlocking);
  } else if (action->step == FLOW_LOCK) {
    log_step(desk, "lock");
    event.result = desk->busy-- > 0 ? FLOW_BUSY : FLOW_OK;
    event.text = desk->lock;
  }
  event.now = desk->now;
  return event;
}

static void start(struct desk *desk, enum flow_goal goal)
{
  flow_start(desk->flow, goal, desk->now, desk->now.steady + desk->settings.timeout);
  if (goal == FLOW_STORE) {
    struct answer given;
    const struct answer_context context = {.now = desk->now.wall, .default_lifetime = HOUR};
    assert_null(given_read(&given, desk->given, strlen(desk->given), &context));
    flow_give(desk->flow, &given, desk->replaces);
  }
}

static const struct flow_outcome *fly(struct desk *desk, enum flow_goal goal)
{
  desk->steps[0] = '\0';
  desk->posts = desk->waits = desk->introspections = 0;
  desk->waited = 0;
  start(desk, goal);
  struct flow_event event = {.now = desk->now};
  struct flow_action action = flow_next(desk->flow, &event);
  for (int i = 0; action.step != FLOW_DONE; i++) {
    assert_true(i < 5000);
    event = carry_out(desk, &action);
    action = flow_next(desk->flow, &event);
  }
  return flow_outcome(desk->flow);
}

static const struct flow_outcome *token(struct desk *desk)
{
  return fly(desk, FLOW_TOKEN);
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

static void check_trouble(const struct desk *desk, enum code code, const char *part)
{
  struct flow_status status = flow_status(desk->flow);
  assert_string_equal(code_name(status.last_code), code_name(code));
  assert_non_null(strstr(status.last_error, part));
}

/* ---- the straight way ---- */

static void a_fresh_record_is_served_without_a_lock(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW + HOUR));
  const struct flow_outcome *outcome = token(desk);
  check_token(outcome, "A1");
  assert_string_equal(desk->steps, "load");
  assert_true(outcome->refresh_at.wall == NOW + HOUR - 300);
  assert_true(outcome->dead_at.wall == NOW + HOUR);
  assert_true(outcome->refresh_at.steady == desk->now.steady + HOUR - 300);
  assert_true(outcome->dead_at.steady == desk->now.steady + HOUR);
}

static void an_expired_record_is_refreshed_under_the_lock(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  const struct flow_outcome *outcome = token(desk);
  check_token(outcome, "A2");
  assert_string_equal(desk->steps, "load lock load hold mark post save unlock");
  assert_non_null(strstr(desk->body, "\"refresh_token\":\"R1\""));
  assert_non_null(strstr(desk->stored, "\"refresh_token\":\"R2\""));
  assert_non_null(strstr(desk->stored, "\"extra\":[1]"));
  assert_null(strstr(desk->stored, "pending"));
  assert_true(noted(outcome, FLOW_REFRESHED));
  check_token(token(desk), "A2");
  assert_string_equal(desk->steps, "load");
}

static void a_refresh_starts_ahead_of_the_expiry(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW + 299));
  check_token(token(desk), "A2");
}

static void an_empty_storage_starts_from_the_configured_token(void **state)
{
  struct desk *desk = *state;
  desk->says = alive_reply;
  desk->settings.refresh_token = "R0";
  check_token(token(desk), "A2");
  assert_string_equal(desk->steps, "load lock load introspect hold mark post save unlock");
  assert_non_null(strstr(desk->body, "\"refresh_token\":\"R0\""));
  assert_non_null(strstr(desk->stored, "\"origin\""));
}

static void without_any_refresh_token_the_message_says_what_to_set(void **state)
{
  struct desk *desk = *state;
  check_failure(token(desk), CODE_CONFIG, "LUCID_REFRESH_TOKEN (or the option refresh_token)");
}

static void without_a_client_id_a_good_token_is_served_and_a_refresh_is_not_tried(void **state)
{
  struct desk *desk = *state;
  desk->settings.credentials.client_id = NULL;
  store(desk, record("A1", "R1", NOW + HOUR));
  check_token(token(desk), "A1");
  store(desk, record("A1", "R1", NOW - 1));
  check_failure(token(desk), CODE_CONFIG, "LUCID_CLIENT_ID (option client_id)");
  assert_string_equal(desk->steps, "load");
}

static void what_another_process_refreshed_is_adopted_under_the_lock(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->busy = 1;
  desk->appears = record("A9", "R9", NOW + HOUR);
  check_token(token(desk), "A9");
  assert_string_equal(desk->steps, "load lock wait load");
  assert_int_equal(desk->posts, 0);
}

static void refresh_asks_for_a_new_token_whatever_the_expiry(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW + HOUR));
  check_token(token(desk), "A1");
  check_token(fly(desk, FLOW_REFRESH), "A2");
  assert_int_equal(desk->posts, 1);
}

/* ---- locks ---- */

static void a_busy_lock_is_waited_for_only_briefly_while_the_token_lives(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW + 100));
  desk->busy = 100000;
  double began = desk->now.steady;
  check_token(token(desk), "A1");
  assert_true(desk->now.steady - began >= 2 && desk->waited < 2.002);
  assert_int_equal(desk->posts, 0);
}

static void a_busy_lock_ends_at_the_callers_deadline(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->busy = 100000;
  double began = desk->now.steady;
  check_failure(token(desk), CODE_TIMEOUT, "another process was refreshing");
  assert_true(desk->now.steady - began >= 30 && desk->waited < 30.002);
}

static void a_lock_that_is_held_for_too_long_is_reported(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->busy = 100000;
  token(desk);
  check_failure(token(desk), CODE_LOCKED, "has been held for 60 seconds by another process");
  check_failure(token(desk), CODE_LOCKED, "end it, and its lock ends with it");
}

/* It may be the only one that has the new tokens. */
static void nobody_is_told_to_kill_a_process_that_refreshes(void **state)
{
  struct desk *desk = *state;
  store(desk, marked("R1"));
  flow_reject(desk->flow, "A1");
  desk->busy = 100000;
  check_failure(token(desk), CODE_TIMEOUT, "process 7 on elsewhere");
  check_failure(token(desk), CODE_LOCKED, "process 7 on elsewhere");
  check_failure(token(desk), CODE_LOCKED, "do not kill it");
}

/* Nobody knows whether who took it still runs, and the lock does not end with it. */
static void a_programs_own_lock_needs_a_lease(void **state)
{
  struct desk *desk = *state;
  desk->settings.reads_back = true;
  store(desk, record("A1", "R1", NOW - 1));
  desk->busy = 100000;
  token(desk);
  for (int marks = 0; marks < 2; marks++) {
    check_failure(token(desk), CODE_LOCKED, "a lock needs a lease");
    assert_null(strstr(flow_outcome(desk->flow)->message, "end it"));
    assert_null(strstr(flow_outcome(desk->flow)->message, "kill"));
    store(desk, marked("R1"));
    flow_reject(desk->flow, "A1");
  }
  assert_non_null(strstr(flow_outcome(desk->flow)->message, "process 7 on elsewhere"));
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
  struct desk *desk = *state;
  desk->settings.account = "anna\n";
  desk->settings.token_url = "https://api.lucid.co/oauth2/token";
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    store(desk, *cases[i].stored ? cases[i].stored : NULL);
    if (cases[i].answer)
      desk->replies[0] = answer(400, cases[i].answer);
    check_failure(token(desk), cases[i].code, "account \"anna\\n\"");
    const char *message = flow_outcome(desk->flow)->message;
    assert_null(strstr(message, "takes the dead one's place"));
    assert_true(*message >= 'A' && *message <= 'Z');
  }
  store(desk, "{\"refresh_token\":\"RD\"}");
  desk->busy = 100000;
  token(desk);
  check_failure(token(desk), CODE_LOCKED, "account \"anna\\n\"");
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
                                     OF_APP("hidden-refresh-token", "\"hidden-refresh-token\"")};
  struct desk *desk = *state;
  for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
    store(desk, records[i]);
    desk->replies[0] = answer(400, refusals[i]);
    token(desk);
    assert_non_null(strstr(flow_outcome(desk->flow)->message, "belong to the app their\\napp, and this client is cid"));
  }
  for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
    store(desk, ours[i]);
    desk->replies[0] = answer(400, refusals[0]);
    check_failure(token(desk), CODE_INVALID_GRANT, "Log in");
    assert_null(strstr(flow_outcome(desk->flow)->message, "belong to the app"));
  }
}

static void another_apps_tokens_are_not_refused_ahead_of_the_server(void **state)
{
  struct desk *desk = *state;
  store(desk, OF_APP("R1", "\"their app\""));
  check_token(token(desk), "A2");
}

/* ---- storage ---- */

static void a_storage_that_cannot_be_written_costs_no_refresh_token(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->failing_saves = 1;
  check_failure(token(desk), CODE_STORAGE, "The disk is full.");
  assert_string_equal(desk->steps, "load lock load hold mark unlock");
}

static void tokens_that_cannot_be_saved_are_served_and_saved_later(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  token(desk);
  desk->now.wall += HOUR;
  desk->replies[0] = answer(200, "{\"access_token\":\"A3\",\"refresh_token\":\"R3\",\"expires_in\":3600}");
  desk->settings.refresh_before = 0;
  desk->failing_saves = 0;
  struct flow_event event = {.now = desk->now};
  flow_start(desk->flow, FLOW_TOKEN, desk->now, desk->now.steady + 30);
  desk->steps[0] = '\0';
  struct flow_action action = flow_next(desk->flow, &event);
  while (action.step != FLOW_DONE) {
    if (action.step == FLOW_SAVE && !action.spends)
      desk->failing_saves = 1;
    event = carry_out(desk, &action);
    action = flow_next(desk->flow, &event);
  }
  check_token(flow_outcome(desk->flow), "A3");
  assert_string_equal(desk->steps, "load lock load hold mark post save");
  assert_true(noted(flow_outcome(desk->flow), FLOW_SAVE_FAILED));
  assert_true(flow_unsaved(desk->flow));
  check_trouble(desk, CODE_STORAGE, "in this process's memory");
  const struct flow_outcome *outcome = token(desk);
  check_token(outcome, "A3");
  assert_string_equal(desk->steps, "load save unlock");
  assert_true(noted(outcome, FLOW_SAVED));
  assert_false(flow_unsaved(desk->flow));
  assert_non_null(strstr(desk->stored, "R3"));
  check_trouble(desk, CODE_OK, "");
}

static void a_damaged_record_is_left_alone(void **state)
{
  struct desk *desk = *state;
  static const char *const damaged[] = {"", "{", "[]", "null", "{\"a\":1}", "hello", "{\"access_token\":\"\"}"};
  desk->settings.refresh_token = "R0";
  for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++) {
    store(desk, damaged[i]);
    check_failure(token(desk), CODE_STORAGE, "does not hold a token record");
    assert_string_equal(desk->steps, "load wait load wait load wait load");
    assert_string_equal(desk->stored, damaged[i]);
  }
}

static void a_record_that_is_just_being_rewritten_is_waited_for(void **state)
{
  struct desk *desk = *state;
  store(desk, "{\"access_token\": \"A1");
  desk->appears = record("A1", "R1", NOW + HOUR);
  check_token(token(desk), "A1");
  assert_string_equal(desk->steps, "load wait load");
}

static void an_unreadable_storage_does_not_take_the_token_away(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW + 400));
  check_token(token(desk), "A1");
  desk->now.wall += 200;
  desk->failing_loads = 1;
  const struct flow_outcome *outcome = token(desk);
  check_token(outcome, "A1");
  assert_true(noted(outcome, FLOW_REFRESH_FAILED));
}

/* ---- the server says no ---- */

static void a_refusal_keeps_the_record_and_is_remembered(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = answer(400, "{\"error\":\"invalid_grant\"}");
  check_failure(token(desk), CODE_INVALID_GRANT, "Log in to Lucid again");
  assert_string_equal(desk->steps, "load lock load hold mark post load wait load wait load wait load save unlock");
  assert_non_null(strstr(desk->stored, "R1"));
  assert_null(strstr(desk->stored, "pending"));
  for (int i = 0; i < 100; i++) {
    check_failure(token(desk), CODE_INVALID_GRANT, "Log in to Lucid again");
    assert_int_equal(desk->posts, 0);
  }
  store(desk, record("A5", "R5", NOW + HOUR));
  check_token(token(desk), "A5");
}

static void a_refusal_looks_again_before_it_is_believed(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = answer(400, "{\"error\":\"invalid_grant\"}");
  desk->appears = record("A9", "R9", NOW + HOUR);
  const struct flow_outcome *outcome = token(desk);
  check_token(outcome, "A9");
  assert_int_equal(desk->posts, 1);
  assert_non_null(strstr(desk->stored, "R9"));
}

static void a_new_login_takes_a_dead_grants_place(void **state)
{
  struct desk *desk = *state;
  desk->says = alive_reply;
  desk->settings.refresh_token = "R0";
  token(desk);
  desk->settings.refresh_token = "NEW";
  check_token(token(desk), "A2");
  assert_string_equal(desk->steps, "load");
  desk->now.wall += HOUR;
  desk->replies[0] = answer(400, "{\"error\":\"invalid_grant\"}");
  desk->replies[1] = answer(200, "{\"access_token\":\"A7\",\"refresh_token\":\"R7\"}");
  check_token(token(desk), "A7");
  assert_non_null(strstr(desk->body, "\"refresh_token\":\"NEW\""));
  assert_int_equal(desk->posts, 2);
}

static void the_token_a_dead_grant_started_from_is_not_tried_again(void **state)
{
  struct desk *desk = *state;
  desk->says = alive_reply;
  desk->settings.refresh_token = "R0";
  token(desk);
  desk->now.wall += HOUR;
  desk->replies[0] = answer(400, "{\"error\":\"invalid_grant\"}");
  check_failure(token(desk), CODE_INVALID_GRANT, "Log in");
  assert_int_equal(desk->posts, 1);
}

static void a_wrong_client_secret_erases_nothing(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = answer(403, "{\"error\":\"invalid_client\"}");
  check_failure(token(desk), CODE_INVALID_CLIENT, "LUCID_CLIENT_SECRET");
  assert_string_equal(desk->steps, "load lock load hold mark post save unlock");
  assert_non_null(strstr(desk->stored, "R1"));
}

/* ---- another provider ---- */

static void check_provider(struct desk *desk, enum code code, const char *needle)
{
  check_failure(token(desk), code, needle);
  assert_null(strstr(flow_outcome(desk->flow)->message, "Lucid"));
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
  struct desk *desk = *state;
  desk->settings.another_provider = true;
  desk->settings.introspection = false;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char refresh_token[] = {'R', (char)('a' + i), '\0'}; /* another one's failure is remembered */
    store(desk, record("A1", refresh_token, NOW - 1));
    desk->replies[0] = cases[i].reply;
    check_provider(desk, cases[i].code, cases[i].needle);
  }
}

static void another_provider_need_not_know_a_secret(void **state)
{
  struct desk *desk = *state;
  desk->settings.another_provider = true;
  desk->settings.introspection = false;
  desk->settings.credentials.client_secret = NULL;
  store(desk, record("A1", "R1", NOW - 1));
  check_provider(desk, CODE_CONFIG, "client_secret = false");
  desk->settings.credentials.client_secret = "";
  desk->replies[0] = answer(401, "{\"error\":\"invalid_client\"}");
  check_provider(desk, CODE_INVALID_CLIENT, "if the app has one, set LUCID_CLIENT_SECRET");
  desk->settings.credentials.client_id = NULL;
  store(desk, record("A1", "R2", NOW - 1));
  check_provider(desk, CODE_CONFIG, "LUCID_CLIENT_ID");
  store(desk, NULL);
  check_provider(desk, CODE_CONFIG, "Log in to the provider");
  store(desk, "no record");
  check_provider(desk, CODE_STORAGE, "log in to the provider");
}

static void what_is_sent_besides_is_in_no_message(void **state)
{
  static const char *const parameters[] = {"first", "hidden-value-1", "second", "hidden-value-2", NULL};
  struct desk *desk = *state;
  desk->settings.credentials.parameters = parameters;
  desk->settings.introspection = false;
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = answer(400, "{\"error\":\"invalid_request\",\"error_description\":\"what is hidden-value-2\"}");
  check_failure(token(desk), CODE_BAD_RESPONSE, "left out");
  assert_null(strstr(flow_outcome(desk->flow)->message, "hidden"));
  assert_non_null(strstr(desk->body, "\"second\":\"hidden-value-2\""));
}

/* ---- what comes from outside ---- */

static void names_from_outside_forge_no_line(void **state)
{
  struct desk *desk = *state;
  desk->settings.account = "anna\nERROR: \x1B[2J\xE2\x80\xAE";
  desk->settings.storage = "a\rfile";
  check_failure(token(desk), CODE_CONFIG, "\"anna\\nERROR: \\x1b[2J\\u202e\": the token storage a\\rfile is empty");
  desk->settings.token_url = "https://api.lucid.co/oauth2/token";
  store(desk, "{\"access_token\":\"A1\",\"refresh_token\":\"R1\",\"expires_at\":1,\"server\":\"https://x\\u0007\\n\"}");
  check_failure(token(desk), CODE_CONFIG, "issued by https://x\\x07\\n, and");
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
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  no_memory = true;
  const struct flow_outcome *outcome = token(desk);
  no_memory = false;
  check_token(outcome, "A2");
  assert_true(noted(outcome, FLOW_SAVE_FAILED));
  assert_true(flow_unsaved(desk->flow));
  desk->replies[0] = answer(200, "{\"access_token\":\"A3\",\"refresh_token\":\"R3\",\"expires_in\":3600}");
  check_token(token(desk), "A3");
  assert_non_null(strstr(desk->body, "\"R2\""));
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
  struct desk *desk = *state;
  desk->settings.token_url = "http://127.0.0.1:8080/oauth2/token";
  desk->settings.refresh_token = "R0";
  store(desk, issued_by("https://api.lucid.co"));
  check_failure(token(desk), CODE_CONFIG, "issued by https://api.lucid.co");
  check_failure(fly(desk, FLOW_REFRESH), CODE_CONFIG, "LUCID_TOKEN_FILE");
  assert_int_equal(desk->posts, 0);
  assert_non_null(strstr(desk->stored, "R1"));
}

static void the_same_server_s_are(void **state)
{
  static const char *const urls[][3] = {
      {"https://api.lucid.co", "https://API.lucid.co/v2/token", "https://API.lucid.co"},
      {"http://127.0.0.1:8080", "http://localhost:9090/oauth2/token", "http://localhost:9090"},
  };
  for (size_t i = 0; i < 2; i++) {
    struct desk *desk = *state;
    desk->settings.token_url = urls[i][1];
    store(desk, issued_by(urls[i][0]));
    check_token(token(desk), "A2");
    assert_non_null(strstr(desk->stored, urls[i][2]));
    tear_down(state);
    set_up(state);
  }
}

static void and_so_are_those_of_a_file_that_does_not_say(void **state)
{
  struct desk *desk = *state;
  desk->settings.token_url = "https://api.lucid.co/oauth2/token";
  store(desk, record("A1", "R1", NOW - 1));
  check_token(token(desk), "A2");
  assert_non_null(strstr(desk->stored, "\"server\":\"https://api.lucid.co\""));
}

/* ---- a program that takes no lock, or a new login ---- */

static void what_another_stores_during_a_pause_is_adopted_and_nothing_sent_again(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = not_sent;
  desk->appears = record("A9", "R9", NOW + HOUR);
  check_token(token(desk), "A9");
  assert_string_equal(desk->steps, "load lock load hold mark post wait load unlock");
}

static void what_another_stores_is_not_overwritten_by_new_tokens(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->intrudes = record("A9", "R9", NOW + HOUR);
  check_token(token(desk), "A9");
  assert_string_equal(desk->steps, "load lock load hold mark post changed load unlock");
  assert_non_null(strstr(desk->stored, "R9"));
}

static void nor_by_what_clears_the_mark(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = answer(403, "{\"error\":\"invalid_client\"}");
  desk->intrudes = record("A9", "R9", NOW + HOUR);
  check_token(token(desk), "A9");
  assert_non_null(strstr(desk->stored, "R9"));
}

static void nor_by_a_senseless_answer(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = answer(200, "<html>");
  desk->intrudes = record("A9", "R9", NOW + HOUR);
  check_token(token(desk), "A9");
  assert_string_equal(desk->steps, "load lock load hold mark post changed load unlock");
}

static void a_record_that_was_only_touched_does_not_stop_new_tokens(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->intrudes = record("A1", "R1", NOW - 2);
  check_token(token(desk), "A2");
  assert_string_equal(desk->steps, "load lock load hold mark post changed load save unlock");
  assert_non_null(strstr(desk->stored, "R2"));
}

static void a_file_that_was_taken_away_does_not_either_but_no_mark_brings_it_back(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = answer(403, "{\"error\":\"invalid_client\"}");
  desk->intrudes = "";
  check_failure(token(desk), CODE_INVALID_CLIENT, "");
  assert_string_equal(desk->stored, "");
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = ok_reply;
  desk->intrudes = "";
  flow_free(desk->flow);
  desk->flow = flow_new(&desk->settings, 1);
  check_token(token(desk), "A2");
  assert_non_null(strstr(desk->stored, "R2"));
}

/* ---- the server says later ---- */

static struct flow *another_process(struct desk *desk)
{
  flow_free(desk->flow);
  desk->flow = flow_new(&desk->settings, 2);
  return desk->flow;
}

static void what_the_server_said_holds_for_other_processes(void **state)
{
  struct desk *desk = *state;
  desk->settings.timeout = 1;
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = answer(503, "");
  desk->replies[0].retry_after = "600";
  check_failure(token(desk), CODE_SERVER_ERROR, "later");
  another_process(desk);
  check_failure(token(desk), CODE_SERVER_ERROR, "later");
  assert_int_equal(desk->posts, 0);
}

static void but_not_once_the_clock_was_set_back(void **state)
{
  struct desk *desk = *state;
  what_the_server_said_holds_for_other_processes(state);
  desk->now.wall -= 24 * HOUR;
  another_process(desk);
  desk->replies[0] = ok_reply;
  check_token(token(desk), "A2");
}

static void an_outage_is_covered_up_while_the_token_lives(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW + 100));
  desk->replies[0] = not_sent;
  const struct flow_outcome *outcome = token(desk);
  check_token(outcome, "A1");
  assert_true(noted(outcome, FLOW_REFRESH_FAILED));
  assert_int_equal(desk->posts, 1);
  assert_int_equal(desk->waits, 0);
  assert_true(outcome->refresh_at.wall > NOW);
  check_token(token(desk), "A1");
  assert_int_equal(desk->posts, 0);
}

/* ---- the status ---- */

static void a_storage_that_fails_stays_in_the_status_until_a_success(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW + 100));
  desk->failing_saves = 1;
  check_token(token(desk), "A1");
  check_trouble(desk, CODE_STORAGE, "The disk is full.");
  fly(desk, FLOW_LOOK);
  check_trouble(desk, CODE_STORAGE, "The disk is full.");
  check_token(token(desk), "A2");
  check_trouble(desk, CODE_OK, "");
}

static void an_outage_is_waited_for_when_there_is_no_token(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = desk->replies[1] = not_sent;
  desk->replies[2] = ok_reply;
  check_token(token(desk), "A2");
  assert_string_equal(desk->steps, "load lock load hold mark post wait load post wait load post save unlock");
}

static void an_outage_ends_with_the_deadline_and_the_mark_is_taken_back(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = not_sent;
  check_failure(token(desk), CODE_NETWORK, "tries again");
  assert_true(desk->waited <= 30);
  assert_null(strstr(desk->stored, "pending"));
}

static void retry_after_is_honoured_up_to_the_deadline(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = answer(429, "slow down");
  desk->replies[0].retry_after = "20";
  desk->replies[1] = ok_reply;
  check_token(token(desk), "A2");
  assert_true(desk->waited >= 20);
  desk->now.wall += HOUR;
  desk->replies[0].retry_after = "120";
  check_failure(token(desk), CODE_RATE_LIMITED, "later");
  assert_int_equal(desk->waits, 0);
  desk->now.steady += 60;
  check_failure(token(desk), CODE_RATE_LIMITED, "later");
  assert_int_equal(desk->posts, 0);
}

/* ---- doubt ---- */

static void a_lost_answer_is_settled_by_introspection(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = lost;
  desk->replies[1] = answer(200, "{\"active\":true}");
  desk->replies[2] = ok_reply;
  check_token(token(desk), "A2");
  assert_string_equal(desk->steps, "load lock load hold mark post wait introspect load post save unlock");
}

/* The gateway gives up; the server behind it does not know, and rotates a moment later. */
static void a_gateway_s_error_is_given_time_before_it_is_asked_about(void **state)
{
  static const int statuses[] = {500, 502, 504};
  for (size_t i = 0; i < 3; i++) {
    struct desk *desk = *state;
    store(desk, record("A1", "R1", NOW - 1));
    desk->replies[0] = answer(statuses[i], "");
    desk->replies[1] = answer(200, "{\"active\":false}");
    check_failure(token(desk), CODE_LOST_ROTATION, "");
    assert_true(desk->waited >= (statuses[i] == 500 ? 1 : 5));
    assert_non_null(strstr(desk->steps, "post save wait introspect"));
    tear_down(state);
    set_up(state);
  }
}

static void introspection_that_refuses_is_not_asked_again_and_again(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = lost;
  desk->says = answer(404, "");
  desk->replies[1] = answer(400, "{\"error\":\"invalid_grant\"}");
  check_failure(token(desk), CODE_LOST_ROTATION, "introspection_url = false");
  assert_int_equal(desk->introspections, 1);
  assert_int_equal(desk->posts, 2);
}

static void introspection_says_when_to_come_back(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = lost;
  desk->replies[1] = answer(429, "");
  desk->replies[1].retry_after = "600";
  check_failure(token(desk), CODE_RATE_LIMITED, "");
  assert_int_equal(desk->posts, 2);
  assert_true(flow_status(desk->flow).retry_at >= desk->now.steady + 590);
}

static void a_broken_answer_s_refresh_token_is_found_in_it(void **state)
{
  static const char *const bodies[] = {"{\"access_token\":\"A2\",\"refresh_token\" : \"R2\",\"expi",
                                       "{\"access_token\":\"A2\",\"refresh_token\":\"R2\",}"};
  for (size_t i = 0; i < 2; i++) {
    struct desk *desk = *state;
    store(desk, record("A1", "R1", NOW - 1));
    desk->replies[0] = answer(200, bodies[i]);
    if (i == 0)
      desk->replies[0].delivery = REPLY_LOST;
    desk->replies[1] = answer(200, "{\"active\":false}");
    desk->replies[2] = answer(200, "{\"access_token\":\"A3\",\"refresh_token\":\"R3\",\"expires_in\":3600}");
    const struct flow_outcome *outcome = token(desk);
    check_token(outcome, "A3");
    assert_non_null(strstr(desk->body, "\"R2\""));
    assert_true(noted(outcome, FLOW_RECOVERED));
    assert_null(strstr(desk->stored, "pending"));
    tear_down(state);
    set_up(state);
  }
}

static void but_half_a_refresh_token_is_none(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = answer(200, "{\"access_token\":\"A2\",\"refresh_token\":\"R2");
  desk->replies[1] = answer(200, "{\"active\":false}");
  check_failure(token(desk), CODE_LOST_ROTATION, "");
  assert_int_equal(desk->posts, 2);
}

static void a_spent_token_is_called_lost_and_never_sent_again(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW + 100));
  desk->replies[0] = answer(200, "<html>");
  desk->replies[1] = answer(200, "{\"active\":false}");
  const struct flow_outcome *outcome = token(desk);
  check_failure(outcome, CODE_LOST_ROTATION, "process 42 on here");
  assert_true(noted(outcome, FLOW_LOST));
  assert_string_equal(
      desk->steps, "load lock load hold mark post save wait introspect load wait load wait load wait load save unlock");
  assert_non_null(strstr(desk->stored, "<html>"));
  check_failure(token(desk), CODE_LOST_ROTATION, "Log in to Lucid again");
  assert_int_equal(desk->posts, 0);
}

static void a_resend_happens_three_times_at_most(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  for (int i = 0; i < 8; i += 2) {
    desk->replies[i] = lost;
    desk->replies[i + 1] = answer(200, "{\"active\":true}");
  }
  check_failure(token(desk), CODE_NETWORK, "in a row");
  assert_int_equal(desk->posts, 8);
  assert_null(strstr(desk->stored, "pending"));
}

static void without_introspection_there_is_one_resend_after_a_pause(void **state)
{
  struct desk *desk = *state;
  desk->settings.introspection = false;
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = lost;
  desk->replies[1] = ok_reply;
  check_token(token(desk), "A2");
  assert_string_equal(desk->steps, "load lock load hold mark post wait load post save unlock");
  desk->now.wall += HOUR;
  desk->replies[1] = answer(400, "{\"error\":\"invalid_grant\"}");
  check_failure(token(desk), CODE_LOST_ROTATION, "the new tokens are lost");
}

static void a_dead_process_s_refresh_is_settled_first(void **state)
{
  struct desk *desk = *state;
  store(desk, marked("R1"));
  desk->replies[0] = answer(200, "{\"active\":true}");
  desk->replies[1] = ok_reply;
  const struct flow_outcome *outcome = token(desk);
  check_token(outcome, "A2");
  assert_true(noted(outcome, FLOW_RECOVERED));
  assert_string_equal(desk->steps, "load lock load wait introspect hold mark post save unlock");
}

static void a_dead_process_s_refresh_that_takes_all_the_time_to_settle_is_a_timeout(void **state)
{
  struct desk *desk = *state;
  desk->settings.timeout = 0.5;
  store(desk, marked("R1"));
  desk->now.wall = 999990; /* the mark was set just now */
  flow_reject(desk->flow, "A1");
  desk->replies[0] = answer(200, "{\"active\":true}");
  desk->replies[1] = ok_reply;
  check_failure(token(desk), CODE_TIMEOUT, "still alive");
  assert_string_equal(desk->steps, "load lock load wait introspect save unlock");
}

/* Else it would be spent without knowing whether its successor can be saved, and nobody would be told. */
static void a_dead_process_s_refresh_token_is_sent_behind_a_mark_of_one_s_own(void **state)
{
  struct desk *desk = *state;
  store(desk, marked("R1"));
  flow_reject(desk->flow, "A1");
  desk->replies[0] = answer(200, "{\"active\":true}");
  desk->failing_saves = 1;
  check_failure(token(desk), CODE_STORAGE, "");
  assert_string_equal(desk->steps, "load lock load wait introspect hold mark unlock");
  assert_non_null(strstr(desk->stored, "elsewhere"));
  desk->replies[1] = answer(200, "{\"active\":true}");
  desk->replies[2] = answer(200, "{}");
  desk->replies[3] = answer(200, "{\"active\":false}");
  check_failure(token(desk), CODE_LOST_ROTATION, "");
  assert_null(strstr(desk->stored, "elsewhere"));
}

static void without_introspection_a_dead_process_s_refresh_token_is_sent_again(void **state)
{
  struct desk *desk = *state;
  desk->settings.introspection = false;
  store(desk, marked("R1"));
  desk->replies[0] = answer(400, "{\"error\":\"invalid_grant\"}");
  check_failure(token(desk), CODE_LOST_ROTATION, "process 7 on elsewhere");
  assert_int_equal(strncmp(desk->steps, "load lock load wait hold mark post", 29), 0);
  assert_non_null(strstr(desk->stored, "elsewhere"));
}

static void a_dead_process_s_lost_refresh_names_it(void **state)
{
  struct desk *desk = *state;
  store(desk, marked("R1"));
  desk->replies[0] = answer(200, "{\"active\":false}");
  check_failure(token(desk), CODE_LOST_ROTATION, "process 7 on elsewhere");
  assert_non_null(strstr(desk->stored, "pending"));
}

static void introspection_that_is_not_answered_is_asked_again(void **state)
{
  struct desk *desk = *state;
  store(desk, marked("R1"));
  flow_reject(desk->flow, "A1");
  desk->replies[0] = not_sent;
  desk->replies[1] = answer(200, "{\"active\":true}");
  desk->replies[2] = ok_reply;
  check_token(token(desk), "A2");
  assert_string_equal(desk->steps, "load lock load wait introspect wait introspect hold mark post save unlock");
}

static void a_mark_that_is_of_another_token_counts_for_nothing(void **state)
{
  struct desk *desk = *state;
  char text[600];
  snprintf(text, sizeof text, "%s", marked("R1"));
  memcpy(strstr(text, "\"R1\""), "\"RX\"", 4);
  store(desk, text);
  check_token(token(desk), "A1");
}

/* ---- rejection and clocks ---- */

static void a_rejected_token_is_never_served_again(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW + HOUR));
  check_token(token(desk), "A1");
  flow_reject(desk->flow, "A1");
  desk->replies[0] = not_sent;
  check_failure(token(desk), CODE_NETWORK, "");
  desk->now.steady += 1000;
  desk->now.wall += 1000;
  desk->replies[0] = ok_reply;
  check_token(token(desk), "A2");
}

static void after_a_rejection_another_process_s_token_is_adopted(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW + HOUR));
  token(desk);
  store(desk, record("A9", "R9", NOW + HOUR));
  flow_reject(desk->flow, "A1");
  check_token(token(desk), "A9");
  assert_int_equal(desk->posts, 0);
}

static void an_expiry_beyond_the_lifetime_is_not_believed(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW + 10 * HOUR));
  check_token(token(desk), "A2");
}

static void a_clock_that_was_set_back_does_not_lengthen_a_tokens_life(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW + HOUR));
  check_token(token(desk), "A1");
  desk->now.wall -= 5 * HOUR;
  check_token(token(desk), "A2");
  assert_true(flow_outcome(desk->flow)->dead_at.wall == NOW - 4 * HOUR);
}

/* So little that the stored expiry still looks right. */
static void a_clock_that_was_set_back_a_little_does_not_either(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW + HOUR));
  check_token(token(desk), "A1");
  pass(desk, HOUR / 2);
  desk->now.wall -= HOUR / 3;
  check_token(token(desk), "A1");
  pass(desk, HOUR / 2);
  check_token(token(desk), "A2");
}

static void a_token_that_died_by_the_steady_clock_is_not_served_in_an_outage(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW + HOUR));
  check_token(token(desk), "A1");
  pass(desk, HOUR);
  desk->now.wall -= HOUR / 3;
  desk->replies[0] = not_sent;
  check_failure(token(desk), CODE_NETWORK, "untouched");
}

/* It may live, and there is nothing better. */
static void a_token_with_an_expiry_beyond_its_lifetime_is_served_in_an_outage_alone(void **state)
{
  struct desk *desk = *state;
  store(desk, "{\"access_token\":\"A1\",\"refresh_token\":\"R1\",\"expires_in\":3600,\"expires_at\":1e15,"
              "\"obtained_at\":1000}");
  desk->replies[0] = not_sent;
  const struct flow_outcome *outcome = token(desk);
  check_token(outcome, "A1");
  assert_int_equal(desk->posts, 1);
  assert_true(noted(outcome, FLOW_REFRESH_FAILED));
}

static void but_whoever_had_it_in_use_knows_what_is_left(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW + HOUR));
  check_token(token(desk), "A1");
  desk->now.wall -= 5 * HOUR;
  desk->replies[0] = not_sent;
  check_token(token(desk), "A1");
  pass(desk, HOUR);
  check_failure(token(desk), CODE_NETWORK, "");
}

static void a_clock_that_was_set_forward_leaves_what_is_left(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW + HOUR));
  check_token(token(desk), "A1");
  desk->now.wall += HOUR / 2;
  check_token(token(desk), "A1");
  assert_string_equal(desk->steps, "load");
}

static void a_machine_that_slept_past_the_expiry_refreshes(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW + HOUR));
  check_token(token(desk), "A1");
  desk->now.wall += HOUR;
  check_token(token(desk), "A2");
}

static void a_lifetime_counts_from_before_the_request(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  const struct flow_outcome *outcome = token(desk);
  assert_true(outcome->dead_at.wall == NOW + HOUR);
}

static void a_token_that_is_not_bearer_is_kept_and_not_served(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = answer(200, "{\"access_token\":\"A2\",\"refresh_token\":\"R2\",\"token_type\":\"mac\"}");
  check_failure(token(desk), CODE_BAD_RESPONSE, "");
  assert_non_null(strstr(desk->stored, "R2"));
  check_failure(token(desk), CODE_BAD_RESPONSE, "Bearer");
  assert_int_equal(desk->posts, 0);
}

/* ---- empty is not unused ---- */

static void a_configured_token_that_was_used_elsewhere_is_not_sent(void **state)
{
  struct desk *desk = *state;
  desk->says = dead_reply;
  desk->settings.refresh_token = "R0";
  check_failure(token(desk), CODE_INVALID_GRANT, "was used before, or it has expired");
  assert_int_equal(desk->posts, 0);
  assert_null(desk->stored);
  check_failure(token(desk), CODE_INVALID_GRANT, "No successor of it is stored in the token storage");
  assert_int_equal(desk->introspections, 0);
}

static void an_outage_of_introspection_spends_no_configured_token(void **state)
{
  struct desk *desk = *state;
  desk->says = answer(503, "");
  desk->settings.refresh_token = "R0";
  check_failure(token(desk), CODE_SERVER_ERROR, "it was not sent");
  assert_int_equal(desk->posts, 0);
  assert_true(desk->waited <= 30);
}

static void start_anew(struct desk *desk)
{
  flow_free(desk->flow);
  desk->flow = flow_new(&desk->settings, 1);
}

static void introspection_that_is_refused_is_as_good_as_none(void **state)
{
  static const int statuses[] = {401, 403, 404, 405};
  struct desk *desk = *state;
  for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++) {
    start_anew(desk);
    store(desk, NULL);
    desk->says = answer(statuses[i], "");
    desk->settings.refresh_token = "R0";
    check_token(token(desk), "A2");
    assert_int_equal(desk->posts, 1);
  }
}

static void a_record_that_vanishes_does_not_have_its_token_spent_again(void **state)
{
  struct desk *desk = *state;
  desk->settings.introspection = false;
  desk->settings.refresh_token = "R0";
  check_token(token(desk), "A2");
  store(desk, NULL);
  check_failure(fly(desk, FLOW_REFRESH), CODE_INVALID_GRANT, "was used before");
  assert_int_equal(desk->posts, 0);
  desk->settings.refresh_token = "NEW";
  start_anew(desk);
  check_token(fly(desk, FLOW_REFRESH), "A2");
}

static void what_the_storage_knows_as_spent_is_not_sent_without_introspection_s_word(void **state)
{
  struct desk *desk = *state;
  char hash[RECORD_HASH];
  record_hash(&desk->settings.world, "R0", hash);
  desk->spent = hash;
  desk->settings.introspection = false;
  desk->settings.refresh_token = "R0";
  check_failure(token(desk), CODE_INVALID_GRANT, "was used before");
  assert_int_equal(desk->posts, 0);
  desk->settings.introspection = true;
  desk->says = alive_reply;
  check_token(fly(desk, FLOW_REFRESH), "A2");
}

/* The storage was empty when it failed; a record has come since. */
static void what_failed_with_the_configured_token_is_remembered_beside_another_record(void **state)
{
  struct desk *desk = *state;
  char untried[300], hash[RECORD_HASH];
  desk->settings.refresh_token = "R0";
  desk->says =
      (struct reply){.delivery = REPLY_RECEIVED, .whole = true, .status = 503, .body = "", .retry_after = "600"};
  check_failure(token(desk), CODE_SERVER_ERROR, "");
  record_hash(&desk->settings.world, "R1", hash);
  snprintf(untried, sizeof untried, "{\"refresh_token\":\"R1\",\"origin\":\"%s\"}", hash);
  store(desk, untried);
  check_token(token(desk), "A2");
  assert_int_equal(desk->introspections, 0);
  assert_non_null(strstr(desk->body, "\"refresh_token\":\"R1\""));
}

static void a_configured_token_is_not_called_spent_while_another_writer_stores_tokens(void **state)
{
  struct desk *desk = *state;
  static const char *const stored[] = {"A8", "A9"};
  static const struct reply words[] = {
      {.delivery = REPLY_RECEIVED, .status = 404, .body = "", .whole = true},
      {.delivery = REPLY_RECEIVED, .status = 200, .body = "{\"active\":false}", .length = 16}};
  char hash[RECORD_HASH];
  record_hash(&desk->settings.world, "R0", hash);
  desk->settings.refresh_token = "R0";
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    store(desk, NULL);
    desk->spent = hash;
    desk->says = words[i];
    desk->appears = record(stored[i], i ? "R9" : "R8", desk->now.wall + HOUR);
    check_token(token(desk), stored[i]);
    assert_int_equal(desk->posts, 0);
    flow_reject(desk->flow, stored[i]);
  }
}

static void a_storage_that_was_set_back_has_its_token_asked_about(void **state)
{
  struct desk *desk = *state;
  const char *old = record("A1", "R1", NOW - 1);
  store(desk, old);
  check_token(token(desk), "A2");
  store(desk, old);
  desk->says = dead_reply;
  check_failure(fly(desk, FLOW_REFRESH), CODE_INVALID_GRANT, "spent before");
  assert_int_equal(desk->posts, 0);
}

/* ---- storages of the program's own ---- */

static void a_storage_that_keeps_nothing_is_found_before_anything_is_sent(void **state)
{
  static const char *const lies[] = {"", "[]",
                                     "{\"access_token\":\"A1\",\"refresh_token\":\"R1\",\"expires_in\":3600}"};
  static const char *const faults[] = {"load returned no record", "load returned no record", "dropped the field"};
  struct desk *desk = *state;
  desk->settings.reads_back = true;
  for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
    store(desk, record("A1", "R1", desk->now.wall - 1));
    desk->reads = lies[i];
    desk->lies = 100000;
    check_failure(token(desk), CODE_STORAGE, faults[i]);
    assert_int_equal(desk->posts, 0);
    assert_true(desk->waited > 29 && desk->waited < 30.01);
  }
}

static void a_storage_that_lags_is_waited_for(void **state)
{
  struct desk *desk = *state;
  desk->settings.reads_back = true;
  store(desk, record("A1", "R1", NOW - 1));
  desk->reads = record("A1", "R1", NOW - 1);
  desk->lies = 3;
  check_token(token(desk), "A2");
  assert_string_equal(desk->steps, "load lock load hold mark load wait load wait load wait load post save load unlock");
}

static void a_token_that_died_while_it_was_saved_is_not_handed_out(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = answer(200, "{\"access_token\":\"A2\",\"refresh_token\":\"R2\",\"expires_in\":10}");
  desk->saving = 20;
  check_failure(token(desk), CODE_TIMEOUT, "longer than the token lives");
  assert_int_equal(desk->posts, 1);
  desk->saving = 0;
  desk->replies[0] = answer(200, "{\"access_token\":\"A3\",\"refresh_token\":\"R3\",\"expires_in\":10}");
  check_token(token(desk), "A3");
  assert_non_null(strstr(desk->body, "\"refresh_token\":\"R2\""));
}

static int count(const struct desk *desk, const char *word)
{
  int found = 0;
  for (const char *at = desk->steps; (at = strstr(at, word)); at += strlen(word))
    found++;
  return found;
}

static void new_tokens_that_a_storage_drops_stay_in_memory(void **state)
{
  struct desk *desk = *state;
  desk->settings.reads_back = true;
  store(desk, record("A1", "R1", NOW - 1));
  desk->forgotten = 2;
  check_token(token(desk), "A2");
  assert_true(noted(flow_outcome(desk->flow), FLOW_SAVE_FAILED));
  check_trouble(desk, CODE_STORAGE, "save was given them, and load does not return them");
  assert_true(flow_unsaved(desk->flow));
  assert_true(desk->waited < 1.5);
  assert_int_equal(count(desk, "unlock"), 0);
  check_token(token(desk), "A2");
  assert_string_equal(desk->steps, "load save load"); /* a token that lives is not waited for */
  check_token(token(desk), "A2");
  assert_string_equal(desk->steps, "load save load unlock");
  assert_true(noted(flow_outcome(desk->flow), FLOW_SAVED));
  assert_false(flow_unsaved(desk->flow));
  assert_non_null(strstr(desk->stored, "\"R2\""));
}

static void new_tokens_that_show_late_are_not_saved_twice(void **state)
{
  struct desk *desk = *state;
  desk->settings.reads_back = true;
  store(desk, record("A1", "R1", NOW - 1));
  desk->forgotten = 1;
  check_token(token(desk), "A2");
  assert_true(flow_unsaved(desk->flow));
  store(desk, "{\"access_token\":\"A2\",\"refresh_token\":\"R2\",\"expires_at\":1003600,\"obtained_at\":1000000}");
  check_token(token(desk), "A2");
  assert_string_equal(desk->steps, "load unlock");
  assert_true(noted(flow_outcome(desk->flow), FLOW_SAVED));
}

static void side_fields_that_a_storage_drops_do_not_count(void **state)
{
  struct desk *desk = *state;
  desk->settings.reads_back = true;
  store(desk, record("A1", "R1", NOW - 1));
  desk->intrudes = NULL;
  desk->appears = "{\"access_token\":\"A2\",\"refresh_token\":\"R2\"}";
  desk->forgotten = 1;
  check_token(token(desk), "A2");
  assert_false(flow_unsaved(desk->flow));
  assert_false(noted(flow_outcome(desk->flow), FLOW_SAVE_FAILED));
}

static void a_broken_answer_that_a_storage_drops_stays_in_memory(void **state)
{
  struct desk *desk = *state;
  desk->settings.reads_back = true;
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = answer(200, "{\"data\":{\"refresh_token\":\"R2\"}}");
  desk->says = answer(503, "");
  desk->forgotten = 1;
  check_failure(token(desk), CODE_SERVER_ERROR, "could not be asked");
  assert_true(flow_unsaved(desk->flow));
  desk->says = dead_reply;
  desk->replies[0] = answer(200, "{\"access_token\":\"A3\",\"refresh_token\":\"R3\"}");
  check_token(fly(desk, FLOW_REFRESH), "A3");
  assert_non_null(strstr(desk->body, "\"R2\""));
}

static void a_process_knows_a_request_in_doubt_whose_mark_was_forgotten(void **state)
{
  struct desk *desk = *state;
  for (int from = 0; from < 2; from++) {
    bool own = from == 1;
    desk->settings.reads_back = own;
    char name[2][4] = {"R10", "R20"};
    store(desk, record("A1", name[from], desk->now.wall - 1));
    desk->replies[0] = lost;
    desk->says = answer(503, "");
    check_failure(fly(desk, FLOW_REFRESH), CODE_SERVER_ERROR, "could not be asked");
    assert_int_equal(desk->posts, 1);
    store(desk, record("A1", name[from], desk->now.wall - 1));
    desk->says = dead_reply;
    check_failure(fly(desk, FLOW_REFRESH), CODE_LOST_ROTATION, "carried out");
    assert_int_equal(desk->posts, 0);
    store(desk, record("A1", name[from], desk->now.wall - 1));
    desk->says = alive_reply;
    desk->replies[0] = answer(200, own ? "{\"access_token\":\"A21\",\"refresh_token\":\"R21\"}"
                                       : "{\"access_token\":\"A11\",\"refresh_token\":\"R11\"}");
    check_token(fly(desk, FLOW_REFRESH), own ? "A21" : "A11");
    assert_true(desk->introspections > 0);
  }
}

/* ---- locks that are gone ---- */

static void a_lock_that_is_removed_before_the_request_is_taken_anew(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->removed_locks = 1;
  check_token(token(desk), "A2");
  assert_string_equal(desk->steps, "load lock load hold mark save unlock lock load hold mark post save unlock");
  store(desk, record("A1", "R3", NOW - 1));
  desk->removed_locks = 9;
  check_failure(fly(desk, FLOW_REFRESH), CODE_STORAGE, "Nothing was sent");
  assert_int_equal(desk->posts, 0);
  assert_null(strstr(desk->stored, "pending"));
}

/* `lock`: what the mark says of its own. */
static void store_mark_of(struct desk *desk, const char *lock)
{
  char text[700];
  const char *plain = marked("R1"), *since = strstr(plain, "\"since\"");
  snprintf(text, sizeof text, "%.*s\"lock\":\"%s\",\"lasts\":65,%s", (int)(since - plain), plain, lock, since);
  store(desk, text);
}

static void a_refresh_under_a_lock_that_is_gone_is_given_its_time(void **state)
{
  struct desk *desk = *state;
  flow_reject(desk->flow, "A1");
  store_mark_of(desk, "1");
  desk->lock = "2";
  desk->says = alive_reply;
  double began = desk->now.wall;
  check_failure(token(desk), CODE_LOCKED, "although its lock is gone");
  check_failure(token(desk), CODE_LOCKED, "although its lock is gone");
  assert_int_equal(desk->introspections + desk->posts, 0);
  check_token(token(desk), "A2");
  assert_true(desk->now.wall - began >= 65); /* another host's clocks are not believed */
}

static void a_token_that_dies_while_its_time_passes_leaves_a_word(void **state)
{
  struct desk *desk = *state;
  char text[700];
  const char *plain = marked("R1"), *since = strstr(plain, "\"since\"");
  desk->now.wall = NOW + HOUR - 3;
  snprintf(text, sizeof text, "%.*s\"lock\":\"1\",\"lasts\":65,\"since\":%.0f,\"pid\":7,\"host\":\"elsewhere\"}}",
           (int)(since - plain), plain, desk->now.wall);
  store(desk, text);
  desk->lock = "2";
  check_token(token(desk), "A1");
  desk->unlocking = 5;
  check_failure(token(desk), CODE_LOCKED, "although its lock is gone");
}

static void its_answer_is_adopted_meanwhile(void **state)
{
  struct desk *desk = *state;
  flow_reject(desk->flow, "A1");
  store_mark_of(desk, "1");
  desk->lock = "2";
  desk->appears = record("A9", "R9", NOW + HOUR);
  check_token(token(desk), "A9");
  assert_int_equal(desk->introspections + desk->posts, 0);
}

static void under_the_same_lock_its_owner_is_dead(void **state)
{
  struct desk *desk = *state;
  flow_reject(desk->flow, "A1");
  store_mark_of(desk, "1");
  desk->lock = "1";
  desk->says = alive_reply;
  check_token(token(desk), "A2");
  assert_true(desk->waited <= 1);
}

/* In two containers both may have the same number, and marks are told apart to the millisecond. */
static void anothers_mark_of_the_same_number_and_moment_is_not_ours(void **state)
{
  struct desk *desk = *state;
  static const char *const locks[] = {"2", "1"};
  desk->lock = "1";
  store(desk, record("A1", "R1", NOW - 1));
  check_token(token(desk), "A2");
  for (int i = 0; i < 2; i++) {
    char text[900];
    const char *plain = marked("R2"), *since = strstr(plain, "\"since\"");
    snprintf(text, sizeof text,
             "%.*s\"lock\":\"%s\",\"lasts\":65,\"since\":%.0f,\"steady\":50,\"pid\":42,\"host\":\"here\"}}",
             (int)(since - plain), plain, locks[i], NOW);
    store(desk, text);
    flow_reject(desk->flow, "A1");
    desk->lock = "3";
    desk->now = (struct moment){.wall = NOW, .steady = 50};
    desk->says = alive_reply;
    desk->replies[0] = answer(200, "{\"access_token\":\"A3\",\"refresh_token\":\"R3\",\"expires_in\":3600}");
    if (i == 0) {
      check_failure(fly(desk, FLOW_REFRESH), CODE_LOCKED, "although its lock is gone");
      assert_int_equal(desk->introspections + desk->posts, 0);
    } else {
      check_token(fly(desk, FLOW_REFRESH), "A3");
    }
  }
}

static void a_process_that_was_stopped_marks_anew_before_it_sends(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->freezes = 1000;
  check_token(token(desk), "A2");
  assert_string_equal(desk->steps, "load lock load hold mark mark post save unlock");
}

/* ---- rejections elsewhere ---- */

static void what_another_process_rejected_is_not_handed_out(void **state)
{
  struct desk *desk = *state;
  uint64_t rejected[FLOW_FINGERPRINTS] = {token_fingerprint("A1")};
  store(desk, record("A1", "R1", NOW + HOUR));
  check_token(token(desk), "A1");
  desk->rejected = rejected;
  desk->replies[0] = answer(429, "");
  check_failure(token(desk), CODE_RATE_LIMITED, "");
}

static void a_rejection_is_left_in_the_record_for_others(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW + HOUR));
  check_token(token(desk), "A1");
  flow_reject(desk->flow, "A1");
  desk->replies[0] = answer(429, "");
  check_failure(token(desk), CODE_RATE_LIMITED, "");
  start_anew(desk);
  check_failure(token(desk), CODE_RATE_LIMITED, "");
}

/* ---- answers are not polite ---- */

static void a_broken_answer_s_refresh_token_is_used_without_introspection(void **state)
{
  struct desk *desk = *state;
  static const char cut[] = "{\"token_type\":\"Bearer\",\"refresh_token\":\"rotated-1\",\"access_tok";
  desk->settings.introspection = false;
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = (struct reply){.delivery = REPLY_LOST, .status = 200, .body = cut, .length = sizeof cut - 1};
  desk->replies[1] = ok_reply;
  check_token(token(desk), "A2");
  assert_int_equal(desk->posts, 2);
  assert_non_null(strstr(desk->body, "\"refresh_token\":\"rotated-1\""));
}

static void a_server_that_breaks_every_answer_is_left_alone(void **state)
{
  static char bodies[8][120];
  struct desk *desk = *state;
  for (int introspection = 0; introspection < 2; introspection++) {
    desk->settings.introspection = introspection;
    desk->says = dead_reply;
    store(desk, record("A1", "R1", desk->now.wall - 1));
    for (int i = 0; i < 8; i++) {
      snprintf(bodies[i], sizeof bodies[i], "<html>\"refresh_token\":\"broken-%d-%d\"", introspection, i);
      desk->replies[i] = answer(200, bodies[i]);
    }
    check_failure(token(desk), CODE_BAD_RESPONSE, "is stored");
    assert_int_equal(desk->posts, 2);
    assert_non_null(strstr(desk->stored, introspection ? "broken-1-1" : "broken-0-1"));
    assert_null(strstr(desk->stored, "pending"));
    start_anew(desk);
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
  struct desk *desk = *state;
  store(desk, marked("R1"));
  desk->says = dead_reply;
  desk->appears = marked_with_answer();
  check_token(fly(desk, FLOW_REFRESH), "A2");
  assert_non_null(strstr(desk->body, "\"refresh_token\":\"R7\""));
}

/* The first time it could not be saved, or that was said. */
static void a_broken_answer_that_is_saved_with_the_loss_keeps_no_lock(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = answer(200, "<html>");
  desk->says = dead_reply;
  desk->fails_after_mark = 1;
  check_failure(token(desk), CODE_LOST_ROTATION, "");
  assert_false(flow_unsaved(desk->flow));
  assert_non_null(strstr(desk->steps, "unlock"));
}

static void a_broken_answer_in_an_old_copy_is_asked_about(void **state)
{
  struct desk *desk = *state;
  char hash[RECORD_HASH];
  record_hash(&desk->settings.world, "R7", hash);
  store(desk, marked_with_answer());
  desk->spent = hash;
  desk->says = dead_reply;
  check_failure(fly(desk, FLOW_REFRESH), CODE_INVALID_GRANT, "");
  assert_int_equal(desk->posts, 0);
}

static void a_broken_answer_s_refresh_token_loses_to_no_old_login(void **state)
{
  struct desk *desk = *state;
  static const char cut[] = "{\"refresh_token\":\"rotated-1\",\"access_tok";
  desk->settings.introspection = false;
  desk->settings.refresh_token = "R0";
  desk->replies[0] = (struct reply){.delivery = REPLY_LOST, .status = 200, .body = cut, .length = sizeof cut - 1};
  desk->replies[1] = answer(429, "");
  check_failure(token(desk), CODE_RATE_LIMITED, "");
  desk->settings.refresh_token = "OTHER";
  start_anew(desk);
  desk->replies[0] = ok_reply;
  desk->replies[1] = (struct reply){0};
  check_token(fly(desk, FLOW_REFRESH), "A2");
  assert_non_null(strstr(desk->body, "\"refresh_token\":\"rotated-1\""));
}

static void a_broken_answer_s_refresh_token_that_cannot_be_saved_is_kept(void **state)
{
  struct desk *desk = *state;
  static const char cut[] = "{\"refresh_token\":\"rotated-1\",\"access_tok";
  desk->settings.introspection = false;
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = (struct reply){.delivery = REPLY_LOST, .status = 200, .body = cut, .length = sizeof cut - 1};
  desk->replies[1] = ok_reply;
  desk->fails_after_mark = 1;
  assert_null(token(desk)->token);
  assert_true(flow_unsaved(desk->flow));
  assert_int_equal(desk->posts, 1);
  desk->replies[0] = ok_reply;
  desk->replies[1] = (struct reply){0};
  check_token(token(desk), "A2");
  assert_non_null(strstr(desk->body, "\"refresh_token\":\"rotated-1\""));
}

static void no_grant_is_called_dead_while_the_storage_cannot_be_read(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = lost;
  desk->says = dead_reply;
  desk->unreadable_later = true;
  check_failure(token(desk), CODE_STORAGE, "disk is full");
  assert_non_null(strstr(desk->stored, "pending"));
  assert_null(strstr(desk->stored, "\"lost\""));
}

/* The mark of the grant before it says nothing of it. */
static void a_login_is_tried_behind_a_mark_of_its_own(void **state)
{
  struct desk *desk = *state;
  char hash[RECORD_HASH];
  desk->settings.introspection = false;
  desk->settings.refresh_token = "NEW";
  flow_reject(desk->flow, "A1");
  store(desk, marked("R1"));
  desk->replies[0] = answer(400, "{\"error\":\"invalid_grant\"}");
  desk->replies[1] = lost;
  token(desk);
  record_hash(&desk->settings.world, "NEW", hash);
  assert_non_null(strstr(desk->stored, "\"refresh_token\":\"NEW\""));
  assert_non_null(strstr(strstr(desk->stored, "\"pending\":"), hash));
}

static void a_failure_without_a_reason_is_no_success(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  flow_start(desk->flow, FLOW_TOKEN, desk->now, desk->now.steady + 30);
  struct flow_event event = {.now = desk->now};
  struct flow_action action = flow_next(desk->flow, &event);
  while (action.step != FLOW_LOCK) {
    event = carry_out(desk, &action);
    action = flow_next(desk->flow, &event);
  }
  event = (struct flow_event){.now = desk->now, .result = FLOW_FAILED, .text = ""};
  action = flow_next(desk->flow, &event);
  assert_int_equal(action.step, FLOW_DONE);
  assert_null(flow_outcome(desk->flow)->token);
  assert_int_equal(flow_outcome(desk->flow)->code, CODE_STORAGE);
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
  struct desk *desk = *state;
  for (size_t i = 0; i < 2 * sizeof refusals / sizeof *refusals; i++) {
    desk->settings.introspection = i % 2;
    desk->settings.refresh_token = NULL;
    start_anew(desk);
    store(desk, record("A1", "R1", desk->now.wall - 1));
    desk->says = dead_reply;
    desk->replies[0] = answer(refusals[i / 2].status, refusals[i / 2].body);
    desk->replies[1] = (struct reply){0};
    const struct flow_outcome *outcome = token(desk);
    assert_null(outcome->token);
    assert_non_null(strstr(outcome->message, "(LUCID_REFRESH_TOKEN, or the option refresh_token)"));
    assert_true(!desk->settings.introspection || outcome->code == CODE_INVALID_GRANT);
    assert_int_equal(desk->posts, 1);
    assert_non_null(strstr(desk->stored, "\"refresh_token\":\"R1\""));
    desk->settings.refresh_token = "NEW";
    start_anew(desk);
    desk->settings.introspection = false;
    desk->replies[1] = ok_reply;
    check_token(token(desk), "A2");
    assert_int_equal(desk->posts, 2);
    assert_non_null(strstr(desk->body, "\"refresh_token\":\"NEW\""));
    assert_null(strstr(desk->stored, "\"before\""));
  }
}

static void a_new_login_that_is_refused_too_leaves_the_stored_grant(void **state)
{
  struct desk *desk = *state;
  desk->settings.introspection = false;
  desk->settings.refresh_token = "NEW";
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = answer(400, "{\"error\":\"invalid_grant\"}");
  check_failure(token(desk), CODE_INVALID_GRANT, "is kept as it was");
  assert_int_equal(desk->posts, 2);
  assert_non_null(strstr(desk->stored, "\"refresh_token\":\"R1\""));
  assert_null(strstr(desk->stored, "NEW"));
  check_failure(token(desk), CODE_INVALID_GRANT, "");
  assert_int_equal(desk->posts, 0);
}

static void a_new_login_that_was_used_elsewhere_is_not_sent(void **state)
{
  struct desk *desk = *state;
  desk->says = dead_reply;
  desk->settings.refresh_token = "NEW";
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = answer(400, "{\"error\":\"invalid_grant\"}");
  check_failure(token(desk), CODE_INVALID_GRANT, "Log in to Lucid again");
  assert_int_equal(desk->posts, 1);
  assert_non_null(strstr(desk->stored, "\"refresh_token\":\"R1\""));
  assert_null(strstr(desk->stored, "pending"));
  check_failure(token(desk), CODE_INVALID_GRANT, "");
  assert_int_equal(desk->posts + desk->introspections, 0);
}

static void the_stored_grant_stays_until_the_new_login_has_brought_tokens(void **state)
{
  struct desk *desk = *state;
  desk->settings.introspection = false;
  desk->settings.refresh_token = "NEW";
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = answer(400, "{\"error\":\"invalid_grant\"}");
  desk->replies[1] = answer(429, "");
  check_failure(token(desk), CODE_RATE_LIMITED, "");
  assert_non_null(strstr(desk->stored, "\"before\":{\"access_token\":\"A1\",\"refresh_token\":\"R1\""));
  desk->replies[0] = ok_reply;
  desk->replies[1] = (struct reply){0};
  check_token(fly(desk, FLOW_REFRESH), "A2");
  assert_null(strstr(desk->stored, "\"before\""));
}

static void a_refusal_of_a_token_that_is_alive_is_the_request_s(void **state)
{
  struct desk *desk = *state;
  desk->says = alive_reply;
  desk->settings.refresh_token = "NEW";
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = answer(400, "{\"error\":\"invalid_request\"}");
  check_failure(token(desk), CODE_BAD_RESPONSE, "still alive");
  assert_int_equal(desk->posts, 1);
}

static void a_wrong_client_secret_tries_no_configured_token(void **state)
{
  struct desk *desk = *state;
  desk->says = answer(401, "{\"error\":\"invalid_client\"}");
  desk->settings.refresh_token = "NEW";
  store(desk, record("A1", "R1", NOW - 1));
  desk->replies[0] = answer(401, "{\"error\":\"invalid_client\"}");
  check_failure(token(desk), CODE_INVALID_CLIENT, "");
  assert_int_equal(desk->posts, 1);
}

static void tokens_of_another_server_are_not_handed_out(void **state)
{
  struct desk *desk = *state;
  char text[400];
  const char *plain = record("A1", "R1", NOW + HOUR);
  snprintf(text, sizeof text, "{\"server\":\"https://one.example\",%s", plain + 1);
  store(desk, text);
  desk->settings.token_url = "https://two.example/token";
  check_failure(token(desk), CODE_CONFIG, "one.example");
  desk->settings.token_url = "https://one.example/token";
  check_token(token(desk), "A1");
}

/* ---- tokens that a parent could not save ---- */

static void a_child_saves_what_its_parent_could_not(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->fails_after_mark = 1;
  check_token(token(desk), "A2");
  assert_true(flow_unsaved(desk->flow));
  flow_disown(desk->flow);
  desk->busy = 1;
  check_token(token(desk), "A2"); /* the parent has the lock */
  assert_true(flow_unsaved(desk->flow));
  assert_string_equal(desk->steps, "lock");
  check_token(token(desk), "A2");
  assert_false(flow_unsaved(desk->flow));
  assert_non_null(strstr(desk->stored, "\"R2\""));
}

static void a_child_does_not_save_over_what_its_parent_saved(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW - 1));
  desk->fails_after_mark = 1;
  check_token(token(desk), "A2");
  flow_disown(desk->flow);
  store(desk, record("A3", "R3", NOW + HOUR));
  check_token(token(desk), "A3");
  assert_false(flow_unsaved(desk->flow));
  assert_non_null(strstr(desk->stored, "\"R3\""));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

/* ---- what a login gave ---- */

static const char login[] = "{\"access_token\":\"A5\",\"refresh_token\":\"R5\",\"expires_in\":3600,\"scope\":\"s\"}";

static const struct flow_outcome *give(struct desk *desk, const char *given)
{
  desk->given = given;
  return fly(desk, FLOW_STORE);
}

static void check_stored(struct desk *desk, const struct flow_outcome *outcome)
{
  assert_string_equal(outcome->message, "");
  assert_int_equal(outcome->code, CODE_OK);
  assert_true(noted(outcome, FLOW_STORED));
  assert_non_null(strstr(desk->stored, "R5"));
  assert_null(strstr(desk->stored, "pending"));
}

static void check_declined(struct desk *desk, const char *part)
{
  bool others_write = desk->appears || desk->intrudes;
  char *before = others_write ? NULL : strdup(desk->stored);
  const struct flow_outcome *outcome = give(desk, login);
  check_failure(outcome, CODE_CONFIG, part);
  assert_non_null(strstr(outcome->message, "{ replace = true }"));
  if (!others_write)
    assert_string_equal(desk->stored, before);
  assert_null(strstr(desk->stored, "R5"));
  assert_null(strstr(desk->steps, "save"));
  assert_null(strstr(desk->steps, "mark"));
  assert_null(strstr(desk->steps, "post"));
  assert_int_equal(flow_status(desk->flow).last_code, CODE_OK);
  free(before);
}

static void a_login_starts_an_empty_storage(void **state)
{
  struct desk *desk = *state;
  desk->settings.token_url = "https://issuer.example/token";
  const struct flow_outcome *outcome = give(desk, login);
  check_stored(desk, outcome);
  assert_string_equal(outcome->token, "A5");
  assert_string_equal(desk->steps, "load lock load save unlock");
  assert_int_equal(desk->announcements, 1);
  assert_non_null(strstr(desk->stored, "\"origin\":"));
  assert_non_null(strstr(desk->stored, "\"scope\":\"s\""));
  assert_non_null(strstr(desk->stored, "\"server\":\"https://issuer.example\""));
  check_token(token(desk), "A5");
  assert_string_equal(desk->steps, "load");
}

static void a_bare_refresh_token_is_refreshed_at_the_next_call(void **state)
{
  struct desk *desk = *state;
  const struct flow_outcome *outcome = give(desk, "R5\n");
  check_stored(desk, outcome);
  assert_null(outcome->token);
  assert_null(strstr(desk->stored, "expire"));
  check_token(token(desk), "A2");
  assert_non_null(strstr(desk->body, "\"refresh_token\":\"R5\""));
  assert_int_equal(desk->posts, 1);
}

static void a_login_loses_to_no_refresh_token_that_is_configured(void **state)
{
  struct desk *desk = *state;
  desk->settings.refresh_token = "R0";
  desk->says = alive_reply;
  check_stored(desk, give(desk, "R5"));
  check_token(token(desk), "A2");
  assert_non_null(strstr(desk->body, "\"refresh_token\":\"R5\""));
}

static void a_grant_that_lives_is_replaced_only_when_told_so(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW + HOUR));
  check_declined(desk, "a grant that lives");
  assert_string_equal(desk->steps, "load lock load unlock");
  check_token(token(desk), "A1");
  desk->replaces = true;
  check_stored(desk, give(desk, login));
  assert_null(strstr(desk->stored, "R1"));
  check_token(token(desk), "A5");
}

static void introspection_says_whether_a_grant_without_a_good_access_token_lives(void **state)
{
  struct desk *desk = *state;
  desk->says = alive_reply;
  store(desk, record("A1", "R1", NOW - 1));
  check_declined(desk, "a grant that lives");
  assert_int_equal(desk->introspections, 1);
  desk->says = dead_reply;
  check_stored(desk, give(desk, login));
  assert_null(strstr(desk->steps, "post"));
}

static void without_an_answer_of_introspection_nothing_is_replaced(void **state)
{
  struct desk *desk = *state;
  desk->says = answer(500, "");
  store(desk, record("A1", "R1", NOW - 1));
  const struct flow_outcome *outcome = give(desk, login);
  assert_int_equal(outcome->code, CODE_SERVER_ERROR);
  assert_non_null(strstr(outcome->message, "{ replace = true }"));
  assert_non_null(strstr(desk->stored, "R1"));
  desk->replaces = true;
  check_stored(desk, give(desk, login));
  assert_int_equal(desk->introspections, 0);
}

static void without_introspection_a_grant_may_live_until_it_is_known_as_dead(void **state)
{
  struct desk *desk = *state;
  desk->settings.introspection = false;
  store(desk, record("A1", "R1", NOW - 1));
  check_declined(desk, "may still live");
  desk->replies[0] = answer(400, "{\"error\":\"invalid_grant\"}");
  check_failure(token(desk), CODE_INVALID_GRANT, "invalid_grant");
  check_stored(desk, give(desk, login));
  check_token(token(desk), "A5");
  assert_int_equal(flow_status(desk->flow).last_code, CODE_OK);
}

static void a_grant_that_is_lost_is_replaced(void **state)
{
  struct desk *desk = *state;
  desk->replies[0] = lost;
  desk->says = dead_reply;
  store(desk, record("A1", "R1", NOW - 1));
  check_failure(token(desk), CODE_LOST_ROTATION, "lost");
  check_failure(give(desk, record("A1", "R1", NOW + HOUR)), CODE_INVALID_GRANT, "used before");
  check_stored(desk, give(desk, login));
  assert_int_equal(desk->introspections, 0);
  check_token(token(desk), "A5");
}

static void an_access_token_without_a_refresh_token_is_replaced_once_it_has_ended(void **state)
{
  struct desk *desk = *state;
  char text[200];
  snprintf(text, sizeof text, "{\"access_token\":\"A1\",\"expires_at\":%.0f}", NOW + HOUR);
  store(desk, text);
  check_declined(desk, "a grant that lives");
  snprintf(text, sizeof text, "{\"access_token\":\"A1\",\"expires_at\":%.0f}", NOW - 1);
  store(desk, text);
  check_stored(desk, give(desk, login));
  assert_int_equal(desk->introspections, 0);
}

static void what_is_damaged_is_kept_in_the_record_that_takes_its_place(void **state)
{
  struct desk *desk = *state;
  store(desk, "{\"refresh_token\":\"R1");
  check_stored(desk, give(desk, login));
  assert_non_null(strstr(desk->stored, "\"damaged\":\"{\\\"refresh_token\\\":\\\"R1\""));
  check_token(token(desk), "A5");
}

static void a_refresh_in_flight_is_waited_for(void **state)
{
  struct desk *desk = *state;
  for (int replaces = 0; replaces < 2; replaces++) {
    store(desk, marked("R1"));
    desk->replaces = replaces;
    desk->busy = 100000;
    const struct flow_outcome *outcome = give(desk, login);
    assert_int_equal(outcome->code, replaces ? CODE_LOCKED : CODE_TIMEOUT); /* the one lock for so long */
    assert_non_null(strstr(desk->stored, "R1"));
    assert_null(strstr(desk->steps, "save"));
    desk->busy = 0;
  }
}

static void a_refresh_under_another_lock_is_waited_for(void **state)
{
  struct desk *desk = *state;
  char text[700];
  snprintf(text, sizeof text, "%.*s,\"lock\":\"old\",\"lasts\":65}}", (int)strlen(marked("R1")) - 2, marked("R1"));
  store(desk, text);
  desk->lock = "new";
  desk->replaces = true;
  assert_int_equal(give(desk, login)->code, CODE_LOCKED);
  assert_non_null(strstr(desk->stored, "R1"));
  assert_null(strstr(desk->steps, "save"));
}

static void a_refresh_that_its_process_left_unfinished_is_settled(void **state)
{
  struct desk *desk = *state;
  store(desk, marked("R1"));
  desk->says = alive_reply;
  check_declined(desk, "a grant that lives");
  assert_string_equal(desk->steps, "load lock load wait load introspect unlock");
  desk->says = dead_reply;
  check_stored(desk, give(desk, login));
  store(desk, marked("R1"));
  desk->replaces = true;
  check_stored(desk, give(desk, login));
  assert_string_equal(desk->steps, "load lock load wait load save unlock");
}

static void and_what_it_brings_meanwhile_is_a_grant_that_lives(void **state)
{
  struct desk *desk = *state;
  store(desk, marked("R1"));
  desk->appears = record("A9", "R9", NOW + HOUR);
  check_declined(desk, "a grant that lives");
  assert_non_null(strstr(desk->stored, "R9"));
}

static void a_refresh_token_that_was_spent_is_not_stored(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R5", NOW - 1));
  check_token(token(desk), "A2");
  desk->replaces = true;
  check_failure(give(desk, login), CODE_INVALID_GRANT, "used before");
  assert_non_null(strstr(desk->stored, "R2"));
  check_token(token(desk), "A2");
}

static void a_login_that_another_writer_comes_before_is_judged_anew(void **state)
{
  struct desk *desk = *state;
  desk->intrudes = record("A9", "R9", NOW + HOUR);
  check_declined(desk, "a grant that lives");
}

static void a_login_that_cannot_be_saved_is_with_its_user_alone(void **state)
{
  struct desk *desk = *state;
  store(desk, record("A1", "R1", NOW + HOUR));
  check_token(token(desk), "A1");
  desk->replaces = true;
  desk->failing_saves = 1;
  check_failure(give(desk, login), CODE_STORAGE, "keep it");
  assert_false(flow_unsaved(desk->flow));
  assert_non_null(strstr(desk->steps, "unlock"));
  check_token(token(desk), "A1");
  check_stored(desk, give(desk, login));
  desk->replaces = false;
  check_stored(desk, give(desk, login)); /* the very same once more */
}

static void a_login_that_is_refused_leaves_the_dead_grant_and_not_the_replaced_one(void **state)
{
  struct desk *desk = *state;
  for (int replaces = 0; replaces < 2; replaces++) {
    store(desk, record("A1", "R1", replaces ? NOW + HOUR : NOW - 1));
    desk->replaces = replaces;
    desk->says = dead_reply;
    check_stored(desk, give(desk, "R5"));
    desk->replies[0] = answer(400, "{\"error\":\"invalid_grant\"}");
    assert_int_equal(token(desk)->code, CODE_INVALID_GRANT);
    assert_true((strstr(desk->stored, "R1") != NULL) == (replaces == 0));
    flow_free(desk->flow);
    desk->flow = flow_new(&desk->settings, 1);
  }
}

static void a_login_that_is_handed_over_late_ends_when_it_ends(void **state)
{
  struct desk *desk = *state;
  desk->now.wall = 1.7e9;
  const struct flow_outcome *outcome =
      give(desk, "{\"access_token\":\"A5\",\"refresh_token\":\"R5\",\"expires_in\":3600,\"expires_at\":1700000600}");
  assert_true(outcome->dead_at.wall == 1.7e9 + 600);
  desk->replaces = true;
  check_failure(give(desk, "{\"access_token\":\"A6\",\"expires_at\":1699999999}"), CODE_CONFIG, "has expired");
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
static void choose_replies(struct desk *desk, unsigned *random)
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
    desk->replies[i] = worst[pick(random, sizeof worst / sizeof *worst)];
  desk->says = said[pick(random, sizeof said / sizeof *said)];
}

/* The time that a step takes, beside what a WAIT has let pass. */
static double step_takes(const struct flow_action *action, unsigned *random)
{
  if (action->step == FLOW_POST)
    return action->limit * pick(random, 5) / 4;
  return action->step == FLOW_WAIT || action->step == FLOW_HOLD ? 0 : CALL;
}

/* Seconds from getting the lock to having given it back. */
static double hold_of(struct desk *desk, unsigned *random)
{
  double since = 0, held = 0;
  desk->steps[0] = '\0';
  start(desk, FLOW_REFRESH);
  struct flow_event event = {.now = desk->now};
  struct flow_action action = flow_next(desk->flow, &event);
  for (int i = 0; action.step != FLOW_DONE; i++) {
    assert_true(i < 5000);
    pass(desk, step_takes(&action, random));
    event = carry_out(desk, &action);
    since = action.step == FLOW_LOCK && event.result == FLOW_OK ? desk->now.steady : since;
    held = action.step == FLOW_UNLOCK ? fmax(held, desk->now.steady - since) : held;
    action = flow_next(desk->flow, &event);
  }
  return held;
}

static void the_smallest_lease_outlasts_every_refresh(void **state)
{
  struct desk *desk = *state;
  unsigned random = 1;
  double longest = 0;
  desk->settings.reads_back = true;
  for (int round = 0; round < 4000; round++) {
    flow_free(desk->flow);
    desk->flow = flow_new(&desk->settings, (uint64_t)round + 1);
    desk->settings.introspection = pick(&random, 4) > 0;
    desk->settings.refresh_token = pick(&random, 2) ? "R9" : NULL;
    desk->posts = 0;
    choose_replies(desk, &random);
    store(desk, pick(&random, 4) ? record("A1", "R1", desk->now.wall - 1) : marked("R1"));
    longest = fmax(longest, hold_of(desk, &random));
  }
  assert_true(longest <= LEAST_LEASE(desk->settings.timeout));
  assert_true(longest > 2 * desk->settings.timeout + 5);
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
      TEST(a_login_that_another_writer_comes_before_is_judged_anew),
      TEST(a_login_that_cannot_be_saved_is_with_its_user_alone),
      TEST(a_login_that_is_refused_leaves_the_dead_grant_and_not_the_replaced_one),
      TEST(a_login_that_is_handed_over_late_ends_when_it_ends),
      TEST(the_smallest_lease_outlasts_every_refresh),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
