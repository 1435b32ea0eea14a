"""A soak test: mixed load for an hour beside kube-proxy, during many changes.

pod ─mixed load─▶ node-1: userspace-proxy ─┐
                                           ├─▶ Services ─▶ pods on node-3
pod ─mixed load─▶ node-2: kube-proxy ──────┘
                  node-3: etcd, kube-apiserver

Rule 1: both proxies serve the same objects of one API server, and every change is made to both.
Rule 2: the soak fails if a request fails with this proxy, and no request of its kind fails with
kube-proxy during the same change. Exception: a connection ends if the worker that relays it is
killed.
Rule 3: processes, threads, descriptors, connections, memory, conntrack entries, rules, routes and
listening sockets are the same at the end as at the beginning.
"""
