/* historytest.c — a table's history, checked in the manner of CacheLib's consistency tests: threads and
 * processes put, delete and gather rows by random ids, clear the table now and then, and are killed.
 *
 * Each notes when an operation begins and ends, by a clock that all share: a counter. A row tells which
 * operation put it. A row may be found by a look-up if it was put before the look-up ended, and unless
 * something else was put in its place, or the id deleted, after that put had ended and before the
 * look-up began. That it is missing is always right. A writer that was killed may have put its rows or
 * not, up to the moment it was dead.
 *
 *     historytest [SCALE [threads]]      x so many rounds; threads: no processes, for ThreadSanitizer
 *
 * Run in an empty folder, best in shared memory; tests/core/test_c_units.py does, ci/sanitize.sh too. */
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
            fprintf(stderr, "historytest.c:%d: %s\n", __LINE__, #x);                     \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

enum {
    ITEMS = 288,           /* floats of a row: 18 lines */
    WORKERS = 4, THREADS = 2, LOGS = WORKERS * THREADS,
    ENTRIES = 10000,       /* of a log: a round ends when all are full */
    ROUNDS = 4,
    BATCH = 16,
    HOT = 16,              /* ids that half of the operations are about */
    CARRIED = 4096,        /* puts of a round that the next one may find */
    CLEAR_EVERY = 300,    /* operations of a thread */
};

typedef enum { PUT, DELETE, CLEAR, FOUND } deed;

typedef struct {
    uint64_t begin, end; /* end 0: never */
    uint64_t put;        /* which one: the name of this, or of what was found */
    uint32_t id, what;   /* number of the id; a deed */
    bool done;
} entry;

typedef struct {
    uint32_t count, full;
    uint64_t seed;
    entry entries[ENTRIES];
} log;

typedef struct {
    uint64_t clock;
    log logs[LOGS];
} notes; /* shared by all processes */

typedef struct {
    const char *name;
    uint64_t capacity, codec, sums;
    uint32_t ids;
    bool private; /* threads of this process */
} scene;

typedef struct {
    const scene *of;
    cc_vectors *table;
    notes *shared;
    unsigned number, round;
} work;

static uint64_t tick(notes *shared)
{
    return __atomic_add_fetch(&shared->clock, 1, __ATOMIC_SEQ_CST);
}

static int64_t id_of(uint32_t number)
{
    return (int64_t)cc_mix64(number, 0x123456789ABCDEF);
}

/* Whole numbers below 128, the first of them 127, so that int8 keeps them: in 16 of them the id, in 16
   which put it was, and then what follows from the two. */
static void fill(float *row, uint64_t id, uint64_t put)
{
    row[0] = 127;
    for (unsigned i = 0; i < 16; i++) {
        row[1 + i] = (float)(id >> 4 * i & 15);
        row[17 + i] = (float)(put >> 4 * i & 15);
    }
    uint32_t mixed = (uint32_t)cc_mix64(id, put);
    for (unsigned i = 33; i < ITEMS; i++)
        row[i] = (float)((mixed += 0x9E3779B9u) >> 25);
}

/* Which put a row is of; nothing but what was put for the id, whole, will do. */
static uint64_t read_row(const float *row, uint64_t id)
{
    float expected[ITEMS];
    uint64_t put = 0;
    for (unsigned i = 0; i < 16; i++)
        put |= (uint64_t)row[17 + i] << 4 * i;
    fill(expected, id, put);
    REQUIRE(memcmp(row, expected, sizeof expected) == 0);
    return put;
}

static bool is_zero(const float *row)
{
    for (unsigned i = 0; i < ITEMS; i++)
        if (row[i] != 0)
            return false;
    return true;
}

/* --- those who work ---------------------------------------------------------------------------- */

static uint64_t name_of(const work *job, uint32_t at)
{
    return (uint64_t)job->round << 40 | (uint64_t)job->number << 32 | at;
}

static void finish(const work *job, log *mine, uint32_t from)
{
    uint64_t end = tick(job->shared);
    for (uint32_t at = from; at < mine->count; at++) {
        mine->entries[at].end = end;
        mine->entries[at].done = true;
    }
}

/* Notes what is about to be done before it is. */
static void write_rows(const work *job, log *mine, const uint32_t *numbers, unsigned n, deed what)
{
    static _Thread_local float rows[BATCH][ITEMS];
    int64_t ids[BATCH];
    size_t done;
    uint32_t from = mine->count;
    uint64_t begin = tick(job->shared);
    for (unsigned i = 0; i < n; i++) {
        uint64_t put = name_of(job, from + i);
        mine->entries[from + i] = (entry){begin, 0, put, numbers[i], what, false};
        fill(rows[i], (uint64_t)(ids[i] = id_of(numbers[i])), put);
    }
    __atomic_store_n(&mine->count, from + n, __ATOMIC_RELEASE);
    if (what == PUT)
        REQUIRE(cc_vectors_put(job->table, ids, n, (unsigned char *)rows, &done) == CC_VECTORS_OK);
    else if (what == DELETE)
        REQUIRE(cc_vectors_delete(job->table, ids, n, &done) == CC_VECTORS_OK);
    else
        cc_vectors_clear(job->table);
    finish(job, mine, from);
}

static void note_found(const work *job, log *mine, uint32_t number, const float *row, uint64_t begin)
{
    uint64_t put = read_row(row, (uint64_t)id_of(number));
    mine->entries[mine->count] = (entry){begin, tick(job->shared), put, number, FOUND, true};
    __atomic_store_n(&mine->count, mine->count + 1, __ATOMIC_RELEASE);
}

static void gather_rows(const work *job, log *mine, const uint32_t *numbers, unsigned n)
{
    static _Thread_local float rows[BATCH][ITEMS];
    int64_t ids[BATCH];
    bool found[BATCH];
    for (unsigned i = 0; i < n; i++)
        ids[i] = id_of(numbers[i]);
    uint64_t begin = tick(job->shared);
    cc_vectors_gather(job->table, ids, n, (unsigned char *)rows, found, 1 + job->number % 2);
    uint64_t end = tick(job->shared);
    for (unsigned i = 0; i < n; i++) {
        REQUIRE(found[i] || is_zero(rows[i]));
        if (!found[i])
            continue;
        note_found(job, mine, numbers[i], rows[i], begin);
        mine->entries[mine->count - 1].end = end;
    }
}

/* A view: the row stays what it was when it was looked up. */
static void pin_row(const work *job, log *mine, uint32_t number)
{
    const unsigned char *row;
    uint64_t pin, begin = tick(job->shared);
    if (cc_vectors_pin(job->table, id_of(number), &row, &pin) != CC_VECTORS_OK)
        return;
    note_found(job, mine, number, (const float *)row, begin);
    uint64_t put = mine->entries[mine->count - 1].put;
    uint32_t others[BATCH];
    for (unsigned i = 0; i < BATCH; i++)
        others[i] = (number + i) % job->of->ids;
    write_rows(job, mine, others, BATCH, PUT);
    REQUIRE(read_row((const float *)row, (uint64_t)id_of(number)) == put);
    cc_vectors_unpin(job->table, pin);
}

static void *run(void *argument)
{
    const work *job = argument;
    log *mine = &job->shared->logs[job->number];
    uint32_t numbers[BATCH];
    for (unsigned step = 1; mine->count + 2 * BATCH < ENTRIES; step++) {
        unsigned n = cc_random_below(&mine->seed, BATCH) + 1, dice = cc_random_below(&mine->seed, 16);
        uint32_t among = cc_random_below(&mine->seed, 2) ? HOT : job->of->ids;
        for (unsigned i = 0; i < n; i++)
            numbers[i] = cc_random_below(&mine->seed, among);
        if (step % CLEAR_EVERY == 0)
            write_rows(job, mine, numbers, 1, CLEAR);
        else if (dice < 6)
            write_rows(job, mine, numbers, n, PUT);
        else if (dice < 8)
            write_rows(job, mine, numbers, n, DELETE);
        else if (dice < 10 && job->of->private && job->of->codec == CC_ROWS_PLAIN)
            pin_row(job, mine, numbers[0]);
        else
            gather_rows(job, mine, numbers, n);
    }
    mine->full = 1;
    return NULL;
}

static void run_threads(const work *job, unsigned first, unsigned count)
{
    pthread_t threads[LOGS];
    work jobs[LOGS];
    for (unsigned i = 0; i < count; i++) {
        jobs[i] = *job;
        jobs[i].number = first + i;
        REQUIRE(pthread_create(&threads[i], NULL, run, &jobs[i]) == 0);
    }
    for (unsigned i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

static void open_file(const scene *of, cc_vectors *table)
{
    static const uint64_t version[2] = {1, 1};
    cc_vectors_shape shape = {.capacity = of->capacity, .width = ITEMS * sizeof(float),
                              .codec = of->codec, .sums = of->sums}, made;
    REQUIRE(cc_vectors_file(table, "table", &shape, version, 3, &made) == CC_SEGMENT_OK);
}

/* --- those who are killed ----------------------------------------------------------------------- */

static pid_t start(const work *job, unsigned worker)
{
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        cc_vectors own;
        work mine = *job;
        if (worker % 2 == 0)
            cc_vectors_forked(job->table);
        else
            open_file(job->of, mine.table = &own);
        run_threads(&mine, worker * THREADS, THREADS);
        _exit(0);
    }
    return child;
}

/* What a dead worker was doing is over by now. */
static void bury(notes *shared, unsigned worker)
{
    uint64_t end = tick(shared);
    for (unsigned number = worker * THREADS; number < (worker + 1) * THREADS; number++) {
        log *left = &shared->logs[number];
        for (uint32_t at = left->count; at-- > 0 && left->entries[at].end == 0;)
            left->entries[at].end = end;
        cc_random(&left->seed);
    }
}

/* Kills workers at random moments and starts others in their place until all logs are full. */
static unsigned run_processes(const work *job, uint64_t *random)
{
    pid_t workers[WORKERS];
    unsigned left = WORKERS, kills = 0;
    for (unsigned worker = 0; worker < WORKERS; worker++)
        workers[worker] = start(job, worker);
    while (left > 0) {
        unsigned worker = cc_random_below(random, WORKERS);
        int status;
        if (workers[worker] == 0)
            continue;
        struct timespec pause = {0, (long)cc_random_below(random, 1000000)};
        nanosleep(&pause, NULL);
        kill(workers[worker], SIGKILL);
        REQUIRE(waitpid(workers[worker], &status, 0) == workers[worker]);
        REQUIRE(WIFSIGNALED(status) || status == 0);
        bury(job->shared, worker);
        bool full = true;
        for (unsigned i = 0; i < THREADS; i++)
            full &= job->shared->logs[worker * THREADS + i].full;
        workers[worker] = full ? 0 : start(job, worker);
        left -= full;
        kills += WIFSIGNALED(status);
    }
    return kills;
}

/* --- the judgement ------------------------------------------------------------------------------ */

/* Of an id, or of the whole table: what ended when, and the latest beginning of all until then. */
typedef struct {
    uint64_t end, begin;
} overwrite;

typedef struct {
    overwrite *of_ids, *clears;
    uint32_t *first; /* of an id, in of_ids; one more at the end */
    size_t clear_count;
} overwrites;

static int by_end(const void *left, const void *right)
{
    const overwrite *a = left, *b = right;
    return a->end < b->end ? -1 : a->end > b->end;
}

static void settle(overwrite *some, size_t count)
{
    qsort(some, count, sizeof *some, by_end);
    for (size_t i = 1; i < count; i++)
        if (some[i].begin < some[i - 1].begin)
            some[i].begin = some[i - 1].begin;
}

static bool overwrites_id(const entry *note)
{
    return note->done && (note->what == PUT || note->what == DELETE);
}

static overwrites sort_notes(const notes *shared, uint32_t ids)
{
    overwrites all = {.first = calloc(ids + 2, sizeof(uint32_t)),
                      .of_ids = calloc(LOGS * ENTRIES, sizeof(overwrite)),
                      .clears = calloc(LOGS * ENTRIES / 100, sizeof(overwrite))};
    REQUIRE(all.first != NULL && all.of_ids != NULL && all.clears != NULL);
#define EACH_NOTE(note)                                                                  \
    for (const log *of = shared->logs; of < shared->logs + LOGS; of++)                   \
        for (const entry *note = of->entries; note < of->entries + of->count; note++)
    EACH_NOTE(note)
        all.first[note->id + 2] += overwrites_id(note);
    for (uint32_t id = 0; id < ids; id++)
        all.first[id + 1] += all.first[id];
    EACH_NOTE(note) {
        if (overwrites_id(note))
            all.of_ids[all.first[note->id + 1]++] = (overwrite){note->end, note->begin};
        if (note->done && note->what == CLEAR)
            all.clears[all.clear_count++] = (overwrite){note->end, note->begin};
    }
    for (uint32_t id = 0; id < ids; id++)
        settle(all.of_ids + all.first[id], all.first[id + 1] - all.first[id]);
    settle(all.clears, all.clear_count);
    return all;
}

/* Whether one of them began after `from` and ended before `until`. */
static bool between(const overwrite *some, size_t count, uint64_t from, uint64_t until)
{
    size_t low = 0;
    while (count > 0) { /* how many ended before */
        size_t half = count / 2;
        bool before = some[low + half].end < until;
        low += before ? half + 1 : 0;
        count = before ? count - half - 1 : half;
    }
    return low > 0 && some[low - 1].begin > from;
}

static bool overwritten(const overwrites *all, const entry *put, uint64_t until)
{
    uint32_t first = all->first[put->id];
    return between(all->of_ids + first, all->first[put->id + 1] - first, put->end, until)
           || between(all->clears, all->clear_count, put->end, until);
}

typedef struct {
    entry puts[CARRIED];
    unsigned count;
} carried;

static const entry *find_put(const notes *shared, const carried *old, const entry *found,
                             unsigned round)
{
    if (found->put >> 40 == round) {
        const log *of = &shared->logs[(found->put >> 32 & 0xFF) % LOGS];
        uint32_t at = (uint32_t)found->put;
        return at < of->count && of->entries[at].what == PUT ? &of->entries[at] : NULL;
    }
    for (unsigned i = 0; i < old->count; i++)
        if (old->puts[i].put == found->put)
            return &old->puts[i];
    return NULL;
}

/* Judges what was found in a round, and keeps the puts that may be found in the next. */
static uint64_t judge(const notes *shared, carried *old, uint32_t ids, unsigned round)
{
    static carried next;
    uint64_t hits = 0;
    overwrites all = sort_notes(shared, ids);
    EACH_NOTE(note) {
        if (note->what != FOUND)
            continue;
        const entry *put = find_put(shared, old, note, round);
        hits++;
        if (put != NULL && put->id == note->id && put->begin < note->end
            && !overwritten(&all, put, note->begin))
            continue;
        fprintf(stderr, "id %u: a look-up from %llu to %llu found what was put from %llu to %llu\n",
                note->id, (unsigned long long)note->begin, (unsigned long long)note->end,
                put ? (unsigned long long)put->begin : 0, put ? (unsigned long long)put->end : 0);
        exit(1);
    }
    next.count = 0;
    for (unsigned i = 0; i < old->count; i++)
        if (!overwritten(&all, &old->puts[i], UINT64_MAX))
            next.puts[next.count++] = old->puts[i];
    EACH_NOTE(note)
        if (note->what == PUT && !overwritten(&all, note, UINT64_MAX)) {
            REQUIRE(next.count < CARRIED);
            next.puts[next.count++] = *note;
        }
    *old = next;
    free(all.first);
    free(all.of_ids);
    free(all.clears);
    return hits;
}

static void check_history(const scene *of, notes *shared, unsigned rounds)
{
    static carried old;
    cc_vectors table;
    uint64_t random = of->capacity, done = 0, hits = 0, kills = 0;
    unlink("table");
    old.count = 0;
    shared->clock = 0;
    cc_vectors_shape shape = {.capacity = of->capacity, .width = ITEMS * sizeof(float),
                              .codec = of->codec, .sums = of->sums};
    if (of->private)
        REQUIRE(cc_vectors_anonymous(&table, &shape, 5));
    for (unsigned round = 1; round <= rounds; round++) {
        work job = {of, &table, shared, 0, round};
        for (unsigned i = 0; i < LOGS; i++) {
            shared->logs[i].count = shared->logs[i].full = 0;
            shared->logs[i].seed = cc_mix64(round, i + 1) | 1;
        }
        if (!of->private) /* in each round a new session */
            open_file(of, &table);
        if (of->private)
            run_threads(&job, 0, LOGS);
        else
            kills += run_processes(&job, &random);
        REQUIRE(cc_vectors_live(&table) <= of->capacity);
        if (!of->private)
            cc_vectors_close(&table);
        for (unsigned i = 0; i < LOGS; i++)
            done += shared->logs[i].count;
        hits += judge(shared, &old, of->ids, round);
    }
    if (of->private)
        cc_vectors_close(&table);
    printf("ok: %s: %llu operations noted, %llu hits, %llu kills\n", of->name,
           (unsigned long long)done, (unsigned long long)hits, (unsigned long long)kills);
}

static const scene scenes[] = {
    {"threads, one stripe", 300, CC_ROWS_PLAIN, 0, 400, true},
    {"threads, 3 stripes", 70000, CC_ROWS_PLAIN, 1, 3000, true},
    {"threads, int8", 300, CC_ROWS_INT8, 0, 400, true},
    {"processes, one stripe", 300, CC_ROWS_PLAIN, 0, 400, false},
    {"processes, one stripe, checked", 300, CC_ROWS_PLAIN, 1, 400, false},
    {"processes, 3 stripes", 70000, CC_ROWS_PLAIN, 0, 3000, false},
    {"processes, int8, checked", 300, CC_ROWS_INT8, 1, 400, false},
};

int main(int argc, char **argv)
{
    unsigned rounds = ROUNDS * (unsigned)(argc > 1 ? atoi(argv[1]) : 1);
    bool threads = argc > 2 && strcmp(argv[2], "threads") == 0;
    notes *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                         -1, 0);
    REQUIRE(shared != MAP_FAILED);
    for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++)
        if (scenes[i].private || !threads)
            check_history(&scenes[i], shared, rounds);
    return 0;
}
