/* crashtest.c — death at every instruction: an operation on a table in a file is gone through step by
   step, and whenever it has changed a byte, what it would leave behind if it ended there is opened by
   others. At some of those places it does end there, while others have the file open.
   Run in an empty folder, best in shared memory; tests/core/test_c_units.py does. An argument: x as
   many deaths. */
#define _GNU_SOURCE
#include "cc_vectors_inner.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *doing = "";

#define REQUIRE(x)                                                                       \
    do {                                                                                 \
        if (!(x)) {                                                                      \
            fprintf(stderr, "crashtest.c:%d: %s: %s (errno %d)\n", __LINE__, doing, #x,  \
                    errno);                                                              \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

enum { ITEMS = 24, IDS = 40, CAPACITY = 16, OLD = 1, NEW = 2, TOUCHED = 4 };

static const uint64_t first_version[2] = {1, 1}, next_version[2] = {2, 2};

typedef struct {
    const char *name;
    uint64_t codec, sums, ttl;
    unsigned rows;              /* ids that are there before: 0 ... */
    void (*act)(cc_vectors *);  /* with the table open; NULL: opening it is what is looked at */
    const uint64_t *version;    /* that it is opened for; NULL: the first */
    bool cut;                   /* one has died with the lock before */
    int64_t touched;            /* ids that are put or deleted: so many from here on */
    unsigned count;
    bool gone;                  /* touched ids may be missing */
    bool lost;                  /* others may be missing too */
    bool reboot;                /* the machine went down before */
} scene;

static void fill(float *row, int64_t id, unsigned sequence)
{
    row[0] = 127; /* items are whole numbers and this the largest: int8 keeps them as they are */
    row[1] = (float)id;
    for (unsigned i = 2; i < ITEMS; i++)
        row[i] = (float)((sequence * 31 + (unsigned)id * 7 + i * 3) % 127);
}

static cc_segment_result try_file(cc_vectors *table, const char *path, const scene *of,
                                  const uint64_t version[2])
{
    version = version == NULL ? first_version : version;
    cc_vectors_shape made, shape = {.capacity = CAPACITY, .width = ITEMS * sizeof(float),
                                    .ttl = of->ttl, .codec = of->codec, .sums = of->sums};
    return cc_vectors_file(table, path, &shape, version, 7, &made);
}

static void put(cc_vectors *table, int64_t first, unsigned count, unsigned sequence)
{
    float rows[IDS][ITEMS];
    int64_t ids[IDS];
    size_t done;
    for (unsigned i = 0; i < count; i++)
        fill(rows[i], ids[i] = first + i, sequence);
    REQUIRE(cc_vectors_put(table, ids, count, (unsigned char *)rows, &done) == CC_VECTORS_OK);
    REQUIRE(done == count);
}

static void put_four(cc_vectors *table)
{
    put(table, TOUCHED, 4, NEW);
}

static void put_one(cc_vectors *table)
{
    put(table, TOUCHED, 1, NEW);
}

static void put_beyond(cc_vectors *table)
{
    put(table, CAPACITY, 2, NEW);
}

static void delete_two(cc_vectors *table)
{
    int64_t ids[2] = {TOUCHED, TOUCHED + 1};
    size_t removed;
    REQUIRE(cc_vectors_delete(table, ids, 2, &removed) == CC_VECTORS_OK && removed == 2);
}

static void clear_and_put(cc_vectors *table)
{
    cc_vectors_clear(table);
    put(table, TOUCHED, 2, NEW);
}

#define TOUCHES(first, number) .touched = (first), .count = (number)

static const scene scenes[] = {
    {"put new rows", .rows = 4, .act = put_four, TOUCHES(TOUCHED, 4), .gone = true},
    {"put a row again", .rows = 8, .act = put_one, TOUCHES(TOUCHED, 1)},
    {"put int8 rows again", CC_ROWS_INT8, .sums = 1, .rows = 8, .act = put_four, TOUCHES(TOUCHED, 4)},
    {"put rows again that expire", .ttl = 100000, .rows = 8, .act = put_four, TOUCHES(TOUCHED, 4)},
    {"put into a full table", .sums = 1, .rows = CAPACITY, .act = put_beyond,
     TOUCHES(CAPACITY, 2), .gone = true, .lost = true},
    {"delete", .rows = 8, .act = delete_two, TOUCHES(TOUCHED, 2), .gone = true},
    {"clear", .rows = 8, .act = clear_and_put, TOUCHES(TOUCHED, 2), .gone = true, .lost = true},
    {"repair", .rows = 8, .act = put_one, .cut = true, TOUCHES(TOUCHED, 1)},
    {"repair a full table", .sums = 1, .rows = CAPACITY, .act = put_beyond, .cut = true,
     TOUCHES(CAPACITY, 2), .gone = true, .lost = true},
    {"open", .rows = 8},
    {"open for another version", .rows = 8, .version = next_version},
    {"open after a reboot", .rows = 8, .reboot = true},
};

/* --- what others find ------------------------------------------------------------------------- */

/* Each row is the old one or the new one, and only those may be missing that were touched. */
static void check_rows(cc_vectors *table, const scene *of)
{
    int64_t ids[IDS];
    float rows[IDS][ITEMS], expected[ITEMS];
    bool found[IDS];
    bool emptied = of->version != NULL || of->reboot;
    for (unsigned i = 0; i < IDS; i++)
        ids[i] = i;
    cc_vectors_gather(table, ids, IDS, (unsigned char *)rows, found, 1);
    for (unsigned i = 0; i < IDS; i++) {
        bool touched = ids[i] >= of->touched && ids[i] < of->touched + of->count, old, fresh;
        fill(expected, ids[i], OLD);
        old = memcmp(rows[i], expected, sizeof expected) == 0 && i < of->rows && !emptied;
        fill(expected, ids[i], NEW);
        fresh = memcmp(rows[i], expected, sizeof expected) == 0 && touched;
        REQUIRE(!found[i] || old || fresh);
        REQUIRE(found[i] || emptied || of->lost || i >= of->rows || (touched && of->gone));
    }
}

static void check_table(cc_vectors *table, const scene *of)
{
    cc_vectors_counts counts;
    check_rows(table, of);
    put(table, 30, 1, NEW); /* repairs it */
    size_t removed;
    REQUIRE(cc_vectors_delete(table, (int64_t[]){30}, 1, &removed) == CC_VECTORS_OK && removed == 1);
    scene later = *of;
    later.lost = of->lost || of->rows == CAPACITY;
    check_rows(table, &later);
    cc_vectors_count(table, &counts);
    REQUIRE(cc_policy_valid(&table->stripes[0].policy) && counts.live <= CAPACITY);
    REQUIRE(counts.live == table->stripes[0].policy.live);
    REQUIRE(counts.live == table->stripes[0].index.entries);
    REQUIRE(counts.inserts
            == counts.live + counts.left[0] + counts.left[1] + counts.left[2] + counts.left[3]);
    for (unsigned round = 0; round < 3; round++)
        put(table, 0, CAPACITY, NEW + round); /* no row is lost: all of them can be put */
    REQUIRE(counts.damaged == 0 && cc_vectors_live(table) <= CAPACITY);
}

/* --- one who dies ------------------------------------------------------------------------------ */

static void close_quickly(cc_vectors *table)
{
    cc_segment_close(&table->segment); /* without writing it to a disk */
}

/* The file as it is before. It stays open, lest the next one to open it begins a session and repairs
   it, unless opening is what is looked at. */
static void make(cc_vectors *table, const scene *of)
{
    cc_moment moment;
    unlink("table");
    REQUIRE(try_file(table, "table", of, first_version) == CC_SEGMENT_OK);
    put(table, 0, of->rows, OLD);
    if (of->cut) {
        if (fork() == 0)
            _exit(cc_stripe_lock(table, 0, &moment));
        wait(NULL);
    }
    if (of->act != NULL)
        return;
    table->table->boot[0] ^= of->reboot;
    close_quickly(table);
}

/* Starts a process that stops before and after what is looked at. */
static pid_t start(const scene *of)
{
    int status;
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        cc_vectors table;
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(77);
        if (of->act != NULL)
            REQUIRE(try_file(&table, "table", of, of->version) == CC_SEGMENT_OK);
        raise(SIGSTOP);
        if (of->act != NULL)
            of->act(&table);
        else
            REQUIRE(try_file(&table, "table", of, of->version) == CC_SEGMENT_OK);
        raise(SIGUSR1);
        _exit(0);
    }
    REQUIRE(waitpid(child, &status, 0) == child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        puts("skipped: no process may be traced here");
        exit(0);
    }
    REQUIRE(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    return child;
}

/* One instruction; false: it is through. */
static bool step(pid_t child)
{
    int status;
    REQUIRE(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) == 0);
    REQUIRE(waitpid(child, &status, 0) == child);
    REQUIRE(WIFSTOPPED(status));
    if (WSTOPSIG(status) == SIGUSR1)
        return false;
    REQUIRE(WSTOPSIG(status) == SIGTRAP);
    return true;
}

static void end(pid_t child)
{
    kill(child, SIGKILL);
    REQUIRE(waitpid(child, NULL, 0) == child);
}

static unsigned char *look_into(const char *path, size_t *size)
{
    struct stat status;
    int file = open(path, O_RDWR);
    REQUIRE(file >= 0 && fstat(file, &status) == 0);
    *size = (size_t)status.st_size;
    unsigned char *bytes = mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    REQUIRE(bytes != MAP_FAILED);
    close(file);
    return bytes;
}

/* Opens what would be left at every change; returns how many steps there were. */
static unsigned die_everywhere(const scene *of, unsigned *changes)
{
    size_t size;
    cc_vectors host, table;
    make(&host, of);
    unlink("copy");
    REQUIRE(try_file(&table, "copy", of, first_version) == CC_SEGMENT_OK);
    close_quickly(&table);
    unsigned char *live = look_into("table", &size), *copy = look_into("copy", &size);
    unsigned char *before = malloc(size);
    REQUIRE(before != NULL);
    memcpy(before, live, size);
    pid_t child = start(of);
    unsigned steps = 0;
    for (bool more = true; more;) {
        more = step(child);
        steps++;
        if (memcmp(before, live, size) == 0 && steps > 1)
            continue;
        memcpy(before, live, size);
        memcpy(copy, live, size);
        ++*changes;
        REQUIRE(try_file(&table, "copy", of, of->version) == CC_SEGMENT_OK);
        check_table(&table, of);
        close_quickly(&table);
    }
    end(child);
    if (of->act != NULL)
        close_quickly(&host);
    free(before);
    munmap(live, size);
    munmap(copy, size);
    return steps;
}

/* Dies for real after so many steps, while we have the file open. */
static void die_at(const scene *of, unsigned steps)
{
    cc_vectors table;
    make(&table, of);
    pid_t child = start(of);
    while (steps-- > 0 && step(child))
        ;
    if (of->act != NULL)
        check_rows(&table, of); /* readers do not wait for whoever stands there */
    end(child);
    if (of->act == NULL)
        REQUIRE(try_file(&table, "table", of, of->version) == CC_SEGMENT_OK);
    check_table(&table, of);
    close_quickly(&table);
}

int main(int argc, char **argv)
{
    unsigned deaths = 3 * (argc > 1 ? (unsigned)atoi(argv[1]) : 1), changes = 0, all = 0;
    uint64_t random = 5;
    for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++) {
        doing = scenes[i].name;
        unsigned steps = die_everywhere(&scenes[i], &changes);
        for (unsigned death = 0; death < deaths; death++)
            die_at(&scenes[i], cc_random_below(&random, steps));
        all += steps;
    }
    printf("ok: %u steps, %u changes, %zu deaths\n", all, changes,
           deaths * (sizeof scenes / sizeof *scenes));
    return 0;
}
