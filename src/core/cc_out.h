/* cc_out.h — bytes to be sent: what was copied together, and pieces that are pointed at.
 *
 *     data    | copied | copied      | copied |
 *     pieces           ^ a value     ^ a value          each between two bytes of data
 *
 * A piece belongs to an owner, opaque here, who is let go of when its last byte has been sent.
 * Writing never fails half way: without memory `failed` is set and what is written is dropped, so
 * that a caller asks once, at the end. Not thread safe. */
#ifndef CC_OUT_H
#define CC_OUT_H

#include "cc_base.h"

#include <string.h>
#include <sys/uio.h>

typedef struct {
    size_t at; /* bytes of data before it */
    const char *bytes;
    size_t size;
    void *owner;
} cc_piece;

typedef struct {
    char *data;
    size_t size, room;
    cc_piece *pieces;
    size_t count, pieces_room;
    size_t pointed;         /* bytes of the pieces */
    size_t sent;            /* bytes of data that have been sent */
    size_t first, of_first; /* pieces that have been sent; bytes of the next one */
    size_t gone;            /* bytes sent in all, since it was empty */
    bool failed;
} cc_out;

typedef void (*cc_out_release)(void *owner);

/* Room for `more` bytes; NULL: no memory. */
char *cc_out_grow(cc_out *out, size_t more);

/* Something that is pointed at; false: no memory, the owner stays the caller's. */
bool cc_out_point(cc_out *out, const char *bytes, size_t size, void *owner);

/* What is to be sent next, at most `most` parts; how many there are. */
int cc_out_parts(const cc_out *out, struct iovec *parts, int most);

/* `size` bytes more have been sent. */
void cc_out_sent(cc_out *out, size_t size, cc_out_release release);

/* Forgets everything from byte `size` of data and piece `count` on: what a reply began with. */
void cc_out_cut(cc_out *out, size_t size, size_t count, cc_out_release release);

/* Empties it; its memory stays. */
void cc_out_clear(cc_out *out, cc_out_release release);

/* Empties it and gives its memory back. */
void cc_out_free(cc_out *out, cc_out_release release);

/* Bytes that are yet to be sent. */
CC_INLINE size_t cc_out_left(const cc_out *out)
{
    return out->size + out->pointed - out->gone;
}

/* Where the next `more` bytes go; NULL: no memory. Whoever writes there adds to `size`. */
CC_INLINE char *cc_out_place(cc_out *out, size_t more)
{
    return CC_LIKELY(out->room - out->size >= more) ? out->data + out->size
                                                    : cc_out_grow(out, more);
}

CC_INLINE void cc_out_put(cc_out *out, const char *bytes, size_t size)
{
    char *place = cc_out_place(out, size);
    if (CC_LIKELY(place != NULL)) {
        memcpy(place, bytes, size);
        out->size += size;
    }
}

#endif
