#include "storage.h"

#include "../base/json.h"
#include "../oauth/token.h"
#include "invariants.h"
#include "random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct storage *storage_of(struct simulation *sim, const struct worker *worker)
{
  return &sim->accounts[worker->account].storage;
}

static void fail(struct worker *worker, const char *text)
{
  worker->event = (struct flow_event){.result = FLOW_FAILED, .code = CODE_STORAGE, .text = text};
}

static void put(struct simulation *sim, struct storage *storage, const char *text)
{
  free(storage->text);
  storage->text = text ? strdup(text) : NULL;
  storage->content = token_find(text);
  storage->aside = token_find_aside(text);
  storage->changed = sim->now;
  storage->version++;
}

static void drop_leftover(struct storage *storage)
{
  free(storage->leftover);
  storage->leftover = NULL;
}

static const char *describe(char out[4 * TOKEN_TEXT], const char *text)
{
  struct pair pair = token_find(text), aside = token_find_aside(text);
  char refresh[TOKEN_TEXT], access[TOKEN_TEXT], kept[TOKEN_TEXT];
  token_write(refresh, pair.refresh);
  token_write(access, pair.access);
  token_write(kept, aside.refresh);
  snprintf(out, 4 * TOKEN_TEXT, "%s/%s%s%s%s", *refresh ? refresh : "no refresh token", *access ? access : "none",
           strstr(text, "\"pending\":") ? ", marked" : "", *kept ? ", with put aside " : "", kept);
  return out;
}

/* ---- a storage that lags ---- */

static void show(struct storage *storage)
{
  free(storage->shown);
  storage->shown = storage->hidden[0].text;
  storage->hidden_count--;
  memmove(storage->hidden, storage->hidden + 1, (size_t)storage->hidden_count * sizeof *storage->hidden);
}

static void hide(struct simulation *sim, struct storage *storage, const char *text)
{
  if (storage->hidden_count == 0) {
    free(storage->shown);
    storage->shown = storage->text ? strdup(storage->text) : NULL;
  }
  if (storage->hidden_count == VERSIONS)
    show(storage);
  storage->hidden[storage->hidden_count++] = (struct version){strdup(text), sim->now + storage->lag};
}

/* What a load finds. */
const char *storage_shows(struct simulation *sim, struct storage *storage)
{
  if (storage->lie == LIE_LOADS_NOTHING)
    return NULL;
  while (storage->hidden_count > 0 && storage->hidden[0].shows <= sim->now)
    show(storage);
  return storage->hidden_count > 0 ? storage->shown : storage->text;
}

/* ---- what it tells beside the record ---- */

/* Which of the tokens it is, only the virtual server could tell by the hash; the worker remembers it. */
static void list_spent(struct simulation *sim, struct worker *worker, const char *hash)
{
  struct storage *storage = storage_of(sim, worker);
  int last = (storage->spends + LISTED - 1) % LISTED;
  if (storage->of_program || (storage->spends > 0 && strcmp(storage->spent[last], hash) == 0))
    return;
  int place = storage->spends++ % LISTED;
  snprintf(storage->spent[place], RECORD_HASH, "%s", hash);
  storage->spent_tokens[place] = worker->known.spent_last;
}

bool storage_lists(const struct storage *storage, struct token token)
{
  for (int i = 0; i < LISTED; i++)
    if (storage->spent_tokens[i].kind && token_same(storage->spent_tokens[i], token))
      return true;
  return false;
}

static const char *tell_spent(const struct storage *storage, struct worker *worker)
{
  char *end = worker->listed;
  *end = '\0';
  for (int i = 0; i < LISTED && storage->spent[i][0]; i++, end += RECORD_HASH) {
    memcpy(end, storage->spent[i], RECORD_HASH - 1);
    end[RECORD_HASH - 1] = ' ';
  }
  *end = '\0';
  return worker->listed[0] ? worker->listed : NULL;
}

void storage_reject(struct simulation *sim, struct worker *worker, struct token token, const char *text)
{
  struct storage *storage = storage_of(sim, worker);
  if (storage->of_program)
    return;
  int place = storage->rejections++ % REJECTED;
  storage->rejected[place] = token_fingerprint(text);
  storage->rejected_tokens[place] = token;
}

static void tell_beside(const struct storage *storage, struct worker *worker)
{
  if (storage->of_program)
    return;
  worker->event.spent = tell_spent(storage, worker);
  memcpy(worker->rejected, storage->rejected, sizeof worker->rejected);
  worker->event.rejected = worker->rejected;
}

/* ---- load ---- */

void storage_load(struct simulation *sim, struct worker *worker)
{
  struct storage *storage = storage_of(sim, worker);
  char what[4 * TOKEN_TEXT];
  worker->event = (struct flow_event){.result = FLOW_NONE};
  free(worker->loaded);
  worker->loaded = NULL;
  if (sim->now < worker->starved_until || random_chance(&sim->random, sim->conditions.load_fails)) {
    fail(worker, "The storage cannot be read.");
    simulation_tell(sim, worker, worker->account, "loads: it fails");
    return;
  }
  bool told = worker->tries > 0 && worker->seen == storage->version;
  const char *text = storage_shows(sim, storage);
  worker->seen = storage->version;
  if (text) {
    worker->loaded = strdup(text);
    worker->event = (struct flow_event){.result = FLOW_OK, .text = worker->loaded};
  }
  tell_beside(storage, worker);
  if (sim->story && !told)
    simulation_tell(sim, worker, worker->account, "loads: %s", text ? describe(what, text) : "empty");
  invariants_loaded(sim, worker);
}

/* ---- save ---- */

/* To be freed. */
static char *without_a_field(struct simulation *sim, const char *text)
{
  static const char *const fields[] = {"pending", "origin", "expires_at", "obtained_at"};
  cJSON *json = cJSON_Parse(text);
  cJSON_DeleteItemFromObjectCaseSensitive(json, fields[random_below(&sim->random, sizeof fields / sizeof *fields)]);
  char *less = cJSON_PrintUnformatted(json);
  cJSON_Delete(json);
  return less;
}

/* A storage may begin to keep nothing between the mark and what comes of the request. */
static void begin_to_lie(struct simulation *sim, const struct worker *worker)
{
  struct storage *storage = storage_of(sim, worker);
  if (storage->lie || worker->action.spends || !random_chance(&sim->random, sim->conditions.drop))
    return;
  storage->lie = LIE_KEEPS_NOTHING;
  storage->honest_at = sim->now + random_magnitude(&sim->random, 0.01, 100);
  simulation_tell(sim, worker, worker->account, "the storage keeps nothing for a while");
}

static void save(struct simulation *sim, struct worker *worker)
{
  struct storage *storage = storage_of(sim, worker);
  char *less = storage->lie == LIE_DROPS_A_FIELD ? without_a_field(sim, worker->action.record) : NULL;
  const char *text = less ? less : worker->action.record;
  worker->seen = storage->version;
  if (worker->action.announces)
    invariants_stores(sim, worker);
  if (worker->action.spends)
    storage->marked = sim->now;
  if (storage->lie != LIE_KEEPS_NOTHING) {
    if (storage->lag > 0)
      hide(sim, storage, text);
    put(sim, storage, text);
  }
  free(less);
  drop_leftover(storage);
  worker->seen = storage->version;
  sim->tally->saves++;
  invariants_saved(sim, worker);
}

/* Others are told; and whether it was of any use to take the lock. */
static void begin(const struct storage *storage, struct worker *worker)
{
  if (worker->lock != storage->lock)
    worker->event.result = FLOW_BUSY;
}

static const char *shortage(const struct simulation *sim, const struct worker *worker, const struct storage *storage)
{
  if (sim->now < worker->starved_until)
    return "No file can be opened.";
  return sim->now < storage->full_until ? "The disk is full." : NULL;
}

static const char *obstacle(struct simulation *sim, const struct worker *worker, const struct storage *storage)
{
  bool held = worker->holds && !worker->action.spends;
  const char *wrong = held ? NULL : shortage(sim, worker, storage);
  if (wrong)
    return wrong;
  return random_chance(&sim->random, sim->conditions.save_fails) ? "The disk is broken." : NULL;
}

void storage_save(struct simulation *sim, struct worker *worker)
{
  struct storage *storage = storage_of(sim, worker);
  char what[4 * TOKEN_TEXT];
  worker->event = (struct flow_event){.result = FLOW_CHANGED};
  invariants_saves(sim, worker);
  if (worker->seen != storage->version && !storage->of_program) {
    simulation_tell(sim, worker, worker->account, "does not save: somebody else has written");
    return;
  }
  const char *wrong = obstacle(sim, worker, storage);
  bool late = !wrong && random_chance(&sim->random, sim->conditions.save_fails_late);
  worker->holds = worker->holds && worker->action.spends;
  worker->event = (struct flow_event){.result = FLOW_OK};
  if (wrong || late)
    fail(worker, wrong ? wrong : "The folder cannot be synced.");
  sim->tally->failed_saves += wrong || late;
  if (sim->story)
    simulation_tell(sim, worker, worker->account, "saves %s%s%s", describe(what, worker->action.record),
                    wrong ? ": " : "", wrong ? wrong : (late ? ": it is there, but said to have failed" : ""));
  if (wrong)
    return;
  begin_to_lie(sim, worker);
  if (worker->action.spent && !late)
    list_spent(sim, worker, worker->action.spent);
  if (worker->action.spends && !late)
    begin(storage, worker);
  save(sim, worker);
}

void storage_hold(struct simulation *sim, struct worker *worker)
{
  struct storage *storage = storage_of(sim, worker);
  const char *wrong = storage->of_program ? NULL : shortage(sim, worker, storage);
  worker->event = (struct flow_event){.result = FLOW_OK};
  worker->holds = !wrong && !storage->of_program;
  if (wrong)
    fail(worker, wrong);
  if (wrong)
    simulation_tell(sim, worker, worker->account, "holds nothing: %s", wrong);
}

void storage_tear(struct simulation *sim, struct worker *worker)
{
  struct storage *storage = storage_of(sim, worker);
  bool stale = worker->seen != storage->version;
  switch (random_below(&sim->random, storage->of_program || stale ? 1 : 3)) {
  case 0:
    simulation_tell(sim, worker, worker->account, "dies in a save, before the temporary file is complete");
    drop_leftover(storage);
    break;
  case 1:
    simulation_tell(sim, worker, worker->account, "dies in a save, before the rename");
    drop_leftover(storage);
    storage->leftover = strdup(worker->action.record);
    break;
  default:
    simulation_tell(sim, worker, worker->account, "dies in a save, behind the rename");
    save(sim, worker);
  }
}

/* ---- the lock ---- */

void storage_lock(struct simulation *sim, struct worker *worker)
{
  struct storage *storage = storage_of(sim, worker);
  worker->event = (struct flow_event){.result = FLOW_OK};
  if (sim->now < worker->starved_until || random_chance(&sim->random, sim->conditions.lock_fails)) {
    fail(worker, "The lock cannot be had.");
    simulation_tell(sim, worker, worker->account, "locks: it fails");
    return;
  }
  if (storage->owner >= 0) {
    worker->event.result = FLOW_BUSY;
    if (worker->tries++ == 0)
      simulation_tell(sim, worker, worker->account, "waits for the lock: p%d holds it",
                      sim->workers[storage->owner].process);
    return;
  }
  worker->tries = 0;
  storage->owner = (int)(worker - sim->workers);
  worker->lock = storage->lock;
  snprintf(worker->lock_text, sizeof worker->lock_text, "%u", storage->lock);
  worker->event.text = storage->of_program ? NULL : worker->lock_text;
  simulation_tell(sim, worker, worker->account, "locks%s",
                  storage->leftover ? ", and puts a dead writer's temporary file in place" : "");
  if (storage->leftover) {
    put(sim, storage, storage->leftover);
    drop_leftover(storage);
    invariants_rolled_forward(sim, worker->account);
  }
}

void storage_unlock(struct simulation *sim, struct worker *worker)
{
  simulation_tell(sim, worker, worker->account, "unlocks");
  worker->event = (struct flow_event){.result = FLOW_OK};
  storage_drop_lock(sim, worker);
  invariants_unlocked(sim, worker);
}

void storage_drop_lock(struct simulation *sim, struct worker *worker)
{
  struct account *account = &sim->accounts[worker->account];
  int self = (int)(worker - sim->workers);
  worker->lock = 0;
  worker->holds = false;
  if (account->storage.owner == self)
    account->storage.owner = -1;
  if (account->flight == self)
    account->flight = -1;
}

void storage_remove_lock(struct simulation *sim, int account)
{
  struct storage *storage = &sim->accounts[account].storage;
  if (storage->of_program)
    return;
  storage->lock++;
  storage->owner = -1;
  simulation_tell(sim, NULL, account, "somebody removes the lock file");
}

/* ---- what befalls it ---- */

void storage_overwrite(struct simulation *sim, int account, const char *text)
{
  struct storage *storage = &sim->accounts[account].storage;
  put(sim, storage, text);
  drop_leftover(storage);
}

void storage_vanish(struct simulation *sim, int account, double seconds)
{
  struct storage *storage = &sim->accounts[account].storage;
  if (!storage->text || storage->vanished)
    return;
  simulation_tell(sim, NULL, account, "the record is gone for %.1f s", seconds);
  while (storage->hidden_count > 0)
    show(storage);
  storage->vanished_text = strdup(storage->text);
  storage->vanished = true;
  storage->back_at = sim->now + seconds;
  storage_overwrite(sim, account, NULL);
}

void storage_come_back(struct simulation *sim, int account)
{
  struct storage *storage = &sim->accounts[account].storage;
  if (!storage->text) {
    simulation_tell(sim, NULL, account, "the record is back");
    storage_overwrite(sim, account, storage->vanished_text);
  }
  free(storage->vanished_text);
  storage->vanished_text = NULL;
  storage->vanished = false;
}

void storage_free(struct storage *storage)
{
  while (storage->hidden_count > 0)
    show(storage);
  free(storage->text);
  free(storage->leftover);
  free(storage->shown);
  free(storage->vanished_text);
  storage->text = storage->leftover = storage->shown = storage->vanished_text = NULL;
}
