#define _GNU_SOURCE
#include "transfer.h"

#include "../system/clock.h"
#include "obstacle.h"
#include "reserve.h"

#include <errno.h>
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

/* Where the authorities are looked for. */
static const char *authorities(const struct transfer *transfer)
{
#if LIBCURL_VERSION_NUM >= 0x074600
  const curl_version_info_data *own = curl_version_info(CURLVERSION_NOW);
  if (!transfer->ca_file && own->age >= CURLVERSION_SEVENTH)
    return own->cainfo;
#endif
  return transfer->ca_file;
}

/* That no authority can be read at this moment, for want of descriptors or memory, says nothing about the server. */
static bool is_untrusted(const struct transfer *transfer, CURLcode code)
{
  const char *path = authorities(transfer);
  if (code == CURLE_SSL_CACERT_BADFILE)
    return !path || !obstacle_is_shortage(obstacle_to_file(path));
  return (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_ISSUER_ERROR) && !obstacle_shortage();
}

/* It is a proxy's. */
static void forget_answer(struct http_response *response)
{
  arrival_drop(response);
  response->reply.status = 0;
  response->retry_after[0] = '\0';
  response->location[0] = '\0';
}

static const char out_of_memory[] = "this process is out of memory";

void verdict_say(struct http_response *response, const char *error)
{
  snprintf(response->error, sizeof response->error, "%s", error);
}

void verdict_no_memory(struct http_response *response)
{
  *response = (struct http_response){.reply.delivery = REPLY_NOT_SENT};
  verdict_say(response, out_of_memory);
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

/* Messages show little of this text, so the path comes early. */
static void explain_authorities(struct http_response *response, const char *path)
{
  int cause = path ? obstacle_to_file(path) : 0;
  if (obstacle_is_shortage(cause))
    verdict_say(response, obstacle_words(cause));
  else if (cause == EACCES || cause == EPERM)
    snprintf(response->error, sizeof response->error,
             "the user of this process (number %lu) may not read %s, the authorities to trust",
             (unsigned long)geteuid(), path);
  else if (cause == ENOENT || cause == ENOTDIR)
    snprintf(response->error, sizeof response->error, "there is no file %s with the authorities to trust", path);
}

/* libcurl's thread that looks names up, or its sockets, could not be had. */
static bool was_no_look_up(const struct http_response *response)
{
  return strstr(response->error, "thread failed to start");
}

/* Why there is no connection, where the reason is this machine's. NULL: it is not. */
static const char *own_reason(const struct transfer *transfer, CURLcode code)
{
  bool resolving = code == CURLE_COULDNT_RESOLVE_HOST || code == CURLE_COULDNT_RESOLVE_PROXY;
  long cause = transfer->no_socket;
  if (transfer->sending || code == CURLE_OK)
    return NULL;
  if (code == CURLE_COULDNT_CONNECT && cause == 0)
    curl_easy_getinfo(transfer->handle, CURLINFO_OS_ERRNO, &cause);
  if (code == CURLE_OUT_OF_MEMORY || (code != CURLE_COULDNT_CONNECT && cause == 0))
    cause = obstacle_shortage();
  if (cause == 0 && was_no_look_up(transfer->response))
    return "this process may start no thread to look the name up (ulimit -u), or is out of memory (ulimit -v)";
  if (cause == 0 && resolving && obstacle_no_network())
    return "no network leads out of this machine or container, and so the name cannot be looked up";
  return obstacle_words((int)cause);
}

/* libcurl's error about a proxy variable would be taken for the server's fault. */
static const char *reason_of_proxy(const struct http_response *response, CURLcode code)
{
  if (strstr(response->error, "proxy syntax") || strstr(response->error, "proxy scheme"))
    return "the value of https_proxy or all_proxy is no URL of a proxy, such as http://host:port";
  return code == CURLE_COULDNT_RESOLVE_PROXY ? "the name of the proxy (https_proxy, all_proxy) cannot be resolved"
                                             : NULL;
}

/* libcurl says where to ("Failed to connect to HOST port N after ..."), and the reason says why not. */
static void explain_own_reason(struct http_response *response, const char *reason)
{
  char *end = strstr(response->error, " after ");
  if (strncmp(response->error, "Failed to connect to ", 21) != 0 || !end) {
    verdict_say(response, reason);
    return;
  }
  snprintf(end, sizeof response->error - (size_t)(end - response->error), ": %s", reason);
}

/* The reason of the failure, in libcurl's words unless a better one is known or they reveal too much. */
static void explain_failure(const struct transfer *transfer, CURLcode code)
{
  struct http_response *response = transfer->response;
  const char *reason = own_reason(transfer, code);
  if (!reason)
    reason = reason_of_proxy(response, code);
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
    verdict_say(response, out_of_memory);
  else if (reason)
    explain_own_reason(response, reason);
  else if (code == CURLE_OUT_OF_MEMORY && transfer->sending && !transfer->head_ended)
    verdict_say(response, "a line of the answer's headers is too long"); /* libcurl reports that as out of memory */
  else if (code == CURLE_OK)
    verdict_say(response, "the connection ended before the answer was whole");
  else if (!response->error[0] || may_tell_password(response->error, code))
    verdict_say(response, curl_easy_strerror(code));
  if (code == CURLE_SSL_CACERT_BADFILE)
    explain_authorities(response, authorities(transfer));
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
    explain_failure(transfer, code);
}
