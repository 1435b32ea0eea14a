from ..facts.edges cimport CallCounts
from .client_address cimport ClientAddressDialer
from .descriptors cimport Descriptors
from .reactor cimport Reactor

cdef class Engine:
    cdef object __weakref__
    cdef public object loop, tuning, clock, memory, entries, pipes, connection_log, dialer
    cdef public Reactor reactor
    cdef public Descriptors descriptors
    cdef public ClientAddressDialer client_dialer
    cdef public CallCounts calls
