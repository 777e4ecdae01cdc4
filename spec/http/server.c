#define _GNU_SOURCE
#include "server.h"

#include <arpa/inet.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void need(bool done, const char *what)
{
  if (done)
    return;
  perror(what);
  abort();
}

static struct sockaddr_in local(int port)
{
  return (struct sockaddr_in){
      .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int port_of(int fd)
{
  struct sockaddr_in name;
  socklen_t size = sizeof name;
  need(getsockname(fd, (struct sockaddr *)&name, &size) == 0, "getsockname");
  return ntohs(name.sin_port);
}

static int bound_socket(void)
{
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in name = local(0);
  need(fd >= 0, "socket");
  need(bind(fd, (struct sockaddr *)&name, sizeof name) == 0, "bind");
  return fd;
}

static bool connect_to(int fd, int port)
{
  struct sockaddr_in name = local(port);
  return connect(fd, (struct sockaddr *)&name, sizeof name) == 0;
}

static ssize_t receive(struct talk *talk, void *data, size_t size)
{
  ssize_t got = talk->ssl ? SSL_read(talk->ssl, data, (int)size) : read(talk->connection, data, size);
  if (got > 0)
    atomic_fetch_add(&talk->seen->bytes, (size_t)got);
  return got;
}

bool talk_send(struct talk *talk, const void *data, size_t size)
{
  const char *next = data;
  while (size > 0) {
    size_t piece = size < 65536 ? size : 65536;
    ssize_t sent = talk->ssl ? SSL_write(talk->ssl, next, (int)piece) : write(talk->connection, next, piece);
    if (sent <= 0)
      return false;
    next += sent;
    size -= (size_t)sent;
  }
  return true;
}

bool talk_say(struct talk *talk, const char *text)
{
  return talk_send(talk, text, strlen(text));
}

bool talk_read_head(struct talk *talk)
{
  char *head = talk->seen->request;
  size_t length = 0;
  do {
    if (length == SEEN_MAX - 1 || receive(talk, head + length, 1) != 1)
      return false;
    head[++length] = '\0';
  } while (length < 4 || memcmp(head + length - 4, "\r\n\r\n", 4) != 0);
  return true;
}

bool talk_read(struct talk *talk)
{
  if (!talk_read_head(talk))
    return false;
  char *head = talk->seen->request;
  const char *field = strcasestr(head, "\r\nContent-Length:");
  size_t left = field ? strtoul(field + 17, NULL, 10) : 0;
  size_t kept = strlen(head);
  while (left > 0) {
    char piece[16384];
    ssize_t got = receive(talk, piece, left < sizeof piece ? left : sizeof piece);
    if (got <= 0)
      return false;
    size_t fits = (size_t)got < SEEN_MAX - 1 - kept ? (size_t)got : SEEN_MAX - 1 - kept;
    memcpy(head + kept, piece, fits);
    kept += fits;
    head[kept] = '\0';
    left -= (size_t)got;
  }
  atomic_fetch_add(&talk->seen->requests, 1);
  return true;
}

void talk_hang(struct talk *talk)
{
  char piece[4096];
  while (receive(talk, piece, sizeof piece) > 0)
    continue;
}

void talk_drop(struct talk *talk)
{
  if (talk->ssl)
    SSL_set_quiet_shutdown(talk->ssl, 1);
}

void talk_reset(struct talk *talk)
{
  struct linger now = {1, 0};
  talk_drop(talk);
  setsockopt(talk->connection, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

static bool carry(int from, int to)
{
  char piece[16384];
  ssize_t got = read(from, piece, sizeof piece);
  return got > 0 && write(to, piece, (size_t)got) == got;
}

void talk_relay(struct talk *talk, int port)
{
  int far = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  bool open = connect_to(far, port) && talk_say(talk, "HTTP/1.1 200 Go ahead\r\nRetry-After: 77\r\n\r\n");
  struct pollfd ends[2] = {{talk->connection, POLLIN, 0}, {far, POLLIN, 0}};
  while (open && poll(ends, 2, -1) > 0) {
    if (ends[0].revents)
      open = carry(ends[0].fd, ends[1].fd);
    if (open && ends[1].revents)
      open = carry(ends[1].fd, ends[0].fd);
  }
  close(far);
}

static void serve(struct talk *talk, server_talk *talker, SSL_CTX *context)
{
  talk->ssl = context ? SSL_new(context) : NULL;
  if (!talk->ssl) {
    talker(talk);
    return;
  }
  SSL_set_fd(talk->ssl, talk->connection);
  if (SSL_accept(talk->ssl) == 1) {
    talker(talk);
    SSL_shutdown(talk->ssl);
  }
  SSL_free(talk->ssl);
}

static SSL_CTX *tls_context(const struct tls *tls)
{
  SSL_CTX *context = SSL_CTX_new(TLS_server_method());
  need(context && SSL_CTX_use_certificate_file(context, tls->certificate, SSL_FILETYPE_PEM) == 1 &&
           SSL_CTX_use_PrivateKey_file(context, tls->key, SSL_FILETYPE_PEM) == 1,
       "TLS");
  return context;
}

static void run(int listener, struct seen *seen, server_talk *talker, const struct tls *tls)
{
  SSL_CTX *context = tls ? tls_context(tls) : NULL;
  signal(SIGPIPE, SIG_IGN);
  for (;;) {
    struct sockaddr_in peer;
    socklen_t size = sizeof peer;
    struct talk talk = {.connection = accept4(listener, (struct sockaddr *)&peer, &size, SOCK_CLOEXEC), .seen = seen};
    need(talk.connection >= 0, "accept");
    if (ntohs(peer.sin_port) == seen->stopper)
      break;
    atomic_fetch_add(&seen->connections, 1);
    serve(&talk, talker, context);
    close(talk.connection);
  }
  SSL_CTX_free(context);
}

void server_start(struct server *server, server_talk *talker, const struct tls *tls)
{
  int listener = bound_socket();
  need(listen(listener, 64) == 0, "listen");
  server->port = port_of(listener);
  server->seen = mmap(NULL, sizeof *server->seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  need(server->seen != MAP_FAILED, "mmap");
  server->process = fork();
  need(server->process >= 0, "fork");
  if (server->process == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    run(listener, server->seen, talker, tls);
    raise(SIGKILL); /* no exit: a leak checker would report what the test holds at this moment */
  }
  close(listener);
}

void server_stop(struct server *server)
{
  int fd = bound_socket(), status = -1;
  server->seen->stopper = port_of(fd);
  need(connect_to(fd, server->port), "connect");
  need(waitpid(server->process, &status, 0) == server->process && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
       "the server's end");
  close(fd);
}

void server_free(struct server *server)
{
  munmap(server->seen, sizeof *server->seen);
}
