# The sockets of many clients, of src/core/cc_socket.h.

from libc.stdint cimport uintptr_t

from cachecore.cc_out cimport cc_out

cdef extern from "cc_socket.h":
    enum:
        CC_READABLE
        CC_WRITABLE
        CC_BROKEN

    ctypedef struct cc_ready:
        uintptr_t tag
        unsigned what

    int cc_poll_open() noexcept
    int cc_poll_add(int poll, int fd, uintptr_t tag, unsigned what) noexcept
    int cc_poll_change(int poll, int fd, uintptr_t tag, unsigned what) noexcept
    void cc_poll_remove(int poll, int fd) noexcept
    int cc_poll_ready(int poll, cc_ready *ready, int most) noexcept
    int cc_socket_accept(int listener) noexcept
    Py_ssize_t cc_socket_receive(int fd, char *to, size_t most) noexcept
    Py_ssize_t cc_socket_send(int fd, const cc_out *out) noexcept
