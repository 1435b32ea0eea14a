cdef class Balancer:
    cdef public object strategy, standby_strategies, _weights, is_full, _ejections, _entries, _affinity
    cdef public object endpoints, _usable, _levels, _first
    cdef public bint _is_plain
    cdef public long _turn
    cpdef bint answered(self, endpoint)
