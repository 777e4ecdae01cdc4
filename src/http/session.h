/* POSTs side by side; see http.h. The thread that waits is expected to have SIGPIPE blocked for good. */
#ifndef HTTP_SESSION_H
#define HTTP_SESSION_H

#include "http.h"

struct http_session *session_open(void);
struct http_session *session_open_for_threads(void);
bool session_begin(struct http_session *session, const struct http_request *request, struct http_response *response,
                   void *tag);
void *session_wait(struct http_session *session, double seconds);
void session_wake(struct http_session *session);
void session_close(struct http_session *session);

#endif
