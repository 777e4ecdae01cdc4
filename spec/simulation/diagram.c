#include "diagram.h"

#include "flow.h"

#include <stdio.h>

void diagram_draw(struct diagram *diagram, int from, int to)
{
  diagram->ways[from][to]++;
}

static const char *name_of(int state)
{
  return state ? flow_state_name(state) : "[*]";
}

/* In the order of the table. */
void diagram_print(const struct diagram *diagram)
{
  puts("stateDiagram-v2");
  for (int state = 1; flow_state_name(state); state++)
    printf("    %s\n", flow_state_name(state));
  for (int from = 0; flow_state_name(from); from++)
    for (int to = 0; flow_state_name(to); to++)
      if (diagram->ways[from][to] > 0)
        printf("    %s --> %s\n", name_of(from), name_of(to));
}
