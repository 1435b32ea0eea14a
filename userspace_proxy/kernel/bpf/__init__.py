"""Parses compiled BPF objects, loads their programs and maps, and attaches the programs.

    objects   what clang compiled: maps, programs, references between them (pure)
    calls     bpf(2): maps, programs, links to a cgroup, pins, elements
    ring      a ring buffer, which programs write

Rule 1: an object has no type information, global data or called functions (``objects``).
Rule 2: if the kernel refuses a program, the OSError contains the verifier's reason.

Why not libbpf: docs/adr/0096.
"""
