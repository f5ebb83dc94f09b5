/* cc_index.c — see cc_index.h. */
#include "cc_index.h"

#include "cc_pages.h"

/* What every index without memory looks at: all places empty, never written. */
static const cc_chunk empty_chunk __attribute__((aligned(CC_LINE)));

enum { OVERFLOW_STUCK = UINT8_MAX }; /* a count that can no longer be trusted to come down */

static size_t index_size(const cc_index *index)
{
    return ((size_t)index->mask + 1) * sizeof(cc_chunk);
}

void cc_index_init(cc_index *index)
{
    index->chunks = (cc_chunk *)&empty_chunk;
    index->mask = 0;
    index->shift = 32;
    index->entries = 0;
    index->room = 0;
}

void cc_index_free(cc_index *index)
{
    if (index->room != 0) /* not by the address: other modules have empty chunks of their own */
        cc_pages_free(index->chunks, index_size(index));
    cc_index_init(index);
}

bool cc_index_alloc(cc_index *index, uint32_t entries)
{
    cc_index fresh;
    uint64_t chunks = cc_pow2_ceil(((uint64_t)entries + CC_CHUNK_FILL - 1) / CC_CHUNK_FILL);
    fresh.mask = (uint32_t)(chunks - 1);
    fresh.shift = 32 - cc_log2_floor((uint32_t)chunks);
    fresh.entries = 0;
    fresh.room = chunks * CC_CHUNK_FILL;
    fresh.chunks = cc_pages_alloc(index_size(&fresh));
    if (fresh.chunks == NULL)
        return false;
    *index = fresh;
    return true;
}

void cc_index_add(cc_index *index, uint32_t hash, uint32_t slot)
{
    unsigned tag = cc_index_tag(hash);
    uint32_t at = cc_index_home(index, hash);
    cc_matches empty;
    CC_ASSERT(index->room != 0);
    while ((empty = cc_chunk_match(&index->chunks[at], 0)) == 0) {
        cc_chunk *full = &index->chunks[at];
        full->overflow += full->overflow != OVERFLOW_STUCK;
        at = cc_index_next(index, at, tag);
    }
    cc_chunk *chunk = &index->chunks[at];
    unsigned place = cc_matches_first(empty);
    chunk->slot[place] = slot;
    chunk->tag[place] = (uint8_t)tag;
    index->entries++;
}

/* The place of the entry; *at is its chunk. CC_CHUNK_PLACES: there is none. */
static unsigned find(const cc_index *index, uint32_t hash, uint32_t slot, uint32_t *at)
{
    unsigned tag = cc_index_tag(hash);
    *at = cc_index_home(index, hash);
    for (uint32_t walked = 0; walked <= index->mask; walked++) {
        const cc_chunk *chunk = &index->chunks[*at];
        cc_matches matches = cc_chunk_match(chunk, tag);
        for (; matches != 0; matches &= matches - 1) {
            unsigned place = cc_matches_first(matches);
            if (chunk->slot[place] == slot)
                return place;
        }
        if (chunk->overflow == 0)
            break;
        *at = cc_index_next(index, *at, tag);
    }
    return CC_CHUNK_PLACES;
}

bool cc_index_remove(cc_index *index, uint32_t hash, uint32_t slot)
{
    uint32_t at;
    unsigned place = find(index, hash, slot, &at);
    if (place == CC_CHUNK_PLACES)
        return false;
    index->chunks[at].tag[place] = 0;
    index->entries--;
    unsigned tag = cc_index_tag(hash);
    for (uint32_t passed = cc_index_home(index, hash); passed != at;
         passed = cc_index_next(index, passed, tag)) {
        cc_chunk *full = &index->chunks[passed];
        full->overflow -= full->overflow != OVERFLOW_STUCK;
    }
    return true;
}

bool cc_index_has(const cc_index *index, uint32_t hash, uint32_t slot)
{
    uint32_t at;
    return find(index, hash, slot, &at) != CC_CHUNK_PLACES;
}
