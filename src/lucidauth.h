/* lucidauth keeps the OAuth2 tokens of the Lucid API: lucidauth_token() returns an access token that works,
 * from any number of threads and processes at once, and no crash, fault or race loses or double-spends the
 * refresh token.
 *
 *   lucidauth *client = lucidauth_new(NULL, &error);             settings from the environment
 *   char *token = lucidauth_token(client, NULL, &error);         wait for one if it must be refreshed
 *   ...
 *   lucidauth_free_token(token);
 *   lucidauth_close(client);
 *
 * Strings are UTF-8 and NUL-terminated. Times are in seconds. An `error` argument may be NULL. A function that fails
 * fills it and returns NULL or false, and you have nothing to free. Messages never hold a secret. `account` NULL or ""
 * is the account "default".
 *
 *   structs   Each public struct begins with its size, so that a program that was built against an older header goes on
 *             with a newer library. Start it from its macro: LUCIDAUTH_ERROR_INIT for a lucidauth_error. {0} does as
 *             well, but not for options and status. New fields come at the end; the library neither reads nor writes a
 *             field that lies behind the size. You see all other structs as pointers only.
 *   threads   You may call every function from any thread at any time, unless it says otherwise. A thread that is
 *             cancelled (pthread_cancel) goes on to the end of its call first.
 *   signals   Call nothing here in a signal handler. A signal at its default action that ends the process would lose
 *             the answer to a refresh that is under way. So the thread that refreshes holds such signals back (SIGTERM,
 *             SIGHUP, SIGINT, SIGALRM and their kind) from the request until the tokens are saved, for twice the
 *             timeout at most. They arrive right after. A second signal that comes a second or more after the first is
 *             obeyed at once. Signals that your program handles, ignores or blocks are left alone. A mask belongs to
 *             one thread: in a program with several threads, a signal to the process still arrives at once on any
 *             thread that does not block it. Let those threads alone leave it unblocked that wait in here, or handle
 *             the signal. options.hold_signals = false: nothing is held.
 *   fork()    Parent and child may both go on with the client. Flights and locks stay the parent's; a lucidauth_flight
 *             ends in the child at its next call. The child saves tokens that the parent could not save, once the
 *             parent has ended without having done it. With LUCIDAUTH_MEMORY each has its own copy of one refresh
 *             token: the first to refresh kills the other's.
 *             To become a daemon, close the descriptors that you did not open (close_range, closefrom) and fork before
 *             you make a client, or at least while no refresh is under way. If you close one of ours all the same, it
 *             is neither used nor closed again, even if its number has a new owner. A refresh under way still saves its
 *             tokens, but its lock is gone, so another process may take it for dead. The next refresh takes a new lock.
 *   SIGBUS    Processes share a page of the lock file. Reading it after another program has cut that file short raises
 *             this signal. A handler catches it and goes on without the page; it passes any other SIGBUS to the handler
 *             that was there before. If you install a handler later, pass on signals that are not yours: it gets ours
 *             until the storage is next looked at, within a second of use, when ours is put in front of it again. No
 *             guard helps a thread that blocks SIGBUS, as the system ends the process: do not block it on threads that
 *             ask for tokens.
 *   names     Your program may export functions under the names of cJSON's, libcurl's and libsodium's (-Wl,-E). The
 *             shared library still calls those that it was built with, and on x86-64 and arm64 libcurl and libsodium
 *             still call themselves. Elsewhere, and under the names of libraries that libcurl needs (OpenSSL, zlib),
 *             export functions that do the same. With the static library your link says which functions are meant.
 *   the end   A process that ends by exit(), or by returning from main, waits for refreshes under way, for twice the
 *             timeout at most, and saves tokens that could not be saved before. Flights in your own hands are yours to
 *             end. Later calls still get a token that lives, but no refresh begins (LUCIDAUTH_NOT_READY). A process
 *             that dies otherwise loses at most the answer under way; the next process asks the server about it. */
#ifndef LUCIDAUTH_H
#define LUCIDAUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A build that links the library into something else may define this empty, to export nothing. */
#ifndef LUCIDAUTH_API
#define LUCIDAUTH_API __attribute__((visibility("default")))
#endif

/* The library's version, "0.2.0"; static text. */
LUCIDAUTH_API const char *lucidauth_version(void);

/* ---- errors ---- */

/* The codes of failures. Numbers are stable; lucidauth_code_name gives the names that Lua programs compare. */
typedef enum lucidauth_code {
  LUCIDAUTH_OK,
  LUCIDAUTH_CONFIG,         /* "config": a setting is missing or cannot be used */
  LUCIDAUTH_INVALID_CLIENT, /* "invalid_client": the server does not accept id and secret (RFC 6749 section 5.2) */
  LUCIDAUTH_INVALID_GRANT,  /* "invalid_grant": the server refuses the refresh token (RFC 6749 section 5.2) */
  LUCIDAUTH_LOST_ROTATION,  /* "lost_rotation": a refresh was spent and its answer never arrived */
  LUCIDAUTH_NETWORK,        /* "network": the server could not be reached, or this process lacks the means to */
  LUCIDAUTH_TIMEOUT,        /* "timeout": no answer in time */
  LUCIDAUTH_RATE_LIMITED,   /* "rate_limited": the server said: later */
  LUCIDAUTH_SERVER_ERROR,   /* "server_error": the server failed */
  LUCIDAUTH_BAD_RESPONSE,   /* "bad_response": the server's answer cannot be used */
  LUCIDAUTH_STORAGE,        /* "storage": the token storage cannot be read or written */
  LUCIDAUTH_LOCKED,         /* "locked": another process holds the account's lock for too long */
  LUCIDAUTH_NOT_READY       /* "not_ready": no token yet, and this caller may not wait */
} lucidauth_code;

/* The code's name, never NULL; static text. */
LUCIDAUTH_API const char *lucidauth_code_name(lucidauth_code code);

/* Start from LUCIDAUTH_ERROR_INIT, or from {0}. */
typedef struct lucidauth_error {
  size_t size; /* sizeof(lucidauth_error); the library leaves it as it is */
  lucidauth_code code;
  char message[900]; /* says what happened, whether anything was lost, and what to do next */
} lucidauth_error;

#ifndef __cplusplus
/* clang-format off */
#define LUCIDAUTH_ERROR_INIT { .size = sizeof(lucidauth_error) }
/* clang-format on */
#else
#define LUCIDAUTH_ERROR_INIT lucidauth_error_init()
static inline lucidauth_error lucidauth_error_init(void)
{
  lucidauth_error error = lucidauth_error();
  error.size = sizeof(lucidauth_error);
  return error;
}
#endif

/* ---- options ---- */

/* How the client names itself to the token endpoint. */
typedef enum lucidauth_token_request {
  LUCIDAUTH_JSON,  /* a JSON body, as Lucid documents it */
  LUCIDAUTH_FORM,  /* a form body (RFC 6749 section 2.3.1) */
  LUCIDAUTH_BASIC, /* a form body, client id and secret by HTTP Basic (RFC 6749 section 2.3.1) */
  LUCIDAUTH_USUAL  /* as the provider usually wants it: LUCIDAUTH_JSON for Lucid, LUCIDAUTH_FORM at another token_url */
} lucidauth_token_request;

typedef enum lucidauth_storage {
  LUCIDAUTH_FILE,      /* `path` is a file for one account; its lock file is <path>.lock */
  LUCIDAUTH_DIRECTORY, /* `path` is a folder with such a file for each account */
  LUCIDAUTH_MEMORY,    /* nothing outlives the client */
  LUCIDAUTH_CUSTOM     /* yours: flights are carried out by lucidauth_flight_next, see below */
} lucidauth_storage;

typedef enum lucidauth_event_kind {
  LUCIDAUTH_EVENT_REFRESHED,      /* a refresh brought new tokens */
  LUCIDAUTH_EVENT_ADOPTED,        /* another process's newer token is in use now */
  LUCIDAUTH_EVENT_REFRESH_FAILED, /* a refresh failed; a token that still lives is served meanwhile */
  LUCIDAUTH_EVENT_SAVE_FAILED,    /* new tokens could not be saved: they are in this process's memory alone */
  LUCIDAUTH_EVENT_SAVED,          /* and now they are saved */
  LUCIDAUTH_EVENT_RECOVERED,      /* a refresh that another process left unfinished was settled */
  LUCIDAUTH_EVENT_REJECTED,       /* the API did not accept the token in use (lucidauth_reject) */
  LUCIDAUTH_EVENT_LOST,           /* a rotation is lost: a new login is needed */
  LUCIDAUTH_EVENT_REPAIRED,       /* the token file could be read by others; its mode was mended */
  LUCIDAUTH_EVENT_EXPOSED,        /* a group may write in the token file's folder, and so replace the file; told once */
  LUCIDAUTH_EVENT_STORED          /* the program has stored a login (lucidauth_store) */
} lucidauth_event_kind;

/* "refreshed", "save_failed", ...; never NULL; static text. */
LUCIDAUTH_API const char *lucidauth_event_name(lucidauth_event_kind kind);

typedef struct lucidauth_event {
  size_t size; /* as far as this library fills it in: a field behind that is one of a later release */
  lucidauth_event_kind kind;
  const char *account; /* these strings live as long as the call */
  lucidauth_code code; /* of a failure, else LUCIDAUTH_OK */
  const char *message; /* of a failure or a warning, else "" */
} lucidauth_event;

/* Start from LUCIDAUTH_OPTIONS_INIT and set the fields that differ. lucidauth_new copies the strings. NULL means: from
 * the environment where a variable is named, else the default. */
typedef struct lucidauth_options {
  size_t size;                   /* sizeof(lucidauth_options), for programs built against an older header */
  const char *client_id;         /* LUCID_CLIENT_ID; needed once a refresh is due */
  const char *client_secret;     /* LUCID_CLIENT_SECRET; "" for a public client */
  const char *refresh_token;     /* LUCID_REFRESH_TOKEN: starts an empty storage, or takes a dead grant's place */
  lucidauth_storage storage;     /* LUCIDAUTH_FILE */
  const char *path;              /* LUCID_TOKEN_FILE, ./token_info.json; for LUCIDAUTH_CUSTOM a name for messages */
  const char *api_url;           /* LUCID_API_URL, https://api.lucid.co */
  const char *token_url;         /* <api_url>/oauth2/token */
  const char *introspection_url; /* <api_url>/oauth2/token/introspect, or none with a token_url; "": none */
  lucidauth_token_request token_request; /* LUCIDAUTH_USUAL */
  double refresh_before;   /* 300: refresh this long ahead of the expiry, at most a quarter of the token's lifetime */
  double refresh_wait;     /* 2: wait this long for another process's refresh while the present token lives */
  double timeout;          /* 30: a call's deadline, waiting and retries included */
  double lock_timeout;     /* 60: report a lock that another process holds for longer */
  double default_lifetime; /* 3600: of a token whose answer does not say */
  const char *ca_file;     /* PEM file of trusted authorities instead of the system's */
  bool background; /* one thread a process carries out every refresh, also ahead of need; false: the callers do */
  /* Called on the thread that called the library, with no lock held: on several threads at once, and then in no order
   * between them. 256 events of the background are kept until your next call; then the oldest are dropped. You may call
   * lucidauth functions in it, but not lucidauth_close; while the client is being closed they answer
   * LUCIDAUTH_NOT_READY. */
  void (*on_event)(void *data, const lucidauth_event *event);
  void *on_event_data;
  bool hold_signals;   /* true: see "signals" above */
  size_t max_accounts; /* 10000: so many are kept in memory, 1 at least; see lucidauth_get_account */
  /* Further fields of the refresh request, names and values in turn with a NULL at the end, a hundred pairs at most:
   * {"audience", "https://api.example.com", NULL}. Names are of letters, digits, "-", "." and "_", and none of the
   * fields that are filled anyway; values are not empty, and are treated as secrets. */
  const char *const *token_parameters;
} lucidauth_options;

#ifndef __cplusplus
/* clang-format off */
#define LUCIDAUTH_OPTIONS_INIT                                                                                      \
  {                                                                                                                 \
    .size = sizeof(lucidauth_options), .refresh_before = 300, .refresh_wait = 2, .timeout = 30, .lock_timeout = 60, \
    .token_request = LUCIDAUTH_USUAL, .default_lifetime = 3600, .hold_signals = true, .max_accounts = 10000         \
  }
/* clang-format on */
#else
#define LUCIDAUTH_OPTIONS_INIT lucidauth_options_init()
static inline lucidauth_options lucidauth_options_init(void)
{
  lucidauth_options options = lucidauth_options();
  options.size = sizeof(lucidauth_options);
  options.token_request = LUCIDAUTH_USUAL;
  options.refresh_before = 300;
  options.refresh_wait = 2;
  options.timeout = 30;
  options.lock_timeout = 60;
  options.default_lifetime = 3600;
  options.hold_signals = true;
  options.max_accounts = 10000;
  return options;
}
#endif

/* ---- the client ---- */

typedef struct lucidauth lucidauth;

/* Make a client; touches neither the storage nor the network. `options` NULL: everything from the environment. NULL
 * on failure: LUCIDAUTH_CONFIG names the option and the variable, or says "out of memory". The caller closes it. */
LUCIDAUTH_API lucidauth *lucidauth_new(const lucidauth_options *options, lucidauth_error *error);

/* Close the client and wipe its secrets. Waits for refreshes under way in the background, and for a POST of a
 * flight. Tokens that could not be saved are tried once more, but with LUCIDAUTH_CUSTOM they are lost: carry out
 * lucidauth_flight_keep first. Ends and frees the flights: they, the accounts and their handles are gone, tokens are
 * not. Not in on_event. No other thread may use the client any more. NULL is allowed. */
LUCIDAUTH_API void lucidauth_close(lucidauth *client);

/* For event loops: whether lucidauth_close would not have to wait for a refresh by the background's thread. From
 * now on one that only waits to try again is broken off; others are carried on to their end. Never waits. */
LUCIDAUTH_API bool lucidauth_leave(lucidauth *client);

/* An access token that works (RFC 6750), refreshed first if it must be; a token that still lives is served when a
 * refresh fails. Waits for at most `timeout`, but for an answer whose refresh was sent already up to twice as long.
 * The caller gives the token to lucidauth_free_token. NULL: `error` says why, with any code. LUCIDAUTH_CONFIG,
 * LUCIDAUTH_INVALID_CLIENT, LUCIDAUTH_INVALID_GRANT and LUCIDAUTH_LOST_ROTATION need somebody to do something; the
 * others may pass by themselves, so ask again later. */
LUCIDAUTH_API char *lucidauth_token(lucidauth *client, const char *account, lucidauth_error *error);

/* A new access token now, whatever the expiry of the present one (RFC 6749 section 6), which is not served when that
 * fails. Otherwise like lucidauth_token. */
LUCIDAUTH_API char *lucidauth_refresh(lucidauth *client, const char *account, lucidauth_error *error);

/* Wipe and free a token; NULL is allowed. */
LUCIDAUTH_API void lucidauth_free_token(char *token);

/* The API answered 401 to this very token: it is never handed out again, and the next lucidauth_token brings
 * another. The value of the header, "Bearer ...", says the same, and space around it does not count. A token that is no
 * longer in use changes nothing, and is no failure. False: `error` says why, an account that the storage has no room
 * for, or no token at all. */
LUCIDAUTH_API bool lucidauth_reject(lucidauth *client, const char *account, const char *token, lucidauth_error *error);

enum { LUCIDAUTH_REPLACE = 1 }; /* flags of lucidauth_store: also a grant that lives */

/* Store what a login gave you. `answer`, of `length` bytes, is a token answer as JSON text, or a refresh token
 * alone. It starts an empty account, and takes the place of a grant that is dead: refused, lost, expired without a
 * refresh token, or a damaged record, which is kept in the field `damaged` of the new one. A grant that lives is
 * replaced only with the flag LUCIDAUTH_REPLACE. Its record and introspection say whether it lives; nothing is spent to
 * find out. A refresh that is under way is waited for. The same answer may be stored twice. False, and nothing was
 * changed: LUCIDAUTH_CONFIG, the grant lives, or there are no tokens in the answer; LUCIDAUTH_INVALID_GRANT, its
 * refresh token is spent already; LUCIDAUTH_STORAGE, it could not be saved, so keep it; any other code of
 * lucidauth_token. Waits as lucidauth_token does. Not for LUCIDAUTH_CUSTOM: lucidauth_flight_store. */
LUCIDAUTH_API bool lucidauth_store(lucidauth *client, const char *account, const char *answer, size_t length,
                                   unsigned flags, lucidauth_error *error);

enum { LUCIDAUTH_CODES = 32, LUCIDAUTH_PAST = 32 }; /* there is room for codes that are yet to come */

/* Start from LUCIDAUTH_STATUS_INIT. */
typedef struct lucidauth_status {
  size_t size; /* sizeof(lucidauth_status), for programs built against an older header */
  /* "ready", "expired" (the next call refreshes), "failing", "empty" (there is no token); static text */
  const char *state;
  double expires_in;   /* seconds the token in use has left; 0: none */
  double last_refresh; /* epoch seconds of the last refresh by this client; 0: none */
  struct {
    lucidauth_code code;
    char message[900];
  } last_error;                       /* of the last failure that no success has followed; LUCIDAUTH_OK: none */
  double retry_in;                    /* seconds until the server is asked again after a failure */
  bool unsaved;                       /* the newest tokens are in this process's memory alone */
  double lifetime;                    /* seconds that the token in use lives in all; 0: unknown */
  uint64_t refreshes;                 /* by this client */
  uint64_t failures[LUCIDAUTH_CODES]; /* refreshes that failed, by code */
  struct {
    double at; /* epoch seconds */
    lucidauth_event_kind kind;
    lucidauth_code code;  /* of a failure */
  } past[LUCIDAUTH_PAST]; /* the last events, oldest first */
  int past_count;
  bool shared;         /* another process's refresh is seen at once; else within a second */
  uint64_t generation; /* of the storage: grows with every refresh by any process, odd while one is under way */
} lucidauth_status;

#ifndef __cplusplus
/* clang-format off */
#define LUCIDAUTH_STATUS_INIT { .size = sizeof(lucidauth_status) }
/* clang-format on */
#else
#define LUCIDAUTH_STATUS_INIT lucidauth_status_init()
static inline lucidauth_status lucidauth_status_init(void)
{
  lucidauth_status status = lucidauth_status();
  status.size = sizeof(lucidauth_status);
  return status;
}
#endif

/* How an account stands; the server is not asked, and there is no secret in it. The storage is looked at, but with
 * LUCIDAUTH_CUSTOM, which shows what this process knows, and with `background`, which never waits for the disk: its
 * thread looks about once a second, and the first call for an account that was not used yet makes it look
 * ("empty" until it has). False: `error` says why, an account that the storage has no room for perhaps. */
LUCIDAUTH_API bool lucidauth_get_status(lucidauth *client, const char *account, lucidauth_status *status,
                                        lucidauth_error *error);

/* ---- for callers in a hurry: keep the token, and ask only whether it is still the one to use ---- */

typedef struct lucidauth_account lucidauth_account;

/* The account's handle, valid until it is given to lucidauth_release_account, as often as it was had from here, or
 * until the client is closed. NULL: LUCIDAUTH_CONFIG, the storage has no room for it or cannot be used, or the name
 * cannot; LUCIDAUTH_STORAGE, out of memory; LUCIDAUTH_NOT_READY, the client is being closed.
 *
 * The client keeps `max_accounts` in memory. When there are more, those leave that were not used for the longest time.
 * The next call for one of them finds its tokens in the storage again; its status starts anew. An account never leaves
 * while it has a handle, a flight or tokens that are not saved; nor does the default account, nor, with
 * LUCIDAUTH_MEMORY, one that has tokens. If none can leave, there are more than `max_accounts`. An account of which the
 * storage has no record does not stay at all. */
LUCIDAUTH_API lucidauth_account *lucidauth_get_account(lucidauth *client, const char *account, lucidauth_error *error);

/* Give a handle back; it is not to be used any more. Closing the client does that too, so not after lucidauth_close.
 * NULL is allowed. */
LUCIDAUTH_API void lucidauth_release_account(lucidauth_account *account);

/* True while the token that was obtained together with `serial` is to be used as it is. Takes a few nanoseconds; once a
 * second one caller asks the disk whether the file was rewritten (not with `background`). */
LUCIDAUTH_API bool lucidauth_is_current(const lucidauth_account *account, uint64_t serial);

/* lucidauth_token, and the serial for lucidauth_is_current. */
LUCIDAUTH_API char *lucidauth_token_of(lucidauth_account *account, uint64_t *serial, lucidauth_error *error);

/* ---- for event loops: never wait (options.background) ---- */

/* One caller's wish for a token, or to store a login. Start from LUCIDAUTH_TICKET_INIT, or from {0}, and set `refresh`
 * if the token is to be a new one, whatever the expiry. There is nothing to be freed: a ticket that is not wanted any
 * more is forgotten. It may be moved between two calls. */
typedef struct lucidauth_ticket {
  size_t size; /* sizeof(lucidauth_ticket) */
  bool refresh;
  double within; /* to be read: seconds after which there may be an answer, even if the refresh goes on; 0: never, as
                  * this process may start no thread */
  uint64_t reserved[13]; /* the library's own */
} lucidauth_ticket;

#ifndef __cplusplus
/* clang-format off */
#define LUCIDAUTH_TICKET_INIT { .size = sizeof(lucidauth_ticket) }
/* clang-format on */
#else
#define LUCIDAUTH_TICKET_INIT lucidauth_ticket_init()
static inline lucidauth_ticket lucidauth_ticket_init(void)
{
  lucidauth_ticket ticket = lucidauth_ticket();
  ticket.size = sizeof(lucidauth_ticket);
  return ticket;
}
#endif

/* The token, at once. NULL: with LUCIDAUTH_NOT_READY a refresh is under way in the background, or waits for a thread
 * that the system has none of at the moment: ask again with the same ticket after a pause, of `within` seconds at
 * the longest. With any other code the refresh has failed, LUCIDAUTH_TIMEOUT after as long as lucidauth_token would
 * have waited. A token that still lives is handed out while it is being refreshed, but for `refresh_wait` seconds in
 * which it might die. `patient`: the caller can come back; else any token that lives is handed out, and while there
 * is none in memory the file is read, on this thread, once a second at most. `serial` as in
 * lucidauth_token_of. The ticket is used up when something else than LUCIDAUTH_NOT_READY comes back. */
LUCIDAUTH_API char *lucidauth_poll(lucidauth_account *account, lucidauth_ticket *ticket, bool patient, uint64_t *serial,
                                   lucidauth_error *error);

/* lucidauth_store for event loops: it never waits. LUCIDAUTH_NOT_READY with ticket->within other than 0: ask again with
 * the same ticket and the same answer after a short pause. True, or anything else, is the end, LUCIDAUTH_TIMEOUT after
 * as long as lucidauth_store would have waited. A caller that cannot keep its ticket comes again with the same answer
 * and a new one, and hears its outcome once. */
LUCIDAUTH_API bool lucidauth_poll_store(lucidauth_account *account, lucidauth_ticket *ticket, const char *answer,
                                        size_t length, unsigned flags, lucidauth_error *error);

/* Events of the background are queued, and given to on_event by this call, by every other that returns a token, and by
 * lucidauth_close, on the calling thread. */
LUCIDAUTH_API void lucidauth_deliver_events(lucidauth *client);

/* ---- flights: a refresh in your own hands, for storages and event loops of your own ---- */

/* A flight asks you for one step after another: carry it out, and tell its result. One account has one flight at a
 * time, used by one thread at a time; it is freed by lucidauth_flight_end, or by lucidauth_close with its client. */
typedef struct lucidauth_flight lucidauth_flight;

typedef enum lucidauth_step {
  LUCIDAUTH_STEP_LOAD, /* read the account's record */
  LUCIDAUTH_STEP_LOCK, /* try to take the account's lock, over everything up to UNLOCK */
  LUCIDAUTH_STEP_SAVE, /* make `record` durable */
  LUCIDAUTH_STEP_UNLOCK,
  LUCIDAUTH_STEP_POST, /* lucidauth_flight_post does it */
  LUCIDAUTH_STEP_WAIT, /* pause for `seconds` */
  LUCIDAUTH_STEP_DONE  /* lucidauth_flight_end has the outcome */
} lucidauth_step;

/* Start from LUCIDAUTH_ACTION_INIT, or from {0}. */
typedef struct lucidauth_action {
  size_t size; /* sizeof(lucidauth_action); the library leaves it as it is */
  lucidauth_step step;
  const char *record; /* SAVE: JSON text, a secret; valid until the next call for this flight */
  double seconds;     /* WAIT */
} lucidauth_action;

#ifndef __cplusplus
/* clang-format off */
#define LUCIDAUTH_ACTION_INIT { .size = sizeof(lucidauth_action) }
/* clang-format on */
#else
#define LUCIDAUTH_ACTION_INIT lucidauth_action_init()
static inline lucidauth_action lucidauth_action_init(void)
{
  lucidauth_action action = lucidauth_action();
  action.size = sizeof(lucidauth_action);
  return action;
}
#endif

typedef enum lucidauth_result {
  LUCIDAUTH_RESULT_OK,    /* it worked; for LOAD `text` is the record */
  LUCIDAUTH_RESULT_NONE,  /* LOAD: there is no record */
  LUCIDAUTH_RESULT_BUSY,  /* LOCK: somebody else holds it */
  LUCIDAUTH_RESULT_FAILED /* `text` says why, in a sentence that is part of the message */
} lucidauth_result;

/* Begin a flight of an account whose storage is LUCIDAUTH_CUSTOM. `refresh`: a new token whatever the expiry. NULL:
 * `error` says why. LUCIDAUTH_OK: the token in use is in *token; it is good, or still lives while another flight of
 * this account is under way. LUCIDAUTH_NOT_READY: another one is under way, and has to be waited for.
 * LUCIDAUTH_CONFIG: the storage is one of the library's. `token` may be NULL: not wanted; else the caller frees it. */
LUCIDAUTH_API lucidauth_flight *lucidauth_flight_begin(lucidauth_account *account, bool refresh, char **token,
                                                       lucidauth_error *error);

/* Begin a flight that only saves tokens that could not be saved before. Carry it out before lucidauth_close: the
 * library cannot do it for a storage of your own. It is ended as the others are, with no token; LUCIDAUTH_OK says that
 * all is saved. NULL: there is nothing to save, or another flight of this account is under way. */
LUCIDAUTH_API lucidauth_flight *lucidauth_flight_keep(lucidauth_account *account);

/* Begin a flight that stores a login, as lucidauth_store does. It is ended as the others are, with a token or
 * none; LUCIDAUTH_OK says that it is stored. NULL: `error` says why; LUCIDAUTH_NOT_READY: another one is under way. */
LUCIDAUTH_API lucidauth_flight *lucidauth_flight_store(lucidauth_account *account, const char *answer, size_t length,
                                                       unsigned flags, lucidauth_error *error);

/* Tell the result of the last action; the next one is filled in. At the first call `result` and `text` do not
 * matter. */
LUCIDAUTH_API void lucidauth_flight_next(lucidauth_flight *flight, lucidauth_result result, const char *text,
                                         lucidauth_action *action);

/* Carry out a POST with libcurl; blocks. Signals that it holds back arrive when the answer is saved, or at
 * lucidauth_flight_end. Its result goes into the flight by itself: go on with LUCIDAUTH_RESULT_OK. */
LUCIDAUTH_API void lucidauth_flight_post(lucidauth_flight *flight);

/* The same in the background: it starts, and is done when the second function says so. */
LUCIDAUTH_API void lucidauth_flight_start_post(lucidauth_flight *flight);
LUCIDAUTH_API bool lucidauth_flight_has_posted(const lucidauth_flight *flight);

/* End a flight, at LUCIDAUTH_STEP_DONE or before: the token and its serial, or NULL and the error. Before, it is left
 * as it stands: a POST that is under way is waited for, tokens that came with it or were on their way to the storage
 * are kept as not saved, and the next flight goes on from there: under the lock if there is something to save, else the
 * first thing to do is to give the lock back. */
LUCIDAUTH_API char *lucidauth_flight_end(lucidauth_flight *flight, uint64_t *serial, lucidauth_error *error);

#ifdef __cplusplus
}
#endif

#endif
