"""Steers by this nftables table, and by another table for frontends on the kernel path.

    table inet userspace-proxy
      prerouting, output   nat      redirects entries of frontends4 and frontends6 to their ports
      input                filter   limits access to the ports in guarded, and to the refuse port

A new connection costs one map look-up, however many Services there are.

Rule 1: a change is one transaction of added and deleted elements; rules stay unchanged.
Rule 2: the whole table is read only after another program has changed it.
"""

from .steering import NftablesSteering, find_no_kernel_path, missing

__all__ = ["NftablesSteering", "find_no_kernel_path", "missing"]
