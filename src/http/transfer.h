/* One POST through libcurl: its set-up (transfer.c), the bytes that arrive (arrival.c), and its outcome (verdict.c). */
#ifndef HTTP_TRANSFER_H
#define HTTP_TRANSFER_H

#include "http.h"
#include "libraries.h"

#if LIBCURL_VERSION_NUM < 0x073d00
#error "libcurl 7.61 or newer is needed"
#endif

/* A head longer than this comes from no token endpoint; without a limit libcurl would keep all of it. */
enum { TRANSFER_HEAD_MAX = 256 * 1024 };

/* Seconds: how often a transfer is looked after at least. */
#define TRANSFER_LOOK 1.0

/* The answer's head about the end of its body. */
struct ending {
  bool old;        /* HTTP/1.0, which knows no chunks */
  bool chunked;    /* libcurl fails when the last chunk is missing */
  bool packed;     /* it may be cut inside the packing, which libcurl does not mind */
  bool odd;        /* it can be read in more than one way */
  char length[32]; /* as it was told; empty: it was not */
};

/* One POST under way. */
struct transfer {
  CURL *handle;
  struct curl_slist *headers;
  struct http_response *response;
  const char *ca_file;

  /* in a session */
  struct transfer *next;
  void *tag;

  struct moment send_by;
  double seen;         /* steady seconds: when it was last looked after */
  double ran, time;    /* seconds in which the process ran since it began, and those that it has */
  double connect_time; /* seconds that libcurl gives the connection */
  size_t looked_at;    /* `arrived`, when it was last looked after */

  bool plain;       /* not over TLS */
  bool watched;     /* libcurl tells the moment before it sends */
  bool held;        /* it has a share of the reserve */
  bool opened;      /* which may be used */
  bool sending;     /* the moment before it sends has come */
  bool too_late;    /* it came too late: nothing was sent */
  bool given_up;    /* time is over */
  bool off_machine; /* plain http was about to leave this machine */
  bool no_memory;
  bool had_socket;
  int no_socket;   /* the errno for which none could be had */
  bool logs_keys;  /* TLS's secrets would be written to a file */
  bool head_ended; /* the empty line after the headers has come */
  struct ending ending;
  size_t head;    /* bytes of status lines and headers so far */
  size_t arrived; /* bytes of all that */
};

/* Empty the response and set the transfer up, whose `response` is set already. False: it cannot be done, and the
 * response says so. */
bool transfer_prepare(struct transfer *transfer, const struct http_request *request);

/* Count the time that has passed. */
void transfer_note_time(struct transfer *transfer, struct moment now);

/* Give libcurl's part back and show the caller the reply. Due after transfer_prepare, even if that failed. */
void transfer_finish(struct transfer *transfer);

/* As libcurl takes it; at least one. */
long transfer_milliseconds(double seconds);

/* Have room for the answer's body. False: out of memory. */
bool arrival_make_room(struct http_response *response);

/* Have the arriving answer written into the response. */
bool arrival_listen(struct transfer *transfer);

/* Whether the body's length was told and reached, once libcurl is content with the answer. */
bool arrival_reached_its_end(const struct transfer *transfer);

/* Wipe and free the body. */
void arrival_drop(struct http_response *response);

/* Have libcurl say when it starts to send, if it can. */
void verdict_watch(struct transfer *transfer);

/* Whether a byte of the request may have left. */
bool verdict_may_be_sent(const struct transfer *transfer);

/* Fill in the reply of a transfer that has ended with `code`. */
void verdict_give(struct transfer *transfer, CURLcode code);

/* The whole response to a request that was not even begun. */
void verdict_no_memory(struct http_response *response);

extern const char verdict_keys_logged[];

/* Set the response's error. */
void verdict_say(struct http_response *response, const char *error);

#endif
