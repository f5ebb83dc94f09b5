/* cc_watch.h — notices that another set of keys has become popular.
 *
 * Counts remember what was popular for dozens of capacities of accesses; when all of it changes at
 * once, that memory keeps out what is popular now. It shows in two things together, and in two blocks
 * of accesses running:
 *
 *  - the hit ratio falls below 0.65 of its mean, and by more than four times its mean deviation from
 *    it: a cache whose hit ratio swings anyway tells nothing by one more swing;
 *  - keys that were turned away come back: at least 1/20 of the insertions find their key among the
 *    rejected ghosts. While a scan runs the hit ratio falls as well, but nothing comes back.
 *
 * Means are over the last 128 blocks. A block is 1/32 of the capacity, between 64 and 1,024 accesses,
 * so a change is seen within 2,000. Hits are accesses less insertions: a hit does nothing for this. */
#ifndef CC_WATCH_H
#define CC_WATCH_H

#include "cc_base.h"

typedef struct {
    uint64_t since;    /* the tick this block began at ... */
    uint64_t until;    /* ... and the one from which it may end */
    uint32_t inserted; /* in this block */
    uint32_t returned; /* of them, keys that were rejected lately */
    uint32_t blocks;   /* that the means are over */
    uint32_t fallen;   /* blocks running that looked like a change */
    float mean;        /* of the hit ratios of the blocks ... */
    float deviation;   /* ... and of their distances from it */
} cc_watch;

/* Ends the block at `tick`; true: the popular set was replaced. */
bool cc_watch_ends(cc_watch *watch, uint64_t tick, uint32_t capacity);

/* Counts an insertion at `tick`, of a key that was rejected lately or not; true as above. */
CC_INLINE bool cc_watch_inserted(cc_watch *watch, uint64_t tick, bool returned, uint32_t capacity)
{
    watch->inserted++;
    watch->returned += returned;
    return CC_UNLIKELY(tick >= watch->until) && cc_watch_ends(watch, tick, capacity);
}

#endif
