cdef class PairCounts:
    cdef public dict _counts
    cpdef add(self, client, endpoint)
    cpdef remove(self, client, endpoint)
    cpdef bint has(self, client, endpoint)

cdef class Pairs:
    cdef public dict until
    cpdef note(self, client, endpoint, double now)
    cpdef bint has(self, client, endpoint, double now)
