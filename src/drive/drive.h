/* Drivers carry out what a flow asks for. */
#ifndef DRIVE_DRIVE_H
#define DRIVE_DRIVE_H

#include "../client/account.h"
#include "../client/client.h"
#include "../http/http.h"

/* Carry out the account's flight on the calling thread until it is done. Between account_take_off and
 * account_land. */
void drive_blocking(struct lucidauth_account *account);

/* What one step came to, and the memory behind it. */
struct came_of {
  struct flow_event event; /* to be told to the flow; its time is still to be filled in */
  struct store_error error;
  struct http_response response;
  char *record;
  bool posted; /* there is a response */
};

/* Carry out a LOAD, LOCK, SAVE or UNLOCK on the calling thread. `came` starts as {.event = {.result =
 * FLOW_OK}}; when the flow has been told, drive_clean_up wipes and frees what is behind it. */
void drive_step(struct lucidauth_account *account, const struct flow_action *action, struct came_of *came);
void drive_clean_up(struct came_of *came);

/* What a POST of a flow sends; the strings are the flow's and the options'. */
struct http_request drive_request(const struct options *options, const struct flow_action *action);

/* One POST of a flow, on the calling thread; it fills the response, which drive_release frees. False: libcurl
 * is not loaded (nothing was done). */
bool drive_post(const struct options *options, const struct flow_action *action, struct http_response *response);
void drive_release(struct http_response *response);

#endif
