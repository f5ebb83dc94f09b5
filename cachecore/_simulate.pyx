"""The policy on traces of int64 keys, without the GIL; cachecore.plan checks what comes here."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t

import numpy as np

cdef extern from "cc_simulator.h":
    ctypedef struct cc_policy:
        uint32_t live, window
        uint64_t load, window_load
        bint by_size
        uint64_t sketch_bytes

    ctypedef struct cc_simulator:
        cc_policy policy
        uint64_t hits, refused
        uint64_t left[4]
        uint64_t bytes_hit
        double cost_hit

    ctypedef struct cc_requests:
        const int64_t *keys
        const int64_t *sizes
        const double *costs
        const uint32_t *times

    enum:
        CC_NO_LIMIT

    void cc_simulator_init(cc_simulator *simulator, uint32_t limit, uint64_t max_bytes,
                           uint32_t lifetime, bint weighed, uint64_t seed) noexcept
    void cc_simulator_free(cc_simulator *simulator) noexcept
    bint cc_simulator_run(cc_simulator *simulator, const cc_requests *requests, size_t start,
                          size_t until) noexcept nogil


def run(const int64_t[::1] keys, const int64_t[::1] sizes, const double[::1] costs,
        const uint32_t[::1] times, maxsize, max_bytes, uint32_t lifetime, uint64_t seed,
        uint64_t sketch_bytes, size_t samples):
    """Serves all requests and returns the counts, and the window's share after each of `samples`
    equal parts of the trace. MemoryError: there was none. Other threads run meanwhile."""
    cdef cc_simulator simulator
    cdef cc_requests requests
    cdef size_t part, start, until, count = keys.shape[0]
    cdef bint weighed = sizes is not None or costs is not None
    cdef bint served = True
    requests.keys = &keys[0] if count else NULL
    requests.sizes = &sizes[0] if sizes is not None and count else NULL
    requests.costs = &costs[0] if costs is not None and count else NULL
    requests.times = &times[0] if times is not None and count else NULL
    cc_simulator_init(&simulator, CC_NO_LIMIT if maxsize is None else min(maxsize, 2**31 - 1),
                      2**64 - 1 if max_bytes is None else max_bytes, lifetime, weighed, seed)
    simulator.policy.sketch_bytes = sketch_bytes
    window = np.zeros(samples)
    try:
        for part in range(samples):
            start, until = count * part // samples, count * (part + 1) // samples
            with nogil:
                served = cc_simulator_run(&simulator, &requests, start, until)
            if not served:
                raise MemoryError("no memory for the simulated cache")
            if simulator.policy.by_size:
                window[part] = simulator.policy.window_load / (simulator.policy.load or 1)
            else:
                window[part] = simulator.policy.window / (simulator.policy.live or 1)
        evicted, rejected, expired, _ = simulator.left
        return {
            "hits": simulator.hits, "bytes_hit": simulator.bytes_hit,
            "cost_hit": simulator.cost_hit, "evictions": evicted, "rejections": rejected,
            "expirations": expired, "refused": simulator.refused,
            "entries": simulator.policy.live, "bytes": simulator.policy.load, "window": window,
        }
    finally:
        cc_simulator_free(&simulator)
