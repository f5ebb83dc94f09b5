/* vectorstest.c — the table of rows without Python: against a model, by threads, by processes that are
   killed. tests/core/test_c_units.py builds and runs it, ci/sanitize.sh under ThreadSanitizer. */
#define _GNU_SOURCE
#include "cc_vectors.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define REQUIRE(x)                                                                       \
    do {                                                                                 \
        if (!(x)) {                                                                      \
            fprintf(stderr, "vectorstest.c:%d: %s\n", __LINE__, #x);                     \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

enum { WORDS = 24, BATCH = 64, CAPACITY_OF_HELPERS = 301 };

static void make(cc_vectors *table, uint64_t capacity)
{
    cc_vectors_shape shape = {.capacity = capacity, .width = WORDS * 8, .sums = capacity % 2};
    REQUIRE(cc_vectors_anonymous(table, &shape, 5));
}

static void put(cc_vectors *table, const int64_t *ids, size_t n, const void *rows)
{
    size_t done;
    REQUIRE(cc_vectors_put(table, ids, n, rows, &done) == CC_VECTORS_OK && done == n);
}

/* A row says whose it is and which one, in every word. */
static void fill(uint64_t *row, int64_t id, uint64_t sequence)
{
    for (unsigned word = 0; word < WORDS; word++)
        row[word] = cc_mix64((uint64_t)id, sequence) + word;
    row[0] = (uint64_t)id;
    row[1] = sequence;
}

static bool is_whole(const uint64_t *row, int64_t id)
{
    uint64_t expected[WORDS];
    fill(expected, id, row[1]);
    return memcmp(row, expected, sizeof expected) == 0;
}

static bool is_zero(const uint64_t *row)
{
    for (unsigned word = 0; word < WORDS; word++)
        if (row[word] != 0)
            return false;
    return true;
}

static int64_t id_of(uint32_t number)
{
    static const int64_t odd[] = {INT64_MIN, INT64_MAX, -1, 0};
    return number < 4 ? odd[number] : (int64_t)cc_mix64(number, 0x123456789ABCDEF);
}

/* Low numbers come more often. */
static uint32_t some_number(uint64_t *random, uint32_t ids)
{
    return cc_random_below(random, cc_random_below(random, ids) + 1);
}

static int64_t some_id(uint64_t *random, uint32_t ids)
{
    return id_of(some_number(random, ids));
}

/* An index of a few chunks, so full that entries go on to other chunks, and round the end, holds what was
   added and not removed; when all have gone, nothing is left to walk past. */
static void check_narrow(uint32_t chunks, uint32_t most, unsigned steps)
{
    enum { KEYS = 1024 };
    static cc_narrow_chunk lines[64];
    static bool here[KEYS];
    cc_narrow index = {.chunks = lines, .count = chunks};
    uint64_t random = chunks;
    memset(lines, 0, sizeof lines);
    memset(here, 0, sizeof here);
    for (unsigned step = 0; step < steps; step++) {
        uint32_t slot = cc_random_below(&random, KEYS);
        uint32_t hash = (uint32_t)cc_mix64(slot, 99); /* and now and then the same for all */
        hash = slot % 16 == 0 ? UINT32_MAX : hash;
        REQUIRE(cc_narrow_has(&index, hash, slot) == here[slot]);
        if (here[slot])
            REQUIRE(cc_narrow_remove(&index, hash, slot));
        else if (index.entries < most)
            cc_narrow_add(&index, hash, slot);
        else
            continue;
        here[slot] = !here[slot];
    }
    for (uint32_t slot = 0; slot < KEYS; slot++) {
        uint32_t hash = slot % 16 == 0 ? UINT32_MAX : (uint32_t)cc_mix64(slot, 99);
        REQUIRE(cc_narrow_remove(&index, hash, slot) == here[slot]);
    }
    REQUIRE(index.entries == 0);
    for (uint32_t at = 0; at < chunks; at++)
        REQUIRE(lines[at].overflow == 0 && cc_narrow_match(&lines[at], 0) == (1u << CC_NARROW_PLACES) - 1);
}

/* What is found was put last, what was deleted is gone, and the table never holds more than it may. */
static void check_model(uint64_t capacity, uint32_t ids, unsigned steps)
{
    enum { MOST = 1 << 18 };
    static uint64_t latest[MOST]; /* sequence numbers; 0: never put, or deleted */
    cc_vectors table;
    uint64_t random = capacity * 2 + 1, sequence = 0;
    static uint64_t rows[BATCH][WORDS];
    uint32_t numbers[BATCH];
    int64_t batch[BATCH];
    bool found[BATCH];
    memset(latest, 0, sizeof latest);
    make(&table, capacity);
    for (unsigned step = 0; step < steps; step++) {
        size_t n = cc_random_below(&random, BATCH) + 1, removed;
        for (size_t i = 0; i < n; i++)
            batch[i] = id_of(numbers[i] = some_number(&random, ids));
        switch (cc_random_below(&random, 8)) {
        case 0:
            REQUIRE(cc_vectors_delete(&table, batch, n, &removed) == CC_VECTORS_OK && removed <= n);
            for (size_t i = 0; i < n; i++)
                latest[numbers[i]] = 0;
            break;
        case 1: case 2: case 3:
            for (size_t i = 0; i < n; i++)
                fill(rows[i], batch[i], ++sequence);
            put(&table, batch, n, rows);
            for (size_t i = 0; i < n; i++)
                latest[numbers[i]] = rows[i][1];
            break;
        default:
            if (step % 1000 == 0) {
                cc_vectors_clear(&table);
                memset(latest, 0, sizeof latest);
            }
            size_t count = cc_vectors_gather(&table, batch, n, (unsigned char *)rows, found, 1), seen = 0;
            for (size_t i = 0; i < n; i++) {
                seen += found[i];
                REQUIRE(found[i] ? rows[i][1] == latest[numbers[i]] && is_whole(rows[i], batch[i])
                                 : is_zero(rows[i]));
            }
            REQUIRE(count == seen && cc_vectors_find(&table, batch, n, found) == count);
        }
        REQUIRE(cc_vectors_live(&table) <= capacity);
        for (uint32_t number = 0; number < table.layout.stripes; number++)
            REQUIRE(cc_policy_valid(&table.stripes[number].policy));
    }
    cc_vectors_close(&table);
}

/* As many as were asked for stay. */
static void check_capacity(uint64_t capacity)
{
    cc_vectors table;
    uint64_t row[WORDS];
    size_t there = 0;
    make(&table, capacity);
    for (int64_t id = 0; id < (int64_t)capacity; id++) {
        fill(row, id, 1);
        put(&table, &id, 1, row);
    }
    for (int64_t id = 0; id < (int64_t)capacity; id++) {
        bool found;
        there += cc_vectors_gather(&table, &id, 1, (unsigned char *)row, &found, 1);
    }
    REQUIRE(there == capacity);
    cc_vectors_close(&table);
}

/* Two records of a damaged file name one row: once repaired, it is one entry's, and no other's later. */
static void check_shared_row(void)
{
    enum { SOME = 50 };
    cc_vectors table;
    static uint64_t rows[SOME][WORDS];
    int64_t ids[SOME];
    bool found[SOME];
    make(&table, SOME);
    for (int64_t i = 0; i < SOME; i++)
        fill(rows[i], ids[i] = i, 1);
    put(&table, ids, SOME / 2, rows);
    table.records[3].b = (table.records[3].b & ~(uint64_t)UINT32_MAX) | (uint32_t)table.records[4].b;
    table.stripes[0].dirty = true;
    for (unsigned round = 0; round < 3; round++) {
        put(&table, ids, SOME, rows);
        cc_vectors_gather(&table, ids, SOME, (unsigned char *)rows, found, 1);
        for (unsigned i = 0; i < SOME; i++)
            REQUIRE(found[i] && is_whole(rows[i], ids[i]));
    }
    cc_vectors_close(&table);
}

/* A batch that is worth several threads is gathered as by one. */
static void check_helpers(unsigned rounds)
{
    enum { MANY = 60000 };
    cc_vectors table;
    make(&table, CAPACITY_OF_HELPERS);
    int64_t *ids = malloc(MANY * sizeof *ids);
    uint64_t (*rows)[WORDS] = malloc(MANY * sizeof *rows);
    bool *found = malloc(MANY);
    uint64_t random = 9;
    REQUIRE(ids != NULL && rows != NULL && found != NULL);
    for (unsigned round = 0; round < rounds; round++) {
        for (size_t i = 0; i < MANY; i++) {
            ids[i] = some_id(&random, 2 * CAPACITY_OF_HELPERS);
            if (i < BATCH)
                fill(rows[i], ids[i], round + 1);
        }
        put(&table, ids, BATCH, rows);
        size_t count = cc_vectors_gather(&table, ids, MANY, (unsigned char *)rows, found, 4), seen = 0;
        for (size_t i = 0; i < MANY; i++) {
            seen += found[i];
            REQUIRE(found[i] ? is_whole(rows[i], ids[i]) : is_zero(rows[i]));
        }
        REQUIRE(count == seen && count >= 1);
    }
    cc_vectors_counts counts;
    cc_vectors_count(&table, &counts);
    REQUIRE(counts.gathered == (uint64_t)rounds * MANY);
    free(ids);
    free(rows);
    free(found);
    cc_vectors_close(&table);
}

/* --- threads and processes ------------------------------------------------------------------- */

enum { IDS = 3000, CAPACITY = 2000 };

typedef struct {
    cc_vectors *table;
    uint64_t seed;
    unsigned rounds;
} work;

static void *write_rows(void *argument)
{
    const work *job = argument;
    uint64_t random = job->seed, sequence = job->seed << 32;
    static _Thread_local uint64_t rows[BATCH][WORDS];
    int64_t batch[BATCH];
    for (unsigned round = 0; round < job->rounds; round++) {
        size_t removed;
        for (size_t i = 0; i < BATCH; i++) {
            batch[i] = some_id(&random, IDS);
            fill(rows[i], batch[i], ++sequence);
        }
        put(job->table, batch, BATCH, rows);
        if (round % 4 == 0)
            REQUIRE(cc_vectors_delete(job->table, batch, BATCH / 8, &removed) == CC_VECTORS_OK);
    }
    return NULL;
}

static void *read_rows(void *argument)
{
    const work *job = argument;
    uint64_t random = job->seed;
    static _Thread_local uint64_t rows[BATCH][WORDS];
    int64_t batch[BATCH];
    bool found[BATCH];
    for (unsigned round = 0; round < job->rounds; round++) {
        for (size_t i = 0; i < BATCH; i++)
            batch[i] = some_id(&random, IDS);
        cc_vectors_gather(job->table, batch, BATCH, (unsigned char *)rows, found, 1 + round % 2);
        for (size_t i = 0; i < BATCH; i++)
            REQUIRE(found[i] ? is_whole(rows[i], batch[i]) : is_zero(rows[i]));
    }
    return NULL;
}

static void check_threads(unsigned rounds)
{
    cc_vectors table;
    pthread_t threads[4];
    work jobs[4];
    make(&table, CAPACITY);
    for (unsigned i = 0; i < 4; i++) {
        jobs[i] = (work){&table, i + 1, rounds};
        REQUIRE(pthread_create(&threads[i], NULL, i < 2 ? write_rows : read_rows, &jobs[i]) == 0);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    REQUIRE(cc_vectors_live(&table) <= CAPACITY);
    cc_vectors_close(&table);
}

/* Writers are killed wherever they are; no row is torn or wrong, and the table goes on. */
static void check_kills(unsigned kills)
{
    cc_vectors table;
    uint64_t random = 77;
    make(&table, CAPACITY);
    /* The same memory, shared with the children. */
    void *shared = mmap(NULL, table.segment.size, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(shared != MAP_FAILED);
    memcpy(shared, table.segment.base, table.segment.size);
    REQUIRE(mremap(shared, table.segment.size, table.segment.size, MREMAP_MAYMOVE | MREMAP_FIXED,
                   table.segment.base) == table.segment.base);
    for (unsigned kill_number = 0; kill_number < kills; kill_number++) {
        work job = {&table, kill_number + 10, UINT32_MAX};
        pid_t child = fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            write_rows(&job);
            _exit(0);
        }
        struct timespec pause = {0, (long)cc_random_below(&random, 2000000)};
        nanosleep(&pause, NULL);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        job.rounds = 20;
        read_rows(&job);
        job.seed = kill_number + 1000000;
        job.rounds = 3;
        write_rows(&job); /* repairs what it meets */
        for (uint32_t number = 0; number < table.layout.stripes; number++)
            REQUIRE(table.stripes[number].dirty || cc_policy_valid(&table.stripes[number].policy));
    }
    REQUIRE(cc_vectors_live(&table) <= CAPACITY);
    cc_vectors_close(&table);
}

int main(int argc, char **argv)
{
    unsigned scale = argc > 1 ? (unsigned)atoi(argv[1]) : 1;
    check_narrow(1, 21, 20000);
    check_narrow(3, 60, 20000);
    check_narrow(64, 1024, 50000);
    check_capacity(1);
    check_capacity(1000);
    check_capacity(100000);
    check_model(1, 8, 2000 * scale);
    check_model(100, 400, 5000 * scale);
    check_model(70000, 140000, 300 * scale);
    check_shared_row();
    check_helpers(10 * scale);
    check_threads(3000 * scale);
    if (argc < 3 || strcmp(argv[2], "threads") != 0) /* an emulator's processes leave locks behind */
        check_kills(300 * scale);
    puts("ok");
    return 0;
}
