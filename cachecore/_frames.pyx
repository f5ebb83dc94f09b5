"""Where the replies of a server end in the bytes that it sends, whatever they are.

For a proxy, which passes replies on as they came. Thread safety: the GIL.
"""

from libc.string cimport memset

from cachecore.cc_resp cimport *


cdef class Frames:
    """Follows one stream of replies.

    Attributes:
        kind: the type byte of the reply that is read or was read last, as a number.
        between: whether the next byte begins a reply.
    """

    cdef cc_resp_frame frame

    def __cinit__(self):
        memset(&self.frame, 0, sizeof(self.frame))

    def follow(self, bytes data, size_t at):
        """Goes on with data[at:]: where the reply ends in data, or -1 if it goes on after it.

        Raises ValueError if this is not RESP.
        """
        cdef size_t used
        cdef cc_resp_result result
        if at > <size_t>len(data):
            raise ValueError("at must be at most the length of data")
        result = cc_resp_follow(&self.frame, <const char *>data + at, len(data) - at, &used)
        if result == CC_RESP_READY:
            return at + used
        if result != CC_RESP_MORE:
            raise ValueError("the server's reply is not RESP")
        return -1

    @property
    def kind(self):
        return self.frame.type

    @property
    def between(self):
        return self.frame.values == 0
