cdef class Durations:
    cdef public tuple bounds
    cdef public long long count
    cdef public double seconds
    cdef list _slow
    cpdef add(self, double seconds)
