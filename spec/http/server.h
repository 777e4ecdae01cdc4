/* A server on a free port of 127.0.0.1, in a process of its own, so that nothing of what it says stands in the test's
 * memory. What it does with a connection is a function of the test's. */
#ifndef SPEC_HTTP_SERVER_H
#define SPEC_HTTP_SERVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { SEEN_MAX = 4096 };

/* What the server saw, shared with the test; final after server_stop. */
struct seen {
  atomic_int connections;
  atomic_int requests; /* read to their ends */
  atomic_size_t bytes; /* of all connections, after TLS */
  atomic_bool marked;  /* for the talker's own use, as the next */
  atomic_bool answered;
  char request[SEEN_MAX]; /* the last one's beginning, NUL-terminated */
  int stopper;            /* the port that server_stop connects from */
};

struct tls {
  const char *certificate, *key; /* PEM files */
};

/* One connection. */
struct talk {
  int connection;
  void *ssl; /* SSL of libssl, or NULL */
  struct seen *seen;
};

/* Runs in the server's process; the connection is closed when it returns. */
typedef void server_talk(struct talk *talk);

struct server {
  pid_t process;
  int port;
  struct seen *seen;
};

/* `tls` NULL: no TLS. Connections are served one after another. */
void server_start(struct server *server, server_talk *talker, const struct tls *tls);

/* Serves every connection that was made before, then ends. `seen` stays readable until server_free. */
void server_stop(struct server *server);
void server_free(struct server *server);

/* Read one request to its end; false: the peer left. */
bool talk_read(struct talk *talk);

/* Read the head of a request only. */
bool talk_read_head(struct talk *talk);

/* False: the peer left. */
bool talk_say(struct talk *talk, const char *text);
bool talk_send(struct talk *talk, const void *data, size_t size);

/* Wait until the peer leaves. */
void talk_hang(struct talk *talk);

/* Have the connection reset when it is closed, without a farewell of TLS. */
void talk_reset(struct talk *talk);

/* Close without the farewell of TLS. */
void talk_drop(struct talk *talk);

/* Carry bytes between the connection and a port of 127.0.0.1 until either side leaves. */
void talk_relay(struct talk *talk, int port);

#endif
