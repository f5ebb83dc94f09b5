/* cc_ghosts.h — the keys that left lately, by hash only: two bounded FIFOs in one table.
 *
 * A key that comes back soon after it lost the contest at the end of the window says that the
 * window was too short; one that comes back after it was evicted from the main region says that
 * the main region was too small. Each kind remembers about a quarter of the capacity.
 *
 *     line  | 8 rejected, newest first | 8 evicted, newest first |      64 bytes
 *     place | fingerprint 16 | stamp 16 |                                 0 is empty
 *
 * The line is chosen by the top of the hash, the fingerprint is its bottom. A stamp counts pushes
 * of its kind, by their size, in units of 1/4096 of the FIFO; a place older than the FIFO is long is ignored. There are
 * two places for each key remembered: with fewer, small caches lose half a point of hit ratio.
 * 4 bytes an entry of capacity. Not thread safe. */
#ifndef CC_GHOSTS_H
#define CC_GHOSTS_H

#include "cc_base.h"

enum { CC_GHOSTS_KIND = 8, CC_GHOSTS_LINE = 2 * CC_GHOSTS_KIND }; /* places */

typedef enum { CC_GHOST_REJECTED, CC_GHOST_EVICTED, CC_GHOST_NONE } cc_ghost;

typedef struct {
    uint32_t *places; /* NULL: remembers nothing */
    uint32_t lines;
    uint32_t unit;    /* log2 of the size one stamp counts */
    uint32_t span;    /* stamps after which a ghost is forgotten */
    uint64_t pushes[2];
} cc_ghosts;

/* Ghosts for a cache of `capacity` entries of that `size` in all, a power of two of lines; false: no
   memory. */
bool cc_ghosts_init(cc_ghosts *ghosts, uint32_t capacity, uint64_t size);

/* The same without memory, and no more lines than it takes: its owner supplies cc_ghosts_size bytes,
   zero. */
void cc_ghosts_shape(cc_ghosts *ghosts, uint32_t capacity, uint64_t size);

void cc_ghosts_free(cc_ghosts *ghosts);

/* Bytes held. */
size_t cc_ghosts_size(const cc_ghosts *ghosts);

void cc_ghosts_push(cc_ghosts *ghosts, uint32_t hash, cc_ghost kind, uint64_t size);

/* Why this key left, if it left lately; it is then forgotten. *nearness goes from 1, the last of its
   kind that left, to 0, the first that is still remembered. */
cc_ghost cc_ghosts_take(cc_ghosts *ghosts, uint32_t hash, float *nearness);

/* The two groups of places of a hash. */
CC_INLINE uint32_t *cc_ghosts_line(const cc_ghosts *ghosts, uint32_t hash)
{
    return &ghosts->places[(((uint64_t)hash * ghosts->lines) >> 32) * CC_GHOSTS_LINE];
}

CC_INLINE void cc_ghosts_prefetch(const cc_ghosts *ghosts, uint32_t hash)
{
    if (ghosts->places != NULL)
        CC_PREFETCH_WRITE(cc_ghosts_line(ghosts, hash));
}

#endif
