/* The inside of the flow, for its own files alone: its states, its memory, and the functions that one file has for the
 * others. Read a refresh from top to bottom: reading.c, marking.c, refreshing.c; recovering.c has its failures. */
#ifndef FLOW_STATES_H
#define FLOW_STATES_H

#include "backoff.h"
#include "flow.h"
#include "live_token.h"

/* Seconds. */
#define LOCK_PAUSE_FIRST 0.001
#define GATEWAY_TIME 5.0      /* a gateway may have given up on a server that is still at work: that is given so long */
#define BACK_PAUSE_FIRST 0.01 /* a storage of the program's own may be behind: it is looked at again */
#define BACK_PAUSE_MOST 0.5

/* Bounds of one flight: it comes to an end, even if a server or a storage says something new for ever. */
enum { RESENDS_MOST = 3, REVIEWS_MOST = 3, SPENDS_MOST = 6, TURNS_MOST = 32 };

enum { RAW_MOST = 64 * 1024, RESERVE = 64 * 1024, SPENT_KEPT = 64 };

/* Each asks the driver for the step that its name begins with; flow.c has the table of them. */
enum state {
  IDLE,
  UNLOCK_LEFT,         /* the lock that a flight which was broken off has left */
  LOAD_BEFORE_UNSAVED, /* is the unsaved record still the newest? */
  SAVE_UNSAVED,
  LOAD_UNLOCKED, /* there may be nothing to do */
  LOCK_RECORD,
  WAIT_LOCK, /* another holds it */
  LOAD_LOCKED,
  WAIT_TORN,       /* the loaded text is no record: a writer that knows no rename may be at it */
  HOLD_FOR_ANSWER, /* the resources for saving the answer */
  SAVE_MARK,
  LOAD_MARK,                /* does the storage keep it? */
  WAIT_MARK,                /* not yet */
  LOAD_SAVED,               /* does it keep the tokens of the last save? */
  WAIT_SAVED,               /* not yet */
  POST_INTROSPECTION_FIRST, /* is a refresh token that may be spent to be sent at all? */
  WAIT_INTROSPECTION_FIRST, /* before it is asked again */
  WAIT_OWNER,               /* a refresh may be under way under a lock that is gone */
  LOCK_INHERITED,           /* for tokens that a parent could not save */
  POST_REFRESH,
  WAIT_RESEND,
  LOAD_BEFORE_RESEND, /* is the refresh token still the one to send? */
  SAVE_TOKENS,
  SAVE_SALVAGED,       /* a refresh token that was found in a broken answer */
  SAVE_ANSWER,         /* one that makes no sense, with the mark */
  POST_INTROSPECTION,  /* is the refresh token spent? */
  WAIT_SETTLE,         /* before that is asked */
  LOAD_BEFORE_VERDICT, /* before the grant is called dead */
  WAIT_BEFORE_VERDICT,
  LOAD_CHANGED,   /* another writer came just before a save of ours */
  SAVE_UNMARKED,  /* the mark is taken back */
  SAVE_LOGIN,     /* the login to store */
  SAVE_RETREAT,   /* the mark is taken back, under a lock that keeps nobody out any more */
  UNLOCK_RETREAT, /* that lock, for the one that has taken its place */
  UNLOCK_LAST,
  STATES
};

struct flow {
  const struct flow_settings *settings;
  uint64_t random;

  /* between flights */
  struct live_token live;
  double busy_since; /* steady seconds: the lock has been another's since; 0: it was free */
  struct backoff backoff;
  struct backoff start_backoff; /* of the configured refresh token, while another grant is stored */
  uint64_t spent[SPENT_KEPT];   /* by this process, the last ones; fingerprints of their hashes, 0: none */
  int spends_known;
  char untold[RECORD_HASH]; /* the last of them, until a save has told the storage */
  bool telling;
  struct pending unsettled;       /* of the last request whose fate nobody has told; its hash is empty: there is none */
  bool inherited;                 /* the unsaved record is a parent's, which may save it itself */
  double marked_at, marks_last;   /* of this process's last mark: epoch seconds, and for how long it counts */
  char marked_under[80];          /* the lock that it was set under */
  double owner_since, owner_seen; /* a mark of another lock, and when it was seen first, by the steady clock */
  long owner_pid;
  bool configured_is_spent; /* a record that has come from the configured refresh token was seen, or it was sent */
  enum code trouble;        /* the last failure that no success has followed; CODE_OK: none */
  char trouble_message[FLOW_MESSAGE];
  uint64_t replaced;     /* the access token that was stored before this process's last one: its fingerprint; 0: none */
  struct record unsaved; /* the newest tokens, which could not be saved; the lock is held while it is here */
  bool locked;
  double last_refresh;

  /* this flight */
  enum state state;
  enum flow_goal goal;
  struct moment now;
  double deadline, started;
  double started_at; /* epoch seconds */
  double takes;      /* seconds that the step under way may take by itself */
  struct record record;
  char lock[80], held[160]; /* the lock's identity; the storage's words for the held resources */
  struct pending pending;   /* the mark of the refresh under way */
  struct request request;
  char *text;         /* of the last SAVE */
  struct moment sent; /* just before the POST */
  double lock_pause;
  void *reserve;   /* memory for an answer that has arrived, when there is no other */
  bool recovering; /* the mark is another flight's */
  bool marked;     /* it is this flight's */
  bool holds;      /* the resources for saving the answer */
  bool doubted;    /* a POST may have been spent, and nobody has said that it was not */
  bool unclear;    /* a POST was refused, by words that do not say whether the refresh token is dead */
  bool salvaged;   /* a refresh token was found in a broken answer */
  bool stops;      /* once that is saved */
  bool unnoted;    /* a broken answer could not be stored */
  bool allowed;    /* introspection has called the refresh token alive that was asked about first */
  bool deaf;       /* the introspection endpoint refuses to answer */
  bool starting;   /* asked about first: the configured refresh token, not the stored one */
  bool came_alive; /* the token lived when it was taken; a server may say that it never does */
  bool relocked;
  bool lags;           /* the storage shows a saved record a while later */
  bool burying;        /* the stored grant is dead; the configured refresh token is looked at */
  bool keeps_mark;     /* it names the process that began the refresh in doubt */
  bool spent_before;   /* the stored refresh token, as far as this process or the storage knows */
  char *listed;        /* hashes that the storage knew of under the lock; NULL: none */
  bool spent_for_sure; /* introspection says that it is dead */
  double back_pause, back_since;
  enum state confirms; /* the save that is looked for in the storage */
  int spends, turns;
  int resends, failures, looks, reviews;
  enum state reviewed;         /* the save that another writer came before */
  struct answer given;         /* the login to store */
  bool replaces;               /* it takes the place of a grant that lives, too */
  bool given_is_spent;         /* its refresh token is known to be */
  bool settled;                /* the refresh that was under way has had its time: the one of `pending` */
  bool waited;                 /* a refresh of others was given its time, in this flight */
  struct flow_outcome outcome; /* the last: the notes at its end are not touched without need */
};

enum finding { NO_RECORD, SAME_GRANT, ANOTHER };

/* reading.c */
struct flow_action flow_damaged(struct flow *flow);
bool flow_is_foreign(const struct flow *flow);
bool flow_held_back(struct flow *flow, bool *dead);
struct flow_action flow_judge(struct flow *flow);
struct flow_action flow_judge_empty(struct flow *flow);
bool flow_was_spent_here(const struct flow *flow, const char *hash);
bool flow_is_known_spent(const struct flow *flow, const char *refresh_token);
void flow_hear_of_listed(struct flow *flow, const struct flow_event *event);
struct flow_action flow_load_unlocked(struct flow *flow);
struct flow_action flow_load_locked(struct flow *flow);
struct flow_action flow_load_once_more(struct flow *flow);
struct flow_action on_load(struct flow *flow, const struct flow_event *event);
struct flow_action flow_ask_for_lock(struct flow *flow);
struct flow_action on_lock_record(struct flow *flow, const struct flow_event *event);
struct flow_action on_lock_inherited(struct flow *flow, const struct flow_event *event);
bool flow_same_token(const char *one, const char *other);
bool flow_is_another(const struct record *known, const struct record *found);
bool flow_was_spent(const struct flow *flow, const struct record *found);
struct flow_action flow_go_on_with(struct flow *flow, struct record *found);
enum finding flow_compare(const struct flow *flow, const struct flow_event *event, struct record *found);

/* starting.c */
bool flow_superseded(const struct flow *flow, bool dead);
struct flow_action flow_not_again(struct flow *flow);
struct flow_action on_save_unmarked(struct flow *flow, const struct flow_event *event);
struct flow_action flow_ask_first(struct flow *flow);
struct flow_action flow_start_from_configured(struct flow *flow);
struct flow_action on_post_introspection_first(struct flow *flow, const struct flow_event *event);
struct flow_action flow_give_trial_up(struct flow *flow);
struct flow_action flow_try_configured(struct flow *flow);
bool flow_is_configured(const struct flow *flow, const char *hash);

/* marking.c */
struct flow_action flow_let_it_settle(struct flow *flow);
struct flow_action flow_recover(struct flow *flow);
struct flow_action flow_begin_refresh(struct flow *flow);
struct flow_action flow_begin_refresh_anew(struct flow *flow);
struct flow_action on_hold_for_answer(struct flow *flow, const struct flow_event *event);
struct flow_action on_save_mark(struct flow *flow, const struct flow_event *event);
struct flow_action flow_lock_again(struct flow *flow);
struct flow_action flow_unlock_to_lock_again(struct flow *flow);
struct flow_action flow_load_mark(struct flow *flow);
struct flow_action on_load_mark(struct flow *flow, const struct flow_event *event);

/* refreshing.c */
struct flow_action flow_send_refresh(struct flow *flow);
void flow_settle_doubt(struct flow *flow);
void flow_know_as_unspent(struct flow *flow);
void flow_remember_spent(struct flow *flow);
struct flow_action flow_tokens_are_kept(struct flow *flow);
struct flow_action on_save_tokens(struct flow *flow, const struct flow_event *event);
struct flow_action flow_resend_or_give_up(struct flow *flow);
struct flow_action on_save_answer(struct flow *flow, const struct flow_event *event);
struct flow_action on_post_refresh(struct flow *flow, const struct flow_event *event);

/* recovering.c */
struct flow_action flow_salvaged_is_kept(struct flow *flow);
struct flow_action on_save_salvaged(struct flow *flow, const struct flow_event *event);
struct flow_action flow_settle_alone(struct flow *flow);
struct flow_action flow_introspect(struct flow *flow);
struct flow_action flow_ask_what_became(struct flow *flow);
struct flow_action on_post_introspection(struct flow *flow, const struct flow_event *event);
struct flow_action flow_look_before_resend(struct flow *flow);
struct flow_action on_load_before_resend(struct flow *flow, const struct flow_event *event);
struct flow_action flow_look_before_verdict(struct flow *flow);
struct flow_action flow_load_before_verdict(struct flow *flow);
struct flow_action flow_call_dead(struct flow *flow);
struct flow_action on_load_before_verdict(struct flow *flow, const struct flow_event *event);

/* saving.c */
struct flow_action flow_load_saved(struct flow *flow);
struct flow_action flow_confirm(struct flow *flow, enum state save);
struct flow_action on_load_before_unsaved(struct flow *flow, const struct flow_event *event);
struct flow_action on_save_unsaved(struct flow *flow, const struct flow_event *event);
struct flow_action on_load_saved(struct flow *flow, const struct flow_event *event);
struct flow_action flow_review(struct flow *flow);
struct flow_action on_load_changed(struct flow *flow, const struct flow_event *event);
struct flow_event flow_give_up_reviewing(const struct flow *flow);

bool flow_read_newer_access_token(const struct flow *flow, const struct flow_event *event, struct record *found);

/* storing.c */
struct flow_action flow_judge_login(struct flow *flow);
struct flow_action flow_settle_for_login(struct flow *flow);
struct flow_action flow_go_on_for_login(struct flow *flow, const struct introspection *found);
struct flow_action flow_store_login(struct flow *flow);
struct flow_action flow_store_over_damaged(struct flow *flow, const char *text);
struct flow_action flow_login_is_kept(struct flow *flow);
struct flow_action flow_login_is_not_kept(struct flow *flow, enum code code, const char *why);
struct flow_action on_save_login(struct flow *flow, const struct flow_event *event);

/* acting.c */
struct flow_action flow_wait_for(struct flow *flow, enum state state, double seconds);
bool flow_may_look_again(const struct flow *flow);
struct flow_action flow_look_again(struct flow *flow, enum state state);
struct flow_action flow_look_back_again(struct flow *flow, enum state state, double left);
double flow_retry_pause(struct flow *flow, double asked);
bool flow_use_reserve(struct flow *flow);
bool flow_set_reserve_aside(struct flow *flow);
bool flow_time_is_over(const struct flow *flow);
struct flow_action flow_finish_unlocked(struct flow *flow);
bool flow_can_ask(const struct flow *flow);
void flow_clear_flight(struct flow *flow);
struct flow_action flow_finish(struct flow *flow);
void flow_hold_unsaved(struct flow *flow);
struct flow_action flow_leave(struct flow *flow);
struct flow_action flow_fail_and_leave(struct flow *flow, enum code code, const char *message);
struct flow_action flow_out_of_memory(struct flow *flow);
struct flow_action flow_keep_in_memory(struct flow *flow, const char *why);
bool flow_brings_tokens(enum state saving);
struct flow_action flow_save(struct flow *flow, enum state state, const struct record *record);
struct flow_action flow_post(struct flow *flow, enum state state);
struct flow_action flow_post_introspection(struct flow *flow, const char *refresh_token, enum state state);
struct answer_context flow_context(const struct flow *flow);
struct flow_action flow_take_mark_back(struct flow *flow, enum code code, const char *message);
struct flow_action flow_send_nothing_more(struct flow *flow);
struct flow_action flow_clear_and_leave(struct flow *flow);
bool flow_tell_rejection(struct flow *flow);

/* failing.c */
bool flow_token_lives(const struct flow *flow);
bool flow_can_serve(const struct flow *flow);
bool flow_is_fresh(const struct flow *flow, const struct record *record);
void flow_take_token(struct flow *flow, const struct record *record);
void flow_add_note(struct flow *flow, enum flow_note_kind kind, enum code code, const char *message);
void flow_remember_trouble(struct flow *flow, enum code code, const char *message);
void flow_fail(struct flow *flow, enum code code, const char *message);
void flow_succeed(struct flow *flow);
void flow_report_failure(struct flow *flow, enum code code, const char *message, double server_wait);
void flow_fail_refresh(struct flow *flow, enum code code, const char *what, const char *safe, double server_wait);
void flow_fail_with_successor(struct flow *flow, enum code code, const char *what, const char *safe);
void flow_report_loss(struct flow *flow, const char *what, double trusted);

/* flow.c */
struct flow_action flow_go_to(struct flow *flow, enum state state);

#endif
