/* cc_segment.h — one region of memory addressed by offsets: anonymous, or a file that processes share.
 *
 * A file (in /dev/shm or on a disk) begins with a header that says what it is:
 *
 *     0 magic 8 | 8 layout 4 | 12 byte order 4 | 16 size 8 | 24 geometry 96 | 120 checksum 8 | ...
 *     4096 the contents
 *
 * Nobody ever sees a half-made file: it is made without a name (or under a random one, where the
 * file system cannot do that), allocated for real, filled in, and then linked to its path, which fails
 * if somebody else was first. The bytes exist from then on: a full disk or a full /dev/shm is an error
 * when it is made, never a SIGBUS later. Files are 0600; one that is not a plain file of the same
 * owner, or that was made for another geometry or layout, is refused and left alone.
 *
 * A file outlives every process that maps it. Two locks on it, which the kernel ends with whoever holds
 * them, say who is opening it just now and whether anybody else has it open: locks of the open file,
 * which a forked child shares until it has opened the file again. Not thread safe: its owner opens and
 * closes it. */
#ifndef CC_SEGMENT_H
#define CC_SEGMENT_H

#include "cc_base.h"

enum {
    CC_SEGMENT_LAYOUT = 1,    /* changes with anything that another version would misread */
    CC_SEGMENT_HEADER = 4096, /* bytes before the contents */
    CC_SEGMENT_WORDS = 12,
};

/* What the contents are, in their owner's words; only an equal geometry may open a file. */
typedef struct {
    uint64_t words[CC_SEGMENT_WORDS];
} cc_geometry;

typedef struct {
    unsigned char *base; /* the header; NULL: closed */
    size_t size;         /* header and contents */
    int file;            /* -1: anonymous memory */
    char *hidden;        /* the random name that a file has until it is published; NULL: none */
} cc_segment;

typedef enum {
    CC_SEGMENT_OK,
    CC_SEGMENT_FAILED,   /* errno says why */
    CC_SEGMENT_KIND,     /* not a regular file, or a symbolic link */
    CC_SEGMENT_OWNER,    /* somebody else's */
    CC_SEGMENT_MODE,     /* others may read or write it */
    CC_SEGMENT_FOREIGN,  /* not a segment */
    CC_SEGMENT_VERSION,  /* of another layout */
    CC_SEGMENT_ORDER,    /* of a machine with another byte order */
    CC_SEGMENT_DAMAGED,  /* its header contradicts itself, or the file's size */
    CC_SEGMENT_GEOMETRY, /* of another geometry */
} cc_segment_result;

/* Anonymous memory for contents of `size` bytes, zero, in huge pages where the kernel has them. */
cc_segment_result cc_segment_anonymous(cc_segment *segment, size_t size);

/* Maps the file at `path`. FAILED with ENOENT: there is none. *made: the geometry of a file that is
   refused for it, for the message. */
cc_segment_result cc_segment_open(cc_segment *segment, const char *path, size_t size,
                                  const cc_geometry *geometry, cc_geometry *made);

/* Makes a file for `path` that nobody can see until it is published; contents are zero. */
cc_segment_result cc_segment_create(cc_segment *segment, const char *path, size_t size,
                                    const cc_geometry *geometry);

/* Gives a created file its path; FAILED with EEXIST: there is one by now. */
cc_segment_result cc_segment_publish(cc_segment *segment, const char *path);

/* Puts what is there into huge pages, for all who map the file; false: the kernel does not do that
   here. Some three seconds a GB. */
bool cc_segment_collapse(const cc_segment *segment);

/* Unmaps it; a file that was not published is gone. */
void cc_segment_close(cc_segment *segment);

/* What of a file is locked: the right to change who has it open, and having it open. */
typedef enum { CC_SEGMENT_DOOR, CC_SEGMENT_SEAT } cc_segment_place;

/* Locks a place of a file, or changes the lock on it, for this process alone or with others; gives up
   after `ms` with EAGAIN. Let go by cc_segment_unlock or by closing. */
bool cc_segment_lock(const cc_segment *segment, cc_segment_place place, bool alone, unsigned ms);

void cc_segment_unlock(const cc_segment *segment, cc_segment_place place);

/* Opens and maps the file of a segment again, in the child of a fork, for locks of its own; false: it
   goes on with its parent's. */
bool cc_segment_reopen(cc_segment *segment);

/* Writes to the disk what is not there yet of the first `size` bytes, header included. */
bool cc_segment_sync(const cc_segment *segment, size_t size);

CC_INLINE void *cc_segment_at(const cc_segment *segment, size_t offset)
{
    return segment->base + CC_SEGMENT_HEADER + offset;
}

#endif
