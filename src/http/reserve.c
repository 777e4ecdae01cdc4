#define _GNU_SOURCE
#include "reserve.h"

#include <pthread.h>
#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>

/* Bytes a transfer: a packed answer takes a quarter of it. The system gives pages only when they are written to. */
enum { SHARE = 512 * 1024, GRAIN = alignof(max_align_t) };

struct share {
  struct share *next;
  size_t used;   /* bytes given out; 0 again when all of them are back */
  size_t blocks; /* those that are not back yet */
  alignas(max_align_t) unsigned char memory[SHARE];
};

static struct {
  pthread_mutex_t mutex; /* guards the fields below */
  struct share *shares;
  size_t holders, opened; /* transfers */
} reserve = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* With the mutex held, as all of these. */
static size_t untouched(void)
{
  size_t count = 0;
  for (const struct share *share = reserve.shares; share; share = share->next)
    count += share->used == 0;
  return count;
}

static void add_share(struct share *share)
{
  share->next = reserve.shares;
  share->used = share->blocks = 0;
  reserve.shares = share;
}

/* A share that no transfer needs, for the caller to free; NULL: there is none. */
static struct share *take_surplus(void)
{
  if (untouched() <= reserve.holders)
    return NULL;
  struct share **place = &reserve.shares;
  while ((*place)->used > 0)
    place = &(*place)->next;
  struct share *share = *place;
  *place = share->next;
  return share;
}

bool reserve_hold(void)
{
  struct share *share = malloc(sizeof *share);
  if (!share)
    return false;
  pthread_mutex_lock(&reserve.mutex);
  add_share(share);
  reserve.holders++;
  struct share *surplus = take_surplus();
  pthread_mutex_unlock(&reserve.mutex);
  free(surplus);
  return true;
}

void reserve_drop(bool opened)
{
  pthread_mutex_lock(&reserve.mutex);
  reserve.holders--;
  reserve.opened -= opened;
  struct share *surplus = take_surplus();
  pthread_mutex_unlock(&reserve.mutex);
  free(surplus);
}

bool reserve_open(void)
{
  pthread_mutex_lock(&reserve.mutex);
  bool enough = untouched() > reserve.opened;
  reserve.opened += enough;
  pthread_mutex_unlock(&reserve.mutex);
  return enough;
}

/* The touched ones first, so that the others stay as they are. */
static struct share *find_room(size_t size)
{
  struct share *fresh = NULL;
  for (struct share *share = reserve.shares; share; share = share->next) {
    if (share->used == 0)
      fresh = share;
    else if (size <= SHARE - share->used)
      return share;
  }
  return fresh;
}

void *reserve_take(size_t size, struct share **share)
{
  void *taken = NULL;
  if (size > SHARE)
    return NULL;
  size = size == 0 ? GRAIN : (size + GRAIN - 1) / GRAIN * GRAIN;
  pthread_mutex_lock(&reserve.mutex);
  *share = reserve.opened > 0 ? find_room(size) : NULL;
  if (*share) {
    taken = (*share)->memory + (*share)->used;
    (*share)->used += size;
    (*share)->blocks++;
  }
  pthread_mutex_unlock(&reserve.mutex);
  return taken;
}

void reserve_give_back(struct share *share)
{
  pthread_mutex_lock(&reserve.mutex);
  if (--share->blocks == 0)
    share->used = 0;
  struct share *surplus = take_surplus();
  pthread_mutex_unlock(&reserve.mutex);
  free(surplus);
}

void reserve_before_fork(void)
{
  pthread_mutex_lock(&reserve.mutex);
}

void reserve_after_fork(void)
{
  pthread_mutex_unlock(&reserve.mutex);
}
