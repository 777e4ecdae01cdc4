/* One POST over HTTP(S), carried out by libcurl. The code that links libcurl (and libsodium, for SHA-256) stands in a
 * module of its own, loaded at the first refresh: a program with a good token never pays for it. */
#ifndef HTTP_HTTP_H
#define HTTP_HTTP_H

#include "../base/code.h"
#include "../base/world.h"
#include "../oauth/answer.h"

#include <stddef.h>

/* The request; none of it is copied or kept. */
struct http_request {
  const char *url;           /* one that http_url_problem has nothing against */
  const char *content_type;  /* no line breaks in it */
  const char *authorization; /* the header's value, no line breaks in it, or NULL */
  const char *body;          /* may be NULL when body_length is 0 */
  size_t body_length;
  const char *ca_file; /* PEM file of trusted authorities instead of the system's, or NULL */
  /* Seconds in which this process runs. While it is stopped, or its machine asleep, no server can be heard; data that
   * arrived meanwhile is read before the answer is called late. At least a millisecond is given. */
  double connect_timeout; /* name resolution and TLS included */
  double timeout;         /* everything included */
  /* Nothing is sent any more once it has come, running or not; {0, 0}: `timeout` from now on. */
  struct moment send_by;
  /* For http_ops.post: called on its thread several times a second, as long as it waits; or NULL. */
  void (*beat)(void *data);
  void *beat_data;
};

/* The answer and the memory behind it: `reply` points into the other fields, so the struct stays where it is until
 * http_ops.release. */
struct http_response {
  /* With REPLY_LOST, `status` (0: none) and `body` hold the part that arrived: a server that announces a wrong length,
   * or that never closes, may have sent a whole token pair. With REPLY_NOT_SENT, and when `cut`, there is no body.
   * `error` holds no secret, not even the password of a proxy. */
  struct reply reply;
  char *body;           /* HTTP_BODY_MAX bytes, there before the request is sent */
  char retry_after[64]; /* longer values are cut off here */
  char location[512];
  char error[256];
};

enum { HTTP_OPS_VERSION = 6, HTTP_BODY_MAX = 1024 * 1024 };

/* Thread-safe, all of them. */
struct http_ops {
  int version;         /* HTTP_OPS_VERSION: of this very struct, else nothing behind it means anything */
  const char *product; /* LUCIDAUTH_VERSION: module and library come from one */
  /* Set libcurl and libsodium up, once a process; the others do it too if it was not done yet. http_load calls it.
   * NULL: it is done; else the name of a function that they do not have, and nothing of this may be called. */
  const char *(*start)(void);
  /* One POST on a fresh connection, never repeated, no redirect followed. Always fills `response`; its former content
   * does not matter. Runs for at most `timeout`, but with a libcurl before 7.87 until the system's resolver gives a
   * name up. https goes through the proxy that the environment names (https_proxy, all_proxy, no_proxy); plain http
   * goes to a loopback address, else nowhere. */
  void (*post)(const struct http_request *request, struct http_response *response);
  /* The same side by side, for one thread that carries out many: open a session, start POSTs in it, wait. The request's
   * strings and the response belong to the session until the POST's `tag` has come back from wait. */
  struct http_session *(*open)(void); /* NULL: memory or descriptors are short */
  bool (*begin)(struct http_session *session, const struct http_request *request, struct http_response *response,
                void *tag); /* false: out of memory, nothing was sent; the response says so */
  /* Wait for at most `seconds` until a POST has ended, and return its tag; NULL: none has. */
  void *(*wait)(struct http_session *session, double seconds);
  void (*wake)(struct http_session *session);  /* from any thread: wait returns early */
  void (*close)(struct http_session *session); /* no POST may be under way */
  /* Wipes and frees the memory that post allocated; `reply` is then empty. */
  void (*release)(struct http_response *response);
  /* FIPS 180-4. `data` may be NULL when `size` is 0. */
  void (*sha256)(const void *data, size_t size, unsigned char digest[32]);
};

/* The module's exported functions. Reach them by http_load, which also works when the module is linked in. */
extern const struct http_ops lucidauth_http;

/* The module's functions; loads it at the first call, thread-safe. NULL: `message` (of `size` bytes, or NULL and 0)
 * names the file that could not be loaded and the remedy. `code` (or NULL) is CODE_CONFIG if somebody has to act: a
 * file is missing, is the wrong one, or may not be read by this user. It is CODE_NETWORK if memory or file descriptors
 * are short at this moment. The next call tries again. */
const struct http_ops *http_load(enum code *code, char *message, size_t size);

/* Whether the module is there and can be read, without loading it. False: `message` says why not. */
bool http_locate(char *message, size_t size);

/* Around fork(): no thread loads the module meanwhile. A child that came into being in the middle of it would find
 * libcurl half set up, and its locks held by a thread that is not there. */
void http_before_fork(void);
void http_after_fork(void);

/* Whether secrets may be sent to this URL: https, or plain http to a loopback host ("localhost", 127.0.0.0/8,
 * [::1]). NULL when they may, else one sentence with the reason and the remedy (static text, no full stop,
 * nothing of the URL in it). Works without libcurl. */
const char *http_url_problem(const char *url);

#endif
