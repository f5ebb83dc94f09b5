/* cc_vectors_write.c — put and delete: the writers of cc_vectors.h, who hold a stripe's lock. */
#include "cc_vectors_inner.h"

#include <stdlib.h>

enum {
    BATCH = 64,      /* ids handled under one lock at most */
    BINS = 1024,     /* of the sort by stripes; of more stripes some share one, and still each keeps its order */
    TO_RECORD = 8,   /* ids between asking for the record that an id may have ... */
    TO_WRITE = 16,   /* ... or for what else is known from its hash, and handling it */
    LINES_AHEAD = 8, /* of a row that are asked for */
};

/* The order of a batch by stripes; within one, ids keep their order. Ids are copied: should the
   caller's memory change, each would no longer be of the stripe whose lock is held. */
typedef struct {
    int64_t id;
    size_t at;
    uint32_t stripe;
    uint32_t hash;
} errand;

static errand *in_order(const cc_vectors *vectors, const int64_t *ids, size_t n)
{
    errand *order = malloc((2 * n + 1) * sizeof *order), *unsorted = order + n;
    unsigned bins = vectors->layout.stripes < BINS ? vectors->layout.stripes : BINS;
    size_t begins[BINS], sum = 0;
    if (order == NULL)
        return NULL;
    memset(begins, 0, bins * sizeof *begins);
    for (size_t i = 0; i < n; i++) {
        int64_t id = CC_GET(ids[i]);
        cc_place at;
        cc_vectors_spread(vectors, id, &at);
        unsorted[i] = (errand){.id = id, .at = i, .stripe = at.stripe, .hash = at.hash};
        begins[at.stripe % BINS]++;
    }
    for (unsigned bin = 0; bin < bins; bin++) {
        size_t count = begins[bin];
        begins[bin] = sum;
        sum += count;
    }
    for (size_t i = 0; i < n; i++)
        order[begins[unsorted[i].stripe % BINS]++] = unsorted[i];
    return order;
}

/* A row that nobody uses: one that was used before, or the first that never was. CC_NO_SLOT: the
   list leads nowhere, or too many rows are pinned. */
static uint32_t take_row(const cc_vectors *vectors, cc_stripe *stripe, uint32_t number)
{
    uint32_t row = stripe->free_row;
    if (row == CC_NO_SLOT)
        return stripe->fresh_row < vectors->layout.rows ? stripe->fresh_row++ : CC_NO_SLOT;
    if (row >= vectors->layout.rows)
        return CC_NO_SLOT;
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
    cc_narrow_remove(&stripe->index, record->meta.hash, slot);
    publish(record, (uint32_t)(word >> 32) + 1, (uint32_t)word);
    cc_policy_remove(&stripe->policy, slot, reason);
    cc_row_leave(vectors, stripe, number, (uint32_t)word);
    stripe->left[reason]++;
}

/* A batch under way. */
typedef struct {
    cc_vectors *vectors;
    const unsigned char *rows; /* NULL: ids are deleted */
    unsigned char *coded;      /* a row in the table's form, where that is not the caller's */
    errand *order;
    size_t n, done;
    size_t asked, seen; /* ids whose lines, and whose records, were asked for */
    uint32_t leaver;    /* of the locked stripe: who goes when the next one comes; CC_NO_SLOT: not known ... */
    cc_reason why;
    uint32_t next[2]; /* who may go after him, and whose lines were asked for; or CC_NO_SLOT */
    cc_moment moment;
} batch;

/* --- asking ahead ----------------------------------------------------------------------------

   A write of a random row misses the cache a dozen times. All but a few of the lines can be told some ids
   before: they are asked for without the lock, which changes nothing but the time they take. */

CC_INLINE void ask_for_row(const cc_vectors *vectors, uint32_t number, uint32_t row)
{
    const unsigned char *from = cc_vectors_row(vectors, number, row);
    for (size_t byte = 0; byte < vectors->layout.stored && byte < LINES_AHEAD * CC_LINE; byte += CC_LINE)
        CC_PREFETCH_WRITE(from + byte);
}

/* What the policy will need for a hash. The pointers are this process', not the lock holder's. */
CC_INLINE void ask_for_memory(const cc_vectors *vectors, uint32_t number, uint32_t hash)
{
    const cc_vectors_layout *layout = &vectors->layout;
    cc_ghosts ghosts = {.places = vectors->ghosts + (size_t)number * layout->ghosts,
                        .lines = layout->ghosts / CC_GHOSTS_LINE};
    cc_sketch sketch = {.counters = vectors->counters + (size_t)number * layout->lines * CC_LINE,
                        .lines = layout->lines};
    cc_ghosts_prefetch(&ghosts, hash);
    cc_sketch_prefetch(&sketch, hash);
}

static cc_place place_of(const cc_vectors *vectors, const errand *what)
{
    return (cc_place){.id = what->id,
                      .home = cc_vectors_home(vectors, what->stripe, what->hash),
                      .stripe = what->stripe,
                      .hash = what->hash};
}

/* Asks for what the id at `from` of the order and those after it need. */
static void ask_ahead(batch *all, size_t from)
{
    const cc_vectors *vectors = all->vectors;
    size_t width = vectors->shape.width;
    for (; all->asked < all->n && all->asked <= from + TO_WRITE; all->asked++) {
        const errand *what = &all->order[all->asked];
        CC_PREFETCH_WRITE(place_of(vectors, what).home);
        ask_for_memory(vectors, what->stripe, what->hash);
        if (all->rows == NULL)
            continue;
        const unsigned char *row = all->rows + what->at * width;
        for (size_t byte = 0; byte < width && byte < LINES_AHEAD * CC_LINE; byte += CC_LINE)
            CC_PREFETCH(row + byte);
    }
    for (; all->seen < all->n && all->seen <= from + TO_RECORD; all->seen++) {
        cc_place at = place_of(vectors, &all->order[all->seen]);
        uint32_t matches = cc_narrow_match(at.home, cc_index_tag(at.hash));
        if (matches != 0)
            CC_PREFETCH_WRITE(cc_vectors_records(vectors, at.stripe)
                              + CC_GET(at.home->slot[cc_narrow_first(matches)]));
    }
}

/* Asks for what taking an entry out will touch, but for its record, which is here. */
CC_INLINE void ask_for_leaver(const cc_vectors *vectors, uint32_t number, const cc_record *record)
{
    uint32_t hash = record->meta.hash, row = (uint32_t)CC_GET(record->b);
    CC_PREFETCH_WRITE(cc_vectors_home(vectors, number, hash));
    ask_for_memory(vectors, number, hash);
    if (row < vectors->layout.rows)
        ask_for_row(vectors, number, row);
}

/* --- writing --------------------------------------------------------------------------------- */

/* Fills a row that nobody can reach. Its checksum is of what is there then: the caller's memory may
   have changed in between. */
static void write_row(const batch *all, uint32_t number, uint32_t to, const errand *what)
{
    const cc_vectors *vectors = all->vectors;
    unsigned char *row = cc_vectors_row(vectors, number, to);
    const unsigned char *from = all->rows + what->at * vectors->shape.width;
    if (all->coded != NULL) {
        cc_row_encode(all->coded, from, vectors->shape.width / sizeof(float));
        from = all->coded;
    }
    cc_row_copy(row, from, vectors->layout.stored);
    if (CC_UNLIKELY(vectors->shape.sums))
        CC_SET(*cc_vectors_sum(vectors, number, to),
               cc_row_sum(row, vectors->layout.stored, what->id));
}

/* Asks for the lines of those who may leave after the next. */
static void ask_for_next(batch *all, cc_stripe *stripe, uint32_t number)
{
    cc_policy *policy = &stripe->policy;
    uint32_t before = all->next[1];
    if (!cc_policy_prepare_next(policy, all->leaver, all->next)) {
        all->next[0] = all->next[1] = CC_NO_SLOT;
        return;
    }
    ask_for_leaver(all->vectors, number, &policy->records[all->next[0]]);
    if (all->next[1] != all->next[0] && all->next[1] != before) /* an opponent stays for a while */
        ask_for_leaver(all->vectors, number, &policy->records[all->next[1]]);
}

/* Finds out who is to leave next, and asks for his lines. */
static void choose_leaver(batch *all, cc_stripe *stripe, uint32_t number)
{
    cc_policy *policy = &stripe->policy;
    all->leaver = cc_policy_victim(policy, all->moment.now, &all->why);
    if (all->leaver != all->next[0] && all->leaver != all->next[1])
        ask_for_leaver(all->vectors, number, &policy->records[all->leaver]);
}

/* Makes room for one more entry. */
static void make_room(batch *all, cc_stripe *stripe, uint32_t number, uint32_t room)
{
    cc_policy *policy = &stripe->policy;
    while (policy->live > 0 && policy->live >= room) {
        if (all->leaver == CC_NO_SLOT)
            choose_leaver(all, stripe, number);
        take_out(all->vectors, stripe, number, all->leaver, all->why);
        all->leaver = CC_NO_SLOT;
    }
}

/* Puts one row of a batch; false: there was no row to write to, or no record. */
static bool put_one(batch *all, const errand *what, uint32_t room, bool last)
{
    const cc_vectors *vectors = all->vectors;
    uint32_t number = what->stripe;
    cc_stripe *stripe = &vectors->stripes[number];
    cc_policy *policy = &stripe->policy;
    int64_t id = what->id;
    uint32_t ttl = (uint32_t)vectors->shape.ttl, expiry = ttl == 0 ? 0 : all->moment.now + ttl;
    cc_place old = place_of(vectors, what);
    bool here = cc_vectors_look_up(vectors, all->moment.generation, &old);
    if (!here)
        make_room(all, stripe, number, room);
    uint32_t row = take_row(vectors, stripe, number);
    if (CC_UNLIKELY(row == CC_NO_SLOT) || CC_UNLIKELY(!cc_policy_reserve(policy)))
        return false;
    if (here) {
        write_row(all, number, row, what);
        if (CC_UNLIKELY(all->leaver == (uint32_t)(old.record - policy->records)))
            all->leaver = CC_NO_SLOT; /* what spoke against it was about its old row */
        if (CC_UNLIKELY(cc_vectors_expired(vectors, old.record, all->moment))) {
            stripe->left[CC_EXPIRED]++;
            stripe->inserts++;
        }
        publish(old.record, (uint32_t)(old.word >> 32) + 2, row);
        /* Later than the row: if this ends in between, the row is the new one and its time the old. */
        __atomic_store_n(&old.record->meta.expiry, expiry, __ATOMIC_RELEASE);
        cc_row_leave(vectors, stripe, number, (uint32_t)old.word);
        return true;
    }
    uint32_t slot = cc_policy_insert(policy, old.hash, 1, 1);
    cc_record *record = &policy->records[slot];
    if (policy->live >= room) { /* their lines come while the row is copied */
        if (!last)
            choose_leaver(all, stripe, number);
        ask_for_next(all, stripe, number);
    }
    write_row(all, number, row, what);
    CC_SET(record->a, (uint64_t)id);
    CC_SET(record->meta.expiry, expiry);
    publish(record, (uint32_t)(CC_GET(record->b) >> 32) + 1, row);
    cc_narrow_add(&stripe->index, old.hash, slot);
    stripe->inserts++;
    return true;
}

static size_t delete_one(const batch *all, const errand *what)
{
    const cc_vectors *vectors = all->vectors;
    uint32_t number = what->stripe;
    cc_stripe *stripe = &vectors->stripes[number];
    cc_place at = place_of(vectors, what);
    if (!cc_vectors_look_up(vectors, all->moment.generation, &at))
        return 0;
    bool expired = cc_vectors_expired(vectors, at.record, all->moment);
    take_out(vectors, stripe, number, (uint32_t)(at.record - stripe->policy.records),
             expired ? CC_EXPIRED : CC_DELETED);
    return !expired;
}

/* Does what is to be done in one stripe, from one place of the order to another, under its lock. */
static cc_vectors_result write_some(batch *all, size_t from, size_t to)
{
    const cc_vectors *vectors = all->vectors;
    uint32_t number = all->order[from].stripe;
    bool putting = all->rows != NULL;
    cc_vectors_result result = cc_stripe_lock(vectors, number, &all->moment);
    if (result != CC_VECTORS_OK)
        return result;
    cc_stripe *stripe = &vectors->stripes[number];
    uint32_t room = putting ? cc_stripe_room(vectors, number, (uint32_t)(to - from)) : 0;
    all->leaver = all->next[0] = all->next[1] = CC_NO_SLOT;
    for (bool repaired = false; from < to; from++) {
        const errand *what = &all->order[from];
        ask_ahead(all, from);
        if (!putting) {
            all->done += delete_one(all, what);
        } else if (CC_LIKELY(put_one(all, what, room, from + 1 == to))) {
            all->done++;
        } else if (!repaired && cc_stripe_rebuild(vectors, stripe, number)) {
            repaired = true; /* and once more */
            all->leaver = CC_NO_SLOT;
            from--;
        } else {
            result = CC_VECTORS_MEMORY;
            break;
        }
    }
    cc_stripe_unlock(vectors, number);
    return result;
}

/* Goes through a batch by stripes. One whose lock is not to be had is left out, and the others go on. */
static cc_vectors_result write_all(batch *all)
{
    const cc_vectors *vectors = all->vectors;
    cc_vectors_result result = CC_VECTORS_OK;
    size_t n = all->n;
    CC_ADD(vectors->table->written, n);
    for (size_t from = 0, to; from < n; from = to) {
        uint32_t number = all->order[from].stripe;
        for (to = from + 1; to < n && to < from + BATCH && all->order[to].stripe == number;)
            to++;
        cc_vectors_result some = write_some(all, from, to);
        if (CC_LIKELY(some == CC_VECTORS_OK))
            continue;
        result = some;
        if (some != CC_VECTORS_BUSY)
            break;
        while (to < n && all->order[to].stripe == number)
            to++;
    }
    return result;
}

static cc_vectors_result write_batch(batch *all, const int64_t *ids)
{
    cc_vectors_result result = CC_VECTORS_MEMORY;
    bool coded = all->rows != NULL && all->vectors->shape.codec != CC_ROWS_PLAIN;
    all->order = in_order(all->vectors, ids, all->n);
    all->coded = coded ? malloc(all->vectors->layout.stored) : NULL;
    if (all->order != NULL && (!coded || all->coded != NULL))
        result = write_all(all);
    free(all->order);
    free(all->coded);
    return result;
}

cc_vectors_result cc_vectors_put(cc_vectors *vectors, const int64_t *ids, size_t n,
                                 const unsigned char *rows, size_t *done)
{
    batch all = {.vectors = vectors, .rows = rows, .n = n};
    cc_moment moment;
    /* Times of expiry would be more than can be counted, once in 497 days, or the clock was set back to
       before the table began: it begins anew. */
    uint64_t ttl = vectors->shape.ttl;
    if (ttl != 0 && cc_vectors_moment(vectors, &moment)
        && (moment.now == 0 || moment.now >= UINT32_MAX - ttl))
        cc_vectors_renew(vectors);
    cc_vectors_result result = write_batch(&all, ids);
    if (result != CC_VECTORS_OK)
        CC_ADD(vectors->table->refused, n - all.done);
    *done = all.done;
    return result;
}

cc_vectors_result cc_vectors_delete(cc_vectors *vectors, const int64_t *ids, size_t n, size_t *removed)
{
    batch all = {.vectors = vectors, .n = n};
    cc_vectors_result result = write_batch(&all, ids);
    *removed = all.done;
    return result;
}
