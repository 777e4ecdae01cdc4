#define _GNU_SOURCE
#include "transfer.h"

#include "../base/secret.h"
#include "../system/clock.h"
#include "../system/descriptor.h"
#include "reserve.h"
#include "tls.h"

#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#ifndef LUCIDAUTH_VERSION
#error "the build must define LUCIDAUTH_VERSION"
#endif

static bool is_loopback(const struct sockaddr *address)
{
  if (address->sa_family == AF_INET)
    return ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr) >> 24 == 127;
  if (address->sa_family == AF_INET6)
    return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
  return false;
}

/* A hosts entry or a resolver can lead a loopback name anywhere; secrets in clear must not follow. Asked before every
 * connection attempt, so that not even a connection is made. */
static curl_socket_t open_socket(void *context, curlsocktype purpose, struct curl_sockaddr *peer)
{
  struct transfer *transfer = context;
  (void)purpose;
  if (transfer->plain && !is_loopback(&peer->addr)) {
    transfer->off_machine = true;
    return CURL_SOCKET_BAD;
  }
  curl_socket_t fd = descriptor_socket(peer->family, peer->socktype, peer->protocol);
  int cause = fd == CURL_SOCKET_BAD ? errno : 0;
  transfer->had_socket |= cause == 0;
  transfer->no_socket = transfer->had_socket ? 0 : cause;
  return fd;
}

long transfer_milliseconds(double seconds)
{
  if (!(seconds > 0.001))
    return 1; /* 0 would mean libcurl's own limits */
  return seconds < 1e6 ? (long)(seconds * 1000) : 1000000000L;
}

static bool set_protocols(CURL *handle)
{
#if LIBCURL_VERSION_NUM >= 0x075500
  return curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK;
#else
  return curl_easy_setopt(handle, CURLOPT_PROTOCOLS, CURLPROTO_HTTP | CURLPROTO_HTTPS) == CURLE_OK;
#endif
}

/* libcurl sends a request again by itself when a reused connection turns out dead, and when a server of HTTP/2 says
 * REFUSED_STREAM: a refresh token would be spent twice. Hence a fresh connection, and HTTP/1.1 only. */
static bool set_once(CURL *handle)
{
  return curl_easy_setopt(handle, CURLOPT_FRESH_CONNECT, 1L) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_FORBID_REUSE, 1L) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_DISALLOW_USERNAME_IN_URL, 1L) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED) == CURLE_OK && set_protocols(handle);
}

/* libcurl divides it among the addresses of a host. For all that comes after the connection it gets no time limit: its
 * own counts the time in which this process does not run, and counts before it reads. */
static bool set_connect_time(const struct transfer *transfer)
{
  long milliseconds = transfer_milliseconds(transfer->connect_time);
  return curl_easy_setopt(transfer->handle, CURLOPT_CONNECTTIMEOUT_MS, milliseconds) == CURLE_OK;
}

static void set_times(struct transfer *transfer, const struct http_request *request)
{
  struct moment now = clock_now();
  bool limited = request->send_by.wall != 0 || request->send_by.steady != 0;
  transfer->time = fmax(request->timeout, 0.001);
  transfer->connect_time = fmin(request->connect_timeout, transfer->time);
  transfer->send_by = limited ? request->send_by : moment_after(now, transfer->time);
  transfer->seen = now.steady;
}

/* A session that looks less often than this was kept from running, and the server is not to blame for the time
 * between. */
void transfer_note_time(struct transfer *transfer, struct moment now)
{
  const double most = TRANSFER_LOOK;
  double passed = fmax(now.steady - transfer->seen, 0), absent = fmax(passed - most, 0);
  transfer->ran += passed - absent;
  transfer->seen = now.steady;
  transfer->looked_at = transfer->arrived;
  if (absent > 0) {
    transfer->connect_time += absent;
    set_connect_time(transfer);
  }
}

static bool set_connection(CURL *handle, const struct http_request *request, struct transfer *transfer)
{
#if LIBCURL_VERSION_NUM >= 0x075700
  /* Else a ca_file that was mended would count a day later only, and its certificates take a MiB until then. */
  curl_easy_setopt(handle, CURLOPT_CA_CACHE_TIMEOUT, 0L);
  /* Else the end of a transfer waits for the system's resolver, past the timeout. The resolver's thread then ends by
   * itself. An older library at run time does not know the option: it waits. */
  curl_easy_setopt(handle, CURLOPT_QUICK_EXIT, 1L);
#endif
  return (transfer->plain || tls_guard(handle, &transfer->logs_keys)) &&
         curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L) == CURLE_OK && set_connect_time(transfer) &&
         curl_easy_setopt(handle, CURLOPT_SSL_VERIFYPEER, 1L) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_SSL_VERIFYHOST, 2L) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2) == CURLE_OK &&
         (!request->ca_file || curl_easy_setopt(handle, CURLOPT_CAINFO, request->ca_file) == CURLE_OK) &&
         (!transfer->plain || curl_easy_setopt(handle, CURLOPT_PROXY, "") == CURLE_OK) &&
         curl_easy_setopt(handle, CURLOPT_OPENSOCKETFUNCTION, open_socket) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_OPENSOCKETDATA, transfer) == CURLE_OK;
}

static bool set_request(CURL *handle, const struct http_request *request, struct curl_slist *headers)
{
  char agent[96];
  snprintf(agent, sizeof agent, "lucidauth/%s libcurl/%s", LUCIDAUTH_VERSION,
           curl_version_info(CURLVERSION_NOW)->version);
  return curl_easy_setopt(handle, CURLOPT_URL, request->url) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_USERAGENT, agent) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_POST, 1L) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_length) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_POSTFIELDS, request->body ? request->body : "") == CURLE_OK &&
         /* A proxy must not see the credentials that are for the server. */
         curl_easy_setopt(handle, CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers) == CURLE_OK;
}

/* Adds "name: value" to the list. False: out of memory. */
static bool add_header(struct curl_slist **headers, const char *name, const char *value)
{
  size_t size = strlen(name) + strlen(value) + 3;
  char *line = malloc(size);
  if (!line)
    return false;
  snprintf(line, size, "%s: %s", name, value);
  struct curl_slist *longer = curl_slist_append(*headers, line);
  secret_wipe(line, size);
  free(line);
  if (longer)
    *headers = longer;
  return longer != NULL;
}

/* "Expect:" takes libcurl's own "Expect: 100-continue" out, which only costs time. */
static bool add_headers(struct curl_slist **headers, const struct http_request *request)
{
  struct curl_slist *first = curl_slist_append(NULL, "Expect:");
  *headers = first;
  return first && add_header(headers, "Accept", "application/json") &&
         add_header(headers, "Content-Type", request->content_type) &&
         (!request->authorization || add_header(headers, "Authorization", request->authorization));
}

static void free_headers(struct curl_slist *headers)
{
  for (struct curl_slist *header = headers; header; header = header->next)
    secret_wipe(header->data, strlen(header->data));
  curl_slist_free_all(headers);
}

static void publish_reply(struct http_response *response)
{
  struct reply *reply = &response->reply;
  if (reply->length == 0)
    arrival_drop(response);
  reply->body = response->body;
  reply->retry_after = response->retry_after[0] ? response->retry_after : NULL;
  reply->location = response->location[0] ? response->location : NULL;
  reply->error = response->error[0] && reply->delivery != REPLY_RECEIVED ? response->error : NULL;
}

bool transfer_prepare(struct transfer *transfer, const struct http_request *request)
{
  *transfer->response = (struct http_response){.reply.delivery = REPLY_NOT_SENT};
  transfer->ca_file = request->ca_file;
  transfer->plain = strncasecmp(request->url, "https:", 6) != 0;
  set_times(transfer, request);
  transfer->held = reserve_hold();
  transfer->handle = transfer->held && arrival_make_room(transfer->response) ? curl_easy_init() : NULL;
  if (transfer->handle && add_headers(&transfer->headers, request) && set_once(transfer->handle) &&
      set_connection(transfer->handle, request, transfer) &&
      set_request(transfer->handle, request, transfer->headers) && arrival_listen(transfer)) {
    verdict_watch(transfer);
    return true;
  }
  verdict_say(transfer->response, transfer->logs_keys
                                      ? verdict_keys_logged
                                      : "libcurl could not be set up: this process is out of memory, or this libcurl "
                                        "is too old or has no TLS");
  return false;
}

void transfer_finish(struct transfer *transfer)
{
  curl_easy_cleanup(transfer->handle);
  free_headers(transfer->headers);
  if (transfer->held)
    reserve_drop(transfer->opened);
  publish_reply(transfer->response);
}
