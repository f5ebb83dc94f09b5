/* cc_simulator.h — the policy on a trace: which requests of int64 keys a cache would have hit.
 *
 * It does with the index and the policy what the object table does, but for the objects: look up, and on
 * a miss insert; so its hit ratios are those of a cache. Not thread safe; no state is shared. */
#ifndef CC_SIMULATOR_H
#define CC_SIMULATOR_H

#include "cc_index.h"
#include "cc_policy.h"

typedef struct {
    cc_policy policy;
    cc_index index;
    uint64_t secret;    /* of the keys' hashes */
    uint64_t max_bytes; /* UINT64_MAX: no bound */
    uint32_t lifetime;  /* of an entry, in the unit of the times; 0: for ever */
    uint32_t hand;      /* the slot whose expiry is looked at next */
    uint64_t hits, refused;
    uint64_t left[4];   /* entries that left, by cc_reason */
    uint64_t bytes_hit; /* of the requests that hit */
    double cost_hit;
} cc_simulator;

/* What is asked for. NULL: sizes and costs of 1, no time. */
typedef struct {
    const int64_t *keys;
    const int64_t *sizes;  /* bytes, 1 or more */
    const double *costs;   /* above 0 */
    const uint32_t *times; /* 1 or more, never falling, below 2^31 */
} cc_requests;

/* An empty cache; limit and max_bytes as in cc_policy and above. `weighed`: sizes or costs will come. */
void cc_simulator_init(cc_simulator *simulator, uint32_t limit, uint64_t max_bytes,
                       uint32_t lifetime, bool weighed, uint64_t seed);

void cc_simulator_free(cc_simulator *simulator);

/* Serves requests from ... until - 1; false: no memory. */
bool cc_simulator_run(cc_simulator *simulator, const cc_requests *requests, size_t from,
                      size_t until);

#endif
