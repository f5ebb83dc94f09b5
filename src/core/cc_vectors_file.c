/* cc_vectors_file.c — a table in a file: made or opened, joined and left by processes. */
#define _GNU_SOURCE
#include "cc_vectors_inner.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { WAIT_MS = 1000, ATTEMPTS = 100 };

static_assert(sizeof(cc_vectors_shape) <= sizeof(cc_geometry), "a shape is a file's geometry");

/* The machine's boot: what was locked or unwritten in another one is not any more. */
static void read_boot(char boot[40])
{
    memset(boot, 0, 40);
    int file = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        if (read(file, boot, 36) < 0)
            boot[0] = 0;
        close(file);
    }
}

/* Whoever has the file to himself begins a session: nobody holds a lock, whatever it looks like, and
   nothing can be relied on but what a rebuilt stripe checks. Rows that had no time to reach the disk
   before the machine went down can be anything, so without checksums they all go. */
static void begin_session(cc_vectors *vectors)
{
    cc_vectors_table *table = vectors->table;
    char boot[sizeof table->boot];
    read_boot(boot);
    if (memcmp(boot, table->boot, sizeof boot) != 0 && !table->clean && !vectors->shape.sums)
        cc_vectors_renew(vectors);
    memcpy(table->boot, boot, sizeof boot);
    for (uint32_t number = 0; number < vectors->layout.stripes; number++)
        cc_stripe_make_lock(&vectors->stripes[number]);
    CC_ADD(table->session, 1);
}

/* Takes a seat in the file, which is as it were for the first when it is free. */
static bool join(cc_vectors *vectors)
{
    if (!cc_segment_lock(&vectors->segment, CC_SEGMENT_DOOR, true, WAIT_MS))
        return false;
    if (cc_segment_lock(&vectors->segment, CC_SEGMENT_SEAT, true, 0))
        begin_session(vectors);
    return cc_segment_lock(&vectors->segment, CC_SEGMENT_SEAT, false, WAIT_MS);
}

static bool sync_table(const cc_vectors *vectors)
{
    return cc_segment_sync(&vectors->segment, CC_SEGMENT_HEADER + sizeof *vectors->table);
}

void cc_vectors_soil(const cc_vectors *vectors)
{
    CC_SET(vectors->table->clean, 0);
    sync_table(vectors); /* before anything else gets there */
}

/* Contents of another version go; those who opened the table for that one see it by the turn. The new
   version is told last: whoever comes after one that ended before that does it again. */
static void take_version(cc_vectors *vectors, const uint64_t version[2])
{
    cc_vectors_table *table = vectors->table;
    if (memcmp(table->version, version, sizeof table->version) != 0) {
        CC_ADD(table->turn, 1);
        cc_vectors_renew(vectors);
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
        memcpy(table->version, version, sizeof table->version);
    }
    vectors->turn = table->turn;
}

static cc_segment_result enter(cc_vectors *vectors, const uint64_t version[2])
{
    cc_vectors_find_places(vectors);
    if (!cc_vectors_sound(vectors)) {
        cc_segment_close(&vectors->segment); /* as it is: not as if we had used it */
        return CC_SEGMENT_DAMAGED;
    }
    if (!join(vectors)) {
        int error = errno;
        cc_segment_close(&vectors->segment);
        errno = error;
        return CC_SEGMENT_FAILED;
    }
    take_version(vectors, version);
    cc_segment_unlock(&vectors->segment, CC_SEGMENT_DOOR);
    return CC_SEGMENT_OK;
}

static cc_segment_result create(cc_vectors *vectors, const char *path, const cc_geometry *geometry,
                                const uint64_t version[2], uint64_t seed)
{
    size_t size = vectors->layout.size;
    if (cc_segment_create(&vectors->segment, path, size, geometry) != CC_SEGMENT_OK)
        return CC_SEGMENT_FAILED;
    cc_vectors_make(vectors, seed);
    memcpy(vectors->table->version, version, sizeof vectors->table->version);
    read_boot(vectors->table->boot);
    if (cc_segment_lock(&vectors->segment, CC_SEGMENT_SEAT, false, WAIT_MS)
        && cc_segment_publish(&vectors->segment, path) == CC_SEGMENT_OK)
        return CC_SEGMENT_OK;
    int error = errno;
    cc_segment_close(&vectors->segment);
    errno = error;
    return CC_SEGMENT_FAILED;
}

cc_segment_result cc_vectors_file(cc_vectors *vectors, const char *path, const cc_vectors_shape *shape,
                                  const uint64_t version[2], uint64_t seed, cc_vectors_shape *made)
{
    cc_geometry geometry = {{0}}, other = {{0}};
    memset(vectors, 0, sizeof *vectors);
    vectors->shape = *shape;
    vectors->shared = true;
    memcpy(&geometry, shape, sizeof *shape);
    if (!cc_vectors_lay_out(&vectors->layout, shape, true)) {
        errno = ENOMEM;
        return CC_SEGMENT_FAILED;
    }
    for (unsigned attempt = 0; attempt < ATTEMPTS; attempt++) {
        cc_segment_result result =
            cc_segment_open(&vectors->segment, path, vectors->layout.size, &geometry, &other);
        memcpy(made, &other, sizeof *made);
        if (result == CC_SEGMENT_OK)
            return enter(vectors, version);
        if (result != CC_SEGMENT_FAILED || errno != ENOENT)
            return result;
        result = create(vectors, path, &geometry, version, seed);
        if (result == CC_SEGMENT_OK || errno != EEXIST)
            return result;
    } /* somebody makes and removes it all the time */
    return CC_SEGMENT_FAILED;
}

void cc_vectors_rejoin(cc_vectors *vectors)
{
    if (cc_segment_reopen(&vectors->segment) && join(vectors))
        cc_segment_unlock(&vectors->segment, CC_SEGMENT_DOOR);
}

/* Whether nobody else has the file open; true: nor can anybody, until the door is unlocked. */
static bool alone(const cc_vectors *vectors)
{
    return cc_segment_lock(&vectors->segment, CC_SEGMENT_DOOR, true, WAIT_MS)
           && cc_segment_lock(&vectors->segment, CC_SEGMENT_SEAT, true, 0);
}

/* Writes the table to the disk if nobody else has it open, and says so in it: most of it before the door
   is locked, for that may take longer than others wait. */
static void leave(cc_vectors *vectors)
{
    size_t size = vectors->segment.size;
    bool last = alone(vectors) && !vectors->table->clean;
    cc_segment_lock(&vectors->segment, CC_SEGMENT_SEAT, false, 0);
    cc_segment_unlock(&vectors->segment, CC_SEGMENT_DOOR);
    if (!last || !cc_segment_sync(&vectors->segment, size))
        return;
    if (alone(vectors) && cc_segment_sync(&vectors->segment, size)) {
        vectors->table->clean = 1;
        sync_table(vectors);
    }
    cc_segment_unlock(&vectors->segment, CC_SEGMENT_DOOR); /* closing does not, where a fork shares it */
}

void cc_vectors_close(cc_vectors *vectors)
{
    if (vectors->shared && vectors->segment.base != NULL)
        leave(vectors);
    free(vectors->pins);
    vectors->pins = NULL;
    cc_segment_close(&vectors->segment);
}
