/* The functions that the module exports: POSTs side by side in a session, and one by itself. See http.h.
 * The thread that waits for a session has SIGPIPE blocked for good. */
#define _GNU_SOURCE
#include "http.h"

#include "../base/secret.h"
#include "../system/clock.h"
#include "../system/descriptor.h"
#include "../system/held_signal.h"
#include "libraries.h"
#include "start.h"
#include "transfer.h"

#include <math.h>
#include <stdlib.h>

struct http_session {
  CURLM *multi;
  struct transfer *transfers;
};

static struct http_session *session_open(void)
{
  struct descriptor_plugs plugs;
  http_start();
  struct http_session *session = calloc(1, sizeof *session);
  descriptor_plug(&plugs); /* libcurl has descriptors by which it is woken */
  if (session)
    session->multi = curl_multi_init();
  descriptor_unplug(&plugs);
  if (session && session->multi)
    return session;
  free(session);
  return NULL;
}

static void session_close(struct http_session *session)
{
  curl_multi_cleanup(session->multi);
  free(session);
}

/* For want of descriptors libcurl makes do with a session that no other thread can wake, for as long as it lasts. */
static struct http_session *session_open_for_threads(void)
{
  struct http_session *session = session_open();
#if LIBCURL_VERSION_NUM >= 0x074400
  if (session && curl_multi_wakeup(session->multi) != CURLM_OK) {
    session_close(session);
    return NULL;
  }
#endif
  return session;
}

static bool session_begin(struct http_session *session, const struct http_request *request,
                          struct http_response *response, void *tag)
{
  struct transfer *transfer = calloc(1, sizeof *transfer);
  if (!transfer) {
    verdict_no_memory(response);
    return false;
  }
  transfer->response = response;
  transfer->tag = tag;
  if (transfer_prepare(transfer, request) &&
      curl_easy_setopt(transfer->handle, CURLOPT_PRIVATE, transfer) == CURLE_OK &&
      curl_multi_add_handle(session->multi, transfer->handle) == CURLM_OK) {
    transfer->next = session->transfers;
    session->transfers = transfer;
    return true;
  }
  if (!response->error[0])
    verdict_say(response, "this process is out of memory");
  transfer_finish(transfer);
  free(transfer);
  return false;
}

static void *end_transfer(struct http_session *session, struct transfer *transfer, CURLcode code)
{
  struct transfer **place = &session->transfers;
  while (*place != transfer)
    place = &(*place)->next;
  *place = transfer->next;
  verdict_give(transfer, code);
  curl_multi_remove_handle(session->multi, transfer->handle);
  transfer_finish(transfer);
  void *tag = transfer->tag;
  free(transfer);
  return tag;
}

static void *give_up(struct http_session *session, struct transfer *transfer)
{
  transfer->given_up = true;
  return end_transfer(session, transfer, CURLE_OPERATION_TIMEDOUT);
}

static void *take_finished(struct http_session *session)
{
  int left;
  const CURLMsg *message;
  do
    message = curl_multi_info_read(session->multi, &left);
  while (message && message->msg != CURLMSG_DONE);
  if (!message)
    return NULL;
  struct transfer *transfer = NULL;
  curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&transfer);
  return end_transfer(session, transfer, message->data.result);
}

static bool has_used_its_time(const struct transfer *transfer)
{
  return transfer->ran >= transfer->time;
}

/* Nothing is sent once the time is over: it is looked at before libcurl goes on. */
static void *take_unsent(struct http_session *session, struct moment now)
{
  struct transfer *transfer = session->transfers;
  while (transfer &&
         (verdict_may_be_sent(transfer) || !(has_used_its_time(transfer) || moment_has_come(transfer->send_by, now))))
    transfer = transfer->next;
  return transfer ? give_up(session, transfer) : NULL;
}

/* Once something was sent, time is over when libcurl has looked and has found nothing more. */
static void *take_late(struct http_session *session)
{
  struct transfer *transfer = session->transfers;
  while (transfer && !(has_used_its_time(transfer) && transfer->arrived == transfer->looked_at))
    transfer = transfer->next;
  return transfer ? give_up(session, transfer) : NULL;
}

static void *perform(struct http_session *session)
{
  struct moment now = clock_now();
  int running;
  for (struct transfer *transfer = session->transfers; transfer; transfer = transfer->next)
    transfer_note_time(transfer, now);
  void *tag = take_unsent(session, now);
  if (tag)
    return tag;
  curl_multi_perform(session->multi, &running);
  tag = take_finished(session);
  return tag ? tag : take_late(session);
}

/* Seconds until a transfer's time is over, or it has to be looked after. */
static double time_to_next_look(const struct http_session *session)
{
  double least = TRANSFER_LOOK;
  struct moment now = clock_now();
  for (const struct transfer *transfer = session->transfers; transfer; transfer = transfer->next) {
    least = fmin(least, transfer->time - transfer->ran);
    if (!verdict_may_be_sent(transfer))
      least = fmin(least, moment_left(transfer->send_by, now));
  }
  return least;
}

static void await_activity(struct http_session *session, double seconds)
{
#if LIBCURL_VERSION_NUM >= 0x074400
  curl_multi_poll(session->multi, NULL, 0, (int)transfer_milliseconds(seconds), NULL);
#else
  /* it cannot be woken, and returns at once when there is nothing to wait for */
  const double step = 0.01;
  int descriptors = 0;
  curl_multi_wait(session->multi, NULL, 0, (int)transfer_milliseconds(fmin(seconds, step)), &descriptors);
  if (descriptors == 0)
    clock_sleep(0.001);
#endif
}

static void *session_wait(struct http_session *session, double seconds)
{
  void *tag = perform(session);
  if (tag || !(seconds > 0))
    return tag;
  await_activity(session, fmin(seconds, time_to_next_look(session)));
  return perform(session);
}

static void session_wake(struct http_session *session)
{
#if LIBCURL_VERSION_NUM >= 0x074400
  curl_multi_wakeup(session->multi);
#else
  (void)session;
#endif
}

/* ---- a single POST ---- */

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
