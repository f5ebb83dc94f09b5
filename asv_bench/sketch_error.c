/* sketch_error.c — how far the sketch's estimates are from what it was told; scale.py runs it.
 *
 *     sketch_error KEYS CAPACITY SKETCH_BYTES < stream of int64 keys below KEYS
 *
 * prints, of the insertions of keys that had left before: their number, the mean count they had left
 * with (halved as the sketch halves), the mean of estimate - count, the share of exact estimates. */
#include "cc_policy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    uint32_t slot; /* CC_NO_SLOT: not here */
    uint16_t count; /* when it left ... */
    uint16_t epoch; /* ... in this epoch */
} seen;

enum { CHUNK = 1 << 16 };

static uint32_t aged(const seen *key, uint32_t epoch)
{
    uint32_t missed = (uint16_t)((uint16_t)epoch - key->epoch);
    return missed < 16 ? key->count >> missed : 0;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    size_t keys = strtoull(argv[1], NULL, 10), read;
    uint32_t capacity = (uint32_t)strtoul(argv[2], NULL, 10);
    static int64_t chunk[CHUNK];
    seen *all = calloc(keys, sizeof *all);
    if (all == NULL)
        return 1;
    for (size_t i = 0; i < keys; i++)
        all[i].slot = CC_NO_SLOT;
    cc_policy policy;
    cc_policy_init(&policy, capacity, 1);
    policy.sketch_bytes = strtoull(argv[3], NULL, 10);
    double known = 0, counts = 0, error = 0, exact = 0;
    while ((read = fread(chunk, sizeof *chunk, CHUNK, stdin)) > 0) {
        for (size_t i = 0; i < read; i++) {
            seen *key = &all[chunk[i]];
            if (key->slot != CC_NO_SLOT) {
                cc_policy_hit(&policy, &policy.records[key->slot].meta);
                continue;
            }
            if (!cc_policy_reserve(&policy))
                return 1;
            if (policy.live == policy.limit) {
                cc_reason reason;
                uint32_t victim = cc_policy_victim(&policy, 0, &reason);
                seen *left = &all[policy.records[victim].a];
                uint32_t count = cc_policy_frequency(&policy, victim), was = aged(left, policy.epoch);
                left->count = (uint16_t)(count > was ? count : was);
                left->epoch = (uint16_t)policy.epoch;
                left->slot = CC_NO_SLOT;
                cc_policy_remove(&policy, victim, reason);
            }
            uint32_t hash = (uint32_t)cc_mix64((uint64_t)chunk[i], 77), count;
            key->slot = cc_policy_insert(&policy, hash, 1, 1);
            policy.records[key->slot].a = (uint64_t)chunk[i];
            if (policy.live < policy.limit || (count = aged(key, policy.epoch)) == 0)
                continue;
            double off = (double)cc_policy_frequency(&policy, key->slot) - 1 - count;
            known++;
            counts += count;
            error += off;
            exact += off == 0;
        }
    }
    if (known == 0)
        known = 1;
    printf("%.0f %.3f %.3f %.4f\n", known, counts / known, error / known, exact / known);
    return 0;
}
