"""Steering by legacy iptables rules, through python-iptables in a helper process per family.

    agent process                          helper process (one for IPv4, one for IPv6)
    IptablesSteering ── HelperProcess ══ JSON frames ══ helper ── Programmer ── libiptc ── kernel

    nat     PREROUTING ─▶ UPROXY-PRE ─▶ UPROXY-O…   a frontend's packets to its proxy port or
            OUTPUT     ─▶ UPROXY-OUT ─▶ UPROXY-O…   refuse port, by a tree of chains
    filter  INPUT      ─▶ UPROXY-TCP, UPROXY-UDP    who may reach those ports

Rule 1: python-iptables is imported in the helper only. In one process only the family that
uses REDIRECT first can, threads crash it, and its building of rules would hold the loop.
Rule 2: what is in force is read from the kernel each time, never believed.
"""

from .blob import has_socket_match
from .steering import IptablesSteering

__all__ = ["IptablesSteering", "has_socket_match"]
