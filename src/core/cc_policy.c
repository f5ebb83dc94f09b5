/* cc_policy.c — see cc_policy.h. */
#include "cc_policy.h"

#include "cc_pages.h"

#include <string.h>

enum {
    EPOCH_ACCESSES = 30,     /* x capacity: accesses between two halvings of all counts ... */
    EPOCH_LEAST = 5000,      /* ... but at least so many */
    SAMPLES = 16,            /* main entries looked at to find an opponent */
    SAMPLES_MORE = 5,        /* ... and to find a better one than the one that stayed */
    DRAW_TRIES = 8,          /* random slots tried for one sample, among free and window slots */
    REQUEUES = 16,           /* visited entries sent back to the window's start in one operation */
    MOVES = 4,               /* entries moved into main in one operation when the window shrinks */
    GHOST_STEP = 3,          /* entries by which a ghost that came back moves the border */
    SKETCH_LINES_ENTRY = 4,  /* lines of the sketch an entry, up to CC_SKETCH_FULL_LINES */
    LEAST_ROOM = 16,
};

/* The window's part of the capacity: at first, at least, at most; in units of 2^-32. */
#define SHARE_FIRST ((uint32_t)(0.10 * 4294967296.0))
#define SHARE_LEAST ((uint32_t)(0.01 * 4294967296.0))
#define SHARE_MOST ((uint32_t)(0.80 * 4294967296.0))

/* 65535 / ln(age + e) for ages 0 ... 7 and then for eight steps in each power of two:
   index = 8 * (log2(age) - 2) + the three bits after the first. */
static const uint16_t age_weights[240] = {
    65535, 49902, 42241, 37585, 34405, 32069, 30264, 28819, 27629, 26628, 25770, 25025,
    24371, 23789, 23268, 22798, 22171, 21453, 20838, 20305, 19836, 19419, 19045, 18708,
    18257, 17739, 17295, 16909, 16568, 16265, 15992, 15745, 15414, 15033, 14704, 14417,
    14163, 13936, 13732, 13546, 13296, 13007, 12757, 12538, 12343, 12169, 12011, 11867,
    11674, 11449, 11253, 11081, 10928, 10790, 10665, 10551, 10397, 10218, 10061, 9923,
    9800,  9689,  9588,  9495,  9370,  9224,  9096,  8982,  8881,  8790,  8706,  8630,
    8526,  8405,  8298,  8204,  8119,  8043,  7973,  7909,  7821,  7719,  7629,  7549,
    7477,  7412,  7353,  7298,  7224,  7137,  7060,  6991,  6930,  6874,  6822,  6775,
    6711,  6636,  6569,  6510,  6456,  6408,  6363,  6322,  6267,  6201,  6142,  6091,
    6044,  6001,  5962,  5926,  5877,  5819,  5768,  5722,  5681,  5643,  5608,  5577,
    5533,  5482,  5436,  5395,  5359,  5325,  5294,  5266,  5227,  5181,  5141,  5104,
    5071,  5041,  5014,  4988,  4953,  4912,  4875,  4843,  4813,  4786,  4761,  4738,
    4707,  4669,  4636,  4607,  4580,  4555,  4533,  4512,  4484,  4450,  4420,  4393,
    4368,  4346,  4326,  4307,  4281,  4250,  4222,  4198,  4175,  4155,  4136,  4119,
    4095,  4067,  4042,  4019,  3999,  3980,  3963,  3947,  3925,  3899,  3876,  3855,
    3837,  3819,  3803,  3789,  3769,  3745,  3723,  3704,  3687,  3671,  3656,  3643,
    3624,  3602,  3582,  3565,  3549,  3534,  3520,  3508,  3490,  3470,  3452,  3435,
    3420,  3406,  3394,  3382,  3366,  3347,  3330,  3315,  3301,  3288,  3276,  3265,
    3250,  3233,  3217,  3202,  3189,  3178,  3167,  3156,  3142,  3126,  3111,  3098,
    3085,  3074,  3064,  3054,  3041,  3026,  3012,  2999,  2988,  2977,  2968,  2959,
};

CC_INLINE uint64_t age_weight(uint32_t age)
{
    unsigned top = cc_log2_floor(age | 4) - 2; /* 0 for ages below 8 */
    unsigned low = top == 0 ? 0 : top - 1;
    return age_weights[age < 8 ? age : 8 * top + ((age >> low) & 7)];
}

CC_INLINE uint32_t count_of(const cc_policy *policy, const cc_meta *meta)
{
    return cc_use_aged(meta->use, policy->epoch) & CC_COUNT_MAX;
}

/* frequency / ln(age + e)^2, in integers. */
CC_INLINE uint64_t score(const cc_policy *policy, const cc_meta *meta)
{
    uint64_t weight = age_weight((uint32_t)policy->tick - meta->tick);
    return count_of(policy, meta) * weight * weight;
}

CC_INLINE bool expired(const cc_meta *meta, uint32_t now)
{
    return meta->expiry != 0 && meta->expiry <= now;
}

CC_INLINE void set_state(cc_meta *meta, unsigned state)
{
    meta->use = (meta->use & 0x00FFFFFFu) | state << CC_USE_FLAGS_SHIFT;
}

CC_INLINE uint32_t *ring_at(const cc_policy *policy, uint32_t position)
{
    return &policy->ring[position & (policy->ring_room - 1)];
}

static size_t records_size(const cc_policy *policy)
{
    return (size_t)policy->room * sizeof(cc_record);
}

static size_t ring_size(const cc_policy *policy)
{
    return (size_t)policy->ring_room * sizeof(uint32_t);
}

void cc_policy_init(cc_policy *policy, uint32_t limit, uint64_t seed)
{
    memset(policy, 0, sizeof *policy);
    policy->limit = limit;
    policy->random = cc_mix64(seed, 0x2545F4914F6CDD1Dull) | 1;
    policy->share = SHARE_FIRST;
    policy->free = CC_NO_SLOT;
    policy->opponent = CC_NO_SLOT;
    policy->next_epoch = EPOCH_LEAST;
}

void cc_policy_renew(cc_policy *policy, cc_policy *old)
{
    *old = *policy;
    cc_policy_init(policy, old->limit, old->random);
    policy->tick = old->tick;
    policy->next_epoch = old->tick + EPOCH_LEAST;
}

void cc_policy_free(cc_policy *policy)
{
    cc_pages_free(policy->records, records_size(policy));
    cc_pages_free(policy->ring, ring_size(policy));
    cc_ghosts_free(&policy->ghosts);
    cc_sketch_free(&policy->sketch);
    cc_policy_init(policy, policy->limit, policy->random);
}

size_t cc_policy_size(const cc_policy *policy)
{
    return records_size(policy) + ring_size(policy) + cc_ghosts_size(&policy->ghosts)
           + cc_sketch_size(&policy->sketch);
}

uint32_t cc_policy_frequency(const cc_policy *policy, uint32_t slot)
{
    return count_of(policy, &policy->records[slot].meta);
}

/* --- slots and the queue -------------------------------------------------------------------- */

static void free_slot(cc_policy *policy, uint32_t slot)
{
    cc_record *record = &policy->records[slot];
    set_state(&record->meta, CC_FREE);
    record->a = policy->free;
    record->b = 0;
    policy->free = slot;
}

/* Drops the dead from the queue, in place. */
static void sweep_ring(cc_policy *policy)
{
    uint32_t to = policy->tail;
    for (uint32_t from = policy->tail; from != policy->head; from++) {
        uint32_t slot = *ring_at(policy, from);
        if (cc_meta_state(&policy->records[slot].meta) == CC_DEAD)
            free_slot(policy, slot);
        else
            *ring_at(policy, to++) = slot;
    }
    policy->head = to;
    policy->dead = 0;
}

/* More dead than this and the queue is swept: deletions pay for it, and slots stay bounded. */
static uint32_t most_dead(const cc_policy *policy)
{
    return policy->window / 4 + LEAST_ROOM;
}

static bool grow_records(cc_policy *policy)
{
    uint64_t most = policy->limit == CC_NO_LIMIT
                        ? CC_NO_SLOT
                        : (uint64_t)policy->limit + policy->limit / 4 + 2 * LEAST_ROOM;
    uint64_t room = policy->room == 0 ? LEAST_ROOM : 2ull * policy->room;
    if (room > most)
        room = most;
    if (room >= CC_NO_SLOT || room <= policy->room)
        return false;
    void *grown =
        cc_pages_grow(policy->records, records_size(policy), room * sizeof(cc_record));
    if (grown == NULL)
        return false;
    policy->records = grown;
    policy->room = (uint32_t)room;
    return true;
}

static bool grow_ring(cc_policy *policy)
{
    cc_policy wider = *policy;
    wider.ring_room = policy->ring_room == 0 ? LEAST_ROOM : 2 * policy->ring_room;
    wider.ring = cc_pages_alloc(ring_size(&wider));
    if (wider.ring == NULL)
        return false;
    for (uint32_t at = policy->tail; at != policy->head; at++)
        *ring_at(&wider, at) = *ring_at(policy, at);
    cc_pages_free(policy->ring, ring_size(policy));
    policy->ring = wider.ring;
    policy->ring_room = wider.ring_room;
    return true;
}

bool cc_policy_reserve(cc_policy *policy)
{
    if (CC_UNLIKELY(policy->free == CC_NO_SLOT && policy->used == policy->room))
        if (!grow_records(policy))
            return false;
    if (CC_UNLIKELY(policy->head - policy->tail == policy->ring_room))
        return grow_ring(policy);
    return true;
}

/* The live entry at the queue's end, still in it, after the visited ones went back to its start.
   There is one. */
static uint32_t queue_end(cc_policy *policy)
{
    CC_ASSERT(policy->window > 0);
    for (unsigned requeued = 0;;) {
        uint32_t slot = *ring_at(policy, policy->tail);
        cc_meta *meta = &policy->records[slot].meta;
        unsigned flags = meta->use >> CC_USE_FLAGS_SHIFT;
        if (CC_UNLIKELY((flags & CC_STATE_MASK) == CC_DEAD)) {
            policy->tail++;
            policy->dead--;
            free_slot(policy, slot);
        } else if ((flags & CC_VISITED) && requeued < REQUEUES) {
            requeued++;
            set_state(meta, CC_WINDOW);
            policy->tail++;
            *ring_at(policy, policy->head++) = slot;
        } else {
            return slot;
        }
    }
}

/* Takes the entry that queue_end returned into the main region. */
static void admit(cc_policy *policy, uint32_t slot)
{
    policy->tail++;
    policy->window--;
    set_state(&policy->records[slot].meta, CC_MAIN);
}

static uint32_t window_target(const cc_policy *policy)
{
    uint32_t target = (uint32_t)(((uint64_t)policy->share * policy->capacity) >> 32);
    return target + (target == 0);
}

/* --- the border, ageing --------------------------------------------------------------------- */

static void move_border(cc_policy *policy, cc_ghost ghost)
{
    uint64_t step = ((uint64_t)GHOST_STEP << 32) / (policy->capacity | 1);
    uint64_t share = policy->share;
    if (ghost == CC_GHOST_REJECTED)
        share = share + step < SHARE_MOST ? share + step : SHARE_MOST;
    else
        share = share > step + SHARE_LEAST ? share - step : SHARE_LEAST;
    policy->share = (uint32_t)share;
}

static void begin_epoch(cc_policy *policy)
{
    uint64_t period = (uint64_t)EPOCH_ACCESSES * policy->capacity;
    policy->epoch++;
    policy->next_epoch = policy->tick + (period < EPOCH_LEAST ? EPOCH_LEAST : period);
    cc_sketch_halve(&policy->sketch);
}

/* Ghosts and sketch in proportion to what fits, known when the cache is first full, and again when
   twice as much fits. Without memory for them the policy is blinder, and goes on. */
static CC_COLD void fit(cc_policy *policy)
{
    uint64_t lines = (uint64_t)SKETCH_LINES_ENTRY * policy->capacity;
    if (lines > CC_SKETCH_FULL_LINES)
        lines = CC_SKETCH_FULL_LINES;
    policy->fitted = policy->capacity;
    cc_ghosts_free(&policy->ghosts);
    cc_ghosts_init(&policy->ghosts, policy->capacity);
    if (lines > policy->sketch.lines) {
        cc_sketch_free(&policy->sketch);
        cc_sketch_init(&policy->sketch, (uint32_t)lines);
    }
}

/* --- insertion and removal ------------------------------------------------------------------ */

void cc_policy_credit(cc_policy *policy, uint32_t slot, double times)
{
    cc_meta *meta = &policy->records[slot].meta;
    double count = count_of(policy, meta) * times;
    uint32_t to = count < 1 ? 1 : count < CC_COUNT_MAX ? (uint32_t)count : CC_COUNT_MAX;
    meta->use = (cc_use_aged(meta->use, policy->epoch) & ~(uint32_t)CC_COUNT_MAX) | to;
}

uint32_t cc_policy_insert(cc_policy *policy, uint32_t hash)
{
    uint32_t slot = policy->free;
    if (slot != CC_NO_SLOT)
        policy->free = (uint32_t)policy->records[slot].a;
    else
        slot = policy->used++;
    CC_ASSERT(policy->used <= policy->room);
    if (slot >= policy->top)
        policy->top = slot + 1;

    cc_ghost ghost = cc_ghosts_take(&policy->ghosts, hash);
    if (CC_UNLIKELY(ghost != CC_GHOST_NONE))
        move_border(policy, ghost);
    if (CC_UNLIKELY(++policy->tick >= policy->next_epoch))
        begin_epoch(policy);
    uint32_t count = cc_sketch_estimate(&policy->sketch, hash) + 1;

    cc_record *record = &policy->records[slot];
    record->a = record->b = 0;
    record->meta.hash = hash;
    record->meta.tick = (uint32_t)policy->tick;
    record->meta.use = (count < CC_COUNT_MAX ? count : CC_COUNT_MAX)
                       | (policy->epoch & 0xFF) << CC_USE_EPOCH_SHIFT
                       | (uint32_t)CC_WINDOW << CC_USE_FLAGS_SHIFT;
    record->meta.expiry = 0;
    *ring_at(policy, policy->head++) = slot;
    policy->window++;
    policy->live++;
    if (policy->live > policy->capacity) { /* filling: what fits is not known yet */
        policy->capacity = policy->limit != CC_NO_LIMIT ? policy->limit : policy->live;
        while (policy->window > window_target(policy) && policy->window > 1)
            admit(policy, queue_end(policy));
    } else if (policy->live < policy->capacity && policy->window > window_target(policy)) {
        admit(policy, queue_end(policy));
    }
    return slot;
}

void cc_policy_remove(cc_policy *policy, uint32_t slot, cc_reason reason)
{
    cc_meta *meta = &policy->records[slot].meta;
    if (reason == CC_EVICTED || reason == CC_REJECTED)
        cc_ghosts_push(&policy->ghosts, meta->hash,
                       reason == CC_EVICTED ? CC_GHOST_EVICTED : CC_GHOST_REJECTED);
    cc_sketch_raise(&policy->sketch, meta->hash, count_of(policy, meta));
    policy->live--;
    if (cc_meta_state(meta) == CC_MAIN) {
        free_slot(policy, slot);
        return;
    }
    policy->window--;
    if (*ring_at(policy, policy->tail) == slot) {
        policy->tail++;
        free_slot(policy, slot);
        return;
    }
    set_state(meta, CC_DEAD);
    policy->records[slot].a = policy->records[slot].b = 0;
    if (++policy->dead > most_dead(policy))
        sweep_ring(policy);
}

/* --- the contest ---------------------------------------------------------------------------- */

CC_INLINE bool in_main(const cc_policy *policy, uint32_t slot)
{
    return slot < policy->used && cc_meta_state(&policy->records[slot].meta) == CC_MAIN;
}

/* A random main entry; CC_NO_SLOT when none was met. */
static uint32_t draw(cc_policy *policy)
{
    uint32_t slot =
        policy->drawn > 0 ? policy->draws[--policy->drawn] : cc_random_below(&policy->random, policy->used);
    for (unsigned tried = 0; tried < DRAW_TRIES; tried++) {
        if (CC_LIKELY(in_main(policy, slot)))
            return slot;
        slot = cc_random_below(&policy->random, policy->used);
    }
    return CC_NO_SLOT;
}

/* The first main entry from a random place on; there is one. */
static CC_COLD uint32_t any_main(cc_policy *policy)
{
    uint32_t slot = cc_random_below(&policy->random, policy->used);
    while (!in_main(policy, slot))
        slot = slot + 1 < policy->used ? slot + 1 : 0;
    return slot;
}

/* The main entry that is worth least among those looked at; there is a main entry. */
static uint32_t weakest(cc_policy *policy, uint32_t now)
{
    uint32_t best = policy->opponent, samples = SAMPLES_MORE;
    if (best == CC_NO_SLOT || !in_main(policy, best)) {
        samples = SAMPLES;
        best = draw(policy);
        if (CC_UNLIKELY(best == CC_NO_SLOT))
            best = any_main(policy);
    }
    uint64_t least = score(policy, &policy->records[best].meta);
    for (unsigned i = 0; i < samples; i++) {
        uint32_t slot = draw(policy);
        if (CC_UNLIKELY(slot == CC_NO_SLOT))
            continue;
        const cc_meta *meta = &policy->records[slot].meta;
        uint64_t worth = score(policy, meta);
        if (CC_UNLIKELY(expired(meta, now)))
            worth = 0;
        if (worth < least) {
            least = worth;
            best = slot;
        }
    }
    policy->opponent = best;
    return best;
}

uint32_t cc_policy_victim(cc_policy *policy, uint32_t now, cc_reason *reason)
{
    if (policy->live == 0)
        return CC_NO_SLOT;
    policy->capacity = policy->live;
    if (CC_UNLIKELY(policy->capacity / 2 >= policy->fitted))
        fit(policy);
    uint32_t target = window_target(policy);
    for (unsigned moved = 0; policy->window > target && moved < MOVES; moved++)
        admit(policy, queue_end(policy));

    uint32_t main = policy->live - policy->window;
    if (main > 0 && policy->window < target) { /* the window has grown: main makes room */
        uint32_t victim = weakest(policy, now);
        *reason = expired(&policy->records[victim].meta, now) ? CC_EXPIRED : CC_EVICTED;
        return victim;
    }
    uint32_t candidate = queue_end(policy);
    const cc_meta *meta = &policy->records[candidate].meta;
    *reason = expired(meta, now) ? CC_EXPIRED : CC_REJECTED;
    if (main == 0 || *reason == CC_EXPIRED)
        return candidate;
    uint32_t victim = weakest(policy, now);
    const cc_meta *against = &policy->records[victim].meta;
    if (CC_UNLIKELY(expired(against, now))) {
        *reason = CC_EXPIRED;
        return victim;
    }
    if (count_of(policy, meta) <= count_of(policy, against))
        return candidate;
    admit(policy, candidate);
    *reason = CC_EVICTED;
    return victim;
}

uint32_t cc_policy_bystander(cc_policy *policy, uint32_t spare)
{
    uint32_t slot = cc_random_below(&policy->random, policy->used);
    for (uint32_t seen = 0; seen < policy->used; seen++) {
        if (slot != spare && cc_record_live(&policy->records[slot]))
            return slot;
        slot = slot + 1 < policy->used ? slot + 1 : 0;
    }
    return CC_NO_SLOT;
}

uint32_t cc_policy_prepare(cc_policy *policy)
{
    while (policy->drawn < CC_DRAWS) {
        uint32_t slot = cc_random_below(&policy->random, policy->used);
        CC_PREFETCH(&policy->records[slot].meta);
        policy->draws[policy->drawn++] = slot;
    }
    if (policy->head - policy->tail < 2)
        return CC_NO_SLOT;
    CC_PREFETCH_WRITE(&policy->records[*ring_at(policy, policy->tail + 1)]);
    uint32_t slot = *ring_at(policy, policy->tail);
    uint32_t hash = policy->records[slot].meta.hash;
    cc_sketch_prefetch(&policy->sketch, hash);
    cc_ghosts_prefetch(&policy->ghosts, hash);
    return slot;
}

/* --- compaction, validation ----------------------------------------------------------------- */

void cc_policy_compact(cc_policy *policy, uint32_t *moved)
{
    uint32_t to = 0;
    sweep_ring(policy);
    for (uint32_t from = 0; from < policy->used; from++) {
        moved[from] = CC_NO_SLOT;
        if (!cc_record_live(&policy->records[from]))
            continue;
        policy->records[to] = policy->records[from];
        moved[from] = to++;
    }
    for (uint32_t at = policy->tail; at != policy->head; at++)
        *ring_at(policy, at) = moved[*ring_at(policy, at)];
    policy->opponent = policy->opponent < policy->used ? moved[policy->opponent] : CC_NO_SLOT;
    policy->used = policy->top = to;
    policy->free = CC_NO_SLOT;
    policy->drawn = 0;
}

bool cc_policy_valid(const cc_policy *policy)
{
    uint32_t states[4] = {0, 0, 0, 0}, queued[4] = {0, 0, 0, 0}, free = 0;
    for (uint32_t slot = 0; slot < policy->used; slot++)
        states[cc_meta_state(&policy->records[slot].meta)]++;
    for (uint32_t at = policy->tail; at != policy->head; at++) {
        uint32_t slot = *ring_at(policy, at);
        if (slot >= policy->used)
            return false;
        queued[cc_meta_state(&policy->records[slot].meta)]++;
    }
    for (uint32_t slot = policy->free; slot != CC_NO_SLOT && free <= policy->used; free++) {
        if (slot >= policy->used || cc_meta_state(&policy->records[slot].meta) != CC_FREE)
            return false;
        slot = (uint32_t)policy->records[slot].a;
    }
    return states[CC_FREE] == free && states[CC_WINDOW] == policy->window
           && states[CC_DEAD] == policy->dead && queued[CC_WINDOW] == policy->window
           && queued[CC_DEAD] == policy->dead && queued[CC_MAIN] == 0 && queued[CC_FREE] == 0
           && states[CC_WINDOW] + states[CC_MAIN] == policy->live && policy->used <= policy->room;
}
