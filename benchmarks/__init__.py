"""Measures the same work through userspace-proxy and through peers: ``python -m benchmarks``.

::

    tools     Go programs of this repository, built once; wrk, HAProxy, nginx; newer_haproxy
    sites     a node, a client and two backend pods in namespaces, one site per way
    way       the base class of ways;  peers: HAProxy, nginx, the Go proxy
    ways      how a client's bytes reach a pod: direct, kernel, agent, HAProxy, nginx, Go proxy
    seen      checks once per way which client address backends see
    loads     the clients' traffic, and its metrics
    open_loop requests at fixed times: their rate, and which runs count
    runner    rounds: each load on each way, one after the other
    samples   measured values; medians, and ratios within a round
    goals     the promised figures, and whether they are met: printed, not on the page
    report    docs/benchmarks.md, from ``page.md`` and tables;  chart: its picture
"""
