#define _DEFAULT_SOURCE
#include "place.h"

#include "../base/quote.h"
#include "disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void place_out_of_memory(struct store_error *error)
{
  error->code = CODE_STORAGE;
  snprintf(error->message, sizeof error->message, "the token storage cannot be set up: this process is out of memory.");
}

void place_refuse(struct store_error *error, const char *what, const char *value, const char *why)
{
  char shown[200];
  error->code = CODE_CONFIG;
  snprintf(error->message, sizeof error->message, "%s \"%s\" %s", what, quote_escape(shown, sizeof shown, value), why);
}

char *place_join(const char *first, const char *second, const char *third)
{
  if (!first || !second || !third)
    return NULL;
  char *joined = malloc(strlen(first) + strlen(second) + strlen(third) + 1);
  if (joined)
    stpcpy(stpcpy(stpcpy(joined, first), second), third);
  return joined;
}

char *place_absolute(const char *path, const char *base, struct store_error *error)
{
  if (*path == '/')
    base = "";
  char *here = base ? strdup(base) : getcwd(NULL, 0);
  if (!here && errno != ENOMEM) {
    disk_fail(error, "find the present folder for", path, errno);
    return NULL;
  }
  char *joined = place_join(here, *path == '/' ? "" : "/", path);
  free(here);
  if (!joined)
    place_out_of_memory(error);
  return joined;
}

char *place_folder(const char *path)
{
  char *folder = strdup(path);
  if (!folder)
    return NULL;
  char *slash = strrchr(folder, '/');
  slash[slash == folder] = '\0';
  return folder;
}

bool place_is_file(const char *path, struct store_error *error)
{
  if (!path || !*path) {
    place_refuse(error, "The path of the token file", "",
                 "is empty: give the path of a file (LUCID_TOKEN_FILE, or the option storage).");
    return false;
  }
  const char *slash = strrchr(path, '/');
  const char *last = slash ? slash + 1 : path;
  if (*last && strcmp(last, ".") != 0 && strcmp(last, "..") != 0)
    return true;
  place_refuse(error, "The path of the token file", path,
               "is that of a folder: give the path of a file (LUCID_TOKEN_FILE, or the option storage).");
  return false;
}

static bool needs_no_encoding(const char *account, size_t position)
{
  char byte = account[position];
  bool inner = position > 0 && account[position + 1] != '\0';
  return strchr("abcdefghijklmnopqrstuvwxyz0123456789-_@", byte) || (byte == '.' && inner);
}

char *place_file_name(const char *account)
{
  const char *ending = ".json";
  char *name = malloc(3 * strlen(account) + strlen(ending) + 1);
  if (!name)
    return NULL;
  char *end = name;
  for (size_t i = 0; account[i]; i++) {
    if (needs_no_encoding(account, i)) {
      *end++ = account[i];
    } else {
      unsigned byte = (unsigned char)account[i];
      *end++ = '%';
      *end++ = "0123456789ABCDEF"[byte / 16];
      *end++ = "0123456789ABCDEF"[byte % 16];
    }
  }
  memcpy(end, ending, strlen(ending) + 1);
  return name;
}

bool place_fits_folder(const char *name, struct store_error *error)
{
  if (strlen(name) + strlen(".lock") <= 255)
    return true;
  place_refuse(error, "The account's file", name, "has too long a name: choose a shorter one.");
  return false;
}
