# Patterns of keys, of src/core/cc_glob.h.

cdef extern from "cc_glob.h":
    bint cc_glob(const char *pattern, size_t pattern_size, const char *text,
                 size_t text_size) noexcept nogil
