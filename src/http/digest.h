/* SHA-256, from the module that is loaded at the first refresh. */
#ifndef DIGEST_H
#define DIGEST_H

#include <stddef.h>

/* world.sha256. All zeros where the module cannot be loaded: no refresh begins then. */
void digest_sha256(const void *data, size_t size, unsigned char digest[32]);

#endif
