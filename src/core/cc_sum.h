/* cc_sum.h — a checksum of bytes: any one that changes, moves or is missing changes it, but for one
 * time in 2^64. It finds accidents, not forgeries. Words are read in the machine's order. */
#ifndef CC_SUM_H
#define CC_SUM_H

#include "cc_base.h"

#include <string.h>

/* Pairs of words are multiplied into one another, each with keys of its place, and all are added up: no
   step waits for the one before. */
static inline uint64_t cc_sum(const void *bytes, size_t size, uint64_t seed)
{
    const unsigned char *at = bytes;
    uint64_t sum = cc_mix64(seed, size), key = 0xD6E8FEB86659FD93ull, pair[2] = {0, 0};
    for (; size >= 16; at += 16, size -= 16, key += 0xA24BAED4963EE407ull) {
        memcpy(pair, at, sizeof pair);
        sum += cc_fold64(pair[0] ^ key, pair[1] ^ 0x9FB21C651E98DF25ull);
    }
    if (size > 0) {
        pair[0] = pair[1] = 0;
        memcpy(pair, at, size);
        sum += cc_fold64(pair[0] ^ key, pair[1] ^ 0x9FB21C651E98DF25ull);
    }
    return sum;
}

#endif
