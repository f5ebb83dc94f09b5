/* cc_vectors_inner.h — where things are in a table: for the files of cc_vectors only. */
#ifndef CC_VECTORS_INNER_H
#define CC_VECTORS_INNER_H

#include "cc_vectors.h"

#include <string.h>

/* An id on its way: where it belongs and, once looked up, the record and the word it was found with. */
typedef struct {
    cc_chunk *home;
    cc_record *record; /* before that, the stripe's first */
    uint64_t word;
    uint32_t stripe;
    uint32_t hash;
} cc_place;

CC_INLINE unsigned char *cc_vectors_row(const cc_vectors *vectors, uint32_t stripe, uint32_t row)
{
    return vectors->rows + ((size_t)stripe * vectors->layout.rows + row) * vectors->layout.stride;
}

CC_INLINE cc_record *cc_vectors_records(const cc_vectors *vectors, uint32_t stripe)
{
    return vectors->records + (size_t)stripe * vectors->layout.slots;
}

/* A stripe's index, in this process. */
CC_INLINE cc_index cc_vectors_index(const cc_vectors *vectors, uint32_t stripe)
{
    uint32_t chunks = vectors->layout.chunks;
    return (cc_index){.chunks = vectors->chunks + (size_t)stripe * chunks,
                      .mask = chunks - 1,
                      .shift = vectors->layout.shift};
}

CC_INLINE void cc_vectors_spread(const cc_vectors *vectors, int64_t id, cc_place *at)
{
    uint64_t mixed = cc_mix64((uint64_t)id, vectors->secret);
    at->stripe = (uint32_t)(((mixed & UINT32_MAX) * vectors->layout.stripes) >> 32);
    at->hash = (uint32_t)(mixed >> 32);
    at->home = vectors->chunks + (size_t)at->stripe * vectors->layout.chunks
               + ((uint64_t)at->hash >> vectors->layout.shift);
}

/* Finds the record and word of an id; false: it is not there. */
bool cc_vectors_look_up(const cc_vectors *vectors, int64_t id, cc_place *at);

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

/* Points a stripe's policy and index to this process' memory: the caller has its lock. */
void cc_stripe_attach(const cc_vectors *vectors, cc_stripe *stripe, uint32_t number);

/* Takes a stripe's lock and brings the stripe to date. BUSY, MEMORY: not taken. */
cc_vectors_result cc_stripe_lock(const cc_vectors *vectors, uint32_t number);

/* Counts what was done in the table, and lets go. */
void cc_stripe_unlock(const cc_vectors *vectors, uint32_t number);

CC_INLINE void cc_row_link(const cc_vectors *vectors, cc_stripe *stripe, uint32_t number, uint32_t row)
{
    cc_row_copy(cc_vectors_row(vectors, number, row), &stripe->free_row, sizeof stripe->free_row);
    stripe->free_row = row;
}

/* Rebuilds a stripe whose writer died: the caller has its lock. false: no memory. */
bool cc_stripe_rebuild(const cc_vectors *vectors, cc_stripe *stripe, uint32_t number);

/* Empties a stripe: the caller has its lock. */
void cc_stripe_empty(const cc_vectors *vectors, cc_stripe *stripe, uint32_t number);

#endif
