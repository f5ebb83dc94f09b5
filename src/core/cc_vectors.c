/* cc_vectors.c — see cc_vectors.h. */
#define _GNU_SOURCE
#include "cc_vectors_inner.h"

#include <stdlib.h>

enum {
    STRIPE_ROWS = 8000, /* entries a stripe on average, for which 1,024 chunks are 0.65 full */
    CHUNK_ROWS = 10,    /* entries a chunk at most */
    SPARE = 8,          /* rows of a stripe beyond its limit */
};

static size_t line_up(size_t at)
{
    return (at + 4095) & ~(size_t)4095;
}

static void lay_out(cc_vectors_layout *layout, uint64_t capacity, size_t width)
{
    cc_policy shape;
    uint64_t stripes = (capacity + STRIPE_ROWS - 1) / STRIPE_ROWS;
    uint64_t mean = (capacity + stripes - 1) / stripes;
    /* Five deviations of a stripe's share of random ids, so that none is full before the table is. */
    uint64_t slack = stripes == 1 ? 0 : 5 * (uint64_t)__builtin_sqrt((double)mean) + 1;
    memset(layout, 0, sizeof *layout);
    layout->stripes = (uint32_t)stripes;
    layout->limit = (uint32_t)(mean + slack);
    layout->slots = (layout->limit + layout->limit / 16 + 64 + 1) & ~1u;
    layout->chunks = (uint32_t)cc_pow2_ceil(layout->limit / CHUNK_ROWS + 1);
    layout->shift = 32 - cc_log2_floor(layout->chunks);
    layout->rows = layout->limit + SPARE;
    layout->width = width;
    layout->stride = (width + 15) & ~(size_t)15;
    cc_policy_shape(&shape, layout->limit, layout->slots, 0);
    layout->ghosts = shape.ghosts.lines * CC_GHOSTS_LINE;
    layout->lines = shape.sketch.lines;
    size_t at = line_up(sizeof(cc_vectors_table));
#define PLACE(where, bytes) (layout->where = at, at = line_up(at + stripes * (bytes)))
    PLACE(now_at, sizeof(cc_stripe_now));
    PLACE(stripes_at, sizeof(cc_stripe));
    PLACE(chunks_at, layout->chunks * sizeof(cc_chunk));
    PLACE(records_at, layout->slots * sizeof(cc_record));
    PLACE(rings_at, shape.ring_room * sizeof(uint32_t));
    PLACE(ghosts_at, layout->ghosts * sizeof(uint32_t));
    PLACE(counters_at, (size_t)layout->lines * CC_LINE);
    PLACE(epochs_at, layout->lines);
    PLACE(rows_at, layout->rows * layout->stride);
    layout->size = at;
}

static void find_places(cc_vectors *vectors)
{
    const cc_vectors_layout *layout = &vectors->layout;
#define AT(where) cc_segment_at(&vectors->segment, layout->where)
    vectors->table = cc_segment_at(&vectors->segment, 0);
    vectors->now = AT(now_at);
    vectors->stripes = AT(stripes_at);
    vectors->chunks = AT(chunks_at);
    vectors->records = AT(records_at);
    vectors->rings = AT(rings_at);
    vectors->ghosts = AT(ghosts_at);
    vectors->counters = AT(counters_at);
    vectors->epochs = AT(epochs_at);
    vectors->rows = AT(rows_at);
    vectors->secret = vectors->table->secret;
}

static void make_lock(cc_stripe *stripe)
{
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&stripe->lock, &kind);
    pthread_mutexattr_destroy(&kind);
}

static void make_stripe(const cc_vectors *vectors, uint32_t number, uint64_t seed)
{
    const cc_vectors_layout *layout = &vectors->layout;
    cc_stripe *stripe = &vectors->stripes[number];
    make_lock(stripe);
    cc_policy_shape(&stripe->policy, layout->limit, layout->slots, seed + number);
    cc_stripe_attach(vectors, stripe, number);
    cc_stripe_empty(vectors, stripe, number);
}

bool cc_vectors_anonymous(cc_vectors *vectors, uint64_t capacity, size_t width, uint64_t seed)
{
    memset(vectors, 0, sizeof *vectors);
    lay_out(&vectors->layout, capacity, width);
    vectors->capacity = capacity;
    if (cc_segment_anonymous(&vectors->segment, vectors->layout.size) != CC_SEGMENT_OK)
        return false;
    cc_vectors_table *table = cc_segment_at(&vectors->segment, 0);
    table->secret = cc_mix64(seed, 0x9E6C63D0876A9A47ull);
    find_places(vectors);
    for (uint32_t number = 0; number < vectors->layout.stripes; number++)
        make_stripe(vectors, number, seed);
    return true;
}

void cc_vectors_close(cc_vectors *vectors)
{
    cc_segment_close(&vectors->segment);
}

void cc_vectors_forked(cc_vectors *vectors)
{
    for (uint32_t number = 0; number < vectors->layout.stripes; number++) {
        cc_stripe *stripe = &vectors->stripes[number];
        bool idle = pthread_mutex_trylock(&stripe->lock) == 0;
        if (idle)
            pthread_mutex_unlock(&stripe->lock);
        else
            stripe->dirty = true;
        make_lock(stripe); /* the parent's thread was its last owner */
    }
}

void cc_vectors_clear(cc_vectors *vectors)
{
    __atomic_fetch_add(&vectors->table->generation, 1, __ATOMIC_RELEASE);
}
