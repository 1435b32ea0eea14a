cdef class CallCounts:
    cdef dict _counts, _failed
    cdef long _left_out
    cpdef add(self, called, client)
