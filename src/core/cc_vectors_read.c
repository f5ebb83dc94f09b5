/* cc_vectors_read.c — find and gather: the readers of cc_vectors.h, who take no lock.
 *
 * Ids are looked up a segment at a time, in blocks that take each step together: while one block is
 * answered, the records of the next and the chunks of the one after are on their way to the cache. Then the
 * segment's rows are copied, line by line: while one row is copied, the lines of the fourth after it are
 * asked for in step, and the first few of the sixteenth. */
#define _GNU_SOURCE
#include "cc_vectors_inner.h"

#include <signal.h>
#include <stdlib.h>

enum {
    SEGMENT = 128,     /* ids under way */
    BLOCK = 32,        /* of them, that are looked for in step */
    TO_FIRST = 16,     /* rows between asking for the first lines of one and copying it ... */
    TO_OTHERS = 4,     /* ... and for the others */
    FIRST_LINES = 4,
    RETRIES = 1000,    /* of a row that is always being replaced */
    MOST_THREADS = 64,
    PART_BYTES = 64 << 10, /* that are worth a thread: making one takes as long */
};

/* Whether a chunk's entry is that of the id. Numbers are checked: a file may have been damaged. */
CC_INLINE bool agrees(cc_record *record, uint32_t rows, cc_place *at)
{
    at->record = record;
    at->word = __atomic_load_n(&record->b, __ATOMIC_ACQUIRE);
    return CC_GET(record->a) == (uint64_t)at->id && cc_word_live(at->word)
           && CC_LIKELY((uint32_t)at->word < rows);
}

/* The rest of a look-up that the home chunk's first match did not answer. */
static CC_NOINLINE bool walk(const cc_vectors *vectors, cc_place *at)
{
    cc_narrow index = cc_vectors_index(vectors, at->stripe);
    cc_record *records = cc_vectors_records(vectors, at->stripe);
    unsigned tag = cc_index_tag(at->hash);
    uint32_t chunk_at = cc_narrow_home(index.count, at->hash);
    for (uint32_t walked = 0; walked < index.count; walked++) {
        const cc_narrow_chunk *chunk = &index.chunks[chunk_at];
        for (uint32_t matches = cc_narrow_match(chunk, tag); matches != 0; matches &= matches - 1) {
            uint32_t slot = CC_GET(chunk->slot[cc_narrow_first(matches)]);
            if (slot < vectors->layout.slots && agrees(&records[slot], vectors->layout.rows, at))
                return true;
        }
        if (CC_GET(chunk->overflow) == 0)
            return false;
        chunk_at = cc_narrow_next(index.count, chunk_at);
    }
    return false;
}

CC_INLINE bool look_up(const cc_vectors *vectors, uint32_t generation, cc_place *at)
{
    if (CC_UNLIKELY(CC_GET(vectors->now[at->stripe].generation) != generation))
        return false;
    uint32_t matches = cc_narrow_match(at->home, cc_index_tag(at->hash));
    if (CC_LIKELY(matches != 0)) {
        uint32_t slot = CC_GET(at->home->slot[cc_narrow_first(matches)]);
        cc_record *records = cc_vectors_records(vectors, at->stripe);
        if (CC_LIKELY(slot < vectors->layout.slots)
            && CC_LIKELY(agrees(&records[slot], vectors->layout.rows, at)))
            return true;
    } else if (CC_LIKELY(CC_GET(at->home->overflow) == 0)) {
        return false;
    }
    return walk(vectors, at);
}

bool cc_vectors_look_up(const cc_vectors *vectors, uint32_t generation, cc_place *at)
{
    return look_up(vectors, generation, at);
}

/* The same for an id whose record was asked for. */
CC_INLINE bool look_up_asked(const cc_vectors *vectors, uint32_t generation, cc_place *at)
{
    if (at->record == NULL
        || CC_UNLIKELY(CC_GET(vectors->now[at->stripe].generation) != generation))
        return false;
    return CC_LIKELY(agrees(at->record, vectors->layout.rows, at)) || walk(vectors, at);
}

/* Begins with an id. */
CC_INLINE void ask_for_chunk(const cc_vectors *vectors, int64_t id, cc_place *at)
{
    cc_vectors_spread(vectors, id, at);
    CC_PREFETCH(at->home);
}

/* The record of the first of some places; one that is there, whatever the chunk says. */
CC_INLINE cc_record *record_at(const cc_vectors *vectors, const cc_place *at, uint32_t matches)
{
    uint32_t slot = CC_GET(at->home->slot[cc_narrow_first(matches)]);
    return cc_vectors_records(vectors, at->stripe) + (slot < vectors->layout.slots ? slot : 0);
}

/* Goes on with its record: the first whose tag agrees. NULL: the id is not there. */
CC_INLINE void ask_for_record(const cc_vectors *vectors, cc_place *at, bool write)
{
    uint32_t matches = cc_narrow_match(at->home, cc_index_tag(at->hash));
    at->record = NULL;
    if (CC_UNLIKELY(matches == 0)) {
        if (CC_LIKELY(CC_GET(at->home->overflow) == 0))
            return;
        CC_PREFETCH(at->home + 1); /* where it may be; that a first record is not its own tells to walk */
    }
    for (uint32_t others = matches & (matches - 1); CC_UNLIKELY(others != 0); others &= others - 1)
        CC_PREFETCH(record_at(vectors, at, others));
    at->record = matches == 0 ? cc_vectors_records(vectors, at->stripe) : record_at(vectors, at, matches);
    if (write)
        CC_PREFETCH_WRITE(at->record);
    else
        CC_PREFETCH(at->record); /* a line that is fetched to be written is written back, on some machines */
}

/* Looks up to SEGMENT ids up, at a moment. */
CC_INLINE void look_up_segment(const cc_vectors *vectors, cc_moment moment, const int64_t *ids, size_t n,
                               cc_place *places, bool *found, bool write)
{
    for (size_t from = 0; from < n + 2 * BLOCK; from += BLOCK) {
        size_t second = from - BLOCK, third = second - BLOCK; /* or above n */
        for (size_t i = from; i < n && i < from + BLOCK; i++)
            ask_for_chunk(vectors, CC_GET(ids[i]), &places[i]);
        for (size_t i = second; i < n && i < from; i++)
            ask_for_record(vectors, &places[i], write);
        for (size_t i = third; i < n && i < second; i++)
            found[i] = look_up_asked(vectors, moment.generation, &places[i])
                       && !cc_vectors_expired(vectors, places[i].record, moment);
    }
}

size_t cc_vectors_find(const cc_vectors *vectors, const int64_t *ids, size_t n, bool *found)
{
    cc_place places[SEGMENT];
    cc_moment moment;
    size_t count = 0;
    if (!cc_vectors_moment(vectors, &moment)) {
        memset(found, 0, n);
        return 0;
    }
    for (size_t from = 0; from < n; from += SEGMENT)
        look_up_segment(vectors, moment, ids + from, n - from < SEGMENT ? n - from : SEGMENT, places,
                        found + from, false);
    for (size_t i = 0; i < n; i++)
        count += found[i];
    return count;
}

CC_INLINE const unsigned char *row_at(const cc_vectors *vectors, const cc_place *at)
{
    return cc_vectors_row(vectors, at->stripe, (uint32_t)at->word);
}

/* Asks for a row's first lines. */
CC_INLINE void ask_for_row(const cc_vectors *vectors, const cc_place *at)
{
    const unsigned char *row = row_at(vectors, at);
    for (size_t byte = 0; byte < vectors->layout.stored && byte < FIRST_LINES * CC_LINE; byte += CC_LINE)
        CC_PREFETCH(row + byte);
    if (CC_UNLIKELY(vectors->shape.sums))
        CC_PREFETCH(cc_vectors_sum(vectors, at->stripe, (uint32_t)at->word));
}

/* Copies a row, and asks for another one's lines but for the first; ahead NULL: for none. */
CC_INLINE void copy_and_ask(unsigned char *to, const unsigned char *from, size_t width,
                            const unsigned char *ahead)
{
    size_t byte = FIRST_LINES * CC_LINE;
    if (width <= byte || ahead == NULL) {
        cc_row_copy(to, from, width);
        return;
    }
    cc_row_copy(to, from, FIRST_LINES * CC_LINE);
    for (; byte + CC_LINE <= width; byte += CC_LINE) {
        CC_PREFETCH(ahead + byte);
        cc_row_copy(to + byte, from + byte, CC_LINE);
    }
    if (byte < width) {
        CC_PREFETCH(ahead + byte);
        cc_row_copy(to + byte, from + byte, width - byte);
    }
}

/* A batch on its way, or a thread's part of it. */
typedef struct {
    cc_vectors *vectors;
    const int64_t *ids;
    unsigned char *out;
    unsigned char *landing; /* where rows are copied that are not gathered as they lie; else NULL */
    bool *found;
    size_t n, count, damaged;
    uint32_t tick;
    cc_moment moment;
    pthread_t thread;
} batch;

/* Copies the row that was looked up, again and again if it is replaced meanwhile; false: it has gone,
   or is not what was put. The row `ahead` is asked for meanwhile. */
CC_INLINE bool copy(batch *all, cc_place *at, unsigned char *to,
                    const unsigned char *ahead)
{
    const cc_vectors *vectors = all->vectors;
    size_t stored = vectors->layout.stored;
    unsigned char *here = CC_UNLIKELY(all->landing != NULL) ? all->landing : to;
    for (unsigned retry = 0; retry < RETRIES; retry++) {
        uint32_t number = (uint32_t)at->word;
        uint32_t sum = CC_UNLIKELY(vectors->shape.sums)
                           ? CC_GET(*cc_vectors_sum(vectors, at->stripe, number))
                           : 0;
        copy_and_ask(here, row_at(vectors, at), stored, ahead);
        CC_ROW_FENCE(at->record->b, __ATOMIC_ACQUIRE);
        if (CC_LIKELY(CC_GET(at->record->b) == at->word)) {
            if (CC_UNLIKELY(vectors->shape.sums) && sum != cc_row_sum(here, stored, at->id)) {
                all->damaged++;
                return false;
            }
            if (CC_UNLIKELY(here != to))
                cc_row_decode(to, here, vectors->shape.width / sizeof(float));
            return true;
        }
        if (!look_up(vectors, all->moment.generation, at))
            return false;
    }
    return false;
}

static void gather(batch *all)
{
    cc_vectors *vectors = all->vectors;
    size_t width = vectors->shape.width;
    cc_place places[SEGMENT];
    for (size_t from = 0; from < all->n; from += SEGMENT) {
        size_t n = all->n - from < SEGMENT ? all->n - from : SEGMENT;
        unsigned char *to = all->out + from * width;
        bool *found = all->found + from;
        look_up_segment(vectors, all->moment, all->ids + from, n, places, found, true);
        for (size_t i = 0; i < n && i < TO_FIRST; i++)
            if (found[i])
                ask_for_row(vectors, &places[i]);
        for (size_t i = 0; i < n; i++, to += width) {
            cc_place *at = &places[i];
            size_t first = i + TO_FIRST, others = i + TO_OTHERS;
            bool more = others < n && found[others];
            if (first < n && found[first])
                ask_for_row(vectors, &places[first]);
            found[i] = found[i]
                       && copy(all, at, to, more ? row_at(vectors, &places[others]) : NULL);
            all->count += found[i];
            if (CC_LIKELY(found[i]))
                cc_meta_hit(&at->record->meta, CC_GET(vectors->now[at->stripe].epoch), all->tick);
            else
                memset(to, 0, width);
        }
    }
}

static void *gather_part(void *part)
{
    gather(part);
    return NULL;
}

/* Gathers the parts of a batch, the first in this thread. A part without a thread of its own is done
   here too. Threads take no signals: those are the caller's. */
static void gather_parts(batch *parts, unsigned count)
{
    sigset_t all, before;
    bool begun[MOST_THREADS] = {false};
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (unsigned i = 1; i < count; i++)
        begun[i] = pthread_create(&parts[i].thread, NULL, gather_part, &parts[i]) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    gather(&parts[0]);
    for (unsigned i = 1; i < count; i++) {
        if (begun[i])
            pthread_join(parts[i].thread, NULL);
        else
            gather(&parts[i]);
    }
}

static unsigned threads_for(size_t n, size_t width, unsigned threads)
{
    size_t most = n * width / PART_BYTES;
    if (threads > MOST_THREADS)
        threads = MOST_THREADS;
    return most < 1 ? 1 : most < threads ? (unsigned)most : threads;
}

size_t cc_vectors_gather(cc_vectors *vectors, const int64_t *ids, size_t n, unsigned char *out,
                         bool *found, unsigned threads)
{
    cc_vectors_table *table = vectors->table;
    batch parts[MOST_THREADS];
    size_t width = vectors->shape.width, count = 0, damaged = 0;
    unsigned many = threads_for(n, width, threads);
    uint64_t tick = cc_vectors_ticks(vectors);
    cc_moment moment;
    unsigned char *landing = NULL;
    bool current = cc_vectors_moment(vectors, &moment);
    bool coded = vectors->shape.codec != CC_ROWS_PLAIN;
    size_t apart = vectors->layout.stride + 2 * CC_LINE; /* no line is two threads' */
    if (coded)
        landing = malloc(many * apart);
    if (!current || (coded && landing == NULL)) {
        memset(found, 0, n);
        memset(out, 0, n * width);
        CC_ADD(table->gathered, n);
        CC_ADD(table->misses, n);
        free(landing);
        return 0;
    }
    for (unsigned i = 0; i < many; i++) {
        size_t from = n * i / many, to = n * (i + 1) / many;
        parts[i] = (batch){
            .vectors = vectors,
            .ids = ids + from,
            .out = out + from * width,
            .landing = coded ? landing + i * apart : NULL,
            .found = found + from,
            .n = to - from,
            .tick = (uint32_t)tick,
            .moment = moment,
        };
    }
    if (many == 1)
        gather(&parts[0]);
    else
        gather_parts(parts, many);
    for (unsigned i = 0; i < many; i++) {
        count += parts[i].count;
        damaged += parts[i].damaged;
    }
    free(landing);
    CC_ADD(table->gathered, n);
    if (count < n)
        CC_ADD(table->misses, n - count);
    if (CC_UNLIKELY(damaged > 0))
        CC_ADD(table->damaged, damaged);
    return count;
}
