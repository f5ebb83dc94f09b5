/* cc_vectors.h — a table of fixed-width rows by int64 id, which threads and processes share.
 *
 * One segment holds everything, addressed by offsets; ids are dealt to stripes by their hash, and a
 * stripe owns its part of every array, so that one lock serves for an eviction:
 *
 *     table | now | stripes | chunks | records | rings | ghosts | sketches | rows
 *
 * A record (cc_policy.h) has the id in its first word; the second is the number of its row and, above,
 * a version that is odd while the entry is there. Rows are replaced out of place: a writer fills a row
 * that nobody can reach and then stores the second word, in one piece. So readers take no lock: they
 * look for the id, read the word, copy, and read the word again; if it changed they begin again.
 *
 *     writer  row; word (release); tag (release)          removal  tag = 0; word (release); row is free
 *     reader  tag -> word (acquire), id -> copy -> fence -> word
 *
 * Free rows are linked through their first bytes. A writer that dies with the lock leaves a stripe that
 * the next one rebuilds from records and chunks: an entry counts if its word is odd and the index finds
 * it. A stopped one keeps its stripe: others give up after a while.
 *
 * Readers write to a record only its count and tick (cc_meta_hit). Ticks are counted once a batch for
 * the whole table, and a stripe's are the table's by the number of stripes.
 *
 * The protocol is that of a sequence lock for each record (Lameter, 2005; Boehm, "Can seqlocks get along
 * with programming language memory models?", 2012), the index that of cc_index.h. */
#ifndef CC_VECTORS_H
#define CC_VECTORS_H

#include "cc_index.h"
#include "cc_policy.h"
#include "cc_segment.h"

#include <pthread.h>

typedef struct {
    uint64_t accesses;   /* ids gathered and put, in all stripes */
    uint64_t live;       /* rows, as the stripes counted them */
    uint32_t generation; /* of the contents */
    uint64_t secret;     /* of the ids' hashes */
} cc_vectors_table;

/* What readers need of a stripe, together for all stripes: it stays in the nearest cache. */
typedef struct {
    uint32_t generation; /* of the contents; another than the table's: there are none */
    uint32_t epoch;      /* the policy's */
} cc_stripe_now;

typedef struct {
    _Alignas(CC_LINE) pthread_mutex_t lock;
    cc_policy policy; /* its pointers and the index' are those of whoever holds the lock */
    cc_index index;
    uint32_t free_row; /* first of the list; CC_NO_SLOT: none */
    uint32_t counted;  /* rows that the table's count has from here */
    bool dirty;        /* somebody died in the middle: to be rebuilt */
    uint64_t left[4];  /* rows that left, by cc_reason */
    uint64_t inserts;
} cc_stripe;

/* Sizes that follow from row width and capacity, and where the arrays begin. */
typedef struct {
    uint32_t stripes;
    uint32_t limit;  /* entries of a stripe */
    uint32_t slots;  /* records of a stripe */
    uint32_t chunks; /* of its index; a power of two, of which `shift` is 32 - the logarithm */
    uint32_t shift;
    uint32_t rows; /* of a stripe: its limit, and some to write to */
    uint32_t ghosts, lines;
    size_t width, stride; /* of a row, bytes */
    size_t now_at, stripes_at, chunks_at, records_at, rings_at, ghosts_at, counters_at, epochs_at;
    size_t rows_at, size;
} cc_vectors_layout;

typedef struct {
    cc_segment segment;
    cc_vectors_layout layout;
    cc_vectors_table *table;
    cc_stripe_now *now;
    cc_stripe *stripes;
    cc_chunk *chunks;
    cc_record *records;
    uint32_t *rings, *ghosts;
    uint8_t *counters, *epochs;
    unsigned char *rows;
    uint64_t capacity, secret;
} cc_vectors;

typedef enum {
    CC_VECTORS_OK,
    CC_VECTORS_BUSY,   /* a lock was not to be had within a second: its holder is stopped */
    CC_VECTORS_MEMORY, /* none for the order of a batch, or for what a dead writer left */
} cc_vectors_result;

/* A private table in anonymous memory; false: none to be had. */
bool cc_vectors_anonymous(cc_vectors *vectors, uint64_t capacity, size_t width, uint64_t seed);

void cc_vectors_close(cc_vectors *vectors);

/* For the child of a fork, of a private table: locks that other threads held are nobody's now. */
void cc_vectors_forked(cc_vectors *vectors);

/* Copies the rows of n ids to `out`, one after another; those not there become zero. Returns how many
   were there; *found tells which. Takes no lock. */
size_t cc_vectors_gather(cc_vectors *vectors, const int64_t *ids, size_t n, unsigned char *out,
                         bool *found);

/* Which of n ids are there, without accounting. */
size_t cc_vectors_find(const cc_vectors *vectors, const int64_t *ids, size_t n, bool *found);

/* Sets the rows of n ids; of an id that comes twice the last one stays. BUSY: some were not set. */
cc_vectors_result cc_vectors_put(cc_vectors *vectors, const int64_t *ids, size_t n,
                                 const unsigned char *rows);

/* Removes n ids; *removed counts those that were there. */
cc_vectors_result cc_vectors_delete(cc_vectors *vectors, const int64_t *ids, size_t n, size_t *removed);

/* Makes every row missing, in constant time. */
void cc_vectors_clear(cc_vectors *vectors);

#endif
