/* cc_simulator.c — see cc_simulator.h. */
#include "cc_simulator.h"

#include <string.h>

enum {
    HAND_STEPS = 2,    /* as in the object table */
    AHEAD_CHUNK = 16,  /* requests between fetching a chunk of the index ... */
    AHEAD_RECORD = 8,  /* ... and a record, and needing it */
};

void cc_simulator_init(cc_simulator *simulator, uint32_t limit, uint64_t max_bytes,
                       uint32_t lifetime, bool weighed, uint64_t seed)
{
    memset(simulator, 0, sizeof *simulator);
    cc_policy_init(&simulator->policy, limit, seed);
    cc_index_init(&simulator->index);
    simulator->policy.loaded = weighed;
    simulator->policy.by_size = weighed && max_bytes != UINT64_MAX;
    simulator->secret = cc_mix64(seed, 0xD6E8FEB86659FD93ull);
    simulator->max_bytes = max_bytes;
    simulator->lifetime = lifetime;
}

void cc_simulator_free(cc_simulator *simulator)
{
    cc_policy_free(&simulator->policy);
    cc_index_free(&simulator->index);
}

CC_INLINE uint32_t hash_of(const cc_simulator *simulator, int64_t key)
{
    return (uint32_t)(cc_mix64((uint64_t)key, simulator->secret) >> 32);
}

/* The slot of a key, or CC_NO_SLOT. */
static uint32_t find(const cc_simulator *simulator, int64_t key, uint32_t hash)
{
    const cc_index *index = &simulator->index;
    unsigned tag = cc_index_tag(hash);
    uint32_t at = cc_index_home(index, hash);
    for (uint32_t walked = 0; walked <= index->mask; walked++) {
        const cc_chunk *chunk = &index->chunks[at];
        for (cc_matches matches = cc_chunk_match(chunk, tag); matches != 0; matches &= matches - 1) {
            uint32_t slot = chunk->slot[cc_matches_first(matches)];
            if (simulator->policy.records[slot].a == (uint64_t)key)
                return slot;
        }
        if (CC_LIKELY(chunk->overflow == 0))
            break;
        at = cc_index_next(index, at, tag);
    }
    return CC_NO_SLOT;
}

static bool expired(const cc_simulator *simulator, uint32_t slot, uint32_t now)
{
    uint32_t expiry = simulator->policy.records[slot].meta.expiry;
    return expiry != 0 && expiry <= now;
}

static void take(cc_simulator *simulator, uint32_t slot, cc_reason reason)
{
    cc_index_remove(&simulator->index, simulator->policy.records[slot].meta.hash, slot);
    cc_policy_remove(&simulator->policy, slot, reason);
    simulator->left[reason]++;
}

static void move_hand(cc_simulator *simulator, uint32_t now)
{
    for (unsigned step = 0; step < HAND_STEPS; step++) {
        if (simulator->hand >= simulator->policy.used)
            simulator->hand = 0;
        uint32_t slot = simulator->hand++;
        if (cc_record_live(&simulator->policy.records[slot]) && expired(simulator, slot, now))
            take(simulator, slot, CC_EXPIRED);
    }
}

/* Fetches what the insertions to come will need. */
static void prepare(cc_simulator *simulator)
{
    uint32_t leavers[2];
    const cc_index *index = &simulator->index;
    if (!cc_policy_prepare(&simulator->policy, leavers))
        return;
    for (unsigned i = 0; i < 2; i++) {
        const cc_record *record = &simulator->policy.records[leavers[i]];
        CC_PREFETCH_WRITE(&index->chunks[cc_index_home(index, record->meta.hash)]);
    }
}

static bool insert(cc_simulator *simulator, int64_t key, uint32_t hash, uint64_t size, double cost,
                   uint32_t now)
{
    cc_policy *policy = &simulator->policy;
    uint32_t slot;
    cc_reason reason;
    if (!cc_policy_reserve(policy))
        return false;
    if (cc_index_full(&simulator->index)
        && !cc_policy_reindex(policy, &simulator->index, simulator->index.entries + 1))
        return false;
    if (simulator->lifetime != 0 && policy->used != 0)
        move_hand(simulator, now);
    while (policy->live >= policy->limit || policy->load + size > simulator->max_bytes) {
        slot = cc_policy_victim(policy, now, &reason);
        take(simulator, slot, reason);
    }
    slot = cc_policy_insert(policy, hash, size, cost);
    cc_index_add(&simulator->index, hash, slot);
    policy->records[slot].a = (uint64_t)key;
    policy->records[slot].meta.expiry = simulator->lifetime == 0 ? 0 : now + simulator->lifetime;
    if (policy->live == policy->capacity)
        prepare(simulator);
    return true;
}

CC_INLINE void fetch_ahead(const cc_simulator *simulator, const int64_t *keys, size_t i, size_t until)
{
    if (i + AHEAD_CHUNK >= until)
        return;
    const cc_index *index = &simulator->index;
    uint32_t far = hash_of(simulator, keys[i + AHEAD_CHUNK]);
    CC_PREFETCH(&index->chunks[cc_index_home(index, far)]);
    uint32_t near = hash_of(simulator, keys[i + AHEAD_RECORD]);
    const cc_chunk *chunk = &index->chunks[cc_index_home(index, near)];
    cc_matches matches = cc_chunk_match(chunk, cc_index_tag(near));
    if (matches != 0)
        CC_PREFETCH_WRITE(&simulator->policy.records[chunk->slot[cc_matches_first(matches)]]);
    else
        cc_policy_expect(&simulator->policy, near);
}

bool cc_simulator_run(cc_simulator *simulator, const cc_requests *requests, size_t from,
                      size_t until)
{
    cc_policy *policy = &simulator->policy;
    for (size_t i = from; i < until; i++) {
        int64_t key = requests->keys[i];
        uint64_t size = requests->sizes == NULL ? 1 : (uint64_t)requests->sizes[i];
        double cost = requests->costs == NULL ? 1 : requests->costs[i];
        uint32_t now = requests->times == NULL ? 0 : requests->times[i];
        uint32_t hash = hash_of(simulator, key), slot = find(simulator, key, hash);
        fetch_ahead(simulator, requests->keys, i, until);
        if (slot != CC_NO_SLOT && expired(simulator, slot, now)) {
            take(simulator, slot, CC_EXPIRED);
            slot = CC_NO_SLOT;
        }
        if (slot != CC_NO_SLOT) {
            cc_policy_hit(policy, &policy->records[slot].meta);
            simulator->hits++;
            simulator->bytes_hit += size;
            simulator->cost_hit += cost;
        } else if (size > simulator->max_bytes) {
            simulator->refused++;
        } else if (!insert(simulator, key, hash, size, cost, now)) {
            return false;
        }
    }
    return true;
}
