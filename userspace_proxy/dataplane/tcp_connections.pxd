from .descriptors cimport Descriptors
from .engine cimport Engine
from .endpoint_group cimport EndpointGroup
from .reactor cimport Handler, Reactor, Timeouts
from .tcp cimport ConnectionOwner, TcpConnection


cimport cython

cdef int DESCRIPTORS, BATCH, _NONE_WAITS
cdef unsigned int _HUP


cdef class HeldAcks(Timeouts):
    cdef Reactor _reactor
    cpdef _release(self, connection)


cdef class TcpConnections(ConnectionOwner):
    cdef public object shedding, late_resets, headers, ageing, removals, on_idle
    cdef public dict open
    cdef Descriptors _descriptors
    cpdef began(self, TcpConnection connection)


cdef class TcpListener(Handler):
    cdef TcpConnections _connections
    cdef Engine _engine
    cdef object _at, _lost
    cdef public object sock
    cdef public EndpointGroup group
    cdef int _fd
    cdef bint _is_closed
    @cython.locals(connections=TcpConnections, reactor=Reactor, descriptors=Descriptors, keeps_clients=bint, number=int, client=int, connection=TcpConnection)
    cpdef on(self, int fd, unsigned int events)
