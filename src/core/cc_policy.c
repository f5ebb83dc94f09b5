/* cc_policy.c — see cc_policy.h. */
#include "cc_policy.h"

#include "cc_policy_inner.h"

#include <string.h>

enum {
    EPOCH_ACCESSES = 60,     /* x capacity: accesses between two halvings of all counts ... */
    EPOCH_LEAST = 5000,      /* ... but at least so many */
    LINES = 6,               /* lines of two records looked at for a weaker opponent ... */
    LINES_FIRST = 8,         /* ... when there is none from before */
    REQUEUES = 16,           /* visited entries sent back to the window's start in one operation */
    MOVES = 4,               /* entries moved into main in one operation when the window shrinks */
    AHEAD = 4,               /* operations between fetching a record and needing it */
    GHOST_STEP = 9,          /* entries by which a ghost that comes back at once moves the border */
    MEAN_OVER = 1024,        /* insertions that the mean cost remembers */
};

/* The window's part of the capacity: at first, at least, at most; in units of 2^-32. */
#define SHARE_FIRST ((uint32_t)(0.10 * 4294967296.0))
#define SHARE_LEAST ((uint32_t)(0.01 * 4294967296.0))
#define SHARE_MOST ((uint32_t)(0.99 * 4294967296.0))

CC_INLINE void set_state(cc_meta *meta, unsigned state)
{
    CC_SET(meta->use, (CC_GET(meta->use) & ~(0xFF000000u | CC_VISITED)) | state << CC_USE_STATE_SHIFT);
}

void cc_policy_init(cc_policy *policy, uint32_t limit, uint64_t seed)
{
    memset(policy, 0, sizeof *policy);
    policy->limit = limit;
    policy->random = cc_mix64(seed, 0x2545F4914F6CDD1Dull) | 1;
    policy->share = SHARE_FIRST;
    policy->mean_cost = 1;
    policy->free = CC_NO_SLOT;
    policy->opponents[0] = policy->opponents[1] = CC_NO_SLOT;
    policy->next_epoch = EPOCH_LEAST;
}

/* Forgets everything but what it was made for. */
static void start_anew(cc_policy *policy)
{
    cc_policy old = *policy;
    cc_policy_init(policy, old.limit, old.random);
    policy->loaded = old.loaded;
    policy->by_size = old.by_size;
    policy->sketch_bytes = old.sketch_bytes;
}

void cc_policy_free(cc_policy *policy)
{
    cc_policy_release(policy);
    start_anew(policy);
}

void cc_policy_renew(cc_policy *policy, cc_policy *old)
{
    *old = *policy;
    start_anew(policy);
    policy->tick = old->tick;
    policy->next_epoch = old->tick + EPOCH_LEAST;
    policy->watch.since = old->tick;
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
    CC_SET(record->a, policy->free);
    policy->free = slot;
}

/* Drops the dead from the queue, in place. */
static void sweep_ring(cc_policy *policy)
{
    uint32_t to = policy->tail;
    for (uint32_t from = policy->tail; from != policy->head; from++) {
        uint32_t slot = ring_at(policy, from);
        if (cc_meta_state(&policy->records[slot].meta) == CC_DEAD)
            free_slot(policy, slot);
        else
            ring_set(policy, to++, slot);
    }
    policy->head = to;
    policy->dead = 0;
}

/* More dead than this and the queue is swept: deletions pay for it, and slots stay bounded. */
static uint32_t most_dead(const cc_policy *policy)
{
    return policy->window / (policy->placed ? PLACED_DEAD : 4) + LEAST_ROOM;
}

/* The live entry at the queue's end, still in it, after the visited ones went back to its start.
   There is one. */
static uint32_t queue_end(cc_policy *policy)
{
    CC_ASSERT(policy->window > 0);
    for (unsigned requeued = 0;;) {
        uint32_t slot = ring_at(policy, policy->tail);
        cc_meta *meta = &policy->records[slot].meta;
        uint32_t use = CC_GET(meta->use);
        if (CC_UNLIKELY(use >> CC_USE_STATE_SHIFT == CC_DEAD)) {
            policy->tail++;
            policy->dead--;
            free_slot(policy, slot);
        } else if ((use & CC_VISITED) && requeued < REQUEUES) {
            requeued++;
            set_state(meta, CC_WINDOW);
            policy->tail++;
            ring_set(policy, policy->head++, slot);
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
    if (policy->loads != NULL)
        policy->window_load -= policy->loads[slot].size;
    set_state(&policy->records[slot].meta, CC_MAIN);
}

static uint64_t window_target(const cc_policy *policy)
{
    uint64_t capacity = cc_capacity_size(policy), share = policy->share;
    uint64_t target = (capacity >> 32) * share + (((capacity & UINT32_MAX) * share) >> 32);
    return target + (target == 0);
}

/* Moves entries from the window's end to main while it is longer than it should be. */
static void shorten_window(cc_policy *policy, uint32_t moves)
{
    uint64_t target = window_target(policy);
    for (; moves > 0 && policy->window > 1; moves--) {
        if (cc_window_size(policy) <= target)
            return;
        uint32_t slot = queue_end(policy);
        if (cc_window_size(policy) - cc_entry_size(policy, slot) < target)
            return;
        admit(policy, slot);
    }
}

/* --- the border, ageing --------------------------------------------------------------------- */

/* A ghost counts by the square of its nearness: one that had nearly been here still says that a few
   entries more would do, one from the far end, as in a loop, that they would not. */
static void move_border(cc_policy *policy, cc_ghost ghost, double nearness, double weight)
{
    weight *= nearness * nearness;
    uint64_t step = (uint64_t)(weight * GHOST_STEP * 0x1p32 / (policy->capacity | 1));
    uint64_t share = policy->share;
    if (ghost == CC_GHOST_REJECTED)
        share = share + step < SHARE_MOST ? share + step : SHARE_MOST;
    else
        share = share > step + SHARE_LEAST ? share - step : SHARE_LEAST;
    policy->share = (uint32_t)share;
}

static uint64_t epoch_end(const cc_policy *policy, uint32_t capacity)
{
    uint64_t period = (uint64_t)EPOCH_ACCESSES * capacity;
    return policy->tick + (period < EPOCH_LEAST ? EPOCH_LEAST : period);
}

static CC_COLD void shorten_epoch(cc_policy *policy)
{
    uint64_t end = epoch_end(policy, policy->live);
    policy->paced = policy->live;
    if (end < policy->next_epoch)
        policy->next_epoch = end;
}

static void begin_epoch(cc_policy *policy)
{
    policy->epoch++;
    policy->paced = policy->capacity;
    policy->next_epoch = epoch_end(policy, policy->capacity);
    cc_sketch_halve(&policy->sketch);
}

/* Ghosts and sketch in proportion to what fits, known when the cache is first full, and again when
   twice as much fits. Without memory for them the policy is blinder, and goes on. */
static CC_COLD void fit(cc_policy *policy)
{
    policy->fitted = policy->capacity;
    cc_ghosts_free(&policy->ghosts);
    cc_ghosts_init(&policy->ghosts, policy->capacity, cc_capacity_size(policy));
    cc_sketch_fit(&policy->sketch, policy->capacity, policy->sketch_bytes);
}

/* --- insertion and removal ------------------------------------------------------------------ */

void cc_policy_set_frequency(cc_policy *policy, uint32_t slot, uint32_t frequency)
{
    cc_meta *meta = &policy->records[slot].meta;
    uint32_t count = frequency < CC_COUNT_MAX ? frequency : CC_COUNT_MAX;
    uint32_t use = cc_use_aged(CC_GET(meta->use), policy->epoch);
    CC_SET(meta->use, (use & (0xFFFF0000u | CC_VISITED)) | count << CC_USE_COUNT_SHIFT);
}

uint32_t cc_policy_insert(cc_policy *policy, uint32_t hash, uint64_t size, double cost)
{
    uint32_t slot = policy->free;
    if (slot != CC_NO_SLOT) {
        uint32_t next = (uint32_t)policy->records[slot].a;
        policy->free = CC_LIKELY(next < policy->room) ? next : CC_NO_SLOT;
    } else {
        slot = policy->used++;
    }
    CC_ASSERT(policy->used <= policy->room);
    if (slot >= policy->top)
        policy->top = slot + 1;

    float nearness = 0;
    cc_ghost ghost = cc_ghosts_take(&policy->ghosts, hash, &nearness);
    if (CC_UNLIKELY(ghost != CC_GHOST_NONE))
        move_border(policy, ghost, nearness, cc_cost_within(cost) / policy->mean_cost);
    if (CC_UNLIKELY(++policy->tick >= policy->next_epoch))
        begin_epoch(policy);
    bool rejected = ghost == CC_GHOST_REJECTED;
    if (cc_watch_inserted(&policy->watch, policy->tick, rejected, policy->capacity))
        policy->replaced = policy->tick;
    uint32_t count = cc_sketch_estimate(&policy->sketch, hash) + 1;

    cc_record *record = &policy->records[slot];
    record->meta.hash = hash;
    CC_SET(record->meta.tick, (uint32_t)policy->tick);
    CC_SET(record->meta.use, (count < CC_COUNT_MAX ? count : CC_COUNT_MAX) << CC_USE_COUNT_SHIFT
                                 | (policy->epoch & 0xFF) << CC_USE_EPOCH_SHIFT
                                 | (uint32_t)CC_WINDOW << CC_USE_STATE_SHIFT);
    CC_SET(record->meta.expiry, 0);
    ring_set(policy, policy->head++, slot);
    policy->window++;
    policy->live++;
    if (policy->loads != NULL) {
        policy->loads[slot].size = 0; /* compaction leaves what was there */
        cc_policy_set_load(policy, slot, size, cost);
        policy->mean_cost += (policy->loads[slot].cost - policy->mean_cost) / MEAN_OVER;
    }
    if (policy->load > policy->capacity_load)
        policy->capacity_load = policy->load;
    if (policy->live > policy->capacity) { /* filling: what fits is not known yet */
        policy->capacity = policy->limit != CC_NO_LIMIT ? policy->limit : policy->live;
        shorten_window(policy, UINT32_MAX);
    } else if (policy->live < policy->capacity) {
        shorten_window(policy, 1);
    }
    return slot;
}

void cc_policy_remove(cc_policy *policy, uint32_t slot, cc_reason reason)
{
    cc_meta *meta = &policy->records[slot].meta;
    if (reason == CC_EVICTED || reason == CC_REJECTED)
        cc_ghosts_push(&policy->ghosts, meta->hash,
                       reason == CC_EVICTED ? CC_GHOST_EVICTED : CC_GHOST_REJECTED,
                       cc_entry_size(policy, slot));
    cc_sketch_raise(&policy->sketch, meta->hash, count_of(policy, meta));
    cc_loads_take(policy, slot);
    policy->live--;
    if (cc_meta_state(meta) == CC_MAIN) {
        free_slot(policy, slot);
        return;
    }
    policy->window--;
    if (ring_at(policy, policy->tail) == slot) {
        policy->tail++;
        free_slot(policy, slot);
        return;
    }
    set_state(meta, CC_DEAD);
    if (++policy->dead > most_dead(policy))
        sweep_ring(policy);
}

/* --- the contest ---------------------------------------------------------------------------- */

CC_INLINE bool in_main(const cc_policy *policy, uint32_t slot)
{
    return slot < policy->used && cc_meta_state(&policy->records[slot].meta) == CC_MAIN;
}

/* The first main entry from a random place on; there is one, or records were damaged. */
static CC_COLD uint32_t any_main(cc_policy *policy)
{
    uint32_t slot = cc_random_below(&policy->random, policy->used);
    for (uint32_t seen = 0; seen < policy->used && !in_main(policy, slot); seen++)
        slot = slot + 1 < policy->used ? slot + 1 : 0;
    return slot;
}

/* The first slot of a random line of two. */
CC_INLINE uint32_t draw_line(cc_policy *policy)
{
    return cc_random_below(&policy->random, (policy->used + 1) / 2) * 2;
}

/* The bits of an entry's score, which order as the score does, above its slot: one comparison ranks
   two entries, and the minimum of several takes no branch, which could not be predicted. NO_RANK is
   above all. */
#define NO_RANK UINT64_MAX

CC_INLINE uint64_t rank(const cc_policy *policy, uint32_t slot, uint32_t now)
{
    const cc_meta *meta = &policy->records[slot].meta;
    if (CC_UNLIKELY(cc_meta_state(meta) != CC_MAIN))
        return NO_RANK;
    float worth = CC_UNLIKELY(expired(meta, now)) ? 0 : score(policy, slot);
    uint32_t bits;
    memcpy(&bits, &worth, sizeof bits);
    return (uint64_t)bits << 32 | slot;
}

/* Ranks a slot among the weakest two. */
CC_INLINE void consider(uint64_t weakest[2], uint64_t rank)
{
    uint64_t greater = rank > weakest[0] ? rank : weakest[0];
    weakest[0] = rank < weakest[0] ? rank : weakest[0];
    weakest[1] = greater < weakest[1] ? greater : weakest[1];
}

/* The main entry that is worth least among those looked at; there is a main entry. */
static uint32_t weakest_main(cc_policy *policy, uint32_t now)
{
    uint64_t weakest[2] = {NO_RANK, NO_RANK};
    unsigned lines = LINES;
    for (unsigned i = 0; i < 2; i++)
        if (CC_LIKELY(policy->opponents[i] < policy->used))
            consider(weakest, rank(policy, policy->opponents[i], now));
    if (CC_UNLIKELY(weakest[0] == NO_RANK))
        lines = LINES_FIRST;
    while (lines-- > 0) {
        uint32_t slot = policy->drawn > 0 ? policy->draws[--policy->drawn] : draw_line(policy);
        consider(weakest, rank(policy, slot, now));
        consider(weakest, rank(policy, slot + 1, now));
    }
    policy->opponents[0] = weakest[0] == NO_RANK ? any_main(policy) : (uint32_t)weakest[0];
    policy->opponents[1] = (uint32_t)weakest[1]; /* of NO_RANK: CC_NO_SLOT */
    return policy->opponents[0];
}

/* A challenger that was asked for once can only beat an entry that was not asked for lately: a
   look at the opponent and at one line tells, without ranking them. */
static uint32_t idle_main(cc_policy *policy, uint32_t now)
{
    uint32_t line = policy->drawn > 0 ? policy->draws[--policy->drawn] : draw_line(policy);
    uint32_t slots[3] = {policy->opponents[0], line, line + 1};
    for (unsigned i = 0; i < 3; i++) {
        if (slots[i] >= policy->used)
            continue;
        const cc_meta *meta = &policy->records[slots[i]].meta;
        if (cc_meta_state(meta) == CC_MAIN
            && CC_UNLIKELY(main_count(policy, meta) == 0 || expired(meta, now)))
            return slots[i];
    }
    return CC_NO_SLOT;
}

CC_INLINE bool asked_for_once(const cc_policy *policy, const cc_meta *challenger)
{
    return count_of(policy, challenger) <= 1 && policy->loads == NULL && !recovering(policy);
}

/* Whether the challenger takes the opponent's place: it must be strictly more frequent, and dearer for
   its size. */
CC_INLINE bool wins(const cc_policy *policy, uint32_t challenger, uint32_t opponent)
{
    uint32_t count = count_of(policy, &policy->records[challenger].meta);
    uint32_t against = main_count(policy, &policy->records[opponent].meta);
    if (CC_UNLIKELY(policy->loads != NULL))
        return weighed(policy, challenger, count) > weighed(policy, opponent, against);
    return count > against;
}

uint32_t cc_policy_victim(cc_policy *policy, uint32_t now, cc_reason *reason)
{
    if (policy->live == 0)
        return CC_NO_SLOT;
    if (CC_UNLIKELY(policy->live < policy->paced / 2)) /* it fits far less than was thought */
        shorten_epoch(policy);
    policy->capacity = policy->live;
    if (CC_UNLIKELY(policy->capacity / 2 >= policy->fitted) && !policy->placed)
        fit(policy);
    policy->capacity_load = policy->load;
    shorten_window(policy, MOVES);

    uint32_t main = policy->live - policy->window;
    if (main > 0 && cc_window_size(policy) < window_target(policy)) { /* it has grown: main gives */
        uint32_t victim = weakest_main(policy, now);
        *reason = expired(&policy->records[victim].meta, now) ? CC_EXPIRED : CC_EVICTED;
        return victim;
    }
    uint32_t candidate = queue_end(policy);
    const cc_meta *meta = &policy->records[candidate].meta;
    *reason = expired(meta, now) ? CC_EXPIRED : CC_REJECTED;
    if (main == 0 || *reason == CC_EXPIRED)
        return candidate;
    bool once = asked_for_once(policy, meta);
    uint32_t victim = once ? idle_main(policy, now) : weakest_main(policy, now);
    if (victim == CC_NO_SLOT)
        return candidate;
    const cc_meta *against = &policy->records[victim].meta;
    if (CC_UNLIKELY(expired(against, now))) {
        *reason = CC_EXPIRED;
        return victim;
    }
    if (!wins(policy, candidate, victim))
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

bool cc_policy_prepare(cc_policy *policy, uint32_t leavers[2])
{
    uint32_t queued = policy->head - policy->tail;
    if (queued < AHEAD)
        return false;
    const cc_meta *meta = &policy->records[ring_at(policy, policy->tail)].meta;
    bool once = asked_for_once(policy, meta);
    for (unsigned lines = once ? 1 : LINES; policy->drawn < lines;) {
        uint32_t line = draw_line(policy);
        CC_PREFETCH(&policy->records[line]);
        policy->draws[policy->drawn++] = line;
    }
    cc_policy_expect(policy, meta->hash);
    CC_PREFETCH_WRITE(&policy->records[ring_at(policy, policy->tail + AHEAD - 1)]);
    leavers[0] = ring_at(policy, policy->tail + AHEAD / 2);
    leavers[1] = once || !in_main(policy, policy->opponents[0]) ? leavers[0] : policy->opponents[0];
    return true;
}

bool cc_policy_prepare_next(cc_policy *policy, uint32_t leaver, uint32_t leavers[2])
{
    uint32_t tail = policy->tail;
    if (tail != policy->head && ring_at(policy, tail) == leaver)
        tail++;
    if (policy->head - tail < AHEAD)
        return false;
    leavers[0] = ring_at(policy, tail);
    leavers[1] = policy->opponents[policy->opponents[0] == leaver];
    if (!in_main(policy, leavers[1]))
        leavers[1] = leavers[0];
    bool ranked = cc_window_size(policy) < window_target(policy)
                  || !asked_for_once(policy, &policy->records[leavers[0]].meta);
    while (policy->drawn < (ranked ? LINES : 1)) {
        uint32_t line = draw_line(policy);
        CC_PREFETCH(&policy->records[line]);
        policy->draws[policy->drawn++] = line;
    }
    CC_PREFETCH_WRITE(&policy->records[ring_at(policy, tail + AHEAD - 1)]);
    if (!ranked)
        leavers[1] = leavers[0];
    return true;
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
        if (policy->loads != NULL)
            policy->loads[to] = policy->loads[from];
        moved[from] = to++;
    }
    memset(&policy->records[to], 0, (policy->used - to) * sizeof(cc_record));
    for (uint32_t at = policy->tail; at != policy->head; at++)
        ring_set(policy, at, moved[ring_at(policy, at)]);
    policy->opponents[0] = policy->opponents[1] = CC_NO_SLOT;
    policy->used = policy->top = to;
    policy->free = CC_NO_SLOT;
    policy->drawn = 0;
}

void cc_policy_inherit(cc_policy *policy, const cc_policy *old)
{
    policy->tick = old->tick;
    policy->epoch = old->epoch;
    policy->capacity = old->capacity < policy->limit ? old->capacity : policy->limit;
    policy->paced = policy->capacity;
    policy->next_epoch = epoch_end(policy, policy->capacity);
    if (old->next_epoch < policy->next_epoch)
        policy->next_epoch = old->next_epoch;
    if (old->share >= SHARE_LEAST && old->share <= SHARE_MOST)
        policy->share = old->share;
    policy->watch.since = old->tick;
    policy->ghosts.pushes[0] = old->ghosts.pushes[0];
    policy->ghosts.pushes[1] = old->ghosts.pushes[1];
    policy->sketch.epoch = old->sketch.epoch;
}

void cc_policy_rebuild(cc_policy *policy, bool (*live)(void *owner, uint32_t slot), void *owner)
{
    policy->live = policy->window = policy->dead = policy->drawn = 0;
    policy->head = policy->tail = 0;
    policy->opponents[0] = policy->opponents[1] = policy->free = CC_NO_SLOT;
    policy->used = policy->top = policy->room;
    for (uint32_t slot = policy->room; slot-- > 0;) {
        if (!cc_record_live(&policy->records[slot]) || !live(owner, slot)) {
            free_slot(policy, slot);
            continue;
        }
        policy->live++;
        if (cc_meta_state(&policy->records[slot].meta) == CC_MAIN)
            continue;
        policy->window++;
        ring_set(policy, policy->head++, slot);
    }
}

bool cc_policy_valid(const cc_policy *policy)
{
    uint32_t states[4] = {0, 0, 0, 0}, queued[4] = {0, 0, 0, 0}, free = 0;
    for (uint32_t slot = 0; slot < policy->used; slot++)
        states[cc_meta_state(&policy->records[slot].meta)]++;
    for (uint32_t at = policy->tail; at != policy->head; at++) {
        uint32_t slot = ring_at(policy, at);
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
