/* Times whole processes side by side: spawn ROUNDS -- COMMAND... [-- COMMAND...]...
 *
 * Each round runs every command once, so that what else the machine does falls on all alike. For every command a line
 * goes to standard output: the least wall time and the lower quartile in nanoseconds, and peak memory in bytes. The
 * commands' own output is thrown away. A command that fails ends it all. */
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

enum { COMMANDS = 8 };

struct command {
  char **arguments;
  int64_t *walls;
  long peak; /* KiB */
};

static int64_t now(void)
{
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void run(struct command *command, int round, const posix_spawn_file_actions_t *actions)
{
  pid_t child = 0;
  int status = 0;
  struct rusage used;
  int64_t began = now();
  int failure = posix_spawnp(&child, command->arguments[0], actions, NULL, command->arguments, environ);
  if (failure != 0 || wait4(child, &status, 0, &used) != child || status != 0) {
    fprintf(stderr, "spawn: %s %s\n", command->arguments[0], failure != 0 ? strerror(failure) : "failed");
    exit(1);
  }
  command->walls[round] = now() - began;
  command->peak = used.ru_maxrss > command->peak ? used.ru_maxrss : command->peak;
}

static int compare(const void *a, const void *b)
{
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

/* Cuts the arguments at each "--". */
static int split(char **arguments, struct command commands[COMMANDS], int rounds)
{
  int count = 0;
  for (; *arguments && count < COMMANDS; arguments++)
    if (strcmp(*arguments, "--") == 0) {
      *arguments = NULL;
      commands[count++] =
          (struct command){.arguments = arguments + 1, .walls = calloc((size_t)rounds, sizeof(int64_t))};
    }
  return count;
}

int main(int argc, char **argv)
{
  struct command commands[COMMANDS];
  int rounds = argc > 1 ? atoi(argv[1]) : 0;
  int count = rounds > 0 ? split(argv + 2, commands, rounds) : 0;
  if (count == 0) {
    fprintf(stderr, "usage: spawn ROUNDS -- COMMAND... [-- COMMAND...]...\n");
    return 2;
  }
  posix_spawn_file_actions_t quiet;
  posix_spawn_file_actions_init(&quiet);
  posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
  for (int round = 0; round < rounds; round++)
    for (int i = 0; i < count; i++)
      run(&commands[i], round, &quiet);
  for (int i = 0; i < count; i++) {
    qsort(commands[i].walls, (size_t)rounds, sizeof(int64_t), compare);
    printf("%lld %lld %lld\n", (long long)commands[i].walls[0], (long long)commands[i].walls[rounds / 4],
           (long long)commands[i].peak * 1024);
  }
  return 0;
}
