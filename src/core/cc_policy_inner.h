/* cc_policy_inner.h — what an entry of a policy is worth, and its queue: for cc_policy*.c only. */
#ifndef CC_POLICY_INNER_H
#define CC_POLICY_INNER_H

#include "cc_age.h"
#include "cc_policy.h"

enum { LEAST_ROOM = 16 }; /* slots, and places of the queue */
enum { PLACED_DEAD = 64 }; /* ... th part of a placed policy's window may be dead: it pays for slots */
enum { RECOVERY = 4 }; /* x capacity: accesses after a replacement in which silence is looked for */

/* The slot at a position of the queue; of a placed one, whose memory may have been damaged, some slot
   that there is. */
CC_INLINE uint32_t ring_at(const cc_policy *policy, uint32_t position)
{
    uint32_t at = position & (policy->ring_room - 1);
    if (!policy->placed)
        return policy->ring[at];
    uint32_t slot = policy->ring_16[at];
    return CC_LIKELY(slot < policy->room) ? slot : 0;
}

CC_INLINE void ring_set(cc_policy *policy, uint32_t position, uint32_t slot)
{
    uint32_t at = position & (policy->ring_room - 1);
    if (policy->placed)
        policy->ring_16[at] = (uint16_t)slot;
    else
        policy->ring[at] = slot;
}

CC_INLINE uint32_t count_of(const cc_policy *policy, const cc_meta *meta)
{
    return cc_use_count(cc_use_aged(CC_GET(meta->use), policy->epoch));
}

CC_INLINE uint32_t age_of(const cc_policy *policy, const cc_meta *meta)
{
    return (uint32_t)policy->tick - CC_GET(meta->tick);
}

/* Entries differ in cost, and not in size. */
CC_INLINE bool by_cost(const cc_policy *policy)
{
    return CC_UNLIKELY(policy->loads != NULL) && !policy->by_size;
}

/* Nobody has asked for it since the popular set was replaced. Not where costs differ: there one dear
   entry that leaves on a false alarm costs more than a hundred others gain on a true one. */
CC_INLINE bool silent(const cc_policy *policy, const cc_meta *meta)
{
    return CC_UNLIKELY(age_of(policy, meta) > policy->tick - policy->replaced) && !by_cost(policy);
}

/* There may be many silent entries yet. */
CC_INLINE bool recovering(const cc_policy *policy)
{
    return CC_UNLIKELY(policy->tick - policy->replaced < (uint64_t)RECOVERY * policy->capacity)
           && policy->replaced != 0;
}

/* The count of a main entry against a challenger: what was popular before does not count. It is not
   erased: should the alarm be false, one hit brings it back. */
CC_INLINE uint32_t main_count(const cc_policy *policy, const cc_meta *meta)
{
    return silent(policy, meta) ? 0 : count_of(policy, meta);
}

/* A count times cost / size^(3/4), for entries that differ in those. What is dear stays so when its
   count is halved to 0. */
CC_INLINE float weighed(const cc_policy *policy, uint32_t slot, uint32_t count)
{
    return ((float)count + 0.5f) * policy->loads[slot].worth;
}

/* frequency / ln(age + e)^3 of a main entry, in units of 2^-32. */
CC_INLINE float score(const cc_policy *policy, uint32_t slot)
{
    const cc_meta *meta = &policy->records[slot].meta;
    uint64_t weight = cc_age_weight(age_of(policy, meta));
    uint32_t count = main_count(policy, meta);
    return CC_UNLIKELY(policy->loads != NULL) ? weighed(policy, slot, count) * (float)weight
                                              : (float)(int64_t)(count * weight);
}

CC_INLINE bool expired(const cc_meta *meta, uint32_t now)
{
    return CC_GET(meta->expiry) - 1 < now; /* 0, never, wraps to the end of time */
}

/* Frees what a policy allocated. */
void cc_policy_release(cc_policy *policy);

#endif
