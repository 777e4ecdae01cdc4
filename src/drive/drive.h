/* Drivers carry out what a flow asks for. */
#ifndef DRIVE_DRIVE_H
#define DRIVE_DRIVE_H

#include "../account.h"
#include "../client.h"
#include "../http/http.h"

/* Carry out the account's flight on the calling thread until it is done. Between account_take_off and
 * account_land. */
void drive_blocking(struct lucidauth_account *account);

/* One POST of a flow, on the calling thread; it fills the response, which drive_release frees. False: libcurl
 * is not loaded (nothing was done). */
bool drive_post(const struct options *options, const struct flow_action *action, struct http_response *response);
void drive_release(struct http_response *response);

/* The world's SHA-256, from the module that is loaded at the first refresh. */
void drive_sha256(const void *data, size_t size, unsigned char digest[32]);

#endif
