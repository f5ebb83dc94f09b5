# Snapshots of NumPy arrays that nobody can write to.

cdef bint is_array(object value) noexcept
cdef bint holds_objects(object value) noexcept  # of an array
cdef Py_ssize_t bytes_of(object value) noexcept  # the same
cdef object snapshot(object value)
