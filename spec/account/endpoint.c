#define _GNU_SOURCE
#include "endpoint.h"

#include "../http/http.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

struct endpoint *endpoint;

void endpoint_start(void)
{
  endpoint = mmap(NULL, sizeof *endpoint, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (endpoint == MAP_FAILED)
    abort();
  atomic_store(&endpoint->status, 200);
  atomic_store(&endpoint->gate, INT_MAX);
}

/* It stays mapped: a test that has failed may have left threads behind, which go on. */
void endpoint_stop(void)
{
  endpoint_go_on();
}

void endpoint_hold(void)
{
  atomic_store(&endpoint->gate, atomic_load(&endpoint->answered));
}

void endpoint_answer(int count)
{
  atomic_fetch_add(&endpoint->gate, count);
}

void endpoint_go_on(void)
{
  atomic_store(&endpoint->gate, INT_MAX);
}

double endpoint_now(void)
{
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

void endpoint_pause(void)
{
  nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

bool endpoint_has_seen(int posts)
{
  double deadline = endpoint_now() + ENDPOINT_PATIENCE;
  while (atomic_load(&endpoint->posts) < posts && endpoint_now() < deadline)
    endpoint_pause();
  return atomic_load(&endpoint->posts) >= posts;
}

/* ---- requests and answers ---- */

static bool is_refresh(const struct http_request *request)
{
  return !strstr(request->url, "introspect");
}

static bool holds_live_token(const struct http_request *request)
{
  char json[40], form[40];
  int rotation = atomic_load(&endpoint->rotation);
  snprintf(json, sizeof json, "\"R%d\"", rotation);
  snprintf(form, sizeof form, "token=R%d", rotation);
  const char *found = strstr(request->body, form);
  return strstr(request->body, json) || (found && strchr("&", found[strlen(form)]));
}

static void arrive(const struct http_request *request)
{
  atomic_fetch_add(is_refresh(request) ? &endpoint->posts : &endpoint->asked, 1);
}

/* False: it has to wait. */
static bool may_answer(const struct http_request *request)
{
  if (!is_refresh(request))
    return true;
  int answered = atomic_load(&endpoint->answered);
  while (answered < atomic_load(&endpoint->gate))
    if (atomic_compare_exchange_weak(&endpoint->answered, &answered, answered + 1))
      return true;
  return false;
}

static void respond(struct http_response *response, int status, const char *body)
{
  *response = (struct http_response){.body = strdup(body)};
  response->reply = (struct reply){.delivery = REPLY_RECEIVED,
                                   .whole = true,
                                   .status = status,
                                   .body = response->body,
                                   .length = strlen(response->body)};
}

static void answer(const struct http_request *request, struct http_response *response)
{
  char body[200];
  int status = atomic_load(&endpoint->status);
  if (!is_refresh(request)) {
    respond(response, 200, holds_live_token(request) ? "{\"active\":true}" : "{\"active\":false}");
  } else if (status != 200) {
    respond(response, status, "{}");
  } else if (!holds_live_token(request)) {
    atomic_fetch_add(&endpoint->reuses, 1);
    respond(response, 400, "{\"error\":\"invalid_grant\"}");
  } else {
    int next = atomic_fetch_add(&endpoint->rotation, 1) + 1;
    snprintf(body, sizeof body, "{\"access_token\":\"A%d\",\"refresh_token\":\"R%d\",\"expires_in\":3600}", next, next);
    respond(response, 200, body);
  }
}

/* ---- the module ---- */

static const char *start(void)
{
  return NULL;
}

static void post(const struct http_request *request, struct http_response *response)
{
  arrive(request);
  while (!may_answer(request)) {
    if (request->beat)
      request->beat(request->beat_data);
    endpoint_pause();
  }
  answer(request, response);
}

struct transfer {
  struct transfer *next;
  struct http_request request;
  struct http_response *response;
  void *tag;
};

struct http_session {
  struct transfer *transfers;
  atomic_bool woken;
};

static struct http_session *open_session(void)
{
  return calloc(1, sizeof(struct http_session));
}

static bool begin(struct http_session *session, const struct http_request *request, struct http_response *response,
                  void *tag)
{
  struct transfer *transfer = calloc(1, sizeof *transfer);
  if (!transfer)
    return false;
  *transfer = (struct transfer){.next = session->transfers, .request = *request, .response = response, .tag = tag};
  session->transfers = transfer;
  arrive(request);
  return true;
}

static void *take_answered(struct http_session *session)
{
  for (struct transfer **place = &session->transfers; *place; place = &(*place)->next) {
    struct transfer *transfer = *place;
    if (!may_answer(&transfer->request))
      continue;
    void *tag = transfer->tag;
    answer(&transfer->request, transfer->response);
    *place = transfer->next;
    free(transfer);
    return tag;
  }
  return NULL;
}

static void *wait_for_answer(struct http_session *session, double seconds)
{
  double until = endpoint_now() + seconds;
  void *tag = take_answered(session);
  while (!tag && !atomic_exchange(&session->woken, false) && endpoint_now() < until) {
    endpoint_pause();
    tag = take_answered(session);
  }
  return tag;
}

static void wake(struct http_session *session)
{
  atomic_store(&session->woken, true);
}

static void close_session(struct http_session *session)
{
  if (session->transfers) {
    fputs("a session is closed with a POST under way\n", stderr);
    abort();
  }
  free(session);
}

static void release(struct http_response *response)
{
  free(response->body);
  response->body = NULL;
  response->reply = (struct reply){.delivery = response->reply.delivery};
}

static void sha256(const void *data, size_t size, unsigned char digest[32])
{
  const unsigned char *bytes = data;
  for (size_t i = 0; i < 32; i++)
    digest[i] = i < size ? bytes[i] : 0;
}

const struct http_ops lucidauth_http = {
    HTTP_OPS_VERSION, LUCIDAUTH_VERSION, start, post, open_session, begin, wait_for_answer, wake,
    close_session,    release,           sha256};
