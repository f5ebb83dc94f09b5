/* cc_table.c — see cc_table.h. */
#include "cc_table.h"

#include "cc_pages.h"

#include <math.h>

enum {
    HAND_STEPS = 2,         /* slots whose expiry an insertion looks at, beside its victims */
    RESTARTS = 10000,       /* look-ups begun again because a comparison changed the table */
    MOST_ENTRIES = INT32_MAX, /* what slot numbers can tell apart, with room to spare */
    COMPACT_FROM = 64,      /* slots; compaction is for tables that were far larger once */
};

static uint32_t limit_of(uint64_t maxsize)
{
    return maxsize == 0 ? CC_NO_LIMIT : maxsize < MOST_ENTRIES ? (uint32_t)maxsize : MOST_ENTRIES;
}

void cc_table_init(cc_table *table, uint64_t maxsize, uint64_t max_bytes, bool sized, uint64_t seed)
{
    memset(table, 0, sizeof *table);
    cc_index_init(&table->index);
    cc_policy_init(&table->policy, limit_of(maxsize), seed);
    table->secret = cc_mix64(seed, 0xD6E8FEB86659FD93ull);
    table->maxsize = maxsize;
    table->max_bytes = max_bytes;
    table->sized = table->policy.loaded = sized;
    table->policy.by_size = sized && max_bytes != CC_NO_BOUND;
    table->base = INT64_MIN;
    table->latest = INT64_MIN;
}

static size_t deadlines_size(const cc_table *table)
{
    return table->deadlines_room * sizeof *table->deadlines;
}

static size_t softs_size(const cc_table *table)
{
    return table->softs_room * sizeof *table->softs;
}

size_t cc_table_memory(const cc_table *table)
{
    size_t chunks = table->index.room ? ((size_t)table->index.mask + 1) * sizeof(cc_chunk) : 0;
    return chunks + cc_policy_size(&table->policy) + deadlines_size(table) + softs_size(table);
}

void cc_table_clear(cc_table *table)
{
    cc_policy old;
    cc_index old_index = table->index;
    cc_policy_renew(&table->policy, &old);
    cc_index_init(&table->index);
    cc_pages_free(table->deadlines, deadlines_size(table));
    cc_pages_free(table->softs, softs_size(table));
    table->deadlines = table->softs = NULL;
    table->deadlines_room = table->softs_room = 0;
    table->left[CC_DELETED] += old.live;
    table->expiring = 0;
    table->hand = 0;
    table->version++;
    table->moves++;
    /* The table is consistent and empty: from here on any code may run. */
    for (uint32_t slot = 0; slot < old.used; slot++) {
        cc_record *record = &old.records[slot];
        if (!cc_record_live(record))
            continue;
        Py_DECREF(cc_record_key(record));
        Py_DECREF(cc_record_value(record));
    }
    cc_policy_free(&old);
    cc_index_free(&old_index);
}

void cc_table_free(cc_table *table)
{
    cc_table_clear(table);
    cc_policy_free(&table->policy);
    Py_CLEAR(table->timer);
}

int cc_table_traverse(const cc_table *table, visitproc visit, void *arg)
{
    Py_VISIT(table->timer);
    for (uint32_t slot = 0; slot < table->policy.used; slot++) {
        const cc_record *record = &table->policy.records[slot];
        if (!cc_record_live(record))
            continue;
        Py_VISIT(cc_record_key(record));
        Py_VISIT(cc_record_value(record));
    }
    return 0;
}

static PyObject *call_on_evict(PyObject *on_evict, const cc_leaver *leaver, const char *reason)
{
    if (leaver->deadline == 0) /* of a table that is not detailed */
        return PyObject_CallFunction(on_evict, "OOs", leaver->key, leaver->value, reason);
    return PyObject_CallFunction(on_evict, "OOsILL", leaver->key, leaver->value, reason,
                                 (unsigned)leaver->frequency, (long long)leaver->soft,
                                 (long long)leaver->deadline);
}

void cc_leavers_release(cc_leavers *leavers, PyObject *on_evict)
{
    static const char *const reasons[] = {"evicted", "rejected", "expired", NULL};
    for (unsigned i = 0; on_evict != NULL && i < leavers->count; i++) {
        cc_leaver *leaver = &leavers->at[i];
        if (reasons[leaver->reason] == NULL)
            continue;
        PyObject *result = call_on_evict(on_evict, leaver, reasons[leaver->reason]);
        if (result == NULL)
            PyErr_WriteUnraisable(on_evict);
        Py_XDECREF(result);
    }
    for (unsigned i = 0; i < leavers->count; i++) { /* not before: this may run anything */
        Py_XDECREF(leavers->at[i].key);
        Py_DECREF(leavers->at[i].value);
    }
    leavers->count = 0;
}

/* --- finding -------------------------------------------------------------------------------- */

/* One walk that asks Python where it must. CC_AGAIN: the table changed under a comparison. */
static cc_result walk(cc_table *table, PyObject *key, uint32_t hash, cc_record **found)
{
    const cc_index *index = &table->index;
    uint64_t version = table->version;
    unsigned tag = cc_index_tag(hash);
    uint32_t at = cc_index_home(index, hash);
    for (uint32_t walked = 0; walked <= index->mask; walked++) {
        const cc_chunk *chunk = &index->chunks[at];
        cc_matches matches = cc_chunk_match(chunk, tag);
        for (; matches != 0; matches &= matches - 1) {
            cc_record *record = &table->policy.records[chunk->slot[cc_matches_first(matches)]];
            PyObject *other = cc_record_key(record);
            int equal = other == key;
            if (!equal && record->meta.hash == hash) {
                Py_INCREF(other);
                equal = PyObject_RichCompareBool(other, key, Py_EQ);
                Py_DECREF(other);
                if (equal < 0)
                    return CC_FAILED;
                if (table->version != version)
                    return CC_AGAIN;
            }
            if (equal) {
                *found = record;
                return CC_FOUND;
            }
        }
        if (chunk->overflow == 0)
            break;
        at = cc_index_next(index, at, tag);
    }
    return CC_ABSENT;
}

cc_result cc_table_find(cc_table *table, PyObject *key, uint32_t hash, cc_record **record)
{
    cc_result result = cc_table_probe(table, key, hash, record);
    for (unsigned begun = 0; result == CC_AGAIN && begun < RESTARTS; begun++)
        result = walk(table, key, hash, record);
    if (result != CC_AGAIN)
        return result;
    PyErr_SetString(PyExc_RuntimeError, "the cache keeps changing while its keys are compared");
    return CC_FAILED;
}

/* A look-up where a comparison or the timer runs Python code, or the entry may have expired. */
static CC_NOINLINE cc_result look_up_slowly(cc_table *table, PyObject *key, uint32_t hash,
                                            PyObject **value)
{
    int64_t now;
    cc_record *record;
    if (!cc_table_now_if_expiring(table, &now))
        return CC_FAILED;
    cc_result result = cc_table_find(table, key, hash, &record);
    if (result == CC_FOUND && !cc_table_expired(table, record, now)
        && !cc_table_stale(table, record, now)) {
        *value = Py_NewRef(cc_record_value(record));
        cc_policy_hit(&table->policy, &record->meta);
        return CC_FOUND;
    }
    if (result == CC_FAILED)
        return CC_FAILED;
    table->misses++;
    return CC_ABSENT;
}

cc_result cc_table_look_up_hashed(cc_table *table, PyObject *key, uint32_t hash, PyObject **value)
{
    cc_record *record;
    cc_result result = cc_table_probe(table, key, hash, &record);
    if (CC_LIKELY(result == CC_FOUND && cc_table_fresh(table, record))) {
        *value = Py_NewRef(cc_record_value(record));
        cc_policy_hit(&table->policy, &record->meta);
        return CC_FOUND;
    }
    if (CC_LIKELY(result == CC_ABSENT)) {
        table->misses++;
        return CC_ABSENT;
    }
    return look_up_slowly(table, key, hash, value);
}

cc_result cc_table_peek(cc_table *table, PyObject *key, int64_t *now, cc_record **record)
{
    uint32_t hash;
    if (!cc_table_now_if_expiring(table, now) || !cc_key_hash(key, table->secret, &hash))
        return CC_FAILED;
    cc_result result = cc_table_find(table, key, hash, record);
    if (result == CC_FOUND && cc_table_expired(table, *record, *now))
        return CC_ABSENT;
    return result;
}

cc_record *cc_table_next(cc_table *table, int64_t now, uint32_t *slot)
{
    while (*slot < table->policy.used) {
        cc_record *record = &table->policy.records[(*slot)++];
        if (cc_record_live(record)
            && (now == CC_NO_TIME || !cc_table_expired(table, record, now)))
            return record;
    }
    return NULL;
}

cc_record *cc_table_last(cc_table *table, int64_t now)
{
    bool lower = true; /* while nothing live was met: draining a table takes one walk in all */
    for (uint32_t slot = table->policy.top; slot-- > 0;) {
        cc_record *record = &table->policy.records[slot];
        bool live = cc_record_live(record);
        if (live && !cc_table_expired(table, record, now))
            return record;
        lower = lower && !live;
        if (lower)
            table->policy.top = slot;
    }
    return NULL;
}

bool cc_table_count_bytes(cc_table *table, const uint64_t *sizes)
{
    cc_policy *policy = &table->policy;
    if (!cc_policy_keep_loads(policy, true))
        return false;
    table->sized = true;
    for (uint32_t slot = 0; slot < policy->used; slot++)
        if (cc_record_live(&policy->records[slot]))
            cc_policy_set_load(policy, slot, sizes[slot], policy->loads[slot].cost);
    return true;
}

/* --- entering and leaving ------------------------------------------------------------------- */

void cc_table_take(cc_table *table, cc_record *record, cc_reason reason, cc_leaver *leaver)
{
    uint32_t slot = cc_table_slot(table, record);
    leaver->key = cc_record_key(record);
    leaver->value = cc_record_value(record);
    leaver->reason = reason;
    leaver->deadline = 0;
    if (CC_UNLIKELY(table->detailed)) {
        leaver->frequency = cc_table_frequency(table, record);
        leaver->soft = cc_table_soft(table, record);
        leaver->deadline = cc_table_deadline(table, record);
    }
    bool indexed = cc_index_remove(&table->index, record->meta.hash, slot);
    CC_ASSERT(indexed);
    (void)indexed;
    table->expiring -= record->meta.expiry != 0;
    if (slot < table->deadlines_room)
        table->deadlines[slot] = 0;
    if (slot < table->softs_room)
        table->softs[slot] = 0;
    cc_policy_remove(&table->policy, slot, reason);
    table->version++;
    table->left[reason]++;
}

/* Brings the entries together when three quarters of the slots stand empty, lest sampling them
   find nothing. Without memory for it the table stays as it is. */
static CC_COLD void compact(cc_table *table)
{
    uint32_t used = table->policy.used;
    uint32_t *moved = PyMem_RawMalloc(used * sizeof *moved);
    cc_index fresh = table->index;
    if (moved == NULL || !cc_index_alloc(&fresh, table->policy.live + 1)) {
        PyMem_RawFree(moved);
        return;
    }
    cc_policy_compact(&table->policy, moved);
    for (uint32_t slot = 0; slot < used; slot++) {
        uint32_t to = moved[slot];
        if (to == CC_NO_SLOT)
            continue;
        cc_index_add(&fresh, table->policy.records[to].meta.hash, to);
        if (to < table->deadlines_room)
            table->deadlines[to] = slot < table->deadlines_room ? table->deadlines[slot] : 0;
        if (to < table->softs_room)
            table->softs[to] = slot < table->softs_room ? table->softs[slot] : 0;
    }
    for (size_t slot = table->policy.used; slot < table->deadlines_room; slot++)
        table->deadlines[slot] = 0;
    for (size_t slot = table->policy.used; slot < table->softs_room; slot++)
        table->softs[slot] = 0;
    cc_index_free(&table->index);
    table->index = fresh;
    table->hand = 0;
    table->version++;
    table->moves++;
    PyMem_RawFree(moved);
}

/* Evicts until one more entry and `size` more bytes fit; never the entry in slot `spare`. */
static cc_result make_room(cc_table *table, uint32_t entries, uint64_t size, int64_t now,
                           uint32_t spare, cc_leavers *leavers)
{
    cc_policy *policy = &table->policy;
    uint32_t policy_now = now > table->base ? (uint32_t)(now - table->base) : CC_PASSED;
    while (policy->live > policy->limit - entries
           || cc_table_bytes(table) + size > table->max_bytes) {
        cc_reason reason;
        if (leavers->count == CC_LEAVERS)
            return CC_AGAIN;
        uint32_t slot = cc_policy_victim(policy, policy_now, &reason);
        bool spared = slot == spare && slot != CC_NO_SLOT;
        if (spared)
            slot = cc_policy_bystander(policy, spare);
        if (slot == CC_NO_SLOT)
            break;
        cc_record *record = &policy->records[slot];
        if (spared)
            reason = cc_table_expired(table, record, now) ? CC_EXPIRED : CC_EVICTED;
        if (reason == CC_EXPIRED && !cc_table_expired_indeed(table, record, now))
            continue;
        cc_table_take(table, record, reason, &leavers->at[leavers->count++]);
    }
    return CC_FOUND;
}

/* One round of it. CC_AGAIN: the leavers are full, and halfway bounds hold, for whoever looks in
   between, and lest what a callback puts back undo what was done. */
static cc_result resize(cc_table *table, uint64_t maxsize, uint64_t max_bytes, int64_t now,
                        cc_leavers *leavers)
{
    uint32_t old_limit = table->policy.limit, limit = maxsize ? limit_of(maxsize) : old_limit;
    uint64_t old_max_bytes = table->max_bytes, budget = max_bytes ? max_bytes : old_max_bytes;
    table->policy.limit = limit;
    table->max_bytes = budget;
    cc_result result = make_room(table, 0, 0, now, CC_NO_SLOT, leavers);
    if (result == CC_AGAIN) {
        uint32_t entries = table->policy.live > limit ? table->policy.live : limit;
        uint64_t bytes = cc_table_bytes(table) > budget ? cc_table_bytes(table) : budget;
        table->policy.limit = entries < old_limit ? entries : old_limit;
        table->max_bytes = bytes < old_max_bytes ? bytes : old_max_bytes;
    } else if (maxsize) {
        table->maxsize = maxsize;
    }
    return result;
}

bool cc_table_resize(cc_table *table, uint64_t maxsize, uint64_t max_bytes, PyObject *on_evict)
{
    int64_t now;
    cc_leavers leavers;
    cc_result result;
    uint64_t rounds = 0, most = table->policy.live + RESTARTS;
    leavers.count = 0;
    if (!cc_table_now_if_expiring(table, &now))
        return false;
    if (max_bytes && !table->policy.by_size && !cc_policy_keep_loads(&table->policy, true)) {
        PyErr_NoMemory();
        return false;
    }
    do {
        result = resize(table, maxsize, max_bytes, now, &leavers);
        cc_leavers_release(&leavers, on_evict);
    } while (result == CC_AGAIN && rounds++ < most);
    if (result != CC_AGAIN)
        return true;
    table->policy.limit = limit_of(table->maxsize); /* at least what it was halfway */
    PyErr_SetString(PyExc_RuntimeError, "the cache is filled again while it is resized");
    return false;
}

/* Looks at the next few slots for what has expired. */
static void move_hand(cc_table *table, int64_t now, cc_leavers *leavers)
{
    for (unsigned step = 0; step < HAND_STEPS && leavers->count < CC_LEAVERS; step++) {
        if (table->hand >= table->policy.used)
            table->hand = 0;
        cc_record *record = &table->policy.records[table->hand++];
        if (cc_record_live(record) && cc_table_expired(table, record, now))
            cc_table_take(table, record, CC_EXPIRED, &leavers->at[leavers->count++]);
    }
}

CC_INLINE bool is_far(const cc_item *item)
{
    return item->ttl >= CC_FAR_SECONDS && isfinite(item->ttl);
}

/* Room in the side arrays that the item's lifetimes need; false: no memory. */
static bool has_deadlines(cc_table *table, const cc_item *item)
{
    return (!is_far(item) || cc_table_fit_deadlines(table))
           && (item->soft == 0 || cc_table_fit_softs(table));
}

/* Memory for one more entry, so that nothing can fail later; false: none, nothing changed. */
static bool reserve(cc_table *table, const cc_item *item)
{
    if (!cc_policy_reserve(&table->policy))
        return false;
    if (!has_deadlines(table, item))
        return false;
    if (CC_LIKELY(!cc_index_full(&table->index)))
        return true;
    if (!cc_policy_reindex(&table->policy, &table->index, table->index.entries + 1))
        return false;
    table->version++;
    return true;
}

static cc_result overwrite(cc_table *table, cc_record *record, const cc_item *item, int64_t now,
                           cc_leavers *leavers)
{
    uint32_t slot = cc_table_slot(table, record);
    if (!has_deadlines(table, item)) {
        PyErr_NoMemory();
        return CC_FAILED;
    }
    uint64_t more = table->sized && item->size > table->policy.loads[slot].size
                        ? item->size - table->policy.loads[slot].size
                        : 0;
    if (more > 0 && make_room(table, 0, more, now, slot, leavers) == CC_AGAIN)
        return CC_AGAIN;
    if (leavers->count == CC_LEAVERS)
        return CC_AGAIN;
    cc_table_set_ttl(table, record, now, item->ttl); /* there is memory for it */
    cc_table_set_soft(table, record, now, item->soft);
    cc_policy_set_load(&table->policy, slot, item->size, item->cost);
    cc_leaver *leaver = &leavers->at[leavers->count++];
    leaver->key = NULL;
    leaver->value = cc_record_value(record);
    leaver->reason = CC_DELETED; /* nobody is told */
    record->b = (uintptr_t)Py_NewRef(item->value);
    table->writes++;
    return CC_FOUND;
}

/* Fetches what the insertions to come will need: a full table's next leavers are known. */
CC_INLINE void prepare(cc_table *table)
{
    uint32_t leavers[2];
    if (!cc_policy_prepare(&table->policy, leavers))
        return;
    for (unsigned i = 0; i < 2; i++) {
        const cc_record *record = &table->policy.records[leavers[i]];
        CC_PREFETCH_WRITE(&table->index.chunks[cc_index_home(&table->index, record->meta.hash)]);
        CC_PREFETCH_WRITE(cc_record_key(record));
        CC_PREFETCH_WRITE(cc_record_value(record));
    }
}

static cc_result set(cc_table *table, cc_item *item, uint32_t hash, cc_leavers *leavers)
{
    int64_t now;
    cc_record *record;
    bool lasting = isinf(item->ttl);
    if (!(lasting ? cc_table_now_if_expiring(table, &now) : cc_table_now(table, &now)))
        return CC_FAILED;
    cc_result result = cc_table_find(table, item->key, hash, &record);
    if (CC_UNLIKELY(result == CC_FAILED))
        return CC_FAILED;
    /* No Python code runs from here to the end. */
    if (leavers->count == CC_LEAVERS)
        return CC_AGAIN;
    if (result == CC_FOUND && cc_table_expired(table, record, now)) {
        cc_table_take(table, record, CC_EXPIRED, &leavers->at[leavers->count++]);
        result = CC_ABSENT;
    }
    if (item->keep && result == CC_FOUND) {
        if (!item->missed)
            cc_policy_hit(&table->policy, &record->meta);
        item->kept = Py_NewRef(cc_record_value(record));
        return CC_FOUND;
    }
    if (item->keep && !item->missed) {
        item->missed = true; /* once, however often this begins again */
        table->misses++;
    }
    if (table->sized && CC_UNLIKELY(item->size > table->max_bytes)) {
        if (result == CC_FOUND)
            cc_table_take(table, record, CC_DELETED, &leavers->at[leavers->count++]);
        table->refused++;
        return CC_ABSENT;
    }
    if (CC_UNLIKELY(item->cost != 1.0 && !table->policy.loaded)
        && !cc_policy_keep_loads(&table->policy, false)) {
        PyErr_NoMemory();
        return CC_FAILED;
    }
    if (result == CC_FOUND)
        return overwrite(table, record, item, now, leavers);

    if (CC_UNLIKELY(!reserve(table, item))) {
        PyErr_NoMemory();
        return CC_FAILED;
    }
    if (CC_UNLIKELY(table->policy.used > COMPACT_FROM
                    && table->policy.live < table->policy.used / 4))
        compact(table);
    if (table->expiring != 0)
        move_hand(table, now, leavers);
    if (make_room(table, 1, item->size, now, CC_NO_SLOT, leavers) == CC_AGAIN)
        return CC_AGAIN;
    uint32_t slot = cc_policy_insert(&table->policy, hash, item->size, item->cost);
    cc_index_add(&table->index, hash, slot);
    record = &table->policy.records[slot];
    record->a = (uintptr_t)Py_NewRef(item->key);
    record->b = (uintptr_t)Py_NewRef(item->value);
    if (!lasting) {
        cc_table_set_ttl(table, record, now, item->ttl); /* reserve() saw to its memory */
        cc_table_set_soft(table, record, now, item->soft);
    }
    if (CC_UNLIKELY(item->frequency != 0))
        cc_policy_set_frequency(&table->policy, slot, item->frequency);
    table->version++;
    table->inserts++;
    table->insert_ticks++;
    if (table->policy.live == table->policy.capacity)
        prepare(table);
    return CC_ABSENT;
}

/* Releases what a set pushed out, an exception or not. */
static CC_NOINLINE void release(cc_leavers *leavers, PyObject *on_evict, bool failed)
{
    PyObject *type, *error, *trace;
    if (failed)
        PyErr_Fetch(&type, &error, &trace);
    cc_leavers_release(leavers, on_evict);
    if (failed)
        PyErr_Restore(type, error, trace);
}

cc_result cc_table_set(cc_table *table, cc_item *item, PyObject *on_evict)
{
    uint32_t hash;
    cc_leavers leavers;
    cc_result result;
    uint64_t rounds = 0, most = table->policy.live + RESTARTS;
    leavers.count = 0;
    if (!cc_key_hash(item->key, table->secret, &hash))
        return CC_FAILED;
    do {
        result = set(table, item, hash, &leavers);
        if (leavers.count != 0)
            release(&leavers, on_evict, result == CC_FAILED);
    } while (result == CC_AGAIN && rounds++ < most);
    if (CC_LIKELY(result != CC_AGAIN))
        return result;
    PyErr_SetString(PyExc_RuntimeError, "the cache is filled again while room is made in it");
    return CC_FAILED;
}

cc_result cc_table_remove(cc_table *table, PyObject *key, cc_leavers *leavers)
{
    uint32_t hash;
    int64_t now;
    cc_record *record;
    if (!cc_table_now_if_expiring(table, &now) || !cc_key_hash(key, table->secret, &hash))
        return CC_FAILED;
    cc_result result = cc_table_find(table, key, hash, &record);
    if (result != CC_FOUND)
        return result;
    bool expired = cc_table_expired(table, record, now);
    cc_table_take(table, record, expired ? CC_EXPIRED : CC_DELETED, &leavers->at[leavers->count++]);
    return expired ? CC_ABSENT : CC_FOUND;
}
