/* File descriptors that keep off the program's own, and that are recognized later. A host that closes descriptors it
 * did not open (close_range, a daemon's start) may open a file of its own under one of our numbers. */
#ifndef DESCRIPTOR_H
#define DESCRIPTOR_H

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

/* Take over a descriptor that was just opened, close-on-exec. A program that runs without its standard input, output or
 * errors may have given it one of their numbers, and the program's output would go there: then it gets another number.
 * -1, with errno: there is none, or `fd` was -1. */
int descriptor_keep(int fd);

/* socket(), taken over in the same way. */
int descriptor_socket(int family, int type, int protocol);

/* One that is kept open from call to call. */
struct descriptor {
  int fd; /* -1: none */
  dev_t device;
  ino_t inode;
};

#define DESCRIPTOR_NONE ((struct descriptor){.fd = -1})

/* Remember the file that `fd` refers to. False, with errno: `fd` was -1, or its file cannot be told; then it is
 * closed. */
bool descriptor_hold(struct descriptor *descriptor, int fd);

/* Whether this is the stat of its file. */
bool descriptor_leads_to(const struct descriptor *descriptor, const struct stat *found);

/* Whether it is open, and still leads there. Async-signal-safe, as the next one is. */
bool descriptor_is_ours(const struct descriptor *descriptor);

/* Whether it is known not to be ours any more: closed, or another file's. On a disk or a share that has failed neither
 * can be told; another file of the program's under this very number would hardly lie there too. */
bool descriptor_is_gone(const struct descriptor *descriptor);

/* Close it, unless it is gone. */
void descriptor_close(struct descriptor *descriptor);

enum { PLUGS_MOST = 3 };

/* Numbers of the standard input, output and errors that nobody had. A library that opens descriptors of its own, and
 * keeps them, gets none of these between the two calls. */
struct descriptor_plugs {
  struct descriptor held[PLUGS_MOST];
  int count;
};

void descriptor_plug(struct descriptor_plugs *plugs);
void descriptor_unplug(struct descriptor_plugs *plugs);

#endif
