#define _GNU_SOURCE
#include "ledger.h"

#include "../base/hash.h"
#include "disk.h"

#include <stdint.h>
#include <string.h>

/* An entry: its content, its number (1 and up; names: 1), and a checksum over both, in a fixed byte order, since
 * machines of several kinds may share a disk. */
enum { SAID = 32, ENTRY = SAID + 16, NAMES_FROM = LEDGER_FROM, SPENT_FROM = NAMES_FROM + LEDGER_NAMES * ENTRY };

_Static_assert(SPENT_FROM + LEDGER_SPENT * ENTRY <= LEDGER_END, "the ledger has to fit in front of the generation");

struct entry {
  unsigned char said[SAID];
  uint64_t number; /* 0: there is none */
};

static void put_number_bytes(unsigned char *bytes, uint64_t number)
{
  for (int i = 0; i < 8; i++)
    bytes[i] = (unsigned char)(number >> 8 * i);
}

static uint64_t number_in(const unsigned char *bytes)
{
  uint64_t number = 0;
  for (int i = 0; i < 8; i++)
    number |= (uint64_t)bytes[i] << 8 * i;
  return number;
}

/* The checksum finds accidents, not forgery: only the owner may write here. */
static uint64_t sum_of(const unsigned char *bytes)
{
  return hash_bytes(bytes, SAID + 8);
}

static struct entry entry_in(const unsigned char bytes[ENTRY])
{
  struct entry entry = {.number = number_in(bytes + SAID)};
  memcpy(entry.said, bytes, SAID);
  if (entry.number != 0 && number_in(bytes + SAID + 8) != sum_of(bytes))
    entry.number = 0;
  return entry;
}

static bool put_entry(int fd, int from, int place, const struct entry *entry)
{
  unsigned char bytes[ENTRY];
  memcpy(bytes, entry->said, SAID);
  put_number_bytes(bytes + SAID, entry->number);
  put_number_bytes(bytes + SAID + 8, sum_of(bytes));
  return disk_write_at(fd, bytes, sizeof bytes, (off_t)from + place * ENTRY);
}

/* False: the file is too short, or cannot be read. */
static bool read_ledger(int fd, unsigned char bytes[LEDGER_END])
{
  size_t length = LEDGER_END;
  return disk_read(fd, (char *)bytes, &length) && length == LEDGER_END;
}

/* ---- names ---- */

bool ledger_is_name(const char *name)
{
  return strlen(name) == LEDGER_NAME - 1 && strspn(name, "0123456789abcdef") == LEDGER_NAME - 1;
}

bool ledger_put_name(int fd, int place, const char *name)
{
  struct entry entry = {.number = 1};
  memcpy(entry.said, name, LEDGER_NAME - 1);
  return put_entry(fd, NAMES_FROM, place, &entry);
}

void ledger_names(int fd, char names[LEDGER_NAMES][LEDGER_NAME])
{
  unsigned char bytes[LEDGER_END];
  bool read = read_ledger(fd, bytes);
  for (int i = 0; i < LEDGER_NAMES; i++) {
    struct entry entry = {.number = 0};
    if (read)
      entry = entry_in(bytes + NAMES_FROM + i * ENTRY);
    memcpy(names[i], entry.said, LEDGER_NAME - 1);
    names[i][LEDGER_NAME - 1] = '\0';
    if (entry.number == 0 || !ledger_is_name(names[i]))
      names[i][0] = '\0';
  }
}

/* ---- spent refresh tokens ---- */

static int digit_of(char letter)
{
  if (letter >= '0' && letter <= '9')
    return letter - '0';
  return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

static bool from_hex(const char *hash, unsigned char said[SAID])
{
  for (int i = 0; i < SAID; i++) {
    int high = digit_of(hash[2 * i]), low = high < 0 ? -1 : digit_of(hash[2 * i + 1]);
    if (low < 0)
      return false;
    said[i] = (unsigned char)(high << 4 | low);
  }
  return hash[2 * SAID] == '\0';
}

static uint64_t last_number(const unsigned char *bytes)
{
  uint64_t last = 0;
  for (int i = 0; i < LEDGER_SPENT; i++) {
    struct entry entry = entry_in(bytes + SPENT_FROM + i * ENTRY);
    last = entry.number > last ? entry.number : last;
  }
  return last;
}

void ledger_spend(int fd, const char *hash)
{
  unsigned char bytes[LEDGER_END];
  struct entry entry;
  if (!from_hex(hash, entry.said) || !read_ledger(fd, bytes))
    return;
  uint64_t last = last_number(bytes);
  struct entry before = entry_in(bytes + SPENT_FROM + (int)(last % LEDGER_SPENT) * ENTRY);
  if (last > 0 && before.number == last && memcmp(before.said, entry.said, SAID) == 0)
    return; /* it is sent again */
  entry.number = last + 1;
  (void)put_entry(fd, SPENT_FROM, (int)(entry.number % LEDGER_SPENT), &entry);
}

static char *put_hex(char *end, const unsigned char said[SAID])
{
  for (int i = 0; i < SAID; i++) {
    *end++ = "0123456789abcdef"[said[i] >> 4];
    *end++ = "0123456789abcdef"[said[i] & 15];
  }
  return end;
}

void ledger_spent(int fd, char text[LEDGER_TEXT])
{
  unsigned char bytes[LEDGER_END];
  char *end = text;
  *text = '\0';
  if (!read_ledger(fd, bytes))
    return;
  uint64_t last = last_number(bytes);
  for (uint64_t back = LEDGER_SPENT; back-- > 0;) {
    struct entry entry = entry_in(bytes + SPENT_FROM + (int)((last - back) % LEDGER_SPENT) * ENTRY);
    if (entry.number == 0)
      continue;
    if (end > text)
      *end++ = ' ';
    end = put_hex(end, entry.said);
  }
  *end = '\0';
}
