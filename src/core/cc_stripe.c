/* cc_stripe.c — a stripe of cc_vectors.h: its lock, its emptying, and its repair after a death. */
#define _GNU_SOURCE
#include "cc_vectors_inner.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

enum { LOCK_SECONDS = 1 };

#ifdef __SANITIZE_THREAD__ /* it does not know pthread_mutex_clocklock */
#define LOCK_CLOCK CLOCK_REALTIME
#define LOCK_UNTIL(lock, until) pthread_mutex_timedlock(lock, until)
#else
#define LOCK_CLOCK CLOCK_MONOTONIC
#define LOCK_UNTIL(lock, until) pthread_mutex_clocklock(lock, CLOCK_MONOTONIC, until)
#endif

void cc_stripe_make_lock(cc_stripe *stripe)
{
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&stripe->lock, &kind);
    pthread_mutexattr_destroy(&kind);
}

void cc_stripe_attach(const cc_vectors *vectors, cc_stripe *stripe, uint32_t number)
{
    const cc_vectors_layout *layout = &vectors->layout;
    cc_policy_memory memory = {
        .records = cc_vectors_records(vectors, number),
        .ring = vectors->rings + (size_t)number * layout->ring,
        .ghosts = vectors->ghosts + (size_t)number * layout->ghosts,
        .counters = vectors->counters + (size_t)number * layout->lines * CC_LINE,
        .epochs = vectors->epochs + (size_t)number * layout->lines,
    };
    uint32_t entries = stripe->index.entries;
    cc_policy_place(&stripe->policy, &memory);
    stripe->index = cc_vectors_index(vectors, number);
    stripe->index.entries = entries;
}

static bool nobody(void *owner, uint32_t slot)
{
    (void)owner;
    (void)slot;
    return false;
}

/* Makes the version of every entry even, so that whoever is copying begins again and finds nothing. */
static void end_versions(const cc_vectors *vectors, uint32_t number, const unsigned char *spared)
{
    cc_record *records = cc_vectors_records(vectors, number);
    for (uint32_t slot = 0; slot < vectors->layout.slots; slot++) {
        uint64_t word = CC_GET(records[slot].b);
        if (cc_word_live(word) && (spared == NULL || !spared[slot]))
            __atomic_store_n(&records[slot].b, word + (UINT64_C(1) << 32), __ATOMIC_RELEASE);
    }
}

/* Rows that views hold are not to be used again before those let go. Returns the first number that
   no such row has, nor any above. */
static uint32_t spare_pinned(const cc_vectors *vectors, cc_stripe *stripe, uint32_t number,
                             const unsigned char *taken)
{
    uint32_t *pins = cc_vectors_pins(vectors, number, 0), end = 0;
    if (pins == NULL || stripe->pinned == 0)
        return 0;
    for (uint32_t row = 0; row < vectors->layout.rows; row++) {
        if (pins[row] == 0)
            continue;
        end = row + 1;
        if (taken == NULL || !taken[row])
            pins[row] |= CC_PIN_LEFT;
    }
    return end;
}

/* Puts what is neither taken nor pinned on the list, as far as rows were in use. */
static void collect_rows(const cc_vectors *vectors, cc_stripe *stripe, uint32_t number,
                         const unsigned char *taken)
{
    uint32_t end = spare_pinned(vectors, stripe, number, taken);
    const uint32_t *pins = cc_vectors_pins(vectors, number, 0);
    for (uint32_t row = end; taken != NULL && row < vectors->layout.rows; row++)
        if (taken[row])
            end = row + 1;
    stripe->free_row = CC_NO_SLOT;
    stripe->fresh_row = end;
    for (uint32_t row = end; row-- > 0;)
        if ((taken == NULL || !taken[row]) && (pins == NULL || pins[row] == 0))
            cc_row_link(vectors, stripe, number, row);
}

void cc_stripe_empty(const cc_vectors *vectors, cc_stripe *stripe, uint32_t number,
                     uint32_t generation)
{
    end_versions(vectors, number, NULL);
    for (uint32_t at = 0; at < vectors->layout.chunks; at++)
        memset(stripe->index.chunks[at].tag, 0, sizeof stripe->index.chunks[at].tag + 1);
    stripe->index.entries = 0;
    stripe->left[CC_DELETED] += stripe->policy.live;
    cc_policy_rebuild(&stripe->policy, nobody, NULL);
    collect_rows(vectors, stripe, number, NULL);
    __atomic_store_n(&vectors->now[number].generation, generation, __ATOMIC_RELEASE);
}

static bool is_marked(void *marks, uint32_t slot)
{
    return ((unsigned char *)marks)[slot];
}

/* Marks the slots that the index finds, by entries that agree with their records, and their rows, and
   empties the other places. A row is one entry's: of damaged files it may look like two. */
static void mark_entries(const cc_vectors *vectors, uint32_t number, unsigned char *marks,
                         unsigned char *taken)
{
    cc_narrow index = cc_vectors_index(vectors, number);
    const cc_record *records = cc_vectors_records(vectors, number);
    for (uint32_t at = 0; at < index.count; at++) {
        cc_narrow_chunk *chunk = &index.chunks[at];
        for (unsigned place = 0; place < CC_NARROW_PLACES; place++) {
            if (chunk->tag[place] == 0)
                continue;
            uint32_t slot = chunk->slot[place];
            cc_place found = {.record = NULL};
            if (slot < vectors->layout.slots && !marks[slot] && cc_word_live(records[slot].b)
                && (uint32_t)records[slot].b < vectors->layout.rows
                && !taken[(uint32_t)records[slot].b]) {
                int64_t id = (int64_t)records[slot].a;
                cc_vectors_spread(vectors, id, &found);
                if (found.stripe == number && found.hash == records[slot].meta.hash
                    && cc_narrow_has(&index, found.hash, slot)
                    && cc_index_tag(found.hash) == chunk->tag[place]) {
                    marks[slot] = taken[(uint32_t)records[slot].b] = 1;
                    continue;
                }
            }
            CC_SET(chunk->tag[place], 0);
        }
    }
}

/* A policy as it was made, that has learned what the old one had. */
static void renew_policy(const cc_vectors *vectors, cc_stripe *stripe, uint32_t number)
{
    cc_policy old = stripe->policy;
    uint64_t ticks = cc_vectors_ticks(vectors);
    if (old.tick - ticks > UINT32_MAX / 2)
        old.tick = ticks;
    cc_policy_shape(&stripe->policy, vectors->layout.limit, vectors->layout.sketch, old.random);
    cc_stripe_attach(vectors, stripe, number);
    cc_policy_inherit(&stripe->policy, &old);
}

/* Everything else follows from records and chunks: entries are those that both know. Readers go on
   meanwhile; what they find stays where it is. */
bool cc_stripe_rebuild(const cc_vectors *vectors, cc_stripe *stripe, uint32_t number)
{
    const cc_vectors_layout *layout = &vectors->layout;
    cc_record *records = cc_vectors_records(vectors, number);
    unsigned char *marks = calloc(1, layout->slots + layout->rows);
    if (marks == NULL)
        return false;
    unsigned char *taken = marks + layout->slots;
    renew_policy(vectors, stripe, number);
    mark_entries(vectors, number, marks, taken);
    end_versions(vectors, number, marks);
    for (uint32_t slot = 0; slot < layout->slots; slot++)
        if (marks[slot] && !cc_record_live(&records[slot])) /* it was about to leave */
            CC_SET(records[slot].meta.state, CC_MAIN);
    cc_policy_rebuild(&stripe->policy, is_marked, marks);
    stripe->index.entries = stripe->policy.live;
    collect_rows(vectors, stripe, number, taken);
    uint64_t left = 0;
    for (unsigned reason = 0; reason < 4; reason++)
        left += stripe->left[reason];
    stripe->inserts = left + stripe->policy.live;
    free(marks);
    return true;
}

static cc_vectors_result take_lock(cc_stripe *stripe)
{
    int result = pthread_mutex_trylock(&stripe->lock);
    if (result == EBUSY) {
        struct timespec until;
        clock_gettime(LOCK_CLOCK, &until);
        until.tv_sec += LOCK_SECONDS;
        result = LOCK_UNTIL(&stripe->lock, &until);
    }
    if (result == EOWNERDEAD) {
        stripe->dirty = 1; /* until it is rebuilt, also by the next one if this one dies too */
        result = pthread_mutex_consistent(&stripe->lock);
    }
    return result == 0 ? CC_VECTORS_OK : CC_VECTORS_BUSY;
}

static uint32_t seal_of(const cc_stripe *stripe)
{
    size_t size = offsetof(cc_stripe, seal) - offsetof(cc_stripe, policy);
    return cc_row_sum((const unsigned char *)&stripe->policy, size, 0);
}

void cc_stripe_seal(const cc_vectors *vectors, uint32_t number)
{
    if (vectors->shared)
        vectors->stripes[number].seal = seal_of(&vectors->stripes[number]);
}

cc_vectors_result cc_stripe_lock(const cc_vectors *vectors, uint32_t number, cc_moment *moment)
{
    cc_stripe *stripe = &vectors->stripes[number];
    uint32_t session = CC_GET(vectors->table->session);
    cc_vectors_result result = take_lock(stripe);
    if (result != CC_VECTORS_OK)
        return result;
    if (!cc_vectors_moment(vectors, moment)) {
        pthread_mutex_unlock(&stripe->lock);
        return CC_VECTORS_OUTDATED;
    }
    if (CC_UNLIKELY(CC_GET(vectors->table->clean)))
        cc_vectors_soil(vectors);
    bool damaged = vectors->shared && stripe->seal != seal_of(stripe);
    cc_stripe_attach(vectors, stripe, number);
    if (CC_UNLIKELY(stripe->dirty || damaged || stripe->session != session)) {
        if (!cc_stripe_rebuild(vectors, stripe, number)) {
            pthread_mutex_unlock(&stripe->lock);
            return CC_VECTORS_MEMORY;
        }
        stripe->session = session;
        stripe->dirty = 0;
    }
    if (CC_UNLIKELY(vectors->now[number].generation != moment->generation))
        cc_stripe_empty(vectors, stripe, number, moment->generation);
    uint64_t ticks = cc_vectors_ticks(vectors);
    if (ticks > stripe->policy.tick)
        stripe->policy.tick = ticks;
    return CC_VECTORS_OK;
}

CC_INLINE uint64_t count_word(const cc_vectors *vectors, uint32_t number, uint32_t rows)
{
    return (uint64_t)vectors->now[number].generation << 32 | rows;
}

uint32_t cc_stripe_room(const cc_vectors *vectors, uint32_t number, uint32_t more)
{
    const cc_policy *policy = &vectors->stripes[number].policy;
    uint64_t mine = count_word(vectors, number, policy->live + more), all = 0;
    /* Announced first, in the one order that all see: who comes later finds it. */
    __atomic_store_n(&vectors->counts[number], mine, __ATOMIC_SEQ_CST);
    for (uint32_t other = 0; other < vectors->layout.stripes; other++) {
        uint64_t count = __atomic_load_n(&vectors->counts[other], __ATOMIC_SEQ_CST);
        if (other != number && count >> 32 == mine >> 32)
            all += (uint32_t)count;
    }
    uint64_t room = all < vectors->shape.capacity ? vectors->shape.capacity - all : 0;
    return room < policy->limit ? (uint32_t)room : policy->limit;
}

void cc_stripe_unlock(const cc_vectors *vectors, uint32_t number)
{
    cc_stripe *stripe = &vectors->stripes[number];
    uint64_t count = count_word(vectors, number, stripe->policy.live);
    if (CC_GET(vectors->counts[number]) != count)
        __atomic_store_n(&vectors->counts[number], count, __ATOMIC_RELEASE);
    if (CC_GET(vectors->now[number].epoch) != stripe->policy.epoch)
        CC_SET(vectors->now[number].epoch, stripe->policy.epoch);
    cc_stripe_seal(vectors, number);
    pthread_mutex_unlock(&stripe->lock);
}
