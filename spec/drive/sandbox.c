#define _GNU_SOURCE
#include "sandbox.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ANSWER_MOST = 256 * 1024 };

static void need(bool done, const char *what)
{
  if (done)
    return;
  perror(what);
  abort();
}

static void run(int accounts, int in, int out)
{
  char flag[32];
  snprintf(flag, sizeof flag, "--refresh-tokens=%d", accounts);
  dup2(in, STDIN_FILENO);
  dup2(out, STDOUT_FILENO);
  setenv("LUA_PATH", "lua/?.lua;;", 1);
  unsetenv("LD_PRELOAD");
  execlp("lua5.4", "lua5.4", "-e", "require('lucidauth.sandbox').main(arg)", "--", "--until-stdin-closes", flag,
         (char *)NULL);
  perror("lua5.4");
  _exit(127);
}

void sandbox_start(struct sandbox *sandbox, int accounts)
{
  int in[2], out[2];
  need(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0, "pipe");
  sandbox->process = fork();
  need(sandbox->process >= 0, "fork");
  if (sandbox->process == 0)
    run(accounts, in[0], out[1]);
  close(in[0]);
  close(out[1]);
  FILE *said = fdopen(out[0], "r");
  char line[128];
  need(said && fgets(line, sizeof line, said) && sscanf(line, "lucid sandbox on %63s", sandbox->url) == 1, "a sandbox");
  fclose(said);
  sandbox->port = atoi(strrchr(sandbox->url, ':') + 1);
  sandbox->stdin_pipe = in[1];
}

void sandbox_stop(struct sandbox *sandbox)
{
  close(sandbox->stdin_pipe);
  kill(sandbox->process, SIGTERM);
  waitpid(sandbox->process, NULL, 0);
}

static int connect_to(int port)
{
  struct sockaddr_in name = {
      .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  need(fd >= 0 && connect(fd, (struct sockaddr *)&name, sizeof name) == 0, "connect");
  return fd;
}

cJSON *sandbox_ask(const struct sandbox *sandbox, const char *method, const char *name, const char *body)
{
  body = body ? body : "";
  int fd = connect_to(sandbox->port);
  dprintf(fd,
          "%s /sandbox/%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
          "Content-Length: %zu\r\n\r\n%s",
          method, name, strlen(body), body);
  char *answer = calloc(1, ANSWER_MOST);
  size_t length = 0;
  ssize_t got;
  need(answer != NULL, "memory");
  while (length < ANSWER_MOST - 1 && (got = read(fd, answer + length, ANSWER_MOST - 1 - length)) > 0)
    length += (size_t)got;
  close(fd);
  const char *json = strstr(answer, "\r\n\r\n");
  cJSON *parsed = json && strstr(answer, " 200 ") ? cJSON_Parse(json + 4) : NULL;
  if (!parsed)
    fprintf(stderr, "%s /sandbox/%s: %s\n", method, name, answer);
  need(parsed != NULL, "an answer");
  free(answer);
  return parsed;
}

int sandbox_count(const struct sandbox *sandbox, const char *name)
{
  cJSON *log = sandbox_ask(sandbox, "GET", "log?last=0", NULL);
  const cJSON *count = cJSON_GetObjectItem(cJSON_GetObjectItem(log, "counts"), name);
  need(count != NULL, name);
  int value = count->valueint;
  cJSON_Delete(log);
  return value;
}

const char *sandbox_token(const struct sandbox *sandbox, const char *account, const char *kind)
{
  static char token[128];
  cJSON *grants = sandbox_ask(sandbox, "GET", "grants", NULL);
  const cJSON *grant;
  token[0] = '\0';
  cJSON_ArrayForEach(grant, grants)
  {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(grant, kind));
    if (text && strcmp(cJSON_GetStringValue(cJSON_GetObjectItem(grant, "account")), account) == 0)
      snprintf(token, sizeof token, "%s", text);
  }
  cJSON_Delete(grants);
  return token;
}
