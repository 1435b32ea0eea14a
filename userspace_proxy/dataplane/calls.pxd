cdef class SystemCalls:
    cdef readonly int buffer_bytes
    cdef readonly object buffer
    cdef char *_data
    cdef int _epoll
    cdef dict _socks
    cpdef int adopt(self, sock) except -1
    cpdef disown(self, int fd)
    cpdef socket(self, int fd)
    cpdef close(self, int fd)
    cpdef tuple accept(self, int listener)
    cpdef Py_ssize_t receive(self, int fd) noexcept
    cpdef Py_ssize_t send(self, int fd, Py_ssize_t count, int flags) noexcept
    cpdef Py_ssize_t send_bytes(self, int fd, data) except? -1
    cpdef read_part(self, Py_ssize_t start, Py_ssize_t end)
    cpdef int shut_down(self, int fd) noexcept
    cpdef int set_option(self, int fd, int level, int option, int value) noexcept
    cpdef int open_stream(self, int family) noexcept
    cpdef int open_bound(self, int family, str ip, int port, bint is_transparent) except? -1
    cpdef int connect(self, int fd, str ip, int port, bint holds_ack) except? -1
    cpdef send_acks(self, int fd)
    cpdef int take_error(self, int fd) noexcept
    cpdef Py_ssize_t splice(self, int source, int sink, Py_ssize_t count) noexcept
    cpdef int watch(self, int fd, unsigned int events) noexcept
    cpdef change_watch(self, int fd, unsigned int events)
    cpdef unwatch(self, int fd)
    cpdef list wait(self, int most)
