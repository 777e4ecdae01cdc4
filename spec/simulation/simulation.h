/* One episode: some processes that run the real flow against a virtual server, network, storage and clock, from
 * one seed. Times are true seconds since the episode began, unless a clock is named. */
#ifndef SIMULATION_H
#define SIMULATION_H

#include "conditions.h"
#include "diagram.h"
#include "flow.h"
#include "issued.h"
#include "random.h"

#include <stdbool.h>
#include <stdint.h>

/* The wall clock when an episode begins. */
#define SIMULATION_EPOCH 1700000000.0

enum {
  ACCOUNTS = 3,
  PROCESSES = 8,
  WORKERS = PROCESSES * ACCOUNTS,
  MACHINES = 2,
  WIRES = 4 * WORKERS,
  GRANTS = 24,    /* logins of one account in an episode */
  SERIALS = 256,  /* refreshes of one grant in an episode */
  REJECTIONS = 8, /* that a worker remembers */
  REJECTED = FLOW_FINGERPRINTS,
  LISTED = 64,     /* spent refresh tokens that a storage remembers by itself */
  REMEMBERED = 64, /* that a process remembers */
  VERSIONS = 8,    /* that a lagging storage has not shown yet */
  VIOLATION = 600
};

/* What is known, outside of the server, of whether a refresh token may be sent. */
enum sending {
  SENDING_ALLOWED, /* never sent, or the server has said since that it is not spent */
  SENDING_OPEN     /* sent, and nobody has been told what came of it, or it is spent */
};

/* A login: all tokens that stem from it. */
struct grant {
  bool revoked;
  int refresh, access; /* the serials that are alive */
  double dies;         /* of the access token */
  unsigned char sending[SERIALS];
};

/* What a storage of the program's own does instead of what it was asked for. */
enum lie { LIE_NONE, LIE_LOADS_NOTHING, LIE_KEEPS_NOTHING, LIE_DROPS_A_FIELD, LIES };

struct storage {
  char *text;                 /* NULL: there is no record */
  struct pair content, aside; /* of it; of the grant that is put aside in it */
  double changed;             /* when */
  double marked;              /* when a mark was saved last */
  unsigned version;
  char *leftover;    /* a complete temporary file, whose writer died before the rename */
  int owner;         /* of the lock that others would ask for: a worker; -1: nobody */
  unsigned lock;     /* which one it is: somebody may remove it, and another takes its place */
  double full_until; /* until then nothing can be written */

  bool of_program; /* the program's own: no versions, no lock that can be told from others, no lists */
  enum lie lie;
  double honest_at; /* the lie is over */
  double lag;       /* seconds after which a save shows */
  struct version {
    char *text;
    double shows;
  } hidden[VERSIONS]; /* the oldest first */
  int hidden_count;
  char *shown; /* to those who load, while something is hidden */

  bool vanished;
  char *vanished_text; /* comes back, if nothing else is there by then */
  double back_at;

  char spent[LISTED][RECORD_HASH];
  struct token spent_tokens[LISTED];
  int spends;
  uint64_t rejected[REJECTED];
  struct token rejected_tokens[REJECTED];
  int rejections;
};

/* A program that refreshes without any lock, like Lucid's example script. */
struct script {
  enum { SCRIPT_SLEEPS, SCRIPT_ASKS, SCRIPT_WRITES } doing;
  double due;
  struct pair pair; /* to be posted, then to be written */
  double dies;
};

struct account {
  struct grant grants[GRANTS];
  int grant; /* the last login */
  int of;    /* the account whose logins these are: its own, or another folder has the same refresh token configured */
  struct token configured;
  char *copy;     /* that somebody has made of the record */
  bool disturbed; /* the record was gone, or an old one was put in its place */
  struct storage storage;
  struct pair newest, aside; /* that the storage has held last */
  struct script script;
  int flight; /* the worker between mark and unlock; -1: none */
  double flight_since;
  bool called_dead; /* a caller was told so, and the user is about to log in */
  double login_due;
};

struct machine {
  double ahead; /* the wall clock is this far before the true time */
  double slept; /* the steady clock has stood still for so long */
  double wakes; /* suspended until then */
};

enum phase {
  PHASE_THINKS, /* the caller is busy with other things */
  PHASE_BEGINS, /* an action is under way, its effect is to come */
  PHASE_WAITS,  /* for an answer, or for time to pass */
  PHASE_RETURNS /* the effect is there, the flow has not been told yet */
};

/* One process's flow of one account. */
struct worker {
  int process, account, machine;
  unsigned life; /* changes when the process is another */
  struct flow_settings settings;
  char configured[TOKEN_TEXT];
  struct flow *flow;
  bool flying;
  bool restart_wanted;
  double restart_due;

  enum phase phase;
  double due;
  struct flow_action action;
  struct flow_event event;
  char *loaded;
  char listed[LISTED * RECORD_HASH + 1];
  uint64_t rejected[REJECTED];
  char lock_text[24];
  unsigned lock;        /* the one that it holds; 0: none */
  bool holds;           /* what the save of an answer takes */
  double starved_until; /* no descriptor is to be had */
  int wire;             /* of the POST under way; -1: none */
  bool connected;       /* to the server, by a connection that may be used again */
  bool stale_answer;    /* on that connection */
  char last_answer[600];

  /* the call */
  enum flow_goal goal;
  double started; /* by the steady clock */
  double decided; /* to send; likewise */
  double excused; /* time that the flow cannot know of or do anything about */
  int steps;
  int tries; /* to take the lock */

  /* the login that it stores, or has stored last */
  struct pair given;
  bool replaces;

  /* what its caller has in hand */
  char cached[TOKEN_TEXT];
  struct moment refresh_at;
  unsigned seen; /* version of the storage */
  int calm_successes;

  /* what the invariants remember of it */
  struct {
    struct pair held;          /* it was issued and has arrived here */
    struct token posted;       /* the last refresh token of this flight */
    bool posted_any;           /* in this flight */
    struct pair loaded, aside; /* by the last LOAD of this flight */
    bool loaded_any;
    bool answered_any, answered_usable;
    struct token answered; /* the access token of the last answer of this flight */
    struct token own;      /* the last access token that was issued to this worker itself */
    double own_dies;       /* by the steady clock, at the latest */
    double effect;         /* when its last action took effect */
    struct token rejected[REJECTIONS];
    int rejections;
    int notes;
    double retry_at; /* by the steady clock */
    struct token retry_of;
    int failures;
    struct token allowed;   /* the server has said in this flight that it is not spent */
    struct token succeeded; /* an answer has brought its successor whole to this worker */
    struct token brought;   /* by such an answer in this flight */
    struct token salvaged;  /* the last of them that was sent */
    struct token spent_last;
    struct token spent[REMEMBERED]; /* by this process */
    int spends;
    struct token told[REJECTED]; /* the storage has said with the last LOAD that the API rejects them */
    bool unsaved_answer;         /* tokens have just come, and no save was tried yet */
    bool unsaved_brought;        /* the same of one that was found in an answer that makes no sense */
    bool inherited;              /* what is held is a parent's */
    bool tried;                  /* another login, in this flight */
    bool marked_in_vain;         /* the lock was gone when the last mark was saved */
    bool denied;                 /* the client was, in this flight */
    int requests, salvages;      /* of this flight */
  } known;
};

enum wire_state { WIRE_FREE, WIRE_SENT, WIRE_ARRIVED };

/* A request on its way and the answer to it. */
struct wire {
  enum wire_state state;
  int worker;
  bool heard; /* somebody still waits for the answer */
  bool over;  /* the client has what it gets of it */
  enum request_endpoint endpoint;
  struct token token;
  enum fate fate;
  bool reused; /* on a connection that was used before */
  double arrives, returns;
  struct reply reply;
  char body[600];
  char retry_after[48];
  bool intact;        /* the answer is as the server sent it */
  bool active;        /* introspection: what it says */
  struct pair issued; /* by the server, in this answer */
  bool usable;        /* its access token */
  bool denied;        /* the client was */
  bool unspent;       /* the request was refused, and nothing done */
  struct moment send_by;
};

struct tally {
  uint64_t episodes, refreshes, steps, flights, crashes, sends, introspections, saves, failed_saves, recovered, lost,
      refused, adopted, logins, stored, unsaved;
  uint64_t fates[FATES];
  struct diagram diagram;
};

struct simulation {
  uint64_t seed;
  struct random random;
  struct conditions conditions;
  double now;
  bool calm; /* the faults are over; everything has to come to rest */
  double calm_since;
  double fate_due;      /* of the next thing that happens to everybody */
  bool apart;           /* the processes are on two machines */
  double down_until;    /* the way to the server */
  double clocks_jumped; /* when one did last */
  double deaf_until;    /* introspection refuses to answer */
  double odd_until;     /* the server answers in the same odd way */
  enum fate odd_fate;
  struct machine machines[MACHINES];
  struct account accounts[ACCOUNTS];
  struct worker workers[WORKERS];
  int worker_count;
  struct wire wires[WIRES];
  int refreshes;
  bool story; /* print everything */
  bool violated;
  char violation[VIOLATION];
  struct tally *tally;
};

/* Whether the invariants about double spending and loss hold for this account: not beside a script or another folder,
 * which know no lock, nor with a provider that cannot be asked, nor once a record was gone. */
bool simulation_strict(const struct simulation *sim, int account);

/* Whether introspection always says how it is, if it is heard. */
bool simulation_can_ask(const struct simulation *sim);

struct moment simulation_moment(const struct simulation *sim, const struct worker *worker);

/* Print a line of the story: who (a worker, or NULL), in which account (-1: all of them), what. */
void simulation_tell(const struct simulation *sim, const struct worker *worker, int account, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* An invariant does not hold; the first one is kept. */
void simulation_violate(struct simulation *sim, const struct worker *worker, int account, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Run an episode to its end. False: an invariant was violated, and `violation` says which. */
bool simulation_run(struct simulation *sim, uint64_t seed, int processes, struct tally *tally, bool story);

#endif
