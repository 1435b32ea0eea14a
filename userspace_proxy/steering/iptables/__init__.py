"""Steering by legacy iptables rules, through python-iptables in a helper process per family.

    agent process                          helper process (one for IPv4, one for IPv6)
    IptablesSteering ── HelperProcess ══ JSON frames ══ helper ── Programmer ── libiptc ── kernel

    nat     PREROUTING ─▶ UPROXY-PRE     a frontend's packets to its proxy port or refuse port
            OUTPUT     ─▶ UPROXY-OUT     the same for clients on the node itself
    filter  INPUT      ─▶ UPROXY-INPUT   ─▶ UPROXY-GUARD   who may reach those ports

Rule 1: python-iptables is imported in the helper only. In one process only the family that
uses REDIRECT first can, threads crash it, and its building of rules would hold the loop.
Rule 2: what is in force is read from the kernel each time, never believed.
"""

from .steering import IptablesSteering

__all__ = ["IptablesSteering"]
