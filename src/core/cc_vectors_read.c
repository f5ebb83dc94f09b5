/* cc_vectors_read.c — find and gather: the readers of cc_vectors.h, who take no lock.
 *
 * Ids are looked up a segment at a time, in blocks that take each step together: while one block is
 * answered, the records of the next and the chunks of the one after are on their way to the cache. Then the
 * segment's rows are copied, line by line: while one row is copied, the lines of the fourth after it are
 * asked for in step, and the first few of the sixteenth. */
#define _GNU_SOURCE
#include "cc_vectors_inner.h"

#include <sched.h>
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
    PART_BYTES = 2 << 20, /* that are worth a thread: making one takes half as long */
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

/* A batch that threads work at together: each takes the next segment until there is none. */
typedef struct {
    cc_vectors *vectors;
    const int64_t *ids;
    unsigned char *out;
    bool *found;
    size_t n;
    size_t landing; /* bytes for a row that is not gathered as it lies; else 0 */
    uint32_t tick;
    cc_moment moment;
    _Alignas(CC_LINE) size_t taken; /* ids whose segments somebody took, ... */
    size_t done;                    /* ... and those that are ready */
    size_t count, damaged;
    unsigned users; /* threads that may still look in here */
} batch;

/* Copies the row that was looked up, again and again if it is replaced meanwhile; false: it has gone,
   or is not what was put. The row `ahead` is asked for meanwhile. */
CC_INLINE bool copy(batch *all, cc_place *at, unsigned char *landing, unsigned char *to,
                    const unsigned char *ahead)
{
    const cc_vectors *vectors = all->vectors;
    size_t stored = vectors->layout.stored;
    unsigned char *here = CC_UNLIKELY(landing != NULL) ? landing : to;
    for (unsigned retry = 0; retry < RETRIES; retry++) {
        uint32_t number = (uint32_t)at->word;
        uint32_t sum = CC_UNLIKELY(vectors->shape.sums)
                           ? CC_GET(*cc_vectors_sum(vectors, at->stripe, number))
                           : 0;
        copy_and_ask(here, row_at(vectors, at), stored, ahead);
        CC_ROW_FENCE(at->record->b, __ATOMIC_ACQUIRE);
        if (CC_LIKELY(CC_GET(at->record->b) == at->word)) {
            if (CC_UNLIKELY(vectors->shape.sums) && sum != cc_row_sum(here, stored, at->id)) {
                CC_ADD(all->damaged, 1);
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

/* Gathers a segment; how many of it were there. */
static size_t gather_segment(batch *all, unsigned char *landing, size_t from, size_t n)
{
    cc_vectors *vectors = all->vectors;
    size_t width = vectors->shape.width, count = 0;
    cc_place places[SEGMENT];
    unsigned char *to = all->out + from * width;
    bool *found = all->found + from;
    look_up_segment(vectors, all->moment, all->ids + from, n, places, found, true);
    if (vectors->shared) /* its pages may be small: the processor looks for all of them at once */
        for (size_t i = 0; i < n; i++)
            if (found[i])
                CC_PREFETCH(row_at(vectors, &places[i]));
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
                   && copy(all, at, landing, to, more ? row_at(vectors, &places[others]) : NULL);
        count += found[i];
        if (CC_LIKELY(found[i]))
            cc_meta_hit(&at->record->meta, CC_GET(vectors->now[at->stripe].epoch), all->tick);
        else
            memset(to, 0, width);
    }
    return count;
}

/* Gathers segments until all are taken; false: no memory for that, and none was taken. */
static bool gather(batch *all)
{
    unsigned char *landing = all->landing > 0 ? malloc(all->landing) : NULL;
    if (all->landing > 0 && landing == NULL)
        return false;
    for (size_t from; (from = CC_ADD(all->taken, SEGMENT)) < all->n;) {
        size_t n = all->n - from < SEGMENT ? all->n - from : SEGMENT;
        CC_ADD(all->count, gather_segment(all, landing, from, n));
        __atomic_fetch_add(&all->done, n, __ATOMIC_RELEASE);
    }
    free(landing);
    return true;
}

/* --- threads -------------------------------------------------------------------------------------- */

static void leave(batch *all)
{
    if (__atomic_sub_fetch(&all->users, 1, __ATOMIC_ACQ_REL) == 0)
        free(all);
}

/* One that comes late finds nothing to take, and touches nothing but the batch. */
static void *help(void *batch)
{
    gather(batch);
    leave(batch);
    return NULL;
}

/* Threads that nobody waits for, and that begin elsewhere than on this processor: some kernels, of virtual
   machines above all, leave a new thread where it was made, and it would wait for this one. */
static void describe_helpers(pthread_attr_t *how)
{
    cpu_set_t others;
    int here = sched_getcpu();
    pthread_attr_init(how);
    pthread_attr_setdetachstate(how, PTHREAD_CREATE_DETACHED);
    if (here < 0 || sched_getaffinity(0, sizeof others, &others) != 0)
        return;
    CPU_CLR((size_t)here, &others);
    if (CPU_COUNT(&others) > 0)
        pthread_attr_setaffinity_np(how, sizeof others, &others);
}

/* Gathers with helpers, who take no signals: those are the caller's. It waits for segments, not for
   threads, which take longer to end than a segment does; so the last of them frees the batch. */
static bool gather_together(batch *all, unsigned threads)
{
    sigset_t signals, before;
    pthread_attr_t how;
    pthread_t helper;
    describe_helpers(&how);
    sigfillset(&signals);
    pthread_sigmask(SIG_SETMASK, &signals, &before);
    for (unsigned i = 1; i < threads; i++) {
        CC_ADD(all->users, 1);
        if (pthread_create(&helper, &how, help, all) != 0)
            CC_ADD(all->users, -1u);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&how);
    bool done = gather(all);
    while (__atomic_load_n(&all->done, __ATOMIC_ACQUIRE) < all->n && (done || CC_GET(all->users) > 1))
        sched_yield();
    return __atomic_load_n(&all->done, __ATOMIC_ACQUIRE) >= all->n;
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
    size_t width = vectors->shape.width, count = 0;
    unsigned many = threads_for(n, width, threads);
    batch mine = {
        .vectors = vectors,
        .ids = ids,
        .out = out,
        .found = found,
        .n = n,
        .landing = vectors->shape.codec == CC_ROWS_PLAIN ? 0 : vectors->layout.stride,
        .tick = (uint32_t)cc_vectors_ticks(vectors),
        .users = 1,
    };
    batch *all = &mine, *ours = many > 1 ? aligned_alloc(CC_LINE, sizeof *ours) : NULL;
    if (ours != NULL) {
        *ours = mine;
        all = ours;
    }
    bool done = cc_vectors_moment(vectors, &all->moment)
                && (ours != NULL ? gather_together(all, many) : gather(all));
    if (CC_LIKELY(done)) {
        count = CC_GET(all->count);
        if (CC_UNLIKELY(CC_GET(all->damaged) > 0))
            CC_ADD(table->damaged, CC_GET(all->damaged));
    } else { /* of another version, or without memory for a single row: all are missing */
        memset(found, 0, n);
        memset(out, 0, n * width);
    }
    if (ours != NULL)
        leave(ours);
    CC_ADD(table->gathered, n);
    if (count < n)
        CC_ADD(table->misses, n - count);
    return count;
}
