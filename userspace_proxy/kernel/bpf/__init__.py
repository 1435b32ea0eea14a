"""BPF programs and maps: what a compiled object contains, and the calls that load it.

    objects       what clang made of a file: maps, programs, references between them (pure)
    calls         bpf(2): maps, programs, links to a cgroup, pins, elements
    ring          a ring buffer, which programs write
    socket_lb     programs: connect() to a frontend leads to an endpoint (C)
    socket_maps   the bytes in its maps (pure)

Rule 1: an object has no type information, global data or called functions; objects.py has the rest.
Rule 2: a program that the kernel refuses is an OSError with the verifier's own reason.

Why not libbpf: docs/adr/0096.
"""
