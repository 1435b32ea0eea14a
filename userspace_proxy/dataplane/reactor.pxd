from ..facts.histogram cimport Durations as DurationsType
cimport cython
from .calls cimport SystemCalls


cdef int _MAX_EVENTS, _MANY_EVENTS
cdef double _BEHIND_S


cdef class Handler:
    cpdef on(self, int fd, unsigned int events)


cdef class Callback(Handler):
    cdef object _call


cdef class Reactor:
    cdef public object loop, clock
    cdef public DurationsType iterations
    cdef public SystemCalls calls
    cdef public double now, behind_until
    cdef public long turn
    cdef public dict handlers
    cdef public list _ready, _late
    cdef bint _is_dispatching, _is_scheduled, _is_closed
    cpdef int watch(self, int fd, unsigned int events, Handler handler) except? 1
    cpdef unwatch(self, int fd)
    cpdef close_descriptor(self, int fd)
    cpdef run_soon(self, callback)
    @cython.locals(began=double, ended=double, handlers=dict, handler=Handler, fd=int, events=cython.uint, batch=list)
    cpdef _dispatch(self)


cdef class Timeouts:
    cdef object _loop, _clock, _expired, _timer
    cdef double _after_s
    cdef public dict due
    cpdef start(self, item, double now)
    cpdef stop(self, item)
