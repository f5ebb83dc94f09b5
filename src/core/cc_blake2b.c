/* cc_blake2b.c — see cc_blake2b.h. The rounds are written out, so that the compiler knows the order in
 * which each of them takes the message's words. */
#include "cc_blake2b.h"

#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "words are read in the machine's order"
#endif

enum { BLOCK = 128 /* bytes that are compressed at a time */ };

static const uint64_t start_words[8] = { /* the square roots of the first eight primes */
    0x6A09E667F3BCC908u, 0xBB67AE8584CAA73Bu, 0x3C6EF372FE94F82Bu, 0xA54FF53A5F1D36F1u,
    0x510E527FADE682D1u, 0x9B05688C2B3E6C1Fu, 0x1F83D9ABFB41BD6Bu, 0x5BE0CD19137E2179u,
};

CC_INLINE uint64_t turned(uint64_t word, unsigned bits)
{
    return word >> bits | word << (64 - bits);
}

#define MIX(a, b, c, d, x, y)            \
    do {                                 \
        v[a] += v[b] + m[x];             \
        v[d] = turned(v[d] ^ v[a], 32);  \
        v[c] += v[d];                    \
        v[b] = turned(v[b] ^ v[c], 24);  \
        v[a] += v[b] + m[y];             \
        v[d] = turned(v[d] ^ v[a], 16);  \
        v[c] += v[d];                    \
        v[b] = turned(v[b] ^ v[c], 63);  \
    } while (0)

/* The columns, then the diagonals. */
#define ROUND(s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15) \
    do {                                                                            \
        MIX(0, 4, 8, 12, s0, s1);                                                   \
        MIX(1, 5, 9, 13, s2, s3);                                                   \
        MIX(2, 6, 10, 14, s4, s5);                                                  \
        MIX(3, 7, 11, 15, s6, s7);                                                  \
        MIX(0, 5, 10, 15, s8, s9);                                                  \
        MIX(1, 6, 11, 12, s10, s11);                                                \
        MIX(2, 7, 8, 13, s12, s13);                                                 \
        MIX(3, 4, 9, 14, s14, s15);                                                 \
    } while (0)

/* Takes one block in. `count`: bytes so far, this block's included. */
static void compress(uint64_t h[8], const uint8_t block[BLOCK], uint64_t count, bool last)
{
    uint64_t v[16], m[16];
    memcpy(m, block, BLOCK);
    memcpy(v, h, 64);
    memcpy(v + 8, start_words, 64);
    v[12] ^= count; /* its upper half, v[13], is for messages beyond 2^64 bytes */
    v[14] ^= last ? ~(uint64_t)0 : 0;
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);
    ROUND(11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4);
    ROUND(7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8);
    ROUND(9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13);
    ROUND(2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9);
    ROUND(12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11);
    ROUND(13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10);
    ROUND(6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5);
    ROUND(10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0);
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);
    for (int i = 0; i < 8; i++)
        h[i] ^= v[i] ^ v[i + 8];
}

/* The digest of `head` bytes, fewer than a block, and then `size` bytes of data. */
CC_INLINE void digest_of(uint8_t digest[CC_DIGEST], const void *first, size_t head,
                         const uint8_t *data, size_t size)
{
    uint64_t h[8], count = 0;
    uint8_t block[BLOCK] = {0};
    size_t held = head;
    memcpy(h, start_words, sizeof h);
    h[0] ^= 0x01010000u ^ CC_DIGEST; /* fan-out 1, depth 1, no key */
    if (head)
        memcpy(block, first, head);
    while (size > BLOCK - held) { /* the last block, full or not, is for the end */
        size_t more = BLOCK - held;
        memcpy(block + held, data, more);
        compress(h, block, count += BLOCK, false);
        data += more;
        size -= more;
        held = 0;
    }
    if (size)
        memcpy(block + held, data, size);
    held += size;
    memset(block + held, 0, BLOCK - held);
    compress(h, block, count + held, true);
    memcpy(digest, h, CC_DIGEST);
}

void cc_blake2b(uint8_t digest[CC_DIGEST], const void *data, size_t size)
{
    digest_of(digest, NULL, 0, data, size);
}

void cc_blake2b_link(uint8_t digest[CC_DIGEST], const uint8_t above[CC_DIGEST], const void *data,
                     size_t size)
{
    digest_of(digest, above, CC_DIGEST, data, size);
}
