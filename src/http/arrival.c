#define _GNU_SOURCE
#include "transfer.h"

#include "../core/secret.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { BODY_START = 4096 };

void arrival_drop(struct http_response *response)
{
  secret_wipe(response->body, response->body_size);
  free(response->body);
  response->body = NULL;
  response->body_size = 0;
  response->reply.length = 0;
}

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
  if (transfer->head > TRANSFER_HEAD_MAX)
    return 0;
  if (begins(line, size, "HTTP/")) {
    /* Another answer follows an interim one: what came before does not count. */
    transfer->head_ended = false;
    transfer->chunked = false;
    response->retry_after[0] = '\0';
    response->location[0] = '\0';
  } else if (begins(line, size, "Retry-After:")) {
    copy_value(response->retry_after, sizeof response->retry_after, line + 12, size - 12);
  } else if (begins(line, size, "Location:")) {
    copy_value(response->location, sizeof response->location, line + 9, size - 9);
  } else if (begins(line, size, "Transfer-Encoding:")) {
    char coding[64];
    copy_value(coding, sizeof coding, line + 18, size - 18);
    transfer->chunked = strcasestr(coding, "chunked") != NULL;
  } else if (begins(line, size, "Content-Encoding:")) {
    char coding[32];
    copy_value(coding, sizeof coding, line + 17, size - 17);
    take_coding(transfer->handle, coding);
  } else if (begins(line, size, "\r\n") || begins(line, size, "\n")) {
    transfer->head_ended = true;
  }
  return size;
}

/* Whoever is not told otherwise may pack the answer as he likes. Asked for is none of that: not every unpacker wipes
 * its memory. What comes packed all the same is unpacked, and what is limited is what comes of it. */
bool arrival_listen(struct transfer *transfer)
{
  CURL *handle = transfer->handle;
  return curl_easy_setopt(handle, CURLOPT_ACCEPT_ENCODING, "identity") == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, take_body) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_WRITEDATA, transfer) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_HEADERFUNCTION, take_header) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_HEADERDATA, transfer) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L) == CURLE_OK &&
         curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, transfer->response->error) == CURLE_OK;
}
