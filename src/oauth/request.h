/* The bodies that are sent to the server's OAuth2 endpoints. */
#ifndef OAUTH_REQUEST_H
#define OAUTH_REQUEST_H

#include <stdbool.h>

/* How the client names itself to the token endpoint (Lucid: JSON; RFC 6749 section 2.3.1: form or HTTP Basic; docs/PROVIDERS.md). */
enum request_style { REQUEST_JSON, REQUEST_FORM, REQUEST_BASIC };

struct credentials {
  const char *client_id;
  const char *client_secret; /* NULL or "": a public client */
  enum request_style
      style; /* of the token endpoint; introspection takes a form body, with HTTP Basic where that is the style */
  const char *const *parameters; /* further parameters of a refresh: names that request_parameter_problem accepts and
                                  * values in turn, NULL at the end; or NULL. Values are secrets */
};

/* Why a parameter of this name cannot be sent besides, "has characters that ..."; NULL: it can. Static text. */
const char *request_parameter_problem(const char *name);

struct request {
  enum request_endpoint { REQUEST_TOKEN, REQUEST_INTROSPECTION } endpoint;
  const char *content_type; /* static text */
  char *body;               /* secret; NUL-terminated */
  char *authorization;      /* secret; the header's value, or NULL */
};

/* RFC 6749 section 6. False: out of memory. Free with request_free. */
bool request_refresh(struct request *request, const struct credentials *credentials, const char *refresh_token);

/* RFC 7662 section 2.1: is this refresh token alive? */
bool request_introspection(struct request *request, const struct credentials *credentials, const char *refresh_token);

/* Wipe and free; an empty request is allowed. */
void request_free(struct request *request);

#endif
