/* cc_policy.c — see cc_policy.h. */
#include "cc_policy.h"

#include "cc_pages.h"

#include <string.h>

enum {
    EPOCH_ACCESSES = 30,     /* x capacity: accesses between two halvings of all counts ... */
    EPOCH_LEAST = 5000,      /* ... but at least so many */
    LINES = 4,               /* lines of two records looked at for a weaker opponent ... */
    LINES_FIRST = 8,         /* ... when there is none from before */
    LINES_ONCE = 1,          /* ... when the challenger was asked for once: it will hardly win */
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

/* 2^32 / ln(age + e)^2 for ages 0 ... 7 and then for eight steps in each power of two:
   index = 8 * (log2(age) - 2) + the three bits after the first. */
static const uint32_t age_weights[240] = {
    4294967295u, 2490332361u, 1784379615u, 1412641878u, 1183712689u, 1028422496u, 915956184u, 830568709u,
    763393547u, 709061057u, 664130334u, 626294530u, 593948872u, 565942089u, 541426457u, 519763684u,
    491576996u, 460231499u, 434245312u, 412295634u, 393467620u, 377107500u, 362735062u, 349989243u,
    333331576u, 314695438u, 299143068u, 285924247u, 274518660u, 264553283u, 255753180u, 247910900u,
    237603748u, 225988229u, 216220836u, 207861812u, 200604241u, 194226788u, 188565408u, 183495676u,
    176795597u, 169192036u, 162752223u, 157205679u, 152362301u, 148084113u, 144268256u, 140836289u,
    136278309u, 131073641u, 126637737u, 122795823u, 119424243u, 116432713u, 113753562u, 111334932u,
    108109205u, 104406315u, 101233403u, 98472333u, 96039029u, 93871786u, 91924133u, 90160309u,
    87799504u, 85077362u, 82734244u, 80687103u, 78876539u, 77258759u, 75800652u, 74476640u,
    72699167u, 70641897u, 68864287u, 67305965u, 65923567u, 64685000u, 63565916u, 62547447u,
    61176666u, 59585018u, 58205251u, 56992212u, 55913348u, 54944490u, 54067248u, 53267333u,
    52188356u, 50932089u, 49840015u, 48877535u, 48019624u, 47247653u, 46547409u, 45907827u,
    45043491u, 44034748u, 43155733u, 42379373u, 41686037u, 41061075u, 40493288u, 39973937u,
    39270933u, 38448785u, 37730861u, 37095598u, 36527322u, 36014313u, 35547593u, 35120148u,
    34540717u, 33861859u, 33267967u, 32741593u, 32270032u, 31843765u, 31455488u, 31099488u,
    30616293u, 30049280u, 29552424u, 29111415u, 28715815u, 28357790u, 28031321u, 27731693u,
    27324554u, 26846109u, 26426253u, 26053108u, 25717994u, 25414389u, 25137278u, 24882723u,
    24536481u, 24129080u, 23771102u, 23452581u, 23166225u, 22906549u, 22669326u, 22451239u,
    22154331u, 21804577u, 21496892u, 21222834u, 20976219u, 20752389u, 20547753u, 20359488u,
    20102970u, 19800481u, 19534092u, 19296592u, 19082691u, 18888402u, 18710648u, 18547006u,
    18323872u, 18060501u, 17828337u, 17621171u, 17434446u, 17264720u, 17109337u, 16966206u,
    16770905u, 16540188u, 16336628u, 16154844u, 15990878u, 15841743u, 15705131u, 15579220u,
    15407310u, 15204064u, 15024596u, 14864210u, 14719451u, 14587707u, 14466958u, 14355614u,
    14203502u, 14023534u, 13864502u, 13722283u, 13593844u, 13476888u, 13369640u, 13270698u,
    13135459u, 12975345u, 12833759u, 12707065u, 12592582u, 12488282u, 12392594u, 12304279u,
    12183506u, 12040430u, 11913830u, 11800480u, 11698002u, 11604595u, 11518864u, 11439707u,
    11331409u, 11203037u, 11089380u, 10987564u, 10895470u, 10811491u, 10734382u, 10663160u,
    10565675u, 10450059u, 10347639u, 10255845u, 10172777u, 10096999u, 10027394u, 9963079u,
    9875016u, 9770520u, 9677904u, 9594857u, 9519675u, 9451063u, 9388018u, 9329747u,
    9249929u, 9155172u, 9071147u, 8995771u, 8927506u, 8865185u, 8807901u, 8754939u,
};

CC_INLINE uint64_t age_weight(uint32_t age)
{
    unsigned top = cc_log2_floor(age | 8);
    return age_weights[age < 8 ? age : 8 * (top - 2) + ((age >> (top - 3)) & 7)];
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

typedef struct {
    uint64_t least, next;
} weakest_two;

CC_INLINE void consider(weakest_two *found, uint64_t rank)
{
    uint64_t greater = rank > found->least ? rank : found->least;
    found->least = rank < found->least ? rank : found->least;
    found->next = greater < found->next ? greater : found->next;
}

/* The main entry that is worth least among those looked at; there is a main entry. */
static uint32_t weakest(cc_policy *policy, uint32_t now, unsigned lines)
{
    weakest_two found = {NO_RANK, NO_RANK};
    for (unsigned i = 0; i < 2; i++)
        if (CC_LIKELY(policy->opponents[i] < policy->used))
            consider(&found, rank(policy, policy->opponents[i], now));
    if (CC_UNLIKELY(found.least == NO_RANK))
        lines = LINES_FIRST;
    while (lines-- > 0) {
        uint32_t slot = policy->drawn > 0 ? policy->draws[--policy->drawn] : draw_line(policy);
        consider(&found, rank(policy, slot, now));
        consider(&found, rank(policy, slot + 1, now));
    }
    policy->opponents[0] = found.least == NO_RANK ? any_main(policy) : (uint32_t)found.least;
    policy->opponents[1] = (uint32_t)found.next; /* of NO_RANK: CC_NO_SLOT */
    return policy->opponents[0];
}

/* Lines to look at for a challenger. */
static unsigned lines_for(const cc_policy *policy, const cc_meta *challenger)
{
    return count_of(policy, challenger) <= 1 ? LINES_ONCE : LINES;
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
        uint32_t victim = weakest(policy, now, LINES);
        *reason = expired(&policy->records[victim].meta, now) ? CC_EXPIRED : CC_EVICTED;
        return victim;
    }
    uint32_t candidate = queue_end(policy);
    const cc_meta *meta = &policy->records[candidate].meta;
    *reason = expired(meta, now) ? CC_EXPIRED : CC_REJECTED;
    if (main == 0 || *reason == CC_EXPIRED)
        return candidate;
    uint32_t victim = weakest(policy, now, lines_for(policy, meta));
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
    if (policy->head - policy->tail < 2)
        return CC_NO_SLOT;
    uint32_t slot = *ring_at(policy, policy->tail);
    const cc_meta *meta = &policy->records[slot].meta; /* fetched one call ago */
    for (unsigned lines = lines_for(policy, meta); policy->drawn < lines;) {
        uint32_t line = draw_line(policy);
        CC_PREFETCH(&policy->records[line]);
        policy->draws[policy->drawn++] = line;
    }
    CC_PREFETCH_WRITE(&policy->records[*ring_at(policy, policy->tail + 1)]);
    cc_sketch_prefetch(&policy->sketch, meta->hash);
    cc_ghosts_prefetch(&policy->ghosts, meta->hash);
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
