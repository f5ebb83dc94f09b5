/* cc_table.h — the object table: Python keys and values over the index and the policy.
 *
 * A record's first field is the key, its second the value, both owned references. Sizes and far
 * deadlines live in side arrays that exist only where a cache needs them.
 *
 * Re-entrancy is the rule here: comparing, hashing or releasing an object can run any code, this
 * table's functions included. So every function either runs no Python code, or brings the table to
 * a consistent state first; what leaves the table is handed to the caller in a cc_leavers and
 * released when nothing is half done; and `version` counts structural changes, so that whoever
 * ran Python code can see that what he found is stale, and start over.
 *
 * Thread safety: the GIL. */
#ifndef CC_TABLE_H
#define CC_TABLE_H

#include "cc_keys.h" /* first: it includes Python.h */

#include "cc_clock.h"
#include "cc_index.h"
#include "cc_policy.h"

#define CC_NO_BOUND (UINT64_C(1) << 63) /* bytes, and room for one entry more in the counter */
enum { CC_ENTRY_OVERHEAD = 64 };     /* bytes an entry counts for beyond its key and value */
#define CC_FAR_SECONDS 2147483.0 /* 24.8 days; later deadlines lie in a side array */
#define CC_PASSED 1u             /* an expiry: before the base, and before any `now` */
#define CC_NO_TIME INT64_MIN      /* for a `now` when nothing can expire */

typedef struct {
    cc_index index;
    cc_policy policy;
    uint64_t secret;  /* of cc_key_fold */
    uint64_t version; /* structural changes: insertions, removals, moves */
    uint64_t writes;  /* values put in place of others */
    uint64_t moves;   /* times that entries changed their slots */

    uint64_t misses, inserts, refused;
    uint64_t left[4]; /* entries that left, by cc_reason */
    uint64_t insert_ticks; /* ticks of the policy that were not hits */

    uint64_t maxsize;    /* entries, as asked for; 0: no bound. The policy's limit follows it */
    uint64_t max_bytes;  /* CC_NO_BOUND: none */
    bool sized;          /* bytes are counted: the sizes of the policy's loads */

    PyObject *timer;     /* owned; NULL: the coarse clock */
    int64_t base;        /* ms of the clock at which table time is 0 */
    int64_t latest;      /* ms: the latest reading of `timer` */
    uint32_t hand;       /* the slot whose expiry is looked at next */
    uint64_t expiring;   /* entries with an expiry */
    int64_t *deadlines;  /* ms, of slots whose expiry is too far for a record; 0: it is not */
    size_t deadlines_room;
    int64_t *softs;      /* ms, from when on a look-up of that slot is a miss; 0: not before it expires */
    size_t softs_room;
    bool detailed;       /* on_evict is told more: see cc_leavers_release */
} cc_table;

/* What left the table in one operation, to be released once the table is consistent. */
enum { CC_LEAVERS = 8 };
typedef struct {
    PyObject *key, *value;
    cc_reason reason;
    uint32_t frequency;     /* these three only of a detailed table */
    int64_t soft, deadline; /* ms; INT64_MAX: never */
} cc_leaver;
typedef struct {
    unsigned count;
    cc_leaver at[CC_LEAVERS];
} cc_leavers;

typedef enum {
    CC_FAILED = -1, /* an exception is set, nothing changed */
    CC_ABSENT = 0,
    CC_FOUND = 1,
    CC_AGAIN = 2, /* the leavers are full: release them and call again */
} cc_result;

/* Everything of a table but its memory; maxsize and max_bytes as in the struct. */
void cc_table_init(cc_table *table, uint64_t maxsize, uint64_t max_bytes, bool sized,
                   uint64_t seed);

/* Empties the table and then releases what was in it; entries that were live count as deleted. */
void cc_table_clear(cc_table *table);

/* Gives all memory back; the table is empty and usable. */
void cc_table_free(cc_table *table);

int cc_table_traverse(const cc_table *table, visitproc visit, void *arg);

/* Bytes of memory held beside the struct itself, keys and values. */
size_t cc_table_memory(const cc_table *table);

/* Grow the deadlines, or the soft ones, to the policy's room; false: no memory. */
bool cc_table_fit_deadlines(cc_table *table);
bool cc_table_fit_softs(cc_table *table);

/* Reads the clock, in ms; false: the timer failed. Moves the base when it is 24.8 days old: a time
   that was read before stays good. */
bool cc_table_now(cc_table *table, int64_t *now);

/* The same, or CC_NO_TIME when nothing can expire. */
bool cc_table_now_if_expiring(cc_table *table, int64_t *now);

/* Finds a key without accounting; expired entries are found. The record is good until Python code runs. */
cc_result cc_table_find(cc_table *table, PyObject *key, uint32_t hash, cc_record **record);

/* Finds a key that has not expired, without accounting. The record is good until Python code runs. */
cc_result cc_table_peek(cc_table *table, PyObject *key, int64_t *now, cc_record **record);

/* A look-up: counts a hit or a miss; on a hit *value is a new reference. */
cc_result cc_table_look_up_hashed(cc_table *table, PyObject *key, uint32_t hash, PyObject **value);

/* A key and what is to be set for it. The references are the caller's. */
typedef struct {
    PyObject *key, *value;
    uint64_t size; /* bytes, where the table counts them; else 0 */
    double ttl;    /* seconds; infinity: never expires */
    double soft;   /* seconds until look-ups miss what is there still; 0: ttl; below: always */
    double cost;   /* of computing it, relative to others; 1: like the others */
    uint32_t frequency; /* a new entry's; 0: what the policy knows of its key */
    bool keep;      /* a look-up first: what is there stays, and is returned in `kept` */
    bool missed;    /* that look-up was counted: false at first */
    PyObject *kept; /* a new reference, or NULL */
} cc_item;

/* Sets a key and releases what that pushed out. CC_FOUND: it was there; CC_ABSENT: inserted, or
   refused because of its size. Runs any code before and after, none in between. */
cc_result cc_table_set(cc_table *table, cc_item *item, PyObject *on_evict);

/* Takes a key out: CC_FOUND: it is the only leaver. What has expired is absent, and a leaver too. */
cc_result cc_table_remove(cc_table *table, PyObject *key, cc_leavers *leavers);

/* Calls on_evict(key, value, reason), if there is one, for what was evicted, rejected or expired;
   then drops the references. Runs any code: the table must be consistent. Of a detailed table it is
   on_evict(key, value, reason, frequency, soft, deadline), times in ms of the table's clock. */
void cc_leavers_release(cc_leavers *leavers, PyObject *on_evict);

/* Takes an entry out, live or expired: its references go to the leaver. */
void cc_table_take(cc_table *table, cc_record *record, cc_reason reason, cc_leaver *leaver);

/* Sets new bounds (0: as it is) when what does not fit has been evicted and released. false:
   callbacks fill the table again and again; an exception is set. */
bool cc_table_resize(cc_table *table, uint64_t maxsize, uint64_t max_bytes, PyObject *on_evict);

/* Takes expired entries out of slots *from ... until - 1: CC_FOUND when all are done, or CC_AGAIN.
   When `moves` has changed meanwhile, it must begin again. */
cc_result cc_table_expire(cc_table *table, int64_t now, uint32_t *from, uint32_t until,
                          cc_leavers *leavers);

/* The first live, unexpired entry in slots *slot and up; *slot is set past it. NULL: none. */
cc_record *cc_table_next(cc_table *table, int64_t now, uint32_t *slot);

/* The last such entry of the table; NULL: none. */
cc_record *cc_table_last(cc_table *table, int64_t now);

/* Begins to count bytes, with the sizes of all slots; false: no memory. */
bool cc_table_count_bytes(cc_table *table, const uint64_t *sizes);

/* Sets when an entry expires, in seconds from `now`; infinity: never. false: no memory. */
bool cc_table_set_ttl(cc_table *table, cc_record *record, int64_t now, double ttl);

/* Sets from when on look-ups miss an entry that expires later; 0: not before. There is room for it. */
void cc_table_set_soft(cc_table *table, cc_record *record, int64_t now, double soft);

/* When look-ups begin to miss an entry, and when it expires, in ms; INT64_MAX: never. */
int64_t cc_table_soft(const cc_table *table, const cc_record *record);
int64_t cc_table_deadline(const cc_table *table, const cc_record *record);

/* Seconds until the entry expires; infinity: never. */
double cc_table_ttl(const cc_table *table, const cc_record *record, int64_t now);

/* NULL when the table is consistent, else what is wrong. */
const char *cc_table_fault(const cc_table *table);

CC_INLINE uint64_t cc_table_bytes(const cc_table *table)
{
    return table->sized ? table->policy.load : 0;
}

CC_INLINE uint32_t cc_table_slot(const cc_table *table, const cc_record *record)
{
    return (uint32_t)(record - table->policy.records);
}

CC_INLINE PyObject *cc_record_key(const cc_record *record)
{
    return (PyObject *)(uintptr_t)record->a;
}

CC_INLINE PyObject *cc_record_value(const cc_record *record)
{
    return (PyObject *)(uintptr_t)record->b;
}

/* True when an entry whose record says so has expired indeed; re-arms it when its deadline is too
   far for a record. */
bool cc_table_expired_indeed(cc_table *table, cc_record *record, int64_t now);

CC_INLINE bool cc_table_expired(cc_table *table, cc_record *record, int64_t now)
{
    uint32_t expiry = record->meta.expiry;
    return expiry != 0 && (expiry == CC_PASSED || table->base + expiry <= now)
           && cc_table_expired_indeed(table, record, now);
}

/* True when look-ups miss an entry that has not expired. */
CC_INLINE bool cc_table_stale(const cc_table *table, const cc_record *record, int64_t now)
{
    size_t slot = cc_table_slot(table, record);
    return slot < table->softs_room && table->softs[slot] != 0 && table->softs[slot] <= now;
}

/* True when an entry is surely there for a look-up; no Python code is run to find out. */
CC_INLINE bool cc_table_fresh(const cc_table *table, const cc_record *record)
{
    if (record->meta.expiry == 0)
        return true;
    if (table->timer != NULL)
        return false;
    int64_t now = cc_clock_ms();
    return now - table->base < (int64_t)record->meta.expiry && !cc_table_stale(table, record, now);
}

CC_INLINE uint32_t cc_table_frequency(const cc_table *table, const cc_record *record)
{
    return cc_policy_frequency(&table->policy, cc_table_slot(table, record));
}

CC_INLINE double cc_table_cost(const cc_table *table, const cc_record *record)
{
    const cc_load *loads = table->policy.loads;
    return loads == NULL ? 1.0 : (double)loads[cc_table_slot(table, record)].cost;
}

/* How a record compares with what is looked for; must not run Python code. */
typedef cc_equality (*cc_comparison)(const cc_record *record, uint32_t hash, const void *wanted);

/* Walks the index for what is wanted without running Python code. CC_AGAIN: only Python can tell. */
CC_INLINE cc_result cc_table_walk(const cc_table *table, uint32_t hash, cc_comparison compare,
                                  const void *wanted, cc_record **found)
{
    const cc_index *index = &table->index;
    unsigned tag = cc_index_tag(hash);
    uint32_t at = cc_index_home(index, hash), walked = 0;
    for (;;) {
        const cc_chunk *chunk = &index->chunks[at];
        cc_matches matches = cc_chunk_match(chunk, tag);
        while (CC_LIKELY(matches != 0)) {
            cc_record *record = &table->policy.records[chunk->slot[cc_matches_first(matches)]];
            cc_equality equality = compare(record, hash, wanted);
            if (CC_LIKELY(equality == CC_EQUAL)) {
                *found = record;
                return CC_FOUND;
            }
            if (equality == CC_ASK_PYTHON)
                return CC_AGAIN;
            matches &= matches - 1;
        }
        if (CC_LIKELY(chunk->overflow == 0) || ++walked > index->mask)
            return CC_ABSENT;
        at = cc_index_next(index, at, tag);
    }
}

CC_INLINE cc_equality cc_record_compare(const cc_record *record, uint32_t hash, const void *key)
{
    if (CC_LIKELY(cc_record_key(record) == key))
        return CC_EQUAL;
    return record->meta.hash == hash ? cc_key_equal(cc_record_key(record), (PyObject *)key)
                                     : CC_DIFFERENT;
}

/* The same for a key. */
CC_INLINE cc_result cc_table_probe(const cc_table *table, PyObject *key, uint32_t hash,
                                   cc_record **found)
{
    return cc_table_walk(table, hash, cc_record_compare, key, found);
}

/* A look-up: counts a hit or a miss; on a hit *value is a new reference. */
CC_INLINE cc_result cc_table_look_up(cc_table *table, PyObject *key, PyObject **value)
{
    uint32_t hash;
    if (CC_UNLIKELY(!cc_key_hash(key, table->secret, &hash)))
        return CC_FAILED;
    return cc_table_look_up_hashed(table, key, hash, value);
}

#endif
