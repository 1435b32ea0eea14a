"""Ten thousand Services: start, memory, changes, connections: ``python -m benchmarks.scale``.

::

    objects   the Services and EndpointSlices, as a cluster would have them
    stage     two nodes in namespaces: the measured one, and one with ten Services to compare with
    sources   where the agent reads Services from: manifests, or a real etcd and kube-apiserver
    hands     processes of ours in the namespaces: ``prober`` dials, ``writer`` writes
              to the API server
    churning  a steady stream of changes
    agents    the real agent as on a node, by steering and source
    rows      what is measured of one agent
    walk      how many rules the first packet of a connection passes
    floors    nft and iptables-restore doing the same bulk
    goals     what was promised
    report    docs/benchmarks-scale.md, from ``page.md`` and tables
"""
