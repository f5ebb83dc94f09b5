/* cc_vectors_write.c — put and delete: the writers of cc_vectors.h, who hold a stripe's lock. */
#include "cc_vectors_inner.h"

#include <stdlib.h>

enum { BATCH = 32 }; /* ids handled under one lock at most */

/* The order of a batch by stripes; within one, ids keep their order. */
typedef struct {
    uint32_t stripe;
    size_t at;
} errand;

static int by_stripe(const void *left, const void *right)
{
    const errand *a = left, *b = right;
    if (a->stripe != b->stripe)
        return a->stripe < b->stripe ? -1 : 1;
    return a->at < b->at ? -1 : a->at > b->at;
}

static errand *in_order(const cc_vectors *vectors, const int64_t *ids, size_t n)
{
    errand *order = malloc((n + 1) * sizeof *order);
    if (order == NULL)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        cc_place at;
        cc_vectors_spread(vectors, ids[i], &at);
        order[i] = (errand){at.stripe, i};
    }
    qsort(order, n, sizeof *order, by_stripe);
    return order;
}

static uint32_t take_row(const cc_vectors *vectors, cc_stripe *stripe, uint32_t number)
{
    uint32_t row = stripe->free_row;
    CC_ASSERT(row != CC_NO_SLOT);
    cc_row_copy(&stripe->free_row, cc_vectors_row(vectors, number, row), sizeof stripe->free_row);
    return row;
}

/* Stores a record's word after all that it tells of, and before the row it named is reused. */
static void publish(cc_record *record, uint32_t version, uint32_t row)
{
    __atomic_store_n(&record->b, (uint64_t)version << 32 | row, __ATOMIC_RELEASE);
    CC_ROW_FENCE(record->b, __ATOMIC_RELEASE);
}

/* Takes an entry out: unreachable first, then its version ends, and then its row is free. */
static void take_out(const cc_vectors *vectors, cc_stripe *stripe, uint32_t number, uint32_t slot,
                     cc_reason reason)
{
    cc_record *record = &stripe->policy.records[slot];
    uint64_t word = CC_GET(record->b);
    cc_index_remove(&stripe->index, record->meta.hash, slot);
    publish(record, (uint32_t)(word >> 32) + 1, (uint32_t)word);
    cc_policy_remove(&stripe->policy, slot, reason);
    cc_row_link(vectors, stripe, number, (uint32_t)word);
    stripe->left[reason]++;
}

/* Rows of the whole table, with those of a locked stripe as they are now. */
static uint64_t live_rows(const cc_vectors *vectors, const cc_stripe *stripe)
{
    return CC_GET(vectors->table->live) + stripe->policy.live - stripe->counted;
}

static void put_one(const cc_vectors *vectors, uint32_t number, int64_t id,
                    const unsigned char *from)
{
    cc_stripe *stripe = &vectors->stripes[number];
    cc_policy *policy = &stripe->policy;
    cc_place old;
    cc_vectors_spread(vectors, id, &old);
    bool here = cc_vectors_look_up(vectors, id, &old);
    while (!here && policy->live > 0
           && (policy->live >= policy->limit || live_rows(vectors, stripe) >= vectors->capacity)) {
        cc_reason reason;
        uint32_t victim = cc_policy_victim(policy, 0, &reason);
        take_out(vectors, stripe, number, victim, reason);
    }
    uint32_t row = take_row(vectors, stripe, number);
    cc_row_copy(cc_vectors_row(vectors, number, row), from, vectors->layout.width);
    if (here) {
        publish(old.record, (uint32_t)(old.word >> 32) + 2, row);
        cc_row_link(vectors, stripe, number, (uint32_t)old.word);
        return;
    }
    uint32_t slot = cc_policy_insert(policy, old.hash, 1, 1), leavers[2];
    cc_record *record = &policy->records[slot];
    CC_SET(record->a, (uint64_t)id);
    publish(record, (uint32_t)(CC_GET(record->b) >> 32) + 1, row);
    cc_index_add(&stripe->index, old.hash, slot);
    stripe->inserts++;
    if (policy->live == policy->capacity)
        cc_policy_prepare(policy, leavers);
}

static size_t delete_one(const cc_vectors *vectors, uint32_t number, int64_t id)
{
    cc_stripe *stripe = &vectors->stripes[number];
    cc_place at;
    cc_vectors_spread(vectors, id, &at);
    if (!cc_vectors_look_up(vectors, id, &at))
        return 0;
    take_out(vectors, stripe, number, (uint32_t)(at.record - stripe->policy.records), CC_DELETED);
    return 1;
}

/* Puts n rows, or deletes n ids where `rows` is NULL. */
static cc_vectors_result write_all(cc_vectors *vectors, const int64_t *ids, size_t n,
                                   const unsigned char *rows, size_t *removed)
{
    errand *order = in_order(vectors, ids, n);
    if (order == NULL)
        return CC_VECTORS_MEMORY;
    CC_ADD(vectors->table->accesses, n);
    cc_vectors_result result = CC_VECTORS_OK;
    for (size_t from = 0, to; from < n && result == CC_VECTORS_OK; from = to) {
        uint32_t number = order[from].stripe;
        result = cc_stripe_lock(vectors, number);
        if (result != CC_VECTORS_OK)
            break;
        for (to = from; to < n && to < from + BATCH && order[to].stripe == number; to++) {
            int64_t id = ids[order[to].at];
            if (rows != NULL)
                put_one(vectors, number, id, rows + order[to].at * vectors->layout.width);
            else
                *removed += delete_one(vectors, number, id);
        }
        cc_stripe_unlock(vectors, number);
    }
    free(order);
    return result;
}

cc_vectors_result cc_vectors_put(cc_vectors *vectors, const int64_t *ids, size_t n,
                                 const unsigned char *rows)
{
    return write_all(vectors, ids, n, rows, NULL);
}

cc_vectors_result cc_vectors_delete(cc_vectors *vectors, const int64_t *ids, size_t n, size_t *removed)
{
    *removed = 0;
    return write_all(vectors, ids, n, NULL, removed);
}
