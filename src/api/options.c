#include "client.h"

#include "../base/secret.h"
#include "../http/digest.h"
#include "../http/http.h"
#include "../oauth/origin.h"
#include "../system/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PARAMETERS_MOST = 100, SHOWN_MOST = 60 };

static const char lucid_api[] = "https://api.lucid.co";

/* Thirty years: a 32-bit clock can still count a sum of such spans. */
#define SECONDS_MOST 1e9

static const char *given_or_env(const char *given, const char *variable)
{
  const char *value = given ? given : getenv(variable);
  return value && (given || *value) ? value : NULL;
}

/* `url` as given, or `path` below the API's URL. NULL: out of memory. */
static char *url_below(const char *api_url, const char *url, const char *path)
{
  if (url)
    return strdup(url);
  size_t length = strlen(api_url);
  while (length > 0 && api_url[length - 1] == '/')
    length--;
  char *made = malloc(length + strlen(path) + 1);
  if (made)
    stpcpy(stpncpy(made, api_url, length), path);
  return made;
}

static bool check_url(const char *url, const char *option, lucidauth_error *error)
{
  const char *problem = http_url_problem(url);
  if (problem)
    error_set(error, LUCIDAUTH_CONFIG, "%s cannot be used: %s. Nothing was sent or changed.", option, problem);
  return !problem;
}

static bool check_seconds(double value, const char *option, lucidauth_error *error)
{
  if (value >= 0 && value <= SECONDS_MOST)
    return true;
  error_set(error, LUCIDAUTH_CONFIG, "The option %s must be a number of seconds, from 0 to %.0f.", option,
            SECONDS_MOST);
  return false;
}

static bool check_count(size_t value, const char *option, lucidauth_error *error)
{
  if (value > 0)
    return true;
  error_set(error, LUCIDAUTH_CONFIG, "The option %s must be 1 or more.", option);
  return false;
}

static bool check_choice(int value, int last, const char *option, lucidauth_error *error)
{
  if (value >= 0 && value <= last)
    return true;
  error_set(error, LUCIDAUTH_CONFIG, "The option %s has the value %d, which lucidauth.h does not have.", option, value);
  return false;
}

static bool check_token(const char *token, const char *option, lucidauth_error *error)
{
  for (const char *p = token; p && *p; p++)
    if ((unsigned char)*p < 0x20 || *p == 0x7F) {
      error_set(error, LUCIDAUTH_CONFIG, "%s holds a control character, a line break perhaps: set it again without.",
                option);
      return false;
    }
  return true;
}

static bool check_client_id(const char *client_id, lucidauth_error *error)
{
  if (!client_id || *client_id)
    return check_token(client_id, "LUCID_CLIENT_ID (option client_id)", error);
  error_set(error, LUCIDAUTH_CONFIG,
            "The option client_id is empty. The provider shows the client id with your app, Lucid in its developer "
            "portal; without the option it is taken from LUCID_CLIENT_ID.");
  return false;
}

/* The value may be a secret, and so may a name that is none. */
static bool check_parameter(const char *name, const char *value, lucidauth_error *error)
{
  const char *problem = request_parameter_problem(name);
  if (!problem && *value)
    return true;
  if (problem)
    error_set(error, LUCIDAUTH_CONFIG, "The option token_parameters %s. Nothing was sent or changed.", problem);
  else
    error_set(error, LUCIDAUTH_CONFIG, "The option token_parameters has an empty value for %.*s; leave it out instead.",
              SHOWN_MOST, name);
  return false;
}

static bool check_parameters(const struct options *options, lucidauth_error *error)
{
  int count = 0;
  for (const char *const *p = options->token_parameters; p && *p; p += 2)
    if (!check_parameter(p[0], p[1], error))
      return false;
    else
      count++;
  if (count <= PARAMETERS_MOST)
    return true;
  error_set(error, LUCIDAUTH_CONFIG, "The option token_parameters has more than %d fields.", PARAMETERS_MOST);
  return false;
}

static bool check(const struct options *options, const lucidauth_options *given, lucidauth_error *error)
{
  const char *api = given->api_url ? "The option api_url" : "LUCID_API_URL (option api_url)";
  return check_client_id(options->client_id, error) &&
         check_token(options->client_secret, "LUCID_CLIENT_SECRET (option client_secret)", error) &&
         check_token(options->refresh_token, "LUCID_REFRESH_TOKEN (option refresh_token)", error) &&
         check_url(options->accounts.endpoints.token_url, given->token_url ? "The option token_url" : api, error) &&
         (!*options->accounts.endpoints.introspection_url ||
          check_url(options->accounts.endpoints.introspection_url,
                    given->introspection_url ? "The option introspection_url" : api, error)) &&
         check_seconds(given->refresh_before, "refresh_before", error) &&
         check_seconds(given->refresh_wait, "refresh_wait", error) && check_seconds(given->timeout, "timeout", error) &&
         check_seconds(given->lock_timeout, "lock_timeout", error) &&
         check_seconds(given->default_lifetime, "default_lifetime", error) &&
         check_count(given->max_accounts, "max_accounts", error) &&
         check_choice((int)given->storage, LUCIDAUTH_CUSTOM, "storage", error) &&
         check_choice((int)given->token_request, LUCIDAUTH_USUAL, "token_request", error) &&
         check_parameters(options, error);
}

static bool is_relative(const char *path)
{
  return path && *path && *path != '/';
}

static bool uses_path(const struct options *options)
{
  return options->accounts.storage == LUCIDAUTH_FILE || options->accounts.storage == LUCIDAUTH_DIRECTORY;
}

/* Find out where relative paths start from, while it can be known. */
static bool find_base(struct options *options, const lucidauth_options *given, lucidauth_error *error)
{
  bool storage = uses_path(options) && is_relative(options->path), authorities = is_relative(given->ca_file);
  options->base = storage || authorities ? getcwd(NULL, 0) : NULL;
  if (options->base || !(storage || authorities))
    return true;
  error_set(error, LUCIDAUTH_CONFIG,
            "The present folder, where %.200s starts from, cannot be found: %s. Nothing was changed. Give an absolute "
            "path (%s).",
            storage ? options->path : given->ca_file, strerror(errno),
            storage ? "LUCID_TOKEN_FILE, or the option storage" : "the option ca_file");
  return false;
}

/* 0, or why no byte of the file can be read. */
static int try_reading(const char *path)
{
  char byte;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  int cause = fd < 0 || read(fd, &byte, 1) < 0 ? errno : 0;
  if (fd >= 0)
    close(fd);
  return cause;
}

/* A mistake in it would look like a fault of the network at the first refresh. */
static bool find_authorities(struct options *options, const char *path, lucidauth_error *error)
{
  if (!path)
    return true;
  size_t size = strlen(path) + (options->base ? strlen(options->base) : 0) + 2;
  options->accounts.endpoints.ca_file = malloc(size);
  if (options->accounts.endpoints.ca_file)
    snprintf(options->accounts.endpoints.ca_file, size, "%s%s%s", is_relative(path) ? options->base : "",
             is_relative(path) ? "/" : "", path);
  int cause = options->accounts.endpoints.ca_file ? try_reading(options->accounts.endpoints.ca_file) : ENOMEM;
  if (cause)
    error_set(error, LUCIDAUTH_CONFIG,
              "The option ca_file names %.200s, which cannot be read: %s. Nothing was sent or changed. Give the path "
              "of a PEM file that this program's user may read.",
              path, strerror(cause));
  return !cause;
}

static char *this_host(void)
{
  char name[256] = "";
  if (gethostname(name, sizeof name - 1) != 0 || !name[0])
    return strdup("localhost");
  return strdup(name);
}

/* Another provider's secrets are not for the API that this one's endpoint has nothing to do with. */
static char *introspection_url(const char *api_url, const lucidauth_options *given)
{
  if (given->token_url && !given->introspection_url)
    return strdup("");
  return url_below(api_url, given->introspection_url, "/oauth2/token/introspect");
}

/* Their number is looked at later. A name without a value gets an empty one, which is refused. */
static bool copy_parameters(struct options *options, const char *const *given)
{
  size_t count = 0;
  while (given && given[count])
    count += given[count + 1] ? 2 : 1;
  if (count == 0)
    return true;
  options->token_parameters = calloc(count + 2, sizeof *options->token_parameters);
  if (!options->token_parameters)
    return false;
  for (size_t i = 0; i < count + count % 2; i++) {
    options->token_parameters[i] = secret_copy(i < count ? given[i] : "");
    if (!options->token_parameters[i])
      return false;
  }
  return true;
}

static bool copy_strings(struct options *options, const lucidauth_options *given)
{
  static const char *const default_path = "./token_info.json";
  const char *api_url = given_or_env(given->api_url, "LUCID_API_URL");
  const char *path = given_or_env(given->path, "LUCID_TOKEN_FILE");
  const char *id = given_or_env(given->client_id, "LUCID_CLIENT_ID");
  const char *secret = given_or_env(given->client_secret, "LUCID_CLIENT_SECRET");
  const char *refresh_token = given_or_env(given->refresh_token, "LUCID_REFRESH_TOKEN");
  api_url = api_url ? api_url : lucid_api;
  options->client_id = secret_copy(id);
  options->client_secret = secret_copy(secret);
  options->refresh_token = secret_copy(refresh_token && *refresh_token ? refresh_token : NULL);
  options->path = strdup(path ? path : default_path);
  options->host = this_host();
  options->accounts.endpoints.token_url = url_below(api_url, given->token_url, "/oauth2/token");
  options->accounts.endpoints.introspection_url = introspection_url(api_url, given);
  return copy_parameters(options, given->token_parameters) && (options->client_id || !id) &&
         (options->client_secret || !secret) && options->path && options->host &&
         options->accounts.endpoints.token_url && options->accounts.endpoints.introspection_url;
}

static enum request_style style_of(lucidauth_token_request wanted, bool another_provider)
{
  if (wanted != LUCIDAUTH_USUAL)
    return (enum request_style)wanted;
  return another_provider ? REQUEST_FORM : REQUEST_JSON;
}

static const char *storage_name(const struct options *options)
{
  switch (options->accounts.storage) {
  case LUCIDAUTH_MEMORY:
    return "in memory";
  case LUCIDAUTH_CUSTOM:
    return "of this program (its functions load and save)";
  default:
    return options->path;
  }
}

static void fill_settings(struct options *options, const lucidauth_options *given)
{
  bool another = given->token_url && !origin_is_same(given->token_url, lucid_api);
  options->accounts.flow = (struct flow_settings){
      .credentials = {.client_id = options->client_id,
                      .client_secret = options->client_secret,
                      .style = style_of(given->token_request, another),
                      .parameters = options->token_parameters},
      .refresh_token = options->refresh_token,
      .token_url = options->accounts.endpoints.token_url,
      .storage = storage_name(options),
      .refresh_before = given->refresh_before,
      .refresh_wait = given->refresh_wait,
      .timeout = given->timeout,
      .lock_timeout = given->lock_timeout,
      .default_lifetime = given->default_lifetime,
      .introspection = *options->accounts.endpoints.introspection_url != '\0',
      .reads_back = options->accounts.storage == LUCIDAUTH_CUSTOM,
      .another_provider = another,
      .pid = (long)getpid(),
      .host = options->host,
      .world = {.to_local = clock_to_local, .from_local = clock_from_local, .sha256 = digest_sha256}};
}

bool options_copy(struct options *options, const lucidauth_options *given, lucidauth_error *error)
{
  *options = (struct options){
      .accounts = {.storage = given->storage, .background = given->background, .hold_signals = given->hold_signals},
      .max_accounts = given->max_accounts,
      .on_event = given->on_event,
      .on_event_data = given->on_event_data};
  if (!copy_strings(options, given)) {
    error_set(error, LUCIDAUTH_CONFIG, "There is not enough memory for a client.");
    return false;
  }
  if (!check(options, given, error) || !find_base(options, given, error) ||
      !find_authorities(options, given->ca_file, error))
    return false;
  options->accounts.path = options->path;
  options->accounts.base = options->base;
  fill_settings(options, given);
  return true;
}

void options_free(struct options *options)
{
  for (const char **p = options->token_parameters; p && *p; p++)
    secret_free((char *)*p);
  free(options->token_parameters);
  secret_free(options->client_id);
  secret_free(options->client_secret);
  secret_free(options->refresh_token);
  free(options->accounts.endpoints.ca_file);
  free(options->base);
  free(options->path);
  free(options->host);
  free(options->accounts.endpoints.token_url);
  free(options->accounts.endpoints.introspection_url);
}
