#include "quote.h"

#include "character.h"
#include "secret.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { WORD_MOST = 19, NAME_MOST = 60, RUN = 8, SHORTEST = 4 };

/* ---- shapes of text ---- */

/* Whether all characters are allowed and no word is too long. `ends` is true for a character that ends a word. */
static bool is_made_of(const char *text, bool (*allowed)(char), bool (*ends)(char))
{
  int word = 0;
  for (; *text; text++) {
    word = ends(*text) ? 0 : word + 1;
    if (!allowed(*text) || word > WORD_MOST)
      return false;
  }
  return true;
}

static bool is_of_name(char c)
{
  return ascii_is_alphanumeric(c) || strchr("._-:[]", c);
}

static bool is_plain(char c)
{
  return c >= ' ' && c <= '~' && !strchr("%\\&", c);
}

static bool is_no_letter(char c)
{
  return !ascii_is_alphanumeric(c);
}

static bool ends_word(char c)
{
  return c == ' ';
}

bool quote_is_name(const char *text)
{
  return *text && strlen(text) <= NAME_MOST && is_made_of(text, is_of_name, is_no_letter);
}

bool quote_is_prose(const char *text)
{
  return *text && is_made_of(text, is_plain, ends_word);
}

bool quote_is_report(const char *text)
{
  return *text && is_made_of(text, is_plain, is_no_letter);
}

/* ---- traces of a secret ---- */

/* The runs of a text, of which it has fewer than there are slots. Each is RUN bytes in one number, never 0. */
enum { SLOTS = 1024 };

struct runs {
  uint64_t slots[SLOTS];
};

static size_t slot_of(uint64_t run)
{
  return (size_t)((run * UINT64_C(0x9E3779B97F4A7C15)) >> 54);
}

static void add_run(struct runs *runs, uint64_t run)
{
  size_t slot = slot_of(run);
  while (runs->slots[slot] && runs->slots[slot] != run)
    slot = (slot + 1) % SLOTS;
  runs->slots[slot] = run;
}

static bool has_run(const struct runs *runs, uint64_t run)
{
  for (size_t slot = slot_of(run); runs->slots[slot]; slot = (slot + 1) % SLOTS)
    if (runs->slots[slot] == run)
      return true;
  return false;
}

/* The last RUN bytes that went by. */
struct window {
  uint64_t run;
  int count;
};

static bool is_full(struct window *window, char c)
{
  window->run = window->run << 8 | (unsigned char)c;
  return ++window->count >= RUN;
}

static void add_runs(struct runs *runs, const char *text)
{
  struct window window = {0};
  for (; *text; text++)
    if (is_full(&window, *text))
      add_run(runs, window.run);
}

/* A text as it is searched for parts of secrets: in lower case, and with all but its letters and digits taken out, both
 * ways. */
struct sought {
  char whole[QUOTE_TEXT + 1], joined[QUOTE_TEXT + 1], backwards[QUOTE_TEXT + 1];
  struct runs runs;
};

static bool seek(struct sought *sought, const char *text)
{
  size_t length = 0, joined = 0;
  *sought = (struct sought){0};
  for (; text[length]; length++) {
    if (length == QUOTE_TEXT)
      return false;
    sought->whole[length] = ascii_lower(text[length]);
    if (ascii_is_alphanumeric(text[length]))
      sought->joined[joined++] = ascii_lower(text[length]);
  }
  for (size_t i = 0; i < joined; i++)
    sought->backwards[i] = sought->joined[joined - 1 - i];
  add_runs(&sought->runs, sought->whole);
  add_runs(&sought->runs, sought->joined);
  add_runs(&sought->runs, sought->backwards);
  return true;
}

static bool shows_as_it_is(const struct sought *sought, const char *secret)
{
  struct window whole = {0}, joined = {0};
  for (; *secret; secret++) {
    char c = ascii_lower(*secret);
    if (is_full(&whole, c) && has_run(&sought->runs, whole.run))
      return true;
    if (ascii_is_alphanumeric(c) && is_full(&joined, c) && has_run(&sought->runs, joined.run))
      return true;
  }
  return false;
}

/* One digit went by. */
static bool has_digit(const struct sought *sought, struct window *window, char digit)
{
  return ascii_is_alphanumeric(digit) && is_full(window, digit) && has_run(&sought->runs, window->run);
}

/* Digits of `bits` bits each, as base64 (6), base32 (5) and hexadecimal (4) have them, in lower case; the last one is
 * filled up with zeros. */
static bool shows_encoded(const struct sought *sought, const char *secret, const char *digits, int bits)
{
  struct window window = {0};
  unsigned value = 0, mask = (1U << bits) - 1;
  int left = 0;
  for (; *secret; secret++) {
    value = (value << 8 | (unsigned char)*secret) & 0xFFFF;
    for (left += 8; left >= bits; left -= bits)
      if (has_digit(sought, &window, digits[value >> (left - bits) & mask]))
        return true;
  }
  return left > 0 && has_digit(sought, &window, digits[value << (bits - left) & mask]);
}

/* Text in front of the secret shifts its digits, so each shift is tried until they repeat. */
static bool shows_shifted(const struct sought *sought, const char *secret, const char *digits, int bits, int shifts)
{
  for (; shifts > 0 && *secret; shifts--, secret++)
    if (shows_encoded(sought, secret, digits, bits))
      return true;
  return false;
}

/* All of a secret that is too short to have runs. */
static bool shows_short(const struct sought *sought, const char *secret)
{
  char whole[RUN] = "", joined[RUN] = "";
  size_t length = 0, letters = 0;
  for (; *secret; secret++) {
    if (letters < RUN && ascii_is_alphanumeric(*secret) && ++letters < RUN)
      joined[letters - 1] = ascii_lower(*secret);
    if (length < RUN && ++length < RUN)
      whole[length - 1] = ascii_lower(*secret);
  }
  bool shown =
      (length >= SHORTEST && length < RUN && strstr(sought->whole, whole)) ||
      (letters >= SHORTEST && letters < RUN && (strstr(sought->joined, joined) || strstr(sought->backwards, joined)));
  secret_wipe(whole, sizeof whole);
  secret_wipe(joined, sizeof joined);
  return shown;
}

static bool shows_secret(const struct sought *sought, const char *secret)
{
  static const char base64[] = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz0123456789+/";
  static const char base32[] = "abcdefghijklmnopqrstuvwxyz234567";
  static const char hex[] = "0123456789abcdef";
  return shows_as_it_is(sought, secret) || shows_short(sought, secret) || shows_encoded(sought, secret, hex, 4) ||
         shows_shifted(sought, secret, base64, 6, 3) || shows_shifted(sought, secret, base32, 5, 5);
}

/* "access_token", "refreshToken", "client_secret" and the like, but not "token_type". */
static bool names_secret(const char *name)
{
  static const char *const parts[] = {"token", "secret", "password", "assertion", "verifier"};
  char joined[32] = "";
  size_t length = 0;
  for (; name && *name && length < sizeof joined - 1; name++)
    if (ascii_is_alphanumeric(*name))
      joined[length++] = ascii_lower(*name);
  if (strstr(joined, "type") || strstr(joined, "expire"))
    return false;
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
    if (strstr(joined, parts[i]))
      return true;
  return false;
}

static bool shows_of_body(const struct sought *sought, const cJSON *item, bool secret)
{
  if (secret && cJSON_IsString(item) && shows_secret(sought, item->valuestring))
    return true;
  for (const cJSON *child = item ? item->child : NULL; child; child = child->next)
    if (shows_of_body(sought, child, secret || names_secret(child->string)))
      return true;
  return false;
}

bool quote_is_safe(const char *text, const struct quote_secrets *secrets)
{
  struct sought sought;
  bool safe = seek(&sought, text) && !shows_of_body(&sought, secrets->body, false);
  for (size_t i = 0; safe && i < secrets->count; i++)
    safe = !secrets->known[i] || !shows_secret(&sought, secrets->known[i]);
  secret_wipe(&sought, sizeof sought);
  return safe;
}

/* ---- for people ---- */

static unsigned code_point(const char *text, size_t length)
{
  static const unsigned char first[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
  unsigned code = (unsigned char)*text & first[length];
  for (size_t i = 1; i < length; i++)
    code = code << 6 | ((unsigned char)text[i] & 0x3F);
  return code;
}

/* Control characters, and invisible ones that change how the others are shown. */
static bool is_unseen(unsigned code)
{
  static const unsigned ranges[][2] = {
      {0x00, 0x1F},     {0x7F, 0x9F},     {0xAD, 0xAD},     {0x034F, 0x034F}, {0x061C, 0x061C},  {0x115F, 0x1160},
      {0x17B4, 0x17B5}, {0x180B, 0x180E}, {0x200B, 0x200F}, {0x2028, 0x202E}, {0x2060, 0x206F},  {0x3164, 0x3164},
      {0xFE00, 0xFE0F}, {0xFEFF, 0xFEFF}, {0xFFA0, 0xFFA0}, {0xFFF0, 0xFFFB}, {0xE0000, 0xE0FFF}};
  for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
    if (code >= ranges[i][0] && code <= ranges[i][1])
      return true;
  return false;
}

enum { SHOWN = 12 };

/* One character as it is shown; returns how many bytes of the text it was. */
static size_t show_character(char shown[SHOWN], const char *text)
{
  static const char escapes[] = "\nn\tt\rr";
  size_t length = utf8_length(text, UTF8_LONGEST);
  unsigned code = length > 0 ? code_point(text, length) : (unsigned char)*text;
  for (const char *escape = escapes; *escape; escape += 2)
    if (*text == *escape) {
      snprintf(shown, SHOWN, "\\%c", escape[1]);
      return 1;
    }
  if (length == 0 || (is_unseen(code) && code < 0x80))
    snprintf(shown, SHOWN, "\\x%02x", code);
  else if (is_unseen(code))
    snprintf(shown, SHOWN, code > 0xFFFF ? "\\U%08x" : "\\u%04x", code);
  else
    snprintf(shown, SHOWN, "%.*s", (int)length, text);
  return length > 0 ? length : 1;
}

char *quote_escape(char *out, size_t size, const char *text)
{
  static const char ellipsis[] = "...";
  size_t used = 0, fits = 0;
  while (text && *text) {
    char shown[SHOWN];
    text += show_character(shown, text);
    size_t length = strlen(shown);
    if (used + length >= size) {
      snprintf(out + fits, size - fits, "%s", ellipsis);
      return out;
    }
    memcpy(out + used, shown, length);
    used += length;
    if (used + sizeof ellipsis <= size)
      fits = used;
  }
  out[used] = '\0';
  return out;
}
