/* cc_vectors.h — a table of fixed-width rows by int64 id, which threads and processes share.
 *
 * One segment holds everything, addressed by offsets; ids are dealt to stripes by their hash, and a
 * stripe owns its part of every array, so that one lock serves for an eviction:
 *
 *     table | now | counts | stripes | chunks | records | rings | ghosts | sketches | sums | rows
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
 * Whoever opens a file that nobody else has open begins a session: locks are made anew, since their
 * holders are gone, and every stripe is rebuilt by its first writer, whatever happened to the file.
 *
 * Contents have a generation. Stripes of another one are empty, to readers at once, to themselves when
 * a writer comes: so all rows go in constant time when the table is cleared or opened for another
 * version. Rows expire at a time counted from their generation's birth, in units of 10 ms.
 *
 * How many rows there are is told by each stripe for itself. A writer first announces what it may add
 * and then adds up what all announced, so that two never exceed the capacity together.
 *
 * Readers write to a record only its count and tick (cc_meta_hit). Ticks are counted once a batch for
 * the whole table, and a stripe's are the table's by the number of stripes.
 *
 * The protocol is that of a sequence lock for each record (Lameter, 2005; Boehm, "Can seqlocks get along
 * with programming language memory models?", 2012), the index that of cc_narrow.h. */
#ifndef CC_VECTORS_H
#define CC_VECTORS_H

#include "cc_narrow.h"
#include "cc_policy.h"
#include "cc_row.h"
#include "cc_segment.h"

#include <pthread.h>

/* What a table is made for. A file keeps it, and only an equal one opens the file. */
typedef struct {
    uint64_t capacity; /* rows; below 2^32 */
    uint64_t width;    /* bytes of a row as it is put and gathered */
    uint64_t ttl;      /* units of 10 ms that a row lives; 0: until it is evicted; below 2^31 */
    uint64_t codec;    /* a cc_codec; int8 only for rows of float32 */
    uint64_t sums;     /* 1: rows have checksums */
    uint64_t kind[5];  /* of the rows' items, in their owner's words */
} cc_vectors_shape;

typedef struct {
    uint64_t secret; /* of the ids' hashes, ... */
    uint64_t proof;  /* ... and what follows from it */
    _Alignas(CC_LINE) uint64_t contents; /* generation in the upper half, its birth in seconds below */
    uint32_t turn;       /* counts changes of version */
    uint32_t session;    /* and openings by somebody alone */
    uint64_t version[2]; /* of the contents: a digest */
    char boot[40];       /* of the machine that opened it last */
    uint32_t clean;      /* everything is on the disk */
    _Alignas(CC_LINE) uint64_t gathered; /* ids looked up, ... */
    uint64_t written;                    /* ... and put or deleted: both are accesses */
    uint64_t misses, damaged, refused;
} cc_vectors_table;

/* What readers need of a stripe, together for all stripes: it stays in the nearest cache. */
typedef struct {
    uint32_t generation; /* of the contents; another than the table's: there are none */
    uint32_t epoch;      /* the policy's */
} cc_stripe_now;

typedef struct {
    _Alignas(CC_LINE) pthread_mutex_t lock;
    cc_policy policy; /* its pointers and the index' are those of whoever holds the lock */
    cc_narrow index;
    uint32_t free_row;  /* first of the list; CC_NO_SLOT: none */
    uint32_t fresh_row; /* rows from here on were never used */
    uint32_t seal;      /* in a file: what all from `policy` to here adds up to while nobody has the lock */
    uint32_t session;   /* that it was last rebuilt in */
    uint32_t pinned;    /* rows that views hold */
    uint32_t dirty;     /* not 0: somebody died in the middle, and it is to be rebuilt */
    uint64_t left[4];  /* rows that left, by cc_reason */
    uint64_t inserts;
} cc_stripe;

/* Sizes that follow from row width and capacity, and where the arrays begin. */
typedef struct {
    uint32_t stripes;
    uint32_t limit;  /* entries of a stripe */
    uint32_t slots;  /* records of a stripe */
    uint32_t chunks; /* of its index */
    uint32_t ring;   /* places of its window */
    uint32_t sketch; /* bytes of its sketch's counters */
    uint32_t rows; /* of a stripe: its limit, some to write to, and those that views may keep */
    uint32_t pins; /* of a stripe, at most */
    uint32_t ghosts, lines;
    size_t stored, stride; /* bytes of a row in the table, and from one to the next */
    size_t now_at, counts_at, stripes_at, chunks_at, records_at, rings_at, ghosts_at, counters_at;
    size_t epochs_at, sums_at, rows_at, size;
} cc_vectors_layout;

typedef struct {
    cc_segment segment;
    cc_vectors_shape shape;
    cc_vectors_layout layout;
    cc_vectors_table *table;
    cc_stripe_now *now;
    uint64_t *counts; /* of stripes: generation above, rows below */
    cc_stripe *stripes;
    cc_narrow_chunk *chunks;
    cc_record *records;
    uint16_t *rings;
    uint32_t  *ghosts;
    uint8_t *counters, *epochs;
    uint32_t *sums;
    unsigned char *rows;
    uint32_t *pins; /* of each row: views, and whether it has left the table; NULL: none yet */
    uint64_t secret;
    uint32_t turn;    /* of the version that it was opened for */
    bool shared;      /* a file; else private memory */
    int64_t ahead_ms; /* of the clock: for tests */
} cc_vectors;

typedef struct {
    uint64_t gathered, misses, inserts, left[4] /* by cc_reason */, live, damaged, refused, pinned;
} cc_vectors_counts;

typedef enum {
    CC_VECTORS_OK,
    CC_VECTORS_BUSY,     /* a lock was not to be had within a second: its holder is stopped */
    CC_VECTORS_MEMORY,   /* none for the order of a batch, or for what a dead writer left */
    CC_VECTORS_OUTDATED, /* the table has been opened for another version */
    CC_VECTORS_MISSING,  /* there is no such row */
    CC_VECTORS_PINNED,   /* views hold as many rows as they may */
} cc_vectors_result;

/* Where things are in a table of this shape; false: it would be larger than memory can be. */
bool cc_vectors_lay_out(cc_vectors_layout *layout, const cc_vectors_shape *shape, bool shared);

/* A private table in anonymous memory; false: none to be had. */
bool cc_vectors_anonymous(cc_vectors *vectors, const cc_vectors_shape *shape, uint64_t seed);

/* The table in the file at `path`, which is made if there is none. Contents of another version go.
   FAILED with EAGAIN: somebody who is opening it is stopped. *made: the shape of a file that is
   refused for it. */
cc_segment_result cc_vectors_file(cc_vectors *vectors, const char *path, const cc_vectors_shape *shape,
                                  const uint64_t version[2], uint64_t seed, cc_vectors_shape *made);

/* The last one to close a file writes it to the disk. */
void cc_vectors_close(cc_vectors *vectors);

/* For the child of a fork. In a private table, locks that other threads held are nobody's now. */
void cc_vectors_forked(cc_vectors *vectors);

/* Copies the rows of n ids to `out`, one after another; those not there become zero. Returns how many
   were there; *found tells which. Takes no lock. Shares the work among that many threads, if it is
   enough for them. */
size_t cc_vectors_gather(cc_vectors *vectors, const int64_t *ids, size_t n, unsigned char *out,
                         bool *found, unsigned threads);

/* Which of n ids are there, without accounting. */
size_t cc_vectors_find(const cc_vectors *vectors, const int64_t *ids, size_t n, bool *found);

/* Sets the rows of n ids; of an id that comes twice the last one stays. BUSY: *done were set. */
cc_vectors_result cc_vectors_put(cc_vectors *vectors, const int64_t *ids, size_t n,
                                 const unsigned char *rows, size_t *done);

/* Removes n ids; *removed counts those that were there. */
cc_vectors_result cc_vectors_delete(cc_vectors *vectors, const int64_t *ids, size_t n, size_t *removed);

/* Finds a row of a private table, as gathering does, and keeps it where it is, unchanged, until it is
   unpinned by its number. */
cc_vectors_result cc_vectors_pin(cc_vectors *vectors, int64_t id, const unsigned char **row,
                                 uint64_t *number);
void cc_vectors_unpin(cc_vectors *vectors, uint64_t number);

/* Makes every row missing, in constant time. */
void cc_vectors_clear(cc_vectors *vectors);

/* Rows. Exact while nobody writes. */
uint64_t cc_vectors_live(const cc_vectors *vectors);

/* What was counted since the table was made, by everybody. */
void cc_vectors_count(const cc_vectors *vectors, cc_vectors_counts *counts);

#endif
