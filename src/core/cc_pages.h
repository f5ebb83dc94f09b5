/* cc_pages.h — zeroed, line-aligned arrays that grow without copying.
 *
 * Up to 1 MiB an array comes from the C allocator. Above, it is its own mapping, aligned to 2 MiB
 * and offered to the kernel for huge pages (worth 10 % of a random hit among a million entries),
 * and growing it moves page tables, not bytes. Untouched pages cost nothing. Not thread safe. */
#ifndef CC_PAGES_H
#define CC_PAGES_H

#include <stddef.h>

/* `size` zeroed bytes, aligned to a cache line; NULL when there is no memory or size is 0. */
void *cc_pages_alloc(size_t size);

/* The same in pages of the usual size, for what is touched first when a cache is full: clearing a huge
   page then would be a pause of 0.1 to 6 ms. */
void *cc_pages_alloc_small(size_t size);

/* The array moved to a room of `size` bytes, the new part zeroed; NULL leaves it as it was. */
void *cc_pages_grow(void *pages, size_t old_size, size_t size);

void cc_pages_free(void *pages, size_t size);

#endif
