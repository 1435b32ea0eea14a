from .calls cimport SystemCalls
from .reactor cimport Handler, Reactor

cimport cython

cdef long BULK_BYTES, ROUNDS
cdef unsigned int _IN, _IN_AND_OUT, _END, _OUT, _PRI, _ERR
cdef long _EMPTY, _MSG_MORE


cdef class Relayed(Handler):
    cdef public Reactor reactor
    cdef public int client_fd
    cdef public bint is_closed
    cdef public Direction speaker, up
    cpdef sink_is_full(self, Direction direction)
    cpdef room_in(self, int fd)
    cpdef ends(self, Direction direction)
    cpdef direction_ended(self, Direction direction)
    cpdef abort(self, int number)


@cython.freelist(64)
cdef class Direction(Handler):
    cdef SystemCalls _calls
    cdef public Relayed connection
    cdef public int source_fd, sink_fd
    cdef public object pending, pipe, seen
    cdef public long long bytes_moved, bytes_counted, _in_pipe
    cdef public int spliced_error
    cdef public bint _is_bulk, _has_options, _has_urgent, is_stuck, wakes_other, reads_to_empty
    cdef public bint has_fin, is_broken, is_ended, is_waiting_turn, is_stalled, has_nodelay
    @cython.locals(calls=SystemCalls, count=Py_ssize_t, sent=Py_ssize_t, rounds=int, is_last=bint)
    cpdef pump(self)
    cpdef _set_options(self)
    cpdef release(self)
    cpdef flush(self)
