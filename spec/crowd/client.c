/* One process of the crowd: threads that get a token and use it, over and over, until the file STOP is there.
 *
 *   client threads seconds-between-calls folder report-fd
 *
 * The folder holds the token file, STOP, and LOGIN with the refresh token of the latest login. What is worth telling
 * goes to the descriptor, a line each:
 *
 *   <id> 401 <token asked for at> <token given at>     the API did not accept a token; <id> stands in its query
 *   <id> lost <pid> <message>                          lost_rotation: that process's refresh was lost
 *   <id> failed <code> <message>                       no token, for another reason
 *   <id> odd <status>                                  the API answered neither 200 nor 401
 *   <id> end <calls>                                   each thread's last words */
#include "../../src/lucidauth.h"
#include "../account/sandbox.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 64, LOGIN = 128 };

static struct {
  lucidauth *client;
  pthread_rwlock_t lock; /* over client and login: shared while the client is in use */
  char login[LOGIN];
  char folder[4096];
  double pause;
  int port, report;
} crowd = {.lock = PTHREAD_RWLOCK_INITIALIZER};

struct caller {
  pthread_t thread;
  int number;
  unsigned seed, calls;
};

static void report(const struct caller *caller, const char *text)
{
  char line[1400];
  int length = snprintf(line, sizeof line, "%ld.%d.%u %s\n", (long)getpid(), caller->number, caller->calls, text);
  if (write(crowd.report, line, (size_t)length) != length)
    _exit(3);
}

static bool is_there(const char *name)
{
  char path[sizeof crowd.folder + 16];
  snprintf(path, sizeof path, "%s/%s", crowd.folder, name);
  return access(path, F_OK) == 0;
}

static void read_login(char login[LOGIN])
{
  char path[sizeof crowd.folder + 16];
  snprintf(path, sizeof path, "%s/LOGIN", crowd.folder);
  FILE *file = fopen(path, "r");
  if (!file || fscanf(file, "%127s", login) != 1)
    _exit(4);
  fclose(file);
}

static void rest(double seconds)
{
  struct timespec time = {.tv_sec = (time_t)seconds};
  time.tv_nsec = (long)((seconds - (double)time.tv_sec) * 1e9);
  nanosleep(&time, NULL);
}

static lucidauth *open_client(const char *login)
{
  char path[sizeof crowd.folder + 16];
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_options options = LUCIDAUTH_OPTIONS_INIT;
  snprintf(path, sizeof path, "%s/token.json", crowd.folder);
  options.path = path;
  options.refresh_token = login;
  lucidauth *client = lucidauth_new(&options, &error);
  if (!client)
    sandbox_fail("%s", error.message);
  return client;
}

/* Wait for the login that follows the one in use, and start anew with it; another thread may have done so. */
static void log_in(const char *used)
{
  char login[LOGIN];
  for (read_login(login); strcmp(login, used) == 0 && !is_there("STOP"); read_login(login))
    rest(0.005);
  pthread_rwlock_wrlock(&crowd.lock);
  if (strcmp(crowd.login, login) != 0) {
    lucidauth_close(crowd.client);
    snprintf(crowd.login, sizeof crowd.login, "%s", login);
    crowd.client = open_client(login);
  }
  pthread_rwlock_unlock(&crowd.lock);
}

static void use(struct caller *caller, const char *token, double asked, double given)
{
  char path[128], text[128];
  snprintf(path, sizeof path, "/users/me/profile?id=%ld.%d.%u", (long)getpid(), caller->number, caller->calls);
  int status = sandbox_ask(crowd.port, "GET", path, token, NULL, NULL);
  if (status == 401) {
    snprintf(text, sizeof text, "401 %.6f %.6f", asked, given);
    report(caller, text);
    (void)lucidauth_reject(crowd.client, NULL, token, NULL);
  } else if (status != 200) {
    snprintf(text, sizeof text, "odd %d", status);
    report(caller, text);
  }
}

static void complain(const struct caller *caller, const lucidauth_error *error)
{
  char text[1200];
  long owner = 0;
  const char *process = strstr(error->message, "in process ");
  if (error->code == LUCIDAUTH_LOST_ROTATION && process)
    sscanf(process, "in process %ld", &owner);
  if (owner)
    snprintf(text, sizeof text, "lost %ld %s", owner, error->message);
  else
    snprintf(text, sizeof text, "failed %s %s", lucidauth_code_name(error->code), error->message);
  report(caller, text);
}

static void call(struct caller *caller)
{
  char used[LOGIN];
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  caller->calls++;
  pthread_rwlock_rdlock(&crowd.lock);
  snprintf(used, sizeof used, "%s", crowd.login);
  double asked = sandbox_clock();
  char *token = lucidauth_token(crowd.client, NULL, &error);
  if (token)
    use(caller, token, asked, sandbox_clock());
  lucidauth_free_token(token);
  pthread_rwlock_unlock(&crowd.lock);
  if (token)
    return;
  complain(caller, &error);
  if (error.code == LUCIDAUTH_LOST_ROTATION)
    log_in(used);
}

static void *run(void *context)
{
  struct caller *caller = context;
  char text[32];
  while (!is_there("STOP")) {
    call(caller);
    rest(crowd.pause * 2 * rand_r(&caller->seed) / RAND_MAX);
  }
  snprintf(text, sizeof text, "end %u", caller->calls);
  report(caller, text);
  return NULL;
}

int main(int count, char **arguments)
{
  static struct caller callers[THREADS];
  int threads = count == 5 ? atoi(arguments[1]) : 0;
  if (threads < 1 || threads > THREADS)
    sandbox_fail("usage: client threads seconds-between-calls folder report-fd");
  crowd.pause = strtod(arguments[2], NULL);
  snprintf(crowd.folder, sizeof crowd.folder, "%s", arguments[3]);
  crowd.report = atoi(arguments[4]);
  if (sscanf(getenv("LUCID_API_URL"), "http://127.0.0.1:%d", &crowd.port) != 1)
    sandbox_fail("LUCID_API_URL must be the sandbox's");
  read_login(crowd.login);
  crowd.client = open_client(crowd.login);
  for (int i = 0; i < threads; i++) {
    callers[i] = (struct caller){.number = i, .seed = (unsigned)getpid() * 64u + (unsigned)i};
    pthread_create(&callers[i].thread, NULL, run, &callers[i]);
  }
  for (int i = 0; i < threads; i++)
    pthread_join(callers[i].thread, NULL);
  lucidauth_close(crowd.client);
  return 0;
}
