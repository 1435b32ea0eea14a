cdef class Descriptors:
    cdef public long limit, in_use, _flows, for_connections
    cdef public object _held, _timer, _log_limit, _full_since
    cdef public list _waiting
    cdef public double _waited_at, _shedding_until
    cpdef bint has_room(self, long count)
    cpdef take(self, long count)
    cpdef give(self, long count)
