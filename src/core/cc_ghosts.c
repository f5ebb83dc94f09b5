/* cc_ghosts.c — see cc_ghosts.h. */
#include "cc_ghosts.h"

#include "cc_pages.h"

#include <string.h>

enum { SPAN_STAMPS = 4096, REMEMBERED = 4 /* ... th part of the capacity */ };

size_t cc_ghosts_size(const cc_ghosts *ghosts)
{
    return (size_t)ghosts->lines * CC_GHOSTS_LINE * sizeof(uint32_t);
}

void cc_ghosts_shape(cc_ghosts *ghosts, uint32_t capacity, uint64_t size)
{
    uint32_t remembered = capacity / REMEMBERED + 1;
    uint64_t span = size / REMEMBERED + 1;
    memset(ghosts, 0, sizeof *ghosts);
    ghosts->lines = (uint32_t)((2ull * remembered + CC_GHOSTS_KIND - 1) / CC_GHOSTS_KIND);
    while (span >> ghosts->unit > SPAN_STAMPS)
        ghosts->unit++;
    ghosts->span = (uint32_t)(span >> ghosts->unit);
}

bool cc_ghosts_init(cc_ghosts *ghosts, uint32_t capacity, uint64_t size)
{
    cc_ghosts_shape(ghosts, capacity, size);
    ghosts->lines = (uint32_t)cc_pow2_ceil(ghosts->lines);
    ghosts->places = cc_pages_alloc_small(cc_ghosts_size(ghosts));
    if (ghosts->places == NULL)
        ghosts->lines = 0;
    return ghosts->places != NULL;
}

void cc_ghosts_free(cc_ghosts *ghosts)
{
    cc_pages_free(ghosts->places, cc_ghosts_size(ghosts));
    memset(ghosts, 0, sizeof *ghosts);
}

static uint32_t fingerprint(uint32_t hash)
{
    uint32_t low = hash & 0xFFFF;
    return (low + (low == 0)) << 16;
}

static uint32_t stamp(const cc_ghosts *ghosts, unsigned kind)
{
    return (uint32_t)(ghosts->pushes[kind] >> ghosts->unit) & 0xFFFF;
}

void cc_ghosts_push(cc_ghosts *ghosts, uint32_t hash, cc_ghost kind, uint64_t size)
{
    if (ghosts->places == NULL)
        return;
    uint32_t *places = cc_ghosts_line(ghosts, hash) + kind * CC_GHOSTS_KIND;
    memmove(places + 1, places, (CC_GHOSTS_KIND - 1) * sizeof *places);
    places[0] = fingerprint(hash) | stamp(ghosts, kind);
    ghosts->pushes[kind] += size;
}

cc_ghost cc_ghosts_take(cc_ghosts *ghosts, uint32_t hash, float *nearness)
{
    if (ghosts->places == NULL)
        return CC_GHOST_NONE;
    uint32_t *places = cc_ghosts_line(ghosts, hash);
    uint32_t print = fingerprint(hash);
    unsigned found = 0; /* a loop without exits, which compilers turn into four comparisons */
    for (unsigned i = 0; i < CC_GHOSTS_LINE; i++)
        found |= (places[i] & 0xFFFF0000u) == print;
    if (CC_LIKELY(!found))
        return CC_GHOST_NONE;
    for (unsigned i = 0; i < CC_GHOSTS_LINE; i++) {
        unsigned kind = i / CC_GHOSTS_KIND;
        if ((places[i] & 0xFFFF0000u) != print)
            continue;
        uint32_t age = (stamp(ghosts, kind) - places[i]) & 0xFFFF;
        places[i] = 0;
        if (age > ghosts->span)
            continue;
        *nearness = 1 - (float)age / (float)(ghosts->span + 1);
        return (cc_ghost)kind;
    }
    return CC_GHOST_NONE;
}
