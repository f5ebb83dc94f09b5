/* selftest.c — index, sketch and policy without Python, against a plain model. ci/wheels.sh runs it here and
   on an emulated aarch64: the digest it prints must not depend on the machine. */
#include "cc_index.h"
#include "cc_policy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* Random look-ups, insertions and deletions; a digest of who left in which order. */
static uint64_t check_policy(uint64_t sketch_bytes)
{
    static uint32_t slot_of[KEYS]; /* the model: a key's slot + 1; 0: absent */
    uint64_t random = 12345, digest = 0;
    uint32_t step = 0, live = 0;
    cc_reason reason;
    cc_index index;
    cc_policy policy;
    cc_index_init(&index);
    cc_policy_init(&policy, LIMIT, 1);
    policy.sketch_bytes = sketch_bytes;
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
    memset(slot_of, 0, sizeof slot_of);
    cc_policy_free(&policy);
    cc_index_free(&index);
    return digest;
}

/* Estimates are never below what keys were raised to, but for the most that a counter holds; where
   there is room for all keys, most of them are exact. */
static void check_sketch(uint32_t capacity, uint64_t bytes, uint32_t keys, uint32_t most)
{
    static uint32_t raised[KEYS]; /* the model */
    uint64_t random = 54321;
    uint32_t step = 0, exact = 0;
    cc_sketch sketch = {0};
    cc_sketch_fit(&sketch, capacity, bytes);
    REQUIRE(sketch.counters != NULL);
    for (; step < STEPS; step++) {
        uint32_t key = cc_random_below(&random, keys);
        uint32_t count = cc_random_below(&random, cc_random_below(&random, 100000) + 1);
        cc_sketch_raise(&sketch, hash_of(key), count);
        count = count < most ? count : most;
        raised[key] = count > raised[key] ? count : raised[key];
        if (step % 50000 == 0) {
            cc_sketch_halve(&sketch);
            for (uint32_t i = 0; i < keys; i++)
                raised[i] /= 2;
        }
        REQUIRE(cc_sketch_estimate(&sketch, hash_of(key)) >= raised[key]);
    }
    for (uint32_t key = 0; key < keys; key++) {
        uint32_t estimate = cc_sketch_estimate(&sketch, hash_of(key));
        REQUIRE(estimate >= raised[key] && estimate <= most);
        exact += estimate == raised[key];
    }
    REQUIRE(sketch.lines == 1 || exact > keys * 9 / 10);
    for (unsigned epoch = 0; epoch < 16; epoch++)
        cc_sketch_halve(&sketch);
    for (uint32_t key = 0; key < keys; key++)
        REQUIRE(cc_sketch_estimate(&sketch, hash_of(key)) == 0);
    memset(raised, 0, sizeof raised);
    cc_sketch_free(&sketch);
}

int main(void)
{
    check_sketch(1000, 0, KEYS / 20, UINT16_MAX);
    check_sketch(1000, 64, KEYS, 15); /* all in one line */
    check_sketch(1000000, 0, KEYS, 15);
    printf("%016llx %016llx\n", (unsigned long long)check_policy(0),
           (unsigned long long)check_policy(4096));
    return 0;
}
