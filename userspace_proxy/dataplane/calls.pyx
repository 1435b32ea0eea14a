"""The compiled form of ``calls.py``, with the same contract: calls libc without Python objects.

Rule 4: a socket that was accepted here gets a Python object only when :meth:`SystemCalls.socket` is
called; the object then closes it.
"""

import _socket

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memset
from libc.errno cimport EINTR, errno
from libc.stdint cimport uint16_t, uint32_t

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8(object) except NULL
    str PyUnicode_DecodeASCII(const char *, Py_ssize_t, const char *)

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        int fd
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event *)
    int epoll_wait(int, epoll_event *, int, int)
    enum: EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL

cdef extern from "<netinet/in.h>" nogil:
    struct in_addr:
        uint32_t s_addr
    struct in6_addr:
        pass
    struct sockaddr:
        uint16_t sa_family
    struct sockaddr_in:
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        uint16_t sin6_port
        uint32_t sin6_flowinfo
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    struct sockaddr_storage:
        pass
    uint16_t ntohs(uint16_t)
    uint16_t htons(uint16_t)
    uint32_t ntohl(uint32_t)
    enum: AF_INET, AF_INET6, INET6_ADDRSTRLEN, SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC
    enum: SOL_SOCKET, SO_DOMAIN, SO_ERROR, SHUT_WR, MSG_NOSIGNAL

cdef extern from "<sys/socket.h>" nogil:
    int accept4(int, sockaddr *, uint32_t *, int)
    ssize_t recv(int, void *, size_t, int)
    ssize_t c_send "send"(int, void *, size_t, int)
    int c_socket "socket"(int, int, int)
    int c_bind "bind"(int, sockaddr *, uint32_t)
    int c_connect "connect"(int, sockaddr *, uint32_t)
    int shutdown(int, int)
    int setsockopt(int, int, int, void *, uint32_t)
    int getsockopt(int, int, int, void *, uint32_t *)
    int getsockname(int, sockaddr *, uint32_t *)

cdef extern from "<arpa/inet.h>" nogil:
    int inet_pton(int, const char *, void *)
    const char *inet_ntop(int, const void *, char *, uint32_t)

cdef extern from "<fcntl.h>" nogil:
    ssize_t c_splice "splice"(int, void *, int, void *, size_t, unsigned int)
    int fcntl(int, int, int)
    enum: SPLICE_F_MOVE, SPLICE_F_NONBLOCK, O_NONBLOCK, O_CLOEXEC, F_SETPIPE_SZ

cdef extern from "<unistd.h>" nogil:
    int c_close "close"(int)
    int pipe2(int *, int)
    ssize_t read(int, void *, size_t)

IS_COMPILED = True

cdef enum:
    # The maximum that the reactor requests.
    MAX_EVENTS = 256


cdef str write_ipv4(uint32_t address):
    """Return an IPv4 address as text; inet_ntop calls printf and takes four times as long."""
    cdef char text[16]
    cdef int shift, size = 0
    cdef uint32_t part
    for shift in (24, 16, 8, 0):
        part = address >> shift & 0xFF
        if part >= 100:
            text[size] = 48 + part // 100
            size += 1
        if part >= 10:
            text[size] = 48 + part // 10 % 10
            size += 1
        text[size] = 48 + part % 10
        text[size + 1] = 46
        size += 2
    return PyUnicode_DecodeASCII(text, size - 1, NULL)


cdef uint32_t write_address(sockaddr_storage *to, int fd, str ip, int port) except? 0:
    """Write a socket address, the wildcard if ``ip`` is empty; return its size, 0 if invalid."""
    cdef sockaddr_in *four = <sockaddr_in *>to
    cdef sockaddr_in6 *six = <sockaddr_in6 *>to
    cdef int family
    cdef uint32_t size = sizeof(family)
    memset(to, 0, sizeof(sockaddr_storage))
    if not ip:
        if getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) < 0:
            raise OSError(errno, "not a socket")
    else:
        family = AF_INET6 if ":" in ip else AF_INET
    (<sockaddr *>to).sa_family = family
    if family == AF_INET6:
        six.sin6_port = htons(port)
        if ip and inet_pton(AF_INET6, PyUnicode_AsUTF8(ip), &six.sin6_addr) != 1:
            return 0
        return sizeof(sockaddr_in6)
    four.sin_port = htons(port)
    if ip and inet_pton(AF_INET, PyUnicode_AsUTF8(ip), &four.sin_addr) != 1:
        return 0
    return sizeof(sockaddr_in)


cdef class SystemCalls:
    """The sockets, pipes and epoll of one event loop."""

    def __init__(self, int buffer_bytes):
        self._socks = {}
        store = bytearray(buffer_bytes)
        self.buffer = memoryview(store)
        # A bytearray with a view can't be resized, so the pointer stays valid.
        self._data = store
        self.buffer_bytes = buffer_bytes
        self._epoll = epoll_create1(EPOLL_CLOEXEC)
        if self._epoll < 0:
            raise OSError(errno, "cannot open an epoll")

    def __dealloc__(self):
        if self._epoll >= 0:
            c_close(self._epoll)

    cpdef int adopt(self, sock) except -1:
        cdef int fd = sock.fileno()
        self._socks[fd] = sock
        return fd

    cpdef disown(self, int fd):
        self._socks.pop(fd, None)

    cpdef socket(self, int fd):
        cdef sockaddr_storage own
        cdef uint32_t size = sizeof(own)
        sock = self._socks.get(fd)
        if sock is None:
            if getsockname(fd, <sockaddr *>&own, &size) < 0:
                raise OSError(errno, "not a socket")
            sock = _socket.socket((<sockaddr *>&own).sa_family, SOCK_STREAM, 0, fd)
            sock.setblocking(False)
            self._socks[fd] = sock
        return sock

    cpdef close(self, int fd):
        if self._socks:
            sock = self._socks.pop(fd, None)
            if sock is not None:
                sock.close()
                return
        c_close(fd)

    cpdef tuple accept(self, int listener):
        cdef sockaddr_storage peer
        cdef sockaddr_in *four = <sockaddr_in *>&peer
        cdef sockaddr_in6 *six = <sockaddr_in6 *>&peer
        cdef uint32_t size = sizeof(peer)
        cdef char text[INET6_ADDRSTRLEN]
        cdef int fd
        while True:
            fd = accept4(listener, <sockaddr *>&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd >= 0:
                break
            if errno != EINTR:
                return -errno, None
        if (<sockaddr *>&peer).sa_family == AF_INET:
            return fd, (write_ipv4(ntohl(four.sin_addr.s_addr)), ntohs(four.sin_port))
        inet_ntop(AF_INET6, &six.sin6_addr, text, INET6_ADDRSTRLEN)
        ip = (<bytes>text).decode("ascii")
        return fd, (ip, ntohs(six.sin6_port), ntohl(six.sin6_flowinfo), six.sin6_scope_id)

    cpdef Py_ssize_t receive(self, int fd) noexcept:
        cdef ssize_t count = recv(fd, self._data, self.buffer_bytes, 0)
        return count if count >= 0 else -errno

    cpdef Py_ssize_t send(self, int fd, Py_ssize_t count, int flags) noexcept:
        cdef ssize_t sent = c_send(fd, self._data, count, flags | MSG_NOSIGNAL)
        return sent if sent >= 0 else -errno

    cpdef Py_ssize_t send_bytes(self, int fd, data) except? -1:
        cdef const unsigned char[:] part = data
        cdef ssize_t sent = c_send(fd, <void *>&part[0], len(part), MSG_NOSIGNAL)
        return sent if sent >= 0 else -errno

    cpdef read_part(self, Py_ssize_t start, Py_ssize_t end):
        return memoryview(PyBytes_FromStringAndSize(self._data + start, end - start))

    cpdef int shut_down(self, int fd) noexcept:
        return 0 if shutdown(fd, SHUT_WR) == 0 else -errno

    cpdef int set_option(self, int fd, int level, int option, int value) noexcept:
        return 0 if setsockopt(fd, level, option, &value, sizeof(value)) == 0 else -errno

    cpdef int open_stream(self, int family) noexcept:
        cdef int fd = c_socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        return fd if fd >= 0 else -errno

    cpdef int open_bound(self, int family, str ip, int port, bint is_transparent) except? -1:
        cdef sockaddr_storage own
        cdef int one = 1, number = 0
        cdef int fd = c_socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        cdef uint32_t size
        if fd < 0:
            return -errno
        size = write_address(&own, fd, ip, port)
        if not size:
            c_close(fd)
            raise ValueError(f"no IP address: {ip}")
        if is_transparent:
            if family == AF_INET6:
                number = setsockopt(fd, 41, 75, &one, sizeof(one))
            else:
                number = setsockopt(fd, 0, 19, &one, sizeof(one))
        if number == 0:
            number = setsockopt(fd, SOL_SOCKET, 2, &one, sizeof(one))
        if number == 0:
            number = c_bind(fd, <sockaddr *>&own, size)
        if number == 0:
            return fd
        number = -errno
        c_close(fd)
        return number

    cpdef int connect(self, int fd, str ip, int port, bint holds_ack) except? -1:
        cdef sockaddr_storage to
        cdef int zero = 0, number
        cdef uint32_t size = write_address(&to, fd, ip, port)
        if holds_ack:
            setsockopt(fd, 6, 12, &zero, sizeof(zero))
        if not size:
            # inet_pton rejects an address with a zone, such as fe80::1%eth0.
            number = -self.socket(fd).connect_ex((ip, port))
        else:
            number = 0 if c_connect(fd, <sockaddr *>&to, size) == 0 else -errno
        if number == 0 or number == -115:
            return fd
        self.close(fd)
        return number

    cpdef send_acks(self, int fd):
        self.set_option(fd, 6, 12, 1)

    cpdef int take_error(self, int fd) noexcept:
        cdef int number = 0
        cdef uint32_t size = sizeof(number)
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &number, &size)
        return number

    def open_pipe(self, int size):
        cdef int ends[2]
        cdef int number
        if pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0:
            return -errno, -1
        if fcntl(ends[1], F_SETPIPE_SZ, size) < 0:
            number = -errno
            c_close(ends[0])
            c_close(ends[1])
            return number, -1
        return ends[0], ends[1]

    cpdef Py_ssize_t splice(self, int source, int sink, Py_ssize_t count) noexcept:
        cdef ssize_t moved = c_splice(
            source, NULL, sink, NULL, count, SPLICE_F_MOVE | SPLICE_F_NONBLOCK
        )
        return moved if moved >= 0 else -errno

    def read_pipe(self, int fd, Py_ssize_t count):
        data = PyBytes_FromStringAndSize(NULL, count)
        cdef ssize_t taken = read(fd, <char *>data, count)
        if taken < 0:
            raise OSError(errno, "cannot read a pipe")
        return data[:taken]

    def epoll_descriptor(self):
        return self._epoll

    cpdef int watch(self, int fd, unsigned int events) noexcept:
        cdef epoll_event event
        event.events = events
        event.data.fd = fd
        return 0 if epoll_ctl(self._epoll, EPOLL_CTL_ADD, fd, &event) == 0 else -errno

    cpdef change_watch(self, int fd, unsigned int events):
        cdef epoll_event event
        event.events = events
        event.data.fd = fd
        if epoll_ctl(self._epoll, EPOLL_CTL_MOD, fd, &event) < 0:
            raise OSError(errno, "cannot watch for other events")

    cpdef unwatch(self, int fd):
        cdef epoll_event event
        if epoll_ctl(self._epoll, EPOLL_CTL_DEL, fd, &event) < 0:
            raise OSError(errno, "cannot stop watching")

    cpdef list wait(self, int most):
        cdef epoll_event events[MAX_EVENTS]
        cdef int number, count = epoll_wait(self._epoll, events, min(most, MAX_EVENTS), 0)
        if count < 0:
            raise OSError(errno, "cannot wait for events")
        return [(events[number].data.fd, events[number].events) for number in range(count)]

    def close_epoll(self):
        if self._epoll >= 0:
            c_close(self._epoll)
            self._epoll = -1
