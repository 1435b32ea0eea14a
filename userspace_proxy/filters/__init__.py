"""What rules of other programs do to packets of Services: read, never written.

    reading ── netlink ─────────────┐
    steering.iptables.read_legacy ──┴─▶ Chain, Step ─▶ following ─▶ frontends, node

rules, matches  a rule of nftables, and its conditions, as values
packets         FirstPacket: whether it meets a rule's conditions
following       follows chains with a question: with each packet of a kind, or with a client's
denied_clients  asks which clients a chain denies a frontend
denied_pods     asks so about the pods behind each link

Rule 1: all chains are listed, but rules are read of a few chains only.
"""
