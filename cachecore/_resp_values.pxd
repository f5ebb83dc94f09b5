# What other compiled modules see of _resp_values.pyx.

from cachecore.cc_out cimport cc_out


cdef int put(cc_out *out, object value, unsigned protocol) except -1
cdef bytes joined(cc_out *out, size_t most=*)
