/* cc_prefixes.h — blocks of tokens that follow one another: a tree of prefixes, its policy and its budget.
 *
 * Token sequences are cut into blocks of `width` tokens. A block is known by its tokens and by the block
 * above it, so sequences that begin alike share blocks, and a look-up walks from the first block down:
 *
 *     hash    of a block and all above it: 64-bit folded multiplies from a random seed, for the index alone
 *     equal   the hash's 32 bits, the slot of the block above, and all tokens: nothing is left to chance
 *     digest  BLAKE2b-128(digest of the block above | tokens, int32, little-endian): its name elsewhere
 *
 * A look-up hashes no digests: they are computed when a block comes. All hashes of a walk are known
 * before it begins, so lines of the index are fetched ahead of it.
 *
 * Only leaves leave, so that a block is never here without those above it. The next to leave is the one
 * with the lowest frequency / ln(age + e)^3, the score of cc_policy.h; ages are in look-ups and puts. It is
 * chosen among a few random leaves, the weakest of those seen before, and the block that the last one to
 * leave made a leaf: so an idle sequence goes from its end. Who walks to a block walks through those above
 * it, whose frequencies so count those of all blocks below.
 *
 * Not thread safe: the GIL, around it. */
#ifndef CC_PREFIXES_H
#define CC_PREFIXES_H

#include "cc_base.h"
#include "cc_blake2b.h"
#include "cc_index.h"

typedef struct {
    uint8_t digest[CC_DIGEST];
    uint8_t above[CC_DIGEST]; /* the digest of the block above, or the root's */
    uint32_t hash;
    uint32_t parent;   /* the slot of the block above; CC_ROOT: this is a first block */
    uint32_t children; /* blocks right below */
    uint32_t place;    /* among the leaves; CC_ROOT: it is none. Links free slots and those that left. */
    uint32_t use;      /* as in cc_policy.h, with a state of those below */
    uint32_t tick;     /* the tree's, at the last access */
    uint64_t size;     /* bytes, of the budget */
} cc_prefix;

static_assert(sizeof(cc_prefix) == CC_LINE, "a step of a walk must cost one line, and its tokens");

#define CC_ROOT UINT32_MAX
/* States of a slot, and a flag beside them: the block is in a tier below, too. */
enum { CC_PREFIX_FREE, CC_PREFIX_HERE, CC_PREFIX_LEFT, CC_PREFIX_KEPT = 4 };
enum { CC_PREFIX_STATE_SHIFT = 24 };

typedef struct {
    uint8_t root[CC_DIGEST]; /* the digest above the first blocks */
    uint32_t width;          /* tokens in a block */
    uint64_t seed, random;
    uint64_t bytes, max_bytes;
    cc_index index;
    cc_prefix *blocks;
    int32_t *tokens;  /* `width` for each slot */
    uint32_t *leaves; /* slots, in no order */
    uint32_t leaf_count;
    uint32_t room, used, free; /* slots: allocated, ever used, the first free one */
    uint32_t live;
    uint32_t epoch;  /* of frequencies, which halve with each */
    uint32_t tick;   /* look-ups and puts so far, modulo 2^32: a sequence's blocks age as one */
    uint64_t accesses, next_epoch; /* to blocks */
    uint32_t met[2]; /* the weakest leaf of those that stayed last time; the new leaf since then */
} cc_prefixes;

/* Takes no memory yet. */
void cc_prefixes_init(cc_prefixes *tree, uint32_t width, uint64_t max_bytes, uint64_t seed,
                      const uint8_t root[CC_DIGEST]);
void cc_prefixes_free(cc_prefixes *tree);

/* Bytes that the tree needs for each block, its owner's aside. */
size_t cc_prefixes_overhead(const cc_prefixes *tree);

/* The hashes of `count` blocks that follow a block of hash *chain, 0 for the root; *chain: the last. */
void cc_prefixes_hash(const cc_prefixes *tree, const int32_t *tokens, size_t count, uint64_t *chain,
                      uint32_t *hashes);

/* The slots of the first blocks of `count`: as many as are here, which is returned. No access. */
size_t cc_prefixes_walk(const cc_prefixes *tree, const int32_t *tokens, size_t count, uint32_t *slots);

/* A look-up: counts an access to each of these blocks. */
void cc_prefixes_hit(cc_prefixes *tree, const uint32_t *slots, size_t count);

/* Makes sure that one more block can be added without memory; false: none to be had. */
bool cc_prefixes_reserve(cc_prefixes *tree);

/* Adds a block that is not here, below `parent`, after cc_prefixes_reserve. The caller counts the put:
   `tick`. */
uint32_t cc_prefixes_add(cc_prefixes *tree, uint32_t parent, uint32_t hash, const int32_t *tokens,
                         uint64_t size, bool kept);

/* The leaf that is to leave next, but not `spare`; CC_ROOT: there is no other. */
uint32_t cc_prefixes_victim(cc_prefixes *tree, uint32_t spare);

/* Takes a leaf out. Its slot, with the digests and tokens, is the caller's until it is given back. */
void cc_prefixes_take(cc_prefixes *tree, uint32_t slot);
void cc_prefixes_give_back(cc_prefixes *tree, uint32_t slot);

uint32_t cc_prefixes_frequency(const cc_prefixes *tree, uint32_t slot);

/* True when every count, link, hash and digest agrees with the blocks. */
bool cc_prefixes_valid(const cc_prefixes *tree);

CC_INLINE unsigned cc_prefix_state(const cc_prefix *block)
{
    return block->use >> CC_PREFIX_STATE_SHIFT & ~(unsigned)CC_PREFIX_KEPT;
}

CC_INLINE bool cc_prefix_kept(const cc_prefix *block)
{
    return block->use >> CC_PREFIX_STATE_SHIFT & CC_PREFIX_KEPT;
}

CC_INLINE const int32_t *cc_prefix_tokens(const cc_prefixes *tree, uint32_t slot)
{
    return tree->tokens + (size_t)slot * tree->width;
}

#endif
