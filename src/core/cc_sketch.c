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
    MOST_WIDE = 0xFFFF,      /* that a counter holds */
    MOST_NARROW = 0xF,
    CHOICE_WIDE = 3, /* bits that tell a counter of a row */
    CHOICE_NARROW = 5,
};

/* A line's memory, as counters and as words of them. */
typedef uint16_t __attribute__((may_alias)) counter_16;
typedef uint64_t __attribute__((may_alias)) word_64;

static size_t counters_size(const cc_sketch *sketch)
{
    return (size_t)sketch->lines * CC_LINE;
}

static uint64_t bytes_for(uint32_t capacity)
{
    uint64_t small = (uint64_t)SMALL_BYTES * capacity;
    uint64_t large = (uint64_t)LARGE_BYTES * capacity * CC_LINE / (CC_LINE + 1);
    return small < FULL_BYTES ? small : large > FULL_BYTES ? large : FULL_BYTES;
}

void cc_sketch_shape(cc_sketch *sketch, uint32_t capacity, uint64_t bytes)
{
    uint64_t counters = bytes == 0 ? bytes_for(capacity) : bytes;
    memset(sketch, 0, sizeof *sketch);
    sketch->lines = (uint32_t)(counters / CC_LINE) + (counters < CC_LINE);
    sketch->wide = counters >= (uint64_t)COUNTERS * capacity * sizeof(uint16_t);
}

void cc_sketch_fit(cc_sketch *sketch, uint32_t capacity, uint64_t bytes)
{
    cc_sketch fit;
    cc_sketch_shape(&fit, capacity, bytes);
    if (fit.lines <= sketch->lines && fit.wide == sketch->wide)
        return;
    cc_sketch_free(sketch);
    *sketch = fit;
    sketch->counters = cc_pages_alloc_small(counters_size(sketch));
    sketch->epochs = cc_pages_alloc_small(sketch->lines);
    if (sketch->counters == NULL || sketch->epochs == NULL)
        cc_sketch_free(sketch);
}

void cc_sketch_free(cc_sketch *sketch)
{
    cc_pages_free(sketch->counters, counters_size(sketch));
    cc_pages_free(sketch->epochs, sketch->lines);
    memset(sketch, 0, sizeof *sketch);
}

size_t cc_sketch_size(const cc_sketch *sketch)
{
    return counters_size(sketch) + sketch->lines;
}

/* Shifts a line's counters by the epochs it missed. Whoever wins the exchange does. */
static CC_NOINLINE void age_line(const cc_sketch *sketch, size_t line, uint8_t then)
{
    if (!__atomic_compare_exchange_n(&sketch->epochs[line], &then, sketch->epoch, false,
                                     __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        return;
    unsigned missed = (uint8_t)(sketch->epoch - then);
    uint64_t most = sketch->wide ? MOST_WIDE : MOST_NARROW;
    uint64_t left = missed < 16 ? most >> missed : 0;  /* bits of a counter that stay ... */
    uint64_t lanes = left * (UINT64_MAX / most);       /* ... and of a word of counters */
    word_64 *words = (word_64 *)(sketch->counters + line * CC_LINE);
    for (unsigned i = 0; i < CC_LINE / sizeof *words; i++)
        CC_SET(words[i], lanes == 0 ? 0 : CC_GET(words[i]) >> missed & lanes);
}

/* Brings a line to the present epoch. */
CC_INLINE void bring_to_date(const cc_sketch *sketch, size_t line)
{
    uint8_t then = CC_GET(sketch->epochs[line]);
    if (CC_UNLIKELY(then != sketch->epoch))
        age_line(sketch, line, then);
}

/* A row's counter of a key in a line: of 16 bits; or the byte that has it, and its lowest bit there. */
CC_INLINE counter_16 *wide_counter(uint8_t *line, uint64_t bits, unsigned row)
{
    unsigned at = (unsigned)(bits >> (CHOICE_WIDE * row)) & ((1u << CHOICE_WIDE) - 1);
    return (counter_16 *)(line + row * CC_SKETCH_ROW) + at;
}

CC_INLINE uint8_t *narrow_counter(uint8_t *line, uint64_t bits, unsigned row, unsigned *shift)
{
    unsigned at = (unsigned)(bits >> (CHOICE_NARROW * row)) & ((1u << CHOICE_NARROW) - 1);
    *shift = at % 2 * 4;
    return line + row * CC_SKETCH_ROW + at / 2;
}

/* The four of a key, each kind in its own loop, unrolled: a third of the instructions of one for both. */
CC_INLINE uint32_t wide_estimate(uint8_t *line, uint64_t bits)
{
    uint32_t least = MOST_WIDE;
#pragma GCC unroll 4
    for (unsigned row = 0; row < CC_SKETCH_ROWS; row++) {
        uint32_t count = CC_GET(*wide_counter(line, bits, row));
        least = count < least ? count : least;
    }
    return least;
}

CC_INLINE uint32_t narrow_estimate(uint8_t *line, uint64_t bits)
{
    uint32_t least = MOST_NARROW;
#pragma GCC unroll 4
    for (unsigned row = 0; row < CC_SKETCH_ROWS; row++) {
        unsigned shift;
        const uint8_t *at = narrow_counter(line, bits, row, &shift);
        uint32_t count = CC_GET(*at) >> shift & MOST_NARROW;
        least = count < least ? count : least;
    }
    return least;
}

CC_INLINE void wide_raise(uint8_t *line, uint64_t bits, uint32_t count)
{
    uint16_t to = count < MOST_WIDE ? (uint16_t)count : MOST_WIDE;
#pragma GCC unroll 4
    for (unsigned row = 0; row < CC_SKETCH_ROWS; row++) { /* stores always: no branch to miss */
        counter_16 *at = wide_counter(line, bits, row);
        uint16_t was = CC_GET(*at);
        CC_SET(*at, was > to ? was : to);
    }
}

CC_INLINE void narrow_raise(uint8_t *line, uint64_t bits, uint32_t count)
{
    unsigned to = count < MOST_NARROW ? count : MOST_NARROW;
#pragma GCC unroll 4
    for (unsigned row = 0; row < CC_SKETCH_ROWS; row++) {
        unsigned shift;
        uint8_t *at = narrow_counter(line, bits, row, &shift);
        unsigned both = CC_GET(*at), was = both >> shift & MOST_NARROW;
        CC_SET(*at, (uint8_t)(both + ((was < to ? to - was : 0) << shift)));
    }
}

uint32_t cc_sketch_estimate(const cc_sketch *sketch, uint32_t hash)
{
    if (sketch->counters == NULL)
        return 0;
    uint64_t bits = cc_sketch_spread(hash);
    size_t number = cc_sketch_line(sketch, bits);
    uint8_t *line = sketch->counters + number * CC_LINE;
    bring_to_date(sketch, number);
    return sketch->wide ? wide_estimate(line, bits) : narrow_estimate(line, bits);
}

void cc_sketch_raise(cc_sketch *sketch, uint32_t hash, uint32_t count)
{
    if (sketch->counters == NULL)
        return;
    uint64_t bits = cc_sketch_spread(hash);
    size_t number = cc_sketch_line(sketch, bits);
    uint8_t *line = sketch->counters + number * CC_LINE;
    bring_to_date(sketch, number);
    if (sketch->wide)
        wide_raise(line, bits, count);
    else
        narrow_raise(line, bits, count);
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
