/* cc_socket.c — see cc_socket.h. */
#define _GNU_SOURCE 1
#include "cc_socket.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { MOST_READY = 256, MOST_PARTS = 256 };

int cc_poll_open(void)
{
    int poll = epoll_create1(EPOLL_CLOEXEC);
    return poll < 0 ? -errno : poll;
}

static int control(int poll, int operation, int fd, uintptr_t tag, unsigned what)
{
    struct epoll_event event = {.data.u64 = tag};
    event.events = (what & CC_READABLE ? EPOLLIN : 0u) | (what & CC_WRITABLE ? EPOLLOUT : 0u);
    return epoll_ctl(poll, operation, fd, &event) < 0 ? -errno : 0;
}

int cc_poll_add(int poll, int fd, uintptr_t tag, unsigned what)
{
    return control(poll, EPOLL_CTL_ADD, fd, tag, what);
}

int cc_poll_change(int poll, int fd, uintptr_t tag, unsigned what)
{
    return control(poll, EPOLL_CTL_MOD, fd, tag, what);
}

void cc_poll_remove(int poll, int fd)
{
    epoll_ctl(poll, EPOLL_CTL_DEL, fd, NULL);
}

int cc_poll_ready(int poll, cc_ready *ready, int most)
{
    struct epoll_event events[MOST_READY];
    int count = epoll_wait(poll, events, most < MOST_READY ? most : MOST_READY, 0);
    for (int i = 0; i < count; i++) {
        unsigned what = events[i].events;
        ready[i].tag = (uintptr_t)events[i].data.u64;
        ready[i].what = (what & EPOLLIN ? CC_READABLE : 0u) | (what & EPOLLOUT ? CC_WRITABLE : 0u)
                        | (what & (EPOLLERR | EPOLLHUP) ? CC_BROKEN : 0u);
    }
    return count < 0 ? 0 : count;
}

int cc_socket_accept(int listener)
{
    int one = 1;
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return -errno;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* of no use to a Unix socket */
    return fd;
}

ssize_t cc_socket_receive(int fd, char *to, size_t most)
{
    ssize_t size;
    do
        size = recv(fd, to, most, MSG_DONTWAIT);
    while (size < 0 && errno == EINTR);
    return size < 0 ? -errno : size;
}

static ssize_t send_once(int fd, const struct iovec *parts, int count)
{
    struct msghdr message = {.msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)count};
    ssize_t size;
    do
        size = count == 1 ? send(fd, parts->iov_base, parts->iov_len, MSG_NOSIGNAL | MSG_DONTWAIT)
                          : sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (size < 0 && errno == EINTR);
    return size < 0 ? -errno : size;
}

ssize_t cc_socket_send(int fd, const cc_out *out)
{
    struct iovec parts[MOST_PARTS];
    int count = cc_out_parts(out, parts, MOST_PARTS);
    return count == 0 ? 0 : send_once(fd, parts, count);
}
