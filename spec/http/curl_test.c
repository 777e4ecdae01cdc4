/* One POST against real servers over TCP and TLS. */
#define _GNU_SOURCE
#include "../../src/base/secret.h"
#include "../../src/http/http.h"
#include "server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <curl/curl.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OK "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n{\"a\":1}\n"

enum { REACHED = -1, WIDE = 65536, PATIENCE = 120000 /* milliseconds */ };

static struct {
  char folder[64];
  char authority[96], stranger[96], certificate[96], key[96];
  const struct http_ops *http;
  sem_t resolver;     /* holds the resolution of "slow.test" */
  int refusal;        /* the errno of socket(), or 0 */
  int unreached;      /* the errno of connect(), REACHED: it seems to be well, or 0: it does what it does */
  int broken;         /* a socket whose peer has gone; >= 0: everything is sent there */
  atomic_int sent_to; /* the last descriptor */
  atomic_int sends;
  bool sips; /* receives a few bytes at a time */
  char answer[20000];
  size_t size; /* of the answer */
} world = {.broken = -1};

/* The resolver and send() that libcurl sees: names that lead where a test wants them to, and a TLS library that writes
 * to a closed connection. */
typedef int resolver(const char *, const char *, const struct addrinfo *, struct addrinfo **);

static resolver *real_resolver(void)
{
  void *symbol = dlsym(RTLD_NEXT, "getaddrinfo");
  resolver *function = NULL;
  memcpy(&function, &symbol, sizeof function);
  return function;
}

static int resolve_both(const char *service, const struct addrinfo *hints, struct addrinfo **result)
{
  struct addrinfo *near = NULL;
  int failed = real_resolver()("192.0.2.1", service, hints, result);
  if (failed)
    return failed;
  failed = real_resolver()("127.0.0.1", service, hints, &near);
  (*result)->ai_next = near;
  return failed;
}

__attribute__((visibility("default"))) int getaddrinfo(const char *restrict name, const char *restrict service,
                                                       const struct addrinfo *restrict hints,
                                                       struct addrinfo **restrict result)
{
  if (name && strcmp(name, "slow.test") == 0)
    sem_wait(&world.resolver);
  if (name && strcmp(name, "both.test") == 0)
    return resolve_both(service, hints, result);
  if (name && strcmp(name, "elsewhere.test") == 0)
    return real_resolver()("192.0.2.1", service, hints, result);
  if (name && strstr(name, ".test"))
    return EAI_NONAME;
  return real_resolver()(name, service, hints, result);
}

static int refuse(int cause)
{
  errno = cause;
  return -1;
}

__attribute__((visibility("default"))) int socket(int domain, int type, int protocol)
{
  int (*real)(int, int, int) = NULL;
  void *symbol = dlsym(RTLD_NEXT, "socket");
  memcpy(&real, &symbol, sizeof real);
  bool refused = world.refusal && (domain == AF_INET || domain == AF_INET6);
  return refused ? refuse(world.refusal) : real(domain, type, protocol);
}

/* glibc declares it with a union that ISO C does not know. */
__attribute__((visibility("default"))) int seen_connect(int fd, const struct sockaddr *address,
                                                        socklen_t size) __asm__("connect");

int seen_connect(int fd, const struct sockaddr *address, socklen_t size)
{
  int (*real)(int, const struct sockaddr *, socklen_t) = NULL;
  void *symbol = dlsym(RTLD_NEXT, "connect");
  memcpy(&real, &symbol, sizeof real);
  if (world.unreached > 0)
    return refuse(world.unreached);
  return world.unreached == REACHED ? 0 : real(fd, address, size);
}

__attribute__((visibility("default"))) ssize_t send(int fd, const void *data, size_t size, int flags)
{
  world.sent_to = fd;
  atomic_fetch_add(&world.sends, 1);
  return world.broken >= 0 ? write(world.broken, data, size) : sendto(fd, data, size, flags, NULL, 0);
}

/* Allocations of ours, and of libcurl's, which come by ours. */
static struct {
  atomic_int asked, failed;
  atomic_int first, last; /* those of these numbers fail, from 1 on */
} allocations;

static void fail_allocations(int first, int last)
{
  atomic_store(&allocations.asked, 0);
  atomic_store(&allocations.failed, 0);
  atomic_store(&allocations.first, first);
  atomic_store(&allocations.last, last);
}

static bool may_allocate(void)
{
  int number = atomic_fetch_add(&allocations.asked, 1) + 1;
  bool fails = number >= atomic_load(&allocations.first) && number <= atomic_load(&allocations.last);
  atomic_fetch_add(&allocations.failed, fails);
  return !fails;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);

void *__wrap_malloc(size_t size)
{
  return may_allocate() ? __real_malloc(size) : NULL;
}

void *__wrap_calloc(size_t count, size_t size)
{
  return may_allocate() ? __real_calloc(count, size) : NULL;
}

/* The clocks: they go by themselves, jump at a look at them, as for a process that was stopped, or stand still. */
static struct {
  bool stand;
  struct moment now;      /* where they stand */
  int looks, jump_at;     /* 0: they do not jump */
  int sends;              /* how often something had been sent when they did */
  struct moment distance; /* of the jump */
} clocks;

struct moment __real_clock_now(void);

struct moment __wrap_clock_now(void)
{
  struct moment now = __real_clock_now();
  if (clocks.stand)
    return clocks.now;
  if (clocks.jump_at == 0 || ++clocks.looks < clocks.jump_at)
    return now;
  if (clocks.looks == clocks.jump_at)
    clocks.sends = world.sends;
  return (struct moment){.wall = now.wall + clocks.distance.wall, .steady = now.steady + clocks.distance.steady};
}

/* A libcurl that takes little at a time. */
__attribute__((visibility("default"))) ssize_t recv(int fd, void *data, size_t size, int flags)
{
  return recvfrom(fd, data, world.sips && size > 16 ? 16 : size, flags, NULL, NULL);
}

static void name_file(char path[96], const char *name)
{
  snprintf(path, 96, "%s/%s", world.folder, name);
}

static const char *url_of(const struct server *server, const char *base)
{
  static char url[128];
  snprintf(url, sizeof url, "%s:%d/oauth2/token", base, server->port);
  return url;
}

static struct http_request request_to(const char *url)
{
  return (struct http_request){.url = url,
                               .content_type = "application/json",
                               .body = "{\"grant\":1}",
                               .body_length = 11,
                               .ca_file = world.authority,
                               .connect_timeout = 20,
                               .timeout = 20};
}

static void post_to(const char *url, struct http_response *response)
{
  struct http_request request = request_to(url);
  world.http->post(&request, response);
}

/* One POST to a server with this talker; afterwards the server has ended and `server.seen` is final. */
struct run {
  struct server server;
  struct http_response response;
};

static struct run *run_with(server_talk *talker, const char *base, const struct tls *tls, struct http_request request)
{
  struct run *run = calloc(1, sizeof *run);
  assert_non_null(run);
  server_start(&run->server, talker, tls);
  request.url = url_of(&run->server, base);
  world.http->post(&request, &run->response);
  server_stop(&run->server);
  return run;
}

static struct run *run_plain(server_talk *talker)
{
  return run_with(talker, "http://127.0.0.1", NULL, request_to(NULL));
}

static struct run *run_tls(server_talk *talker)
{
  struct tls tls = {world.certificate, world.key};
  return run_with(talker, "https://localhost", &tls, request_to(NULL));
}

static void run_free(struct run *run)
{
  world.http->release(&run->response);
  server_free(&run->server);
  free(run);
}

static void expect_received(const struct http_response *response, int status, const char *body)
{
  const struct reply *reply = &response->reply;
  if (reply->error)
    print_message("error: %s\n", reply->error);
  assert_int_equal(reply->delivery, REPLY_RECEIVED);
  assert_int_equal(reply->status, status);
  assert_false(reply->cut);
  assert_false(reply->timed_out);
  assert_null(reply->error);
  assert_int_equal(reply->length, strlen(body));
  assert_memory_equal(reply->body ? reply->body : "", body, strlen(body));
}

static void expect_not_sent(const struct http_response *response, bool timed_out)
{
  const struct reply *reply = &response->reply;
  assert_int_equal(reply->delivery, REPLY_NOT_SENT);
  assert_int_equal(reply->timed_out, timed_out);
  assert_int_equal(reply->status, 0);
  assert_int_equal(reply->length, 0);
  assert_null(reply->body);
  assert_null(reply->retry_after);
  assert_null(reply->location);
  assert_non_null(reply->error);
}

static void expect_words(const struct http_response *response, const char *words)
{
  if (!response->reply.error || !strstr(response->reply.error, words))
    print_message("not \"%s\": %s\n", words, response->reply.error ? response->reply.error : "(nothing)");
  assert_non_null(response->reply.error);
  assert_non_null(strstr(response->reply.error, words));
}

static void expect_lost(const struct run *run, bool timed_out, int status, const char *body)
{
  const struct reply *reply = &run->response.reply;
  assert_int_equal(reply->delivery, REPLY_LOST);
  assert_int_equal(reply->timed_out, timed_out);
  assert_int_equal(reply->status, status);
  assert_non_null(reply->error);
  assert_int_equal(reply->length, strlen(body));
  assert_memory_equal(reply->body ? reply->body : "", body, strlen(body));
  assert_int_equal(run->server.seen->connections, 1);
  assert_in_range(run->server.seen->requests, 0, 1);
}

static void says_ok(struct talk *talk)
{
  if (talk_read(talk))
    talk_say(talk, OK);
}

static void test_post(void **state)
{
  (void)state;
  struct http_request request = request_to(NULL);
  request.authorization = "Basic Y2xpZW50OnNlY3JldA==";
  struct run *run = run_with(says_ok, "http://127.0.0.1", NULL, request);
  expect_received(&run->response, 200, "{\"a\":1}\n");
  assert_int_equal(run->server.seen->connections, 1);
  assert_int_equal(run->server.seen->requests, 1);
  const char *sent = run->server.seen->request;
  char agent[128];
  snprintf(agent, sizeof agent, "\r\nUser-Agent: lucidauth/%s libcurl/", LUCIDAUTH_VERSION);
  assert_ptr_equal(strstr(sent, "POST /oauth2/token HTTP/1.1\r\n"), sent);
  assert_non_null(strstr(sent, "\r\nContent-Type: application/json\r\n"));
  assert_non_null(strstr(sent, "\r\nAccept: application/json\r\n"));
  assert_non_null(strstr(sent, "\r\nAuthorization: Basic Y2xpZW50OnNlY3JldA==\r\n"));
  assert_non_null(strstr(sent, agent));
  assert_non_null(strstr(sent, "\r\nContent-Length: 11\r\n"));
  assert_non_null(strstr(sent, "\r\n\r\n{\"grant\":1}"));
  assert_null(strcasestr(sent, "\r\nExpect:"));
  assert_null(strcasestr(sent, "\r\nCookie:"));
  assert_null(strcasestr(sent, "\r\nUpgrade:"));
  assert_non_null(strstr(sent, "\r\nAccept-Encoding: identity\r\n")); /* without it any coding would be welcome */
  run_free(run);
}

static void test_release_empties(void **state)
{
  (void)state;
  struct run *run = run_plain(says_ok);
  world.http->release(&run->response);
  assert_null(run->response.reply.body);
  assert_null(run->response.body);
  assert_int_equal(run->response.reply.length, 0);
  run_free(run);
}

static void test_no_authorization_by_itself(void **state)
{
  (void)state;
  struct run *run = run_plain(says_ok);
  assert_null(strcasestr(run->server.seen->request, "\r\nAuthorization:"));
  run_free(run);
}

static void test_bodies(void **state)
{
  (void)state;
  static char large[WIDE * 32]; /* so large that libcurl would ask for a go-ahead first */
  memset(large, 0, sizeof large);
  size_t sizes[] = {0, 1, 2000, sizeof large};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    struct http_request request = request_to(NULL);
    request.body = sizes[i] ? large : NULL;
    request.body_length = sizes[i];
    struct run *run = run_with(says_ok, "http://127.0.0.1", NULL, request);
    char length[64];
    snprintf(length, sizeof length, "\r\nContent-Length: %zu\r\n", sizes[i]);
    expect_received(&run->response, 200, "{\"a\":1}\n");
    assert_non_null(strstr(run->server.seen->request, length));
    assert_null(strcasestr(run->server.seen->request, "\r\nExpect:"));
    assert_int_equal(run->server.seen->requests, 1);
    assert_true(run->server.seen->bytes > sizes[i]);
    run_free(run);
  }
}

static void test_loopback_names(void **state)
{
  (void)state;
  const char *bases[] = {"http://localhost", "HTTP://LOCALHOST", "http://127.0.0.1", "http://both.test"};
  for (size_t i = 0; i < sizeof bases / sizeof *bases; i++) {
    struct run *run = run_with(says_ok, bases[i], NULL, request_to(NULL));
    expect_received(&run->response, 200, "{\"a\":1}\n");
    run_free(run);
  }
}

static void test_plain_stays_here(void **state)
{
  (void)state;
  const char *urls[] = {"http://elsewhere.test/", "http://192.0.2.1/", "elsewhere.test/", "http://[2001:db8::1]/"};
  for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
    struct http_response response;
    post_to(urls[i], &response);
    expect_not_sent(&response, false);
    assert_non_null(strstr(response.reply.error, "not of this machine"));
    world.http->release(&response);
  }
}

static void test_user_refused(void **state)
{
  (void)state;
  struct run *run = run_with(says_ok, "http://someone@127.0.0.1", NULL, request_to(NULL));
  expect_not_sent(&run->response, false);
  assert_int_equal(run->server.seen->connections, 0);
  run_free(run);
}

/* Nobody needs to listen there, nor need there be an IPv6. */
static void test_plain_to_ipv6_loopback(void **state)
{
  (void)state;
  struct http_response response;
  post_to("http://[::1]:1/", &response);
  expect_not_sent(&response, false);
  assert_null(strstr(response.reply.error, "not of this machine"));
  world.http->release(&response);
}

static void test_not_reached(void **state)
{
  (void)state;
  struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof name;
  int deaf = socket(AF_INET, SOCK_STREAM, 0); /* bound, not listening: it refuses, and nobody else gets the port */
  assert_int_equal(bind(deaf, (struct sockaddr *)&name, size), 0);
  assert_int_equal(getsockname(deaf, (struct sockaddr *)&name, &size), 0);
  char refused[64];
  snprintf(refused, sizeof refused, "https://127.0.0.1:%d/", ntohs(name.sin_port));
  const char *urls[] = {refused, "https://nowhere.test/", "ftp://localhost/", "https://", "file:///etc/passwd"};
  for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
    struct http_response response;
    post_to(urls[i], &response);
    expect_not_sent(&response, false);
    assert_true(strlen(response.reply.error) > 5);
    world.http->release(&response);
  }
  close(deaf);
}

static void leaves(struct talk *talk)
{
  talk_read(talk);
}

static void resets(struct talk *talk)
{
  talk_read(talk);
  talk_reset(talk);
}

static void resets_early(struct talk *talk)
{
  talk_read_head(talk);
  talk_reset(talk);
}

static void says_half_a_head(struct talk *talk)
{
  if (talk_read(talk))
    talk_say(talk, "HTTP/1.1 200 OK\r\nContent-Le");
}

static void says_half_a_head_after_interim(struct talk *talk)
{
  if (talk_read(talk))
    talk_say(talk, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Le");
}

static void says_half_a_line_after_interim(struct talk *talk)
{
  if (talk_read(talk))
    talk_say(talk, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1");
}

static void says_half_a_chunk(struct talk *talk)
{
  if (talk_read(talk))
    talk_say(talk, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n9\r\n1");
}

static void says_half(struct talk *talk)
{
  if (talk_read(talk))
    talk_say(talk, "HTTP/1.1 400 No\r\nContent-Length: 100\r\nRetry-After: 5\r\n\r\n{\"a\"");
}

static void says_interim_only(struct talk *talk)
{
  if (talk_read(talk))
    talk_say(talk, "HTTP/1.1 103 Early Hints\r\nLocation: /\r\n\r\n");
}

static void switches(struct talk *talk)
{
  if (talk_read(talk))
    talk_say(talk, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nboo");
}

static void says_no_http(struct talk *talk)
{
  if (talk_read(talk))
    talk_say(talk, "{\"access_token\":1}\r\n\r\n");
}

static void says_nul(struct talk *talk)
{
  static const char answer[] = "HTTP/1.1 200 OK\r\nRetry-After: 1\0002\r\n\r\n{}";
  if (talk_read(talk))
    talk_send(talk, answer, sizeof answer - 1);
}

static void never_ends_its_head(struct talk *talk)
{
  bool on = talk_read(talk) && talk_say(talk, "HTTP/1.1 200 OK\r\n");
  while (on)
    on = talk_say(talk, "X-Noise: 0123456789012345678901234567890123456789\r\n");
}

static void never_ends_interim(struct talk *talk)
{
  bool on = talk_read(talk);
  while (on)
    on = talk_say(talk, "HTTP/1.1 103 Early Hints\r\nX-Noise: 0123456789\r\n\r\n");
}

static void test_lost(void **state)
{
  (void)state;
  struct {
    server_talk *talker;
    int status;
    const char *body;
  } rows[] = {{leaves, 0, ""},
              {resets, 0, ""},
              {resets_early, 0, ""},
              {says_half_a_head, 200, ""},
              {says_half_a_head_after_interim, 200, ""},
              {says_half_a_line_after_interim, 0, ""},
              {says_half_a_chunk, 200, "{\"a\":1"},
              {says_half, 400, "{\"a\""},
              {says_interim_only, 0, ""},
              {switches, 0, "boo"},
              {says_no_http, 0, ""},
              {says_nul, 200, ""},
              {never_ends_its_head, 200, ""},
              {never_ends_interim, 0, ""}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct run *run = run_plain(rows[i].talker);
    expect_lost(run, false, rows[i].status, rows[i].body);
    run_free(run);
    run = run_tls(rows[i].talker);
    expect_lost(run, false, rows[i].status, rows[i].body);
    run_free(run);
  }
}

/* Without a length, over TLS, the end is told from a cut by TLS's own farewell; not every libcurl minds that it is
 * missing, but what came is there. */
static void forgets_its_farewell(struct talk *talk)
{
  if (talk_read(talk) && talk_say(talk, "HTTP/1.1 200 OK\r\n\r\n{\"a\":1}"))
    talk_drop(talk);
}

static void says_farewell(struct talk *talk)
{
  if (talk_read(talk))
    talk_say(talk, "HTTP/1.1 200 OK\r\n\r\n{\"a\":1}");
}

static void test_end_without_length(void **state)
{
  (void)state;
  struct run *run = run_tls(forgets_its_farewell);
  assert_int_not_equal(run->response.reply.delivery, REPLY_NOT_SENT);
  assert_int_equal(run->response.reply.status, 200);
  assert_int_equal(run->response.reply.length, 7);
  assert_memory_equal(run->response.reply.body, "{\"a\":1}", 7);
  run_free(run);
  run = run_tls(says_farewell);
  expect_received(&run->response, 200, "{\"a\":1}");
  run_free(run);
}

/* An answer of the test's choosing; a server's process is a copy of this one at the time it is started. */
static const char *said;

static void says(struct talk *talk)
{
  if (talk_read(talk))
    talk_say(talk, said);
}

static void says_and_drops(struct talk *talk)
{
  says(talk);
  talk_drop(talk);
}

static void says_and_stays(struct talk *talk)
{
  says(talk);
  talk_hang(talk);
}

#define FORM "access_token=a&refresh_token=b"

static void expect_end(server_talk *talker, bool told, const struct tls *tls)
{
  struct run *run = run_with(talker, tls ? "https://localhost" : "http://127.0.0.1", tls, request_to(NULL));
  const struct reply *reply = &run->response.reply;
  assert_int_equal(reply->length, strlen(FORM));
  assert_memory_equal(reply->body, FORM, strlen(FORM));
  if (told)
    assert_int_equal(reply->delivery, REPLY_RECEIVED);
  if (reply->whole != told)
    print_message("%s\n", said);
  assert_int_equal(reply->whole, told);
  run_free(run);
}

static void test_end_is_told(void **state)
{
  (void)state;
  struct tls tls = {world.certificate, world.key};
  static const char *const told[] = {
      "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n" FORM,
      "HTTP/1.0 200 OK\r\ncontent-length:30\r\n\r\n" FORM,
      "HTTP/1.1 103 Early\r\nContent-Length: 7\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n" FORM,
      "HTTP/1.1 200 OK\r\nContent-Length: 30\r\nContent-Length: 30\r\n\r\n" FORM,
      "HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Length: 30\r\n\r\n" FORM,
      "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n1e\r\n" FORM "\r\n0\r\nContent-Length: 1\r\n\r\n"};
  for (size_t i = 0; i < sizeof told / sizeof *told; i++) {
    said = told[i];
    expect_end(says, true, NULL);
    expect_end(says_and_stays, true, NULL);
  }
  expect_end(says, true, &tls);
  said = told[0];
  expect_end(says_and_drops, true, &tls);
}

static void test_end_is_not_told(void **state)
{
  (void)state;
  struct tls tls = {world.certificate, world.key};
  static const char *const untold[] = {"HTTP/1.1 200 OK\r\n\r\n" FORM,
                                       "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n" FORM,
                                       "HTTP/1.1 103 Early\r\nContent-Length: 30\r\n\r\nHTTP/1.1 200 OK\r\n\r\n" FORM,
                                       "HTTP/1.1 200 OK\r\nX-Content-Length: 30\r\n\r\n" FORM,
                                       "HTTP/1.1 200 OK\r\nContent-Length: 31\r\n\r\n" FORM,
                                       "HTTP/1.1 200 OK\r\nContent-Length: 40\r\nContent-Length: 30\r\n\r\n" FORM,
                                       "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999999\r\n\r\n" FORM,
                                       "HTTP/1.1 103 Early\r\nTransfer-Encoding: chunked\r\n\r\nHTTP/1.1 200 "
                                       "OK\r\nTransfer-Encoding: identity\r\n\r\n" FORM,
                                       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1e\r\n" FORM "\r\n",
                                       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1e\r\n" FORM "\r\n0"};
  for (size_t i = 0; i < sizeof untold / sizeof *untold; i++) {
    said = untold[i];
    expect_end(says, false, NULL);
    if (i < 2)
      expect_end(i % 2 ? says : says_and_drops, false, &tls);
  }
}

static void hangs(struct talk *talk)
{
  talk_hang(talk);
}

static void hangs_after_half(struct talk *talk)
{
  if (talk_read(talk) && talk_say(talk, "HTTP/1.1 200 OK\r\n\r\n{\"a\":1}"))
    talk_hang(talk);
}

static void test_no_answer_in_time(void **state)
{
  (void)state;
  struct tls tls = {world.certificate, world.key};
  struct http_request request = request_to(NULL);
  request.timeout = 2; /* enough for the connection on a busy machine */
  struct run *run = run_with(hangs, "http://127.0.0.1", NULL, request);
  expect_lost(run, true, 0, "");
  run_free(run);
  run = run_with(hangs_after_half, "http://127.0.0.1", NULL, request);
  expect_lost(run, true, 200, "{\"a\":1}");
  run_free(run);
  request.timeout = 4; /* and for the handshake */
  run = run_with(hangs, "https://localhost", &tls, request);
  expect_lost(run, true, 0, "");
  run_free(run);
}

static void test_no_connection_in_time(void **state)
{
  (void)state;
  struct http_request request = request_to(NULL);
  request.connect_timeout = 0.2;
  struct run *run = run_with(hangs, "https://localhost", NULL, request);
  expect_not_sent(&run->response, true);
  run_free(run);
  request.connect_timeout = 20;
  request.timeout = 0.2;
  run = run_with(hangs, "https://localhost", NULL, request);
  expect_not_sent(&run->response, true);
  run_free(run);
}

/* Waiting for the resolver would never end here. */
static void test_no_name_in_time(void **state)
{
  (void)state;
  if (LIBCURL_VERSION_NUM < 0x075700)
    skip(); /* it waits */
  struct http_response response;
  struct http_request request = request_to("https://slow.test/");
  double waits[] = {0.05, 0, -1};
  for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
    request.timeout = waits[i];
    world.http->post(&request, &response);
    expect_not_sent(&response, true);
    world.http->release(&response);
  }
  for (size_t i = 0; i < sizeof waits / sizeof *waits; i++)
    sem_post(&world.resolver);
}

static void redirects(struct talk *talk)
{
  if (talk_read(talk))
    talk_say(talk, "HTTP/1.1 307 Over there\r\nLocation: \t http://127.0.0.1:1/else \r\nContent-Length: 0\r\n\r\n");
}

static void asks_for_a_password(struct talk *talk)
{
  if (talk_read(talk))
    talk_say(talk, "HTTP/1.1 401 Who?\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 2\r\n\r\nno");
}

static void expects_nothing(struct talk *talk)
{
  if (talk_read(talk))
    talk_say(talk, "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno");
}

static void wants_another_go(struct talk *talk)
{
  if (talk_read(talk))
    talk_say(talk, "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
}

static void test_one_request_only(void **state)
{
  (void)state;
  struct {
    server_talk *talker;
    int status;
    const char *body;
  } rows[] = {{redirects, 307, ""},
              {asks_for_a_password, 401, "no"},
              {expects_nothing, 417, "no"},
              {wants_another_go, 408, "no"}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct run *run = run_plain(rows[i].talker);
    expect_received(&run->response, rows[i].status, rows[i].body);
    assert_int_equal(run->server.seen->connections, 1);
    assert_int_equal(run->server.seen->requests, 1);
    if (i == 0)
      assert_string_equal(run->response.reply.location, "http://127.0.0.1:1/else");
    else
      assert_null(run->response.reply.location);
    run_free(run);
  }
}

static void floods(struct talk *talk)
{
  static char piece[WIDE];
  memset(piece, 'x', sizeof piece);
  bool on = talk_read(talk) && talk_say(talk, "HTTP/1.1 201 Made\r\n\r\n");
  while (on)
    on = talk_send(talk, piece, sizeof piece);
}

static void says_just_enough(struct talk *talk)
{
  static char body[HTTP_BODY_MAX];
  memset(body, 'x', sizeof body);
  if (talk_read(talk) && talk_say(talk, "HTTP/1.1 200 OK\r\n\r\n"))
    talk_send(talk, body, sizeof body);
}

static void says_one_too_many(struct talk *talk)
{
  says_just_enough(talk);
  talk_say(talk, "x");
}

static void test_flood(void **state)
{
  (void)state;
  server_talk *talkers[] = {floods, says_one_too_many};
  for (size_t i = 0; i < 2; i++) {
    struct run *run = run_plain(talkers[i]);
    const struct reply *reply = &run->response.reply;
    assert_int_equal(reply->delivery, REPLY_RECEIVED);
    assert_true(reply->cut);
    assert_int_equal(reply->status, i == 0 ? 201 : 200);
    assert_null(reply->body);
    assert_int_equal(reply->length, 0);
    assert_null(reply->error);
    assert_false(reply->timed_out);
    assert_int_equal(run->server.seen->connections, 1);
    run_free(run);
  }
  struct run *run = run_plain(says_just_enough);
  assert_int_equal(run->response.reply.delivery, REPLY_RECEIVED);
  assert_false(run->response.reply.cut);
  assert_int_equal(run->response.reply.length, HTTP_BODY_MAX);
  assert_int_equal(run->response.reply.body[HTTP_BODY_MAX - 1], 'x');
  run_free(run);
}

static void says_chunks(struct talk *talk)
{
  if (talk_read(talk))
    talk_say(talk, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                   "2;x=y\r\n{\"\r\n3\r\na\":\r\n2\r\n1}\r\n0\r\nX-Trailer: 1\r\n\r\n");
}

static void says_interim_first(struct talk *talk)
{
  if (talk_read(talk))
    talk_say(talk, "HTTP/1.1 100 Continue\r\n\r\n"
                   "HTTP/1.1 103 Early Hints\r\nRetry-After: 7\r\nLocation: /interim\r\n\r\n"
                   "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}");
}

static void test_odd_but_whole(void **state)
{
  (void)state;
  server_talk *talkers[] = {says_chunks, says_interim_first};
  for (size_t i = 0; i < 2; i++) {
    struct run *run = run_plain(talkers[i]);
    expect_received(&run->response, 200, "{\"a\":1}");
    assert_true(run->response.reply.whole);
    assert_null(run->response.reply.retry_after);
    assert_null(run->response.reply.location);
    run_free(run);
  }
}

/* Answers with what a shell command prints. */
static void says_output(struct talk *talk, const char *coding, const char *command)
{
  static char head[128], output[WIDE];
  FILE *pipe = popen(command, "r");
  size_t size = pipe ? fread(output, 1, sizeof output, pipe) : 0;
  snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %zu\r\n\r\n", coding, size);
  if (pipe && pclose(pipe) == 0 && talk_read(talk) && talk_say(talk, head))
    talk_send(talk, output, size);
}

static void says_it_packed(struct talk *talk)
{
  says_output(talk, "gzip", "printf '{\"a\":1}' | gzip -c");
}

static void says_it_packed_by_an_old_name(struct talk *talk)
{
  says_output(talk, "X-GZip", "printf '{\"a\":1}' | gzip -c");
}

static void says_that_it_is_not_packed(struct talk *talk)
{
  says_output(talk, "identity", "printf '{\"a\":1}'");
}

static void says_a_character_set(struct talk *talk)
{
  says_output(talk, "UTF-8", "printf '{\"a\":1}'");
}

static void says_that_it_is_packed(struct talk *talk)
{
  says_output(talk, "gzip", "printf '{\"a\":1}'");
}

static void says_too_much_packed(struct talk *talk)
{
  says_output(talk, "gzip", "head -c 2000000 /dev/zero | gzip -c");
}

static void test_packed(void **state)
{
  (void)state;
  server_talk *talkers[] = {says_it_packed, says_it_packed_by_an_old_name, says_that_it_is_not_packed};
  for (size_t i = 0; i < sizeof talkers / sizeof *talkers; i++) {
    struct run *run = run_plain(talkers[i]);
    expect_received(&run->response, 200, "{\"a\":1}");
    assert_int_equal(run->response.reply.whole, talkers[i] == says_that_it_is_not_packed);
    run_free(run);
    run = run_tls(talkers[i]);
    expect_received(&run->response, 200, "{\"a\":1}");
    run_free(run);
  }
}

/* Its length is reached, but what was packed is cut: libcurl does not mind. */
static void says_it_packed_and_cut(struct talk *talk)
{
  says_output(talk, "gzip", "head -c 100 /dev/zero | gzip -c | head -c 20");
}

static void test_packed_and_cut(void **state)
{
  (void)state;
  struct run *run = run_plain(says_it_packed_and_cut);
  assert_false(run->response.reply.whole);
  run_free(run);
}

static void test_packed_wrongly(void **state)
{
  (void)state;
  struct run *run = run_plain(says_that_it_is_packed);
  expect_lost(run, false, 200, "");
  run_free(run);
}

static void test_packed_flood(void **state)
{
  (void)state;
  struct run *run = run_plain(says_too_much_packed);
  assert_int_equal(run->response.reply.delivery, REPLY_RECEIVED);
  assert_true(run->response.reply.cut);
  assert_int_equal(run->response.reply.length, 0);
  assert_true(run->server.seen->bytes < HTTP_BODY_MAX);
  run_free(run);
}

/* What nobody can unpack need not be packed. */
static void test_coding_that_is_none(void **state)
{
  (void)state;
  if (curl_version_info(CURLVERSION_NOW)->version_num >= 0x080500)
    skip(); /* it does not let itself be told so late */
  struct run *run = run_plain(says_a_character_set);
  expect_received(&run->response, 200, "{\"a\":1}");
  run_free(run);
}

static void says_later(struct talk *talk)
{
  if (talk_read(talk))
    talk_say(talk, "HTTP/1.1 503 Later\r\nretry-AFTER:  Wed, 21 Oct 2026 07:28:00 GMT\t\r\nContent-Length: 0\r\n\r\n");
}

static void says_later_in_silence(struct talk *talk)
{
  if (talk_read(talk))
    talk_say(talk, "HTTP/1.1 503 Later\r\nRetry-After:  \r\nRetry-Afterwards: 3\r\nRetry-Aft: 4\r\n"
                   "Content-Length: 0\r\n\r\n");
}

static void test_retry_after(void **state)
{
  (void)state;
  struct run *run = run_plain(says_later);
  expect_received(&run->response, 503, "");
  assert_string_equal(run->response.reply.retry_after, "Wed, 21 Oct 2026 07:28:00 GMT");
  run_free(run);
  run = run_plain(says_later_in_silence);
  expect_received(&run->response, 503, "");
  assert_null(run->response.reply.retry_after);
  run_free(run);
}

static void says_wide(struct talk *talk, const char *name)
{
  static char wide[WIDE];
  memset(wide, '9', sizeof wide);
  talk_say(talk, name);
  talk_send(talk, wide, sizeof wide);
}

static void says_long_lines(struct talk *talk)
{
  if (!talk_read(talk))
    return;
  says_wide(talk, "HTTP/1.1 429 ");
  says_wide(talk, "\r\nX-Noise: ");
  says_wide(talk, "\r\nRetry-After: ");
  talk_say(talk, "\r\nLocation: ");
  for (int i = 0; i < 100; i++)
    talk_say(talk, "0123456789");
  talk_say(talk, "\r\nContent-Length: 2\r\n\r\nno");
}

static void test_long_lines(void **state)
{
  (void)state;
  struct run *run = run_plain(says_long_lines);
  expect_received(&run->response, 429, "no");
  assert_int_equal(strlen(run->response.reply.retry_after), sizeof run->response.retry_after - 1);
  assert_int_equal(strlen(run->response.reply.location), sizeof run->response.location - 1);
  assert_int_equal(strspn(run->response.reply.retry_after, "9"), sizeof run->response.retry_after - 1);
  run_free(run);
}

static void test_tls(void **state)
{
  (void)state;
  struct run *run = run_tls(says_ok);
  expect_received(&run->response, 200, "{\"a\":1}\n");
  assert_int_equal(run->server.seen->connections, 1);
  assert_int_equal(run->server.seen->requests, 1);
  run_free(run);
}

/* The keys of a connection stand in no file, whatever the environment says. */
static void test_no_keys_are_logged(void **state)
{
  (void)state;
  char path[96];
  struct stat file;
  struct run *run = run_tls(says_ok);
  expect_received(&run->response, 200, "{\"a\":1}\n");
  run_free(run);
  name_file(path, "keys");
  if (stat(path, &file) == 0)
    assert_int_equal(file.st_size, 0);
}

static void speaks_no_tls(struct talk *talk)
{
  talk_say(talk, OK);
  talk_hang(talk);
}

static void test_tls_refused(void **state)
{
  (void)state;
  struct tls tls = {world.certificate, world.key};
  struct {
    const char *base, *ca_file;
  } rows[] = {{"https://localhost", NULL},
              {"https://localhost", world.stranger},
              {"https://localhost", "/nonexistent/ca.pem"},
              {"https://127.0.0.1", world.authority}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct http_request request = request_to(NULL);
    request.ca_file = rows[i].ca_file;
    struct run *run = run_with(says_ok, rows[i].base, &tls, request);
    expect_not_sent(&run->response, false);
    assert_true(run->response.reply.untrusted);
    assert_int_equal(run->server.seen->bytes, 0);
    if (i == 2)
      expect_words(&run->response, "there is no file /nonexistent/ca.pem");
    run_free(run);
  }
  struct run *run = run_with(speaks_no_tls, "https://localhost", NULL, request_to(NULL));
  expect_not_sent(&run->response, false);
  assert_false(run->response.reply.untrusted);
  run_free(run);
}

/* What this machine refuses is not the server's fault, and is named. */
static void test_refused_by_this_machine(void **state)
{
  (void)state;
  static const struct {
    int refusal, unreached;
    const char *url, *words;
  } rows[] = {
      {EMFILE, 0, "https://127.0.0.1:1/", "no file descriptor left (ulimit -n)"},
      {ENFILE, 0, "https://127.0.0.1:1/", "the system has no file descriptor left"},
      {ENOMEM, 0, "https://127.0.0.1:1/", "out of memory"},
      {ENOBUFS, 0, "http://127.0.0.1:1/", "out of memory"},
      {EPERM, 0, "https://127.0.0.1:1/", "forbids this process to connect (seccomp"},
      {EACCES, 0, "https://localhost:1/", "forbids this process to connect (seccomp"},
      {EAFNOSUPPORT, 0, "https://localhost:1/", "no network of that kind"},
      {0, ENETUNREACH, "https://192.0.2.1/", "192.0.2.1 port 443: no network leads there"},
      {0, EPERM, "https://192.0.2.1/", "forbids this process to connect"},
      {0, EADDRNOTAVAIL, "https://192.0.2.1/", "no address or port left"},
      {0, ENETUNREACH, "https://nowhere.test/", "no network leads out of this machine or container"},
      {0, EADDRNOTAVAIL, "https://nowhere.test/", "no network leads out of this machine or container"},
      {0, EPERM, "https://nowhere.test/", "Could not resolve host: nowhere.test"},
      {0, REACHED, "https://nowhere.test/", "Could not resolve host: nowhere.test"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct http_response response;
    world.refusal = rows[i].refusal;
    world.unreached = rows[i].unreached;
    post_to(rows[i].url, &response);
    world.refusal = world.unreached = 0;
    expect_not_sent(&response, false);
    assert_false(response.reply.untrusted);
    expect_words(&response, rows[i].words);
    world.http->release(&response);
  }
}

static bool is_not_sent_by_user_nobody(const char *url, const char *words)
{
  struct http_response response;
  if (geteuid() == 0 && setuid(65534) != 0)
    return false;
  post_to(url, &response);
  return response.reply.delivery == REPLY_NOT_SENT && response.reply.untrusted && response.reply.error &&
         strstr(response.reply.error, words);
}

/* The file and the right that is missing are named. */
static void test_authorities_that_may_not_be_read(void **state)
{
  (void)state;
  struct tls tls = {world.certificate, world.key};
  struct server server;
  int status = 0;
  server_start(&server, says_ok, &tls);
  const char *url = url_of(&server, "https://localhost");
  assert_int_equal(chmod(world.authority, 0), 0);
  pid_t child = fork();
  if (child == 0)
    _exit(is_not_sent_by_user_nobody(url, "may not read /") ? 0 : 1);
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(chmod(world.authority, 0600), 0);
  assert_int_equal(status, 0);
  server_stop(&server);
  server_free(&server);
}

static rlim_t set_descriptors(rlim_t most)
{
  struct rlimit limit;
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
  rlim_t before = limit.rlim_cur;
  limit.rlim_cur = most;
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
  return before;
}

static rlim_t lowest_descriptor(void)
{
  int lowest = dup(0);
  close(lowest);
  return (rlim_t)lowest;
}

/* That no authority can be read at this moment says nothing about the server. */
static void test_trust_without_descriptors(void **state)
{
  (void)state;
  struct tls tls = {world.certificate, world.key};
  int refused = 0, received = 0;
  for (rlim_t left = 0; received == 0; left++) {
    struct server server;
    struct http_response response;
    server_start(&server, says_ok, &tls);
    rlim_t before = set_descriptors(lowest_descriptor() + left);
    post_to(url_of(&server, "https://localhost"), &response);
    set_descriptors(before);
    assert_int_not_equal(response.reply.delivery, REPLY_LOST);
    assert_false(response.reply.untrusted);
    if (response.reply.delivery == REPLY_NOT_SENT)
      expect_words(&response, "no file descriptor left (ulimit -n)");
    refused += response.reply.delivery == REPLY_NOT_SENT;
    received += response.reply.delivery == REPLY_RECEIVED;
    world.http->release(&response);
    server_stop(&server);
    server_free(&server);
  }
  assert_in_range(refused, 1, 15);
}

/* It would be deaf to its owners for as long as it lasts. */
static void test_session_that_nobody_could_wake(void **state)
{
  (void)state;
  rlim_t before = set_descriptors(lowest_descriptor());
  struct http_session *session = world.http->open();
  set_descriptors(before);
  assert_null(session);
  session = world.http->open();
  assert_non_null(session);
  assert_null(world.http->wait(session, 0));
  world.http->close(session);
}

static int proxied_port;

static void proxies(struct talk *talk)
{
  if (talk_read_head(talk))
    talk_relay(talk, proxied_port);
}

static void refuses_to_proxy(struct talk *talk)
{
  if (talk_read_head(talk))
    talk_say(talk, "HTTP/1.1 407 Who?\r\nProxy-Authenticate: Basic realm=x\r\nRetry-After: 5\r\nLocation: /\r\n"
                   "Content-Length: 2\r\n\r\nno");
}

static void set_proxy(const char *variable, const struct server *proxy)
{
  char url[96];
  snprintf(url, sizeof url, "http://someone:sesame@127.0.0.1:%d", proxy->port);
  setenv(variable, url, 1);
}

static void test_proxy(void **state)
{
  (void)state;
  struct tls tls = {world.certificate, world.key};
  struct server server, proxy;
  struct http_response response;
  server_start(&server, says_ok, &tls);
  proxied_port = server.port;
  server_start(&proxy, proxies, NULL);
  set_proxy("https_proxy", &proxy);
  struct http_request request = request_to(url_of(&server, "https://localhost"));
  request.authorization = "Basic c2VjcmV0";
  world.http->post(&request, &response);
  expect_received(&response, 200, "{\"a\":1}\n");
  assert_null(response.reply.retry_after);
  world.http->release(&response);
  server_stop(&proxy);
  server_stop(&server);
  assert_int_equal(proxy.seen->connections, 1);
  assert_int_equal(server.seen->requests, 1);
  const char *sent = proxy.seen->request;
  assert_ptr_equal(strstr(sent, "CONNECT localhost:"), sent);
  assert_non_null(strstr(sent, "\r\nProxy-Authorization: Basic "));
  assert_null(strstr(sent, "\r\nAuthorization:"));
  assert_null(strstr(sent, "c2VjcmV0"));
  assert_null(strstr(server.seen->request, "Proxy-Authorization"));
  server_free(&proxy);
  server_free(&server);
}

static void test_proxy_refuses(void **state)
{
  (void)state;
  server_talk *talkers[] = {refuses_to_proxy, leaves, hangs};
  for (size_t i = 0; i < sizeof talkers / sizeof *talkers; i++) {
    struct server proxy;
    struct http_response response;
    struct http_request request = request_to("https://localhost:1/");
    request.timeout = i == 2 ? 0.2 : 20;
    server_start(&proxy, talkers[i], NULL);
    set_proxy("https_proxy", &proxy);
    world.http->post(&request, &response);
    expect_not_sent(&response, i == 2);
    assert_null(strstr(response.reply.error, "sesame"));
    world.http->release(&response);
    server_stop(&proxy);
    assert_int_equal(proxy.seen->connections, 1);
    server_free(&proxy);
  }
}

/* A password of many words, all of them telling. */
static void make_proxy(char *proxy, size_t size, const char *scheme, int words, const char *host)
{
  int length = snprintf(proxy, size, "%s://someone:", scheme);
  for (int i = 0; i < words; i++)
    length += snprintf(proxy + length, size - (size_t)length, "sesame");
  snprintf(proxy + length, size - (size_t)length, "%s", host);
}

/* libcurl's text may be cut off before the '@' that would tell a proxy's URL. */
static void test_proxy_password_untold(void **state)
{
  (void)state;
  static const char *const schemes[] = {"http", "gopher", "sesame", "socks5"};
  static const char *const hosts[] = {"@[::bad",          "@localhost",    "@nowhere.test",
                                      "@localhost:99999", "@localhost:1x", ""};
  static const int words[] = {1, 10, 30, 36, 40, 60, 200};
  char proxy[2048];
  for (size_t i = 0; i < sizeof schemes / sizeof *schemes * (sizeof hosts / sizeof *hosts); i++)
    for (size_t j = 0; j < sizeof words / sizeof *words; j++) {
      struct http_response response;
      make_proxy(proxy, sizeof proxy, schemes[i % 4], words[j], hosts[i / 4]);
      setenv("https_proxy", proxy, 1);
      post_to("https://localhost:1/", &response);
      expect_not_sent(&response, false);
      if (strstr(response.reply.error, "sesame"))
        print_message("%s: %s\n", proxy, response.reply.error);
      assert_null(strstr(response.reply.error, "sesame"));
      assert_true(strlen(response.reply.error) > 5);
      world.http->release(&response);
    }
}

static void test_proxy_that_is_none(void **state)
{
  (void)state;
  static const char *const rows[][2] = {{"http://[::bad", "is no URL of a proxy"},
                                        {"gopher://localhost:1", "is no URL of a proxy"},
                                        {"none of them", "is no URL of a proxy"},
                                        {"http://nowhere.test:1", "the name of the proxy"},
                                        {"http://localhost:99999", "is no URL of a proxy"}};
  world.unreached = REACHED;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct http_response response;
    setenv("https_proxy", rows[i][0], 1);
    post_to("https://localhost:1/", &response);
    expect_not_sent(&response, false);
    expect_words(&response, rows[i][1]);
    world.http->release(&response);
  }
  world.unreached = 0;
}

static void test_proxy_excepted(void **state)
{
  (void)state;
  struct tls tls = {world.certificate, world.key};
  struct server proxy;
  server_start(&proxy, hangs, NULL);
  set_proxy("http_proxy", &proxy);
  set_proxy("all_proxy", &proxy);
  struct run *run = run_plain(says_ok);
  expect_received(&run->response, 200, "{\"a\":1}\n");
  run_free(run);
  setenv("no_proxy", "localhost", 1);
  run = run_with(says_ok, "https://localhost", &tls, request_to(NULL));
  expect_received(&run->response, 200, "{\"a\":1}\n");
  run_free(run);
  server_stop(&proxy);
  assert_int_equal(proxy.seen->connections, 0);
  server_free(&proxy);
}

static void test_sigpipe(void **state)
{
  (void)state;
  int ends[2];
  sigset_t after, pending, only;
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  close(ends[1]);
  sigemptyset(&only);
  sigaddset(&only, SIGPIPE);
  pthread_sigmask(SIG_UNBLOCK, &only, NULL);
  world.broken = ends[0];
  struct run *run = run_plain(says_ok);
  expect_lost(run, false, 0, "");
  run_free(run);
  pthread_sigmask(SIG_SETMASK, NULL, &after);
  sigpending(&pending);
  assert_false(sigismember(&pending, SIGPIPE));
  assert_false(sigismember(&after, SIGPIPE));

  pthread_sigmask(SIG_BLOCK, &only, NULL);
  raise(SIGPIPE);
  run = run_plain(says_ok);
  run_free(run);
  sigpending(&pending);
  assert_true(sigismember(&pending, SIGPIPE));
  sigwaitinfo(&only, NULL);
  pthread_sigmask(SIG_UNBLOCK, &only, NULL);
  world.broken = -1;
  close(ends[0]);
}

/* A program's messages would else be sent to the server. */
static void test_standard_files_stay_closed(void **state)
{
  (void)state;
  struct server server;
  struct http_response response;
  server_start(&server, says_ok, NULL);
  int kept[3];
  for (int fd = 0; fd < 3; fd++) {
    kept[fd] = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    close(fd);
  }
  post_to(url_of(&server, "http://127.0.0.1"), &response);
  struct http_session *session = world.http->open(); /* the background's stays open */
  bool taken = false;
  for (int fd = 0; fd < 3; fd++)
    taken = taken || fcntl(fd, F_GETFD) != -1;
  world.http->close(session);
  for (int fd = 0; fd < 3; fd++) {
    dup2(kept[fd], fd);
    close(kept[fd]);
  }
  assert_false(taken);
  expect_received(&response, 200, "{\"a\":1}\n");
  assert_in_range(world.sent_to, 3, 1000);
  world.http->release(&response);
  server_stop(&server);
  server_free(&server);
}

static bool comes_true(const atomic_bool *condition)
{
  for (int i = 0; i < PATIENCE && !atomic_load(condition); i++)
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  return atomic_load(condition);
}

/* The connection ends the answer, so that libcurl has to look twice. */
static void answers_when_told(struct talk *talk)
{
  static char body[WIDE];
  if (talk_read(talk) && comes_true(&talk->seen->marked) && talk_say(talk, "HTTP/1.1 200 OK\r\n\r\n") &&
      talk_send(talk, body, sizeof body) && shutdown(talk->connection, SHUT_WR) == 0)
    atomic_store(&talk->seen->answered, true);
}

struct flight {
  struct server server;
  struct http_session *session;
  struct http_response response;
};

/* A POST whose request was sent; nothing has come yet. The clocks stand still. */
static struct flight *take_off(double timeout)
{
  struct flight *flight = calloc(1, sizeof *flight);
  assert_non_null(flight);
  clocks.stand = true;
  clocks.now = (struct moment){1e9, 1e3};
  server_start(&flight->server, answers_when_told, NULL);
  struct http_request request = request_to(url_of(&flight->server, "http://127.0.0.1"));
  request.timeout = timeout;
  flight->session = world.http->open();
  assert_true(world.http->begin(flight->session, &request, &flight->response, flight));
  while (atomic_load(&flight->server.seen->requests) == 0)
    assert_null(world.http->wait(flight->session, 0.001));
  return flight;
}

static void pass(double seconds)
{
  clocks.now = moment_after(clocks.now, seconds);
}

static void land(struct flight *flight, enum reply_delivery delivery)
{
  while (!world.http->wait(flight->session, 1))
    continue;
  clocks.stand = false;
  assert_int_equal(flight->response.reply.delivery, delivery);
  assert_int_equal(flight->response.reply.length, delivery == REPLY_RECEIVED ? WIDE : 0);
  assert_int_equal(flight->response.reply.timed_out, delivery != REPLY_RECEIVED);
  world.http->release(&flight->response);
  world.http->close(flight->session);
  atomic_store(&flight->server.seen->marked, true);
  server_stop(&flight->server);
  server_free(&flight->server);
  free(flight);
}

/* The time in which a process was stopped is nobody's silence: a second of it counts. */
static void test_stopped_while_nothing_comes(void **state)
{
  (void)state;
  struct flight *flight = take_off(20);
  for (int i = 0; i < 19; i++) {
    pass(i % 2 ? 3600 : 1);
    assert_null(world.http->wait(flight->session, 0));
  }
  pass(0.99);
  assert_null(world.http->wait(flight->session, 0));
  pass(3600);
  land(flight, REPLY_LOST);
}

/* What has come is read, even where the second that counts is the last one. */
static void test_stopped_while_the_answer_comes(void **state)
{
  (void)state;
  for (int used = 0; used <= 19; used += 19) {
    struct flight *flight = take_off(20);
    for (int i = 0; i < used; i++) {
      pass(1);
      assert_null(world.http->wait(flight->session, 0));
    }
    atomic_store(&flight->server.seen->marked, true);
    assert_true(comes_true(&flight->server.seen->answered));
    pass(3600);
    world.sips = true;
    land(flight, REPLY_RECEIVED);
    world.sips = false;
  }
}

/* Stopped at each look at the clocks, for longer than it has. The machine may have slept: one clock then stood
 * still. */
static void stop_before_sending(struct moment distance)
{
  struct server server;
  int refused = 0, received = 0;
  server_start(&server, says_ok, NULL);
  for (int look = 2; received == 0; look++) {
    struct http_response response;
    clocks.looks = 0;
    clocks.jump_at = look;
    clocks.distance = distance;
    clocks.sends = 1;
    world.sends = 0;
    post_to(url_of(&server, "http://127.0.0.1"), &response);
    clocks.jump_at = 0;
    received += response.reply.delivery == REPLY_RECEIVED;
    refused += response.reply.delivery == REPLY_NOT_SENT;
    if (received == 0)
      expect_not_sent(&response, true);
    else
      assert_in_range(clocks.sends, 1, 100);
    world.http->release(&response);
  }
  server_stop(&server);
  assert_in_range(refused, 2, 100);
  assert_int_equal(received, 1);
  assert_int_equal(server.seen->requests, 1);
  server_free(&server);
}

static void test_stopped_before_sending(void **state)
{
  (void)state;
  stop_before_sending((struct moment){3600, 3600});
  stop_before_sending((struct moment){3600, 0});
  stop_before_sending((struct moment){-3600, 3600});
}

/* A connection that is not there yet is not waited for. */
static void test_stopped_while_connecting(void **state)
{
  (void)state;
  struct server server;
  struct http_response response;
  server_start(&server, hangs, NULL);
  struct http_request request = request_to(url_of(&server, "https://127.0.0.1"));
  struct http_session *session = world.http->open();
  clocks.stand = true;
  clocks.now = (struct moment){1e9, 1e3};
  assert_true(world.http->begin(session, &request, &response, &response));
  assert_null(world.http->wait(session, 0));
  pass(3600);
  assert_non_null(world.http->wait(session, 0));
  clocks.stand = false;
  expect_not_sent(&response, true);
  world.http->release(&response);
  world.http->close(session);
  server_stop(&server);
  server_free(&server);
}

static void test_sent_by(void **state)
{
  (void)state;
  struct server server;
  server_start(&server, says_ok, NULL);
  struct http_request request = request_to(url_of(&server, "http://127.0.0.1"));
  for (int i = 0; i < 4; i++) {
    struct http_response response;
    request.send_by = moment_after(__real_clock_now(), 3600);
    request.send_by.wall -= i % 2 ? 3601 : 0;
    request.send_by.steady -= i / 2 ? 3601 : 0;
    world.http->post(&request, &response);
    if (i == 0)
      expect_received(&response, 200, "{\"a\":1}\n");
    else
      expect_not_sent(&response, true);
    world.http->release(&response);
  }
  server_stop(&server);
  assert_int_equal(server.seen->requests, 1);
  server_free(&server);
}

/* A process that is stopped in the middle of a POST, until twice its time has passed. False: it was not stopped in
 * time. */
static bool is_stopped_in_time(double timeout)
{
  struct server server;
  int status = 0;
  server_start(&server, answers_when_told, NULL);
  struct http_request request = request_to(url_of(&server, "http://127.0.0.1"));
  request.timeout = timeout;
  pid_t child = fork();
  if (child == 0) {
    struct http_response response;
    world.http->post(&request, &response);
    _exit(response.reply.delivery == REPLY_RECEIVED && response.reply.length == WIDE ? 0 : 1);
  }
  siginfo_t ended = {0};
  while (atomic_load(&server.seen->requests) == 0 && ended.si_pid == 0) {
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    waitid(P_PID, (id_t)child, &ended, WEXITED | WNOHANG | WNOWAIT);
  }
  kill(child, SIGSTOP);
  waitpid(child, &status, WUNTRACED);
  struct moment twice = moment_after(__real_clock_now(), 2 * timeout);
  bool stopped = WIFSTOPPED(status);
  atomic_store(&server.seen->marked, true);
  if (stopped) {
    assert_true(comes_true(&server.seen->answered));
    while (!moment_has_come(twice, __real_clock_now()))
      nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    kill(child, SIGCONT);
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
  }
  server_stop(&server);
  server_free(&server);
  return stopped;
}

static void test_stopped_process(void **state)
{
  (void)state;
  double timeout = 0.2;
  while (!is_stopped_in_time(timeout))
    timeout *= 2;
}

/* Packed, in chunks, with headers enough. */
static void says_much(struct talk *talk)
{
  char text[64];
  bool on = talk_read(talk) && talk_say(talk, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n");
  for (int i = 0; on && i < 40; i++) {
    snprintf(text, sizeof text, "X-Header-%d: %040d\r\n", i, i);
    on = talk_say(talk, text);
  }
  on = on && talk_say(talk, "Content-Encoding: gzip\r\n\r\n");
  for (size_t sent = 0, size = 0; on && sent < world.size; sent += size) {
    size = world.size - sent < 1000 ? world.size - sent : 1000;
    snprintf(text, sizeof text, "%zx\r\n", size);
    on = talk_say(talk, text) && talk_send(talk, world.answer + sent, size) && talk_say(talk, "\r\n");
  }
  if (on)
    talk_say(talk, "0\r\nX-Trailer: 1\r\n\r\n");
}

static void make_answer(const char *command)
{
  FILE *pipe = popen(command, "r");
  assert_non_null(pipe);
  world.size = fread(world.answer, 1, sizeof world.answer, pipe);
  assert_int_equal(pclose(pipe), 0);
}

enum { MUCH = 20000 };

/* One POST for every allocation of it, which fails, or with which memory runs out for good. Nothing is lost: either
 * nothing was sent, or the whole answer is there. */
static void sweep_allocations(server_talk *talker, size_t length, const struct tls *tls, bool for_good, int step)
{
  struct server server;
  int received = 0, refused = 0;
  server_start(&server, talker, tls);
  for (int number = 1, failed = 1; failed > 0; number += step) {
    struct http_response response;
    struct http_request request = request_to(url_of(&server, tls ? "https://localhost" : "http://127.0.0.1"));
    fail_allocations(number, for_good ? INT_MAX : number);
    world.http->post(&request, &response);
    failed = atomic_load(&allocations.failed);
    fail_allocations(0, 0);
    bool refusal = response.reply.delivery == REPLY_NOT_SENT;
    refused += refusal;
    received += !refusal;
    if (response.reply.delivery == REPLY_LOST)
      print_message("%d: %s\n", number, response.reply.error);
    assert_int_not_equal(response.reply.delivery, REPLY_LOST);
    assert_int_equal(response.reply.error != NULL, refusal);
    assert_int_equal(response.reply.length, response.reply.delivery == REPLY_RECEIVED ? length : 0);
    world.http->release(&response);
  }
  server_stop(&server);
  assert_int_equal(server.seen->requests, received);
  assert_in_range(received, 10 / step + 1, 1000);
  assert_in_range(refused, 20 / step + 1, 1000);
  server_free(&server);
}

static void test_memory_runs_out(void **state)
{
  (void)state;
  struct tls tls = {world.certificate, world.key};
  const char *preloaded = getenv("LD_PRELOAD");
  int step = preloaded && strstr(preloaded, "vgpreload") ? 12 : 1; /* valgrind takes its time */
  make_answer("head -c 20000 /dev/zero | gzip -c");
  sweep_allocations(says_much, MUCH, NULL, false, step);
  sweep_allocations(says_much, MUCH, NULL, true, step);
  sweep_allocations(says_much, MUCH, &tls, true, step);
  sweep_allocations(says_long_lines, 2, NULL, true, step);
}

static void says_much_when_told(struct talk *talk)
{
  if (comes_true(&talk->seen->marked))
    says_much(talk);
}

/* Memory and descriptors run out for good when all of them are under way, and all is well when they are back. */
static void test_memory_runs_out_on_many(void **state)
{
  (void)state;
  enum { MANY = 12 };
  static struct http_response responses[MANY], refused;
  struct server server;
  make_answer("head -c 20000 /dev/zero | gzip -c");
  server_start(&server, says_much_when_told, NULL);
  struct http_request request = request_to(url_of(&server, "http://127.0.0.1"));
  struct http_session *session = world.http->open();
  world.sends = 0;
  for (int i = 0; i < MANY; i++)
    assert_true(world.http->begin(session, &request, &responses[i], &responses[i]));
  while (atomic_load(&world.sends) < MANY)
    assert_null(world.http->wait(session, 0.001));
  rlim_t descriptors = set_descriptors(lowest_descriptor());
  fail_allocations(1, INT_MAX);
  atomic_store(&server.seen->marked, true);
  for (int i = 0; i < MANY; i++)
    while (!world.http->wait(session, 1))
      continue;
  assert_false(world.http->begin(session, &request, &refused, NULL));
  assert_non_null(refused.reply.error);
  assert_in_range(allocations.failed, MANY, INT_MAX);
  fail_allocations(0, 0);
  set_descriptors(descriptors);
  assert_int_equal(refused.reply.delivery, REPLY_NOT_SENT);
  world.http->release(&refused);
  for (int i = 0; i < MANY; i++) {
    assert_int_equal(responses[i].reply.delivery, REPLY_RECEIVED);
    assert_int_equal(responses[i].reply.length, MUCH);
    world.http->release(&responses[i]);
  }
  assert_true(world.http->begin(session, &request, &responses[0], &responses[0]));
  while (!world.http->wait(session, 1))
    continue;
  assert_int_equal(responses[0].reply.delivery, REPLY_RECEIVED);
  world.http->release(&responses[0]);
  world.http->close(session);
  server_stop(&server);
  assert_int_equal(server.seen->requests, MANY + 1);
  server_free(&server);
}

static void *post_in_thread(void *url)
{
  struct http_response response;
  for (int i = 0; i < 3; i++) {
    struct http_request request = request_to(url);
    world.http->post(&request, &response);
    if (response.reply.delivery != REPLY_RECEIVED || response.reply.length != 8)
      return url;
    world.http->release(&response);
  }
  return NULL;
}

static void test_threads(void **state)
{
  (void)state;
  struct tls tls = {world.certificate, world.key};
  struct server server;
  pthread_t threads[4];
  server_start(&server, says_ok, &tls);
  char url[128];
  snprintf(url, sizeof url, "%s", url_of(&server, "https://localhost"));
  for (size_t i = 0; i < 4; i++)
    assert_int_equal(pthread_create(&threads[i], NULL, post_in_thread, url), 0);
  for (size_t i = 0; i < 4; i++) {
    void *failed = NULL;
    pthread_join(threads[i], &failed);
    assert_null(failed);
  }
  server_stop(&server);
  assert_int_equal(server.seen->requests, 12);
  server_free(&server);
}

/* A text that no process has in its memory unless it was told: kept under a mask, bared where it is needed. */
enum { MASK = 0x5a, MARK = 48, MARKS = 400 };

static void mark_masked(char *mark)
{
  for (int i = 0; i < MARK; i++)
    mark[i] = (char)(('A' + (i * 7 + i / 5) % 26) ^ MASK);
}

static void bare(char *text, size_t size)
{
  for (volatile char *c = text; c < text + size; c++)
    *c = (char)(*c ^ MASK);
}

static int count_in(const char *data, size_t size, const char *masked)
{
  int count = 0;
  for (const char *at = data; size >= MARK; at++) {
    at = memchr(at, masked[0] ^ MASK, size - MARK + 1);
    if (!at)
      break;
    size_t same = 0;
    while (same < MARK && (at[same] ^ MASK) == masked[same])
      same++;
    count += same == MARK;
    size -= (size_t)(at - data) + 1;
    data = at + 1;
  }
  return count;
}

/* How often the mark stands in this process's writable memory. */
static int count_marks(void)
{
  static char piece[WIDE + MARK - 1], masked[MARK];
  char line[512];
  int count = 0, memory = open("/proc/self/mem", O_RDONLY);
  FILE *maps = fopen("/proc/self/maps", "r");
  assert_true(memory >= 0 && maps);
  mark_masked(masked);
  while (fgets(line, sizeof line, maps)) {
    unsigned long from = 0, to = 0;
    char mode[5] = "";
    /* Larger ones are a sanitizer's bookkeeping. */
    if (sscanf(line, "%lx-%lx %4s", &from, &to, mode) != 3 || mode[1] != 'w' || to - from > 1UL << 32)
      continue;
    for (; from < to; from += WIDE) {
      size_t size = to - from < sizeof piece ? to - from : sizeof piece;
      if (pread(memory, piece, size, (off_t)from) == (ssize_t)size)
        count += count_in(piece, size, masked);
      secret_wipe(piece, sizeof piece);
    }
  }
  fclose(maps);
  close(memory);
  return count;
}

/* Answers with the mark many times over, if the request had it in its body and in its header. */
static void echoes_mark(struct talk *talk)
{
  static char answer[MARKS * MARK];
  char *request = talk->seen->request, masked[MARK];
  mark_masked(masked);
  if (!talk_read(talk))
    return;
  atomic_store(&talk->seen->marked, count_in(request, strlen(request), masked) == 2);
  memset(request, 0, SEEN_MAX);
  for (size_t i = 0; i < MARKS; i++)
    memcpy(answer + i * MARK, masked, MARK);
  bare(answer, sizeof answer);
  if (talk_say(talk, "HTTP/1.1 200 OK\r\n\r\n"))
    talk_send(talk, answer, sizeof answer);
}

/* The same, packed. */
static void echoes_mark_packed(struct talk *talk)
{
  char command[128], mark[MARK];
  snprintf(command, sizeof command, "gzip -c >'%s/packed'", world.folder);
  FILE *pipe = popen(command, "w");
  mark_masked(mark);
  bare(mark, sizeof mark);
  for (int i = 0; pipe && i < MARKS; i++)
    fwrite(mark, 1, sizeof mark, pipe);
  bool good = pipe && pclose(pipe) == 0;
  bare(mark, sizeof mark);
  atomic_store(&talk->seen->marked, good);
  snprintf(command, sizeof command, "cat '%s/packed'", world.folder);
  says_output(talk, "gzip", command);
  memset(talk->seen->request, 0, SEEN_MAX);
}

static void test_nothing_left(server_talk *talker, const char *base, const struct tls *tls)
{
  if (getenv("SPEC_SLOWED"))
    skip(); /* a sanitizer and valgrind keep copies of their own */
  struct server server;
  struct http_response response;
  char *body = calloc(1, 4 * MARK), *authorization = calloc(1, MARK + 1);
  assert_int_equal(count_marks(), 0);
  mark_masked(body);
  bare(body, MARK);
  mark_masked(authorization);
  bare(authorization, MARK);
  server_start(&server, talker, tls);
  struct http_request request = request_to(url_of(&server, base));
  request.body = body;
  request.body_length = 4 * MARK;
  request.authorization = authorization;
  world.http->post(&request, &response);
  assert_int_equal(response.reply.delivery, REPLY_RECEIVED);
  assert_int_equal(response.reply.length, MARKS * MARK);
  server_stop(&server);
  assert_true(server.seen->marked);
  assert_int_equal(count_marks(), MARKS + 2);
  world.http->release(&response);
  assert_int_equal(count_marks(), 2);
  secret_wipe(body, 4 * MARK);
  secret_wipe(authorization, MARK);
  assert_int_equal(count_marks(), 0);
  free(body);
  free(authorization);
  server_free(&server);
}

static void test_nothing_left_plain(void **state)
{
  (void)state;
  test_nothing_left(echoes_mark, "http://127.0.0.1", NULL);
}

static void test_nothing_left_packed(void **state)
{
  (void)state;
  test_nothing_left(echoes_mark_packed, "http://127.0.0.1", NULL);
}

static void test_nothing_left_tls(void **state)
{
  (void)state;
  const char *library = curl_version_info(CURLVERSION_NOW)->ssl_version;
  if (strncmp(library, "OpenSSL/", 8) != 0 || atoi(library + 8) < 3)
    skip(); /* it cannot be told to wipe what it has read */
  struct tls tls = {world.certificate, world.key};
  test_nothing_left(echoes_mark, "https://localhost", &tls);
}

static void test_sha256(void **state)
{
  (void)state;
  unsigned char digest[32];
  static const unsigned char abc[32] = {0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40,
                                        0xde, 0x5d, 0xae, 0x22, 0x23, 0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17,
                                        0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad};
  world.http->sha256("abc", 3, digest);
  assert_memory_equal(digest, abc, 32);
  world.http->sha256(NULL, 0, digest);
  assert_int_equal(digest[0], 0xe3);
  assert_int_equal(digest[31], 0x55);
}

static void shell(const char *command)
{
  if (system(command) == 0)
    return;
  print_error("failed: %s\n", command);
  exit(1);
}

/* An authority, a certificate of its making for "localhost", and another authority that nobody trusts. */
static void make_certificates(void)
{
  char command[2048];
  const char *key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
  name_file(world.authority, "authority.pem");
  name_file(world.stranger, "stranger.pem");
  name_file(world.certificate, "server.pem");
  name_file(world.key, "server.key");
  snprintf(command, sizeof command,
           "cd '%s' && exec 2>openssl.log && "
           "openssl req -x509 %s -keyout authority.key -out authority.pem -subj /CN=authority -days 2 && "
           "openssl req -x509 %s -keyout stranger.key -out stranger.pem -subj /CN=authority -days 2 && "
           "openssl req %s -keyout server.key -out server.csr -subj /CN=server && "
           "echo subjectAltName=DNS:localhost >server.ext && "
           "openssl x509 -req -in server.csr -CA authority.pem -CAkey authority.key -CAcreateserial "
           "-extfile server.ext -out server.pem -days 2",
           world.folder, key, key, key);
  shell(command);
}

static int group_setup(void **state)
{
  (void)state;
  char message[400], keys[96];
  const char *folder = getenv("TMPDIR");
  snprintf(world.folder, sizeof world.folder, "%.40s/curl_test.XXXXXX", folder ? folder : "/tmp");
  alarm(300); /* a post that never returns is a failure too */
  bool made = mkdtemp(world.folder);
  name_file(keys, "keys");
  setenv("SSLKEYLOGFILE", keys, 1); /* before libcurl looks */
  world.http = http_load(NULL, message, sizeof message);
  if (!world.http || !made || sem_init(&world.resolver, 0, 0) != 0)
    return -1;
  make_certificates();
  return 0;
}

static int group_teardown(void **state)
{
  (void)state;
  char command[128];
  snprintf(command, sizeof command, "rm -r '%s'", world.folder);
  shell(command);
  return 0;
}

static int setup(void **state)
{
  (void)state;
  const char *variables[] = {"http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy",
                             "ALL_PROXY",  "no_proxy",    "NO_PROXY"};
  for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
    unsetenv(variables[i]);
  return 0;
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(test_no_name_in_time, setup),
      cmocka_unit_test_setup(test_post, setup),
      cmocka_unit_test_setup(test_release_empties, setup),
      cmocka_unit_test_setup(test_no_authorization_by_itself, setup),
      cmocka_unit_test_setup(test_bodies, setup),
      cmocka_unit_test_setup(test_loopback_names, setup),
      cmocka_unit_test_setup(test_plain_stays_here, setup),
      cmocka_unit_test_setup(test_user_refused, setup),
      cmocka_unit_test_setup(test_plain_to_ipv6_loopback, setup),
      cmocka_unit_test_setup(test_not_reached, setup),
      cmocka_unit_test_setup(test_lost, setup),
      cmocka_unit_test_setup(test_end_without_length, setup),
      cmocka_unit_test_setup(test_end_is_told, setup),
      cmocka_unit_test_setup(test_end_is_not_told, setup),
      cmocka_unit_test_setup(test_no_answer_in_time, setup),
      cmocka_unit_test_setup(test_no_connection_in_time, setup),
      cmocka_unit_test_setup(test_one_request_only, setup),
      cmocka_unit_test_setup(test_flood, setup),
      cmocka_unit_test_setup(test_odd_but_whole, setup),
      cmocka_unit_test_setup(test_packed, setup),
      cmocka_unit_test_setup(test_packed_and_cut, setup),
      cmocka_unit_test_setup(test_packed_wrongly, setup),
      cmocka_unit_test_setup(test_packed_flood, setup),
      cmocka_unit_test_setup(test_coding_that_is_none, setup),
      cmocka_unit_test_setup(test_retry_after, setup),
      cmocka_unit_test_setup(test_long_lines, setup),
      cmocka_unit_test_setup(test_tls, setup),
      cmocka_unit_test_setup(test_no_keys_are_logged, setup),
      cmocka_unit_test_setup(test_tls_refused, setup),
      cmocka_unit_test_setup(test_refused_by_this_machine, setup),
      cmocka_unit_test_setup(test_authorities_that_may_not_be_read, setup),
      cmocka_unit_test_setup(test_trust_without_descriptors, setup),
      cmocka_unit_test_setup(test_session_that_nobody_could_wake, setup),
      cmocka_unit_test_setup(test_proxy, setup),
      cmocka_unit_test_setup(test_proxy_refuses, setup),
      cmocka_unit_test_setup(test_proxy_password_untold, setup),
      cmocka_unit_test_setup(test_proxy_that_is_none, setup),
      cmocka_unit_test_setup(test_proxy_excepted, setup),
      cmocka_unit_test_setup(test_sigpipe, setup),
      cmocka_unit_test_setup(test_standard_files_stay_closed, setup),
      cmocka_unit_test_setup(test_stopped_while_nothing_comes, setup),
      cmocka_unit_test_setup(test_stopped_while_the_answer_comes, setup),
      cmocka_unit_test_setup(test_stopped_before_sending, setup),
      cmocka_unit_test_setup(test_stopped_while_connecting, setup),
      cmocka_unit_test_setup(test_sent_by, setup),
      cmocka_unit_test_setup(test_stopped_process, setup),
      cmocka_unit_test_setup(test_memory_runs_out, setup),
      cmocka_unit_test_setup(test_memory_runs_out_on_many, setup),
      cmocka_unit_test_setup(test_threads, setup),
      cmocka_unit_test_setup(test_nothing_left_plain, setup),
      cmocka_unit_test_setup(test_nothing_left_packed, setup),
      cmocka_unit_test_setup(test_nothing_left_tls, setup),
      cmocka_unit_test_setup(test_sha256, setup),
  };
  return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
