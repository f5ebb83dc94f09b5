/* cc_watch.c — see cc_watch.h. */
#include "cc_watch.h"

#include <math.h>

enum {
    BLOCK_LEAST = 64,
    BLOCK_MOST = 1024,
    BLOCK_SHARE = 32,   /* of the capacity */
    MEAN_BLOCKS = 128,  /* blocks that the means remember */
    BLOCKS_KNOWN = 16,  /* blocks before which the means are worth nothing */
    RUNNING = 2,        /* blocks that must look like a change */
    RETURNED_SHARE = 20 /* of the insertions */
};

#define FALLEN_TO 0.65f
#define DEVIATIONS 4.0f

bool cc_watch_ends(cc_watch *watch, uint64_t tick, uint32_t capacity)
{
    uint32_t length = capacity / BLOCK_SHARE;
    length = length < BLOCK_LEAST ? BLOCK_LEAST : length < BLOCK_MOST ? length : BLOCK_MOST;
    float ratio = 1 - (float)watch->inserted / (float)(tick - watch->since);
    bool fallen = watch->blocks >= BLOCKS_KNOWN && ratio < FALLEN_TO * watch->mean
                  && ratio < watch->mean - DEVIATIONS * watch->deviation;
    bool returning = RETURNED_SHARE * watch->returned >= watch->inserted;
    watch->fallen = fallen && returning ? watch->fallen + 1 : 0;
    bool replaced = watch->fallen >= RUNNING;
    if (replaced) { /* the mean begins where the ratio is now, or this would be seen again */
        watch->fallen = 0;
        watch->mean = ratio;
    } else {
        watch->blocks += watch->blocks < MEAN_BLOCKS;
        watch->deviation += (fabsf(ratio - watch->mean) - watch->deviation) / (float)watch->blocks;
        watch->mean += (ratio - watch->mean) / (float)watch->blocks;
    }
    watch->since = tick;
    watch->until = tick + length;
    watch->inserted = watch->returned = 0;
    return replaced;
}
