/* cc_base.h — compiler attributes, prefetch, bit tricks and integer mixing. */
#ifndef CC_BASE_H
#define CC_BASE_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CC_LIKELY(x) __builtin_expect(!!(x), 1)
#define CC_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define CC_INLINE static inline __attribute__((always_inline))
#define CC_NOINLINE __attribute__((noinline))
#define CC_COLD __attribute__((noinline, cold))
#define CC_PREFETCH(p) __builtin_prefetch((p), 0, 3)
#define CC_PREFETCH_WRITE(p) __builtin_prefetch((p), 1, 3)

/* A place that threads or processes read and write without a lock: never torn, in no order. */
#define CC_GET(place) __atomic_load_n(&(place), __ATOMIC_RELAXED)
#define CC_SET(place, value) __atomic_store_n(&(place), (value), __ATOMIC_RELAXED)
#define CC_ADD(place, value) __atomic_fetch_add(&(place), (value), __ATOMIC_RELAXED)

#define CC_LINE 64 /* bytes in a cache line on every machine that is promised */

/* Checked in debug builds only: what must hold if our own code is right. */
#ifdef CC_DEBUG
#include <stdio.h>
#include <stdlib.h>
#define CC_ASSERT(x)                                                                     \
    do {                                                                                 \
        if (!(x)) {                                                                      \
            fprintf(stderr, "%s:%d: cachecore: broken invariant: %s\n", __FILE__,        \
                    __LINE__, #x);                                                       \
            abort();                                                                     \
        }                                                                                \
    } while (0)
#else
#define CC_ASSERT(x) ((void)0)
#endif

CC_INLINE unsigned cc_log2_floor(uint32_t x)
{
    return 31u - (unsigned)__builtin_clz(x | 1u);
}

/* Smallest power of two that is at least x (x <= 2^63). */
CC_INLINE uint64_t cc_pow2_ceil(uint64_t x)
{
    return x <= 1 ? 1 : 1ull << (64 - __builtin_clzll(x - 1));
}

/* Folded multiply (the mixing step of wyhash, Wang Yi, 2019): every bit of x reaches every bit
   of the result, so keys that agree modulo any power of two do not collide. */
CC_INLINE uint64_t cc_fold64(uint64_t x, uint64_t y)
{
    __extension__ typedef unsigned __int128 cc_u128;
    cc_u128 m = (cc_u128)x * y;
    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

CC_INLINE uint64_t cc_mix64(uint64_t x, uint64_t seed)
{
    return cc_fold64(x ^ seed, 0x9E3779B97F4A7C15ull);
}

/* xorshift64* (Vigna, 2016): the policy's sampling needs speed and no more than fair spread. */
CC_INLINE uint32_t cc_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return (uint32_t)((x * 0x2545F4914F6CDD1Dull) >> 32);
}

/* A random integer below n, without division (Lemire, 2019; the tiny bias does not matter). */
CC_INLINE uint32_t cc_random_below(uint64_t *state, uint32_t n)
{
    return (uint32_t)(((uint64_t)cc_random(state) * n) >> 32);
}

#endif
