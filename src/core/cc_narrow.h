/* cc_narrow.h — the tag-chunk index with slot numbers of 16 bits: of one stripe of cc_vectors.h.
 *
 * As cc_index.h, whose hashes and tags it has, but a line of it takes 21 entries instead of 12:
 *
 *     byte  0        21         22                                   64
 *           | 21 tags | overflow | 21 slot numbers, 2 bytes each      |
 *
 *     entries a chunk on average             12       13       14       15       16
 *     bytes an entry                         5.3      4.9      4.6      4.3      4.0
 *     entries beyond their home chunk, %     0.05     0.16     0.40     0.85     1.6     (Poisson)
 *     other entries with the tag met, %      2.2      2.4      2.6      2.8      2.9     (on average, first)
 *
 * The twelve of cc_index.h, nine a chunk, are 7.1 bytes and 3 % beyond their home. The number of chunks is
 * any; a hash's is its top, by multiplication, and an entry that finds its home full goes to the next
 * chunk in memory.
 *
 * One writer at a time, under the stripe's lock; readers without it find what is there all the while, and
 * must check what they find: a tag is stored after its slot, and a chunk's overflow is counted before the
 * entry that passed it. */
#ifndef CC_NARROW_H
#define CC_NARROW_H

#include "cc_index.h"

enum { CC_NARROW_PLACES = 21, CC_NARROW_FILL = 14, CC_NARROW_SLOTS = 1 << 16 };

typedef struct {
    uint8_t tag[CC_NARROW_PLACES];
    uint8_t overflow; /* entries that passed here because the chunk was full */
    uint16_t slot[CC_NARROW_PLACES];
} cc_narrow_chunk;

static_assert(sizeof(cc_narrow_chunk) == CC_LINE, "a look-up must cost one cache line");

typedef struct {
    cc_narrow_chunk *chunks;
    uint32_t count; /* of chunks */
    uint32_t entries;
} cc_narrow;

/* The places of a chunk whose tag agrees, a bit each. */
CC_INLINE uint32_t cc_narrow_match(const cc_narrow_chunk *chunk, unsigned tag)
{
    enum { ALL = (1 << CC_NARROW_PLACES) - 1 };
#if defined(__SANITIZE_THREAD__) /* tags may change while readers without a lock look at them */
    uint32_t same = 0;
    for (unsigned i = 0; i < CC_NARROW_PLACES; i++)
        same |= (uint32_t)(__atomic_load_n(&chunk->tag[i], __ATOMIC_ACQUIRE) == tag) << i;
    return same & ALL;
#elif defined(__SSE2__)
    const __m128i *line = (const __m128i *)chunk, tags = _mm_set1_epi8((char)tag);
    unsigned low = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_load_si128(line), tags));
    unsigned high = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_load_si128(line + 1), tags));
    return (low | high << 16) & ALL;
#elif defined(__aarch64__)
    static const uint8_t bits[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t tags = vdupq_n_u8((uint8_t)tag), bit = vld1q_u8(bits);
    uint8x16_t low = vandq_u8(vceqq_u8(vld1q_u8(chunk->tag), tags), bit);
    uint8x8_t high = vand_u8(vceq_u8(vld1_u8((const uint8_t *)chunk + 16), vget_low_u8(tags)),
                             vget_low_u8(bit));
    return (vaddv_u8(vget_low_u8(low)) | (uint32_t)vaddv_u8(vget_high_u8(low)) << 8
            | (uint32_t)vaddv_u8(high) << 16) & ALL;
#else
    uint32_t same = 0;
    for (unsigned i = 0; i < CC_NARROW_PLACES; i++)
        same |= (uint32_t)(chunk->tag[i] == tag) << i;
    return same;
#endif
}

/* The first place of a non-empty set. */
CC_INLINE unsigned cc_narrow_first(uint32_t matches)
{
    return (unsigned)__builtin_ctz(matches);
}

/* The home chunk of a hash, among so many. */
CC_INLINE uint32_t cc_narrow_home(uint32_t count, uint32_t hash)
{
    return (uint32_t)(((uint64_t)hash * count) >> 32);
}

/* The chunk to look at after `at`. */
CC_INLINE uint32_t cc_narrow_next(uint32_t count, uint32_t at)
{
    return at + 1 < count ? at + 1 : 0;
}

/* Adds an entry; the caller knows that its key is absent and that there is an empty place. */
void cc_narrow_add(cc_narrow *index, uint32_t hash, uint32_t slot);

/* Removes the entry of exactly this hash and slot; false: there is none. */
bool cc_narrow_remove(cc_narrow *index, uint32_t hash, uint32_t slot);

/* True when the entry of exactly this hash and slot is there. */
bool cc_narrow_has(const cc_narrow *index, uint32_t hash, uint32_t slot);

#endif
