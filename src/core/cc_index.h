/* cc_index.h — the tag-chunk index: 32-bit hash -> slot number of a record.
 *
 * After F14 (Bronson & Shi, Facebook, 2019). One chunk is one cache line of 12 entries:
 *
 *     byte  0        12        13     16                                   64
 *           | 12 tags | overflow |  -  | 12 slot numbers, 4 bytes each      |
 *
 *     hash  31                                      8 7           0
 *           | chunk number (as many bits as needed) |  |     tag     |
 *
 * A tag is the hash's low byte, 0 for an empty place (a hash whose low byte is 0 takes tag 1). The
 * chunk number comes from the top, where a multiplicative hash is at its best. A
 * look-up compares all tags of a chunk at once and touches a record only where the tag agrees, so
 * a miss costs one line and a predictable branch. A full chunk sends newcomers on to the next of
 * a probe sequence and counts them in `overflow`; a walk ends at the first chunk whose count is 0,
 * so removal leaves no tombstone. The count sticks at 255. Nine entries a chunk on average fill
 * the table (load 0.75); then it doubles.
 *
 * The index knows no keys: callers compare them. Not thread safe. */
#ifndef CC_INDEX_H
#define CC_INDEX_H

#include "cc_base.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

enum { CC_CHUNK_PLACES = 12, CC_CHUNK_FILL = 9 };

typedef struct {
    uint8_t tag[CC_CHUNK_PLACES];
    uint8_t overflow; /* entries that passed here because the chunk was full */
    uint8_t unused[3];
    uint32_t slot[CC_CHUNK_PLACES];
} cc_chunk;

static_assert(sizeof(cc_chunk) == CC_LINE, "a look-up must cost one cache line");

typedef struct {
    cc_chunk *chunks; /* never NULL: an index without memory points at one empty chunk */
    uint32_t mask;    /* number of chunks - 1 */
    uint32_t shift;   /* a hash shifted right by this is a chunk number; 32 for one chunk */
    uint32_t entries;
    uint64_t room;    /* entries that it takes before it has to grow */
} cc_index;

/* The places of a chunk that agree, as a bit set: a bit a place, or, of NEON, every fourth. */
#if !defined(__SSE2__) && defined(__ARM_NEON)
typedef uint64_t cc_matches;
enum { CC_MATCH_STEP = 4 };
#else
typedef uint32_t cc_matches;
#endif

CC_INLINE unsigned cc_index_tag(uint32_t hash)
{
    unsigned tag = hash & 0xFF;
    return tag + (tag == 0);
}

CC_INLINE cc_matches cc_chunk_match(const cc_chunk *chunk, unsigned tag)
{
#if defined(__SSE2__)
    __m128i tags = _mm_load_si128((const __m128i *)chunk);
    __m128i same = _mm_cmpeq_epi8(tags, _mm_set1_epi32((int)(tag * 0x01010101u)));
    return (unsigned)_mm_movemask_epi8(same) & 0xFFFu;
#elif defined(__ARM_NEON)
    uint8x16_t same = vceqq_u8(vld1q_u8((const uint8_t *)chunk), vdupq_n_u8((uint8_t)tag));
    uint8x8_t nibbles = vshrn_n_u16(vreinterpretq_u16_u8(same), 4);
    return vget_lane_u64(vreinterpret_u64_u8(nibbles), 0) & 0x0000111111111111ull;
#else
    cc_matches same = 0;
    for (unsigned i = 0; i < CC_CHUNK_PLACES; i++)
        same |= (cc_matches)(chunk->tag[i] == tag) << i;
    return same;
#endif
}

/* The first place of a non-empty set. */
CC_INLINE unsigned cc_matches_first(cc_matches matches)
{
#if !defined(__SSE2__) && defined(__ARM_NEON)
    return (unsigned)__builtin_ctzll(matches) / CC_MATCH_STEP;
#else
    return (unsigned)__builtin_ctz(matches);
#endif
}

CC_INLINE uint32_t cc_index_home(const cc_index *index, uint32_t hash)
{
    return (uint32_t)((uint64_t)hash >> index->shift);
}

/* The chunk to look at after `at`: an odd step reaches every chunk of a power of two. */
CC_INLINE uint32_t cc_index_next(const cc_index *index, uint32_t at, unsigned tag)
{
    return (at + 2 * tag + 1) & index->mask;
}

/* An empty index, without memory of its own. */
void cc_index_init(cc_index *index);

void cc_index_free(cc_index *index);

/* True when one more entry calls for cc_index_grow first. */
CC_INLINE bool cc_index_full(const cc_index *index)
{
    return index->entries >= index->room;
}

/* An index with room for `entries`, empty, in place of *index; false: no memory, unchanged. The
   caller adds its entries again and then frees the old one. */
bool cc_index_alloc(cc_index *index, uint32_t entries);

/* Adds an entry; the caller knows that its key is absent and that the index is not full. */
void cc_index_add(cc_index *index, uint32_t hash, uint32_t slot);

/* Removes the entry of exactly this hash and slot; false: there is none. */
bool cc_index_remove(cc_index *index, uint32_t hash, uint32_t slot);

/* True when the entry of exactly this hash and slot is there. */
bool cc_index_has(const cc_index *index, uint32_t hash, uint32_t slot);

#endif
