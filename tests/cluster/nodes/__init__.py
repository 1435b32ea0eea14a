"""A whole Kubernetes cluster in namespaces of this machine; its Service proxy is a parameter.

    machine's own network                      untouched
    └─ world    bridge, routes to pods ─ etcd, kube-apiserver, controllers, scheduler, CoreDNS
       ├─ node-1   containerd ─ pods, kubelet, the proxy under test
       ├─ node-2   …
       └─ node-3   …

There is no uplink and no registry: the images are built here and imported. All processes end with
the process that started the cluster, even if that is killed.
"""
