/* cc_policy.c — see cc_policy.h. */
#include "cc_policy.h"

#include "cc_pages.h"

#include <string.h>

enum {
    EPOCH_ACCESSES = 30,     /* x capacity: accesses between two halvings of all counts ... */
    EPOCH_LEAST = 5000,      /* ... but at least so many */
    LINES = 4,               /* lines of two records looked at for a weaker opponent ... */
    LINES_FIRST = 8,         /* ... when there is none from before */
    REQUEUES = 16,           /* visited entries sent back to the window's start in one operation */
    MOVES = 4,               /* entries moved into main in one operation when the window shrinks */
    AHEAD = 4,               /* operations between fetching a record and needing it */
    GHOST_STEP = 3,          /* entries by which a ghost that came back moves the border */
    SKETCH_LINES_ENTRY = 4,  /* lines of the sketch an entry, up to CC_SKETCH_FULL_LINES */
    LEAST_ROOM = 16,
};

/* The window's part of the capacity: at first, at least, at most; in units of 2^-32. */
#define SHARE_FIRST ((uint32_t)(0.10 * 4294967296.0))
#define SHARE_LEAST ((uint32_t)(0.01 * 4294967296.0))
#define SHARE_MOST ((uint32_t)(0.80 * 4294967296.0))

/* 2^32 / ln(age + e)^2 in eight steps for each power of two of age + 8, so that the first eight
   ages are exact: index = 8 * (log2(age + 8) - 3) + the three bits after the first. */
static const uint32_t age_weights[232] = {
    4294967295u, 2490332361u, 1784379615u, 1412641878u, 1183712689u, 1028422496u, 915956184u, 830568709u,
    734870504u, 644438781u, 579461913u, 530272008u, 491576996u, 460231499u, 434245312u, 412295634u,
    385012397u, 356177790u, 333331576u, 314695438u, 299143068u, 285924247u, 274518660u, 264553283u,
    251723234u, 237603748u, 225988229u, 216220836u, 207861812u, 200604241u, 194226788u, 188565408u,
    181151723u, 172827167u, 165845890u, 159880655u, 154705701u, 150159662u, 146123772u, 142508443u,
    137727226u, 132294424u, 127685250u, 123708053u, 120228434u, 117148979u, 114397122u, 111917542u,
    108617124u, 104837288u, 101605460u, 98798069u, 96327546u, 94129847u, 92156888u, 90371754u,
    87984707u, 85235367u, 82871296u, 80807593u, 78983659u, 77354892u, 75887621u, 74555866u,
    72768821u, 70701582u, 68916255u, 67351807u, 65964446u, 64721786u, 63599278u, 62577908u,
    61203529u, 59608119u, 58225429u, 57010062u, 55929305u, 54958882u, 54080327u, 53279298u,
    52198935u, 50941214u, 49848007u, 48884621u, 48025973u, 47253389u, 46552631u, 45912612u,
    45047731u, 44038416u, 43158952u, 42382233u, 41688604u, 41063399u, 40495407u, 39975881u,
    39272659u, 38450281u, 37732177u, 37096769u, 36528375u, 36015267u, 35548464u, 35120948u,
    34541428u, 33862477u, 33268511u, 32742079u, 32270469u, 31844161u, 31455851u, 31099821u,
    30616590u, 30049538u, 29552652u, 29111619u, 28715999u, 28357957u, 28031474u, 27731834u,
    27324679u, 26846218u, 26426350u, 26053194u, 25718071u, 25414460u, 25137342u, 24882782u,
    24536534u, 24129126u, 23771143u, 23452618u, 23166258u, 22906579u, 22669354u, 22451265u,
    22154354u, 21804597u, 21496910u, 21222850u, 20976233u, 20752402u, 20547765u, 20359499u,
    20102980u, 19800489u, 19534099u, 19296599u, 19082697u, 18888408u, 18710653u, 18547011u,
    18323876u, 18060505u, 17828340u, 17621174u, 17434448u, 17264722u, 17109340u, 16966208u,
    16770907u, 16540190u, 16336630u, 16154845u, 15990879u, 15841745u, 15705132u, 15579221u,
    15407311u, 15204065u, 15024597u, 14864211u, 14719451u, 14587707u, 14466959u, 14355614u,
    14203503u, 14023534u, 13864502u, 13722283u, 13593844u, 13476888u, 13369640u, 13270698u,
    13135459u, 12975345u, 12833759u, 12707065u, 12592582u, 12488282u, 12392594u, 12304279u,
    12183506u, 12040430u, 11913830u, 11800480u, 11698002u, 11604595u, 11518864u, 11439707u,
    11331409u, 11203037u, 11089380u, 10987564u, 10895470u, 10811491u, 10734382u, 10663160u,
    10565675u, 10450059u, 10347639u, 10255845u, 10172777u, 10096999u, 10027394u, 9963080u,
    9875016u, 9770520u, 9677904u, 9594857u, 9519675u, 9451063u, 9388018u, 9329747u,
    9249929u, 9155172u, 9071147u, 8995771u, 8927506u, 8865185u, 8807901u, 8754939u,
};

CC_INLINE uint64_t age_weight(uint32_t age)
{
    uint32_t from = age + 8;
    unsigned low = 28u - (unsigned)__builtin_clz(from | 8u);
    return age_weights[8 * low + ((from >> low) & 7)];
}

CC_INLINE uint32_t count_of(const cc_policy *policy, const cc_meta *meta)
{
    return cc_use_aged(meta->use, policy->epoch) & CC_COUNT_MAX;
}

/* frequency / ln(age + e)^2, in integers. */
CC_INLINE uint64_t score(const cc_policy *policy, const cc_meta *meta)
{
    return count_of(policy, meta) * age_weight((uint32_t)policy->tick - meta->tick);
}

CC_INLINE bool expired(const cc_meta *meta, uint32_t now)
{
    return meta->expiry - 1 < now; /* 0, never, wraps to the end of time */
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
    policy->opponents[0] = policy->opponents[1] = CC_NO_SLOT;
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
        room = (most + 1) & ~1ull; /* samples are lines of two records */
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

/* The first main entry from a random place on; there is one. */
static CC_COLD uint32_t any_main(cc_policy *policy)
{
    uint32_t slot = cc_random_below(&policy->random, policy->used);
    while (!in_main(policy, slot))
        slot = slot + 1 < policy->used ? slot + 1 : 0;
    return slot;
}

/* The first slot of a random line of two. */
CC_INLINE uint32_t draw_line(cc_policy *policy)
{
    return cc_random_below(&policy->random, (policy->used + 1) / 2) * 2;
}

/* An entry's worth, its top 32 bits of 48, above its slot: one comparison ranks two entries, and
   the minimum of several takes no branch, which could not be predicted. NO_RANK is above all. */
#define NO_RANK UINT64_MAX

CC_INLINE uint64_t rank(const cc_policy *policy, uint32_t slot, uint32_t now)
{
    const cc_meta *meta = &policy->records[slot].meta;
    uint64_t worth = score(policy, meta) << 16 & 0xFFFFFFFF00000000ull;
    if (CC_UNLIKELY(expired(meta, now)))
        worth = 0;
    return cc_meta_state(meta) == CC_MAIN ? worth | slot : NO_RANK;
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
            && CC_UNLIKELY(count_of(policy, meta) == 0 || expired(meta, now)))
            return slots[i];
    }
    return CC_NO_SLOT;
}

CC_INLINE bool asked_for_once(const cc_policy *policy, const cc_meta *challenger)
{
    return count_of(policy, challenger) <= 1;
}

uint32_t cc_policy_victim(cc_policy *policy, uint32_t now, cc_reason *reason)
{
    if (policy->live == 0)
        return CC_NO_SLOT;
    if (CC_UNLIKELY(policy->live < policy->paced / 2)) /* it fits far less than was thought */
        shorten_epoch(policy);
    policy->capacity = policy->live;
    if (CC_UNLIKELY(policy->capacity / 2 >= policy->fitted))
        fit(policy);
    uint32_t target = window_target(policy);
    for (unsigned moved = 0; policy->window > target && moved < MOVES; moved++)
        admit(policy, queue_end(policy));

    uint32_t main = policy->live - policy->window;
    if (main > 0 && policy->window < target) { /* the window has grown: main makes room */
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

bool cc_policy_prepare(cc_policy *policy, uint32_t leavers[2])
{
    uint32_t queued = policy->head - policy->tail;
    if (queued < AHEAD)
        return false;
    const cc_meta *meta = &policy->records[*ring_at(policy, policy->tail)].meta;
    bool once = asked_for_once(policy, meta);
    for (unsigned lines = once ? 1 : LINES; policy->drawn < lines;) {
        uint32_t line = draw_line(policy);
        CC_PREFETCH(&policy->records[line]);
        policy->draws[policy->drawn++] = line;
    }
    cc_policy_expect(policy, meta->hash);
    CC_PREFETCH_WRITE(&policy->records[*ring_at(policy, policy->tail + AHEAD - 1)]);
    leavers[0] = *ring_at(policy, policy->tail + AHEAD / 2);
    leavers[1] = once || !in_main(policy, policy->opponents[0]) ? leavers[0] : policy->opponents[0];
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
        moved[from] = to++;
    }
    memset(&policy->records[to], 0, (policy->used - to) * sizeof(cc_record));
    for (uint32_t at = policy->tail; at != policy->head; at++)
        *ring_at(policy, at) = moved[*ring_at(policy, at)];
    policy->opponents[0] = policy->opponents[1] = CC_NO_SLOT;
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
