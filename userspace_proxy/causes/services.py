"""Rows of causes that concern a Service, one of its addresses, or its clients.

not served by this proxy · address taken · no listener · settings without effect · clients rejected
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from ..model import ServiceKey
from .cause import Cause, CauseCode, cause
from .slices import NAMES_SHOWN

NOTES_MAX = 10
"""The maximum number of notes of one kind (Service, addresses, slices) per Service port; each port
has its own copy."""
HEALTH_CHECK_FAILS = (
    "Load balancers may treat this node as one without endpoints. If a program holds the port "
    "(`ss -ltnp` on this node), end it, or change healthCheckNodePort; it is retried every second"
)
"""The effect of a health check node port that doesn't answer, and the remedy."""


@cause(CauseCode.NOT_OURS)
def lacks_label(label: str) -> str:
    """The Service lacks the label that this proxy serves."""
    return f"it has no label {label}"


_REMOVE = "`kubectl label service NAME service.kubernetes.io/{}-` removes it, to serve the Service"


@cause(CauseCode.NOT_OURS, hint=_REMOVE.format("service-proxy-name"))
def of_other_proxy(name: str) -> str:
    """The Service's label names another proxy."""
    return f"its label assigns it to the service proxy {name!r}"


@cause(CauseCode.NOT_OURS, hint=_REMOVE.format("headless"))
def has_headless_label() -> str:
    """The Service's label excludes it from all proxies."""
    return "it has the label service.kubernetes.io/headless"


def _alias_hint(address: str) -> str:
    return (
        "Write a Service without selector, and an EndpointSlice with the address" if address else ""
    )


@cause(CauseCode.NOT_OURS, hint=_alias_hint)
def is_external_name(address: str = "") -> str:
    """The Service is a DNS alias; ``address`` is its target, if that is an IP (not allowed)."""
    why = f", which can't be an alias of an address ({address})" if address else ""
    return f"type ExternalName is served by DNS alone{why}"


@cause(CauseCode.NOT_OURS, short="it is headless")
def is_headless(targets: tuple[str, ...] = ()) -> str:
    """The Service has no cluster IP because it requests none.

    Args:
        targets: The ports of endpoints that differ from the Service's, such as ``8080 (not 80)``.
    """
    at = f", at port {_shown(targets)}" if targets else ""
    return f"it is headless (clusterIP: None): clients reach its endpoints directly{at}"


@cause(CauseCode.NOT_OURS)
def no_cluster_ip() -> str:
    """The API server hasn't assigned a cluster IP."""
    return "it has no cluster IP yet"


@cause(CauseCode.NOT_OURS, short="protocol {protocol} is not supported")
def unsupported_protocol(protocol: str) -> str:
    """The port's protocol isn't supported."""
    return f"protocol {protocol} is not supported (TCP and UDP are)"


@cause(CauseCode.NOT_OURS, short="load-balancer IP {address} is not served here")
def balanced_elsewhere(address: str) -> str:
    """A load balancer handles traffic to the address itself."""
    return (
        f"load-balancer IP {address} is not served here: its ipMode is not VIP, so the load "
        "balancer itself answers for it"
    )


@cause(CauseCode.ADDRESS_TAKEN, about="{address}", hint="Give one of them another address")
def held_by(address: str, holder: str) -> str:
    """Another Service's port already has this address, port and protocol."""
    return f"{address} is already held by {holder}"


@cause(CauseCode.ADDRESS_TAKEN, about="{address}", hint="Give one of them another address")
def external_ip_of(address: str, owner: ServiceKey | str) -> str:
    """The external IP of the Service is another Service's address."""
    return f"external IP {address} is an address of {owner}"


def _number_hint(about: str, kind: str, number: str, **_: str) -> str:
    # The hint isn't about the other Service, because the address may be its cluster IP.
    return f"Give this Service another {kind}"


@cause(CauseCode.ADDRESS_TAKEN, about="{about}", hint=_number_hint)
def lost_to(about: str, kind: str, number: str, holder: str) -> str:
    """Another Service's port already has this address and port number, or this node port."""
    return f"{kind} {number} is not served: it is already held by {holder}"


@cause(CauseCode.ADDRESS_TAKEN, about="{about}", hint=_number_hint)
def lost_as_address(about: str, kind: str, number: str, owner: str) -> str:
    """The external IP is another Service's address."""
    return f"{kind} {number} is not served: it is an address of {owner}"


@cause(
    CauseCode.ADDRESS_TAKEN,
    about="{address}",
    hint="Give it a clusterIP that no machine has, such as one of the cluster's range for Services",
)
def own_address(address: str) -> str:
    """The Service's cluster IP is an address of this node."""
    return f"its clusterIP {address} is an address of this node"


def _external_hint(address: str, why: str, is_allowed: bool) -> str:
    if is_allowed:
        return "Give the Service an external IP that no machine of the cluster has"
    return "--allow-external-ips lists the networks whose external IPs are served"


@cause(CauseCode.EXTERNAL_IP_OFF, about="{address}", hint=_external_hint)
def external_ip_off(address: str, why: str, *, is_allowed: bool = False) -> str:
    """An external IP isn't served, although it may be allowed."""
    return f"external IP {address} is not served: {why}"


@cause(CauseCode.EXTERNAL_IP_OFF, about="{address}", hint="Divide the Service")
def too_many_external_ips(address: str, limit: int) -> str:
    """An external IP is beyond the number that is served per Service."""
    return (
        f"external IP {address} and those after it are not served: a Service with as many ports "
        f"may have {limit}"
    )


@cause(
    CauseCode.TOO_MANY_FRONTENDS,
    about="{service}",
    hint="Divide the Service, or give it fewer ports or load-balancer IPs",
)
def too_many_frontends(service: ServiceKey | str, limit: int, count: int) -> str:
    """The Service has too many frontends: ``count`` ports aren't served, from this port on."""
    which = (
        "this port is" if count == 1 else f"this port and the {count - 1:,} after it, by name, are"
    )
    return (
        f"{service} has more than {limit:,} frontends, which are its ports times their addresses: "
        f"{which} not served"
    )


@cause(
    CauseCode.TOO_MANY_FRONTENDS,
    about="namespace {namespace}",
    hint="Remove ports from the largest Services of the namespace",
    shared=("namespace",),
)
def too_many_frontends_in_namespace(namespace: str, limit: int) -> str:
    """The Service is among the largest of a namespace with too many frontends."""
    return (
        f"the Services of namespace {namespace} together have more than {limit:,} frontends, which "
        "are their ports times their addresses, so the largest Services, this one among them, are "
        "not served"
    )


def _chain(problem: str, hint: str, chain: str) -> str:
    return f"nftables chain {chain}" if chain else ""


def _hint(problem: str, hint: str, chain: str) -> str:
    return hint


@cause(CauseCode.NOT_LISTENING, about=_chain, hint=_hint, shared=("chain",))
def not_listening(problem: str, hint: str, chain: str = "") -> str:
    """A frontend, or its proxy port, can't or must not be served.

    Args:
        problem: The message of the component that opens or steers it.
        chain: The family, table and name of another program's chain, if it is the reason.
    """
    return problem


def _of_chain(chain: str, why: str, hint: str) -> str:
    return hint


@cause(CauseCode.FIREWALL_DROPS, hint=_of_chain, shared=("chain",))
def forwarding_dropped(chain: str, why: str, hint: str) -> str:
    """Another program's chain certainly drops the clients' packets when they are forwarded.

    Args:
        chain: The family, table and name.
        why: A rule or the policy, and the affected packets.
    """
    return f"packets that the kernel forwards to endpoints are dropped by chain {chain}: {why}"


@cause(
    CauseCode.PACKETS_LOST,
    hint="Look for a firewall that drops forwarded packets, on this node (`nft list ruleset`, hook "
    "forward) or at the endpoints (a NetworkPolicy that admits this node, not the clients), and "
    "for the endpoints' way back to the clients; the path userspace reaches them from this node",
)
def forwarding_unanswered() -> str:
    """Forwarded connections go unanswered, for an unknown reason; dials of this node succeed."""
    return (
        "clients that the kernel leads to endpoints get no answer, though the endpoints answer "
        "this node"
    )


@cause(CauseCode.NOT_FOLLOWED)
def more_notes() -> str:
    """There are more notes than are listed."""
    return f"there are further notes: the first {NOTES_MAX} are listed"


def first_notes(notes: Iterable[Cause]) -> tuple[Cause, ...]:
    """Return at most ``NOTES_MAX`` notes, and :func:`more_notes` if there are others."""
    found = tuple(itertools.islice(notes, NOTES_MAX + 1))
    return found if len(found) <= NOTES_MAX else (*found[:NOTES_MAX], more_notes())


@cause(
    CauseCode.NOT_FOLLOWED,
    about="{of}",
    hint="Correct it: an object that was valid before keeps its last form until then",
)
def rejected(of: str, line: str) -> str:
    """An object of the Service, ``Service shop/web``, has a mistake; ``line`` states it."""
    return f"{of} is rejected: {line}"


@cause(CauseCode.NOT_FOLLOWED)
def of_object(line: str) -> str:
    """An object has a mistake, stated by ``line``: part of it is used, or its name is unknown."""
    return line


@cause(CauseCode.NOT_FOLLOWED, hint="Repair that file, first at {place}")
def object_kept(place: str) -> str:
    """A removed object is kept because its file has mistakes, the first at ``place``."""
    return "an object of it was removed from its file, and is kept while the file has mistakes"


@cause(CauseCode.NOT_FOLLOWED, hint=HEALTH_CHECK_FAILS)
def health_check_fails(problem: str) -> str:
    """Load balancers get no answer to health checks, although clients are served."""
    return problem


_IS_ADMITTED_NOW = "explain --from=ADDRESS shows whether a client is admitted now"


def _shown(networks: tuple[str, ...]) -> str:
    return ", ".join(networks[:NAMES_SHOWN]) + (", …" if len(networks) > NAMES_SHOWN else "")


@cause(
    CauseCode.SOURCE_DENIED,
    about=_shown,
    hint="spec.loadBalancerSourceRanges must contain the client's network",
)
def source_denied(networks: tuple[str, ...]) -> str:
    """Clients outside these networks are dropped; without networks, all clients."""
    if not networks:
        return "all clients are dropped"
    return f"clients outside {_shown(networks)} are dropped"


@cause(CauseCode.SOURCE_DENIED, hint=_IS_ADMITTED_NOW)
def source_was_denied() -> str:
    """Clients were dropped before the source ranges changed."""
    return "clients were dropped before spec.loadBalancerSourceRanges changed"


@cause(CauseCode.NOT_LOCAL, hint=_IS_ADMITTED_NOW)
def none_was_local() -> str:
    """Clients were dropped while only other nodes had endpoints for them."""
    return "clients were dropped while only other nodes had endpoints, and the policy was Local"


def _port_hint(dialled: tuple[str, ...], served: tuple[str, ...]) -> str:
    return f"Let clients dial a port that it has ({_shown(served)}), or add theirs to spec.ports"


@cause(CauseCode.OTHER_PORT, hint=_port_hint)
def dials_other_port(dialled: tuple[str, ...], served: tuple[str, ...]) -> str:
    """Clients were refused in the last minute at ports that no frontend of the ClusterIP has."""
    return f"clients dial {_shown(dialled)}, which the Service does not have, and are refused"


@cause(
    CauseCode.NO_PROXY_HEADER,
    about="{client}",
    hint="--accept-proxy-protocol contains this address: configure the client to send the header, "
    "or remove the address from that setting",
)
def no_proxy_header(client: str) -> str:
    """Connections without a PROXY header were reset; ``client`` is the last such client."""
    return f"connections without a PROXY header were reset, the last one of {client}"


@cause(
    CauseCode.HOP_LIMIT,
    about="{client}",
    hint="Have the client send with a larger TTL (IPv6: hop limit); if it does, look for a loop: a "
    "Service whose endpoint or load balancer leads back to it",
)
def hop_limit_reached(client: str) -> str:
    """Datagrams with an exhausted hop limit were dropped; ``client`` sent the last one."""
    return f"datagrams were dropped because their hop limit was reached, the last one of {client}"
