"""Steering by legacy iptables rules, as text, in a helper process for each IP family.

    agent process                          helper process (one for IPv4, one for IPv6)
    IptablesSteering ── HelperProcess ══ JSON frames ══ helper ── Programmer ── Table ─┐
                                                                       iptables-legacy-save,
    nat     PREROUTING ─▶ UPROXY-PRE ─▶ UPROXY-O…                      -restore, python-iptables
            OUTPUT     ─▶ UPROXY-OUT ─▶ UPROXY-O…   a frontend's packets to its proxy port or
                                                    refuse port, by a tree of chains
    filter  INPUT      ─▶ UPROXY-TCP, UPROXY-UDP    who may reach those ports

    NatRule (rules) ─▶ tree ─▶ lines of chains (nat) ─▶ edits (text) ─▶ one commit (table)

Rule 1: python-iptables is imported in the helper only. In one process only the family that
uses REDIRECT first can, threads crash it, and its building of rules would hold the loop.
Rule 2: what is in force is read from the kernel, unless the kernel's number for the table shows
that it is what was put last.
"""

from .legacy import has_socket_match
from .steering import IptablesSteering

__all__ = ["IptablesSteering", "has_socket_match"]
