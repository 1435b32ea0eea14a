"""Steers by legacy iptables rules, as text, in a helper process for each IP family.

    agent process                        helper process (one for IPv4, one for IPv6)
    IptablesSteering ── HelperProcess ══ LegacyProgrammer ── Table ── iptables-legacy-save,
                                                                      -restore, python-iptables
    nat     PREROUTING ─▶ UPROXY-PRE ─▶ UPROXY-O…
            OUTPUT     ─▶ UPROXY-OUT ─▶ UPROXY-O…   a frontend's packets to its proxy port or
                                                    refuse port, by a tree of chains
                            └▶ UPROXY-R…            then packets to port ranges
    filter  INPUT      ─▶ UPROXY-TCP, UPROXY-UDP    access to those ports

    rules   NatRule, Jump, PortGuard ─▶ nat   chains of lines ─▶ table   edits, one commit

Rule 1: only the helper imports python-iptables. Within a process, it works only for the IP family
that uses REDIRECT first, it crashes with threads, and building its rules blocks the event loop.
Rule 2: the kernel's rules are read, unless the table's size and layout show that nothing has
changed since the last write.
"""

from .legacy_chains import FILTERING, read_legacy
from .steering import IptablesSteering

__all__ = ["FILTERING", "IptablesSteering", "read_legacy"]
