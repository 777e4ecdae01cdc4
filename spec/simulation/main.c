/* Many processes run the refresh flow as it is, against a virtual server that revokes a grant whose refresh token
 * is used twice, a virtual network, storage and clock, with every fault at every step. All of it follows from the
 * seed.
 *
 *   simulation                            as the tests run it
 *   simulation --refreshes 100000000      for longer
 *   simulation --seed S                   from another seed; the story of a failure names one to begin with it
 *   simulation --processes P              so many processes in each episode (1 to 8)
 *   simulation --story                    tell the first episode step by step, whatever its end
 *   simulation --diagram                  print the states that the flow has been in, and the ways between them
 *   simulation --expect-violation         succeed when, and only when, an invariant is violated */
#include "simulation.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct options {
  uint64_t seed, refreshes;
  int processes;
  bool story, diagram, expect_violation;
};

static uint64_t next_seed(uint64_t seed)
{
  struct random random = {seed};
  return random_next(&random);
}

/* Of this process alone, whatever else the machine is busy with. */
static double seconds(void)
{
  struct timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void print_tally(const struct tally *tally, double took)
{
  printf("%" PRIu64 " refreshes in %" PRIu64 " episodes, %.1f s of one core, %.2f million a minute\n", tally->refreshes,
         tally->episodes, took, (double)tally->refreshes / took * 60 / 1e6);
  printf("%" PRIu64 " flights, %" PRIu64 " steps, %" PRIu64 " refresh requests, %" PRIu64 " introspections, %" PRIu64
         " saves (%" PRIu64 " failed), %" PRIu64 " crashes, %" PRIu64 " logins\n",
         tally->flights, tally->steps, tally->sends, tally->introspections, tally->saves, tally->failed_saves,
         tally->crashes, tally->logins);
  printf("%" PRIu64 " recovered, %" PRIu64 " adopted, %" PRIu64 " unsaved for a while, %" PRIu64 " refused, %" PRIu64
         " lost with their process, %" PRIu64 " logins stored\n",
         tally->recovered, tally->adopted, tally->unsaved, tally->refused, tally->lost, tally->stored);
  for (int i = 0; i < FATES; i++)
    printf("%s%s %" PRIu64, i ? ", " : "POSTs: ", fate_name((enum fate)i), tally->fates[i]);
  putchar('\n');
}

static void tell_failure(struct simulation *sim, const struct options *options, const char *program, uint64_t seed,
                         uint64_t refreshes)
{
  struct tally unused = {0};
  printf("After %" PRIu64 " refreshes an invariant is violated. The story of the episode with seed %" PRIu64 ":\n",
         refreshes, seed);
  simulation_run(sim, seed, options->processes, &unused, true);
  printf("Violated: %s\nTo see it again: %s --seed %" PRIu64, sim->violation, program, seed);
  if (options->processes)
    printf(" --processes %d", options->processes);
  putchar('\n');
}

static bool violates(struct simulation *sim, const struct options *options, struct tally *tally, uint64_t *seed)
{
  while (tally->refreshes < options->refreshes) {
    if (!simulation_run(sim, *seed, options->processes, tally, options->story))
      return true;
    if (options->story)
      break;
    *seed = next_seed(*seed);
  }
  return false;
}

static int run(const struct options *options, const char *program)
{
  struct simulation *sim = malloc(sizeof *sim);
  struct tally tally = {0};
  uint64_t seed = options->seed;
  double began = seconds();
  if (!sim)
    return 2;
  bool violated = violates(sim, options, &tally, &seed);
  if (violated && options->expect_violation)
    printf("Violated after %" PRIu64 " refreshes, with seed %" PRIu64 ": %s\n", tally.refreshes, seed, sim->violation);
  else if (violated)
    tell_failure(sim, options, program, seed, tally.refreshes);
  else if (options->diagram)
    diagram_print(&tally.diagram);
  else
    print_tally(&tally, seconds() - began);
  free(sim);
  if (options->expect_violation && !violated)
    printf("No invariant was violated.\n");
  return violated != options->expect_violation;
}

static bool read_number(const char *text, uint64_t most, uint64_t *number)
{
  char *end;
  errno = 0;
  *number = text ? strtoull(text, &end, 0) : 0;
  return text && *text >= '0' && *text <= '9' && !*end && !errno && *number <= most;
}

static bool read_options(struct options *options, char **arguments)
{
  for (; *arguments; arguments++) {
    uint64_t processes = 0;
    if (strcmp(*arguments, "--story") == 0)
      options->story = true;
    else if (strcmp(*arguments, "--diagram") == 0)
      options->diagram = true;
    else if (strcmp(*arguments, "--expect-violation") == 0)
      options->expect_violation = true;
    else if (strcmp(*arguments, "--seed") == 0 && read_number(arguments[1], UINT64_MAX, &options->seed))
      arguments++;
    else if (strcmp(*arguments, "--refreshes") == 0 && read_number(arguments[1], UINT64_MAX, &options->refreshes))
      arguments++;
    else if (strcmp(*arguments, "--processes") == 0 && read_number(arguments[1], PROCESSES, &processes) && processes)
      arguments++;
    else
      return false;
    if (processes)
      options->processes = (int)processes;
  }
  return true;
}

int main(int count, char **arguments)
{
  struct options options = {.seed = 1, .refreshes = 200000};
  (void)count;
  if (!read_options(&options, arguments + 1)) {
    fprintf(stderr,
            "usage: %s [--seed S] [--refreshes N] [--processes 1..%d] [--story] [--diagram] [--expect-violation]\n",
            arguments[0], PROCESSES);
    return 2;
  }
  return run(&options, arguments[0]);
}
