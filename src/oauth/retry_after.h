/* The Retry-After header (RFC 9110 section 10.2.3). */
#ifndef OAUTH_RETRY_AFTER_H
#define OAUTH_RETRY_AFTER_H

/* Longer waits are shortened to this (seconds). */
#define RETRY_AFTER_CAP (10 * 365.25 * 86400)

/* How many seconds the header asks to wait, from `now` (epoch seconds): >= 0, and 0 for dates that have
 * passed. Negative when `value` is NULL or neither a number of seconds (fractions allowed) nor an HTTP date
 * in any of its three formats. */
double retry_after_read(const char *value, double now);

#endif
