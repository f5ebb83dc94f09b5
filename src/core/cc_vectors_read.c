/* cc_vectors_read.c — find and gather: the readers of cc_vectors.h, who take no lock.
 *
 * A batch goes through a pipeline: while one id's row is copied, the row of the id eight further on, the
 * record of the thirty-second and the chunk of the fifty-sixth are on their way to the cache. Where nothing
 * is copied, whole blocks take turns. */
#define _GNU_SOURCE
#include "cc_vectors_inner.h"

#include <signal.h>
#include <stdlib.h>

enum {
    RING = 64,         /* ids under way; a power of two */
    BLOCK = 32,        /* ids that are looked for in step */
    TO_RECORD = 24,    /* ids between asking for a chunk and for the record it names ... */
    TO_ROW = 48,       /* ... for the row ... */
    TO_COPY = 56,      /* ... and copying that */
    LINES_AHEAD = 8,   /* of a row that are asked for; the processor sees where it goes */
    RETRIES = 1000,    /* of a row that is always being replaced */
    MOST_THREADS = 64,
    PART_BYTES = 64 << 10, /* that are worth a thread: making one takes as long */
};

/* Whether a chunk's entry is that of the id. Numbers are checked: a file may have been damaged. */
CC_INLINE bool agrees(cc_record *record, uint32_t rows, int64_t id, cc_place *at)
{
    at->record = record;
    at->word = __atomic_load_n(&record->b, __ATOMIC_ACQUIRE);
    return CC_GET(record->a) == (uint64_t)id && cc_word_live(at->word)
           && CC_LIKELY((uint32_t)at->word < rows);
}

/* The rest of a look-up that the home chunk's first match did not answer. */
static CC_NOINLINE bool walk(const cc_vectors *vectors, int64_t id, cc_place *at)
{
    cc_narrow index = cc_vectors_index(vectors, at->stripe);
    cc_record *records = cc_vectors_records(vectors, at->stripe);
    unsigned tag = cc_index_tag(at->hash);
    uint32_t chunk_at = cc_narrow_home(index.count, at->hash);
    for (uint32_t walked = 0; walked < index.count; walked++) {
        const cc_narrow_chunk *chunk = &index.chunks[chunk_at];
        for (uint32_t matches = cc_narrow_match(chunk, tag); matches != 0; matches &= matches - 1) {
            uint32_t slot = CC_GET(chunk->slot[cc_narrow_first(matches)]);
            if (slot < vectors->layout.slots && agrees(&records[slot], vectors->layout.rows, id, at))
                return true;
        }
        if (CC_GET(chunk->overflow) == 0)
            return false;
        chunk_at = cc_narrow_next(index.count, chunk_at);
    }
    return false;
}

CC_INLINE bool look_up(const cc_vectors *vectors, uint32_t generation, int64_t id, cc_place *at)
{
    if (CC_UNLIKELY(CC_GET(vectors->now[at->stripe].generation) != generation))
        return false;
    uint32_t matches = cc_narrow_match(at->home, cc_index_tag(at->hash));
    if (CC_LIKELY(matches != 0)) {
        uint32_t slot = CC_GET(at->home->slot[cc_narrow_first(matches)]);
        cc_record *records = cc_vectors_records(vectors, at->stripe);
        if (CC_LIKELY(slot < vectors->layout.slots)
            && CC_LIKELY(agrees(&records[slot], vectors->layout.rows, id, at)))
            return true;
    } else if (CC_LIKELY(CC_GET(at->home->overflow) == 0)) {
        return false;
    }
    return walk(vectors, id, at);
}

bool cc_vectors_look_up(const cc_vectors *vectors, uint32_t generation, int64_t id, cc_place *at)
{
    return look_up(vectors, generation, id, at);
}

/* The same for an id whose record was asked for. */
CC_INLINE bool look_up_asked(const cc_vectors *vectors, uint32_t generation, int64_t id, cc_place *at)
{
    if (at->record == NULL
        || CC_UNLIKELY(CC_GET(vectors->now[at->stripe].generation) != generation))
        return false;
    return CC_LIKELY(agrees(at->record, vectors->layout.rows, id, at)) || walk(vectors, id, at);
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

CC_INLINE void ask_for_row(const cc_vectors *vectors, const cc_place *at)
{
    uint32_t number = (uint32_t)at->word;
    const unsigned char *row = cc_vectors_row(vectors, at->stripe, number);
    for (size_t byte = 0; byte < vectors->layout.stored && byte < LINES_AHEAD * CC_LINE; byte += CC_LINE)
        CC_PREFETCH(row + byte);
    if (CC_UNLIKELY(vectors->shape.sums))
        CC_PREFETCH(cc_vectors_sum(vectors, at->stripe, number));
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
   or is not what was put. */
CC_INLINE bool copy(batch *all, int64_t id, cc_place *at, unsigned char *to)
{
    const cc_vectors *vectors = all->vectors;
    size_t stored = vectors->layout.stored;
    unsigned char *here = CC_UNLIKELY(all->landing != NULL) ? all->landing : to;
    for (unsigned retry = 0; retry < RETRIES; retry++) {
        uint32_t number = (uint32_t)at->word;
        uint32_t sum = CC_UNLIKELY(vectors->shape.sums)
                           ? CC_GET(*cc_vectors_sum(vectors, at->stripe, number))
                           : 0;
        cc_row_copy(here, cc_vectors_row(vectors, at->stripe, number), stored);
        CC_ROW_FENCE(at->record->b, __ATOMIC_ACQUIRE);
        if (CC_LIKELY(CC_GET(at->record->b) == at->word)) {
            if (CC_UNLIKELY(vectors->shape.sums) && sum != cc_row_sum(here, stored, id)) {
                all->damaged++;
                return false;
            }
            if (CC_UNLIKELY(here != to))
                cc_row_decode(to, here, vectors->shape.width / sizeof(float));
            return true;
        }
        if (!look_up(vectors, all->moment.generation, id, at))
            return false;
    }
    return false;
}

size_t cc_vectors_find(const cc_vectors *vectors, const int64_t *ids, size_t n, bool *found)
{
    cc_place blocks[4 * BLOCK];
    cc_moment moment;
    size_t count = 0;
    if (!cc_vectors_moment(vectors, &moment)) {
        memset(found, 0, n);
        return 0;
    }
    for (size_t from = 0; from < n + 2 * BLOCK; from += BLOCK) {
        size_t second = from - BLOCK, third = second - BLOCK; /* or above n */
        for (size_t i = from; i < n && i < from + BLOCK; i++)
            ask_for_chunk(vectors, ids[i], &blocks[i % (4 * BLOCK)]);
        for (size_t i = second; i < n && i < from; i++)
            ask_for_record(vectors, &blocks[i % (4 * BLOCK)], false);
        for (size_t i = third; i < n && i < second; i++) {
            cc_place *at = &blocks[i % (4 * BLOCK)];
            found[i] = look_up_asked(vectors, moment.generation, ids[i], at)
                       && !cc_vectors_expired(vectors, at->record, moment);
            count += found[i];
        }
    }
    return count;
}

static void gather(batch *all)
{
    cc_vectors *vectors = all->vectors;
    const int64_t *ids = all->ids;
    bool *found = all->found;
    cc_place ring[RING];
    size_t n = all->n, width = vectors->shape.width;
    for (size_t i = 0; i < n + TO_COPY; i++) {
        if (i < n)
            ask_for_chunk(vectors, ids[i], &ring[i % RING]);
        size_t second = i - TO_RECORD, third = i - TO_ROW, done = i - TO_COPY; /* or above n */
        if (second < n)
            ask_for_record(vectors, &ring[second % RING], true);
        if (third < n) {
            cc_place *at = &ring[third % RING];
            found[third] = look_up_asked(vectors, all->moment.generation, ids[third], at)
                           && !cc_vectors_expired(vectors, at->record, all->moment);
            if (found[third])
                ask_for_row(vectors, at);
        }
        if (done >= n)
            continue;
        cc_place *at = &ring[done % RING];
        unsigned char *to = all->out + done * width;
        found[done] = found[done] && copy(all, ids[done], at, to);
        all->count += found[done];
        if (CC_LIKELY(found[done]))
            cc_meta_hit(&at->record->meta, CC_GET(vectors->now[at->stripe].epoch), all->tick);
        else
            memset(to, 0, width);
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
