/* cc_sketch.c — see cc_sketch.h. */
#include "cc_sketch.h"

#include "cc_pages.h"

#include <string.h>

enum {
    TOUCHED_SHARE = 64,      /* of the lines, in each epoch */
    FULL_BYTES = 512 * 1024, /* the usual size ... */
    SMALL_BYTES = 256,       /* ... but this for each entry of a small cache ... */
    LARGE_BYTES = 8,         /* ... and this for each of a large one, epochs included */
    COUNTERS = 16,           /* an entry, for wide ones */
    WIDE = 4,                /* log2 of their bits */
    NARROW = 2,
    WORD_BITS = 6,           /* log2 of the bits in a word ... */
    ROW_BITS = 7,            /* ... and in a row of a line */
};

static size_t words_size(const cc_sketch *sketch)
{
    return (size_t)sketch->lines * CC_SKETCH_LINE;
}

static uint64_t bytes_for(uint32_t capacity)
{
    uint64_t small = (uint64_t)SMALL_BYTES * capacity;
    uint64_t large = (uint64_t)LARGE_BYTES * capacity * CC_SKETCH_LINE / (CC_SKETCH_LINE + 1);
    return small < FULL_BYTES ? small : large > FULL_BYTES ? large : FULL_BYTES;
}

void cc_sketch_fit(cc_sketch *sketch, uint32_t capacity, uint64_t bytes)
{
    uint64_t counters = bytes == 0 ? bytes_for(capacity) : bytes;
    bool wide = counters >= (uint64_t)COUNTERS * capacity * sizeof(uint16_t);
    uint32_t lines = (uint32_t)(counters / CC_SKETCH_LINE);
    uint8_t width = wide ? WIDE : NARROW;
    if (lines <= sketch->lines && width == sketch->width)
        return;
    cc_sketch_free(sketch);
    sketch->lines = lines;
    sketch->width = width;
    sketch->words = cc_pages_alloc_small(words_size(sketch));
    sketch->epochs = cc_pages_alloc_small(lines);
    if (sketch->words == NULL || sketch->epochs == NULL)
        cc_sketch_free(sketch);
}

void cc_sketch_free(cc_sketch *sketch)
{
    cc_pages_free((void *)sketch->words, words_size(sketch));
    cc_pages_free((void *)sketch->epochs, sketch->lines);
    memset(sketch, 0, sizeof *sketch);
}

size_t cc_sketch_size(const cc_sketch *sketch)
{
    return words_size(sketch) + sketch->lines;
}

/* The most that a counter holds. */
CC_INLINE uint64_t most(const cc_sketch *sketch)
{
    return (UINT64_C(1) << (1u << sketch->width)) - 1;
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
    uint64_t left = missed < 16 ? most(sketch) >> missed : 0; /* bits of a counter that stay ... */
    uint64_t lanes = left * (UINT64_MAX / most(sketch));      /* ... and of a word of counters */
    _Atomic uint64_t *words = &sketch->words[line * CC_SKETCH_LINE_WORDS];
    for (unsigned i = 0; i < CC_SKETCH_LINE_WORDS; i++) {
        uint64_t word = atomic_load_explicit(&words[i], memory_order_relaxed);
        word = lanes == 0 ? 0 : word >> missed & lanes;
        atomic_store_explicit(&words[i], word, memory_order_relaxed);
    }
}

/* Where a row's counter of a key is: its word, and its lowest bit there. */
CC_INLINE _Atomic uint64_t *word_of(const cc_sketch *sketch, size_t line, uint64_t bits,
                                    unsigned row, unsigned *shift)
{
    unsigned choice = ROW_BITS - sketch->width; /* bits that tell one counter of a row */
    unsigned at = (unsigned)(bits >> (choice * row)) & ((1u << choice) - 1);
    unsigned bit = at << sketch->width;
    *shift = bit & ((1u << WORD_BITS) - 1);
    return &sketch->words[line * CC_SKETCH_LINE_WORDS + row * CC_SKETCH_ROW_WORDS
                          + (bit >> WORD_BITS)];
}

uint32_t cc_sketch_estimate(const cc_sketch *sketch, uint32_t hash)
{
    if (sketch->words == NULL)
        return 0;
    uint64_t bits = cc_sketch_spread(hash), least = most(sketch);
    size_t line = cc_sketch_line(sketch, bits);
    bring_to_date(sketch, line);
    for (unsigned row = 0; row < CC_SKETCH_ROWS; row++) {
        unsigned shift;
        const _Atomic uint64_t *word = word_of(sketch, line, bits, row, &shift);
        uint64_t count = atomic_load_explicit(word, memory_order_relaxed) >> shift & most(sketch);
        least = count < least ? count : least;
    }
    return (uint32_t)least;
}

void cc_sketch_raise(cc_sketch *sketch, uint32_t hash, uint32_t count)
{
    if (sketch->words == NULL)
        return;
    uint64_t bits = cc_sketch_spread(hash), to = count < most(sketch) ? count : most(sketch);
    size_t line = cc_sketch_line(sketch, bits);
    bring_to_date(sketch, line);
    for (unsigned row = 0; row < CC_SKETCH_ROWS; row++) {
        unsigned shift;
        _Atomic uint64_t *at = word_of(sketch, line, bits, row, &shift);
        uint64_t word = atomic_load_explicit(at, memory_order_relaxed);
        uint64_t was = word >> shift & most(sketch);
        word += (was < to ? to - was : 0) << shift; /* no branch to miss */
        atomic_store_explicit(at, word, memory_order_relaxed);
    }
    if (CC_UNLIKELY(sketch->due > 0)) {
        sketch->due--;
        sketch->hand = sketch->hand + 1 < sketch->lines ? sketch->hand + 1 : 0;
        bring_to_date(sketch, sketch->hand);
    }
}

void cc_sketch_halve(cc_sketch *sketch)
{
    sketch->epoch++;
    sketch->due += sketch->lines / TOUCHED_SHARE + 1;
    if (sketch->due > sketch->lines)
        sketch->due = sketch->lines;
}
