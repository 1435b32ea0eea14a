cimport cython
from ..facts.connection_outcome cimport ConnectionOutcome
from .endpoint_group cimport EndpointGroup
from .engine cimport Engine
from .relay cimport Direction, Relayed

cdef class Accounted(Relayed):
    cdef public EndpointGroup group
    cdef public object address, announced, began_at, endpoint, tried
    cdef public Direction down
    cdef public ConnectionOutcome exchange
    cdef public int _offset
    cdef public bint is_preserved
    cdef public double started
    cpdef dialled(self, endpoint)

cdef class TcpAccounts:
    cdef public object _probes
    cdef public Engine _engine
    @cython.locals(group=EndpointGroup, exchange=ConnectionOutcome, now=double, started=double)
    cpdef answered(self, Accounted connection)
    cpdef first_byte(self, Accounted connection)
    @cython.locals(now=double)
    cpdef settle(self, Accounted connection)
    cpdef ended(self, Accounted connection, cause, by)
