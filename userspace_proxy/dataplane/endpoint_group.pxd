from ..facts.counters cimport CounterTable

cdef class EndpointGroup(CounterTable):
    cdef public object key, label, reference, prefixes, serving, left_ranges, detours, left_at
    cdef public object balancers, waiting_room, on_removed, news, _failed_or_none
    cdef public double _ranges_left_at
    cdef public bint sends_at_once
    cdef public long _processes
    cpdef answered(self, endpoint, double now)
