"""Rows of causes about one endpoint: how dialling it fails, and how it answers.

    dial:        refused · silent, also a whole node · unreachable · no host · no route · another
        error
    connection:  closed without a byte · no byte · late byte · cut off · packets lost
    clients:     some are denied, others answered

Rule 1: a firewall that rejects packets can cause most failed dials: its RSTs look like RSTs of a
host without a listener, and its ICMP errors like errors of hosts and routers.
``tests/unit/explain/test_dial.py`` lists the errno for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ..model import Failure, SocketAddress, ip_of, port_of
from ..model.annotations import DOMAIN
from ..model.failures import BY_OWN_ROUTE, LOSSES, UNREACHABLE
from ..model.node_network import NextHop
from ..model.quoting import shell_word
from .cause import Cause, CauseCode, CauseRow, P, Text, cause

At: TypeAlias = SocketAddress | str

UNANSWERED_S = 1
"""Seconds without a byte: a client that leaves later has given up, and an endpoint that closes
earlier has closed immediately."""
UNANSWERED_FLOW_S = 2
"""Seconds without a datagram after which a UDP flow counts as unanswered. DNS servers may take a
second for names that they must forward; most resolvers wait 5 s (resolv.conf(5), ``timeout``)."""

_FIREWALL = "look for a NetworkPolicy (it must admit this node's address, too) or firewall that"
_HERE = (
    "packets to or from it, on this node, on its own or in the pod: `nft list ruleset`, "
    "`bpftool net`"
)
_ALL_RULES = "nft list ruleset; iptables-legacy-save"
_ROUTE = "ip route get {ip}"
_RP_FILTER = "`nstat -az TcpExtIPReversePathFilter`"
_LOST_ON_THE_WAY = (
    "a firewall on the way that drops or resets data, or a smaller MTU there, looks the same"
)
NO_DATAGRAM_HINT = (
    "The program may hang (`ss -lun` in the pod: Recv-Q grows), drop what it gets, or answer from "
    "another address than it was asked at; a network policy, a firewall or a missing route in the "
    "pod (`ip route`) may keep it from answering (if only large answers fail, their fragments are "
    "dropped); endpoints that only receive (statsd, syslog) send nothing, too"
)
"""The remedy for missing UDP answers."""
_OTHER_PROTOCOL = f"TLS, a PROXY header (annotation {DOMAIN}proxy-protocol) or another protocol"
_ONLY_RECEIVES = "endpoints that only receive (syslog, graphite)"


def _of_endpoint(code: CauseCode, **columns: Any) -> Callable[[Callable[P, str]], CauseRow[P]]:
    """Return a decorator like :func:`cause`, for a sentence that begins with the endpoint."""
    return cause(code, about="{at}", is_predicate=True, **columns)


def _endpoint(code: CauseCode, name: str, says: str, **columns: Text | bool) -> CauseRow[[At]]:
    """Return a row about an endpoint's behaviour, with texts that need no other parameter."""

    def words(at: At) -> str:
        return says

    words.__name__ = name
    return _of_endpoint(code, **columns)(words)


def _refuses_hint(at: At, was_open: bool) -> str:
    if was_open:
        return (
            "Its port was open before, so its targetPort is right. See whether the program still "
            "listens (`ss -ltun` in the pod): if not, it has ended (kubectl describe pod POD and "
            "kubectl logs --previous POD show why); if so, a firewall rejects connections now, "
            "also by rules in the pod itself (`nft list ruleset` there), or another pod has its IP"
        )
    others = "IPv4 or ::1" if ":" in ip_of(str(at)) else "127.0.0.1 or IPv6"
    return (
        "See where the program listens (`ss -ltun` in the pod): often on another port than "
        f"targetPort, only with the other protocol, or only on {others}; whether it has just "
        "started, or restarts (`kubectl get pod POD`); and whether the selector matches pods of "
        f"another program, too. If none is so, {_FIREWALL} rejects {_HERE}, or another pod has its "
        "IP"
    )


@_of_endpoint(
    CauseCode.ENDPOINT_REFUSES,
    past="refused connections",
    short="refuses connections",
    hint=_refuses_hint,
    outside="See where the program on {host} listens (`ss -ltun`): often on another port than "
    "the endpoint's (in `ports` of its EndpointSlice), or only on loopback; if neither, a firewall "
    "rejects packets to it",
    to_some_nodes="Other nodes are answered: a firewall on the way rejects packets, also on the "
    "pod's node (FORWARD chains in `nft list ruleset`), or another pod has its IP; or its program "
    "has just started: `kubectl get pod {pod}` shows restarts",
    at_times="It answers at times: its program may end again and again (kubectl logs --previous "
    "{pod} shows why), or have just begun to listen; a readiness probe keeps clients away until it "
    "does. Or a firewall rejects some connections, as those above a limit, or another pod has the "
    "same address",
    at_times_outside="It answers at times: its program on {host} may end again and again (its log "
    "shows why), or have just begun to listen; a readiness probe keeps clients away until it does. "
    "Or a firewall rejects some connections, as those above a limit",
)
def refuses(at: At, *, was_open: bool = False) -> str:
    """Dials are answered by a RST or ICMP error; ``was_open`` if an earlier dial succeeded."""
    port = port_of(str(at))
    return f"refuses connections: nothing listens on port {port} there, or a firewall rejects them"


def _of_ipv4(at: At, text: str) -> str:
    """Return a text about rp_filter, which only IPv4 has; empty for IPv6."""
    return "" if ":" in ip_of(str(at)) else text


def _way_hint(at: At) -> str:
    more = _of_ipv4(at, f", rp_filter ({_RP_FILTER})")
    return (
        "Other nodes reach it, so look first at this node: "
        f"`ip route get {shell_word(ip_of(str(at)))}`, chains of hooks output and postrouting "
        f"(`nft list ruleset`){more}; then at what treats this node differently: NetworkPolicies, "
        "FORWARD chains on the pod's node, the route back (`ip route get` with this node's "
        "address, also in the pod)"
    )


def _forwarding(at: At) -> str:
    # An interface's setting counts, too, and the kernel may forward by one but not by another.
    return f"`sysctl -ar 'ipv{6 if ':' in ip_of(str(at)) else 4}.*forward'`"


def _forwards_hint(at: At) -> str:
    more = _of_ipv4(at, f", rp_filter ({_RP_FILTER})")
    return (
        f"Its own node reaches it: see whether `ip route get {shell_word(ip_of(str(at)))}` on this "
        f"node shows the right route; on its own node, look at {_forwarding(at)}, FORWARD chains "
        "(`nft list ruleset`) and NetworkPolicies, which always admit that node; then at the route "
        f"back (`ip route get` with this node's address, there and in the pod), chains here{more}"
    )


_FULL_QUEUE = "(Recv-Q above Send-Q: it hangs, or has too much to do)"
_SILENT_OUTSIDE = (
    "See whether {host} answers other machines, whether its program accepts connections: `ss "
    f"-ltn` there {_FULL_QUEUE}, and whether a firewall on this node (`nft list ruleset`) or on "
    "the way drops packets to it"
)

_SILENT_AT_TIMES = (
    "It answers other connections: a link that loses packets (`ping {ip}` shows it), one bad path "
    "among several that depend on ports (ECMP, a bond: repeat `nc -zv -w 1 {ip} PORT`), a firewall "
    "that drops some connections, another host with the same address, or a program that accepts "
    "too slowly: `ss -ltn` "
)


def _silent_hint(at: At) -> str:
    more = _of_ipv4(at, f"; rp_filter drops answers by another interface ({_RP_FILTER})")
    return (
        "See whether the pod still exists, and its program accepts connections: `ss -ltn` in the "
        f"pod {_FULL_QUEUE}; if both, {_FIREWALL} drops or rejects {_HERE}, or the pod's node "
        f"forwards nothing ({_forwarding(at)}){more}; a wrong neighbour (`ip neigh` on that "
        "node), a missing route in the pod (`ip route get` with this node's address) and a lossy "
        f"link (`ping {shell_word(ip_of(str(at)))}`) look the same"
    )


silent = _endpoint(
    CauseCode.ENDPOINT_SILENT,
    "silent",
    "does not answer: packets are dropped, its program hangs, or its host is gone",
    past="did not answer",
    short="does not answer",
    is_of_host=True,
    hint=_silent_hint,
    outside=_SILENT_OUTSIDE,
    to_some_nodes=_way_hint,
    to_own_node=_forwards_hint,
    on_way=_ROUTE,
    at_times=f"{_SILENT_AT_TIMES}in the pod {_FULL_QUEUE}",
    at_times_outside=f"{_SILENT_AT_TIMES}on {{host}} {_FULL_QUEUE}",
)
"""Dials time out."""


@_of_endpoint(
    CauseCode.ENDPOINT_SILENT,
    past="did not answer",
    hint="Accept these packets in that chain first, or delete what drops or translates them",
    on_node=_ALL_RULES,
    shared=("rule",),
)
def dropped_here(at: At, rule: str) -> str:
    """This node drops or translates the packets of dials, or the replies.

    Args:
        rule: Another program's chain and the packets that it drops or translates, as the end of a
            sentence.
    """
    # A rule on this node is a fact; any other reason would be a guess.
    return f"does not answer: {rule}"


silent_to_some = _endpoint(
    CauseCode.ENDPOINT_SILENT,
    "silent_to_some",
    "does not answer clients that dial these addresses, and answers others",
    past="did not answer",
    hint="Look for a NetworkPolicy, or another firewall at the pod, that denies these clients, "
    "whose own addresses the endpoint may see",
    outside="Look for a firewall at {host} that denies these clients, whose own addresses it may "
    "see",
)
"""Dials from one side of a Service time out while the endpoint answers the other side."""


@cause(
    CauseCode.ENDPOINT_SILENT,
    about="{node}",
    is_predicate=True,
    short="does not answer",
    hint="See whether the node is up, and whether this node reaches others on its network; if it "
    "is, look for a firewall or a route that keeps packets from its endpoints",
    kubectl="describe node {node}",
    shared=("node",),
)
def node_silent(node: str) -> str:
    """Several endpoints of one node fail, all as if the node were gone."""
    return "does not answer, nor does any endpoint on it: it is down, or packets to it are lost"


_LACKS_ROUTE = (
    "look at the CNI plugin on this node, which adds routes to pods: `ip route get {ip}` fails "
    "without one"
)
_UNREACHABLE_OUTSIDE = (
    "`ip route get {ip}` on this node shows the route; if it is right, a firewall on the way to "
    "{host} rejects packets from this node"
)


unreachable = _endpoint(
    CauseCode.ENDPOINT_UNREACHABLE,
    "unreachable",
    "is unreachable: a router on the way has no route to it, no host has that address, its "
    "node is down, or a firewall rejects packets to it",
    past="was unreachable",
    short="is unreachable",
    is_of_host=True,
    to_some_nodes=_way_hint,
    to_own_node=_forwards_hint,
    on_way=_ROUTE,
    hint="`ip route get {ip}` on this node shows the route; compare the address with those of the "
    f"pod (`ip addr` in it), and look at the pod's node; if all are right, {_FIREWALL} rejects "
    f"{_HERE}",
    outside=_UNREACHABLE_OUTSIDE,
)
"""A router or the endpoint's host reports dials as undeliverable."""


prohibited = _endpoint(
    CauseCode.ENDPOINT_UNREACHABLE,
    "prohibited",
    "is unreachable: a firewall or router rejects packets to it (administratively prohibited)",
    past="was unreachable",
    short="is unreachable",
    hint=f"On the way to the endpoint, {_FIREWALL} rejects {_HERE}",
    outside=_UNREACHABLE_OUTSIDE,
)
"""ICMPv6 reports dials as administratively prohibited."""


@_of_endpoint(
    CauseCode.ENDPOINT_UNREACHABLE,
    past="was unreachable",
    hint=f"Compare the address with that of the pod; if they agree, {_LACKS_ROUTE}",
    outside=_UNREACHABLE_OUTSIDE,
    to_some_nodes=f"Other nodes reach it: {_LACKS_ROUTE}",
    on_way=_ROUTE,
)
def no_route(at: At) -> str:
    """This node has no route to the endpoint."""
    return f"is unreachable: this node has no route to {ip_of(str(at))}"


def _prohibits_hint(at: At) -> str:
    ip = shell_word(ip_of(str(at)))
    rules = "ip -6 rule" if ":" in ip else "ip rule"
    return (
        f"`ip route show table all type prohibit match {ip}; {rules}` on this node shows it: "
        "remove it, or find what adds it"
    )


route_prohibits = _endpoint(
    CauseCode.ENDPOINT_UNREACHABLE,
    "route_prohibits",
    "is unreachable: a route or routing rule of this node prohibits it",
    past="was unreachable",
    hint=_prohibits_hint,
    on_node="ip route show table all type prohibit",
)
"""A route or routing rule of this node prohibits dials."""


route_unreachable = _endpoint(
    CauseCode.ENDPOINT_UNREACHABLE,
    "route_unreachable",
    "is unreachable: a route of this node says so (type unreachable)",
    past="was unreachable",
    hint="`ip route show table all type unreachable match {ip}` on this node shows it: the address "
    "is an old one, or what adds routes here (mostly the CNI plugin) has added none to it",
)
"""A route of type ``unreachable`` rejects dials."""


_OR_ICMPV6 = "; with IPv6, a firewall that drops ICMPv6 looks the same"
_WRONG_LINK = (
    "Other nodes reach it: see whether `ip route get {ip}` on this node shows the right link, and "
    f"whether that link works (`ip link`, `ip neigh`){_OR_ICMPV6}"
)


def _no_host_words(verb: str) -> Callable[..., str]:
    def words(at: At, interface: str) -> str:
        where = f" on {interface}" if interface else ", or for the gateway to it"
        return f"no host {verb} for {ip_of(str(at))}{where}"

    return words


@cause(
    CauseCode.ENDPOINT_NO_HOST,
    about="{at}",
    past=_no_host_words("answered"),
    hint="See whether a pod still has this address: if none, whether kube-controller-manager, "
    "which writes EndpointSlices, runs; if one has, its interface may lack it (`ip addr` in the "
    "pod; sysctl disable_ipv6=1 removes IPv6 addresses), be down, or be on another link: look at "
    f"the pod's node (`ip link`){_OR_ICMPV6}",
    outside="The host of {host} is down, or has another address now: correct the EndpointSlice; a "
    "DNS name may lead to a former address",
    to_some_nodes=_WRONG_LINK,
    on_way=_ROUTE,
    is_of_host=True,
)
def no_host(at: At, interface: str = "") -> str:
    """No host on the link answers for the address; an empty ``interface`` means an unknown link."""
    return _no_host_words("answers")(at, interface)


@cause(
    CauseCode.ENDPOINT_NO_HOST,
    about="{at}",
    past="no host answered for {gateway}, the gateway to {ip}, on {interface}",
    hint="The host with that address, often a node, is down or has left, or the route is an old "
    f"one: `ip route get {{ip}}` shows it{_OR_ICMPV6}",
    to_some_nodes=_WRONG_LINK,
    on_way=_ROUTE,
    shared=("gateway",),
)
def no_gateway(at: At, gateway: str, interface: str) -> str:
    """No host answers for the gateway to the address."""
    ip = ip_of(str(at))
    return f"no host answers for {gateway}, the gateway to {ip}, on {interface}"


_MEANINGS: Mapping[str, tuple[str, str]] = {
    Failure.BLACKHOLE: (
        ", as by a blackhole route of this node",
        (
            "`ip route show table all type blackhole match {ip}` on this node shows it: remove it, "
            "or find what adds it"
        ),
    ),
    # Source: NF_DROP of hooks output and postrouting, in nf_hook_slow() of net/netfilter/core.c
    Failure.NOT_PERMITTED: (
        ", as by rules of this node that drop packets",
        (
            "`nft list ruleset` on this node shows the firewall's rules for output; an IPsec "
            "policy (`ip xfrm policy`), a BPF program (Cilium, systemd's IPAddressDeny=) or a full "
            "table of connection tracking, which the kernel's log shows, looks the same"
        ),
    ),
    Failure.NO_ACCESS: (
        ", as by a routing rule of this node for some packets",
        (
            "`ip rule` on this node shows rules of type prohibit; a security module (SELinux) "
            "looks the same"
        ),
    ),
    Failure.NO_PROTOCOL: (
        "",
        "A firewall on this node or on the way rejects packets to the endpoint",
    ),
}
"""The meaning of errors beyond their texts, with remedies."""
_ON_NODE: Mapping[str, str] = {
    Failure.BLACKHOLE: "ip route show table all type blackhole",
    Failure.NOT_PERMITTED: _ALL_RULES,
    Failure.NO_ACCESS: "ip rule",
}
"""The commands that show what makes dials fail on this node."""


def _meaning(failure: str) -> str:
    return _MEANINGS.get(failure, ("", ""))[0]


def _fails_hint(at: At, failure: str, error: str) -> str:
    return _MEANINGS.get(failure, ("", ""))[1].format(ip=ip_of(str(at)))


@_of_endpoint(
    CauseCode.ENDPOINT_FAILS,
    past="could not be dialled",
    short=lambda at, failure, error: f"can't be dialled{_meaning(failure)}",
    hint=_fails_hint,
    on_node=lambda at, failure, error: _ON_NODE.get(failure, ""),
)
def fails(at: At, failure: str, error: str) -> str:
    """Dials fail with another error; ``error`` is the text of its errno."""
    return f"can't be dialled: {error}{_meaning(failure)}"


resets = _endpoint(
    CauseCode.ENDPOINT_RESETS,
    "resets",
    "accepts connections and ends them without answering",
    past="accepted connections and ended them without answering",
    hint=f"Read the log of the pod: it may expect {_OTHER_PROTOCOL}, or fail for each client; "
    f"{_LOST_ON_THE_WAY}; {_ONLY_RECEIVES} do so, too",
    outside=f"Read the log of the program on {{host}}: it may expect {_OTHER_PROTOCOL}, or refuse "
    f"this node's address; {_LOST_ON_THE_WAY}",
    to_some_nodes="Other nodes are answered: read the log of the pod, which may deny this node's "
    f"address; {_LOST_ON_THE_WAY}",
    at_times="It has answered other connections: kubectl logs {pod} shows why not these (it ends "
    "again and again, is at a limit of its own, or some clients speak TLS or another protocol); "
    f"{_LOST_ON_THE_WAY}",
    at_times_outside="It has answered other connections: the log of the program on {host} shows "
    "why not these (it ends again and again, is at a limit of its own, or some clients speak TLS "
    f"or another protocol); {_LOST_ON_THE_WAY}",
)
"""The endpoint accepts connections and closes them without sending a byte."""


_NOTHING_OUTSIDE = (
    "The program on {host} may hang, or wait for something else first; "
    f"{_LOST_ON_THE_WAY}; {_ONLY_RECEIVES} send nothing, too"
)


sends_nothing = _endpoint(
    CauseCode.ENDPOINT_SENDS_NOTHING,
    "sends_nothing",
    "accepts connections and sends nothing",
    past="sent nothing in time",
    hint=f"The program may hang, wait for something else, or expect {_OTHER_PROTOCOL} first: look "
    f"at the pod's log and load; {_LOST_ON_THE_WAY}; {_ONLY_RECEIVES} send nothing, too",
    outside=_NOTHING_OUTSIDE,
    to_some_nodes="Other nodes are answered: look first at the way: `ping -M do -s 1472 {ip}` from "
    f"this node shows its MTU; {_LOST_ON_THE_WAY}. Or the program hangs at times",
    on_way="ping -M do -s 1472 {ip}",
)
"""The endpoint accepts connections, but sends nothing, and the clients give up."""


no_datagram = _endpoint(
    CauseCode.ENDPOINT_SENDS_NOTHING,
    "no_datagram",
    "sends no datagram back",
    past="sent nothing in time",
    hint=NO_DATAGRAM_HINT,
    outside=_NOTHING_OUTSIDE,
    to_own_node=lambda at: (
        f"{_forwards_hint(at)}. If only large answers fail, their fragments may "
        "be dropped between the nodes, or the MTU be smaller there"
    ),
    to_some_nodes="Other nodes are answered: see the route (`ip route get {ip}`), also back from "
    "the pod and its node; then look for a NetworkPolicy or firewall, on both nodes (`nft "
    "list ruleset`). If only large answers fail, a firewall drops their fragments, or the MTU is "
    "smaller there (`ping -M do -s 1472 {ip}`)",
    on_way=_ROUTE,
)
"""The endpoint doesn't answer UDP flows."""


owes_answers = _endpoint(
    CauseCode.ENDPOINT_SENDS_NOTHING,
    "owes_answers",
    "answered before, and then no more",
    hint="The program may hang at some requests, wait for something else, or take longer than its "
    "clients wait: read its log; if only large answers fail, a smaller MTU on the way may drop "
    "their packets (`ping -M do -s 1472 {ip}` on this node); where clients have the last word, as "
    "those that only acknowledge messages or send measurements, this is as it should be",
)
"""Connections were closed while an answer was due, although the endpoint had answered before."""


_LATE_PAST = "answered after its clients had left"


@_of_endpoint(
    CauseCode.ENDPOINT_ANSWERS_LATE,
    past=_LATE_PAST,
    short="answers after its clients have left",
    hint="The clients' time-out is most likely shorter than the answer takes: raise it, or find "
    "out why the program is slow, from its log and load; one that answers only what has ended is "
    "late, too",
)
def answers_late(at: At, waited_s: float) -> str:
    """Clients leave before the first byte, which last arrived after ``waited_s`` seconds."""
    return f"answers after its clients have left: its first byte took {waited_s:.1f} s"


@_of_endpoint(
    CauseCode.ENDPOINT_ANSWERS_LATE,
    past=_LATE_PAST,
    short="answers right after its clients have left, and not before",
    hint="The program most likely waits for the end of its input: compare the protocol that client "
    "and program speak (TLS or not), and the port; if it is meant to read to the end, let clients "
    "close only their side for sending; if its log shows that it is slow, raise the clients' "
    "time-out",
)
def answers_at_end(at: At, waited_s: float) -> str:
    """Clients leave before the first byte, which always arrives right after they have left."""
    what = "answers right after its clients have left, and not before"
    return f"{what}: its first byte took {waited_s:.1f} s"


answers_flows_late = _endpoint(
    CauseCode.ENDPOINT_ANSWERS_LATE,
    "answers_flows_late",
    "answers late",
    past="answered late",
    hint=f"Answers take {UNANSWERED_FLOW_S} s or more, or are missing: a slow program loses what "
    "its full receive buffer can't take (`ss -uamn` beside it: `d` in skmem grows). Find out from "
    "its log and load why it is slow: a DNS server may wait for one that it asks",
)
"""The endpoint answered UDP flows after their clients may have left."""


_DENIES_OUTSIDE = (
    "Look for a firewall at {host}, or an access rule of its program, that denies this client: the "
    "host sees the client's own address where it can"
)


_OF_DENIAL: Mapping[str, str] = {
    "hint": "Look for a NetworkPolicy, or another firewall at the pod, that denies this client, or "
    "for a wrong route back to it on the pod's node (`ip route get {client}`): the endpoint sees "
    "the client's own address; if the pod replies through a second interface (Multus, macvlan), "
    f"past this node, annotate the Service with {DOMAIN}preserve-client-address: never",
    "outside": _DENIES_OUTSIDE,
}


@_of_endpoint(CauseCode.ENDPOINT_DENIES, past="answered this node, but not {client}", **_OF_DENIAL)
def denies(at: At, client: str) -> str:
    """Dials fail only from clients' addresses; ``client`` is the last such client."""
    return f"answers this node, but not {client}"


@_of_endpoint(CauseCode.ENDPOINT_DENIES, past="answered {nodes}, but not {client}", **_OF_DENIAL)
def denies_on(at: At, client: str, nodes: str) -> str:
    """The cause ``denies`` in a view of all nodes; ``nodes`` are the nodes that report it."""
    return f"answers {nodes}, but not {client}"


@_of_endpoint(
    CauseCode.ENDPOINT_DENIES,
    past="ended connections of {client} without a byte, and answered others",
    hint="Look for an access rule of the program that denies this client (pg_hba.conf, hosts.deny, "
    "an allow list): it must admit the address that the program sees, the client's own or this "
    "node's; or this client alone speaks TLS or another protocol: the program's log shows it",
    outside=_DENIES_OUTSIDE,
)
def excludes(at: At, client: str) -> str:
    """The endpoint closes some clients' connections unanswered; ``client`` is the last client."""
    return f"ends connections of {client} without a byte, and answers others"


cuts_off = _endpoint(
    CauseCode.ENDPOINT_CUTS_OFF,
    "cuts_off",
    "resets connections while or after it answers",
    past="reset connections while or after it answered",
    hint="Answers may be incomplete: read the log of the pod, which may crash or give up while it "
    f"answers; {_LOST_ON_THE_WAY}; some programs reset every connection that they have finished",
    outside="Answers may be incomplete: read the log of the program on {host}, which may crash or "
    f"give up while it answers; {_LOST_ON_THE_WAY}; some programs reset every connection that they "
    "have finished",
)
"""The endpoint answers connections, then resets them."""


def mtu_hint(peer: str) -> str:
    """Return the remedy for packets with data that are lost on the way to a peer."""
    return (
        f"Large packets may exceed the MTU on the way to {peer}: compare the MTU in `ip link` on "
        'both ends and between (tunnels, VPNs), let ICMP type 3 code 4 and ICMPv6 "packet too big" '
        "pass, or clamp the MSS to the path's MTU; a firewall that drops packets with data, a link "
        "that loses many packets, and a host that has just gone look the same"
    )


_MTU = mtu_hint("{ip}")


@cause(
    CauseCode.PACKETS_LOST,
    about="{client}",
    past="client {client} did not acknowledge the answers that it was sent",
    hint=mtu_hint("{client}"),
    shared=("client",),
)
def not_to_client(client: str) -> str:
    """The client doesn't receive answers, and the endpoint isn't at fault."""
    return f"client {client} does not acknowledge the answers that it is sent"


not_to_endpoint = _endpoint(
    CauseCode.PACKETS_LOST,
    "not_to_endpoint",
    "acknowledges handshakes, but not what clients send",
    past="acknowledged handshakes, but not what clients sent",
    # A full accept queue drops the last packet of the handshake, and all later packets.
    hint=f"{_MTU}; so does a program that accepts no connections: `ss -ltn` in the pod "
    f"{_FULL_QUEUE}",
)
"""The endpoint acknowledges nothing after the handshake."""


not_all_to_endpoint = _endpoint(
    CauseCode.PACKETS_LOST,
    "not_all_to_endpoint",
    "does not acknowledge all that clients send",
    past="did not acknowledge all that clients sent",
    hint="If those fail that had paused, a firewall or NAT on the way has forgotten them: raise "
    "its time-out for idle connections, or let clients send keep-alives more often. Otherwise, "
    f"{_MTU[0].lower()}{_MTU[1:]}",
)
"""The endpoint stops acknowledging packets after it has sent bytes."""


@cause(CauseCode.PACKETS_LOST, about="{at}", past="answers of {at} arrived with a gap", hint=_MTU)
def not_from_endpoint(at: At) -> str:
    """Some bytes from the endpoint are lost: only later bytes arrive."""
    return f"answers of {at} arrive with a gap"


@_of_endpoint(
    CauseCode.FAULT_ON_PURPOSE,
    short="has a fault on purpose",
    hint="To end it, have the program or toxiproxy client that set it remove it",
)
def fault_on_purpose(at: At, faults: tuple[str, ...]) -> str:
    """Connections suffer injected faults; ``faults`` are the descriptions."""
    return f"has a fault on purpose: {', '.join(faults)}"


@cause(
    CauseCode.OUT_OF_PORTS,
    hint="`ss -s` on this node counts what holds source ports: widen ip_local_port_range (sysctl, "
    "net.ipv4), reuse ports earlier (tcp_tw_reuse=1), or let clients keep connections open",
    shared=(),
)
def out_of_ports() -> str:
    """This node had no free source port for an endpoint."""
    return "this node had no free source port for an endpoint"


@cause(
    CauseCode.OUT_OF_CLIENT_PORTS,
    hint="Set the sysctl net.ipv4.tcp_timestamps=1 on this node and in the endpoint, or have the "
    "client keep fewer connections open",
)
def out_of_client_ports() -> str:
    """The client's address has no free port for a connection to an endpoint."""
    return (
        "all ports 61000-65535 of a client's address towards an endpoint are in use: the endpoint "
        "sees this node's address, or the client is refused if the endpoint has not answered it"
    )


DIAL_CODES: Mapping[Failure, CauseCode] = {
    **dict.fromkeys(Failure, CauseCode.ENDPOINT_FAILS),
    Failure.REFUSED: CauseCode.ENDPOINT_REFUSES,
    Failure.SILENT: CauseCode.ENDPOINT_SILENT,
    Failure.RESET: CauseCode.ENDPOINT_RESETS,
    Failure.NO_HOST: CauseCode.ENDPOINT_NO_HOST,
    Failure.ADMIN_PROHIBITED: CauseCode.ENDPOINT_UNREACHABLE,
    **dict.fromkeys(UNREACHABLE | BY_OWN_ROUTE, CauseCode.ENDPOINT_UNREACHABLE),
}
"""The code of the cause, for each failure of a dial."""
_OF_DIALS: Mapping[Failure, Callable[[At], Cause]] = {
    Failure.REFUSED: refuses,
    Failure.SILENT: silent,
    Failure.RESET: resets,
    Failure.NO_HOST: no_host,
    Failure.ADMIN_PROHIBITED: prohibited,
    Failure.NO_ROUTE: no_route,
    Failure.ROUTE_PROHIBITS: route_prohibits,
    Failure.ROUTE_UNREACHABLE: route_unreachable,
    **dict.fromkeys(UNREACHABLE, unreachable),
}


def dial_failed(at: At, failure: Failure, error: str) -> Cause:
    """Return the cause of failed dials to an endpoint; ``error`` is the text for their errno."""
    row = _OF_DIALS.get(failure)
    return row(at) if row is not None else fails(at, failure, error)


def absent(at: At, hop: NextHop) -> Cause:
    """Return the cause of failed dials to an address whose next hop doesn't respond."""
    return no_gateway(at, hop.gateway, hop.interface) if hop.gateway else no_host(at, hop.interface)


def end_code(failure: Failure) -> CauseCode:
    """Return the code for connections that ended before the first answer, or by packet loss."""
    if failure in LOSSES:
        return CauseCode.PACKETS_LOST
    is_left = failure is Failure.UNANSWERED or failure is Failure.NO_DATAGRAM
    return CauseCode.ENDPOINT_SENDS_NOTHING if is_left else CauseCode.ENDPOINT_RESETS


def loses(at: At, failure: Failure, client: str = "", *, has_sent: bool = False) -> Cause:
    """Return the cause of connections that clients leave because packets are lost.

    Args:
        failure: One of ``model.failures.LOSSES``.
        client: The IP address of the last client; named if its own packets are lost.
        has_sent: Whether the endpoint had sent bytes on these connections.
    """
    if failure is Failure.NOT_TO_CLIENT:
        return not_to_client(client)
    if failure is Failure.FROM_ENDPOINT:
        return not_from_endpoint(at)
    return not_all_to_endpoint(at) if has_sent else not_to_endpoint(at)
