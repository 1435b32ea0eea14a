cimport cython


@cython.freelist(64)
cdef class ConnectionOutcome:
    cdef public object counters, _abort_counters, _client, first_byte_s, code, reset_as
    cdef public double answered_at, asked_at
    cdef public bint is_failed, has_unanswered_request, _is_owed, _is_left_open
    cpdef double note_first_byte(self, double now, left) except? -1
    cpdef note_ended(self, bint is_stalled)
