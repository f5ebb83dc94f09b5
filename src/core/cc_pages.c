/* cc_pages.c — see cc_pages.h. */
#define _GNU_SOURCE
#include "cc_pages.h"

#include "cc_base.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE ((size_t)2 << 20)
#define PAGE ((size_t)64 << 10)       /* a multiple of the page on every machine promised */
#define MAPPED_FROM ((size_t)1 << 20) /* bytes; below, a mapping of its own wastes its tail */

static size_t round_up(size_t size, size_t unit)
{
    return (size + unit - 1) & ~(unit - 1);
}

static void offer_huge_pages(void *start, size_t size)
{
#ifdef MADV_HUGEPAGE
    if (size >= HUGE_PAGE)
        madvise(start, size, MADV_HUGEPAGE);
#else
    (void)start;
    (void)size;
#endif
}

/* A mapping of `size` bytes (a multiple of PAGE) at a multiple of 2 MiB. */
static void *map_aligned(size_t size)
{
    size_t room = size + HUGE_PAGE;
    if (room < size)
        return NULL;
    char *base = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return NULL;
    char *start = (char *)round_up((size_t)base, HUGE_PAGE);
    if (start > base)
        munmap(base, (size_t)(start - base));
    munmap(start + size, (size_t)(base + room - (start + size)));
    return start;
}

void *cc_pages_alloc(size_t size)
{
    void *pages = cc_pages_alloc_small(size);
    if (pages != NULL && size >= MAPPED_FROM)
        offer_huge_pages(pages, round_up(size, PAGE));
    return pages;
}

void *cc_pages_alloc_small(size_t size)
{
    if (size == 0 || size > SIZE_MAX / 2)
        return NULL;
    if (size >= MAPPED_FROM)
        return map_aligned(round_up(size, PAGE));
    void *pages = aligned_alloc(CC_LINE, round_up(size, CC_LINE));
    if (pages != NULL)
        memset(pages, 0, size);
    return pages;
}

void *cc_pages_grow(void *pages, size_t old_size, size_t size)
{
    void *grown = cc_pages_alloc(size);
    if (grown == NULL || pages == NULL)
        return grown;
#ifdef __linux__
    if (old_size >= MAPPED_FROM && size >= old_size) {
        /* A refused move may already have unmapped its target: nothing more is done to it. */
        void *moved = mremap(pages, round_up(old_size, PAGE), round_up(size, PAGE),
                             MREMAP_MAYMOVE | MREMAP_FIXED, grown);
        if (moved == MAP_FAILED)
            return NULL;
        offer_huge_pages(moved, round_up(size, PAGE)); /* the moved mapping brought its own advice */
        return moved;
    }
#endif
    memcpy(grown, pages, old_size < size ? old_size : size);
    cc_pages_free(pages, old_size);
    return grown;
}

void cc_pages_free(void *pages, size_t size)
{
    if (pages == NULL)
        return;
    if (size >= MAPPED_FROM)
        munmap(pages, round_up(size, PAGE));
    else
        free(pages);
}
