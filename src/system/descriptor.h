/* Descriptors that stay out of the way of the program's own. */
#ifndef DESCRIPTOR_H
#define DESCRIPTOR_H

/* Take over a descriptor that was just opened, close-on-exec. In a program that runs without its standard input, output
 * or errors it may have got one of their numbers, and what the program prints would go there: then it gets another. -1,
 * with errno: there is none, or `fd` was -1. */
int descriptor_keep(int fd);

#endif
