/* What the module exports. */
#define _GNU_SOURCE
#include "http.h"

#include "../base/secret.h"
#include "../system/held_signal.h"
#include "libraries.h"
#include "session.h"
#include "start.h"
#include "transfer.h"

/* Seconds. */
#define BEAT 0.2

/* With CURLOPT_NOSIGNAL, which threads need, libcurl leaves SIGPIPE alone, and TLS libraries may write to a connection
 * that the server has closed: the process would die with the token spent. */
static void post(const struct http_request *request, struct http_response *response)
{
  struct held_signal sigpipe;
  struct http_session *session = session_open();
  verdict_no_memory(response);
  held_signal_begin(&sigpipe, SIGPIPE);
  if (session && session_begin(session, request, response, response))
    while (!session_wait(session, request->beat ? BEAT : TRANSFER_LOOK))
      if (request->beat)
        request->beat(request->beat_data);
  if (session)
    session_close(session);
  held_signal_end(&sigpipe);
}

static void release(struct http_response *response)
{
  arrival_drop(response);
  secret_wipe(response, sizeof *response);
}

static void sha256(const void *data, size_t size, unsigned char digest[32])
{
  http_start();
  crypto_hash_sha256(digest, data, size);
}

__attribute__((visibility("default"))) const struct http_ops lucidauth_http = {
    .version = HTTP_OPS_VERSION,
    .product = LUCIDAUTH_VERSION,
    .start = http_start,
    .post = post,
    .open = session_open_for_threads,
    .begin = session_begin,
    .wait = session_wait,
    .wake = session_wake,
    .close = session_close,
    .release = release,
    .sha256 = sha256,
};
