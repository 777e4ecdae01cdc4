/* A program that uses the C library and says what comes of it, for the crash sweep and the faults; client.lua is the
 * same in Lua. Settings come from the environment. Its arguments are what to do:
 *
 *   token, refresh   prints "token <access token>" or "failure <code> <message>"
 *   store=TEXT       stores what a login gave in the place of whatever is there, and prints "stored" or a failure
 *   ask=N            asks for the token N times, and prints "asked <seconds>"; C alone
 *   status           prints "status <state> saved|unsaved shared|private settled|under_way"
 *   open=PATH        tries to open a file; it need not be there
 *   run=COMMAND      runs a shell command, which must succeed
 *   begin            begins a refresh on another thread and waits until its request is about to be sent; C alone
 *   close            closes the client
 *   starve=N         the N-th allocation from now on fails; C alone, with starve.c preloaded, as the three below
 *   famine=N         out of memory from the N-th allocation on, but for what is freed
 *   drought=N        out of memory from the N-th allocation on, whatever is freed
 *   fed              no allocation fails any more; prints "starved <how many failed> of <all>"
 *   exit             ends the process at once by exit(), whatever is behind it
 *
 * Events are printed as "event <name>". It leaves the client open unless told otherwise. With BACKGROUND in the
 * environment, the C client has the option background, with TIMEOUT another timeout than a minute. */
#define _GNU_SOURCE
#include "../../src/lucidauth.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void tell(void *data, const lucidauth_event *event)
{
  (void)data;
  printf("event %s\n", lucidauth_event_name(event->kind));
}

static void print_token(char *token, const lucidauth_error *error)
{
  if (token)
    printf("token %s\n", token);
  else
    printf("failure %s %s\n", lucidauth_code_name(error->code), error->message);
  lucidauth_free_token(token);
}

static void store(lucidauth *client, const char *answer)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  if (lucidauth_store(client, NULL, answer, strlen(answer), LUCIDAUTH_REPLACE, &error))
    printf("stored\n");
  else
    print_token(NULL, &error);
}

static double now(void)
{
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void ask(lucidauth *client, long times)
{
  double began = now();
  for (long i = 0; i < times; i++) {
    char *token = lucidauth_token(client, NULL, NULL);
    if (!token)
      exit(2);
    lucidauth_free_token(token);
  }
  printf("asked %.3f\n", now() - began);
}

static void print_status(lucidauth *client)
{
  lucidauth_status status = LUCIDAUTH_STATUS_INIT;
  if (lucidauth_get_status(client, NULL, &status, NULL))
    printf("status %s %s %s %s\n", status.state, status.unsaved ? "unsaved" : "saved",
           status.shared ? "shared" : "private", status.generation & 1 ? "under_way" : "settled");
}

static void *refresh(void *client)
{
  lucidauth_free_token(lucidauth_refresh(client, NULL, NULL));
  return NULL;
}

static void begin(lucidauth *client)
{
  pthread_t thread;
  lucidauth_status status = LUCIDAUTH_STATUS_INIT;
  if (pthread_create(&thread, NULL, refresh, client) != 0)
    exit(2);
  pthread_detach(thread);
  while (status.generation % 2 == 0 && lucidauth_get_status(client, NULL, &status, NULL))
    sched_yield();
}

/* starve() of starve.c, which is there if it was preloaded. */
static long starve(const char *number, int way, long *refused)
{
  void *found = dlsym(RTLD_DEFAULT, "starve");
  long (*function)(long, int, long *);
  memcpy(&function, &found, sizeof function);
  if (!function)
    exit(2);
  fflush(stdout);
  return function(atol(number), way, refused);
}

static bool starts(const char *text, const char *with)
{
  return strncmp(text, with, strlen(with)) == 0;
}

static void do_step(lucidauth **client, const char *step)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  long refused;
  if (strcmp(step, "token") == 0) {
    print_token(lucidauth_token(*client, NULL, &error), &error);
  } else if (strcmp(step, "refresh") == 0) {
    print_token(lucidauth_refresh(*client, NULL, &error), &error);
  } else if (starts(step, "store=")) {
    store(*client, step + strlen("store="));
  } else if (starts(step, "ask=")) {
    ask(*client, atol(step + strlen("ask=")));
  } else if (strcmp(step, "status") == 0) {
    print_status(*client);
  } else if (strcmp(step, "begin") == 0) {
    begin(*client);
  } else if (strcmp(step, "close") == 0) {
    lucidauth_close(*client);
    *client = NULL;
  } else if (strcmp(step, "exit") == 0) {
    exit(0);
  } else if (starts(step, "starve=")) {
    starve(step + strlen("starve="), 0, &refused);
  } else if (starts(step, "famine=")) {
    starve(step + strlen("famine="), 1, &refused);
  } else if (starts(step, "drought=")) {
    starve(step + strlen("drought="), 2, &refused);
  } else if (strcmp(step, "fed") == 0) {
    long count = starve("0", 0, &refused);
    printf("starved %ld of %ld\n", refused, count);
  } else if (starts(step, "open=")) {
    FILE *file = fopen(step + 5, "re");
    if (file)
      fclose(file);
  } else if (!starts(step, "run=") || fflush(stdout) != 0 || system(step + 4) != 0) {
    fprintf(stderr, "cannot do %s\n", step);
    exit(2);
  }
}

int main(int count, char **steps)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_options options = LUCIDAUTH_OPTIONS_INIT;
  options.on_event = tell;
  options.timeout = getenv("TIMEOUT") ? atof(getenv("TIMEOUT")) : 60;
  options.lock_timeout = 1;
  options.background = getenv("BACKGROUND") != NULL;
  lucidauth *client = lucidauth_new(&options, &error);
  if (!client) {
    print_token(NULL, &error);
    return 1;
  }
  for (int i = 1; i < count; i++)
    do_step(&client, steps[i]);
  return 0;
}
