#include "messages.h"

#include "../base/quote.h"
#include "../oauth/origin.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const char message_keeps_changing[] = "Another program keeps changing the token record.";

const char message_no_memory_to_write[] = "There is not enough memory to store what the server sent.";

const char message_kept[] = "The stored tokens are untouched.";
const char message_distrusted[] = "Nothing was sent, and the stored tokens are untouched. If the server's certificate "
                                  "comes from an authority of your "
                                  "own, name that authority's PEM file with the option ca_file.";
const char message_no_introspection[] =
    " The introspection endpoint refuses to answer; if this app may not use it, say introspection_url = false.";

/* Providers differ in how they want a client to name itself. */
static const char *advice_of_another(const struct flow_settings *settings, enum code code)
{
  const char *secret = settings->credentials.client_secret;
  switch (code) {
  case CODE_INVALID_CLIENT:
    return secret && *secret
               ? " Check LUCID_CLIENT_ID and LUCID_CLIENT_SECRET (options client_id and client_secret), and that the "
                 "app is still enabled at the provider. A provider may want them in another way (option token_request: "
                 "\"form\", \"basic\" or \"json\"), and of an app without a secret none (client_secret = false)."
               : " Check LUCID_CLIENT_ID (option client_id), and that the app is still enabled at the provider. This "
                 "client sends no secret (client_secret = false): if the app has one, set LUCID_CLIENT_SECRET.";
  case CODE_INVALID_GRANT:
  case CODE_LOST_ROTATION:
    return " Log in to the provider again and configure the refresh token that you get (LUCID_REFRESH_TOKEN, or the "
           "option refresh_token): it takes the dead one's place.";
  case CODE_NETWORK:
  case CODE_TIMEOUT:
    return " Check the network and the option token_url; a later call tries again.";
  case CODE_BAD_RESPONSE:
    return " Check the option token_url: is this the provider's token endpoint, with nothing in between? It may also "
           "want the request in another form (option token_request: \"form\", \"basic\" or \"json\"), or with more "
           "fields (option token_parameters).";
  default:
    return "";
  }
}

/* Names that come from outside, as they may be shown. */
enum { NAME = 120, PLACE = 180, ACCOUNT = 70, STORAGE = 280, ADVICE = 200 };

/* A configured refresh token is the default account's. */
static void put_advice_of_account(char out[ADVICE], const struct flow_settings *settings)
{
  char account[ACCOUNT];
  quote_escape(account, sizeof account, settings->account);
  snprintf(out, ADVICE, " Log in again as this account, and store the answer: client:store(answer, \"%s\").", account);
}

static const char *advice(char of_account[ADVICE], const struct flow_settings *settings, enum code code)
{
  if (settings->account && (code == CODE_INVALID_GRANT || code == CODE_LOST_ROTATION)) {
    put_advice_of_account(of_account, settings);
    return of_account;
  }
  const char *of_another = settings->another_provider ? advice_of_another(settings, code) : "";
  if (*of_another)
    return of_another;
  switch (code) {
  case CODE_INVALID_CLIENT:
    return " Check LUCID_CLIENT_ID and LUCID_CLIENT_SECRET (options client_id and client_secret), and ask an admin of "
           "your Lucid account whether the app is still enabled.";
  case CODE_INVALID_GRANT:
  case CODE_LOST_ROTATION:
    return " Log in to Lucid again and configure the refresh token that you get (LUCID_REFRESH_TOKEN, or the option "
           "refresh_token): it takes the dead one's place.";
  case CODE_NETWORK:
  case CODE_TIMEOUT:
    return " Check the network and LUCID_API_URL (option api_url); a later call tries again.";
  case CODE_RATE_LIMITED:
  case CODE_SERVER_ERROR:
    return " A later call tries again.";
  case CODE_BAD_RESPONSE:
    return " Check LUCID_API_URL (options api_url and token_url): is this the token endpoint, with nothing in between?";
  default:
    return "";
  }
}

void message_capitalize(char *sentence)
{
  if (*sentence >= 'a' && *sentence <= 'z')
    *sentence = (char)(*sentence - 'a' + 'A');
}

void message_explain(char out[FLOW_MESSAGE], const struct flow_settings *settings, enum code code, const char *what,
                     const char *safe)
{
  char account[NAME], of_account[ADVICE];
  quote_escape(account, sizeof account, settings->account);
  const char *of = settings->account ? "for the account \"" : "", *end = settings->account ? "\": " : "";
  snprintf(out, FLOW_MESSAGE, "%s%s%s%s%s%s%s", of, account, end, what,
           *what && what[strlen(what) - 1] != '.' ? ". " : " ", safe, advice(of_account, settings, code));
  message_capitalize(out);
}

void message_add(char message[FLOW_MESSAGE], const char *sentence)
{
  size_t length = strlen(message);
  if (length + strlen(sentence) < FLOW_MESSAGE)
    snprintf(message + length, FLOW_MESSAGE - length, "%s", sentence);
}

void message_name_app(char message[FLOW_MESSAGE], const struct flow_settings *settings, const char *app)
{
  char theirs[NAME], ours[NAME], sentence[FLOW_MESSAGE];
  quote_escape(theirs, sizeof theirs, app);
  quote_escape(ours, sizeof ours, settings->credentials.client_id);
  snprintf(sentence, sizeof sentence,
           " By their record the stored tokens belong to the app %s, and this client is %s (LUCID_CLIENT_ID, option "
           "client_id): if they are two, give each a token storage of its own.",
           theirs, ours);
  message_add(message, sentence);
}

static const char *missing_at_another(const struct flow_settings *settings)
{
  if (!settings->credentials.client_id)
    return "A refresh is due, but LUCID_CLIENT_ID (option client_id) is not set. The provider shows it with your app. "
           "The stored tokens are untouched.";
  if (!settings->credentials.client_secret)
    return "A refresh is due, but LUCID_CLIENT_SECRET (option client_secret) is not set. The provider shows it with "
           "your app; if the app has none, say so by client_secret = false (in C: \"\"). The stored tokens are "
           "untouched.";
  return NULL;
}

const char *message_missing_setting(const struct flow_settings *settings)
{
  if (settings->another_provider)
    return missing_at_another(settings);
  if (!settings->credentials.client_id)
    return "A refresh is due, but LUCID_CLIENT_ID (option client_id) is not set. It stands in Lucid's developer "
           "portal, with your app. The stored tokens are untouched.";
  if (!settings->credentials.client_secret)
    return "A refresh is due, but LUCID_CLIENT_SECRET (option client_secret) is not set. It stands in Lucid's "
           "developer portal, with your app. The stored tokens are untouched.";
  return NULL;
}

static const char *provider(const struct flow_settings *settings)
{
  return settings->another_provider ? "the provider" : "Lucid";
}

static void put_time(char out[32], const struct flow_settings *settings, double epoch)
{
  struct civil local;
  if (settings->world.to_local(floor(epoch), &local))
    snprintf(out, 32, "%04d-%02d-%02d %02d:%02d:%02d", local.year, local.month, local.day, local.hour, local.minute,
             local.second);
  else
    snprintf(out, 32, "an unknown time");
}

/* "the token storage token_info.json" */
static void put_storage(char out[STORAGE], const struct flow_settings *settings)
{
  char account[ACCOUNT];
  int length = snprintf(out, STORAGE, "the token storage ");
  quote_escape(out + length, settings->account ? PLACE : STORAGE - (size_t)length, settings->storage);
  quote_escape(account, sizeof account, settings->account);
  if (settings->account)
    snprintf(out + strlen(out), STORAGE - strlen(out), " (account \"%s\")", account);
}

void message_used_before(char out[FLOW_MESSAGE], const struct flow_settings *settings, bool instead)
{
  char storage[STORAGE];
  put_storage(storage, settings);
  snprintf(
      out, FLOW_MESSAGE,
      "The configured refresh token was used before, or it has expired, so it is not sent. %s %s%s. If another "
      "folder or program uses this grant, its token file holds the successor: point LUCID_TOKEN_FILE (option "
      "storage) there. If none does, only a new login helps. Log in to %s again and configure the refresh token that "
      "you get (LUCID_REFRESH_TOKEN, or the option refresh_token).",
      instead ? "The refresh token that is stored in" : "No successor of it is stored in", storage,
      instead ? " is dead, too" : "", provider(settings));
}

void message_set_back(char out[FLOW_MESSAGE], const struct flow_settings *settings)
{
  char storage[STORAGE];
  put_storage(storage, settings);
  snprintf(out, FLOW_MESSAGE,
           "%s holds a refresh token that was spent before, so it is not sent again: the storage was "
           "set back, by a backup for instance, or it gave out an old copy.",
           storage);
  message_capitalize(out);
}

void message_not_kept(char out[FLOW_MESSAGE], const struct flow_settings *settings, const char *fault)
{
  char storage[STORAGE];
  put_storage(storage, settings);
  snprintf(out, FLOW_MESSAGE,
           "%s does not keep what it is given: %s. A refresh would lose the new tokens, so nothing was sent. load has "
           "to return the very record that save was given last, with all of its fields.",
           storage, fault);
  message_capitalize(out);
}

void message_not_shown(char out[FLOW_MESSAGE], const struct flow_settings *settings)
{
  char storage[STORAGE];
  put_storage(storage, settings);
  snprintf(out, FLOW_MESSAGE, "%s does not keep the new tokens: save was given them, and load does not return them.",
           storage);
  message_capitalize(out);
}

void message_owner_may_live(char out[FLOW_MESSAGE], const struct flow_settings *settings, const struct pending *mark)
{
  char when[32], storage[STORAGE], host[NAME];
  put_time(when, settings, mark->since);
  put_storage(storage, settings);
  quote_escape(host, sizeof host, mark->host);
  snprintf(
      out, FLOW_MESSAGE,
      "A refresh of the tokens in %s, begun at %s by process %ld on %s, may still be under way, although its lock is "
      "gone: somebody has removed the lock file. Nothing was sent. Try again in a minute, and let nobody remove "
      "files that end in .lock.",
      storage, when, mark->pid, host);
}

void message_damaged(char out[FLOW_MESSAGE], const struct flow_settings *settings)
{
  char storage[STORAGE], of_account[ADVICE];
  put_storage(storage, settings);
  if (settings->account)
    put_advice_of_account(of_account, settings);
  else
    snprintf(of_account, sizeof of_account,
             " Move it out of the way (keep it, it may be of use), log in to %s again and configure the new refresh "
             "token.",
             provider(settings));
  snprintf(out, FLOW_MESSAGE,
           "%s does not hold a token record: it is damaged, or something else's. Nothing was changed in it.%s", storage,
           of_account);
  message_capitalize(out);
}

void message_empty(char out[FLOW_MESSAGE], const struct flow_settings *settings)
{
  char place[PLACE], account[NAME], of_account[ADVICE];
  quote_escape(place, sizeof place, settings->storage);
  quote_escape(account, sizeof account, settings->account);
  if (settings->account)
    snprintf(out, FLOW_MESSAGE, "There is no token yet for the account \"%s\": the token storage %s is empty.%s",
             account, place, advice(of_account, settings, CODE_INVALID_GRANT));
  else
    snprintf(out, FLOW_MESSAGE,
             "There is no token yet: the token storage %s is empty, and no refresh token is configured. Log in to %s "
             "once and set LUCID_REFRESH_TOKEN (or the option refresh_token) to the refresh token that you get.",
             place, provider(settings));
}

void message_grantless(char out[FLOW_MESSAGE], const struct flow_settings *settings)
{
  char storage[STORAGE], of_account[ADVICE];
  put_storage(storage, settings);
  snprintf(out, FLOW_MESSAGE,
           "The access token in %s has expired, and there is no refresh token beside it: it was issued without the "
           "scope offline_access. %s%s",
           storage, message_kept, advice(of_account, settings, CODE_INVALID_GRANT));
}

void message_living(char out[FLOW_MESSAGE], const struct flow_settings *settings, bool known)
{
  char storage[STORAGE];
  put_storage(storage, settings);
  snprintf(out, FLOW_MESSAGE,
           "%s holds a grant that %s, so the answer was not stored; nothing was changed. To put the answer into its "
           "place, say so: { replace = true } (in C: the flag LUCIDAUTH_REPLACE).",
           storage, known ? "lives" : "may still live");
  message_capitalize(out);
}

void message_given_is_spent(char out[FLOW_MESSAGE], const struct flow_settings *settings)
{
  char storage[STORAGE];
  put_storage(storage, settings);
  snprintf(out, FLOW_MESSAGE,
           "The refresh token in this answer was used before, by what %s knows, so it is dead and was not stored; "
           "nothing was changed. Log in to %s again, and store what that gives.",
           storage, provider(settings));
}

void message_given_is_in_doubt(char out[FLOW_MESSAGE], const struct flow_settings *settings)
{
  char storage[STORAGE];
  put_storage(storage, settings);
  snprintf(
      out, FLOW_MESSAGE,
      "The refresh token in this answer is the one in %s, and a refresh with it has begun whose outcome is not "
      "known yet. Nothing was changed: the next call for a token settles it. If that fails, log in to %s again, and "
      "store what that gives.",
      storage, provider(settings));
}

void message_given_is_expired(char out[FLOW_MESSAGE])
{
  snprintf(out, FLOW_MESSAGE,
           "The access token in this answer has expired, and there is no refresh token beside it, so it was not "
           "stored; nothing was changed. Log in again, with the scope offline_access, and store what that gives.");
}

void message_not_stored(char out[FLOW_MESSAGE], const char *why)
{
  snprintf(out, FLOW_MESSAGE,
           "%s The answer was not stored, and is in no other place than with you: keep it, and store it again when "
           "this is mended.",
           why);
}

void message_foreign(char out[FLOW_MESSAGE], const struct flow_settings *settings, const char *server)
{
  char storage[STORAGE];
  put_storage(storage, settings);
  char issuer[NAME + 50];
  quote_escape(issuer, sizeof issuer, server);
  snprintf(
      out, FLOW_MESSAGE,
      "The tokens in %s were issued by %s, and this client is set up for %.*s: it would send the one's secrets "
      "to the other. %s Give each server a token storage of its own (LUCID_TOKEN_FILE, or the option storage), or "
      "correct LUCID_API_URL (options api_url and token_url). Is it the same server under a new name? Then take the "
      "field server out of the record.",
      storage, issuer, (int)fmin(150, (double)origin_length(settings->token_url)), settings->token_url, message_kept);
}

void message_unsaved(char out[FLOW_MESSAGE], const char *why)
{
  snprintf(out, FLOW_MESSAGE,
           "%s The new tokens are in this process's memory and in use; saving them is tried again at every call. Do "
           "not kill this process before it has succeeded.",
           why);
}

void message_lost(char out[FLOW_MESSAGE], const struct flow_settings *settings, const struct pending *mark,
                  const char *why)
{
  char host[NAME];
  quote_escape(host, sizeof host, mark->host);
  char when[32];
  put_time(when, settings, mark->since);
  if (*why)
    snprintf(out, FLOW_MESSAGE,
             "%.400s. The refresh that began at %s in process %ld on %s was carried out all the same, so the new "
             "tokens are lost.",
             why, when, mark->pid, host);
  else
    snprintf(out, FLOW_MESSAGE,
             "A refresh that began at %s in process %ld on %s was carried out by the server, but its answer never "
             "arrived, so the new tokens are lost.",
             when, mark->pid, host);
}

enum { HOLDER = 160 };

static void put_holder(char out[HOLDER], const struct pending *mark)
{
  char host[NAME];
  quote_escape(host, sizeof host, mark ? mark->host : NULL);
  if (mark)
    snprintf(out, HOLDER, "process %ld on %s", mark->pid, host);
  else
    snprintf(out, HOLDER, "another process");
}

/* A program's own lock does not name its holder, which may have ended or have been cut off. */
static const char *advice_on_own_lock(bool refreshing)
{
  return refreshing
             ? "It has begun a refresh, and may be the only one that has the new tokens: as long as it runs, leave "
               "it to its work. If it has ended, the lock is left over: a lock needs a lease, which ends by "
               "itself unless its owner renews it. The next call then settles what became of the refresh."
             : "It has not begun a refresh. If it has ended, the lock is left over: a lock needs a lease, which "
               "ends by itself unless its owner renews it.";
}

static const char *advice_on_lock(bool refreshing)
{
  return refreshing
             ? "It has begun a refresh, and may be the only one that has the new tokens: do not kill it. See what it "
               "waits for, or what keeps it from saving, and mend that."
             : "It has not begun a refresh: if it hangs, end it, and its lock ends with it.";
}

void message_lock_held(char out[FLOW_MESSAGE], const struct flow_settings *settings, const struct pending *mark,
                       double seconds)
{
  char storage[STORAGE], holder[HOLDER];
  put_storage(storage, settings);
  put_holder(holder, mark);
  snprintf(out, FLOW_MESSAGE, "The lock of %s has been held for %.0f seconds by %s. %s %s", storage, seconds, holder,
           message_kept, settings->reads_back ? advice_on_own_lock(mark) : advice_on_lock(mark));
}

void message_lock_waited_for(char out[FLOW_MESSAGE], const struct flow_settings *settings, const struct pending *mark)
{
  char storage[STORAGE];
  put_storage(storage, settings);
  char holder[HOLDER];
  put_holder(holder, mark);
  snprintf(out, FLOW_MESSAGE,
           "The time of this call was over while %s was refreshing the tokens in %s. %s Leave it to its work, and try "
           "again.",
           holder, storage, message_kept);
}
