/* The states of the flow and the ways between them that have occurred, as a Mermaid state diagram. */
#ifndef SIMULATION_DIAGRAM_H
#define SIMULATION_DIAGRAM_H

#include <stdint.h>

enum { DIAGRAM_STATES = 64 };

/* Starts as {0}. */
struct diagram {
  uint64_t ways[DIAGRAM_STATES][DIAGRAM_STATES]; /* how often one led to the other */
};

void diagram_draw(struct diagram *diagram, int from, int to);

void diagram_print(const struct diagram *diagram);

#endif
