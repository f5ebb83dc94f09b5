/* cc_prefixes.c — see cc_prefixes.h. */
#include "cc_prefixes.h"

#include "cc_age.h"
#include "cc_policy.h"

#include <stdlib.h>
#include <string.h>

enum {
    DRAWS = 8,       /* random leaves that a victim is chosen from */
    EPOCH = 60,      /* accesses for each block that is here, until frequencies halve */
    AHEAD = 8,       /* steps of a walk for which the index is fetched ahead */
    STRETCH = 64,    /* blocks that are hashed at a time: a walk may end soon */
    FIRST_ROOM = 64, /* slots */
    MOST_SLOTS = 1 << 30,
};

void cc_prefixes_init(cc_prefixes *tree, uint32_t width, uint64_t max_bytes, uint64_t seed,
                      const uint8_t root[CC_DIGEST])
{
    memset(tree, 0, sizeof *tree);
    memcpy(tree->root, root, CC_DIGEST);
    tree->width = width;
    tree->max_bytes = max_bytes;
    tree->seed = cc_mix64(seed, 0x6C62272E07BB0142ull) | 1;
    tree->random = seed | 1;
    tree->free = tree->met[0] = tree->met[1] = CC_ROOT;
    cc_index_init(&tree->index);
}

void cc_prefixes_free(cc_prefixes *tree)
{
    free(tree->blocks);
    free(tree->tokens);
    free(tree->leaves);
    cc_index_free(&tree->index);
}

size_t cc_prefixes_overhead(const cc_prefixes *tree)
{
    return sizeof(cc_prefix) + tree->width * sizeof *tree->tokens + sizeof *tree->leaves
           + sizeof(cc_chunk) / CC_CHUNK_FILL;
}

/* --- look-ups --- */

void cc_prefixes_hash(const cc_prefixes *tree, const int32_t *tokens, size_t count, uint64_t *chain,
                      uint32_t *hashes)
{
    uint64_t hash = *chain;
    for (size_t i = 0; i < count; i++, tokens += tree->width) {
        /* Words are mixed with seeds of their own, so that none waits for the one before. */
        uint64_t sum = tree->seed, seed = tree->seed;
        uint32_t at = 0;
        for (; at + 4 <= tree->width; at += 4) {
            uint64_t words[2];
            memcpy(words, tokens + at, sizeof words);
            seed += 0x9E3779B97F4A7C15ull;
            sum += cc_fold64(words[0] ^ seed, words[1] ^ ~tree->seed);
        }
        for (; at < tree->width; at++) {
            seed += 0x9E3779B97F4A7C15ull;
            sum += cc_fold64((uint32_t)tokens[at] ^ seed, ~tree->seed);
        }
        hash = cc_mix64(hash ^ sum, tree->seed);
        hashes[i] = (uint32_t)(hash >> 32);
    }
    *chain = hash;
}

static uint32_t find(const cc_prefixes *tree, uint32_t parent, uint32_t hash, const int32_t *tokens)
{
    const cc_index *index = &tree->index;
    unsigned tag = cc_index_tag(hash);
    for (uint32_t at = cc_index_home(index, hash);; at = cc_index_next(index, at, tag)) {
        const cc_chunk *chunk = &index->chunks[at];
        for (cc_matches same = cc_chunk_match(chunk, tag); same; same &= same - 1) {
            uint32_t slot = chunk->slot[cc_matches_first(same)];
            const cc_prefix *block = &tree->blocks[slot];
            if (block->hash == hash && block->parent == parent
                && memcmp(cc_prefix_tokens(tree, slot), tokens, tree->width * sizeof *tokens) == 0)
                return slot;
        }
        if (chunk->overflow == 0)
            return CC_ROOT;
    }
}

size_t cc_prefixes_walk(const cc_prefixes *tree, const int32_t *tokens, size_t count, uint32_t *slots)
{
    const cc_index *index = &tree->index;
    uint32_t hashes[STRETCH], at = CC_ROOT;
    uint64_t chain = 0;
    for (size_t start = 0; start < count; start += STRETCH) {
        size_t some = count - start < STRETCH ? count - start : STRETCH;
        cc_prefixes_hash(tree, tokens + start * tree->width, some, &chain, hashes);
        for (size_t i = 0; i < some; i++) {
            if (i + AHEAD < some)
                CC_PREFETCH(&index->chunks[cc_index_home(index, hashes[i + AHEAD])]);
            at = find(tree, at, hashes[i], tokens + (start + i) * tree->width);
            if (at == CC_ROOT)
                return start + i;
            slots[start + i] = at;
        }
    }
    return count;
}

/* --- frequency and age --- */

static void count_access(cc_prefixes *tree, cc_prefix *block)
{
    if (CC_UNLIKELY(++tree->accesses >= tree->next_epoch)) {
        tree->epoch++;
        tree->next_epoch = tree->accesses + (uint64_t)EPOCH * (tree->live + FIRST_ROOM);
    }
    block->use = cc_use_hit(block->use, tree->epoch) & ~CC_VISITED;
    block->tick = tree->tick;
}

void cc_prefixes_hit(cc_prefixes *tree, const uint32_t *slots, size_t count)
{
    tree->tick++;
    for (size_t i = 0; i < count; i++)
        count_access(tree, &tree->blocks[slots[i]]);
}

uint32_t cc_prefixes_frequency(const cc_prefixes *tree, uint32_t slot)
{
    return cc_use_count(cc_use_aged(tree->blocks[slot].use, tree->epoch));
}

static uint64_t score(const cc_prefixes *tree, uint32_t slot)
{
    return cc_prefixes_frequency(tree, slot)
           * cc_age_weight(tree->tick - tree->blocks[slot].tick);
}

/* --- leaves --- */

static void add_leaf(cc_prefixes *tree, uint32_t slot)
{
    tree->blocks[slot].place = tree->leaf_count;
    tree->leaves[tree->leaf_count++] = slot;
}

static void drop_leaf(cc_prefixes *tree, uint32_t slot)
{
    uint32_t last = tree->leaves[--tree->leaf_count];
    tree->leaves[tree->blocks[slot].place] = last;
    tree->blocks[last].place = tree->blocks[slot].place;
    tree->blocks[slot].place = CC_ROOT;
}

static bool is_here(const cc_prefixes *tree, uint32_t slot)
{
    return slot < tree->used && cc_prefix_state(&tree->blocks[slot]) == CC_PREFIX_HERE;
}

static bool is_leaf(const cc_prefixes *tree, uint32_t slot)
{
    return is_here(tree, slot) && tree->blocks[slot].children == 0;
}

uint32_t cc_prefixes_victim(cc_prefixes *tree, uint32_t spare)
{
    uint32_t weakest = CC_ROOT, second = CC_ROOT;
    uint64_t lowest = UINT64_MAX, next = UINT64_MAX;
    uint32_t few = tree->leaf_count < DRAWS ? tree->leaf_count : DRAWS;
    for (uint32_t i = 0; i < few + 2; i++) {
        uint32_t slot = i < 2 ? tree->met[i]
                        : few < DRAWS
                            ? tree->leaves[i - 2]
                            : tree->leaves[cc_random_below(&tree->random, tree->leaf_count)];
        if (slot == spare || slot == weakest || slot == second || !is_leaf(tree, slot))
            continue;
        uint64_t worth = score(tree, slot);
        if (worth < lowest || weakest == CC_ROOT) {
            second = weakest;
            next = lowest;
            weakest = slot;
            lowest = worth;
        } else if (worth < next || second == CC_ROOT) {
            second = slot;
            next = worth;
        }
    }
    if (weakest == CC_ROOT && tree->leaf_count > 1) /* every draw was `spare` */
        weakest = tree->leaves[tree->leaves[0] == spare];
    tree->met[0] = second;
    return weakest;
}

/* --- blocks that come and go --- */

/* `array` with room for more; on failure NULL, and it is as it was. */
#define GROW(array, room, items) \
    ((more = realloc(array, (size_t)(room) * (items) * sizeof *(array))) != NULL && ((array) = more, true))

bool cc_prefixes_reserve(cc_prefixes *tree)
{
    if (tree->free == CC_ROOT && tree->used == tree->room) {
        uint32_t room = tree->room ? 2 * tree->room : FIRST_ROOM;
        void *more;
        if (room > MOST_SLOTS || !GROW(tree->blocks, room, 1)
            || !GROW(tree->tokens, room, tree->width) || !GROW(tree->leaves, room, 1))
            return false;
        tree->room = room;
    }
    if (cc_index_full(&tree->index)) {
        cc_index old = tree->index;
        if (!cc_index_alloc(&tree->index, 2 * old.entries + FIRST_ROOM))
            return false;
        for (uint32_t slot = 0; slot < tree->used; slot++)
            if (is_here(tree, slot))
                cc_index_add(&tree->index, tree->blocks[slot].hash, slot);
        cc_index_free(&old);
    }
    return true;
}

uint32_t cc_prefixes_add(cc_prefixes *tree, uint32_t parent, uint32_t hash, const int32_t *tokens,
                         uint64_t size, bool kept)
{
    uint32_t slot = tree->free;
    if (slot == CC_ROOT)
        slot = tree->used++;
    else
        tree->free = tree->blocks[slot].place;
    cc_prefix *block = &tree->blocks[slot];
    size_t width = tree->width * sizeof *tokens;
    memcpy(block->above, parent == CC_ROOT ? tree->root : tree->blocks[parent].digest, CC_DIGEST);
    cc_blake2b_link(block->digest, block->above, tokens, width);
    memcpy(tree->tokens + (size_t)slot * tree->width, tokens, width);
    block->hash = hash;
    block->parent = parent;
    block->children = 0;
    block->size = size;
    block->use = (uint32_t)(CC_PREFIX_HERE | (kept ? CC_PREFIX_KEPT : 0)) << CC_PREFIX_STATE_SHIFT
                 | (tree->epoch & 0xFF) << CC_USE_EPOCH_SHIFT;
    count_access(tree, block);
    if (parent != CC_ROOT && tree->blocks[parent].children++ == 0)
        drop_leaf(tree, parent);
    add_leaf(tree, slot);
    cc_index_add(&tree->index, hash, slot);
    tree->live++;
    tree->bytes += size;
    return slot;
}

void cc_prefixes_take(cc_prefixes *tree, uint32_t slot)
{
    cc_prefix *block = &tree->blocks[slot];
    CC_ASSERT(is_leaf(tree, slot));
    cc_index_remove(&tree->index, block->hash, slot);
    drop_leaf(tree, slot);
    if (block->parent != CC_ROOT && --tree->blocks[block->parent].children == 0)
        add_leaf(tree, block->parent);
    tree->met[1] = block->parent;
    tree->live--;
    tree->bytes -= block->size;
    block->use ^= (uint32_t)(CC_PREFIX_HERE ^ CC_PREFIX_LEFT) << CC_PREFIX_STATE_SHIFT;
}

void cc_prefixes_give_back(cc_prefixes *tree, uint32_t slot)
{
    CC_ASSERT(cc_prefix_state(&tree->blocks[slot]) == CC_PREFIX_LEFT);
    tree->blocks[slot].use = CC_PREFIX_FREE;
    tree->blocks[slot].place = tree->free;
    tree->free = slot;
}

/* --- for tests --- */

static bool block_valid(const cc_prefixes *tree, uint32_t slot, uint32_t *children)
{
    const cc_prefix *block = &tree->blocks[slot];
    const uint8_t *above = tree->root;
    uint8_t digest[CC_DIGEST];
    if (block->parent != CC_ROOT) {
        if (!is_here(tree, block->parent))
            return false;
        above = tree->blocks[block->parent].digest;
        children[block->parent]++;
    }
    cc_blake2b_link(digest, above, cc_prefix_tokens(tree, slot), tree->width * sizeof(int32_t));
    bool leaf = block->children == 0;
    return memcmp(block->above, above, CC_DIGEST) == 0
           && memcmp(block->digest, digest, CC_DIGEST) == 0
           && cc_index_has(&tree->index, block->hash, slot)
           && find(tree, block->parent, block->hash, cc_prefix_tokens(tree, slot)) == slot
           && leaf == (block->place != CC_ROOT)
           && (!leaf || (block->place < tree->leaf_count && tree->leaves[block->place] == slot));
}

bool cc_prefixes_valid(const cc_prefixes *tree)
{
    uint32_t live = 0, leaves = 0, *children = calloc(tree->used + 1, sizeof *children);
    uint64_t bytes = 0;
    bool valid = children != NULL && tree->bytes <= tree->max_bytes;
    for (uint32_t slot = 0; valid && slot < tree->used; slot++) {
        if (!is_here(tree, slot))
            continue;
        valid = block_valid(tree, slot, children);
        live++;
        leaves += tree->blocks[slot].children == 0;
        bytes += tree->blocks[slot].size;
    }
    for (uint32_t slot = 0; valid && slot < tree->used; slot++)
        valid = !is_here(tree, slot) || tree->blocks[slot].children == children[slot];
    free(children);
    return valid && live == tree->live && leaves == tree->leaf_count && bytes == tree->bytes
           && live == tree->index.entries;
}
