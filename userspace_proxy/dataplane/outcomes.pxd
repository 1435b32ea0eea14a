from ..facts.counters cimport CounterTable as TableType

cdef class Outcomes:
    cdef public object _label, _balancers, _on_back, news, detours, _failed_or_none
    cdef public TableType _table
    cpdef answered(self, endpoint, double now)
