/* Drivers carry out what a flow asks for. */
#ifndef DRIVERS_DRIVE_H
#define DRIVERS_DRIVE_H

#include "../flow/flow.h"
#include "../http/http.h"
#include "../store/store.h"
#include "../system/held_signal.h"

/* Where POSTs go, and whom they trust. */
struct endpoints {
  char *token_url, *introspection_url;
  char *ca_file; /* NULL: the system's */
};

/* What a flight is carried out with. It belongs to an account, which is told what becomes of it. */
struct craft {
  struct flow *flow;
  struct store *store; /* NULL: the program's own, and flights are in its hands */
  const struct endpoints *endpoints;
  uint64_t seen;      /* the generation when the flight last looked at the record */
  bool holds_signals; /* that would end the process, from a refresh's POST until its tokens are saved */
  bool empty;         /* there was none then */
  const struct craft_owner *owner;
};

struct craft_owner {
  const char *(*objection)(void);      /* why nothing may be spent any more; NULL: it may */
  void (*locks)(struct craft *craft);  /* the lock is about to be taken, which may last */
  void (*sends)(struct craft *craft);  /* its refresh is about to be sent, in the background */
  void (*landed)(struct craft *craft); /* in the background: the flight is over */
  bool (*is_due)(struct craft *craft); /* in the background: whether a flight is to begin by itself; it then has */
};

/* Carry out a flight that has begun, on the calling thread, until it is done. */
void drive_blocking(struct craft *craft);

/* What one step came to, and the memory behind it. */
struct came_of {
  struct flow_event event; /* to be told to the flow; its time is still to be filled in */
  struct store_error error;
  struct http_response response;
  char *record;
  uint64_t rejected[STORE_REJECTED];
  bool posted; /* there is a response */
};

/* Carry out a LOAD, LOCK, HOLD, SAVE or UNLOCK on the calling thread. `came` starts as {.event = {.result =
 * FLOW_OK}}; when the flow has been told, drive_clean_up wipes and frees what is behind it. */
void drive_step(struct craft *craft, const struct flow_action *action, struct came_of *came);
void drive_clean_up(struct came_of *came);

/* What a POST of a flow sends; the strings are the flow's and the endpoints'. */
struct http_request drive_request(const struct endpoints *endpoints, const struct flow_action *action);

/* One POST of a flow, on the calling thread; it fills the response, which drive_release frees. `held`: signals that are
 * held meanwhile, or NULL. False: libcurl is not loaded (nothing was done). */
bool drive_post(const struct endpoints *endpoints, const struct flow_action *action, struct held_signal *held,
                struct http_response *response);
void drive_release(struct http_response *response);

#endif
