"""Runs one policy of libcachesim over a trace at several sizes: a script, in a process of its own.

    libcachesim_run.py TRACE POLICY SIZE ...

TRACE is in libcachesim's oracleGeneral format; objects count as of size 1. Prints "hit RATIO" for
each size. Its own process, because libcachesim holds the GIL; of cachecore it imports nothing.
"""

import sys

import libcachesim

_, path, policy, *sizes = sys.argv
for size in map(int, sizes):
    options = libcachesim.ReaderInitParam(ignore_obj_size=True)
    reader = libcachesim.TraceReader(path, libcachesim.TraceType.ORACLE_GENERAL_TRACE, options)
    # A power of two to start the hash table with: by default 2^24, which takes longer than the run.
    cache = getattr(libcachesim, policy)(size, hashpower=min(max(size.bit_length(), 10), 24))
    print("hit", 1 - cache.process_trace(reader)[0], flush=True)
