/* cc_sum.h — a checksum of bytes: any one that changes, moves or is missing changes it, but for one
 * time in 2^64. It finds accidents, not forgeries. Words are read in the machine's order. */
#ifndef CC_SUM_H
#define CC_SUM_H

#include "cc_base.h"

uint64_t cc_sum(const void *bytes, size_t size, uint64_t seed);

#endif
