#include "record.h"

#include "../base/calendar.h"
#include "../base/secret.h"
#include "../oauth/origin.h"
#include "../oauth/token.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Refreshing ahead may cost a short-lived token at most this share of its life. */
#define MARGIN_SHARE 0.25
/* Clocks of two machines on one storage differ by this much without either being wrong, in seconds. */
#define CLOCK_SLACK 60.0

/* Clocks are set back by this much at most, in seconds: for the summer's end by an hour, in some years by two. */
#define SET_BACK_MOST (2 * 3600.0)

enum { ORIGINS_MOST = 32 };

static const char *usable(const cJSON *json, const char *name)
{
  const char *token = json_string(json, name);
  return token_fits_header(token) ? token : NULL;
}

/* "+02:00", "-0530" or "Z" behind a time, as an offset in seconds; false when there is none. */
static bool parse_offset(const char *text, double *offset)
{
  int hours, minutes;
  if (*text == 'Z') {
    *offset = 0;
    return true;
  }
  if ((*text != '+' && *text != '-') ||
      (sscanf(text + 1, "%2d:%2d", &hours, &minutes) != 2 && sscanf(text + 1, "%2d%2d", &hours, &minutes) != 2))
    return false;
  *offset = (hours * 60 + minutes) * 60.0 * (*text == '-' ? -1 : 1);
  return true;
}

static bool is_time(const struct civil *time)
{
  if (time->month < 1 || time->month > 12 || time->day < 1 || time->hour < 0 || time->hour > 23 || time->minute < 0 ||
      time->minute > 59 || time->second < 0 || time->second > 59)
    return false;
  return time->day <= calendar_month_length(time->year, time->month);
}

/* The example script adds the lifetime to the local time, and the clock may be set back before the sum comes. The same
 * reading then comes later. Either reading may also occur twice; the earliest moment is safe. */
static double earliest(const struct civil *sum, double lifetime, const struct world *world)
{
  struct civil written;
  double at = world->from_local(sum), reading = calendar_epoch(sum) - lifetime;
  if (!(lifetime > 0) || !(reading > 0))
    return at;
  calendar_civil(reading, &written);
  double lived = world->from_local(&written) + lifetime;
  return lived < at && lived >= at - SET_BACK_MOST ? lived : at;
}

/* Python's isoformat(): microseconds and zone are optional. NaN: not such a time. */
static double parse_expiration(const char *text, double lifetime, const struct world *world)
{
  struct civil time = {0};
  int used = 0;
  if (!text ||
      sscanf(text, "%4d-%2d-%2d%*1[T ]%2d:%2d:%2d%n", &time.year, &time.month, &time.day, &time.hour, &time.minute,
             &time.second, &used) != 6 ||
      used == 0)
    return NAN;
  if (!is_time(&time))
    return NAN;
  const char *rest = text + used;
  if (*rest == '.') {
    int scale = 100000;
    for (rest++; isdigit((unsigned char)*rest); rest++, scale /= 10)
      time.microsecond += (*rest - '0') * scale;
  }
  double offset;
  if (parse_offset(rest, &offset))
    return calendar_epoch(&time) - offset;
  return *rest ? NAN : earliest(&time, lifetime, world);
}

static double number_or_nan(const cJSON *json, const char *name)
{
  double value;
  return json_number(json, name, &value) && isfinite(value) ? value : NAN;
}

static double read_expiry(const cJSON *json, const struct world *world)
{
  double at = calendar_seconds(number_or_nan(json, "expires_at"));
  /* some servers send the date under the name of the lifetime, and then the script's sum is off by decades */
  if (isnan(at) && calendar_is_date(number_or_nan(json, "expires_in")))
    at = calendar_seconds(number_or_nan(json, "expires_in"));
  if (isnan(at))
    at = parse_expiration(json_string(json, "expiration"), number_or_nan(json, "expires_in"), world);
  if (isnan(at))
    at = number_or_nan(json, "expires") / 1000;
  return at;
}

static double read_lifetime(const cJSON *json, double expires_at)
{
  double lifetime = expires_at - number_or_nan(json, "obtained_at");
  if (!(lifetime > 0) && !calendar_is_date(number_or_nan(json, "expires_in")))
    lifetime = number_or_nan(json, "expires_in");
  return lifetime > 0 ? fmin(lifetime, ANSWER_LIFETIME_CAP) : NAN;
}

static bool has(const cJSON *json, const char *name)
{
  return cJSON_GetObjectItemCaseSensitive(json, name) != NULL;
}

/* Puts a hash behind the others, and lets the oldest go. */
static bool add_hash(cJSON *json, const char *name, const char *hash, int most)
{
  cJSON *all = cJSON_GetObjectItemCaseSensitive(json, name), *added = cJSON_CreateString(hash);
  if (!cJSON_IsArray(all)) {
    all = cJSON_CreateArray();
    if (!all || !json_set(json, name, all)) {
      json_free(added);
      return false;
    }
  }
  if (!added || !cJSON_AddItemToArray(all, added)) {
    json_free(added);
    return false;
  }
  while (cJSON_GetArraySize(all) > most)
    json_free(cJSON_DetachItemViaPointer(all, all->child));
  return true;
}

static bool has_hash(const cJSON *json, const char *name, const char *hash)
{
  const cJSON *known;
  cJSON_ArrayForEach(known, cJSON_GetObjectItemCaseSensitive(json, name))
  {
    if (cJSON_IsString(known) && strcmp(known->valuestring, hash) == 0)
      return true;
  }
  return false;
}

static void put_fingerprint(char out[17], const char *token)
{
  snprintf(out, 17, "%016" PRIx64, token_fingerprint(token));
}

static bool stored_rejection(const struct record *record)
{
  char fingerprint[17];
  const char *rejected = json_string(record->json, "rejected");
  if (!rejected || !record->access_token)
    return false;
  put_fingerprint(fingerprint, record->access_token);
  return strcmp(rejected, fingerprint) == 0;
}

bool record_reject(struct record *record)
{
  char fingerprint[17];
  if (!record->access_token || record->rejected)
    return true;
  put_fingerprint(fingerprint, record->access_token);
  record->rejected = json_set_string(record->json, "rejected", fingerprint);
  return record->rejected;
}

static void point_into(struct record *record, const struct world *world)
{
  record->access_token = usable(record->json, "access_token");
  record->refresh_token = usable(record->json, "refresh_token");
  record->bearer = token_type_is_bearer(json_string(record->json, "token_type"));
  record->expires_at = read_expiry(record->json, world);
  record->lifetime = read_lifetime(record->json, record->expires_at);
  record->rejected = stored_rejection(record);
}

bool record_read(struct record *record, const char *text, const struct world *world)
{
  *record = (struct record){.json = json_read_whole(text, strlen(text))};
  if (cJSON_IsObject(record->json)) {
    point_into(record, world);
    if (record->access_token || record->refresh_token)
      return true;
  }
  record_free(record);
  return false;
}

/* The refresh tokens that earlier grants were started from, once they are spent. A process that still has one configured
 * must not start from it again. */
static bool carry_origins(cJSON *json, const struct record *before)
{
  const cJSON *former = cJSON_GetObjectItemCaseSensitive(before->json, "former_origins");
  const char *origin = json_string(before->json, "origin");
  bool spent = before->access_token || before->lifetime > 0 || has(before->json, "pending") ||
               has(before->json, "origin_refused");
  cJSON *all = former ? cJSON_Duplicate(former, 1) : NULL;
  if (former && !(all && json_set(json, "former_origins", all)))
    return false;
  return !origin || !spent || add_hash(json, "former_origins", origin, ORIGINS_MOST);
}

static bool carry_spent(cJSON *json, const struct record *before)
{
  const cJSON *known = cJSON_GetObjectItemCaseSensitive(before->json, "spent");
  cJSON *copy = known ? cJSON_Duplicate(known, 1) : NULL;
  return !known || (copy && json_set(json, "spent", copy));
}

/* One grant at a time is put aside: the one that has brought tokens once. */
static bool put_aside(cJSON *json, const struct record *before)
{
  const cJSON *kept = cJSON_GetObjectItemCaseSensitive(before->json, "before");
  kept = kept ? kept : before->json;
  cJSON *copy = kept && before->refresh_token ? cJSON_Duplicate(kept, 1) : NULL;
  if (!kept || !before->refresh_token)
    return true;
  return copy && json_set(json, "before", copy);
}

bool record_start(struct record *record, const char *refresh_token, const struct record *before,
                  const struct world *world)
{
  char hash[RECORD_HASH];
  record_hash(world, refresh_token, hash);
  *record = (struct record){.json = cJSON_CreateObject()};
  if (record->json && json_set_string(record->json, "refresh_token", refresh_token) &&
      json_set_string(record->json, "origin", hash) && carry_origins(record->json, before) &&
      carry_spent(record->json, before) && put_aside(record->json, before)) {
    point_into(record, world);
    return true;
  }
  record_free(record);
  return false;
}

bool record_is_trial(const struct record *record)
{
  return has(record->json, "before");
}

bool record_restore(struct record *record, bool dead, const struct world *world)
{
  char hash[RECORD_HASH] = "";
  cJSON *before = cJSON_GetObjectItemCaseSensitive(record->json, "before");
  if (before)
    before = cJSON_DetachItemViaPointer(record->json, before);
  if (record->refresh_token)
    record_hash(world, record->refresh_token, hash);
  if (!before || (dead && *hash && !add_hash(before, "spent", hash, RECORD_SPENT_MOST))) {
    if (before)
      cJSON_AddItemToObject(record->json, "before", before);
    return false;
  }
  json_free(record->json);
  record->json = before;
  point_into(record, world);
  return true;
}

static bool set_expiration(cJSON *json, double expires_at, const struct world *world)
{
  struct civil local;
  char text[80];
  if (!world->to_local(expires_at, &local))
    return true;
  /* fromisoformat() before Python 3.11 wants six digits or none */
  snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%06d", local.year, local.month, local.day, local.hour,
           local.minute, local.second, local.microsecond);
  return json_set_string(json, "expiration", text);
}

/* The server's fields of these names are not lucidauth's. */
static bool is_own_field(const char *name)
{
  static const char *const ours[] = {"expires_at",     "obtained_at", "expiration",     "pending",
                                     "failure",        "origin",      "origin_refused", "server",
                                     "former_origins", "spent",       "before",         "rejected"};
  for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
    if (strcmp(name, ours[i]) == 0)
      return true;
  return false;
}

/* The lifetime that makes a token of this much use: one that was expired at birth is first refreshed after
 * the floor, margin and all. */
static double span(const struct answer *answer)
{
  return answer->expired_at_birth ? ANSWER_LIFETIME_FLOOR / (1 - MARGIN_SHARE) : answer->lifetime;
}

/* Milliseconds are enough, and keep the file readable. */
static double to_milliseconds(double seconds)
{
  return floor(seconds * 1000) / 1000;
}

/* The refresh token that the answer takes the place of. */
static bool carry_and_add_spent(cJSON *own, const struct record *before, const struct answer *answer,
                                const struct world *world)
{
  char hash[RECORD_HASH];
  const char *now = json_string(answer->fields, "refresh_token");
  if (!before->refresh_token || !now || strcmp(now, before->refresh_token) == 0)
    return true;
  record_hash(world, before->refresh_token, hash);
  return carry_spent(own, before) && add_hash(own, "spent", hash, RECORD_SPENT_MOST);
}

/* The fields that lucidauth adds to the answer. NULL: out of memory. */
static cJSON *own_words(const struct record *record, const struct answer *answer, double since,
                        const struct world *world)
{
  cJSON *own = cJSON_CreateObject();
  double expires_at = to_milliseconds(since + span(answer));
  if (own && json_set_number(own, "expires_at", expires_at) &&
      json_set_number(own, "obtained_at", to_milliseconds(since)) && set_expiration(own, expires_at, world) &&
      carry_and_add_spent(own, record, answer, world))
    return own;
  json_free(own);
  return NULL;
}

static void remove_what_ends(cJSON *json, bool access_token, bool token_type)
{
  json_remove(json, "pending");
  json_remove(json, "failure");
  json_remove(json, "origin_refused");
  json_remove(json, "rejected");
  json_remove(json, "before");
  json_remove(json, "expiration");
  if (!access_token)
    json_remove(json, "access_token");
  if (!token_type)
    json_remove(json, "token_type");
}

/* Nothing is changed before all the memory that it takes is there. */
bool record_rotate(struct record *record, struct answer *answer, double since, const struct world *world)
{
  bool access_token = has(answer->fields, "access_token"), token_type = has(answer->fields, "token_type");
  cJSON *own = own_words(record, answer, since, world);
  bool laid = own && json_overlay(record->json, answer->fields, is_own_field);
  if (laid) {
    remove_what_ends(record->json, access_token, token_type);
    json_move(record->json, own);
    point_into(record, world);
  }
  json_free(own);
  return laid;
}

bool record_replace(struct record *record, struct answer *answer, const struct world *world)
{
  if (!usable(answer->fields, "refresh_token"))
    return false;
  json_free(record->json);
  record->json = answer->fields;
  answer->fields = NULL;
  point_into(record, world);
  return true;
}

/* An answer that is handed over late may say itself when its token ends. */
static bool shorten(struct record *record, double told, const struct world *world)
{
  if (!(told >= CALENDAR_EARLIEST && told < record->expires_at))
    return true;
  bool set = json_set_number(record->json, "expires_at", told) && set_expiration(record->json, told, world);
  point_into(record, world);
  return set;
}

static bool set_origin(cJSON *json, const char *refresh_token, const struct world *world)
{
  char hash[RECORD_HASH];
  if (!refresh_token)
    return true;
  record_hash(world, refresh_token, hash);
  return json_set_string(json, "origin", hash);
}

static bool bury_former(struct record *record, const struct record *before, const struct world *world)
{
  char hash[RECORD_HASH];
  if (!before->refresh_token || (record->refresh_token && strcmp(record->refresh_token, before->refresh_token) == 0))
    return true;
  record_hash(world, before->refresh_token, hash);
  return record_remember_spent(record, hash);
}

/* Nothing is known yet of an access token: only when the login was. */
static void leave_expiry_open(struct record *record, const struct world *world)
{
  json_remove(record->json, "expires_at");
  json_remove(record->json, "expiration");
  json_remove(record->json, "expires_in");
  json_remove(record->json, "expires");
  point_into(record, world);
}

bool record_give(struct record *record, struct answer *answer, double since, const struct record *before, bool dead,
                 bool keeps_before, const struct world *world)
{
  struct record told = {.json = answer->fields};
  point_into(&told, world);
  double expires_at = told.expires_at;
  *record = (struct record){.json = cJSON_CreateObject()};
  bool made = record->json && set_origin(record->json, told.refresh_token, world) &&
              carry_origins(record->json, before) && carry_spent(record->json, before) &&
              record_rotate(record, answer, since, world) && shorten(record, expires_at, world) &&
              (!dead || bury_former(record, before, world));
  if (made && !record->access_token) {
    leave_expiry_open(record, world);
    made = !keeps_before || put_aside(record->json, before);
  }
  if (!made)
    record_free(record);
  return made;
}

bool record_is_login(const struct record *record)
{
  return !record->access_token && has(record->json, "obtained_at") && !has(record->json, "expires_at");
}

char *record_write(const struct record *record)
{
  return json_write(record->json);
}

static bool is_needed(const char *name)
{
  static const char *const needed[] = {"access_token", "refresh_token", "token_type", "expires_in", "expires"};
  for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
    if (strcmp(name, needed[i]) == 0)
      return true;
  return is_own_field(name);
}

static bool drop_side_fields(cJSON *json)
{
  bool dropped = false;
  for (cJSON *field = json ? json->child : NULL, *next; field; field = next) {
    next = field->next;
    if (field->string && !is_needed(field->string)) {
      json_free(cJSON_DetachItemViaPointer(json, field));
      dropped = true;
    }
  }
  return dropped;
}

char *record_essentials(const char *text)
{
  cJSON *json = json_read_whole(text, strlen(text));
  char *written = cJSON_IsObject(json) && drop_side_fields(json) ? json_write(json) : NULL;
  json_free(json);
  return written;
}

void record_free(struct record *record)
{
  json_free(record->json);
  *record = (struct record){.expires_at = NAN, .lifetime = NAN};
}

double record_refresh_at(const struct record *record, double before)
{
  if (isnan(record->expires_at))
    return 0;
  double most = record->lifetime * MARGIN_SHARE;
  return record->expires_at - (before > most ? most : before);
}

bool record_implausible(const struct record *record, double now)
{
  return record->expires_at - now > record->lifetime + CLOCK_SLACK;
}

void record_hash(const struct world *world, const char *token, char hash[RECORD_HASH])
{
  unsigned char digest[32];
  world->sha256(token, strlen(token), digest);
  static const char digits[] = "0123456789abcdef";
  for (int i = 0; i < 32; i++) {
    hash[2 * i] = digits[digest[i] >> 4];
    hash[2 * i + 1] = digits[digest[i] & 15];
  }
  hash[2 * 32] = '\0';
}

static double number_or_zero(const cJSON *json, const char *name)
{
  double value = number_or_nan(json, name);
  return isnan(value) ? 0 : value;
}

static void copy_string(char *out, size_t size, const cJSON *json, const char *name, const char *otherwise)
{
  const char *found = json_string(json, name);
  snprintf(out, size, "%s", found ? found : otherwise);
}

bool record_pending(const struct record *record, const struct world *world, struct pending *pending)
{
  const cJSON *mark = cJSON_GetObjectItemCaseSensitive(record->json, "pending");
  const char *of = json_string(mark, "refresh_token_sha256");
  if (!of || !record->refresh_token)
    return false;
  *pending = (struct pending){0};
  record_hash(world, record->refresh_token, pending->refresh_token);
  if (strcmp(of, pending->refresh_token) != 0)
    return false;
  double pid;
  pending->since = number_or_zero(mark, "since");
  pending->steady = number_or_zero(mark, "steady");
  pending->lasts = number_or_zero(mark, "lasts");
  pending->lost = number_or_zero(mark, "lost");
  pending->pid = json_number(mark, "pid", &pid) && fabs(pid) < 1e9 ? (long)pid : 0;
  pending->settles = number_or_zero(mark, "settles");
  copy_string(pending->host, sizeof pending->host, mark, "host", "an unknown host");
  copy_string(pending->lock, sizeof pending->lock, mark, "lock", "");
  copy_string(pending->held, sizeof pending->held, mark, "held", "");
  return true;
}

/* The answer that is kept with the mark of the same refresh token; NULL: none. */
static const char *kept_answer(const struct record *record, const struct pending *pending)
{
  const cJSON *mark = cJSON_GetObjectItemCaseSensitive(record->json, "pending");
  const char *of = json_string(mark, "refresh_token_sha256");
  return of && strcmp(of, pending->refresh_token) == 0 ? json_string(mark, "answer") : NULL;
}

bool record_mark(struct record *record, const struct pending *pending, const char *raw)
{
  cJSON *mark = cJSON_CreateObject();
  if (!raw)
    raw = kept_answer(record, pending);
  if (mark && json_set_string(mark, "refresh_token_sha256", pending->refresh_token) &&
      json_set_number(mark, "since", to_milliseconds(pending->since)) &&
      json_set_number(mark, "steady", to_milliseconds(pending->steady)) &&
      json_set_number(mark, "lasts", pending->lasts) && json_set_number(mark, "pid", (double)pending->pid) &&
      json_set_string(mark, "host", pending->host) &&
      (!*pending->lock || json_set_string(mark, "lock", pending->lock)) &&
      (!*pending->held || json_set_string(mark, "held", pending->held)) &&
      (!(pending->settles > 0) || json_set_number(mark, "settles", pending->settles)) &&
      (!(pending->lost > 0) || json_set_number(mark, "lost", pending->lost)) &&
      (!raw || json_set_string(mark, "answer", raw)))
    return json_set(record->json, "pending", mark);
  json_free(mark);
  return false;
}

bool record_salvage_from(struct record *record, const char *bytes, size_t length)
{
  char *token = record->refresh_token ? answer_salvage(bytes, length, record->refresh_token) : NULL;
  bool taken = token && json_set_string(record->json, "refresh_token", token);
  secret_free(token);
  if (!taken)
    return false;
  json_remove(record->json, "access_token");
  json_remove(record->json, "pending");
  record->access_token = NULL;
  record->refresh_token = usable(record->json, "refresh_token");
  return true;
}

bool record_salvage(struct record *record)
{
  const char *kept = json_string(cJSON_GetObjectItemCaseSensitive(record->json, "pending"), "answer");
  return kept && record_salvage_from(record, kept, strlen(kept));
}

void record_unmark(struct record *record)
{
  json_remove(record->json, "pending");
}

bool record_failure(const struct record *record, const struct world *world, double now, struct failure *failure)
{
  char hash[RECORD_HASH];
  double code;
  const cJSON *found = cJSON_GetObjectItemCaseSensitive(record->json, "failure");
  const char *of = json_string(found, "refresh_token_sha256");
  failure->message = json_string(found, "message");
  if (!of || !record->refresh_token || !failure->message || !json_number(found, "since", &failure->since) ||
      !json_number(found, "until", &failure->until) || !json_number(found, "code", &code) ||
      !(code > (double)CODE_OK && code < (double)CODE_COUNT) || failure->since > now + CLOCK_SLACK)
    return false;
  failure->code = (enum code)code;
  record_hash(world, record->refresh_token, hash);
  return strcmp(of, hash) == 0;
}

bool record_fail(struct record *record, const struct world *world, const struct failure *failure)
{
  char hash[RECORD_HASH];
  cJSON *entry = cJSON_CreateObject();
  record_hash(world, record->refresh_token, hash);
  if (entry && json_set_string(entry, "refresh_token_sha256", hash) &&
      json_set_number(entry, "since", to_milliseconds(failure->since)) &&
      json_set_number(entry, "until", to_milliseconds(failure->until)) &&
      json_set_number(entry, "code", failure->code) && json_set_string(entry, "message", failure->message))
    return json_set(record->json, "failure", entry);
  json_free(entry);
  return false;
}

bool record_came_from(const struct record *record, const char *refresh_token, const struct world *world)
{
  char hash[RECORD_HASH];
  const char *origin = json_string(record->json, "origin");
  record_hash(world, refresh_token, hash);
  if (record->refresh_token && strcmp(record->refresh_token, refresh_token) == 0)
    return true;
  return (origin && strcmp(origin, hash) == 0) || has_hash(record->json, "former_origins", hash) ||
         has_hash(record->json, "spent", hash);
}

bool record_remember_spent(struct record *record, const char hash[RECORD_HASH])
{
  return has_hash(record->json, "spent", hash) || add_hash(record->json, "spent", hash, RECORD_SPENT_MOST);
}

void record_refuse_origin(struct record *record)
{
  if (!record->access_token && has(record->json, "origin"))
    (void)json_set(record->json, "origin_refused", cJSON_CreateTrue());
}

bool record_is_refused(const struct record *record)
{
  return !record->access_token && has(record->json, "origin_refused");
}

const char *record_server(const struct record *record)
{
  return json_string(record->json, "server");
}

bool record_set_server(struct record *record, const char *url)
{
  if (!url)
    return true;
  char *server = strndup(url, origin_length(url));
  bool set = server && json_set_string(record->json, "server", server);
  free(server);
  return set;
}
