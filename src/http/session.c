#define _GNU_SOURCE
#include "session.h"

#include "start.h"
#include "transfer.h"

#include <stdlib.h>

struct http_session *session_open(void)
{
  http_start();
  return (struct http_session *)curl_multi_init();
}

bool session_begin(struct http_session *session, const struct http_request *request, struct http_response *response,
                   void *tag)
{
  struct transfer *transfer = calloc(1, sizeof *transfer);
  if (!transfer) {
    *response = (struct http_response){.reply.delivery = REPLY_NOT_SENT};
    return false;
  }
  transfer->response = response;
  transfer->tag = tag;
  if (transfer_prepare(transfer, request) &&
      curl_easy_setopt(transfer->handle, CURLOPT_PRIVATE, transfer) == CURLE_OK &&
      curl_multi_add_handle((CURLM *)session, transfer->handle) == CURLM_OK)
    return true;
  transfer_finish(transfer);
  free(transfer);
  return false;
}

static void *take_finished(CURLM *multi)
{
  int left;
  const CURLMsg *message;
  do
    message = curl_multi_info_read(multi, &left);
  while (message && message->msg != CURLMSG_DONE);
  if (!message)
    return NULL;
  struct transfer *transfer = NULL;
  CURL *handle = message->easy_handle;
  CURLcode code = message->data.result;
  curl_easy_getinfo(handle, CURLINFO_PRIVATE, (char **)&transfer);
  verdict_give(transfer, code);
  curl_multi_remove_handle(multi, handle);
  transfer_finish(transfer);
  void *tag = transfer->tag;
  free(transfer);
  return tag;
}

void *session_wait(struct http_session *session, double seconds)
{
  CURLM *multi = (CURLM *)session;
  int running;
  curl_multi_perform(multi, &running);
  void *tag = take_finished(multi);
  if (tag || !(seconds > 0))
    return tag;
#if LIBCURL_VERSION_NUM >= 0x074400
  curl_multi_poll(multi, NULL, 0, (int)transfer_milliseconds(seconds), NULL);
#else
  /* it cannot be woken, and returns at once when there is nothing to wait for */
  const double step = 0.01;
  curl_multi_wait(multi, NULL, 0, (int)transfer_milliseconds(seconds < step ? seconds : step), NULL);
#endif
  curl_multi_perform(multi, &running);
  return take_finished(multi);
}

void session_wake(struct http_session *session)
{
#if LIBCURL_VERSION_NUM >= 0x074400
  curl_multi_wakeup((CURLM *)session);
#else
  (void)session;
#endif
}

void session_close(struct http_session *session)
{
  curl_multi_cleanup((CURLM *)session);
}
