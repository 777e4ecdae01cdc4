#define _GNU_SOURCE
#include "sandbox.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { HEAD = 1024, FLAGS = 32 };

_Noreturn void sandbox_fail(const char *format, ...)
{
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  exit(1);
}

double sandbox_clock(void)
{
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---- the process ---- */

_Noreturn static void become_sandbox(const char *lua, const char *source, const char *const flags[])
{
  char path[4096];
  const char *arguments[FLAGS] = {lua, "-e", "require('lucidauth.sandbox').main(arg)", "--", "--until-stdin-closes"};
  for (int i = 0; flags[i] && i < FLAGS - 6; i++)
    arguments[5 + i] = flags[i];
  snprintf(path, sizeof path, "%s/lua/?.lua;;", source);
  setenv("LUA_PATH", path, 1);
  unsetenv("LD_PRELOAD"); /* a sanitizer's runtime */
  execvp(lua, (char *const *)arguments);
  _exit(127);
}

static void read_greeting(struct sandbox *sandbox, int output)
{
  char line[512];
  FILE *greeting = fdopen(output, "r");
  while (fgets(line, sizeof line, greeting)) {
    sscanf(line, "lucid sandbox on %63s", sandbox->url);
    sscanf(line, " export LUCID_REFRESH_TOKEN=%127s", sandbox->refresh_token);
    if (strstr(line, "/sandbox/log"))
      break;
  }
  fclose(greeting);
  if (sscanf(sandbox->url, "http://127.0.0.1:%d", &sandbox->port) != 1)
    sandbox_fail("the sandbox did not start");
}

struct sandbox sandbox_start(const char *lua, const char *source, const char *const flags[])
{
  struct sandbox sandbox = {.pid = -1};
  int input[2], output[2];
  if (pipe2(input, O_CLOEXEC) != 0 || pipe2(output, O_CLOEXEC) != 0 || (sandbox.pid = fork()) < 0)
    sandbox_fail("no process for the sandbox");
  if (sandbox.pid == 0) {
    dup2(input[0], STDIN_FILENO);
    dup2(output[1], STDOUT_FILENO);
    become_sandbox(lua, source, flags);
  }
  close(input[0]);
  close(output[1]);
  sandbox.input = input[1];
  read_greeting(&sandbox, output[0]);
  return sandbox;
}

void sandbox_stop(struct sandbox *sandbox)
{
  kill(sandbox->pid, SIGTERM);
  close(sandbox->input);
  waitpid(sandbox->pid, NULL, 0);
}

/* ---- HTTP ---- */

static int connect_to(int port)
{
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
    return fd;
  if (fd >= 0)
    close(fd);
  return -1;
}

static bool send_request(int fd, const char *method, const char *path, const char *bearer, const char *body)
{
  char head[HEAD];
  int length = snprintf(head, sizeof head,
                        "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nLucid-Api-Version: 1\r\n"
                        "Authorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                        method, path, bearer ? bearer : "none", body ? strlen(body) : 0);
  return send(fd, head, (size_t)length, MSG_NOSIGNAL) == length &&
         (!body || send(fd, body, strlen(body), MSG_NOSIGNAL) == (ssize_t)strlen(body));
}

static char *read_all(int fd)
{
  size_t size = 4096, length = 0;
  char *text = malloc(size);
  ssize_t got;
  while (text && (got = recv(fd, text + length, size - length - 1, 0)) > 0) {
    length += (size_t)got;
    if (size - length < 2)
      text = realloc(text, size *= 2);
  }
  if (!text)
    sandbox_fail("out of memory");
  text[length] = '\0';
  return text;
}

int sandbox_ask(int port, const char *method, const char *path, const char *bearer, const char *body, char **answer)
{
  int status = 0, fd = connect_to(port);
  char *text = fd >= 0 && send_request(fd, method, path, bearer, body) ? read_all(fd) : strdup("");
  if (fd >= 0)
    close(fd);
  sscanf(text, "HTTP/1.1 %d", &status);
  const char *content = strstr(text, "\r\n\r\n");
  if (answer)
    *answer = strdup(content ? content + 4 : "");
  free(text);
  return status;
}

cJSON *sandbox_control(const struct sandbox *sandbox, const char *method, const char *name, const char *body)
{
  char path[64], *text;
  snprintf(path, sizeof path, "/sandbox/%s", name);
  int status = sandbox_ask(sandbox->port, method, path, NULL, body, &text);
  cJSON *answer = status == 200 ? cJSON_Parse(text) : NULL;
  if (!answer)
    sandbox_fail("%s %s: status %d: %s", method, path, status, text);
  free(text);
  return answer;
}

long sandbox_count(const struct sandbox *sandbox, const char *name)
{
  cJSON *log = sandbox_control(sandbox, "GET", "log?last=0", NULL);
  const cJSON *count = cJSON_GetObjectItem(cJSON_GetObjectItem(log, "counts"), name);
  if (!cJSON_IsNumber(count))
    sandbox_fail("the sandbox has no count %s", name);
  long value = (long)count->valuedouble;
  cJSON_Delete(log);
  return value;
}

const char *sandbox_token(const struct sandbox *sandbox, const char *account, const char *kind)
{
  static char token[128];
  cJSON *grants = sandbox_control(sandbox, "GET", "grants", NULL);
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
