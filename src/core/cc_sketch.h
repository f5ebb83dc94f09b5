/* cc_sketch.h — a count-min sketch: how often keys that are not here were asked for.
 *
 * 4 rows of 16-bit counters (Cormode & Muthukrishnan, 2005), blocked: the four counters of a key
 * lie in one cache line, which holds 8 counters of each row. 8,192 lines are the full size: 4 x
 * 65,536 counters, 512 KiB, whatever the number of keys; small caches get fewer lines.
 *
 *     line  | row 0: 8 counters | row 1 | row 2 | row 3 |      64 bytes
 *
 * A key that leaves the cache raises its counters to at least its count (a conservative update);
 * its estimate is their minimum. Halving is lazy: a line remembers the epoch it was last brought
 * to, and is shifted by the epochs it missed when it is next touched. Each new epoch also touches
 * 1/64 of the lines, so that none misses 256 of them and no operation sweeps them all.
 *
 * Thread safety: counters are relaxed atomics; concurrent raises may lose one another, which costs
 * accuracy and nothing else. cc_sketch_init, _free and _halve need the owner's lock. */
#ifndef CC_SKETCH_H
#define CC_SKETCH_H

#include "cc_base.h"

#include <stdatomic.h>

enum {
    CC_SKETCH_ROWS = 4,
    CC_SKETCH_LINE_COUNTERS = 32,
    CC_SKETCH_FULL_LINES = 8192, /* 4 x 65,536 counters of 16 bits: 512 KiB */
};

typedef struct {
    _Atomic uint16_t *counters; /* NULL: an empty sketch, every estimate is 0 */
    _Atomic uint8_t *epochs;    /* of each line */
    uint32_t lines;             /* a power of two */
    uint32_t shift;             /* 64 - log2(lines) */
    uint32_t hand;              /* the next line that a new epoch touches */
    uint8_t epoch;
} cc_sketch;

/* An empty sketch of `lines` lines (rounded up to a power of two); false: no memory. */
bool cc_sketch_init(cc_sketch *sketch, uint32_t lines);

void cc_sketch_free(cc_sketch *sketch);

/* Bytes held. */
size_t cc_sketch_size(const cc_sketch *sketch);

uint32_t cc_sketch_estimate(const cc_sketch *sketch, uint32_t hash);

/* Raises the key's four counters to at least `count` (saturating at 65,535). */
void cc_sketch_raise(cc_sketch *sketch, uint32_t hash, uint32_t count);

/* A new epoch: all counters count for half. */
void cc_sketch_halve(cc_sketch *sketch);

/* The bits of one key: the line from the top, three bits for each row's counter from the bottom. */
CC_INLINE uint64_t cc_sketch_spread(uint32_t hash)
{
    return cc_mix64(hash, 0x6C62272E07BB0142ull);
}

CC_INLINE void cc_sketch_prefetch(const cc_sketch *sketch, uint32_t hash)
{
    if (sketch->counters != NULL)
        CC_PREFETCH_WRITE(&sketch->counters[(cc_sketch_spread(hash) >> sketch->shift)
                                            * CC_SKETCH_LINE_COUNTERS]);
}

#endif
