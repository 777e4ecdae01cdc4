/* The least that a program can do to refresh a token with libcurl: curl_post URL BODY ROUNDS posts the JSON body so
 * many times, each on a connection of its own, and prints the nanoseconds that each took. */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct answer {
  char text[16384];
  size_t length;
};

static size_t keep(char *data, size_t size, size_t count, void *user)
{
  struct answer *answer = user;
  if (size * count >= sizeof answer->text - answer->length)
    return 0;
  memcpy(answer->text + answer->length, data, size * count);
  answer->length += size * count;
  answer->text[answer->length] = '\0';
  return size * count;
}

static long long now(void)
{
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (long long)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int post(CURL *handle, struct answer *answer)
{
  long status = 0;
  answer->length = 0;
  CURLcode code = curl_easy_perform(handle);
  curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status);
  if (code == CURLE_OK && status == 200 && strstr(answer->text, "\"access_token\""))
    return 1;
  fprintf(stderr, "curl_post: %s, HTTP status %ld\n", curl_easy_strerror(code), status);
  return 0;
}

int main(int argc, char **argv)
{
  static struct answer answer;
  curl_global_init(CURL_GLOBAL_DEFAULT);
  CURL *handle = curl_easy_init();
  if (argc != 4 || !handle) {
    fprintf(stderr, "usage: curl_post URL BODY ROUNDS\n");
    return 2;
  }
  struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
  curl_easy_setopt(handle, CURLOPT_URL, argv[1]);
  curl_easy_setopt(handle, CURLOPT_POSTFIELDS, argv[2]);
  curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(handle, CURLOPT_FRESH_CONNECT, 1L);
  curl_easy_setopt(handle, CURLOPT_FORBID_REUSE, 1L);
  curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, keep);
  curl_easy_setopt(handle, CURLOPT_WRITEDATA, &answer);
  int posted = 1;
  for (int left = atoi(argv[3]); left > 0 && posted; left--) {
    long long began = now();
    posted = post(handle, &answer);
    printf("%lld\n", now() - began);
  }
  curl_slist_free_all(headers);
  curl_easy_cleanup(handle);
  curl_global_cleanup();
  return posted ? 0 : 1;
}
