"""The same work through us and through peers, in one run: ``python -m benchmarks``.

::

    tools     Go programs of ours, built once; wrk, HAProxy and nginx of Debian;  newer_haproxy
    sites     a node, a client and two backend pods in namespaces, one site for each way
    way       what all ways have;  peers: HAProxy, nginx, the Go proxy
    ways      how a client's bytes reach a pod: direct, kernel, us, HAProxy, nginx, a Go proxy
    seen      which address backends see: checked once for each way
    loads     what clients do, and what of it is measured
    open_loop requests at fixed times: their rate, and which runs count
    runner    rounds: every load, and within it every way, one after the other
    samples   what was measured; medians, and ratios within a round
    goals     what was promised, and whether it is kept: printed, not on the page
    report    docs/benchmarks.md, from ``page.md`` and tables;  chart: its picture
"""
