/* selftest.c — index and policy without Python, against a plain model. ci/wheels.sh runs it here and
   on an emulated aarch64: the digest it prints must not depend on the machine. */
#include "cc_index.h"
#include "cc_policy.h"

#include <stdio.h>
#include <stdlib.h>

enum { LIMIT = 1000, KEYS = 20000, STEPS = 400000, HASH_SEED = 77 };

#define REQUIRE(x)                                                                       \
    do {                                                                                 \
        if (!(x)) {                                                                      \
            fprintf(stderr, "selftest.c:%d: step %u: %s\n", __LINE__, step, #x);         \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

static uint32_t hash_of(uint64_t key)
{
    return (uint32_t)cc_mix64(key, HASH_SEED);
}

int main(void)
{
    static uint32_t slot_of[KEYS]; /* the model: a key's slot + 1; 0: absent */
    uint64_t random = 12345, digest = 0;
    uint32_t step = 0, live = 0;
    cc_reason reason;
    cc_index index;
    cc_policy policy;
    cc_index_init(&index);
    cc_policy_init(&policy, LIMIT, 1);
    REQUIRE(cc_index_alloc(&index, LIMIT));
    for (; step < STEPS; step++) {
        uint32_t key = cc_random_below(&random, cc_random_below(&random, KEYS) + 1);
        uint32_t hash = hash_of(key), slot = slot_of[key] - 1;
        REQUIRE(slot_of[key] == 0 || cc_index_has(&index, hash, slot));
        if (slot_of[key] != 0 && step % 16 == 0) {
            cc_policy_remove(&policy, slot, CC_DELETED);
            REQUIRE(cc_index_remove(&index, hash, slot));
            slot_of[key] = 0;
            live--;
        } else if (slot_of[key] != 0) {
            cc_policy_hit(&policy, &policy.records[slot].meta);
        } else {
            REQUIRE(cc_policy_reserve(&policy));
            if (live == LIMIT) {
                uint32_t victim = cc_policy_victim(&policy, 0, &reason);
                uint64_t loser = policy.records[victim].a;
                REQUIRE(slot_of[loser] == victim + 1);
                REQUIRE(cc_index_remove(&index, hash_of(loser), victim));
                cc_policy_remove(&policy, victim, reason);
                slot_of[loser] = 0;
                live--;
                digest = cc_mix64(digest, loser << 2 | (uint64_t)reason);
            }
            slot = cc_policy_insert(&policy, hash, 1, 1);
            policy.records[slot].a = key;
            cc_index_add(&index, hash, slot);
            slot_of[key] = slot + 1;
            live++;
        }
        REQUIRE(policy.live == live && index.entries == live);
        REQUIRE(step % 1000 != 0 || cc_policy_valid(&policy));
    }
    for (uint32_t key = 0; key < KEYS; key++)
        REQUIRE(slot_of[key] == 0 || cc_index_has(&index, hash_of(key), slot_of[key] - 1));
    cc_policy_free(&policy);
    cc_index_free(&index);
    printf("%016llx\n", (unsigned long long)digest);
    return 0;
}
