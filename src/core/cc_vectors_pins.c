/* cc_vectors_pins.c — rows of a private table that views hold: they stay where they are, whatever becomes
 * of their entries.
 *
 * A pinned row that leaves the table is not put on the list of free rows before the last view lets go.
 * A stripe has as many rows to spare as it lets views hold, so entries never want for one. Pins belong
 * to the process, not to the segment: a fork's child has its own of both. */
#include "cc_vectors_inner.h"

#include <stdlib.h>

/* The pins of all rows, made when the first view is. Rows that are looked at later than that are
   looked at under a lock that was taken later, too. */
static uint32_t *pins_of(cc_vectors *vectors)
{
    uint32_t *pins = __atomic_load_n(&vectors->pins, __ATOMIC_ACQUIRE), *none = NULL;
    if (pins != NULL)
        return pins;
    pins = calloc((size_t)vectors->layout.stripes * vectors->layout.rows, sizeof *pins);
    if (pins == NULL
        || __atomic_compare_exchange_n(&vectors->pins, &none, pins, false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_ACQUIRE))
        return pins;
    free(pins); /* another thread was first */
    return none;
}

/* Pins the row of an entry that was looked up; the caller has the stripe's lock. */
static cc_vectors_result pin(cc_vectors *vectors, cc_stripe *stripe, const cc_place *at, cc_moment moment)
{
    uint32_t row = (uint32_t)at->word;
    const unsigned char *here = cc_vectors_row(vectors, at->stripe, row);
    size_t stored = vectors->layout.stored;
    if (cc_vectors_expired(vectors, at->record, moment))
        return CC_VECTORS_MISSING;
    if (vectors->shape.sums
        && *cc_vectors_sum(vectors, at->stripe, row)
               != cc_row_sum(here, stored, (int64_t)at->record->a)) {
        CC_ADD(vectors->table->damaged, 1);
        return CC_VECTORS_MISSING;
    }
    uint32_t *pins = cc_vectors_pins(vectors, at->stripe, row);
    if (*pins == 0 && stripe->pinned >= vectors->layout.pins)
        return CC_VECTORS_PINNED;
    if ((*pins)++ == 0)
        CC_SET(stripe->pinned, stripe->pinned + 1);
    cc_meta_hit(&at->record->meta, stripe->policy.epoch, (uint32_t)stripe->policy.tick);
    return CC_VECTORS_OK;
}

cc_vectors_result cc_vectors_pin(cc_vectors *vectors, int64_t id, const unsigned char **row,
                                 uint64_t *number)
{
    cc_place at;
    cc_moment moment;
    if (pins_of(vectors) == NULL)
        return CC_VECTORS_MEMORY;
    cc_vectors_spread(vectors, id, &at);
    cc_vectors_result result = cc_stripe_lock(vectors, at.stripe, &moment);
    if (result != CC_VECTORS_OK)
        return result;
    CC_ADD(vectors->table->gathered, 1);
    result = CC_VECTORS_MISSING;
    if (cc_vectors_look_up(vectors, moment.generation, &at))
        result = pin(vectors, &vectors->stripes[at.stripe], &at, moment);
    if (result != CC_VECTORS_OK) {
        CC_ADD(vectors->table->misses, 1);
    } else {
        *row = cc_vectors_row(vectors, at.stripe, (uint32_t)at.word);
        *number = (uint64_t)at.stripe * vectors->layout.rows + (uint32_t)at.word;
    }
    cc_stripe_unlock(vectors, at.stripe);
    return result;
}

void cc_vectors_unpin(cc_vectors *vectors, uint64_t number)
{
    uint32_t at = (uint32_t)(number / vectors->layout.rows), row = (uint32_t)(number % vectors->layout.rows);
    cc_stripe *stripe = &vectors->stripes[at];
    uint32_t *pins = &vectors->pins[number];
    pthread_mutex_lock(&stripe->lock); /* of threads of this process, which do not stop */
    (*pins)--;
    if ((*pins & ~CC_PIN_LEFT) == 0) {
        CC_SET(stripe->pinned, stripe->pinned - 1);
        if (*pins == CC_PIN_LEFT)
            cc_row_link(vectors, stripe, at, row);
        *pins = 0;
    }
    pthread_mutex_unlock(&stripe->lock);
}
