/* cc_out.c — see cc_out.h. */
#include "cc_out.h"

#include <stdlib.h>

enum { LEAST_ROOM = 4096, LEAST_PIECES = 16 };

char *cc_out_grow(cc_out *out, size_t more)
{
    size_t room = out->room ? out->room : LEAST_ROOM;
    if (out->failed || more > SIZE_MAX / 4 - out->size) {
        out->failed = true;
        return NULL;
    }
    while (room - out->size < more)
        room *= 2;
    char *data = room == out->room ? out->data : realloc(out->data, room);
    if (data == NULL) {
        out->failed = true;
        return NULL;
    }
    out->data = data;
    out->room = room;
    return data + out->size;
}

bool cc_out_point(cc_out *out, const char *bytes, size_t size, void *owner)
{
    if (out->count == out->pieces_room) {
        size_t room = out->pieces_room ? 2 * out->pieces_room : LEAST_PIECES;
        cc_piece *pieces = out->failed ? NULL : realloc(out->pieces, room * sizeof *pieces);
        if (pieces == NULL) {
            out->failed = true;
            return false;
        }
        out->pieces = pieces;
        out->pieces_room = room;
    }
    out->pieces[out->count++] = (cc_piece){out->size, bytes, size, owner};
    out->pointed += size;
    return true;
}

int cc_out_parts(const cc_out *out, struct iovec *parts, int most)
{
    size_t from = out->sent, piece = out->first, skip = out->of_first;
    int count = 0;
    while (count < most) {
        size_t until = piece < out->count ? out->pieces[piece].at : out->size;
        if (from < until) {
            parts[count++] = (struct iovec){out->data + from, until - from};
            from = until;
        } else if (piece < out->count) {
            const cc_piece *next = &out->pieces[piece++];
            parts[count++] = (struct iovec){(char *)next->bytes + skip, next->size - skip};
            skip = 0;
        } else {
            break;
        }
    }
    return count;
}

void cc_out_sent(cc_out *out, size_t size, cc_out_release release)
{
    out->gone += size;
    for (;;) {
        size_t until = out->first < out->count ? out->pieces[out->first].at : out->size;
        size_t step = until - out->sent;
        if (size < step || out->first == out->count) {
            CC_ASSERT(size <= step);
            out->sent += size;
            break;
        }
        out->sent = until;
        size -= step;
        const cc_piece *piece = &out->pieces[out->first];
        if (size < piece->size - out->of_first) {
            out->of_first += size;
            break;
        }
        size -= piece->size - out->of_first;
        out->of_first = 0;
        out->first++;
        release(piece->owner);
    }
    if (cc_out_left(out) == 0)
        cc_out_clear(out, release);
}

void cc_out_cut(cc_out *out, size_t size, size_t count, cc_out_release release)
{
    while (out->count > count) {
        const cc_piece *piece = &out->pieces[--out->count];
        out->pointed -= piece->size;
        release(piece->owner);
    }
    out->size = size;
}

void cc_out_clear(cc_out *out, cc_out_release release)
{
    size_t count = out->count;
    out->count = 0;
    for (size_t at = out->first; at < count; at++)
        release(out->pieces[at].owner);
    out->size = out->pointed = out->sent = out->first = out->of_first = out->gone = 0;
}

void cc_out_free(cc_out *out, cc_out_release release)
{
    cc_out_clear(out, release);
    free(out->data);
    free(out->pieces);
    memset(out, 0, sizeof *out);
}
