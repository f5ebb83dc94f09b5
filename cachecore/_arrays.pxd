# Snapshots of NumPy arrays that nobody can write to.

cdef bint is_array(object value) noexcept
cdef object snapshot(object value)
