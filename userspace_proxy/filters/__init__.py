"""Finds other programs' rules that drop or translate packets of Services; never changes rules.

    reading ── netlink ─────────────┐                       ┌▶ frontends   packets to a frontend
    steering.iptables.read_legacy ──┴─▶ Chain ─▶ following ─┼▶ endpoints   to an endpoint, and back
                                                            └▶ node        all steered packets

rules, matches  a rule of nftables, and its conditions, as values
packets         FirstPacket: whether a packet meets a rule's conditions
kube_proxy      rules left by kube-proxy

Rule 1: only a certain drop is reported as a problem: all paths through the rules drop the packets.
Rules that depend on more (a mark, a limit, a set that packets change, an unreadable chain) are
not followed: ``check`` names them, with the command that shows them. The status page has a neutral
mark at a Service that such a rule names.
Rule 2: all chains are listed, but rules are read only for a few chains.
"""
