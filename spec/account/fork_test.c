/* fork(): a child owns nothing of its parent's flights, and both go on getting tokens. */
#define _GNU_SOURCE
#include "../../src/lucidauth.h"
#include "../../src/store/file.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__SANITIZE_THREAD__)
/* Else it ends a child that starts a thread. */
__attribute__((visibility("default"))) const char *__tsan_default_options(void);

const char *__tsan_default_options(void)
{
  return "die_after_fork=0";
}
#endif

/* Seconds: what hangs is ended by then. */
enum { PATIENCE = 120 };

/* ---- a token endpoint in a process of its own; every answer waits for a byte of `gate` ---- */

struct seen {
  atomic_int posts;    /* have arrived */
  atomic_int rotation; /* the refresh token in use is "R<rotation>" */
  atomic_int refused;  /* others that were sent */
  atomic_bool broken_disk;
  atomic_bool ready; /* a child has come to the point */
};

static struct {
  struct seen *seen;
  pid_t process;
  int gate, port;
} server;

static void answer(int connection, const char *status, const char *body)
{
  char text[400];
  int length = snprintf(text, sizeof text,
                        "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
                        "Connection: close\r\n\r\n%s",
                        status, strlen(body), body);
  if (send(connection, text, (size_t)length, MSG_NOSIGNAL) < 0)
    return; /* the client is dead, as it is meant to be */
  shutdown(connection, SHUT_WR);
  while (recv(connection, text, sizeof text, 0) > 0)
    continue;
}

/* The request's text, up to the end of its JSON body. */
static void read_request(int connection, char *request, size_t room)
{
  size_t length = 0;
  ssize_t more = 1;
  request[0] = '\0';
  while (!strstr(request, "\"}") && length < room - 1 && more > 0) {
    more = recv(connection, request + length, room - 1 - length, 0);
    length += more > 0 ? (size_t)more : 0;
    request[length] = '\0';
  }
}

static void serve(int listener, int gate)
{
  char request[4096], expected[64], body[200], pass;
  for (;;) {
    int connection = accept(listener, NULL, NULL);
    read_request(connection, request, sizeof request);
    snprintf(expected, sizeof expected, "\"refresh_token\":\"R%d\"", server.seen->rotation);
    server.seen->posts++;
    if (read(gate, &pass, 1) != 1)
      _exit(0);
    if (strstr(request, expected)) {
      int next = ++server.seen->rotation;
      snprintf(body, sizeof body, "{\"access_token\":\"A%d\",\"refresh_token\":\"R%d\",\"expires_in\":3600}", next,
               next);
      answer(connection, "200 OK", body);
    } else {
      server.seen->refused++;
      answer(connection, "400 Bad Request", "{\"error\":\"invalid_grant\"}");
    }
    close(connection);
  }
}

static void start_server(void)
{
  int pipes[2], listener = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  server.seen = mmap(NULL, sizeof *server.seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert_true(server.seen != MAP_FAILED);
  assert_int_equal(pipe(pipes), 0);
  assert_int_equal(bind(listener, (struct sockaddr *)&address, length), 0);
  assert_int_equal(listen(listener, 16), 0);
  assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &length), 0);
  server.port = ntohs(address.sin_port);
  server.process = fork();
  if (server.process == 0) {
    close(pipes[1]);
    serve(listener, pipes[0]);
  }
  close(pipes[0]);
  close(listener);
  server.gate = pipes[1];
}

static void let_answer(int count)
{
  while (count-- > 0)
    assert_int_equal(write(server.gate, "x", 1), 1);
}

static void stop_server(void)
{
  kill(server.process, SIGKILL);
  waitpid(server.process, NULL, 0);
  close(server.gate);
  munmap(server.seen, sizeof *server.seen);
}

static void until(bool (*condition)(void))
{
  for (int i = 0; i < PATIENCE * 1000 && !condition(); i++)
    usleep(1000);
  assert_true(condition());
}

static bool posted(void)
{
  return server.seen->posts > 0;
}

/* ---- clients and children ---- */

static char folder[64], path[80];

static lucidauth *client_of(lucidauth_storage storage, bool background)
{
  char url[80];
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_options options = LUCIDAUTH_OPTIONS_INIT;
  snprintf(url, sizeof url, "http://127.0.0.1:%d", server.port);
  options.introspection_url = "";
  options.api_url = url;
  options.client_id = "id";
  options.client_secret = "secret";
  options.refresh_token = "R0";
  options.storage = storage;
  options.path = storage == LUCIDAUTH_FILE ? path : NULL;
  options.timeout = PATIENCE;
  options.background = background;
  lucidauth *client = lucidauth_new(&options, &error);
  if (!client)
    fail_msg("%s", error.message);
  return client;
}

static lucidauth *client_with(bool background)
{
  return client_of(LUCIDAUTH_FILE, background);
}

/* Frees the token. */
static bool is_token(char *token, const char *expected)
{
  bool good = token && strcmp(token, expected) == 0;
  if (!good)
    fprintf(stderr, "%s instead of %s\n", token ? token : "no token", expected);
  lucidauth_free_token(token);
  return good;
}

static bool gets(lucidauth *client, const char *expected)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  char *token = lucidauth_token(client, NULL, &error);
  if (!token)
    fprintf(stderr, "%s\n", error.message);
  return is_token(token, expected);
}

/* A refresh in a thread, of which the result is kept for fetch. */
struct flight {
  pthread_t thread;
  lucidauth *client;
  char *token;
};

static void *fly(void *data)
{
  struct flight *flight = data;
  flight->token = lucidauth_token(flight->client, NULL, NULL);
  return NULL;
}

static void begin_to_ask(struct flight *flight, lucidauth *client)
{
  *flight = (struct flight){.client = client};
  assert_int_equal(pthread_create(&flight->thread, NULL, fly, flight), 0);
}

/* A client whose request has arrived, and waits for its answer. */
static lucidauth *client_in_flight(struct flight *flight, bool background)
{
  lucidauth *client = client_with(background);
  begin_to_ask(flight, client);
  until(posted);
  return client;
}

static bool ends_with(struct flight *flight, const char *expected)
{
  return pthread_join(flight->thread, NULL) == 0 && is_token(flight->token, expected);
}

/* What a child does; its exit status is 0 if it returns true. */
typedef bool child_body(lucidauth *client);

static pid_t start_child(child_body *body, lucidauth *client)
{
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    alarm(PATIENCE);
    /* to exit would have valgrind tell of what is left behind on purpose, with the parent's flights */
    execl("/bin/sh", "sh", "-c", body(client) ? "exit 0" : "exit 1", (char *)NULL);
    _exit(1);
  }
  assert_true(child > 0);
  return child;
}

static bool ends_well(pid_t child)
{
  int status = -1;
  if (waitpid(child, &status, 0) != child)
    return false;
  if (WIFSIGNALED(status))
    fprintf(stderr, "the child was ended by signal %d\n", WTERMSIG(status));
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* Somebody else's try at the lock of the token file. */
static enum store_result lock_of_another(void)
{
  struct store_error error;
  struct store *store = store_file(path, NULL, &error);
  assert_non_null(store);
  enum store_result result = store->ops->lock(store, &error);
  store->ops->close(store);
  return result;
}

/* ---- the tests ---- */

static int set_up(void **state)
{
  (void)state;
  snprintf(folder, sizeof folder, "/tmp/lucidauth-fork-XXXXXX");
  if (!mkdtemp(folder))
    return -1;
  snprintf(path, sizeof path, "%s/token.json", folder);
  start_server();
  return 0;
}

static int tear_down(void **state)
{
  char name[96];
  (void)state;
  stop_server();
  unlink(path);
  snprintf(name, sizeof name, "%s.lock", path);
  unlink(name);
  return rmdir(folder);
}

static bool gets_a1(lucidauth *client)
{
  return gets(client, "A1");
}

static bool gets_a1_and_closes(lucidauth *client)
{
  bool good = gets(client, "A1");
  lucidauth_close(client);
  return good;
}

static bool closes(lucidauth *client)
{
  lucidauth_close(client);
  return true;
}

static bool refreshes_to_a2(lucidauth *client)
{
  bool good = is_token(lucidauth_refresh(client, NULL, NULL), "A2") && gets(client, "A2");
  lucidauth_close(client);
  return good;
}

/* The server was asked so often. */
static void close_after(int posts, lucidauth *client)
{
  assert_int_equal(server.seen->posts, posts);
  lucidauth_close(client);
}

static void both_have_the_token_of_before(void **state)
{
  lucidauth *client = client_with(false);
  (void)state;
  let_answer(1);
  assert_true(gets(client, "A1"));
  assert_true(ends_well(start_child(gets_a1_and_closes, client)));
  assert_true(gets(client, "A1"));
  close_after(1, client);
}

static void a_child_that_refreshes_is_heard_by_its_parent(void **state)
{
  lucidauth *client = client_with(false);
  (void)state;
  let_answer(2);
  assert_true(gets(client, "A1"));
  assert_true(ends_well(start_child(refreshes_to_a2, client)));
  assert_true(gets(client, "A2"));
  close_after(2, client);
}

static int heard;

static bool hears_its_parent(lucidauth *client)
{
  char byte;
  return read(heard, &byte, 1) == 1 && gets(client, "A2");
}

static void a_parent_that_refreshes_is_heard_by_its_child(void **state)
{
  lucidauth *client = client_with(false);
  int pipes[2];
  (void)state;
  let_answer(2);
  assert_true(gets(client, "A1"));
  assert_int_equal(pipe(pipes), 0);
  heard = pipes[0];
  pid_t child = start_child(hears_its_parent, client);
  assert_true(is_token(lucidauth_refresh(client, NULL, NULL), "A2"));
  assert_int_equal(write(pipes[1], "x", 1), 1);
  assert_true(ends_well(child));
  assert_int_equal(server.seen->posts, 2);
  close(pipes[0]);
  close(pipes[1]);
  lucidauth_close(client);
}

static void a_child_may_be_the_first_to_ask(void **state)
{
  lucidauth *client = client_with(false);
  (void)state;
  let_answer(1);
  assert_true(ends_well(start_child(gets_a1_and_closes, client)));
  assert_true(gets(client, "A1"));
  close_after(1, client);
}

static bool has_a_child_that_gets_a1(lucidauth *client)
{
  return ends_well(start_child(gets_a1_and_closes, client)) && gets_a1_and_closes(client);
}

static void a_child_may_have_children(void **state)
{
  lucidauth *client = client_with(false);
  (void)state;
  let_answer(1);
  assert_true(gets(client, "A1"));
  assert_true(ends_well(start_child(has_a_child_that_gets_a1, client)));
  close_after(1, client);
}

static void a_child_of_the_middle_of_a_flight_waits_for_its_parent(bool background)
{
  struct flight flight;
  lucidauth *client = client_in_flight(&flight, background);
  pid_t child = start_child(gets_a1, client);
  assert_int_equal(lock_of_another(), STORE_BUSY);
  let_answer(1);
  assert_true(ends_with(&flight, "A1"));
  assert_true(ends_well(child));
  assert_int_equal(server.seen->posts, 1);
  assert_int_equal(lock_of_another(), STORE_OK);
  lucidauth_close(client);
}

static void a_child_waits_for_the_flight_of_its_parent(void **state)
{
  (void)state;
  a_child_of_the_middle_of_a_flight_waits_for_its_parent(false);
}

static void a_child_waits_for_the_background_of_its_parent(void **state)
{
  (void)state;
  a_child_of_the_middle_of_a_flight_waits_for_its_parent(true);
}

static void a_child_closes_in_the_middle_of_a_flight(bool background)
{
  struct flight flight;
  lucidauth *client = client_in_flight(&flight, background);
  assert_true(ends_well(start_child(closes, client)));
  assert_int_equal(lock_of_another(), STORE_BUSY);
  let_answer(1);
  assert_true(ends_with(&flight, "A1"));
  assert_true(gets(client, "A1"));
  close_after(1, client);
}

static void a_child_that_closes_takes_nothing_from_its_parent(void **state)
{
  (void)state;
  a_child_closes_in_the_middle_of_a_flight(false);
}

static void a_child_that_closes_takes_no_background_from_its_parent(void **state)
{
  (void)state;
  a_child_closes_in_the_middle_of_a_flight(true);
}

/* The parent dies in its flight; what it has forked lives on and must not keep the lock. */
static void a_child_does_not_hold_the_lock_of_a_parent_that_died(void **state)
{
  struct flight flight;
  int alive[2], end[2];
  char byte = 'x';
  (void)state;
  assert_int_equal(pipe(alive), 0);
  assert_int_equal(pipe(end), 0);
  lucidauth *client = client_with(false);
  pid_t parent = fork();
  if (parent == 0) {
    close(end[1]);
    begin_to_ask(&flight, client);
    until(posted);
    if (fork() == 0) {
      ssize_t told = write(alive[1], &byte, 1);
      _exit(told == 1 && read(end[0], &byte, 1) == 0 ? 0 : 1);
    }
    for (;;)
      pause();
  }
  close(alive[1]);
  assert_int_equal(read(alive[0], &byte, 1), 1);
  assert_int_equal(lock_of_another(), STORE_BUSY);
  kill(parent, SIGKILL);
  assert_int_equal(waitpid(parent, NULL, 0), parent);
  assert_int_equal(lock_of_another(), STORE_OK);
  close(end[1]);
  close(end[0]);
  close(alive[0]);
  lucidauth_close(client);
}

/* Threads that wait for the flight are not in the child; it must not wait for them to leave. */
static void a_child_does_not_wait_for_threads_that_it_has_not(void **state)
{
  struct flight first, others[4];
  (void)state;
  lucidauth *client = client_in_flight(&first, false);
  for (int i = 0; i < 4; i++)
    begin_to_ask(&others[i], client);
  usleep(20000); /* most of them wait by now; nothing depends on it */
  pid_t child = start_child(gets_a1_and_closes, client);
  let_answer(1);
  assert_true(ends_with(&first, "A1"));
  for (int i = 0; i < 4; i++)
    assert_true(ends_with(&others[i], "A1"));
  assert_true(ends_well(child));
  close_after(1, client);
}

static bool gets_a2(lucidauth *client)
{
  return gets(client, "A2");
}

static void a_child_knows_what_its_parent_rejected(void **state)
{
  lucidauth *client = client_with(false);
  (void)state;
  let_answer(2);
  assert_true(gets(client, "A1"));
  (void)lucidauth_reject(client, NULL, "A1", NULL);
  assert_true(ends_well(start_child(gets_a2, client)));
  assert_true(gets(client, "A2"));
  close_after(2, client);
}

static bool is_unsaved(lucidauth *client)
{
  lucidauth_status status = LUCIDAUTH_STATUS_INIT;
  return lucidauth_get_status(client, NULL, &status, NULL) && status.unsaved;
}

/* ---- tokens that could not be saved ---- */

int __real_fsync(int fd);
int __wrap_fsync(int fd);

/* A disk that has its faults. */
int __wrap_fsync(int fd)
{
  errno = EIO;
  return server.seen && server.seen->broken_disk ? -1 : __real_fsync(fd);
}

/* "A1" is in the memory of this process alone; the disk is well again. */
static lucidauth *client_with_unsaved_tokens(void)
{
  struct flight flight;
  lucidauth *client = client_in_flight(&flight, false);
  server.seen->broken_disk = true;
  let_answer(1);
  bool good = ends_with(&flight, "A1") && is_unsaved(client);
  server.seen->broken_disk = false;
  if (!good)
    _exit(1);
  return client;
}

static bool stored(const char *text)
{
  char record[4096] = "";
  FILE *file = fopen(path, "r");
  if (!file)
    return false;
  record[fread(record, 1, sizeof record - 1, file)] = '\0';
  fclose(file);
  return strstr(record, text) != NULL;
}

static bool gets_a1_unsaved(lucidauth *client)
{
  bool good = gets(client, "A1") && is_unsaved(client);
  lucidauth_close(client);
  return good && stored("pending");
}

static void tokens_that_could_not_be_saved_are_their_parents_as_long_as_it_lives(void **state)
{
  (void)state;
  lucidauth *client = client_with_unsaved_tokens();
  assert_true(ends_well(start_child(gets_a1_unsaved, client)));
  assert_true(ends_well(start_child(closes, client)));
  assert_int_equal(lock_of_another(), STORE_BUSY);
  assert_true(stored("pending"));
  assert_true(gets(client, "A1"));
  assert_false(is_unsaved(client));
  assert_int_equal(lock_of_another(), STORE_OK);
  assert_true(stored("\"R1\""));
  lucidauth_close(client);
}

/* As daemon(3) does: the parent ends at once, and takes no leave. Returns what its child came to. */
static bool goes_on_in_a_child(child_body *body)
{
  int alive[2], report[2];
  char byte = 'n';
  assert_int_equal(pipe(alive), 0);
  assert_int_equal(pipe(report), 0);
  pid_t parent = fork();
  if (parent == 0) {
    lucidauth *client = client_with_unsaved_tokens();
    if (fork() != 0)
      _exit(0);
    close(alive[1]);
    bool good = read(alive[0], &byte, 1) == 0 && body(client);
    ssize_t told = write(report[1], good ? "y" : "n", 1);
    _exit(told == 1 ? 0 : 1);
  }
  assert_true(ends_well(parent));
  close(alive[0]);
  close(alive[1]);
  close(report[1]);
  bool told = read(report[0], &byte, 1) == 1;
  close(report[0]);
  return told && byte == 'y';
}

static bool gets_and_saves_a1(lucidauth *client)
{
  let_answer(1); /* to the refresh at the end */
  return gets(client, "A1") && stored("\"R1\"") && !stored("pending") && !is_unsaved(client) &&
         is_token(lucidauth_refresh(client, NULL, NULL), "A2");
}

static void a_child_saves_what_its_parent_has_left_to_it(void **state)
{
  (void)state;
  assert_true(goes_on_in_a_child(gets_and_saves_a1));
  assert_int_equal(server.seen->refused, 0);
}

static bool closes_and_saves_a1(lucidauth *client)
{
  lucidauth_close(client);
  return stored("\"R1\"") && !stored("pending");
}

static void a_child_that_closes_saves_it_too(void **state)
{
  (void)state;
  assert_true(goes_on_in_a_child(closes_and_saves_a1));
}

static bool has_a_child_that_exits(lucidauth *client)
{
  pid_t child = fork();
  if (child == 0)
    exit(client ? 0 : 1);
  return ends_well(child) && stored("\"R1\"") && !stored("pending");
}

static void and_so_does_one_that_ends(void **state)
{
  (void)state;
  assert_true(goes_on_in_a_child(has_a_child_that_exits));
}

static ino_t file_number(void)
{
  struct stat found = {0};
  (void)stat(path, &found);
  return found.st_ino;
}

static bool hears_and_adopts_a1(lucidauth *client)
{
  char byte;
  bool unsaved = gets(client, "A1") && is_unsaved(client);
  server.seen->ready = true;
  bool heard_it = read(heard, &byte, 1) == 1;
  ino_t before = file_number();
  bool good = gets(client, "A1") && !is_unsaved(client);
  lucidauth_close(client);
  return unsaved && heard_it && good && file_number() == before;
}

static bool ready(void)
{
  return server.seen->ready;
}

static void a_child_takes_over_what_its_parent_saves(void **state)
{
  int pipes[2];
  (void)state;
  assert_int_equal(pipe(pipes), 0);
  heard = pipes[0];
  lucidauth *client = client_with_unsaved_tokens();
  pid_t child = start_child(hears_and_adopts_a1, client);
  until(ready);
  assert_true(gets(client, "A1"));
  assert_true(stored("\"R1\""));
  assert_int_equal(write(pipes[1], "x", 1), 1);
  assert_true(ends_well(child));
  close(pipes[0]);
  close(pipes[1]);
  lucidauth_close(client);
}

static void a_child_never_brings_back_what_its_parent_has_spent(void **state)
{
  int pipes[2];
  (void)state;
  assert_int_equal(pipe(pipes), 0);
  heard = pipes[0];
  lucidauth *client = client_with_unsaved_tokens();
  let_answer(1);
  pid_t child = start_child(hears_its_parent, client);
  assert_true(is_token(lucidauth_refresh(client, NULL, NULL), "A2"));
  assert_int_equal(write(pipes[1], "x", 1), 1);
  assert_true(ends_well(child));
  assert_true(stored("\"R2\""));
  close(pipes[0]);
  close(pipes[1]);
  lucidauth_close(client);
}

/* ---- flights in the program's own hands ---- */

/* A flight whose storage is one text, and what it is to do next. */
struct own_flight {
  lucidauth_flight *flight;
  lucidauth_action action;
  char stored[2000];
  int steps;
};

static void do_step(struct own_flight *own)
{
  lucidauth_result result = LUCIDAUTH_RESULT_OK;
  if (own->action.step == LUCIDAUTH_STEP_LOAD && !own->stored[0])
    result = LUCIDAUTH_RESULT_NONE;
  if (own->action.step == LUCIDAUTH_STEP_SAVE)
    snprintf(own->stored, sizeof own->stored, "%s", own->action.record);
  if (own->action.step == LUCIDAUTH_STEP_POST)
    lucidauth_flight_post(own->flight);
  lucidauth_flight_next(own->flight, result, own->stored, &own->action);
  own->steps++;
}

static void begin(struct own_flight *own, lucidauth *client)
{
  *own = (struct own_flight){.flight =
                                 lucidauth_flight_begin(lucidauth_get_account(client, NULL, NULL), false, NULL, NULL)};
  assert_non_null(own->flight);
  lucidauth_flight_next(own->flight, LUCIDAUTH_RESULT_OK, NULL, &own->action);
}

static struct own_flight *inherited;

/* It does what it was about to do, is told that it need not, and may begin anew. */
static bool is_not_flying(lucidauth *client)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  do_step(inherited);
  if (inherited->action.step != LUCIDAUTH_STEP_DONE)
    return false;
  char *token = lucidauth_flight_end(inherited->flight, NULL, &error);
  if (token || error.code != LUCIDAUTH_NOT_READY)
    return false;
  lucidauth_flight *flight = lucidauth_flight_begin(lucidauth_get_account(client, NULL, NULL), false, NULL, &error);
  lucidauth_action action = LUCIDAUTH_ACTION_INIT;
  lucidauth_flight_next(flight, LUCIDAUTH_RESULT_OK, NULL, &action);
  lucidauth_free_token(lucidauth_flight_end(flight, NULL, NULL));
  lucidauth_close(client);
  return action.step == LUCIDAUTH_STEP_LOAD;
}

static void a_child_carries_no_flight_on(void **state)
{
  struct own_flight own;
  lucidauth *client = client_of(LUCIDAUTH_CUSTOM, false);
  (void)state;
  let_answer(1);
  begin(&own, client);
  inherited = &own;
  while (own.action.step != LUCIDAUTH_STEP_DONE) {
    assert_true(ends_well(start_child(is_not_flying, client)));
    assert_true(ends_well(start_child(closes, client)));
    do_step(&own);
  }
  assert_int_equal(own.steps, 9);
  assert_true(is_token(lucidauth_flight_end(own.flight, NULL, NULL), "A1"));
  assert_int_equal(server.seen->posts, 1);
  assert_non_null(strstr(own.stored, "\"R1\""));
  lucidauth_close(client);
}

int main(void)
{
  alarm(4 * PATIENCE);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(both_have_the_token_of_before, set_up, tear_down),
      cmocka_unit_test_setup_teardown(a_child_that_refreshes_is_heard_by_its_parent, set_up, tear_down),
      cmocka_unit_test_setup_teardown(a_parent_that_refreshes_is_heard_by_its_child, set_up, tear_down),
      cmocka_unit_test_setup_teardown(a_child_may_be_the_first_to_ask, set_up, tear_down),
      cmocka_unit_test_setup_teardown(a_child_may_have_children, set_up, tear_down),
      cmocka_unit_test_setup_teardown(a_child_waits_for_the_flight_of_its_parent, set_up, tear_down),
      cmocka_unit_test_setup_teardown(a_child_waits_for_the_background_of_its_parent, set_up, tear_down),
      cmocka_unit_test_setup_teardown(a_child_that_closes_takes_nothing_from_its_parent, set_up, tear_down),
      cmocka_unit_test_setup_teardown(a_child_that_closes_takes_no_background_from_its_parent, set_up, tear_down),
      cmocka_unit_test_setup_teardown(a_child_does_not_hold_the_lock_of_a_parent_that_died, set_up, tear_down),
      cmocka_unit_test_setup_teardown(a_child_does_not_wait_for_threads_that_it_has_not, set_up, tear_down),
      cmocka_unit_test_setup_teardown(a_child_knows_what_its_parent_rejected, set_up, tear_down),
      cmocka_unit_test_setup_teardown(tokens_that_could_not_be_saved_are_their_parents_as_long_as_it_lives, set_up,
                                      tear_down),
      cmocka_unit_test_setup_teardown(a_child_saves_what_its_parent_has_left_to_it, set_up, tear_down),
      cmocka_unit_test_setup_teardown(a_child_that_closes_saves_it_too, set_up, tear_down),
      cmocka_unit_test_setup_teardown(and_so_does_one_that_ends, set_up, tear_down),
      cmocka_unit_test_setup_teardown(a_child_takes_over_what_its_parent_saves, set_up, tear_down),
      cmocka_unit_test_setup_teardown(a_child_never_brings_back_what_its_parent_has_spent, set_up, tear_down),
      cmocka_unit_test_setup_teardown(a_child_carries_no_flight_on, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
