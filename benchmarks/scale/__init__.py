"""Measures start, memory, changes and connections with 10,000 Services.

``python -m benchmarks.scale``::

    objects   Services and EndpointSlices, as a cluster has them
    stage     two nodes in namespaces: the measured one, and one with ten Services to compare with
    sources   the agent's source of Services: manifests, or a real etcd and kube-apiserver
    command_process  processes in the namespaces: ``prober`` dials, ``writer`` writes
              to the API server
    churning  a steady stream of changes
    agents    the real agent as on a node, by steering and source
    rows      the measurements of one agent
    walk      counts the rules that the first packet of a connection passes
    floors    loads the same rules with nft and iptables-restore
    goals     the promised figures
    report    docs/benchmarks-scale.md, from ``page.md`` and tables
"""
