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

void cc_stripe_attach(const cc_vectors *vectors, cc_stripe *stripe, uint32_t number)
{
    const cc_vectors_layout *layout = &vectors->layout;
    cc_policy_memory memory = {
        .records = cc_vectors_records(vectors, number),
        .ring = vectors->rings + (size_t)number * cc_policy_ring_room(layout->slots),
        .ghosts = vectors->ghosts + (size_t)number * layout->ghosts,
        .counters = vectors->counters + (size_t)number * layout->lines * CC_LINE,
        .epochs = vectors->epochs + (size_t)number * layout->lines,
    };
    uint32_t entries = stripe->index.entries;
    cc_policy_place(&stripe->policy, &memory);
    stripe->index = cc_vectors_index(vectors, number);
    stripe->index.entries = entries;
    stripe->index.room = UINT64_MAX;
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
    for (uint32_t slot = 0; slot < vectors->layout.slots; slot++)
        if (cc_word_live(records[slot].b) && (spared == NULL || !spared[slot]))
            __atomic_store_n(&records[slot].b, records[slot].b + (UINT64_C(1) << 32), __ATOMIC_RELEASE);
}

void cc_stripe_empty(const cc_vectors *vectors, cc_stripe *stripe, uint32_t number)
{
    end_versions(vectors, number, NULL);
    for (uint32_t at = 0; at < vectors->layout.chunks; at++)
        memset(stripe->index.chunks[at].tag, 0, sizeof stripe->index.chunks[at].tag + 1);
    stripe->index.entries = 0;
    stripe->left[CC_DELETED] += stripe->policy.live;
    cc_policy_rebuild(&stripe->policy, nobody, NULL);
    stripe->policy.used = stripe->policy.top = 0; /* every slot is new: none is on the list */
    stripe->policy.free = CC_NO_SLOT;
    stripe->free_row = CC_NO_SLOT;
    for (uint32_t row = vectors->layout.rows; row-- > 0;)
        cc_row_link(vectors, stripe, number, row);
    __atomic_store_n(&vectors->now[number].generation, CC_GET(vectors->table->generation),
                     __ATOMIC_RELEASE);
}

static bool is_marked(void *marks, uint32_t slot)
{
    return ((unsigned char *)marks)[slot];
}

/* Marks the slots that the index finds, by entries that agree with their records, and empties the
   other places. */
static void mark_entries(const cc_vectors *vectors, uint32_t number, unsigned char *marks)
{
    cc_index index = cc_vectors_index(vectors, number);
    const cc_record *records = cc_vectors_records(vectors, number);
    for (uint32_t at = 0; at <= index.mask; at++) {
        cc_chunk *chunk = &index.chunks[at];
        for (unsigned place = 0; place < CC_CHUNK_PLACES; place++) {
            if (chunk->tag[place] == 0)
                continue;
            uint32_t slot = chunk->slot[place];
            cc_place found = {.record = NULL};
            if (slot < vectors->layout.slots && !marks[slot] && cc_word_live(records[slot].b)
                && (uint32_t)records[slot].b < vectors->layout.rows) {
                int64_t id = (int64_t)records[slot].a;
                cc_vectors_spread(vectors, id, &found);
                if (found.stripe == number && found.hash == records[slot].meta.hash
                    && cc_index_has(&index, found.hash, slot)
                    && cc_index_tag(found.hash) == chunk->tag[place]) {
                    marks[slot] = 1;
                    continue;
                }
            }
            CC_SET(chunk->tag[place], 0);
        }
    }
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
    mark_entries(vectors, number, marks);
    end_versions(vectors, number, marks);
    for (uint32_t slot = 0; slot < layout->slots; slot++) {
        if (marks[slot])
            taken[(uint32_t)records[slot].b] = 1;
        if (marks[slot] && !cc_record_live(&records[slot])) /* it was about to leave */
            CC_SET(records[slot].meta.state, CC_MAIN);
    }
    cc_policy_rebuild(&stripe->policy, is_marked, marks);
    stripe->index.entries = stripe->policy.live;
    stripe->free_row = CC_NO_SLOT;
    for (uint32_t row = layout->rows; row-- > 0;)
        if (!taken[row])
            cc_row_link(vectors, stripe, number, row);
    uint64_t left = 0;
    for (unsigned reason = 0; reason < 4; reason++)
        left += stripe->left[reason];
    stripe->inserts = left + stripe->policy.live;
    free(marks);
    return true;
}

cc_vectors_result cc_stripe_lock(const cc_vectors *vectors, uint32_t number)
{
    cc_stripe *stripe = &vectors->stripes[number];
    int result = pthread_mutex_trylock(&stripe->lock);
    if (result == EBUSY) {
        struct timespec until;
        clock_gettime(LOCK_CLOCK, &until);
        until.tv_sec += LOCK_SECONDS;
        result = LOCK_UNTIL(&stripe->lock, &until);
    }
    if (result == EOWNERDEAD) {
        pthread_mutex_consistent(&stripe->lock);
        stripe->dirty = true; /* until it is rebuilt, also by the next one if this one dies too */
        result = 0;
    }
    if (result != 0)
        return CC_VECTORS_BUSY;
    cc_stripe_attach(vectors, stripe, number);
    if (CC_UNLIKELY(stripe->dirty)) {
        if (!cc_stripe_rebuild(vectors, stripe, number)) {
            pthread_mutex_unlock(&stripe->lock);
            return CC_VECTORS_MEMORY;
        }
        stripe->dirty = false;
    }
    if (CC_UNLIKELY(vectors->now[number].generation != CC_GET(vectors->table->generation)))
        cc_stripe_empty(vectors, stripe, number);
    uint64_t ticks = CC_GET(vectors->table->accesses) / vectors->layout.stripes;
    if (ticks > stripe->policy.tick)
        stripe->policy.tick = ticks;
    return CC_VECTORS_OK;
}

void cc_stripe_unlock(const cc_vectors *vectors, uint32_t number)
{
    cc_stripe *stripe = &vectors->stripes[number];
    uint32_t live = stripe->policy.live;
    CC_ADD(vectors->table->live, (uint64_t)live - stripe->counted);
    stripe->counted = live;
    CC_SET(vectors->now[number].epoch, stripe->policy.epoch);
    pthread_mutex_unlock(&stripe->lock);
}
