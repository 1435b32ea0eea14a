"""What rules of other programs do to packets of Services: read, never written.

    reading ── netlink ─────────────┐                       ┌▶ frontends   packets to a frontend
    steering.iptables.read_legacy ──┴─▶ Chain ─▶ following ─┼▶ endpoints   to an endpoint, and back
                                                            └▶ node        all that is steered here

rules, matches  a rule of nftables, and its conditions, as values
packets         FirstPacket: whether it meets a rule's conditions
denied_pods     the links whose pods a chain denies a frontend
kube_proxy      what kube-proxy has left

Rule 1: only what is certain is named as a cause: packets are dropped if all ways through the rules
end so. What depends on more (a mark, a limit, a set that packets change, a chain that can't be
read) is named as not followed.
Rule 2: all chains are listed, but rules are read of a few chains only.
"""
