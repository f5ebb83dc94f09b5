/* cc_policy_memory.c — the memory of a policy: its own, which grows, or its owner's. */
#include "cc_pages.h"
#include "cc_policy_inner.h"

static size_t records_size(const cc_policy *policy)
{
    return (size_t)policy->room * sizeof(cc_record);
}

static size_t ring_size(const cc_policy *policy)
{
    return (size_t)policy->ring_room * sizeof(uint32_t);
}

void cc_policy_shape(cc_policy *policy, uint32_t limit, uint64_t sketch_bytes, uint64_t seed)
{
    cc_policy_init(policy, limit, seed);
    policy->placed = true;
    /* The dead are swept before slots or queue are full. */
    policy->room = (limit + limit / PLACED_DEAD + 2 * LEAST_ROOM) & ~1u; /* samples are lines of two */
    policy->ring_room = (uint32_t)cc_pow2_ceil(policy->room);
    policy->fitted = limit;
    cc_ghosts_shape(&policy->ghosts, limit, limit);
    cc_sketch_shape(&policy->sketch, limit, sketch_bytes);
}

void cc_policy_place(cc_policy *policy, const cc_policy_memory *memory)
{
    policy->records = memory->records;
    policy->ring_16 = memory->ring;
    policy->ghosts.places = memory->ghosts;
    policy->sketch.counters = memory->counters;
    policy->sketch.epochs = memory->epochs;
}

void cc_policy_release(cc_policy *policy)
{
    cc_pages_free(policy->records, records_size(policy));
    cc_pages_free(policy->ring, ring_size(policy));
    cc_loads_free(policy);
    cc_ghosts_free(&policy->ghosts);
    cc_sketch_free(&policy->sketch);
}

size_t cc_policy_size(const cc_policy *policy)
{
    return records_size(policy) + ring_size(policy) + cc_loads_size(policy)
           + cc_ghosts_size(&policy->ghosts) + cc_sketch_size(&policy->sketch);
}

static bool grow_records(cc_policy *policy)
{
    uint64_t most = policy->limit == CC_NO_LIMIT
                        ? CC_NO_SLOT
                        : (uint64_t)policy->limit + policy->limit / 4 + 2 * LEAST_ROOM;
    uint64_t room = policy->room == 0 ? LEAST_ROOM : 2ull * policy->room;
    if (room > most)
        room = (most + 1) & ~1ull; /* samples are lines of two records */
    if (room >= CC_NO_SLOT || room <= policy->room)
        return false;
    void *grown =
        cc_pages_grow(policy->records, records_size(policy), room * sizeof(cc_record));
    if (grown == NULL)
        return false;
    policy->records = grown;
    policy->room = (uint32_t)room;
    return true;
}

static bool grow_ring(cc_policy *policy)
{
    cc_policy wider = *policy;
    wider.ring_room = policy->ring_room == 0 ? LEAST_ROOM : 2 * policy->ring_room;
    wider.ring = cc_pages_alloc(ring_size(&wider));
    if (wider.ring == NULL)
        return false;
    for (uint32_t at = policy->tail; at != policy->head; at++)
        ring_set(&wider, at, ring_at(policy, at));
    cc_pages_free(policy->ring, ring_size(policy));
    policy->ring = wider.ring;
    policy->ring_room = wider.ring_room;
    return true;
}

bool cc_policy_reserve(cc_policy *policy)
{
    if (policy->placed)
        return policy->free != CC_NO_SLOT || policy->used < policy->room;
    if (CC_UNLIKELY(policy->free == CC_NO_SLOT && policy->used == policy->room))
        if (!grow_records(policy))
            return false;
    if (CC_UNLIKELY(policy->loaded && policy->loads_room < policy->room) && !cc_loads_grow(policy))
        return false;
    if (CC_UNLIKELY(policy->head - policy->tail == policy->ring_room))
        return grow_ring(policy);
    return true;
}

