/* cc_sketch.c — see cc_sketch.h. */
#include "cc_sketch.h"

#include "cc_pages.h"

#include <string.h>

enum { ROW_COUNTERS = CC_SKETCH_LINE_COUNTERS / CC_SKETCH_ROWS, TOUCHED_SHARE = 64 };

static size_t counters_size(const cc_sketch *sketch)
{
    return (size_t)sketch->lines * CC_SKETCH_LINE_COUNTERS * sizeof(uint16_t);
}

bool cc_sketch_init(cc_sketch *sketch, uint32_t lines)
{
    memset(sketch, 0, sizeof *sketch);
    sketch->lines = (uint32_t)cc_pow2_ceil(lines < 2 ? 2 : lines);
    sketch->shift = 64 - cc_log2_floor(sketch->lines);
    sketch->counters = cc_pages_alloc_small(counters_size(sketch));
    sketch->epochs = cc_pages_alloc_small(sketch->lines);
    if (sketch->counters != NULL && sketch->epochs != NULL)
        return true;
    cc_sketch_free(sketch);
    return false;
}

void cc_sketch_free(cc_sketch *sketch)
{
    cc_pages_free((void *)sketch->counters, counters_size(sketch));
    cc_pages_free((void *)sketch->epochs, sketch->lines);
    memset(sketch, 0, sizeof *sketch);
}

size_t cc_sketch_size(const cc_sketch *sketch)
{
    return counters_size(sketch) + sketch->lines;
}

static _Atomic uint16_t *counter(const cc_sketch *sketch, uint64_t bits, unsigned row)
{
    size_t line = (size_t)(bits >> sketch->shift);
    size_t place = row * ROW_COUNTERS + ((bits >> (3 * row)) & (ROW_COUNTERS - 1));
    return &sketch->counters[line * CC_SKETCH_LINE_COUNTERS + place];
}

/* Brings a line to the present epoch. Whoever wins the exchange shifts the counters. */
static void bring_to_date(const cc_sketch *sketch, size_t line)
{
    uint8_t then = atomic_load_explicit(&sketch->epochs[line], memory_order_relaxed);
    if (CC_LIKELY(then == sketch->epoch))
        return;
    if (!atomic_compare_exchange_strong_explicit(&sketch->epochs[line], &then, sketch->epoch,
                                                 memory_order_relaxed, memory_order_relaxed))
        return;
    unsigned missed = (uint8_t)(sketch->epoch - then);
    _Atomic uint16_t *counters = &sketch->counters[line * CC_SKETCH_LINE_COUNTERS];
    for (unsigned i = 0; i < CC_SKETCH_LINE_COUNTERS; i++) {
        uint16_t count = atomic_load_explicit(&counters[i], memory_order_relaxed);
        count = missed < 16 ? count >> missed : 0;
        atomic_store_explicit(&counters[i], count, memory_order_relaxed);
    }
}

uint32_t cc_sketch_estimate(const cc_sketch *sketch, uint32_t hash)
{
    if (sketch->counters == NULL)
        return 0;
    uint64_t bits = cc_sketch_spread(hash);
    bring_to_date(sketch, (size_t)(bits >> sketch->shift));
    uint32_t least = UINT16_MAX;
    for (unsigned row = 0; row < CC_SKETCH_ROWS; row++) {
        uint32_t count = atomic_load_explicit(counter(sketch, bits, row), memory_order_relaxed);
        least = count < least ? count : least;
    }
    return least;
}

void cc_sketch_raise(cc_sketch *sketch, uint32_t hash, uint32_t count)
{
    if (sketch->counters == NULL)
        return;
    uint16_t to = count < UINT16_MAX ? (uint16_t)count : UINT16_MAX;
    uint64_t bits = cc_sketch_spread(hash);
    bring_to_date(sketch, (size_t)(bits >> sketch->shift));
    for (unsigned row = 0; row < CC_SKETCH_ROWS; row++) {
        _Atomic uint16_t *at = counter(sketch, bits, row);
        uint16_t was = atomic_load_explicit(at, memory_order_relaxed);
        atomic_store_explicit(at, was > to ? was : to, memory_order_relaxed); /* no branch to miss */
    }
}

void cc_sketch_halve(cc_sketch *sketch)
{
    if (sketch->counters == NULL)
        return;
    sketch->epoch++;
    uint32_t touched = (sketch->lines + TOUCHED_SHARE - 1) / TOUCHED_SHARE;
    while (touched-- > 0) {
        bring_to_date(sketch, sketch->hand);
        sketch->hand = (sketch->hand + 1) & (sketch->lines - 1);
    }
}
