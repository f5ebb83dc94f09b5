/* cc_sum.c — see cc_sum.h. */
#include "cc_sum.h"

#include <string.h>

enum { LANES = 8, BLOCK = LANES * sizeof(uint64_t) };

/* Vectors of the machine that runs it, not of the one that it was built for: 4 KB take 78 ns, not 440.
   clang loses the function when it links; ThreadSanitizer is not up yet when the clone is chosen. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__has_attribute) && !defined(__clang__) && \
    !defined(__SANITIZE_THREAD__)
#if __has_attribute(target_clones)
#define CC_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#endif
#ifndef CC_CLONES
#define CC_CLONES
#endif

typedef struct {
    uint64_t sums[LANES], keys[LANES]; /* a key differs by lane and by place */
} lanes;

/* Halves of a keyed word multiply one another, as in XXH3 (Yann Collet, 2019); the word itself goes to the
   lane beside, so that it counts whatever it is multiplied with. No step waits for the one before. */
static inline void take(lanes *state, const unsigned char *block)
{
    uint64_t words[LANES];
    memcpy(words, block, BLOCK);
    for (int i = 0; i < LANES; i++) {
        uint64_t keyed = words[i] ^ state->keys[i];
        state->sums[i ^ 1] += words[i];
        state->sums[i] += (keyed & 0xFFFFFFFFu) * (keyed >> 32);
        state->keys[i] += 0xA24BAED4963EE407ull;
    }
}

CC_CLONES uint64_t cc_sum(const void *bytes, size_t size, uint64_t seed)
{
    const unsigned char *at = bytes;
    uint64_t sum = cc_mix64(seed, size);
    lanes state;
    for (int i = 0; i < LANES; i++) {
        state.sums[i] = 0;
        state.keys[i] = 0xD6E8FEB86659FD93ull * (2 * (uint64_t)i + 1);
    }
    for (; size >= BLOCK; at += BLOCK, size -= BLOCK)
        take(&state, at);
    if (size > 0) {
        unsigned char rest[BLOCK] = {0};
        memcpy(rest, at, size);
        take(&state, rest);
    }
    for (int i = 0; i < LANES; i++)
        sum = cc_mix64(sum, state.sums[i]);
    return sum;
}
