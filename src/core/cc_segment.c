/* cc_segment.c — see cc_segment.h. */
#define _GNU_SOURCE
#include "cc_segment.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define HUGE_PAGE ((size_t)2 << 20)
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif
#define MAGIC "cachesgm"
#define BYTE_ORDER_MARK 0x01020304u

enum { POLL_MS = 5, /* between two attempts at a lock */ COLLAPSES = 8 };

typedef struct {
    char magic[8];
    uint32_t layout;
    uint32_t order;
    uint64_t size;
    cc_geometry geometry;
    uint64_t checksum; /* of what is above */
} header;

static_assert(sizeof(header) == 128, "as drawn in the header file");

static uint64_t checksum_of(const header *head)
{
    uint64_t words[offsetof(header, checksum) / 8], sum = 0;
    memcpy(words, head, sizeof words);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        sum = cc_mix64(words[i] + i, sum);
    return sum;
}

static cc_segment_result failed(int error)
{
    errno = error;
    return CC_SEGMENT_FAILED;
}

/* Closes what was opened so far, keeping errno. */
static cc_segment_result give_up(cc_segment *segment, cc_segment_result why)
{
    int error = errno;
    cc_segment_close(segment);
    errno = error;
    return why;
}

static void clear(cc_segment *segment)
{
    segment->base = NULL;
    segment->size = 0;
    segment->file = -1;
    segment->hidden = NULL;
}

/* Maps `size` bytes at a multiple of 2 MiB, so that huge pages fit; file -1: anonymous memory. */
static cc_segment_result map(cc_segment *segment, int file, size_t size)
{
    int flags = file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    if (size > SIZE_MAX / 2)
        return failed(ENOMEM);
    unsigned char *room = mmap(NULL, size + HUGE_PAGE, PROT_NONE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        return CC_SEGMENT_FAILED;
    unsigned char *end = room + size + HUGE_PAGE;
    unsigned char *start = room + (-(size_t)room & (HUGE_PAGE - 1));
    if (mmap(start, size, PROT_READ | PROT_WRITE, flags | MAP_FIXED, file, 0) == MAP_FAILED) {
        int error = errno;
        munmap(room, size + HUGE_PAGE);
        return failed(error);
    }
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *after = start + ((size + page - 1) & ~(page - 1));
    if (start > room)
        munmap(room, (size_t)(start - room));
    if (end > after)
        munmap(after, (size_t)(end - after));
    segment->base = start;
    segment->size = size;
    return CC_SEGMENT_OK;
}

cc_segment_result cc_segment_anonymous(cc_segment *segment, size_t size)
{
    clear(segment);
    if (map(segment, -1, size + CC_SEGMENT_HEADER) != CC_SEGMENT_OK)
        return CC_SEGMENT_FAILED;
    madvise(segment->base, segment->size, MADV_HUGEPAGE);
    return CC_SEGMENT_OK;
}

/* What speaks against a file that somebody else may have made. */
static cc_segment_result inspect(int file, size_t size, const cc_geometry *geometry, cc_geometry *made)
{
    struct stat status;
    header head;
    if (fstat(file, &status) != 0)
        return CC_SEGMENT_FAILED;
    if (!S_ISREG(status.st_mode))
        return CC_SEGMENT_KIND;
    if (status.st_uid != geteuid())
        return CC_SEGMENT_OWNER;
    if ((status.st_mode & 077) != 0)
        return CC_SEGMENT_MODE;
    ssize_t got = pread(file, &head, sizeof head, 0);
    if (got < 0)
        return CC_SEGMENT_FAILED;
    if ((size_t)got < sizeof head || memcmp(head.magic, MAGIC, sizeof head.magic) != 0)
        return CC_SEGMENT_FOREIGN;
    if (head.order != BYTE_ORDER_MARK)
        return CC_SEGMENT_ORDER;
    if (head.layout != CC_SEGMENT_LAYOUT)
        return CC_SEGMENT_VERSION;
    if (head.checksum != checksum_of(&head) || head.size != (uint64_t)status.st_size)
        return CC_SEGMENT_DAMAGED;
    *made = head.geometry;
    if (memcmp(&head.geometry, geometry, sizeof *geometry) != 0)
        return CC_SEGMENT_GEOMETRY;
    return head.size == size + CC_SEGMENT_HEADER ? CC_SEGMENT_OK : CC_SEGMENT_DAMAGED;
}

cc_segment_result cc_segment_open(cc_segment *segment, const char *path, size_t size,
                                  const cc_geometry *geometry, cc_geometry *made)
{
    clear(segment);
    /* O_NONBLOCK: opening a pipe would wait for its other end. */
    int file = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file < 0)
        return errno == ELOOP || errno == EISDIR || errno == ENXIO ? CC_SEGMENT_KIND : CC_SEGMENT_FAILED;
    segment->file = file;
    cc_segment_result result = inspect(file, size, geometry, made);
    if (result == CC_SEGMENT_OK)
        result = map(segment, file, size + CC_SEGMENT_HEADER);
    return result == CC_SEGMENT_OK ? result : give_up(segment, result);
}

/* Opens a new file beside `path`, without a name if the file system can do that. */
static cc_segment_result open_new(cc_segment *segment, const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t folder = slash == NULL ? 0 : (size_t)(slash - path) + 1;
    size_t room = strlen(path) + 32;
    uint64_t random;
    char *name = malloc(room);
    if (name == NULL)
        return failed(ENOMEM);
    snprintf(name, room, "%.*s.", (int)folder, path);
    segment->file = open(name, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (segment->file >= 0) {
        free(name);
        return CC_SEGMENT_OK;
    }
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT && errno != EINVAL) {
        int error = errno;
        free(name);
        return failed(error);
    }
    if (getrandom(&random, sizeof random, 0) != sizeof random) {
        free(name);
        return failed(EIO);
    }
    snprintf(name, room, "%s.%016llx", path, (unsigned long long)random);
    segment->file = open(name, O_CREAT | O_EXCL | O_NOFOLLOW | O_RDWR | O_CLOEXEC, 0600);
    if (segment->file < 0) {
        int error = errno;
        free(name);
        return failed(error);
    }
    segment->hidden = name;
    return CC_SEGMENT_OK;
}

/* Bytes of memory that the system could give without ending anybody; SIZE_MAX: it does not tell. */
static size_t memory_left(void)
{
    char line[128];
    unsigned long long available = SIZE_MAX / 1024, swap = 0;
    FILE *info = fopen("/proc/meminfo", "re");
    if (info == NULL)
        return SIZE_MAX;
    while (fgets(line, sizeof line, info) != NULL)
        if (sscanf(line, "MemAvailable: %llu", &available) != 1)
            sscanf(line, "SwapFree: %llu", &swap);
    fclose(info);
    return available >= SIZE_MAX / 1024 - swap ? SIZE_MAX : (size_t)(available + swap) * 1024;
}

/* Gives a file all its bytes; returns an error. What cannot be is found out first: filling up a disk,
   and all the more a memory, before it fails would not be an error of ours alone. */
static int allocate(int file, size_t size)
{
    struct statfs disk;
    if (fstatfs(file, &disk) == 0) {
        if (disk.f_blocks != 0 && disk.f_bfree < size / (size_t)disk.f_bsize)
            return ENOSPC;
        if (disk.f_type == TMPFS_MAGIC && memory_left() < size)
            return ENOMEM;
    }
    return posix_fallocate(file, 0, (off_t)size);
}

cc_segment_result cc_segment_create(cc_segment *segment, const char *path, size_t size,
                                    const cc_geometry *geometry)
{
    clear(segment);
    size_t whole = size + CC_SEGMENT_HEADER;
    if (whole > SIZE_MAX / 2)
        return failed(ENOSPC);
    if (open_new(segment, path) != CC_SEGMENT_OK)
        return CC_SEGMENT_FAILED;
    int error = fchmod(segment->file, 0600) != 0 ? errno : allocate(segment->file, whole);
    if (error != 0)
        return give_up(segment, failed(error));
    if (map(segment, segment->file, whole) != CC_SEGMENT_OK)
        return give_up(segment, CC_SEGMENT_FAILED);
    header head = {
        .magic = MAGIC,
        .layout = CC_SEGMENT_LAYOUT,
        .order = BYTE_ORDER_MARK,
        .size = whole,
        .geometry = *geometry,
    };
    head.checksum = checksum_of(&head);
    memcpy(segment->base, &head, sizeof head);
    return CC_SEGMENT_OK;
}

bool cc_segment_collapse(const cc_segment *segment)
{
    for (unsigned attempt = 0; attempt < COLLAPSES; attempt++) {
        if (madvise(segment->base, segment->size & ~(HUGE_PAGE - 1), MADV_COLLAPSE) == 0)
            return true;
        if (errno != EAGAIN) /* else some page was in use just then */
            return false;
    }
    return false;
}

cc_segment_result cc_segment_publish(cc_segment *segment, const char *path)
{
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", segment->file);
    bool hidden = segment->hidden != NULL;
    if (linkat(AT_FDCWD, hidden ? segment->hidden : name, AT_FDCWD, path,
               hidden ? 0 : AT_SYMLINK_FOLLOW) != 0)
        return CC_SEGMENT_FAILED;
    if (hidden)
        unlink(segment->hidden);
    free(segment->hidden);
    segment->hidden = NULL;
    return CC_SEGMENT_OK;
}

void cc_segment_close(cc_segment *segment)
{
    if (segment->hidden != NULL)
        unlink(segment->hidden);
    free(segment->hidden);
    if (segment->file >= 0)
        close(segment->file);
    if (segment->base != NULL)
        munmap(segment->base, segment->size);
    clear(segment);
}

bool cc_segment_lock(const cc_segment *segment, cc_segment_place place, bool alone, unsigned ms)
{
    struct flock lock = {
        .l_type = alone ? F_WRLCK : F_RDLCK,
        .l_whence = SEEK_SET,
        .l_start = (off_t)place,
        .l_len = 1,
    };
    for (unsigned waited = 0;; waited += POLL_MS) {
        if (fcntl(segment->file, F_OFD_SETLK, &lock) == 0)
            return true;
        if ((errno != EAGAIN && errno != EACCES && errno != EINTR) || waited >= ms)
            return false;
        nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000L}, NULL);
    }
}

void cc_segment_unlock(const cc_segment *segment, cc_segment_place place)
{
    struct flock lock = {
        .l_type = F_UNLCK,
        .l_whence = SEEK_SET,
        .l_start = (off_t)place,
        .l_len = 1,
    };
    fcntl(segment->file, F_OFD_SETLK, &lock);
}

bool cc_segment_reopen(cc_segment *segment)
{
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", segment->file);
    int file = open(name, O_RDWR | O_CLOEXEC);
    if (file < 0)
        return false;
    /* The mapping too: as long as it is of the parent's file, the parent's locks outlive the parent. */
    if (mmap(segment->base, segment->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0)
        == MAP_FAILED) {
        close(file);
        return false;
    }
    close(segment->file);
    segment->file = file;
    return true;
}

bool cc_segment_sync(const cc_segment *segment, size_t size)
{
    return msync(segment->base, size, MS_SYNC) == 0;
}
