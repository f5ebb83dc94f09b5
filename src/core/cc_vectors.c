/* cc_vectors.c — see cc_vectors.h. */
#define _GNU_SOURCE
#include "cc_vectors_inner.h"


enum {
    STRIPE_ROWS = 31000, /* entries a stripe at most on average: its slots, and its queue, are 2^15 then */
    SPARE = 8,           /* rows of a stripe beyond its limit */
    PINS_SHARE = 4,      /* th part of a stripe's rows that views may hold, ... */
    PINS_LEAST = 16,     /* ... and so many more */
    SKETCH_ROW = 3,           /* bytes of sketches for each entry, ... */
    SKETCH_FULL = 512 * 1024, /* ... in all at least what an object cache has, ... */
    SKETCH_SMALL = 256,       /* ... for few entries no more than this for each, as it has */
};

#define MOST_BYTES 0x1p46 /* of a table: what processors can address, nearly */
#define PROOF 0xC2B2AE3D27D4EB4Full

static size_t line_up(size_t at)
{
    return (at + 4095) & ~(size_t)4095;
}

/* Of a stripe. */
static uint64_t sketch_bytes(uint64_t stripes, uint64_t limit)
{
    uint64_t small = SKETCH_SMALL * limit, usual = SKETCH_FULL / stripes, large = SKETCH_ROW * limit;
    uint64_t least = small < usual ? small : usual;
    return large > least ? large : least;
}

bool cc_vectors_lay_out(cc_vectors_layout *layout, const cc_vectors_shape *given, bool shared)
{
    cc_policy shape;
    uint64_t capacity = given->capacity;
    uint64_t stripes = (capacity + STRIPE_ROWS - 1) / STRIPE_ROWS;
    uint64_t mean = (capacity + stripes - 1) / stripes;
    /* Five deviations of a stripe's share of random ids, so that none is full before the table is. */
    uint64_t slack = stripes == 1 ? 0 : 5 * (uint64_t)__builtin_sqrt((double)mean) + 1;
    memset(layout, 0, sizeof *layout);
    if (2.0 * (double)capacity * ((double)given->width + 256) > MOST_BYTES)
        return false;
    layout->stripes = (uint32_t)stripes;
    layout->limit = (uint32_t)(mean + slack);
    layout->chunks = layout->limit / CC_NARROW_FILL + 1;
    layout->pins = shared ? 0 : layout->limit / PINS_SHARE + PINS_LEAST;
    layout->rows = layout->limit + SPARE + layout->pins;
    layout->stored = cc_row_stored(given->width, (cc_codec)given->codec);
    layout->stride = (layout->stored + 3) & ~(size_t)3; /* room for a link; items stay aligned */
    layout->sketch = (uint32_t)sketch_bytes(stripes, layout->limit);
    cc_policy_shape(&shape, layout->limit, layout->sketch, 0);
    layout->slots = shape.room;
    layout->ring = shape.ring_room;
    layout->ghosts = shape.ghosts.lines * CC_GHOSTS_LINE;
    layout->lines = shape.sketch.lines;
    size_t at = line_up(sizeof(cc_vectors_table));
#define PLACE(where, bytes) (layout->where = at, at = line_up(at + stripes * (bytes)))
    PLACE(now_at, sizeof(cc_stripe_now));
    PLACE(counts_at, sizeof(uint64_t));
    PLACE(stripes_at, sizeof(cc_stripe));
    PLACE(chunks_at, layout->chunks * sizeof(cc_narrow_chunk));
    PLACE(records_at, layout->slots * sizeof(cc_record));
    PLACE(rings_at, layout->ring * sizeof(uint16_t));
    PLACE(ghosts_at, layout->ghosts * sizeof(uint32_t));
    PLACE(counters_at, (size_t)layout->lines * CC_LINE);
    PLACE(epochs_at, layout->lines);
    PLACE(sums_at, given->sums ? layout->rows * sizeof(uint32_t) : 0);
    PLACE(rows_at, layout->rows * layout->stride);
    layout->size = at;
    return true;
}

void cc_vectors_find_places(cc_vectors *vectors)
{
    const cc_vectors_layout *layout = &vectors->layout;
#define AT(where) cc_segment_at(&vectors->segment, layout->where)
    vectors->table = cc_segment_at(&vectors->segment, 0);
    vectors->now = AT(now_at);
    vectors->counts = AT(counts_at);
    vectors->stripes = AT(stripes_at);
    vectors->chunks = AT(chunks_at);
    vectors->records = AT(records_at);
    vectors->rings = AT(rings_at);
    vectors->ghosts = AT(ghosts_at);
    vectors->counters = AT(counters_at);
    vectors->epochs = AT(epochs_at);
    vectors->sums = AT(sums_at);
    vectors->rows = AT(rows_at);
    vectors->secret = vectors->table->secret;
    vectors->turn = vectors->table->turn;
}

bool cc_vectors_sound(const cc_vectors *vectors)
{
    return vectors->table->proof == cc_mix64(vectors->table->secret, PROOF);
}

static int64_t clock_of(const cc_vectors *vectors)
{
    int64_t now = (vectors->shared ? cc_clock_unix_ms() : cc_clock_ms()) + vectors->ahead_ms;
    return now > 0 ? now : 0;
}

static uint64_t contents_from_now(const cc_vectors *vectors, uint32_t generation)
{
    return (uint64_t)generation << 32 | (uint32_t)(clock_of(vectors) / 1000);
}

void cc_vectors_make(cc_vectors *vectors, uint64_t seed)
{
    const cc_vectors_layout *layout = &vectors->layout;
    cc_vectors_table *table = cc_segment_at(&vectors->segment, 0);
    table->secret = cc_mix64(seed, 0x9E6C63D0876A9A47ull);
    table->proof = cc_mix64(table->secret, PROOF);
    table->contents = contents_from_now(vectors, 0);
    cc_vectors_find_places(vectors);
    for (uint32_t number = 0; number < layout->stripes; number++) {
        cc_stripe *stripe = &vectors->stripes[number];
        cc_stripe_make_lock(stripe);
        cc_policy_shape(&stripe->policy, layout->limit, layout->sketch, seed + number);
        stripe->free_row = CC_NO_SLOT;
        cc_stripe_seal(vectors, number);
    }
}

bool cc_vectors_anonymous(cc_vectors *vectors, const cc_vectors_shape *shape, uint64_t seed)
{
    memset(vectors, 0, sizeof *vectors);
    vectors->shape = *shape;
    if (!cc_vectors_lay_out(&vectors->layout, shape, false)
        || cc_segment_anonymous(&vectors->segment, vectors->layout.size) != CC_SEGMENT_OK)
        return false;
    cc_vectors_make(vectors, seed);
    return true;
}

/* Locks that threads of the parent held are nobody's here, and what they were doing was cut short. */
static void let_go(cc_vectors *vectors)
{
    for (uint32_t number = 0; number < vectors->layout.stripes; number++) {
        cc_stripe *stripe = &vectors->stripes[number];
        bool idle = pthread_mutex_trylock(&stripe->lock) == 0;
        if (idle)
            pthread_mutex_unlock(&stripe->lock);
        else
            stripe->dirty = 1;
        cc_stripe_make_lock(stripe); /* the parent's thread was its last owner */
    }
}

void cc_vectors_forked(cc_vectors *vectors)
{
    if (vectors->shared)
        cc_vectors_rejoin(vectors);
    else
        let_go(vectors);
}

bool cc_vectors_moment(const cc_vectors *vectors, cc_moment *moment)
{
    uint64_t contents = __atomic_load_n(&vectors->table->contents, __ATOMIC_ACQUIRE);
    moment->generation = (uint32_t)(contents >> 32);
    moment->now = 0;
    if (CC_UNLIKELY(vectors->shape.ttl != 0)) {
        int64_t units = (clock_of(vectors) - (int64_t)(uint32_t)contents * 1000) / 10 + 1;
        moment->now = units < 1 ? 0 : units < UINT32_MAX ? (uint32_t)units : UINT32_MAX;
    }
    /* Contents of another version come after the turn has been counted. */
    return CC_GET(vectors->table->turn) == vectors->turn;
}

void cc_vectors_renew(const cc_vectors *vectors)
{
    uint64_t old = CC_GET(vectors->table->contents), fresh;
    do
        fresh = contents_from_now(vectors, (uint32_t)(old >> 32) + 1);
    while (!__atomic_compare_exchange_n(&vectors->table->contents, &old, fresh, false,
                                        __ATOMIC_RELEASE, __ATOMIC_RELAXED));
}

void cc_vectors_clear(cc_vectors *vectors)
{
    cc_moment moment;
    if (cc_vectors_moment(vectors, &moment))
        cc_vectors_renew(vectors);
}

uint64_t cc_vectors_live(const cc_vectors *vectors)
{
    cc_moment moment;
    uint64_t live = 0;
    if (!cc_vectors_moment(vectors, &moment))
        return 0;
    for (uint32_t number = 0; number < vectors->layout.stripes; number++) {
        uint64_t count = CC_GET(vectors->counts[number]);
        live += count >> 32 == moment.generation ? (uint32_t)count : 0;
    }
    /* More only while writers announce rows. */
    return live < vectors->shape.capacity ? live : vectors->shape.capacity;
}

void cc_vectors_count(const cc_vectors *vectors, cc_vectors_counts *counts)
{
    const cc_vectors_table *table = vectors->table;
    uint64_t rows = 0;
    memset(counts, 0, sizeof *counts);
    counts->gathered = CC_GET(table->gathered);
    counts->misses = CC_GET(table->misses);
    counts->damaged = CC_GET(table->damaged);
    counts->refused = CC_GET(table->refused);
    counts->live = cc_vectors_live(vectors);
    for (uint32_t number = 0; number < vectors->layout.stripes; number++) {
        const cc_stripe *stripe = &vectors->stripes[number];
        counts->inserts += CC_GET(stripe->inserts);
        for (unsigned reason = 0; reason < 4; reason++)
            counts->left[reason] += CC_GET(stripe->left[reason]);
        counts->pinned += CC_GET(stripe->pinned);
        rows += CC_GET(stripe->policy.live);
    }
    if (rows > counts->live) /* stripes that nobody wrote to since the table was cleared */
        counts->left[CC_DELETED] += rows - counts->live;
}
