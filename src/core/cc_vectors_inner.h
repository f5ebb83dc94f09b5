/* cc_vectors_inner.h — where things are in a table: for the files of cc_vectors only. */
#ifndef CC_VECTORS_INNER_H
#define CC_VECTORS_INNER_H

#include "cc_clock.h"
#include "cc_vectors.h"

#include <string.h>

/* An id on its way: where it belongs and, once looked up, the record and the word it was found with. */
typedef struct {
    int64_t id; /* read once: the caller's memory may change */
    cc_narrow_chunk *home;
    cc_record *record; /* before that, the stripe's first */
    uint64_t word;
    uint32_t stripe;
    uint32_t hash;
} cc_place;

CC_INLINE unsigned char *cc_vectors_row(const cc_vectors *vectors, uint32_t stripe, uint32_t row)
{
    return vectors->rows + ((size_t)stripe * vectors->layout.rows + row) * vectors->layout.stride;
}

CC_INLINE uint32_t *cc_vectors_sum(const cc_vectors *vectors, uint32_t stripe, uint32_t row)
{
    return vectors->sums + (size_t)stripe * vectors->layout.rows + row;
}

CC_INLINE cc_record *cc_vectors_records(const cc_vectors *vectors, uint32_t stripe)
{
    return vectors->records + (size_t)stripe * vectors->layout.slots;
}

/* A stripe's index, in this process. */
CC_INLINE cc_narrow cc_vectors_index(const cc_vectors *vectors, uint32_t stripe)
{
    uint32_t count = vectors->layout.chunks;
    return (cc_narrow){.chunks = vectors->chunks + (size_t)stripe * count, .count = count};
}

/* The first chunk of a hash in a stripe. */
CC_INLINE cc_narrow_chunk *cc_vectors_home(const cc_vectors *vectors, uint32_t stripe, uint32_t hash)
{
    uint32_t chunks = vectors->layout.chunks;
    return vectors->chunks + (size_t)stripe * chunks + cc_narrow_home(chunks, hash);
}

CC_INLINE void cc_vectors_spread(const cc_vectors *vectors, int64_t id, cc_place *at)
{
    uint64_t mixed = cc_mix64((uint64_t)id, vectors->secret);
    at->id = id;
    at->stripe = (uint32_t)(((mixed & UINT32_MAX) * vectors->layout.stripes) >> 32);
    at->hash = (uint32_t)(mixed >> 32);
    at->home = cc_vectors_home(vectors, at->stripe, at->hash);
}

/* What a reader or writer takes the table for: its contents, and the time, from their birth. */
typedef struct {
    uint32_t generation;
    uint32_t now; /* from 1; 0: before their birth, when all that expires has, or nothing does */
} cc_moment;

/* false: the table is not of our version any more. */
bool cc_vectors_moment(const cc_vectors *vectors, cc_moment *moment);

/* Finds the record and word of an id, expired or not; false: it is not there. */
bool cc_vectors_look_up(const cc_vectors *vectors, uint32_t generation, cc_place *at);

/* A row's time is over, or it comes from a time that has not been yet: somebody set the clock back. */
CC_INLINE bool cc_vectors_expired(const cc_vectors *vectors, const cc_record *record, cc_moment moment)
{
    uint32_t ttl = (uint32_t)vectors->shape.ttl;
    return CC_UNLIKELY(ttl != 0) && CC_GET(record->meta.expiry) - moment.now - 1 >= ttl;
}

/* Copies a row that others may be writing or reading. What was copied while it changed is thrown away,
   so that plain copying will do; ThreadSanitizer is shown atomic words, and no fences, which it does not
   know. */
#ifdef __SANITIZE_THREAD__
CC_INLINE void cc_row_copy(void *to, const void *from, size_t width)
{
    for (size_t byte = 0; byte < width; byte++)
        CC_SET(((uint8_t *)to)[byte], CC_GET(((const uint8_t *)from)[byte]));
}
#define CC_ROW_FENCE(place, order) ((void)__atomic_fetch_add(&(place), 0, __ATOMIC_ACQ_REL))
#else
#define cc_row_copy memcpy
#define CC_ROW_FENCE(place, order) __atomic_thread_fence(order)
#endif

CC_INLINE bool cc_word_live(uint64_t word)
{
    return word >> 32 & 1;
}

/* Accesses as a policy counts them, for each stripe: hits, and what was put. Who is missed is counted when
   he is put; counted twice, ages and epochs would be of half as many requests. */
CC_INLINE uint64_t cc_vectors_ticks(const cc_vectors *vectors)
{
    const cc_vectors_table *table = vectors->table;
    uint64_t misses = CC_GET(table->misses); /* before the others: it is not to be ahead of them */
    return (CC_GET(table->gathered) + CC_GET(table->written) - misses) / vectors->layout.stripes;
}

/* Points a stripe's policy and index to this process' memory: the caller has its lock. */
void cc_stripe_attach(const cc_vectors *vectors, cc_stripe *stripe, uint32_t number);

/* Takes a stripe's lock and brings the stripe to date, as of *moment. Else: not taken. */
cc_vectors_result cc_stripe_lock(const cc_vectors *vectors, uint32_t number, cc_moment *moment);

/* Tells what the stripe holds now, and lets go. */
void cc_stripe_unlock(const cc_vectors *vectors, uint32_t number);

/* Notes what the words of a file's stripe add up to. */
void cc_stripe_seal(const cc_vectors *vectors, uint32_t number);

/* Announces that up to `more` rows are to come, and returns how many the stripe may then hold. */
uint32_t cc_stripe_room(const cc_vectors *vectors, uint32_t number, uint32_t more);

/* Bits of a row's pins above the number of views. */
#define CC_PIN_LEFT (UINT32_C(1) << 31) /* the row is in the table no more */

CC_INLINE uint32_t *cc_vectors_pins(const cc_vectors *vectors, uint32_t number, uint32_t row)
{
    uint32_t *pins = __atomic_load_n(&vectors->pins, __ATOMIC_ACQUIRE);
    return pins == NULL ? NULL : &pins[(size_t)number * vectors->layout.rows + row];
}

/* Puts a row that nobody uses on the list. */
CC_INLINE void cc_row_link(const cc_vectors *vectors, cc_stripe *stripe, uint32_t number, uint32_t row)
{
    cc_row_copy(cc_vectors_row(vectors, number, row), &stripe->free_row, sizeof stripe->free_row);
    stripe->free_row = row;
}

/* A row has left the table: it can be reused, unless views hold it. One that cannot be, of a damaged
   file, is nobody's. */
CC_INLINE void cc_row_leave(const cc_vectors *vectors, cc_stripe *stripe, uint32_t number, uint32_t row)
{
    if (CC_UNLIKELY(row >= vectors->layout.rows))
        return;
    uint32_t *pins = cc_vectors_pins(vectors, number, row);
    if (CC_UNLIKELY(pins != NULL) && *pins != 0)
        *pins |= CC_PIN_LEFT;
    else
        cc_row_link(vectors, stripe, number, row);
}

/* Rebuilds a stripe whose writer died: the caller has its lock. false: no memory. */
bool cc_stripe_rebuild(const cc_vectors *vectors, cc_stripe *stripe, uint32_t number);

/* Empties a stripe, for a generation of contents: the caller has its lock. */
void cc_stripe_empty(const cc_vectors *vectors, cc_stripe *stripe, uint32_t number,
                     uint32_t generation);

/* Makes a stripe's lock, of a new stripe or in place of one that nobody can let go. */
void cc_stripe_make_lock(cc_stripe *stripe);

/* Fills in what follows from the layout and the segment. */
void cc_vectors_find_places(cc_vectors *vectors);

/* Makes the contents of a new segment, all zero. */
void cc_vectors_make(cc_vectors *vectors, uint64_t seed);

/* The table's own words agree. */
bool cc_vectors_sound(const cc_vectors *vectors);

/* Says in the file, and on the disk, that not everything is there: somebody is about to write. */
void cc_vectors_soil(const cc_vectors *vectors);

/* Takes part in a file's sessions again, in the child of a fork. */
void cc_vectors_rejoin(cc_vectors *vectors);

/* Begins another generation of contents. */
void cc_vectors_renew(const cc_vectors *vectors);

#endif
