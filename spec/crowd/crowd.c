/* A crowd on one token file: processes of Lua 5.4, LuaJIT and C, the latter with threads, that use tokens over many
 * expiries while half of them are killed and replaced. The server punishes reuse. At the end its log must show: one
 * rotation an expiry, or a recovery that a killed process explains; no reuse; no 401 but to requests whose token was
 * replaced when it had been handed out already.
 *
 *   crowd --lua INTERPRETER --source FOLDER --client PROGRAM [--lua54 WRAPPER] [--luajit WRAPPER] [option value]...
 *
 *   --processes 64  --threads 8  --expiries 10  --kills 32  --lifetime 1.6 (seconds)
 *   --rate 250 (API calls a second, of all together)  --seed (the time)
 *
 * Half of those who are killed are chosen by lot, the others because they refresh just then. */
#include "../account/sandbox.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
  MEMBERS = 1024,
  KILLS = 4096,
  ROTATIONS = 4096,
  COMPLAINTS = 16384,
  MARKS = 2 * ROTATIONS,
  PATH_ROOM = 4200,
  WRONGS_SHOWN = 20
};

#define LATENCY 0.03
#define PATIENCE 120.0 /* seconds for an expiry to be answered, and for the end */
#define SLACK 0.02     /* two readings of one clock in two processes */
#define DUE 0.75       /* of a token's lifetime: then it is refreshed, and no sooner */

enum kind { IN_C, IN_LUA54, IN_LUAJIT, KINDS };
static const char *const kind_names[KINDS] = {"C", "Lua 5.4", "LuaJIT"};

struct member {
  pid_t pid;
  enum kind kind;
};

struct killing {
  pid_t pid;
  double at;
  bool refreshing, lost;
};

struct rotation {
  char spent[24], refresh[24], access[24], account[64]; /* the sandbox's marks */
  double at;
};

/* A 401: the server's side of it and the client's. */
struct complaint {
  char id[64], token[24];
  double served, asked, given;
};

static struct {
  long processes, threads, expiries, kills, seed;
  double lifetime, rate;
  const char *lua, *source, *client, *wrappers[KINDS];
} wanted = {.processes = 64, .threads = 8, .expiries = 10, .kills = 32, .lifetime = 1.6, .rate = 250};

static struct {
  struct sandbox sandbox;
  char folder[64];
  int reports[2];
  struct member members[MEMBERS];
  struct killing killings[KILLS];
  struct rotation rotations[ROTATIONS];
  double asked_at[ROTATIONS]; /* when the requests were sent whose tokens were stored, one after the other */
  struct complaint complaints[COMPLAINTS];
  bool used[MARKS]; /* access tokens that the API was shown, by the number in the sandbox's mark */
  int killed, rotated, complained, answered, losses, targets, ends, wrongs, stored;
  unsigned long random;
  long calls, entries;
  double pending_since, kill_at;
  pid_t target;
  bool stopping;
} crowd;

/* ---- small things ---- */

static double uniform(void)
{
  crowd.random = crowd.random * 6364136223846793005u + 1442695040888963407u;
  return (double)(crowd.random >> 33) / 2147483648.0;
}

__attribute__((format(printf, 1, 2))) static void wrong(const char *format, ...)
{
  va_list arguments;
  if (crowd.wrongs++ >= WRONGS_SHOWN)
    return;
  va_start(arguments, format);
  fputs("WRONG: ", stdout);
  vprintf(format, arguments);
  fputc('\n', stdout);
  va_end(arguments);
}

static void path_of(char path[PATH_ROOM], const char *name)
{
  snprintf(path, PATH_ROOM, "%s/%s", crowd.folder, name);
}

static void put(const char *name, const char *text)
{
  char path[PATH_ROOM], aside[PATH_ROOM];
  path_of(path, name);
  path_of(aside, ".aside");
  FILE *file = fopen(aside, "w");
  if (!file || fprintf(file, "%s\n", text) < 0 || fclose(file) != 0 || rename(aside, path) != 0)
    sandbox_fail("%s cannot be written", path);
}

static const char *text_in(const cJSON *object, const char *name)
{
  const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(object, name));
  return text ? text : "";
}

static double number_in(const cJSON *object, const char *name)
{
  const cJSON *number = cJSON_GetObjectItem(object, name);
  return cJSON_IsNumber(number) ? number->valuedouble : 0;
}

/* ---- the members ---- */

static double pause_between_calls(void)
{
  double callers = 0;
  for (long i = 0; i < wanted.processes; i++)
    callers += i % KINDS == IN_C ? (double)wanted.threads : 1;
  return callers / wanted.rate;
}

_Noreturn static void become(enum kind kind)
{
  char threads[16], pause[32], report[16], own[16], script[PATH_ROOM];
  snprintf(threads, sizeof threads, "%ld", wanted.threads);
  snprintf(pause, sizeof pause, "%.6f", pause_between_calls());
  snprintf(report, sizeof report, "%d", crowd.reports[1]);
  snprintf(own, sizeof own, "%ld", (long)getpid());
  snprintf(script, sizeof script, "%s/spec/crowd/client.lua", wanted.source);
  close(crowd.sandbox.input);
  if (kind == IN_C)
    execl(wanted.client, wanted.client, threads, pause, crowd.folder, report, (char *)NULL);
  else
    execl(wanted.wrappers[kind], wanted.wrappers[kind], script, pause, crowd.folder, report, own, (char *)NULL);
  _exit(127);
}

static void start(struct member *member)
{
  if (member->kind != IN_C && !wanted.wrappers[member->kind])
    member->kind = IN_C;
  member->pid = fork();
  if (member->pid == 0)
    become(member->kind);
  if (member->pid < 0)
    sandbox_fail("no process for a member");
}

static struct member *member_of(pid_t pid)
{
  for (long i = 0; i < wanted.processes; i++)
    if (crowd.members[i].pid == pid)
      return &crowd.members[i];
  return NULL;
}

static void kill_and_replace(struct member *member, bool refreshing)
{
  if (crowd.killed == KILLS)
    return;
  crowd.killings[crowd.killed++] =
      (struct killing){.pid = member->pid, .at = sandbox_clock(), .refreshing = refreshing};
  kill(member->pid, SIGKILL);
  waitpid(member->pid, NULL, 0);
  start(member);
}

static struct killing *killing_of(pid_t pid)
{
  for (int i = 0; i < crowd.killed; i++)
    if (crowd.killings[i].pid == pid)
      return &crowd.killings[i];
  return NULL;
}

/* ---- what they report ---- */

static void log_in_again(void)
{
  char account[64];
  snprintf(account, sizeof account, "{\"account\":\"login-%d\"}", crowd.losses);
  cJSON *grant = sandbox_control(&crowd.sandbox, "POST", "grants", account);
  put("LOGIN", text_in(grant, "refresh_token"));
  cJSON_Delete(grant);
}

static void hear_of_loss(const char *line, long owner)
{
  struct killing *killing = killing_of((pid_t)owner);
  if (!killing) {
    wrong("a rotation is lost, but nobody killed its process: %s", line);
  } else if (!killing->lost) {
    killing->lost = true;
    crowd.losses++;
    log_in_again();
  }
}

static struct complaint *complaint_of(const char *id)
{
  for (int i = 0; i < crowd.complained; i++)
    if (strcmp(crowd.complaints[i].id, id) == 0)
      return &crowd.complaints[i];
  if (crowd.complained == COMPLAINTS)
    sandbox_fail("there are too many 401s to keep");
  struct complaint *complaint = &crowd.complaints[crowd.complained++];
  snprintf(complaint->id, sizeof complaint->id, "%s", id);
  return complaint;
}

static void hear(const char *line)
{
  char id[64];
  double asked, given;
  long number;
  if (sscanf(line, "%63s 401 %lf %lf", id, &asked, &given) == 3) {
    struct complaint *complaint = complaint_of(id);
    complaint->asked = asked;
    complaint->given = given;
  } else if (sscanf(line, "%63s lost %ld", id, &number) == 2) {
    hear_of_loss(line, number);
  } else if (sscanf(line, "%63s end %ld", id, &number) == 2) {
    crowd.ends++;
    crowd.calls += number;
  } else {
    wrong("a caller says: %s", line);
  }
}

/* Lines are written at one stroke, so none is ever broken. */
static void listen_for(int milliseconds)
{
  static char text[65536];
  struct pollfd ready = {.fd = crowd.reports[0], .events = POLLIN};
  ssize_t length = poll(&ready, 1, milliseconds) > 0 ? read(ready.fd, text, sizeof text - 1) : 0;
  text[length > 0 ? length : 0] = '\0';
  for (char *rest = NULL, *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
    hear(line);
}

/* ---- what the server saw ---- */

static void note_rotation(const cJSON *entry)
{
  if (crowd.rotated == ROTATIONS)
    sandbox_fail("there are too many rotations to keep");
  struct rotation *rotation = &crowd.rotations[crowd.rotated++];
  const cJSON *issued = cJSON_GetObjectItem(entry, "issued");
  snprintf(rotation->spent, sizeof rotation->spent, "%s", text_in(entry, "token"));
  snprintf(rotation->refresh, sizeof rotation->refresh, "%s", text_in(issued, "refresh"));
  snprintf(rotation->access, sizeof rotation->access, "%s", text_in(issued, "access"));
  snprintf(rotation->account, sizeof rotation->account, "%s", text_in(entry, "account"));
  rotation->at = number_in(entry, "time");
}

/* The number in the mark of an access token. */
static unsigned long number_of(const char *mark)
{
  unsigned long number = mark[0] == 'A' ? strtoul(mark + 1, NULL, 10) : 0;
  if (number >= MARKS)
    sandbox_fail("there are too many tokens to keep");
  return number;
}

static void note(const cJSON *entry)
{
  const char *outcome = text_in(entry, "outcome"), *query = text_in(entry, "query");
  if (strcmp(text_in(entry, "endpoint"), "api") == 0)
    crowd.used[number_of(text_in(entry, "token"))] = true;
  if (strcmp(outcome, "rotated") == 0) {
    note_rotation(entry);
  } else if (strcmp(outcome, "unauthorized") == 0 && strncmp(query, "id=", 3) == 0) {
    struct complaint *complaint = complaint_of(query + 3);
    snprintf(complaint->token, sizeof complaint->token, "%s", text_in(entry, "token"));
    complaint->served = number_in(entry, "time");
  } else if (strcmp(text_in(entry, "endpoint"), "token") == 0) {
    wrong("the server refused a refresh with %s of %s: %s", text_in(entry, "token"), text_in(entry, "account"),
          outcome);
  }
}

static void read_log(void)
{
  cJSON *log = sandbox_control(&crowd.sandbox, "GET", "log?last=4000", NULL);
  const cJSON *entry, *entries = cJSON_GetObjectItem(log, "entries");
  cJSON_ArrayForEach(entry, entries)
  {
    long number = (long)number_in(entry, "number");
    if (number <= crowd.entries)
      continue;
    if (number != crowd.entries + 1)
      sandbox_fail("the log has lost entries: lower --rate");
    crowd.entries = number;
    note(entry);
  }
  cJSON_Delete(log);
}

/* ---- killing ---- */

static void note_stored(const cJSON *record)
{
  double at = number_in(record, "obtained_at");
  if (at > 0 && crowd.stored < ROTATIONS && (crowd.stored == 0 || at > crowd.asked_at[crowd.stored - 1]))
    crowd.asked_at[crowd.stored++] = at;
}

/* Who refreshes just now stands in the record, and when the tokens in it were asked for. */
static void look_at_record(void)
{
  char path[PATH_ROOM], text[16384];
  path_of(path, "token.json");
  FILE *file = fopen(path, "r");
  size_t length = file ? fread(text, 1, sizeof text - 1, file) : 0;
  if (file)
    fclose(file);
  text[length] = '\0';
  cJSON *record = cJSON_Parse(text);
  note_stored(record);
  const cJSON *pending = cJSON_GetObjectItem(record, "pending");
  double since = number_in(pending, "since");
  if (pending && since > crowd.pending_since) {
    crowd.pending_since = since;
    if (uniform() < 0.6 && crowd.targets < (wanted.kills + 1) / 2) {
      crowd.target = (pid_t)number_in(pending, "pid");
      crowd.kill_at = sandbox_clock() + uniform() * (LATENCY + 0.02);
      crowd.targets++;
    }
  }
  cJSON_Delete(record);
}

static void kill_target(void)
{
  struct member *member = crowd.target ? member_of(crowd.target) : NULL;
  if (crowd.target && sandbox_clock() < crowd.kill_at)
    return;
  if (member)
    kill_and_replace(member, true);
  crowd.target = 0;
}

static void kill_somebody(double begun)
{
  double share = (sandbox_clock() - begun) / ((double)wanted.expiries * wanted.lifetime * 0.75);
  if (crowd.killed - crowd.targets < (int)((double)(wanted.kills / 2) * share) && crowd.killed < wanted.kills)
    kill_and_replace(&crowd.members[(long)(uniform() * (double)wanted.processes)], false);
}

static void check_members(void)
{
  int status;
  pid_t pid;
  while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
    struct member *member = member_of(pid);
    if (!crowd.stopping || status != 0)
      wrong("process %ld (%s) ended by itself with status %#x", (long)pid, member ? kind_names[member->kind] : "?",
            (unsigned)status);
    if (member)
      member->pid = 0;
  }
}

/* ---- the run ---- */

static void run(void)
{
  double begun = sandbox_clock(), looked = begun, progress = begun;
  int rotated = 0;
  for (long i = 0; i < wanted.processes; i++) {
    crowd.members[i].kind = (enum kind)(i % KINDS);
    start(&crowd.members[i]);
  }
  while (crowd.rotated - crowd.losses <= wanted.expiries || crowd.killed < wanted.kills) {
    listen_for(2);
    look_at_record();
    kill_target();
    kill_somebody(begun);
    check_members();
    if (sandbox_clock() - looked > 0.3) {
      read_log();
      looked = sandbox_clock();
    }
    progress = crowd.rotated > rotated ? sandbox_clock() : progress;
    rotated = crowd.rotated;
    if (sandbox_clock() - progress > PATIENCE || crowd.wrongs > WRONGS_SHOWN) {
      wrong("the crowd stands still after %d rotations and %d killings", crowd.rotated, crowd.killed);
      break;
    }
  }
}

static bool all_ended(void)
{
  for (long i = 0; i < wanted.processes; i++)
    if (crowd.members[i].pid)
      return false;
  return true;
}

static void stop(void)
{
  double until = sandbox_clock() + PATIENCE;
  crowd.stopping = true;
  put("STOP", "");
  while (!all_ended() && sandbox_clock() < until) {
    listen_for(5);
    check_members();
  }
  for (long i = 0; i < wanted.processes; i++)
    if (crowd.members[i].pid) {
      wrong("process %ld does not end", (long)crowd.members[i].pid);
      kill(crowd.members[i].pid, SIGKILL);
    }
  listen_for(0);
  read_log();
}

/* ---- the verdict ---- */

static const struct rotation *rotation_that_issued(const char *access)
{
  for (int i = 0; i < crowd.rotated; i++)
    if (strcmp(crowd.rotations[i].access, access) == 0)
      return &crowd.rotations[i];
  return NULL;
}

static const struct rotation *rotation_that_spent(const char *refresh)
{
  for (int i = 0; i < crowd.rotated; i++)
    if (strcmp(crowd.rotations[i].spent, refresh) == 0)
      return &crowd.rotations[i];
  return NULL;
}

static void judge_complaint(const struct complaint *complaint)
{
  const struct rotation *birth = rotation_that_issued(complaint->token);
  if (!birth || complaint->asked == 0) {
    /* its caller was killed before it could tell, and so nobody used what it was told */
    pid_t pid = (pid_t)atol(complaint->id);
    if (!birth || !killing_of(pid))
      wrong("a 401 that nobody knows of: %s", complaint->id);
    return;
  }
  const struct rotation *end = rotation_that_spent(birth->refresh);
  double died = end && end->at < birth->at + wanted.lifetime ? end->at : birth->at + wanted.lifetime;
  crowd.answered++;
  if (died + SLACK < complaint->asked)
    wrong("token %s had been dead for %.3f s when %s asked for one and got it %.3f s later (%s)", complaint->token,
          complaint->asked - died, complaint->id, complaint->given - complaint->asked,
          end ? "another was issued" : "expired");
}

/* The request that a rotation answered: one flight at a time, it is the last one that was sent before. 0: its tokens
 * were not stored, or not for long enough to be seen. */
static double request_of(int rotation)
{
  double asked = 0, before = rotation > 0 ? crowd.rotations[rotation - 1].at : 0;
  for (int i = 0; i < crowd.stored; i++)
    if (crowd.asked_at[i] > before && crowd.asked_at[i] <= crowd.rotations[rotation].at)
      asked = crowd.asked_at[i];
  return asked;
}

/* A client counts the lifetime from before it asked: on a busy machine that was long before the server issued the
 * token. */
static void judge_rotations(void)
{
  int judged = 0, replaced = 0;
  for (int i = 0; i < crowd.rotated; i++) {
    const struct rotation *next = rotation_that_spent(crowd.rotations[i].refresh);
    double asked = next ? request_of(i) : 0;
    replaced += next != NULL;
    judged += asked > 0;
    if (asked > 0 && next->at + SLACK < asked + wanted.lifetime * DUE)
      wrong("token %s was replaced %.3f s after it was asked for, of its %.3f", crowd.rotations[i].access,
            next->at - asked, wanted.lifetime);
  }
  if (judged < replaced / 2)
    wrong("only of %d tokens in %d it was seen when they were asked for", judged, replaced);
}

/* For each one the server must have made a rotation that nobody ever came to know. */
static void judge_losses(void)
{
  int unknown = 0;
  for (int i = 0; i < crowd.rotated; i++)
    unknown += !rotation_that_spent(crowd.rotations[i].refresh) && !crowd.used[number_of(crowd.rotations[i].access)];
  if (unknown < crowd.losses)
    wrong("%d rotations are called lost, but only %d have become known to nobody", crowd.losses, unknown);
}

static void judge(void)
{
  for (int i = 0; i < crowd.complained; i++)
    judge_complaint(&crowd.complaints[i]);
  judge_rotations();
  judge_losses();
  if (sandbox_count(&crowd.sandbox, "reuses") > 0)
    wrong("a refresh token was spent twice");
  if (crowd.rotated - crowd.losses < wanted.expiries)
    wrong("%d rotations and %d losses are not %ld expiries", crowd.rotated, crowd.losses, wanted.expiries);
}

static void tell(double seconds)
{
  int members[KINDS] = {0}, refreshing = 0;
  for (long i = 0; i < wanted.processes; i++)
    members[crowd.members[i].kind]++;
  for (int i = 0; i < crowd.killed; i++)
    refreshing += crowd.killings[i].refreshing;
  printf("crowd, seed %ld: %ld processes (%d C with %ld threads each, %d Lua 5.4, %d LuaJIT), %.1f s\n", wanted.seed,
         wanted.processes, members[IN_C], wanted.threads, members[IN_LUA54], members[IN_LUAJIT], seconds);
  printf("  rotations        %5d\n  killed           %5d  (%d in a refresh)\n  lost, explained  %5d\n", crowd.rotated,
         crowd.killed, refreshing, crowd.losses);
  printf("  introspections   %5ld\n  calls            %5ld\n  401s, explained  %5d\n  wrong            %5d\n",
         sandbox_count(&crowd.sandbox, "introspections"), crowd.calls, crowd.answered, crowd.wrongs);
}

/* ---- the command line ---- */

static bool take_number(const char *name, const char *value)
{
  const struct {
    const char *name;
    long *whole;
    double *real;
  } numbers[] = {{"--processes", &wanted.processes, NULL},
                 {"--threads", &wanted.threads, NULL},
                 {"--expiries", &wanted.expiries, NULL},
                 {"--kills", &wanted.kills, NULL},
                 {"--seed", &wanted.seed, NULL},
                 {"--lifetime", NULL, &wanted.lifetime},
                 {"--rate", NULL, &wanted.rate}};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
    if (strcmp(name, numbers[i].name) == 0) {
      if (numbers[i].whole)
        *numbers[i].whole = strtol(value, NULL, 10);
      else
        *numbers[i].real = strtod(value, NULL);
      return true;
    }
  return false;
}

static bool take_path(const char *name, const char *value)
{
  const struct {
    const char *name, **path;
  } paths[] = {{"--lua", &wanted.lua},
               {"--source", &wanted.source},
               {"--client", &wanted.client},
               {"--lua54", &wanted.wrappers[IN_LUA54]},
               {"--luajit", &wanted.wrappers[IN_LUAJIT]}};
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
    if (strcmp(name, paths[i].name) == 0) {
      *paths[i].path = value;
      return true;
    }
  return false;
}

static void read_arguments(int count, char **arguments)
{
  wanted.seed = (long)time(NULL);
  for (int i = 1; i < count; i += 2)
    if (i + 1 == count || !(take_number(arguments[i], arguments[i + 1]) || take_path(arguments[i], arguments[i + 1])))
      sandbox_fail("crowd: what is %s?", arguments[i]);
  if (!wanted.lua || !wanted.source || !wanted.client)
    sandbox_fail("crowd: --lua, --source and --client are needed");
  if (wanted.processes < 1 || wanted.processes > MEMBERS || wanted.threads < 1 || wanted.threads > 64 ||
      wanted.kills > KILLS || !(wanted.rate > 0) || !(wanted.lifetime > 0))
    sandbox_fail("crowd: a number is out of range");
  crowd.random = (unsigned long)wanted.seed;
}

static void set_up(void)
{
  char lifetime[64], latency[64];
  snprintf(lifetime, sizeof lifetime, "--lifetime=%g", wanted.lifetime);
  snprintf(latency, sizeof latency, "--latency=%g", LATENCY);
  const char *flags[] = {lifetime, latency, NULL};
  const char *base = getenv("TMPDIR");
  snprintf(crowd.folder, sizeof crowd.folder, "%.40s/crowd.XXXXXX", base && *base ? base : "/tmp");
  if (!mkdtemp(crowd.folder) || pipe(crowd.reports) != 0)
    sandbox_fail("no folder for the crowd");
  fcntl(crowd.reports[0], F_SETFD, FD_CLOEXEC);
  crowd.sandbox = sandbox_start(wanted.lua, wanted.source, flags);
  setenv("LUCID_API_URL", crowd.sandbox.url, 1);
  setenv("LUCID_CLIENT_ID", "sandbox-client", 1);
  setenv("LUCID_CLIENT_SECRET", "sandbox-secret", 1);
  unsetenv("LUCID_REFRESH_TOKEN");
  put("LOGIN", crowd.sandbox.refresh_token);
}

static void clean_up(void)
{
  DIR *listing = opendir(crowd.folder);
  for (const struct dirent *entry = listing ? readdir(listing) : NULL; entry; entry = readdir(listing))
    unlinkat(dirfd(listing), entry->d_name, 0);
  if (listing)
    closedir(listing);
  rmdir(crowd.folder);
}

int main(int count, char **arguments)
{
  read_arguments(count, arguments);
  set_up();
  double begun = sandbox_clock();
  run();
  stop();
  judge();
  tell(sandbox_clock() - begun);
  sandbox_stop(&crowd.sandbox);
  clean_up();
  return crowd.wrongs > 0;
}
