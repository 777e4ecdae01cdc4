#define _GNU_SOURCE
#include "transfer.h"

#include "../base/secret.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void arrival_drop(struct http_response *response)
{
  if (response->body)
    secret_wipe(response->body, response->reply.length);
  free(response->body);
  response->body = NULL;
  response->reply.length = 0;
}

/* All of the room that an answer may take: while it arrives there may be none to be had. The system gives pages only
 * when they are written to. */
bool arrival_make_room(struct http_response *response)
{
  response->body = malloc(HTTP_BODY_MAX);
  return response->body != NULL;
}

/* True when the answer was taken. */
static bool append_to_body(struct transfer *transfer, const char *data, size_t size)
{
  struct http_response *response = transfer->response;
  size_t length = response->reply.length;
  if (size > HTTP_BODY_MAX - length) {
    response->reply.cut = true;
    return false;
  }
  if (size > 0)
    memcpy(response->body + length, data, size);
  response->reply.length = length + size;
  transfer->arrived += size;
  return true;
}

static size_t take_body(char *data, size_t unit, size_t count, void *context)
{
  return append_to_body(context, data, unit * count) ? unit * count : 0;
}

static bool starts_with(const char *line, size_t size, const char *word)
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

/* Some servers name a character set or the like as the answer's coding, and libcurl would refuse the whole answer. It
 * is told here to take such an answer as it stands. From 8.5 on libcurl ignores this, and the answer is in doubt. */
static void take_coding(struct transfer *transfer, const char *value)
{
  static const char *const known[] = {"gzip", "x-gzip", "deflate", "br", "zstd", "compress"};
  static const char *const none[] = {"identity", "none", ""};
  for (size_t i = 0; i < sizeof none / sizeof *none; i++)
    if (strcasecmp(value, none[i]) == 0)
      return;
  transfer->ending.packed = true;
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (strcasecmp(value, known[i]) == 0)
      return;
  if (!strchr(value, ',') && curl_easy_setopt(transfer->handle, CURLOPT_HTTP_CONTENT_DECODING, 0L) == CURLE_OK)
    transfer->ending.packed = false;
}

/* Two different lengths for one body: some proxy on the way can be led to cut an answer. */
static void take_length(struct ending *ending, const char *value)
{
  size_t digits = strspn(value, "0123456789");
  bool other = ending->length[0] && strcmp(ending->length, value) != 0;
  ending->odd |= other || digits == 0 || value[digits] != '\0' || digits > 18;
  snprintf(ending->length, sizeof ending->length, "%s", value);
}

static void take_transfer_coding(struct ending *ending, const char *value)
{
  ending->odd |= ending->chunked || strcasecmp(value, "chunked") != 0;
  ending->chunked = true;
}

/* True: it was a header of that name; its value is in `value`. */
static bool is_header(const char *line, size_t size, const char *name, char *value, size_t room)
{
  size_t skip = strlen(name);
  if (!starts_with(line, size, name))
    return false;
  copy_value(value, room, line + skip, size - skip);
  return true;
}

/* Another answer follows an interim one: the headers before it do not count. */
static void start_head(struct transfer *transfer, const char *line, size_t size)
{
  struct http_response *response = transfer->response;
  transfer->head_ended = false;
  transfer->ending = (struct ending){.old = starts_with(line, size, "HTTP/1.0")};
  response->retry_after[0] = '\0';
  response->location[0] = '\0';
}

static void take_field(struct transfer *transfer, const char *line, size_t size)
{
  struct http_response *response = transfer->response;
  char value[32];
  if (is_header(line, size, "Retry-After:", response->retry_after, sizeof response->retry_after) ||
      is_header(line, size, "Location:", response->location, sizeof response->location))
    return;
  if (is_header(line, size, "Content-Encoding:", value, sizeof value))
    take_coding(transfer, value);
  else if (is_header(line, size, "Content-Length:", value, sizeof value))
    take_length(&transfer->ending, value);
  else if (is_header(line, size, "Transfer-Encoding:", value, sizeof value))
    take_transfer_coding(&transfer->ending, value);
}

/* Trailers after the last chunk come this way too, and are not part of the head. */
static size_t take_header(char *line, size_t unit, size_t count, void *context)
{
  struct transfer *transfer = context;
  size_t size = unit * count;
  transfer->head += size;
  transfer->arrived += size;
  if (transfer->head > TRANSFER_HEAD_MAX)
    return 0;
  if (starts_with(line, size, "HTTP/"))
    start_head(transfer, line, size);
  else if (starts_with(line, size, "\r\n") || starts_with(line, size, "\n"))
    transfer->head_ended = true;
  else if (!transfer->head_ended)
    take_field(transfer, line, size);
  return size;
}

bool arrival_reached_its_end(const struct transfer *transfer)
{
  const struct ending *ending = &transfer->ending;
  curl_off_t length = -1;
  if (ending->odd || ending->packed)
    return false;
  if (ending->chunked)
    return !ending->old;
  return ending->length[0] &&
         curl_easy_getinfo(transfer->handle, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length) == CURLE_OK && length >= 0 &&
         (size_t)length == transfer->response->reply.length;
}

/* Servers may pack an answer unless the request says otherwise. This one asks for no packing, since not every unpacker
 * wipes its memory. An answer that is packed anyway is unpacked, and the limit applies to the unpacked bytes. */
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
