/* Shows the C library at work: prints an access token for the Lucid API, and on stderr the events on the way.
 *
 *   cc token.c $(pkg-config --cflags --libs lucidauth) -o token
 *   LUCID_CLIENT_ID=... LUCID_CLIENT_SECRET=... LUCID_REFRESH_TOKEN=... ./token
 *
 * The first run spends the refresh token and stores what it gets in ./token_info.json; later runs find it there. */
#include <lucidauth.h>

#include <stdio.h>

static void tell(void *data, const lucidauth_event *event)
{
  (void)data;
  fprintf(stderr, "[%s] %s\n", lucidauth_event_name(event->kind), event->message);
}

int main(void)
{
  lucidauth_error error = LUCIDAUTH_ERROR_INIT;
  lucidauth_options options = LUCIDAUTH_OPTIONS_INIT;
  options.on_event = tell;

  lucidauth *client = lucidauth_new(&options, &error);
  char *token = client ? lucidauth_token(client, NULL, &error) : NULL;
  if (token)
    printf("%s\n", token);
  else
    fprintf(stderr, "%s: %s\n", lucidauth_code_name(error.code), error.message);

  int failed = token == NULL;
  lucidauth_free_token(token);
  lucidauth_close(client);
  return failed;
}
