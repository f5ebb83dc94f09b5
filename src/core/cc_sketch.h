/* cc_sketch.h — a count-min sketch: how often keys that are not here were asked for.
 *
 * 4 rows of counters (Cormode & Muthukrishnan, 2005), blocked: the four counters of a key lie in
 * one cache line, which holds 16 bytes of each row. 8,192 lines of 16-bit counters are the usual
 * size: 4 x 65,536 counters, 512 KiB, whatever the number of keys. Above 16,384 entries counters
 * have 4 bits, and above 65,536 there are more lines: saturation costs less than sharing does
 * (src/README.md has the numbers).
 *
 *     line  | row 0: 8 counters of 16 bits, or 32 of 4 | row 1 | row 2 | row 3 |      64 bytes
 *
 * A key that leaves the cache raises its counters to at least its count (a conservative update);
 * its estimate is their minimum. Halving is lazy: a line remembers the epoch it was last brought
 * to, and is shifted by the epochs it missed when it is next touched. Each new epoch also asks for
 * 1/64 of the lines, which the raises after it bring up to date one by one: so none misses 256
 * epochs and no operation sweeps them all.
 *
 * Thread safety: counters are relaxed atomics; concurrent raises may lose one another, which costs
 * accuracy and nothing else. cc_sketch_fit, _free and _halve need the owner's lock. */
#ifndef CC_SKETCH_H
#define CC_SKETCH_H

#include "cc_base.h"

enum { CC_SKETCH_ROWS = 4, CC_SKETCH_ROW = 16 /* bytes of a line */ };

typedef struct {
    uint8_t *counters; /* NULL: an empty sketch, every estimate is 0 */
    uint8_t *epochs;   /* of each line */
    uint32_t lines;
    uint32_t hand; /* the next line that is brought up to date unasked ... */
    uint32_t due;  /* ... and how many such lines there are to be */
    bool wide;     /* counters of 16 bits, else of 4 */
    uint8_t epoch;
} cc_sketch;

/* Replaces a sketch, which may be all zero, by one fit for `capacity` entries, empty, if it must be
   larger or narrower. `bytes`: what its counters may take; 0: 8 an entry, at least 512 KiB, and for
   fewer than 2,048 entries 256 an entry. Counters have 16 bits where there can be 16 of them an
   entry, else 4. Without memory the sketch is empty. */
void cc_sketch_fit(cc_sketch *sketch, uint32_t capacity, uint64_t bytes);

/* The lines and counters of such a sketch; its owner supplies the memory, zero. */
void cc_sketch_shape(cc_sketch *sketch, uint32_t capacity, uint64_t bytes);

void cc_sketch_free(cc_sketch *sketch);

/* Bytes held. */
size_t cc_sketch_size(const cc_sketch *sketch);

uint32_t cc_sketch_estimate(const cc_sketch *sketch, uint32_t hash);

/* Raises the key's four counters to at least `count`, or the most that they hold. */
void cc_sketch_raise(cc_sketch *sketch, uint32_t hash, uint32_t count);

/* A new epoch: all counters count for half. */
void cc_sketch_halve(cc_sketch *sketch);

/* The bits of one key: the line from the top half, each row's counter from the bottom. */
CC_INLINE uint64_t cc_sketch_spread(uint32_t hash)
{
    return cc_mix64(hash, 0x6C62272E07BB0142ull);
}

CC_INLINE size_t cc_sketch_line(const cc_sketch *sketch, uint64_t bits)
{
    return (size_t)(((bits >> 32) * sketch->lines) >> 32);
}

CC_INLINE void cc_sketch_prefetch(const cc_sketch *sketch, uint32_t hash)
{
    if (sketch->counters != NULL)
        CC_PREFETCH_WRITE(sketch->counters + cc_sketch_line(sketch, cc_sketch_spread(hash)) * CC_LINE);
}

#endif
