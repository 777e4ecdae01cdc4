#define _GNU_SOURCE
#include "http.h"

#include "../core/secret.h"
#include "../descriptor.h"
#include "../held.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sodium.h>
#include <stdalign.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#if LIBCURL_VERSION_NUM < 0x073d00
#error "libcurl 7.61 or newer is needed"
#endif

#ifndef LUCIDAUTH_VERSION
#error "the build must define LUCIDAUTH_VERSION"
#endif

/* A head longer than this comes from no token endpoint; without a limit libcurl would keep all of it. */
enum { HEAD_MAX = 256 * 1024, BODY_START = 4096 };

/* libcurl keeps request bodies and answers in its own buffers. Its allocator is replaced by one that wipes
 * every block before it is freed. */
struct block {
  alignas(max_align_t) size_t size;
};

static void *wiped_malloc(size_t size)
{
  struct block *block = size <= SIZE_MAX - sizeof *block ? malloc(sizeof *block + size) : NULL;
  if (!block)
    return NULL;
  block->size = size;
  return block + 1;
}

static void wiped_free(void *data)
{
  if (!data)
    return;
  struct block *block = (struct block *)data - 1;
  secret_wipe(block, sizeof *block + block->size);
  free(block);
}

/* Size 0 gives an empty block, never NULL: libcurl frees the old block itself when it sees NULL. */
static void *wiped_realloc(void *data, size_t size)
{
  void *moved = wiped_malloc(size);
  if (!moved || !data)
    return moved;
  size_t old = ((struct block *)data - 1)->size;
  memcpy(moved, data, old < size ? old : size);
  wiped_free(data);
  return moved;
}

static void *wiped_calloc(size_t count, size_t size)
{
  if (size > 0 && count > SIZE_MAX / size)
    return NULL;
  void *data = wiped_malloc(count * size);
  if (data)
    memset(data, 0, count * size);
  return data;
}

static char *wiped_strdup(const char *text)
{
  size_t size = strlen(text) + 1;
  char *copy = wiped_malloc(size);
  return copy ? memcpy(copy, text, size) : NULL;
}

/* When the process has initialized libcurl before, its allocator stays as it is; there is nothing to be done
 * about it. Never cleaned up: the module stays loaded. */
static void set_up(void)
{
  curl_global_init_mem(CURL_GLOBAL_DEFAULT, wiped_malloc, wiped_free, wiped_realloc, wiped_strdup, wiped_calloc);
  /* Its manual wants this before any other call; what can fail here are random numbers, which hashes do not need. */
  int ready = sodium_init();
  (void)ready;
}

static void start(void)
{
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, set_up);
}

/* One POST under way. */
struct transfer {
  CURL *handle;
  struct curl_slist *headers;
  struct http_response *response;
  void *tag;        /* in a session */
  bool plain;       /* not over TLS */
  bool watched;     /* libcurl tells the moment before it sends */
  bool sending;     /* that moment has come */
  bool off_machine; /* plain http was about to leave this machine */
  bool no_memory;
  bool head_ended; /* the empty line after the headers has come */
  size_t head;     /* bytes of status lines and headers so far */
};

/* True when the answer was taken. */
static bool append(struct transfer *transfer, const char *data, size_t size)
{
  struct http_response *response = transfer->response;
  size_t length = response->reply.length, room = response->body_size;
  if (size == 0)
    return true;
  if (size > HTTP_BODY_MAX - length) {
    response->reply.cut = true;
    return false;
  }
  if (size > room - length) {
    room = room ? room : BODY_START;
    while (room - length < size)
      room *= 2;
    char *grown = malloc(room);
    transfer->no_memory = !grown;
    if (!grown)
      return false;
    if (length > 0)
      memcpy(grown, response->body, length);
    secret_wipe(response->body, response->body_size);
    free(response->body);
    response->body = grown;
    response->body_size = room;
  }
  memcpy(response->body + length, data, size);
  response->reply.length = length + size;
  return true;
}

static size_t take_body(char *data, size_t unit, size_t count, void *context)
{
  return append(context, data, unit * count) ? unit * count : 0;
}

static bool begins(const char *line, size_t size, const char *word)
{
  return size >= strlen(word) && strncasecmp(line, word, strlen(word)) == 0;
}

static bool blank(char c)
{
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static void copy_value(char *to, size_t room, const char *value, size_t size)
{
  while (size > 0 && blank(value[0])) {
    value++;
    size--;
  }
  while (size > 0 && blank(value[size - 1]))
    size--;
  size = size < room ? size : room - 1;
  memcpy(to, value, size);
  to[size] = '\0';
}

/* Some servers name a character set, or what not, as the answer's coding. libcurl would refuse the whole answer; it is
 * told here to take it as it stands. From 8.5 on it does not heed that any more, and the answer is in doubt. */
static void take_coding(CURL *handle, const char *value)
{
  static const char *const known[] = {"gzip", "x-gzip", "deflate", "br", "zstd", "compress", "identity", "none", ""};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (strcasecmp(value, known[i]) == 0)
      return;
  if (!strchr(value, ','))
    curl_easy_setopt(handle, CURLOPT_HTTP_CONTENT_DECODING, 0L);
}

static size_t take_header(char *line, size_t unit, size_t count, void *context)
{
  struct transfer *transfer = context;
  struct http_response *response = transfer->response;
  size_t size = unit * count;
  transfer->head += size;
  if (transfer->head > HEAD_MAX)
    return 0;
  if (begins(line, size, "HTTP/")) {
    /* Another answer follows an interim one: what came before does not count. */
    transfer->head_ended = false;
    response->retry_after[0] = '\0';
    response->location[0] = '\0';
  } else if (begins(line, size, "Retry-After:")) {
    copy_value(response->retry_after, sizeof response->retry_after, line + 12, size - 12);
  } else if (begins(line, size, "Location:")) {
    copy_value(response->location, sizeof response->location, line + 9, size - 9);
  } else if (begins(line, size, "Content-Encoding:")) {
    char coding[32];
    copy_value(coding, sizeof coding, line + 17, size - 17);
    take_coding(transfer->handle, coding);
  } else if (begins(line, size, "\r\n") || begins(line, size, "\n")) {
    transfer->head_ended = true;
  }
  return size;
}

static bool loopback(const struct sockaddr *address)
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
  if (transfer->plain && !loopback(&peer->addr)) {
    transfer->off_machine = true;
    return CURL_SOCKET_BAD;
  }
#ifdef SOCK_CLOEXEC
  return descriptor_keep(socket(peer->family, peer->socktype | SOCK_CLOEXEC, peer->protocol));
#else
  return descriptor_keep(socket(peer->family, peer->socktype, peer->protocol));
#endif
}

#if LIBCURL_VERSION_NUM >= 0x075000
static int before_request(void *context, char *peer, char *local, int peer_port, int local_port)
{
  struct transfer *transfer = context;
  (void)peer, (void)local, (void)peer_port, (void)local_port;
  transfer->sending = true;
  return CURL_PREREQFUNC_OK;
}
#endif

/* Have libcurl say when it starts to send. */
static bool watch(CURL *handle, struct transfer *transfer)
{
#if LIBCURL_VERSION_NUM >= 0x075000
  transfer->watched = curl_easy_setopt(handle, CURLOPT_PREREQFUNCTION, before_request) == CURLE_OK &&
                      curl_easy_setopt(handle, CURLOPT_PREREQDATA, transfer) == CURLE_OK;
#endif
  return curl_easy_setopt(handle, CURLOPT_OPENSOCKETFUNCTION, open_socket) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_OPENSOCKETDATA, transfer) == CURLE_OK;
}

/* Whether a byte of the request may have left. Before 7.80 libcurl does not say so itself: take the moment when the
 * connection was ready (CURLINFO_PRETRANSFER_TIME_T comes too late, when all of the request has gone). */
static bool sent(CURL *handle, const struct transfer *transfer)
{
  if (transfer->watched)
    return transfer->sending;
  curl_off_t ready = 0;
  CURLINFO moment = transfer->plain ? CURLINFO_CONNECT_TIME_T : CURLINFO_APPCONNECT_TIME_T;
  return curl_easy_getinfo(handle, moment, &ready) != CURLE_OK || ready > 0;
}

#ifdef RTLD_NOLOAD
typedef uint64_t set_options(void *context, uint64_t options);

/* OpenSSL's SSL_CTX_set_options as libcurl sees it. The process may hold several OpenSSLs: NULL when it is
 * not certain which of them is libcurl's, or when it is older than 3, which cannot do what is wanted here. */
static set_options *find_set_options(void)
{
  const char *name = "SSL_CTX_set_options", *tls = curl_version_info(CURLVERSION_NOW)->ssl_version;
  CURLcode (*curl)(CURL *) = curl_easy_perform;
  void *address = NULL, *library = NULL;
  set_options *function = NULL;
  Dl_info info;
  memcpy(&address, &curl, sizeof address);
  if (tls && strncmp(tls, "OpenSSL/", 8) == 0 && atoi(tls + 8) >= 3 && dladdr(address, &info))
    library = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
  if (!library)
    return NULL;
  void *found = dlsym(library, name), *first = dlsym(RTLD_DEFAULT, name);
  dlclose(library);
  if (found && (!first || first == found))
    memcpy(&function, &found, sizeof function);
  return function;
}

static CURLcode before_tls(CURL *handle, void *context, void *user)
{
  const uint64_t cleanse_plaintext = 2; /* SSL_OP_CLEANSE_PLAINTEXT */
  set_options *function = find_set_options();
  (void)handle, (void)user;
  if (function)
    function(context, cleanse_plaintext);
  return CURLE_OK;
}

/* OpenSSL frees its read buffer with the answer in it unless it is told to wipe it. Where it cannot be told, the POST
 * goes on all the same. */
static void set_wiping(CURL *handle)
{
  curl_easy_setopt(handle, CURLOPT_SSL_CTX_FUNCTION, before_tls);
}
#else
static void set_wiping(CURL *handle)
{
  (void)handle;
}
#endif

static long milliseconds(double seconds)
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

static bool set_connection(CURL *handle, const struct http_request *request, const struct transfer *transfer)
{
#if LIBCURL_VERSION_NUM >= 0x075700
  /* Else the end of a transfer waits for the system's resolver, past the timeout. The resolver's thread then ends by
   * itself. An older library at run time does not know the option: it waits. */
  curl_easy_setopt(handle, CURLOPT_QUICK_EXIT, 1L);
#endif
  set_wiping(handle);
  return curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS, milliseconds(request->connect_timeout)) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS, milliseconds(request->timeout)) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_SSL_VERIFYPEER, 1L) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_SSL_VERIFYHOST, 2L) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2) == CURLE_OK &&
         (!request->ca_file || curl_easy_setopt(handle, CURLOPT_CAINFO, request->ca_file) == CURLE_OK) &&
         (!transfer->plain || curl_easy_setopt(handle, CURLOPT_PROXY, "") == CURLE_OK);
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

/* Whoever is not told otherwise may pack the answer as he likes. Asked for is none of that: not every unpacker wipes its
 * memory. What comes packed all the same is unpacked, and what is limited is what comes of it. */
static bool set_answer(CURL *handle, struct transfer *transfer)
{
  return curl_easy_setopt(handle, CURLOPT_ACCEPT_ENCODING, "identity") == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, take_body) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_WRITEDATA, transfer) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_HEADERFUNCTION, take_header) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_HEADERDATA, transfer) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, transfer->response->error) == CURLE_OK;
}

/* Adds "name: value" to the list. False: memory is out. */
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

static void drop_body(struct http_response *response)
{
  secret_wipe(response->body, response->body_size);
  free(response->body);
  response->body = NULL;
  response->body_size = 0;
  response->reply.length = 0;
}

/* It is a proxy's. */
static void forget_answer(struct http_response *response)
{
  drop_body(response);
  response->reply.status = 0;
  response->retry_after[0] = '\0';
  response->location[0] = '\0';
}

static void say(struct http_response *response, const char *error)
{
  snprintf(response->error, sizeof response->error, "%s", error);
}

/* libcurl's words may hold the URL of a proxy with its password, cut off anywhere. */
static bool may_tell_password(const char *error, CURLcode code)
{
  return code == CURLE_COULDNT_RESOLVE_PROXY || code == CURLE_UNSUPPORTED_PROTOCOL || code == CURLE_URL_MALFORMAT ||
         strchr(error, '@') || strstr(error, "://") || strstr(error, "proxy syntax");
}

/* What went wrong, in libcurl's words unless we know better, or they say too much. */
static void explain(const struct transfer *transfer, CURLcode code)
{
  struct http_response *response = transfer->response;
  if (transfer->off_machine && !transfer->sending)
    say(response, "the host's address is not of this machine, and plain http would show the secrets to the network");
  else if (transfer->head > HEAD_MAX)
    say(response, "the answer's headers never end");
  else if (transfer->no_memory)
    say(response, "memory is out");
  else if (code == CURLE_OUT_OF_MEMORY && transfer->sending && !transfer->head_ended)
    say(response, "a line of the answer's headers is too long"); /* that is what libcurl calls it */
  else if (code == CURLE_OK)
    say(response, "the connection ended before the answer was whole");
  else if (!response->error[0] || may_tell_password(response->error, code))
    say(response, curl_easy_strerror(code));
}

static void judge(CURL *handle, const struct transfer *transfer, CURLcode code)
{
  struct http_response *response = transfer->response;
  struct reply *reply = &response->reply;
  long status = 0;
  if (curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status) == CURLE_OK && status >= 200)
    reply->status = (int)status;
  /* libcurl is content when the connection ends within the headers. */
  if ((code == CURLE_OK && reply->status && transfer->head_ended) || reply->cut)
    reply->delivery = REPLY_RECEIVED;
  else
    reply->delivery = sent(handle, transfer) ? REPLY_LOST : REPLY_NOT_SENT;
  reply->timed_out = code == CURLE_OPERATION_TIMEDOUT;
  if (reply->cut)
    drop_body(response);
  if (reply->delivery == REPLY_NOT_SENT)
    forget_answer(response);
  if (reply->delivery != REPLY_RECEIVED)
    explain(transfer, code);
}

static void publish(struct http_response *response)
{
  struct reply *reply = &response->reply;
  reply->body = response->body;
  reply->retry_after = response->retry_after[0] ? response->retry_after : NULL;
  reply->location = response->location[0] ? response->location : NULL;
  reply->error = response->error[0] && reply->delivery != REPLY_RECEIVED ? response->error : NULL;
}

static bool prepare(struct transfer *transfer, const struct http_request *request)
{
  *transfer->response = (struct http_response){.reply.delivery = REPLY_NOT_SENT};
  transfer->plain = strncasecmp(request->url, "https:", 6) != 0;
  transfer->handle = curl_easy_init();
  if (transfer->handle && add_headers(&transfer->headers, request) && set_once(transfer->handle) &&
      set_connection(transfer->handle, request, transfer) &&
      set_request(transfer->handle, request, transfer->headers) && set_answer(transfer->handle, transfer) &&
      watch(transfer->handle, transfer))
    return true;
  say(transfer->response, "libcurl could not be set up: memory is out, or this libcurl is too old");
  return false;
}

static void finish(struct transfer *transfer)
{
  curl_easy_cleanup(transfer->handle);
  free_headers(transfer->headers);
  publish(transfer->response);
}

/* With CURLOPT_NOSIGNAL, which threads need, libcurl leaves SIGPIPE alone, and TLS libraries may write to a connection
 * that the server has closed: the process would die with the token spent. */
static void post(const struct http_request *request, struct http_response *response)
{
  struct transfer transfer = {.response = response};
  struct held sigpipe;
  start();
  held_begin(&sigpipe, SIGPIPE);
  if (prepare(&transfer, request))
    judge(transfer.handle, &transfer, curl_easy_perform(transfer.handle));
  finish(&transfer);
  held_end(&sigpipe);
}

/* Sessions: the thread that waits is expected to have SIGPIPE blocked for good. */

static struct http_session *open_session(void)
{
  start();
  return (struct http_session *)curl_multi_init();
}

static bool begin_in_session(struct http_session *session, const struct http_request *request,
                             struct http_response *response, void *tag)
{
  struct transfer *transfer = calloc(1, sizeof *transfer);
  if (!transfer) {
    *response = (struct http_response){.reply.delivery = REPLY_NOT_SENT};
    return false;
  }
  transfer->response = response;
  transfer->tag = tag;
  if (prepare(transfer, request) && curl_easy_setopt(transfer->handle, CURLOPT_PRIVATE, transfer) == CURLE_OK &&
      curl_multi_add_handle((CURLM *)session, transfer->handle) == CURLM_OK)
    return true;
  finish(transfer);
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
  judge(handle, transfer, code);
  curl_multi_remove_handle(multi, handle);
  finish(transfer);
  void *tag = transfer->tag;
  free(transfer);
  return tag;
}

static void *wait_in_session(struct http_session *session, double seconds)
{
  CURLM *multi = (CURLM *)session;
  int running;
  curl_multi_perform(multi, &running);
  void *tag = take_finished(multi);
  if (tag || !(seconds > 0))
    return tag;
#if LIBCURL_VERSION_NUM >= 0x074400
  curl_multi_poll(multi, NULL, 0, (int)milliseconds(seconds), NULL);
#else
  /* it cannot be woken, and returns at once when there is nothing to wait for */
  const double step = 0.01;
  curl_multi_wait(multi, NULL, 0, (int)milliseconds(seconds < step ? seconds : step), NULL);
#endif
  curl_multi_perform(multi, &running);
  return take_finished(multi);
}

static void wake_session(struct http_session *session)
{
#if LIBCURL_VERSION_NUM >= 0x074400
  curl_multi_wakeup((CURLM *)session);
#else
  (void)session;
#endif
}

static void close_session(struct http_session *session)
{
  curl_multi_cleanup((CURLM *)session);
}

static void release(struct http_response *response)
{
  drop_body(response);
  secret_wipe(response, sizeof *response);
}

static void sha256(const void *data, size_t size, unsigned char digest[32])
{
  start();
  crypto_hash_sha256(digest, data, size);
}

__attribute__((visibility("default"))) const struct http_ops lucidauth_http = {
    .version = HTTP_OPS_VERSION,
    .product = LUCIDAUTH_VERSION,
    .start = start,
    .post = post,
    .open = open_session,
    .begin = begin_in_session,
    .wait = wait_in_session,
    .wake = wake_session,
    .close = close_session,
    .release = release,
    .sha256 = sha256,
};
