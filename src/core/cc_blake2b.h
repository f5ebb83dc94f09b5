/* cc_blake2b.h — BLAKE2b with a digest of 16 bytes, without a key: RFC 7693 (Saarinen & Aumasson, 2015). */
#ifndef CC_BLAKE2B_H
#define CC_BLAKE2B_H

#include "cc_base.h"

enum { CC_DIGEST = 16 /* bytes */ };

void cc_blake2b(uint8_t digest[CC_DIGEST], const void *data, size_t size);

/* One link of a chain: the digest of `above` and then `size` bytes of data. digest may be above. */
void cc_blake2b_link(uint8_t digest[CC_DIGEST], const uint8_t above[CC_DIGEST], const void *data,
                     size_t size);

#endif
