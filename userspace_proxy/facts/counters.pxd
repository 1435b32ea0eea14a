from .histogram cimport Durations

cdef class CounterTable:
    cdef public bint has_news
    cdef public double out_of_ports_at, out_of_client_ports_at
    cdef public object client_mistakes, _per_endpoint, _gone, _counters
    cdef public Durations _connect_times, _first_byte_times
    cpdef counters_of(self, endpoint)
