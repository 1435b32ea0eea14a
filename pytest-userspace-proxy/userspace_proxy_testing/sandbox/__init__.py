"""Network namespaces as nodes and pods, with small backends; needs no root.

For ``userspace-proxy demo``, this project's tests and yours::

    with Sandbox() as sandbox:
        web = sandbox.add_pod("web-1")
        web.serve(tcp=8080)
        client = sandbox.add_outside("laptop")
        sandbox.node.run(["curl", f"http://{web.ip}:8080/"])

::

     laptop 198.51.100.1          node-1 192.0.2.1      node-2 192.0.2.2
        │ eth0                       │ eth0                │ eth0
    ════╧════════════ LAN ═══════════╧═════════════════════╧════
            its router, .254, has no uplink: elsewhere is unreachable

                        node-1: the proxy runs here
         ┌──────────────────────┬─────────────────────────┐
      veth0 10.244.0.1       cni0 10.244.0.129         veth3 (no address, proxy ARP)
         │                   ┌──┴──────┐                  │
      routed 10.244.0.2    bridge    bridge            unnumbered 10.244.0.3
                           .130      .131

All hosts have an IPv6 address as well (``address_plan.py``). Clients beyond the node have routes to
10.96.0.0/12 and 203.0.113.0/24 through it. Processes in a namespace are killed when the namespace
closes or this process dies.
"""

from __future__ import annotations

from userspace_proxy.errors import SandboxError

from .backend_process import BackendProcess
from .namespace import Namespace
from .network import Sandbox
from .node import Host, Pod, SandboxNode
from .resolver_files import write_resolver_files

__all__ = [
    "BackendProcess",
    "Host",
    "Namespace",
    "Pod",
    "Sandbox",
    "SandboxError",
    "SandboxNode",
    "write_resolver_files",
]
