#define _GNU_SOURCE
#include "session.h"

#include "../system/clock.h"
#include "../system/descriptor.h"
#include "start.h"
#include "transfer.h"

#include <math.h>
#include <stdlib.h>

struct http_session {
  CURLM *multi;
  struct transfer *transfers;
};

struct http_session *session_open(void)
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

/* For want of descriptors libcurl makes do with a session that no other thread can wake, for as long as it lasts. */
struct http_session *session_open_for_threads(void)
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

bool session_begin(struct http_session *session, const struct http_request *request, struct http_response *response,
                   void *tag)
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

static void *end(struct http_session *session, struct transfer *transfer, CURLcode code)
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
  return end(session, transfer, CURLE_OPERATION_TIMEDOUT);
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
  return end(session, transfer, message->data.result);
}

static bool is_over(const struct transfer *transfer)
{
  return transfer->ran >= transfer->time;
}

/* Nothing is sent once the time is over: it is looked at before libcurl goes on. */
static void *take_unsent(struct http_session *session, struct moment now)
{
  struct transfer *transfer = session->transfers;
  while (transfer && (verdict_may_be_sent(transfer) || !(is_over(transfer) || moment_has_come(transfer->send_by, now))))
    transfer = transfer->next;
  return transfer ? give_up(session, transfer) : NULL;
}

/* Once something was sent, time is over when libcurl has looked and has found nothing more. */
static void *take_late(struct http_session *session)
{
  struct transfer *transfer = session->transfers;
  while (transfer && !(is_over(transfer) && transfer->arrived == transfer->looked_at))
    transfer = transfer->next;
  return transfer ? give_up(session, transfer) : NULL;
}

static void *go_on(struct http_session *session)
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
static double time_left(const struct http_session *session)
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

static void pause_for(struct http_session *session, double seconds)
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

void *session_wait(struct http_session *session, double seconds)
{
  void *tag = go_on(session);
  if (tag || !(seconds > 0))
    return tag;
  pause_for(session, fmin(seconds, time_left(session)));
  return go_on(session);
}

void session_wake(struct http_session *session)
{
#if LIBCURL_VERSION_NUM >= 0x074400
  curl_multi_wakeup(session->multi);
#else
  (void)session;
#endif
}

void session_close(struct http_session *session)
{
  curl_multi_cleanup(session->multi);
  free(session);
}
