#include "memory.h"

#include "../base/secret.h"

#include <stdio.h>
#include <stdlib.h>

struct memory_store {
  struct store store;
  atomic_uint_least64_t generation; /* never changes */
  char *record;
  bool held;
};

static enum store_result out_of_memory(struct store_error *error)
{
  error->code = CODE_STORAGE;
  snprintf(error->message, sizeof error->message,
           "the token record cannot be kept: this process is out of memory. Nothing was changed. Free some memory and "
           "try again.");
  return STORE_FAILED;
}

static enum store_result memory_load(struct store *store, char **record, struct store_error *error)
{
  const struct memory_store *memory = (struct memory_store *)store;
  *record = NULL;
  if (!memory->record)
    return STORE_NONE;
  *record = secret_copy(memory->record);
  return *record ? STORE_OK : out_of_memory(error);
}

static enum store_result memory_save(struct store *store, const char *record, struct store_error *error)
{
  struct memory_store *memory = (struct memory_store *)store;
  char *copy = secret_copy(record);
  if (!copy)
    return out_of_memory(error);
  secret_free(memory->record);
  memory->record = copy;
  return STORE_OK;
}

static enum store_result memory_lock(struct store *store, struct store_error *error)
{
  struct memory_store *memory = (struct memory_store *)store;
  (void)error;
  if (memory->held)
    return STORE_BUSY;
  memory->held = true;
  return STORE_OK;
}

static void memory_unlock(struct store *store)
{
  ((struct memory_store *)store)->held = false;
}

static bool memory_changed(struct store *store)
{
  (void)store;
  return false;
}

/* The record belongs to this process alone: no other process is to be told. */
static void memory_begin(struct store *store)
{
  (void)store;
}

static void memory_wait(struct store *store, uint64_t seen, double seconds)
{
  (void)store;
  (void)seen;
  (void)seconds;
}

static void memory_close(struct store *store)
{
  secret_free(((struct memory_store *)store)->record);
  free(store);
}

/* The flag is the child's own copy: clearing it leaves the parent's lock as it is. */
static const struct store_ops ops = {.load = memory_load,
                                     .save = memory_save,
                                     .lock = memory_lock,
                                     .unlock = memory_unlock,
                                     .begin = memory_begin,
                                     .wait = memory_wait,
                                     .changed = memory_changed,
                                     .forked = memory_unlock,
                                     .close = memory_close};

struct store *store_memory(struct store_error *error)
{
  struct memory_store *memory = calloc(1, sizeof *memory);
  if (!memory) {
    out_of_memory(error);
    return NULL;
  }
  memory->store = (struct store){.ops = &ops, .generation = &memory->generation, .name = "memory"};
  return &memory->store;
}
