"""A soak: mixed load for an hour beside kube-proxy, while everything around it changes.

pod ─mixed load─▶ node-1: userspace-proxy ─┐
                                           ├─▶ Services ─▶ pods on node-3
pod ─mixed load─▶ node-2: kube-proxy ──────┘
                  node-3: etcd, kube-apiserver

Rule 1: both proxies serve the same objects of one API server, and every change is made to both.
Rule 2: a request that fails with this proxy, and none of whose kind fails with kube-proxy during
the same change, is a failure of the soak. The exception is a connection that was open in a worker
when that worker was killed: it is relayed by the worker, so it ends with it.
Rule 3: at the end processes, threads, descriptors, connections, memory, conntrack entries, rules,
routes and listening sockets are as at the beginning.
"""
