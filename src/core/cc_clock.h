/* cc_clock.h — the coarse clocks, in milliseconds: monotonic, and Unix time for what outlives a process.
 *
 * CLOCK_MONOTONIC_COARSE is a read of a page the kernel maintains: about 3.5 ns, with a
 * resolution of one timer tick (1–10 ms), within the 10 ms that TTLs promise. rdtsc costs 8 ns on
 * the machines measured. Tests replace the clock one layer up (`timer=`). */
#ifndef CC_CLOCK_H
#define CC_CLOCK_H

#include <stdint.h>
#include <time.h>

#ifdef CLOCK_MONOTONIC_COARSE
#define CC_CLOCK_MONOTONIC CLOCK_MONOTONIC_COARSE
#define CC_CLOCK_UNIX CLOCK_REALTIME_COARSE
#else
#define CC_CLOCK_MONOTONIC CLOCK_MONOTONIC
#define CC_CLOCK_UNIX CLOCK_REALTIME
#endif

static inline int64_t cc_clock_read(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static inline int64_t cc_clock_ms(void)
{
    return cc_clock_read(CC_CLOCK_MONOTONIC);
}

/* Not coarse, for measuring what took how long. */
static inline int64_t cc_nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline int64_t cc_clock_unix_ms(void)
{
    return cc_clock_read(CC_CLOCK_UNIX);
}

#endif
