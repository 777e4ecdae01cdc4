#define _GNU_SOURCE
#include "transfer.h"

#include "../system/clock.h"
#include "reserve.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#if LIBCURL_VERSION_NUM >= 0x075000
static int before_request(void *context, char *peer, char *local, int peer_port, int local_port)
{
  struct transfer *transfer = context;
  (void)peer, (void)local, (void)peer_port, (void)local_port;
  transfer->too_late = moment_has_come(transfer->send_by, clock_now());
  transfer->opened = !transfer->too_late && reserve_open();
  transfer->no_memory = !transfer->too_late && !transfer->opened;
  transfer->sending = transfer->opened;
  return transfer->sending ? CURL_PREREQFUNC_OK : CURL_PREREQFUNC_ABORT;
}
#endif

void verdict_watch(struct transfer *transfer)
{
#if LIBCURL_VERSION_NUM >= 0x075000
  transfer->watched = curl_easy_setopt(transfer->handle, CURLOPT_PREREQFUNCTION, before_request) == CURLE_OK &&
                      curl_easy_setopt(transfer->handle, CURLOPT_PREREQDATA, transfer) == CURLE_OK;
#endif
  transfer->opened = !transfer->watched && reserve_open();
}

/* Before 7.80 libcurl does not say so itself: take the moment when the connection was ready
 * (CURLINFO_PRETRANSFER_TIME_T comes too late, when all of the request has gone). */
bool verdict_may_be_sent(const struct transfer *transfer)
{
  if (transfer->watched)
    return transfer->sending;
  curl_off_t ready = 0;
  CURLINFO moment = transfer->plain ? CURLINFO_CONNECT_TIME_T : CURLINFO_APPCONNECT_TIME_T;
  return curl_easy_getinfo(transfer->handle, moment, &ready) != CURLE_OK || ready > 0;
}

/* Whether the file could not be read for want of descriptors or memory, which says nothing about it. The connection had
 * a descriptor then, and has given it back since. */
static bool was_short(const char *path)
{
  int stand_in = open("/", O_RDONLY | O_CLOEXEC), cause = errno, file = -1;
  if (stand_in >= 0) {
    file = open(path, O_RDONLY | O_CLOEXEC);
    cause = errno;
    close(stand_in);
  }
  if (file >= 0)
    close(file);
  return file < 0 && (cause == EMFILE || cause == ENFILE || cause == ENOMEM);
}

static bool is_untrusted(const struct transfer *transfer, CURLcode code)
{
  if (code == CURLE_SSL_CACERT_BADFILE)
    return !transfer->ca_file || !was_short(transfer->ca_file);
  return code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_ISSUER_ERROR;
}

/* It is a proxy's. */
static void forget_answer(struct http_response *response)
{
  arrival_drop(response);
  response->reply.status = 0;
  response->retry_after[0] = '\0';
  response->location[0] = '\0';
}

void verdict_say(struct http_response *response, const char *error)
{
  snprintf(response->error, sizeof response->error, "%s", error);
}

void verdict_no_memory(struct http_response *response)
{
  *response = (struct http_response){.reply.delivery = REPLY_NOT_SENT};
  verdict_say(response, "memory is out");
  response->reply.error = response->error;
}

/* libcurl's words may hold the URL of a proxy with its password, cut off anywhere. */
static bool may_tell_password(const char *error, CURLcode code)
{
  return code == CURLE_COULDNT_RESOLVE_PROXY || code == CURLE_UNSUPPORTED_PROTOCOL || code == CURLE_URL_MALFORMAT ||
         strchr(error, '@') || strstr(error, "://") || strstr(error, "proxy syntax");
}

const char verdict_keys_logged[] = "SSLKEYLOGFILE is set, and with it the keys of the connection would be written to a "
                                   "file: run the program without that variable";

/* What went wrong, in libcurl's words unless we know better, or they say too much. */
static void explain(const struct transfer *transfer, CURLcode code)
{
  struct http_response *response = transfer->response;
  if (transfer->off_machine && !transfer->sending)
    verdict_say(response,
                "the host's address is not of this machine, and plain http would show the secrets to the network");
  else if (transfer->logs_keys)
    verdict_say(response, verdict_keys_logged);
  else if (transfer->head > TRANSFER_HEAD_MAX)
    verdict_say(response, "the answer's headers never end");
  else if (transfer->given_up || transfer->too_late)
    verdict_say(response, verdict_may_be_sent(transfer) ? "there was no whole answer in time"
                                                        : "there was no connection in time");
  else if (transfer->no_memory)
    verdict_say(response, "memory is out");
  else if (code == CURLE_OUT_OF_MEMORY && transfer->sending && !transfer->head_ended)
    verdict_say(response, "a line of the answer's headers is too long"); /* that is what libcurl calls it */
  else if (code == CURLE_OK)
    verdict_say(response, "the connection ended before the answer was whole");
  else if (!response->error[0] || may_tell_password(response->error, code))
    verdict_say(response, curl_easy_strerror(code));
}

void verdict_give(struct transfer *transfer, CURLcode code)
{
  struct http_response *response = transfer->response;
  struct reply *reply = &response->reply;
  long status = 0;
  if (curl_easy_getinfo(transfer->handle, CURLINFO_RESPONSE_CODE, &status) == CURLE_OK && status >= 200)
    reply->status = (int)status;
  /* libcurl is content when the connection ends within the headers. */
  if ((code == CURLE_OK && reply->status && transfer->head_ended) || reply->cut)
    reply->delivery = REPLY_RECEIVED;
  else
    reply->delivery = verdict_may_be_sent(transfer) ? REPLY_LOST : REPLY_NOT_SENT;
  reply->timed_out = code == CURLE_OPERATION_TIMEDOUT || transfer->too_late;
  reply->untrusted = reply->delivery == REPLY_NOT_SENT && is_untrusted(transfer, code);
  reply->whole = reply->delivery == REPLY_RECEIVED && !reply->cut && arrival_reached_its_end(transfer);
  if (reply->cut)
    arrival_drop(response);
  if (reply->delivery == REPLY_NOT_SENT)
    forget_answer(response);
  if (reply->delivery != REPLY_RECEIVED)
    explain(transfer, code);
}
