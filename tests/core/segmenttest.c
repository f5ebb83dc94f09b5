/* segmenttest.c — files that processes share: made whole or not at all, and refused when they are not
   ours. Run in an empty folder; tests/core/test_c_units.py does. */
#define _GNU_SOURCE
#include "cc_segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define REQUIRE(x)                                                                       \
    do {                                                                                 \
        if (!(x)) {                                                                      \
            fprintf(stderr, "segmenttest.c:%d: %s (errno %d)\n", __LINE__, #x, errno);   \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

enum { SIZE = 100000 };

static const cc_geometry shape = {{1, 2, 3}}, other = {{1, 2, 4}};

static cc_segment_result try_open(const char *path, const cc_geometry *geometry)
{
    cc_segment segment;
    cc_geometry made;
    cc_segment_result result = cc_segment_open(&segment, path, SIZE, geometry, &made);
    if (result == CC_SEGMENT_OK)
        cc_segment_close(&segment);
    else
        REQUIRE(segment.base == NULL);
    return result;
}

static void poke(const char *path, off_t at, const void *bytes, size_t count)
{
    int file = open(path, O_WRONLY);
    REQUIRE(file >= 0 && pwrite(file, bytes, count, at) == (ssize_t)count && close(file) == 0);
}

static void make(const char *path)
{
    cc_segment segment;
    REQUIRE(cc_segment_create(&segment, path, SIZE, &shape) == CC_SEGMENT_OK);
    memcpy(cc_segment_at(&segment, 0), "row", 4);
    REQUIRE(access(path, F_OK) != 0); /* nobody sees it yet */
    REQUIRE(cc_segment_publish(&segment, path) == CC_SEGMENT_OK);
    cc_segment_close(&segment);
}

/* What is written where in a header, and how the file is then refused. */
static const struct {
    const char *path;
    off_t at;
    const char *bytes;
    cc_segment_result result;
} damages[] = {
    {"magic", 0, "x", CC_SEGMENT_FOREIGN},
    {"layout", 8, "\x63", CC_SEGMENT_VERSION},
    {"order", 12, "\x01\x02\x03\x04", CC_SEGMENT_ORDER},
    {"flip", 30, "\xff", CC_SEGMENT_DAMAGED},
};

/* Whether another one who opens the file could have this place for himself. */
static bool is_free(const char *path, cc_segment_place place)
{
    cc_segment other;
    cc_geometry made;
    REQUIRE(cc_segment_open(&other, path, SIZE, &shape, &made) == CC_SEGMENT_OK);
    bool free = cc_segment_lock(&other, place, true, 0);
    cc_segment_close(&other);
    return free;
}

/* Locks are of whoever opened the file, also of two in one process, and end with it. */
static void check_locks(void)
{
    cc_segment segment;
    cc_geometry made;
    make("locks");
    REQUIRE(cc_segment_open(&segment, "locks", SIZE, &shape, &made) == CC_SEGMENT_OK);
    REQUIRE(cc_segment_lock(&segment, CC_SEGMENT_DOOR, true, 0));
    REQUIRE(cc_segment_lock(&segment, CC_SEGMENT_SEAT, false, 0));
    REQUIRE(!is_free("locks", CC_SEGMENT_DOOR) && !is_free("locks", CC_SEGMENT_SEAT));
    cc_segment_unlock(&segment, CC_SEGMENT_DOOR);
    REQUIRE(is_free("locks", CC_SEGMENT_DOOR) && !is_free("locks", CC_SEGMENT_SEAT));
    cc_segment_close(&segment);
    REQUIRE(is_free("locks", CC_SEGMENT_SEAT));
}

/* A forked child that has opened the file again keeps nothing of its parent's. */
static void check_fork(void)
{
    cc_segment segment;
    cc_geometry made;
    int to_child[2], to_parent[2];
    char word;
    make("fork");
    REQUIRE(cc_segment_open(&segment, "fork", SIZE, &shape, &made) == CC_SEGMENT_OK);
    REQUIRE(cc_segment_lock(&segment, CC_SEGMENT_SEAT, false, 0));
    REQUIRE(pipe(to_child) == 0 && pipe(to_parent) == 0);
    pid_t child = fork();
    if (child == 0) {
        bool reopened = cc_segment_reopen(&segment);
        strcpy(cc_segment_at(&segment, 0), "own");
        close(to_child[1]);
        _exit(!reopened || write(to_parent[1], ".", 1) != 1 || read(to_child[0], &word, 1) != 0);
    }
    REQUIRE(read(to_parent[0], &word, 1) == 1);
    REQUIRE(strcmp(cc_segment_at(&segment, 0), "own") == 0);
    REQUIRE(!is_free("fork", CC_SEGMENT_SEAT));
    cc_segment_close(&segment);
    REQUIRE(is_free("fork", CC_SEGMENT_SEAT)); /* though the child still has it open */
    int status;
    close(to_child[1]);
    REQUIRE(waitpid(child, &status, 0) == child && status == 0);
}

int main(void)
{
    cc_segment segment, second;
    cc_geometry made;
    struct stat status;
    REQUIRE(try_open("file", &shape) == CC_SEGMENT_FAILED && errno == ENOENT);
    make("file");
    REQUIRE(stat("file", &status) == 0 && (status.st_mode & 0777) == 0600);
    REQUIRE((uint64_t)status.st_blocks * 512 >= SIZE); /* allocated, not promised */

    /* What one process writes, another reads, and it stays when both have gone. */
    REQUIRE(cc_segment_open(&segment, "file", SIZE, &shape, &made) == CC_SEGMENT_OK);
    REQUIRE(strcmp(cc_segment_at(&segment, 0), "row") == 0);
    if (fork() == 0) {
        strcpy(cc_segment_at(&segment, 50000), "child");
        _exit(0);
    }
    wait(NULL);
    REQUIRE(strcmp(cc_segment_at(&segment, 50000), "child") == 0);
    cc_segment_close(&segment);
    REQUIRE(cc_segment_open(&segment, "file", SIZE, &shape, &made) == CC_SEGMENT_OK);
    REQUIRE(strcmp(cc_segment_at(&segment, 50000), "child") == 0);
    cc_segment_close(&segment);

    /* Two who make it at once: one of them is first. */
    REQUIRE(cc_segment_create(&segment, "both", SIZE, &shape) == CC_SEGMENT_OK);
    REQUIRE(cc_segment_create(&second, "both", SIZE, &shape) == CC_SEGMENT_OK);
    REQUIRE(cc_segment_publish(&second, "both") == CC_SEGMENT_OK);
    REQUIRE(cc_segment_publish(&segment, "both") == CC_SEGMENT_FAILED && errno == EEXIST);
    cc_segment_close(&segment);
    cc_segment_close(&second);
    REQUIRE(try_open("both", &shape) == CC_SEGMENT_OK);

    /* One that is not published leaves nothing. */
    REQUIRE(cc_segment_create(&segment, "gone", SIZE, &shape) == CC_SEGMENT_OK);
    cc_segment_close(&segment);
    REQUIRE(access("gone", F_OK) != 0);
    REQUIRE(cc_segment_create(&segment, "no/where", SIZE, &shape) == CC_SEGMENT_FAILED);
    REQUIRE(cc_segment_create(&segment, "large", SIZE_MAX / 4, &shape) == CC_SEGMENT_FAILED);
    REQUIRE(access("large", F_OK) != 0);

    /* Refused, and left as they are. */
    REQUIRE(cc_segment_open(&segment, "file", SIZE, &other, &made) == CC_SEGMENT_GEOMETRY);
    REQUIRE(made.words[2] == 3);
    REQUIRE(symlink("file", "link") == 0 && try_open("link", &shape) == CC_SEGMENT_KIND);
    REQUIRE(mkdir("folder", 0700) == 0 && try_open("folder", &shape) == CC_SEGMENT_KIND);
    REQUIRE(mkfifo("pipe", 0600) == 0 && try_open("pipe", &shape) == CC_SEGMENT_KIND);
    REQUIRE(chmod("file", 0640) == 0 && try_open("file", &shape) == CC_SEGMENT_MODE);
    REQUIRE(chmod("file", 0600) == 0 && try_open("file", &shape) == CC_SEGMENT_OK);
    if (geteuid() == 0) {
        REQUIRE(chown("file", 1, 1) == 0 && try_open("file", &shape) == CC_SEGMENT_OWNER);
        REQUIRE(chown("file", 0, 0) == 0);
    }
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        make(damages[i].path);
        poke(damages[i].path, damages[i].at, damages[i].bytes, strlen(damages[i].bytes));
        REQUIRE(try_open(damages[i].path, &shape) == damages[i].result);
    }
    check_locks();
    check_fork();
    make("short");
    REQUIRE(truncate("short", SIZE) == 0 && try_open("short", &shape) == CC_SEGMENT_DAMAGED);
    REQUIRE(truncate("short", 0) == 0 && try_open("short", &shape) == CC_SEGMENT_FOREIGN);
    REQUIRE(try_open("file", &shape) == CC_SEGMENT_OK);
    puts("ok");
    return 0;
}
