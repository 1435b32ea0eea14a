cdef class Locality:
    cdef public dict _networks, _by_length, _lengths, _cache, _pairs
    cpdef bint keeps_client(self, client, endpoint)
    cpdef bint attaches(self, ip)
    cpdef int _locate(self, ip)

cpdef bint may_keep(int client, int endpoint)
cpdef bint is_attached(int location)
