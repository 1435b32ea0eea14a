from .client_address cimport ClientAddressDialer
from .endpoint_group cimport EndpointGroup
from .engine cimport Engine
from .reactor cimport Handler, Reactor, Timeouts
from .relay cimport Direction
from .tcp_accounts cimport Accounted, TcpAccounts

cimport cython

cdef double LOSS_S
cdef unsigned int _OUT, _READABLE, _RDHUP, _FAILED, _DIAL_EVENTS
cdef long _ONE_PACKET_BYTES


cdef class ConnectionOwner:
    cdef public Engine engine
    cdef public object probes, redials
    cdef public TcpAccounts accounts
    cdef public dict openings
    cdef public Timeouts held_acks, dial_deadlines, client_deadlines
    cpdef bint end_late(self, TcpConnection connection)
    cpdef ended(self, TcpConnection connection)


@cython.freelist(64)
cdef class TcpConnection(Accounted):
    cdef public ConnectionOwner owner
    cdef public int endpoint_fd
    cdef public bint is_aborting, may_preserve, holds_ack, shows_local_client, is_waiting
    cdef public bint _is_counted, _awaits_turn
    cpdef begin(self)
    @cython.locals(group=EndpointGroup, now=double)
    cpdef try_next(self)
    @cython.locals(owner=ConnectionOwner, reactor=Reactor, engine=Engine, group=EndpointGroup, now=double, dialer=ClientAddressDialer, fd=int, number=int)
    cpdef _connect(self, endpoint)
    cpdef _on_endpoint(self, unsigned int events)
    @cython.locals(number=int)
    cpdef _on_dialling(self, unsigned int events)
    @cython.locals(owner=ConnectionOwner)
    cpdef _end_dial(self)
    @cython.locals(owner=ConnectionOwner, reactor=Reactor, group=EndpointGroup, fd=int, up=Direction)
    cpdef join(self, unsigned int events)
    cpdef _set_nodelay(self)
    cpdef finish(self, cause, bint as_reset, by=*)
