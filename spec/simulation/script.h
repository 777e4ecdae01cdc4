/* A program that shares the storage and knows no lock, as Lucid's example script does. */
#ifndef SCRIPT_H
#define SCRIPT_H

#include "simulation.h"

void script_step(struct simulation *sim, int account);

/* The text that it leaves for these tokens. */
void script_write(const struct simulation *sim, char *text, size_t size, const struct pair *pair, double dies);

#endif
