/* cc_clock.h — the coarse monotonic clock, in milliseconds.
 *
 * CLOCK_MONOTONIC_COARSE is a read of a page the kernel maintains: about 3.5 ns, with a
 * resolution of one timer tick (1–10 ms), within the 10 ms that TTLs promise. rdtsc costs 8 ns on
 * the machines measured. Tests replace the clock one layer up (`timer=`). */
#ifndef CC_CLOCK_H
#define CC_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t cc_clock_ms(void)
{
    struct timespec now;
#ifdef CLOCK_MONOTONIC_COARSE
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
#else
    clock_gettime(CLOCK_MONOTONIC, &now);
#endif
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

#endif
