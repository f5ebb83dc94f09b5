/* cc_narrow.c — see cc_narrow.h. */
#include "cc_narrow.h"

enum { OVERFLOW_STUCK = UINT8_MAX }; /* a count that can no longer be trusted to come down */

/* Counts an entry that passes a chunk, or no longer does. */
static void pass(cc_narrow_chunk *full, int entries)
{
    uint8_t count = CC_GET(full->overflow);
    if (count != OVERFLOW_STUCK)
        CC_SET(full->overflow, (uint8_t)(count + entries));
}

void cc_narrow_add(cc_narrow *index, uint32_t hash, uint32_t slot)
{
    uint32_t at = cc_narrow_home(index->count, hash), empty;
    while ((empty = cc_narrow_match(&index->chunks[at], 0)) == 0) {
        pass(&index->chunks[at], 1);
        at = cc_narrow_next(index->count, at);
    }
    cc_narrow_chunk *chunk = &index->chunks[at];
    unsigned place = cc_narrow_first(empty);
    CC_SET(chunk->slot[place], (uint16_t)slot);
    __atomic_store_n(&chunk->tag[place], (uint8_t)cc_index_tag(hash), __ATOMIC_RELEASE);
    index->entries++;
}

/* The place of the entry; *at is its chunk. CC_NARROW_PLACES: there is none. */
static unsigned find(const cc_narrow *index, uint32_t hash, uint32_t slot, uint32_t *at)
{
    *at = cc_narrow_home(index->count, hash);
    for (uint32_t walked = 0; walked < index->count; walked++) {
        const cc_narrow_chunk *chunk = &index->chunks[*at];
        uint32_t matches = cc_narrow_match(chunk, cc_index_tag(hash));
        for (; matches != 0; matches &= matches - 1) {
            unsigned place = cc_narrow_first(matches);
            if (chunk->slot[place] == slot)
                return place;
        }
        if (chunk->overflow == 0)
            break;
        *at = cc_narrow_next(index->count, *at);
    }
    return CC_NARROW_PLACES;
}

bool cc_narrow_remove(cc_narrow *index, uint32_t hash, uint32_t slot)
{
    uint32_t at;
    unsigned place = find(index, hash, slot, &at);
    if (place == CC_NARROW_PLACES)
        return false;
    CC_SET(index->chunks[at].tag[place], 0);
    index->entries--;
    for (uint32_t passed = cc_narrow_home(index->count, hash); passed != at;
         passed = cc_narrow_next(index->count, passed))
        pass(&index->chunks[passed], -1);
    return true;
}

bool cc_narrow_has(const cc_narrow *index, uint32_t hash, uint32_t slot)
{
    uint32_t at;
    return find(index, hash, slot, &at) != CC_NARROW_PLACES;
}
