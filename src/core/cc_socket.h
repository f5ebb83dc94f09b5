/* cc_socket.h — the sockets of many clients: which are ready, what they sent, what they take.
 *
 * Everything returns at once. Failures are -errno, so that a caller tells -EAGAIN (nothing now) from
 * the rest. Linux: readiness is epoll's, by level. */
#ifndef CC_SOCKET_H
#define CC_SOCKET_H

#include "cc_out.h"

enum { CC_READABLE = 1, CC_WRITABLE = 2, CC_BROKEN = 4 }; /* broken: nobody is at the other end */

typedef struct {
    uintptr_t tag;
    unsigned what;
} cc_ready;

/* A descriptor that is readable when any of those it watches is ready; or -errno. */
int cc_poll_open(void);

/* Watches a socket for `what`; `tag` comes back with it. 0 or -errno. */
int cc_poll_add(int poll, int fd, uintptr_t tag, unsigned what);
int cc_poll_change(int poll, int fd, uintptr_t tag, unsigned what);

/* Watches it no more: to be called before it is closed, since a copy of the descriptor, as the child
   of a fork has one, would keep it watched. */
void cc_poll_remove(int poll, int fd);

/* The sockets that are ready now, at most `most` <= 256; how many. */
int cc_poll_ready(int poll, cc_ready *ready, int most);

/* The next connection of a listener, non-blocking, small packets sent at once; or -errno. */
int cc_socket_accept(int listener);

/* Bytes received; 0: the other end sends no more; or -errno. */
ssize_t cc_socket_receive(int fd, char *to, size_t most);

/* Sends what is to be sent, as far as it goes now: the bytes that went, or -errno. */
ssize_t cc_socket_send(int fd, const cc_out *out);

#endif
