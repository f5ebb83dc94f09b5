/* cc_vectors_read.c — find and gather: the readers of cc_vectors.h, who take no lock.
 *
 * A batch goes through a pipeline: while one id's row is copied, the row of the id eight further on, the
 * record of the twenty-fourth and the chunk of the fortieth are on their way to the cache. */
#include "cc_vectors_inner.h"

enum {
    RING = 64,         /* ids under way; a power of two */
    TO_RECORD = 16,    /* ids between asking for a chunk and for the record it names ... */
    TO_ROW = 32,       /* ... for the row ... */
    TO_COPY = 40,      /* ... and copying that */
    LINES_AHEAD = 8,   /* of a row that are asked for; the processor sees where it goes */
    RETRIES = 1000,    /* of a row that is always being replaced */
};

/* Whether a chunk's entry is that of the id. */
CC_INLINE bool agrees(cc_record *record, int64_t id, cc_place *at)
{
    at->record = record;
    at->word = __atomic_load_n(&record->b, __ATOMIC_ACQUIRE);
    return CC_GET(record->a) == (uint64_t)id && cc_word_live(at->word);
}

/* The rest of a look-up that the home chunk's first match did not answer. */
static CC_NOINLINE bool walk(const cc_vectors *vectors, int64_t id, cc_place *at)
{
    cc_index index = cc_vectors_index(vectors, at->stripe);
    cc_record *records = cc_vectors_records(vectors, at->stripe);
    unsigned tag = cc_index_tag(at->hash);
    uint32_t chunk_at = cc_index_home(&index, at->hash);
    for (uint32_t walked = 0; walked <= index.mask; walked++) {
        const cc_chunk *chunk = &index.chunks[chunk_at];
        for (cc_matches matches = cc_chunk_match(chunk, tag); matches != 0; matches &= matches - 1) {
            uint32_t slot = CC_GET(chunk->slot[cc_matches_first(matches)]);
            if (slot < vectors->layout.slots && agrees(&records[slot], id, at))
                return true;
        }
        if (CC_GET(chunk->overflow) == 0)
            return false;
        chunk_at = cc_index_next(&index, chunk_at, tag);
    }
    return false;
}

CC_INLINE bool look_up(const cc_vectors *vectors, int64_t id, cc_place *at)
{
    if (CC_UNLIKELY(CC_GET(vectors->now[at->stripe].generation) != CC_GET(vectors->table->generation)))
        return false;
    cc_matches matches = cc_chunk_match(at->home, cc_index_tag(at->hash));
    if (CC_LIKELY(matches != 0)) {
        uint32_t slot = CC_GET(at->home->slot[cc_matches_first(matches)]);
        cc_record *records = cc_vectors_records(vectors, at->stripe);
        if (CC_LIKELY(slot < vectors->layout.slots) && CC_LIKELY(agrees(&records[slot], id, at)))
            return true;
    } else if (CC_LIKELY(CC_GET(at->home->overflow) == 0)) {
        return false;
    }
    return walk(vectors, id, at);
}

bool cc_vectors_look_up(const cc_vectors *vectors, int64_t id, cc_place *at)
{
    return look_up(vectors, id, at);
}

/* Begins with an id. */
CC_INLINE void ask_for_chunk(const cc_vectors *vectors, int64_t id, cc_place *at)
{
    cc_vectors_spread(vectors, id, at);
    CC_PREFETCH(at->home);
}

CC_INLINE void ask_for_record(const cc_vectors *vectors, const cc_place *at)
{
    cc_matches matches = cc_chunk_match(at->home, cc_index_tag(at->hash));
    if (CC_LIKELY(matches != 0))
        CC_PREFETCH_WRITE(cc_vectors_records(vectors, at->stripe)
                          + CC_GET(at->home->slot[cc_matches_first(matches)]));
}

CC_INLINE void ask_for_row(const cc_vectors *vectors, const cc_place *at)
{
    const unsigned char *row = cc_vectors_row(vectors, at->stripe, (uint32_t)at->word);
    for (size_t byte = 0; byte < vectors->layout.width && byte < LINES_AHEAD * CC_LINE; byte += CC_LINE)
        CC_PREFETCH(row + byte);
}

/* Copies the row that was looked up, again and again if it is replaced meanwhile; false: it has gone. */
CC_INLINE bool copy(const cc_vectors *vectors, int64_t id, cc_place *at, unsigned char *to)
{
    for (unsigned retry = 0; retry < RETRIES; retry++) {
        cc_row_copy(to, cc_vectors_row(vectors, at->stripe, (uint32_t)at->word), vectors->layout.width);
        CC_ROW_FENCE(at->record->b, __ATOMIC_ACQUIRE);
        if (CC_LIKELY(CC_GET(at->record->b) == at->word))
            return true;
        if (!look_up(vectors, id, at))
            return false;
    }
    return false;
}

size_t cc_vectors_find(const cc_vectors *vectors, const int64_t *ids, size_t n, bool *found)
{
    cc_place ring[RING];
    size_t count = 0;
    for (size_t i = 0; i < n + TO_ROW; i++) {
        if (i < n)
            ask_for_chunk(vectors, ids[i], &ring[i % RING]);
        size_t next = i - TO_RECORD, done = i - TO_ROW;
        if (next < n)
            ask_for_record(vectors, &ring[next % RING]);
        if (done < n)
            count += found[done] = look_up(vectors, ids[done], &ring[done % RING]);
    }
    return count;
}

size_t cc_vectors_gather(cc_vectors *vectors, const int64_t *ids, size_t n, unsigned char *out,
                         bool *found)
{
    cc_place ring[RING];
    size_t count = 0, width = vectors->layout.width;
    uint64_t ticks = CC_ADD(vectors->table->accesses, n);
    uint32_t tick = (uint32_t)(ticks / vectors->layout.stripes);
    for (size_t i = 0; i < n + TO_COPY; i++) {
        if (i < n)
            ask_for_chunk(vectors, ids[i], &ring[i % RING]);
        size_t second = i - TO_RECORD, third = i - TO_ROW, done = i - TO_COPY; /* or above n */
        if (second < n)
            ask_for_record(vectors, &ring[second % RING]);
        if (third < n) {
            cc_place *at = &ring[third % RING];
            found[third] = look_up(vectors, ids[third], at);
            if (found[third])
                ask_for_row(vectors, at);
        }
        if (done >= n)
            continue;
        cc_place *at = &ring[done % RING];
        unsigned char *to = out + done * width;
        found[done] = found[done] && copy(vectors, ids[done], at, to);
        count += found[done];
        if (CC_LIKELY(found[done]))
            cc_meta_hit(&at->record->meta, CC_GET(vectors->now[at->stripe].epoch), tick);
        else
            memset(to, 0, width);
    }
    return count;
}
