/* One episode: some processes that run the real flow against a virtual server, network, storage and clock, from
 * one seed. Times are true seconds since the episode began, unless a clock is named. */
#ifndef SIMULATION_H
#define SIMULATION_H

#include "flow.h"
#include "issued.h"
#include "random.h"
#include "weather.h"

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

struct storage {
  char *text;          /* NULL: there is no record */
  struct pair content; /* of it */
  double changed;      /* when */
  unsigned version;
  char *leftover;    /* a complete temporary file, whose writer died before the rename */
  int owner;         /* of the lock: a worker; -1: nobody */
  double full_until; /* until then nothing can be written */
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
  struct token configured;
  char configured_text[TOKEN_TEXT];
  struct storage storage;
  struct pair newest; /* that the storage has held */
  struct script script;
  int flight;       /* the worker between mark and unlock; -1: none */
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
  int wire;          /* of the POST under way; -1: none */
  bool connected;    /* to the server, by a connection that may be used again */
  bool stale_answer; /* on that connection */
  char last_answer[600];

  /* the call */
  enum flow_goal goal;
  double started; /* by the steady clock */
  double excused; /* time that the flow cannot know of or do anything about */
  int steps;
  int tries; /* to take the lock */

  /* what its caller has in hand */
  char cached[TOKEN_TEXT];
  struct moment refresh_at;
  unsigned seen; /* version of the storage */
  int calm_successes;

  /* what the invariants remember of it */
  struct {
    struct pair held;    /* it was issued and has arrived here */
    struct token posted; /* the last refresh token of this flight */
    bool posted_any;     /* in this flight */
    struct pair loaded;  /* by the last LOAD of this flight */
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
};

struct tally {
  uint64_t episodes, refreshes, steps, flights, crashes, sends, introspections, saves, failed_saves, recovered, lost,
      refused, adopted, logins, unsaved;
  uint64_t fates[FATES];
};

struct simulation {
  uint64_t seed;
  struct random random;
  struct weather weather;
  double now;
  bool calm; /* the faults are over; everything has to come to rest */
  double calm_since;
  double fate_due;   /* of the next thing that happens to everybody */
  double down_until; /* the way to the server */
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

/* Whether the invariants about double spending and loss hold in this episode: not beside a script that knows no
 * lock, nor with a provider that cannot be asked. */
bool simulation_strict(const struct simulation *sim);

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
