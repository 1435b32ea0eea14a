cdef class RoundRobin:
    cdef Py_ssize_t _next
