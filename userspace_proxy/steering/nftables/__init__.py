"""Steering by one nftables table of our own.

    agent ── NftablesSteering ── one thread: Programmer ── nf_tables.OurTable ── kernel

    table inet userspace-proxy
      prerouting, output   nat      what frontends4 and frontends6 have goes to its port
      input                filter   who may reach the ports that guarded has, or the refuse port

A new connection costs one look into a map, however many Services there are.

Rule 1: an apply is one transaction of added and deleted elements; rules stay as they are.
Rule 2: the table is read in full only after somebody else has touched it.
Rule 3: nothing here knows tables that aren't ours.
"""

from .presence import labels, missing
from .steering import NftablesSteering

__all__ = ["NftablesSteering", "labels", "missing"]
