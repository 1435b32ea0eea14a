"""Rows of causes about nodes, found by comparing all nodes.

Rule 1: rows don't name the nodes: the caller puts their names before the sentence (``within``).
"""

from __future__ import annotations

from collections.abc import Sequence

from ..model.quoting import shell_word
from .cause import CauseCode, cause
from .endpoints import mtu_hint


def listed(names: Sequence[str], most: int = 2, total: int = 0) -> str:
    """Return ``node-7``, ``node-7 and node-9``, ``node-7, node-9 and 12 others``.

    Args:
        most: The number of names to list; a single further name is listed instead of counted.
        total: The number of all names, if ``names`` are only the first names.
    """
    count = max(total, len(names))
    if count == len(names) <= most + 1:
        return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
    named = ", ".join(names[:most])
    others = count - len(names[:most])
    return f"{named} and {others:,} other{'s' if others > 1 else ''}"


@cause(
    CauseCode.SOURCE_AWAY,
    hint="What can't be read stays there as it was last read: see the node's way to the API "
    "server, the role of the agent's account, and its log; if its token is rejected, delete the "
    "agent's pod: the next one gets a new token; if too many files are open, raise its limit of "
    "open files",
)
def source_fails(why: str) -> str:
    """The agent answers, but can't read all its inputs."""
    return f"reading from the API server fails: {why}"


@cause(
    CauseCode.AGENT_BEHIND,
    hint="Run explain for one of them: it names the endpoints. The agent's log, and `status`, say "
    "why changes aren't applied",
)
def behind(services: tuple[str, ...], count: int) -> str:
    """Changes in the API server aren't applied after two seconds."""
    return f"behind the API server by more than 2 s: {listed(services, 3, count)}"


@cause(
    CauseCode.NODES_DIFFER,
    hint="During an update, a pod that isn't ready waits for its inputs before it replaces the "
    "other: if that lasts, its log says for what (`kubectl logs`). If both are ready, let node "
    "selectors and tolerations of their DaemonSets not overlap",
)
def several_agents(pods: tuple[str, ...]) -> str:
    """Pods of several proxies run on the node."""
    return f"{len(pods)} agents run there: {listed(pods, 3)}"


@cause(
    CauseCode.NODES_DIFFER,
    hint="While an update runs, this is so for a time; `kubectl rollout status` shows it",
)
def other_version(version: str, usual: str) -> str:
    """The nodes don't run ``usual``, the version of most other nodes; empty if there is none."""
    others = f", and {usual} on most others" if usual else ""
    return f"version {version} runs there{others}"


@cause(
    CauseCode.NODES_DIFFER,
    hint="Let all agents have the same flags and file, unless these nodes need others",
)
def other_settings(settings: tuple[str, ...]) -> str:
    """Settings differ; each is followed by most others' value: ``steering=iptables (nftables)``."""
    return f"settings differ from those of most others (in brackets): {listed(settings, 4)}"


@cause(
    CauseCode.NODES_DIFFER,
    hint="Delete kube-proxy's DaemonSet, then run kube-proxy --cleanup once on the node, "
    "privileged and on the host network; `userspace-proxy check` there says which rules win",
)
def beside_kube_proxy(places: tuple[str, ...]) -> str:
    """The kernel also contains kube-proxy's rules."""
    return f"kube-proxy's rules are beside this proxy's: {listed(places, 3)}"


@cause(
    CauseCode.NOT_LOCAL,
    hint="Set --hostname-override to the name of this node's Node: until then no endpoint is local "
    "to it (traffic policy Local), zone hints are ignored, and its addresses and pod networks "
    "(NodeCIDR) are unknown",
    kubectl="get nodes",
)
def no_node(name: str, similar: tuple[str, ...]) -> str:
    """The cluster has no Node of this name, or doesn't have it yet."""
    meant = f" (did you mean {' or '.join(similar)}?)" if similar else ""
    return f"there is no Node {name}{meant}"


_SET_CLOCK = "See whether it is synchronised: `timedatectl`, `chronyc tracking`"


@cause(CauseCode.NODES_DIFFER, hint=_SET_CLOCK)
def clock_off(seconds: int, is_ahead: bool, are_several: bool = False) -> str:
    """Clocks are off by more than two seconds; for several nodes, ``seconds`` is the maximum."""
    most = "up to " if are_several else ""
    return f"the clock is {most}{seconds:,} s {'ahead' if is_ahead else 'behind'}"


@cause(CauseCode.NODES_DIFFER, hint=_SET_CLOCK)
def own_clock_off(seconds: int, is_ahead: bool) -> str:
    """The clock of the machine on which this tool runs differs from most nodes' clocks."""
    where = "ahead of" if is_ahead else "behind"
    return f"this machine's clock is {seconds:,} s {where} those of most nodes"


# The command that shows whether a node, and each of its interfaces, forwards packets.
_FORWARDS = "(`sysctl -ar forward`)"


def _path_hint(endpoints: int, places: tuple[str, ...], count: int, ip: str, is_own: bool) -> str:
    what = (
        f"on their own node whether it forwards {_FORWARDS}, its FORWARD chains (`nft list "
        "ruleset`) and NetworkPolicies"
        if is_own
        else "whether something in between drops or rejects packets: a firewall, a NetworkPolicy, "
        f"the overlay network, or a node that doesn't forward {_FORWARDS}"
    )
    route = f"`ip route get {shell_word(ip)}` shows the right route"
    return f"See whether {route} on the nodes that can't reach them, then {what}"


@cause(CauseCode.NODES_DIFFER, hint=_path_hint)
def path_fails(
    endpoints: int, places: tuple[str, ...], count: int, ip: str, is_own: bool = False
) -> str:
    """Endpoints answer other nodes but not these nodes.

    Args:
        places: The endpoints' nodes.
        ip: The IP of one of the endpoints.
        is_own: Whether the endpoints answer only their own node.
    """
    where = f" on {listed(places, 2, count)}" if places else ""
    others = "their own node" if is_own else "other nodes"
    return f"{endpoints:,} endpoints{where} answer {others}, but can't be reached"


def _cut_off_hint(node: str, is_lossy: bool) -> str:
    if is_lossy:
        return mtu_hint(f"{node}'s pods")
    return (
        f"See the routes between {node} and the other nodes, on both sides and on routers (`ip "
        f"route get` with a pod's address), and the overlay network; then whether {node} forwards "
        f"{_FORWARDS}, its FORWARD chains (`nft list ruleset`), "
        "and NetworkPolicies"
    )


@cause(CauseCode.NODES_DIFFER, hint=_cut_off_hint)
def cut_off(node: str, is_lossy: bool = False) -> str:
    """Pods on a node and other nodes don't reach each other; or only packets with data are lost."""
    if is_lossy:
        return f"packets between {node} and other nodes are lost, as if an MTU were too large"
    return f"pods on {node} and other nodes don't reach each other"


def _not_answered_hint(node: str, pod_ip: str, accepts: bool, **_: object) -> str:
    what = "resets or drops data" if accepts else "drops packets"
    ip = shell_word(pod_ip)
    path = f"a smaller MTU (`ping -M do -s 1472 {ip}`)"
    if not accepts:
        path = f"a BPF program (`bpftool net`, `tc filter`) or a route (`ip route get {ip}`)"
    return (
        f"Programs of several Services seldom fail at once: look first for what {what} between "
        f"the nodes, or on {node}: a firewall or IDS (`nft list ruleset` there), or {path}; then "
        "at what the programs share, and their logs"
    )


@cause(CauseCode.NODES_DIFFER, hint=_not_answered_hint)
def not_answered(endpoints: int, node: str, pod_ip: str, *, accepts: bool = True) -> str:
    """Endpoints of several Services, one at ``pod_ip``, don't answer clients on other nodes.

    Args:
        accepts: Whether they accept connections.
    """
    what = "connections that they accept" if accepts else "clients on other nodes"
    return f"{endpoints:,} endpoints on {node} don't answer {what}"
