from ..balance.client_endpoint_pairs cimport PairCounts, Pairs
from ..policy.locality cimport Locality
cimport cython
from .calls cimport SystemCalls

cdef int _PORT_IN_USE, _NO_PORT, _IPV4, _IPV6, _TRIES


cdef class ClientPorts:
    cdef int _first, _last, _port
    cdef public dict _endpoints
    cpdef int next(self)


cdef class NodeAddressDialer:
    cdef SystemCalls _calls
    cdef ClientPorts _ports
    cdef int _share
    cdef double _began_at
    cdef dict _counts
    cdef object _busy
    cpdef int dial(self, endpoint, double now, bint holds_ack) except? -1


cdef class ClientAddressDialer:
    cdef public bint is_on
    cdef public Locality locality
    cdef public PairCounts answered_flows, open_connections
    cdef public Pairs ended_connections, _out_of_ports
    cdef public object _own_addresses
    cdef SystemCalls _calls
    cdef public ClientPorts _ports
    cdef public NodeAddressDialer _node_dialer
    cdef bint _has_failed
    @cython.locals(fd=int, out_of_ports=Pairs)
    cpdef int dial_for(self, dialling, endpoint, double now, bint may_preserve, bint holds_ack, bint is_flow=*) except? -1
    @cython.locals(calls=SystemCalls, ports=ClientPorts, family=int, port=int, fd=int, number=int)
    cpdef int dial(self, str client, endpoint, bint holds_ack) except? -1
    cpdef bint _is_misnamed(self, group, endpoint)
