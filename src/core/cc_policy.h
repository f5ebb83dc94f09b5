/* cc_policy.h — the policy: entry metadata, score, window, victim choice, admission.
 *
 * It owns the records of a cache, knows them by slot number, and works on their metadata alone: the object
 * table, the vector cache and the simulator run this same code. A record is half a cache line:
 *
 *     byte 0          8          16     20     24                                    28       32
 *          | owner's 8 | owner's 8 | hash | tick | count 16 | epoch 8 | state 8 |      | expiry |
 *
 * The recipe, with what was measured for each part, is in src/README.md. In short:
 *  - A hit adds one to a saturating count and stores the access counter (the tick). Nothing else.
 *  - A new entry starts from what the sketch remembers of its key, and enters the window, a queue.
 *  - An entry at the window's end goes back to the start if it was hit while it queued. Otherwise
 *    it moves to the main region if that has room, or contests a victim there and must be
 *    strictly more frequent.
 *  - A victim has the lowest frequency / ln(age + e)^p among a few random main entries (p = 3),
 *    age in accesses; times cost / size^(3/4) where entries differ in those. The weakest two seen
 *    stay the challengers' opponents while they are resident.
 *  - An entry that leaves raises its counters in the sketch and its hash becomes a ghost. Ghosts
 *    that come back move the border between window and main, the more the later they left.
 *  - Counts halve every 60 x capacity accesses, lazily, by epoch.
 *  - When the popular set is replaced at once (cc_watch.h), main entries that nobody has asked for
 *    since count for nothing.
 *
 * Every operation is O(1), most of them amortised: a requeue is paid for by the hit before it, and
 * at most 16 happen in one operation. Not thread safe: one lock, or the GIL, around it.
 *
 * Sources: frequency over age: Blankstein et al., "Hyperbolic caching", 2017; window and contest:
 * Einziger et al., "TinyLFU", 2017; ghosts that steer: Megiddo & Modha, "ARC", 2003; lazy
 * promotion: Yang et al., "FIFO queues are all you need", 2023. */
#ifndef CC_POLICY_H
#define CC_POLICY_H

#include "cc_base.h"
#include "cc_ghosts.h"
#include "cc_index.h"
#include "cc_sketch.h"
#include "cc_watch.h"

/* `use`, from the low bits: whether there was a hit in the window and a count of 15 bits, 16 bits that
   every hit writes; the low byte of the count's epoch; the slot's state, which only the policy writes.
   Readers without the lock write `heat` and `since` alone. */
typedef struct {
    uint32_t hash;
    uint32_t tick; /* access counter at the last access, modulo 2^32 */
    union {
        uint32_t use;
        struct {
            uint16_t heat;
            uint8_t since;
            uint8_t state;
        };
    };
    uint32_t expiry; /* owner's time, in ms; 0: never */
} cc_meta;

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the parts of `use` are laid out for little-endian machines"
#endif

typedef struct {
    uint64_t a; /* the owner's: a key, an id; the free list's link while the slot is free */
    uint64_t b;
    cc_meta meta;
} cc_record;

static_assert(sizeof(cc_record) == 32, "two records a line, none across two");

/* What an entry weighs, for policies that are told. */
typedef struct {
    uint64_t size;
    float cost;  /* of computing the entry, relative to others */
    float worth; /* cost, or cost / size^(3/4) where the bound is one of size */
} cc_load;

/* A cost within what keeps every score a positive number. */
CC_INLINE double cc_cost_within(double cost)
{
    return cost < 1e-9 ? 1e-9 : cost < 1e9 ? cost : 1e9;
}

/* States of a slot. A deleted window entry stays DEAD until its place in the queue comes up: a new
   entry in its slot would inherit that place. */
enum { CC_FREE, CC_WINDOW, CC_MAIN, CC_DEAD };
enum { CC_VISITED = 1, CC_USE_COUNT_SHIFT = 1, CC_USE_EPOCH_SHIFT = 16, CC_USE_STATE_SHIFT = 24 };
enum { CC_COUNT_MAX = 0x7FFF };

typedef enum { CC_EVICTED, CC_REJECTED, CC_EXPIRED, CC_DELETED } cc_reason;

#define CC_NO_SLOT UINT32_MAX
#define CC_NO_LIMIT UINT32_MAX
enum { CC_DRAWS = 6 }; /* lines of records drawn for the next contest at most */

typedef struct {
    cc_record *records;
    uint64_t tick;  /* accesses so far: hits and insertions */
    uint32_t epoch; /* of counts; only the low byte is stored in them */
    uint32_t used;  /* slots ever used: those below hold a state */
    uint32_t top;   /* no slot from here on is live: where popitem begins to look */
    uint32_t live;  /* entries: window + main */
    uint32_t limit; /* most entries; CC_NO_LIMIT: no bound of their number */
    uint32_t room;  /* slots allocated */
    uint32_t free;  /* first free slot, linked through `a` */
    uint64_t next_epoch; /* the tick that ends this epoch ... */
    uint32_t paced;      /* ... and the capacity that says so */
    uint64_t replaced;   /* the tick at which the popular set was last replaced; 0: never */
    cc_watch watch;

    union { /* slots of the window, oldest at `tail`; indices modulo ring_room */
        uint32_t *ring;
        uint16_t *ring_16; /* of a placed policy */
    };
    uint32_t ring_room;  /* a power of two, or 0 */
    uint32_t head, tail; /* free-running */
    uint32_t window;     /* live entries in the ring; the others are DEAD */
    uint32_t dead;
    uint32_t share;    /* the window's part of the capacity, in units of 2^-32 */
    cc_load *loads;         /* of each slot; NULL: every entry has size 1 and cost 1 */
    uint32_t loads_room;    /* slots */
    bool loaded;            /* loads are kept, once there are records */
    bool by_size;           /* window and ghosts are measured by size */
    uint64_t load;          /* sum of sizes: window + main ... */
    uint64_t window_load;   /* ... and the window alone */
    uint64_t capacity_load; /* what fits, as last seen under pressure */
    double mean_cost;       /* of what was inserted lately */

    uint32_t capacity; /* entries that fit, as last seen under pressure */
    uint32_t fitted;   /* capacity the ghosts and the sketch were made for */
    uint64_t sketch_bytes; /* of counters, set by the owner; 0: they follow the capacity */

    uint32_t opponents[2]; /* the weakest met so far: they count while they are in main */
    uint32_t drawn;        /* lines that are drawn already, and being fetched */
    uint32_t draws[CC_DRAWS];
    uint64_t random;
    cc_ghosts ghosts;
    cc_sketch sketch;
    bool placed; /* in memory that the owner supplies: nothing grows */
} cc_policy;

/* The memory of a placed policy. */
typedef struct {
    cc_record *records;
    uint16_t *ring;
    uint32_t *ghosts;
    uint8_t *counters; /* of the sketch ... */
    uint8_t *epochs;   /* ... and of its lines */
} cc_policy_memory;

/* An empty policy for at most `limit` entries. Takes no memory. The owner may then set `loaded`,
   `by_size` and `sketch_bytes`. */
void cc_policy_init(cc_policy *policy, uint32_t limit, uint64_t seed);

/* An empty policy for at most `limit` entries, below 64,000, in memory that its owner supplies, zero,
   before anything else is done with it: room, ring_room, ghosts.lines and sketch.lines say how much.
   sketch_bytes: of the sketch's counters. */
void cc_policy_shape(cc_policy *policy, uint32_t limit, uint64_t sketch_bytes, uint64_t seed);

/* Tells a placed policy where its memory is, in this process. */
void cc_policy_place(cc_policy *policy, const cc_policy_memory *memory);

/* Gives a placed policy that was just shaped what an older one had learned, within what can be true. */
void cc_policy_inherit(cc_policy *policy, const cc_policy *old);

/* Makes a placed policy agree with its records, whatever an operation that was cut short left behind:
   those that `live` says are live stay. What is not in the records is lost: the window's order. */
void cc_policy_rebuild(cc_policy *policy, bool (*live)(void *owner, uint32_t slot), void *owner);

void cc_policy_free(cc_policy *policy);

/* Leaves an empty policy of the same limit and clock, its memory and records handed to *old, which
   the caller frees when it has taken what it owns out of the records. */
void cc_policy_renew(cc_policy *policy, cc_policy *old);

/* Bytes held: records, queue, loads, ghosts, sketch. */
size_t cc_policy_size(const cc_policy *policy);

/* Makes sure that one more entry can be inserted without memory; false: none to be had. */
bool cc_policy_reserve(cc_policy *policy);

/* Inserts an entry for a key of this hash, without expiry; its owner's fields are his to fill. Cannot
   fail after cc_policy_reserve. Size and cost count where loads are kept. */
uint32_t cc_policy_insert(cc_policy *policy, uint32_t hash, uint64_t size, double cost);

/* Begins to keep loads: entries that are here count as of size 0 until told. by_size: the bound is one
   of size. Also to change that later. false: no memory, unchanged. */
bool cc_policy_keep_loads(cc_policy *policy, bool by_size);

/* Changes what an entry weighs; nothing where loads are not kept. */
void cc_policy_set_load(cc_policy *policy, uint32_t slot, uint64_t size, double cost);

/* Bytes that loads take; makes room for the records' number of them (false: no memory); frees them. */
size_t cc_loads_size(const cc_policy *policy);
bool cc_loads_grow(cc_policy *policy);
void cc_loads_free(cc_policy *policy);

/* Sets the entry's frequency, for one that is known from elsewhere. */
void cc_policy_set_frequency(cc_policy *policy, uint32_t slot, uint32_t frequency);

/* The slot that must leave next to make room, and why; CC_NO_SLOT: there is no entry. `now` is
   the owner's time: what has expired goes first when it is met. The caller removes it. */
uint32_t cc_policy_victim(cc_policy *policy, uint32_t now, cc_reason *reason);

/* Some entry other than `spare`, for the case that the victim must stay; CC_NO_SLOT: none. */
uint32_t cc_policy_bystander(cc_policy *policy, uint32_t spare);

/* Takes an entry out. */
void cc_policy_remove(cc_policy *policy, uint32_t slot, cc_reason reason);

/* Touches the lines that an insertion of this hash will need: a miss is often followed by one. */
CC_INLINE void cc_policy_expect(const cc_policy *policy, uint32_t hash)
{
    cc_sketch_prefetch(&policy->sketch, hash);
    cc_ghosts_prefetch(&policy->ghosts, hash);
}

/* Touches the lines that the next few calls of cc_policy_victim will need; leavers: two slots that may
   leave soon, for the owner to do the same. false: there is no telling. */
bool cc_policy_prepare(cc_policy *policy, uint32_t leavers[2]);

/* The same where the next one, `leaver`, is known and still here: for those after it. *leavers: who may
   come then, for the owner to touch all that they need. */
bool cc_policy_prepare_next(cc_policy *policy, uint32_t leaver, uint32_t leavers[2]);

/* Moves the entries to the lowest slots: moved[old slot] is the new one, or CC_NO_SLOT; the caller
   supplies `used` places and then adopts the new numbers. */
void cc_policy_compact(cc_policy *policy, uint32_t *moved);

/* The entry's frequency: its count, aged to now. */
uint32_t cc_policy_frequency(const cc_policy *policy, uint32_t slot);

/* True when every count and queue agrees with the records. */
bool cc_policy_valid(const cc_policy *policy);

CC_INLINE unsigned cc_meta_state(const cc_meta *meta)
{
    return CC_GET(meta->use) >> CC_USE_STATE_SHIFT;
}

CC_INLINE bool cc_record_live(const cc_record *record)
{
    unsigned state = cc_meta_state(&record->meta);
    return state == CC_WINDOW || state == CC_MAIN;
}

/* Takes an entry that is about to leave out of the sums, and leaves its size 0. */
CC_INLINE void cc_loads_take(cc_policy *policy, uint32_t slot)
{
    if (CC_LIKELY(policy->loads == NULL))
        return;
    cc_load *load = &policy->loads[slot];
    policy->load -= load->size;
    if (cc_meta_state(&policy->records[slot].meta) == CC_WINDOW)
        policy->window_load -= load->size;
    load->size = 0;
}

/* The size of an entry, of the window and of all that fits, in what the bound is measured in. */
CC_INLINE uint64_t cc_entry_size(const cc_policy *policy, uint32_t slot)
{
    return policy->by_size ? policy->loads[slot].size : 1;
}

CC_INLINE uint64_t cc_window_size(const cc_policy *policy)
{
    return policy->by_size ? policy->window_load : policy->window;
}

CC_INLINE uint64_t cc_capacity_size(const cc_policy *policy)
{
    return policy->by_size ? policy->capacity_load : policy->capacity;
}

/* Puts an index of all entries, with room for `entries`, in place of another; false: no memory,
   unchanged. */
CC_INLINE bool cc_policy_reindex(const cc_policy *policy, cc_index *index, uint32_t entries)
{
    cc_index old = *index;
    if (!cc_index_alloc(index, entries))
        return false;
    for (uint32_t slot = 0; slot < policy->used; slot++)
        if (cc_record_live(&policy->records[slot]))
            cc_index_add(index, policy->records[slot].meta.hash, slot);
    cc_index_free(&old);
    return true;
}

CC_INLINE uint32_t cc_use_count(uint32_t use)
{
    return (uint16_t)use >> CC_USE_COUNT_SHIFT;
}

/* The use word with its count halved for each epoch it missed. */
CC_INLINE uint32_t cc_use_aged(uint32_t use, uint32_t epoch)
{
    uint32_t missed = (epoch - (use >> CC_USE_EPOCH_SHIFT)) & 0xFF;
    uint32_t count = missed < 16 ? cc_use_count(use) >> missed : 0;
    return (use & (0xFF000000u | CC_VISITED)) | (epoch & 0xFF) << CC_USE_EPOCH_SHIFT
           | count << CC_USE_COUNT_SHIFT;
}

/* The use word after a hit in this epoch. */
CC_INLINE uint32_t cc_use_hit(uint32_t use, uint32_t epoch)
{
    if (CC_UNLIKELY((uint8_t)(use >> CC_USE_EPOCH_SHIFT) != (uint8_t)epoch))
        use = cc_use_aged(use, epoch);
    if (CC_LIKELY((uint16_t)use < CC_COUNT_MAX << CC_USE_COUNT_SHIFT))
        use += 1 << CC_USE_COUNT_SHIFT;
    return use | CC_VISITED;
}

/* The whole cost of a hit. */
CC_INLINE void cc_policy_hit(cc_policy *policy, cc_meta *meta)
{
    meta->use = cc_use_hit(meta->use, policy->epoch);
    meta->tick = (uint32_t)++policy->tick;
}

/* The same by a reader without the lock, for whom `tick` was counted elsewhere. Two hits at once may
   count as one. */
CC_INLINE void cc_meta_hit(cc_meta *meta, uint32_t epoch, uint32_t tick)
{
    uint32_t use = CC_GET(meta->use), hit = cc_use_hit(use, epoch);
    CC_SET(meta->heat, (uint16_t)hit);
    if (CC_UNLIKELY((uint8_t)(use >> CC_USE_EPOCH_SHIFT) != (uint8_t)epoch))
        CC_SET(meta->since, (uint8_t)epoch);
    CC_SET(meta->tick, tick);
}

#endif
