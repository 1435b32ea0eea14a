"""Words each cause, once; the facts come from those that know them.

Rule 1: a sentence states what is wrong, and about which object; it can be understood alone.
Rule 2: a remedy is a sentence, or a command that can be pasted, which begins in lower case.
Rule 3: figures that change while the fact stays the same (how often, how long ago) aren't part of
the sentence, so equal facts give equal causes.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence

from ..model import (
    Cause,
    CauseCode,
    Doubt,
    EndpointSlice,
    Failure,
    IPFamily,
    Service,
    ServiceKey,
    ServicePort,
    SocketAddress,
)
from ..model.annotations import ANNOTATION_WEIGHT
from ..model.failures import BY_OWN_ROUTE, LOSSES, UNREACHABLE
from ..model.mirroring import note_not_mirrored
from ..model.reading import LABEL_SERVICE_NAME
from .cause_rows import LOST_ON_THE_WAY
from .endpoint_causes import no_host
from .route_causes import by_own_route

_FIREWALL = "look for a NetworkPolicy or firewall that"
_HERE = "packets to it, also on this node: `nft list ruleset`"
NAMES_SHOWN = 5
"""Names, networks and reasons in a sentence."""
NOTES_MAX = 10
"""Notes of one kind (Service, addresses, slices) at a Service port; each port repeats them."""
SLICES_OF = "EndpointSlices of"
"""The object of a cause that is about a Service's slices, not its pods, before the name."""
CHAIN = "nftables chain"
"""The object of a cause that is about such a chain, before family, table and name."""
OTHERS_CHAIN = f"{CHAIN} {{}} of another program"
_USES_ALL = "{}: Cluster uses endpoints of all nodes"
# Of a selector, which may have any number of labels.
_TEXT_MAX = 100


DIAL_CODES: Mapping[Failure, CauseCode] = {
    **dict.fromkeys(Failure, CauseCode.ENDPOINT_FAILS),
    Failure.REFUSED: CauseCode.ENDPOINT_REFUSES,
    Failure.SILENT: CauseCode.ENDPOINT_SILENT,
    Failure.RESET: CauseCode.ENDPOINT_RESETS,
    Failure.NO_HOST: CauseCode.ENDPOINT_NO_HOST,
    Failure.ADMIN_PROHIBITED: CauseCode.ENDPOINT_UNREACHABLE,
    **dict.fromkeys(UNREACHABLE | BY_OWN_ROUTE, CauseCode.ENDPOINT_UNREACHABLE),
}
"""The code of a failed dial's cause."""


def dial_failed(endpoint: SocketAddress, failure: Failure, error: str) -> Cause:
    """Return the cause of failed dials of an endpoint; ``error`` is the text of their errno.

    A firewall that rejects packets may cause most of them: a RST is that of a host on which nothing
    listens, and the ICMP errors are those of hosts and routers.
    ``tests/unit/explain/test_dial.py`` has the errno of each.
    """
    if failure is Failure.RESET or failure is Failure.NO_HOST:
        word = no_host if failure is Failure.NO_HOST else resets
        return word(endpoint)
    if failure in BY_OWN_ROUTE:
        return by_own_route(endpoint, failure)
    hint = ""
    if failure is Failure.REFUSED:
        sentence = (
            f"{endpoint} refuses connections: nothing listens on port {endpoint.port} there, or a "
            "firewall rejects them"
        )
        hint = (
            "Compare targetPort with the port on which the container listens, and on which "
            f"address; if they agree, {_FIREWALL} rejects {_HERE}"
        )
    elif failure is Failure.SILENT:
        sentence = (
            f"{endpoint} does not answer: packets are dropped, its program hangs, or its host is "
            "gone"
        )
        hint = (
            "See whether the pod still exists and accepts connections from its own node; if it "
            f"does, {_FIREWALL} drops or rejects {_HERE}; where answers come by another interface "
            "than packets leave by, rp_filter drops them (`nstat -az TcpExtIPReversePathFilter`)"
        )
    elif failure in UNREACHABLE:
        sentence = (
            f"{endpoint} is unreachable: a router on the way has no route to it, no host has that "
            "address, its node is down, or a firewall rejects packets to it"
        )
        hint = (
            f"`ip route get {endpoint.ip}` on this node shows the route; compare the address with "
            f"that of the pod, and look at the pod's node; if all are right, {_FIREWALL} rejects "
            f"{_HERE}"
        )
    elif failure is Failure.ADMIN_PROHIBITED:
        sentence = (
            f"{endpoint} is unreachable: a firewall or router rejects packets to it "
            "(administratively prohibited)"
        )
        hint = f"On the way to the endpoint, {_FIREWALL} rejects {_HERE}"
    else:
        meaning, hint = _other_error(failure, endpoint.ip)
        sentence = f"{endpoint} can't be dialled: {error}{meaning}"
    return Cause(DIAL_CODES[failure], sentence, str(endpoint), hint)


def _other_error(failure: Failure, ip: str) -> tuple[str, str]:
    """Return what an error means beyond its words, and what to do about it; empty if unknown."""
    if failure is Failure.BLACKHOLE:
        route = f"`ip route get {ip}` on this node fails if there is such a route"
        return ", the error of a route of type blackhole", route
    if failure is Failure.NOT_PERMITTED:
        # Source: NF_DROP of hooks output and postrouting, in nf_hook_slow() of net/netfilter/core.c
        return ", as by rules of this node that drop packets", (
            "`nft list ruleset` on this node shows the firewall's rules for output; a BPF program "
            "on this node (Cilium, systemd's IPAddressDeny=) or a full table of connection "
            "tracking, which the kernel's log shows, looks the same"
        )
    if failure is Failure.NO_ACCESS:
        return ", as by a routing rule of this node for some packets", (
            "`ip rule` on this node shows rules of type prohibit; a security module (SELinux) "
            "looks the same"
        )
    if failure is Failure.NO_PROTOCOL:
        return "", "A firewall on this node or on the way rejects packets to the endpoint"
    return "", ""


def end_code(failure: Failure) -> CauseCode:
    """Return why connections ended without a byte of the endpoint, or as packets were lost."""
    if failure in LOSSES:
        return CauseCode.PACKETS_LOST
    is_left = failure is Failure.UNANSWERED or failure is Failure.NO_DATAGRAM
    return CauseCode.ENDPOINT_SENDS_NOTHING if is_left else CauseCode.ENDPOINT_RESETS


def resets(endpoint: SocketAddress) -> Cause:
    """Return the cause of connections that an endpoint accepts and ends without a byte."""
    return Cause(
        CauseCode.ENDPOINT_RESETS,
        f"{endpoint} accepts connections and ends them without answering",
        str(endpoint),
        "Read the log of the pod: it may expect TLS or another protocol, or fail for each client; "
        f"{LOST_ON_THE_WAY}; endpoints that only receive (syslog, graphite) do so, too",
    )


def no_slice(service: Service, family: IPFamily, slices: Sequence[EndpointSlice]) -> Cause:
    """Return why a Service has no endpoint of a family: it has no slice of this family."""
    key = service.key
    if slices:
        other = slices[0].family
        sentence = f"no EndpointSlice of {family} belongs to {key}, only of {other}"
        hint = f"Its pods have no {family} address, or its slices were written for {other} alone"
    elif sentence := note_not_mirrored(service.notes):
        hint = f"Remove that, or create an EndpointSlice with the label {_label(key)}"
    elif service.selector:
        sentence = f"no EndpointSlice belongs to {key}"
        hint = (
            "The EndpointSlice controller creates one from the selector "
            f"{_selector_shown(service)}; manifests must contain one, or Endpoints, as selectors "
            "aren't evaluated there"
        )
    else:
        sentence = f"no EndpointSlice belongs to {key}, and it has no selector"
        hint = f"Create an EndpointSlice with the label {_label(key)}"
    return Cause(CauseCode.NO_SLICE, sentence, str(key), hint)


def _label(key: ServiceKey) -> str:
    return f"{LABEL_SERVICE_NAME}: {key.name}"


def slice_empty(service: Service, count: int) -> Cause:
    """Return that a Service has slices, and no endpoint in them."""
    which = "its EndpointSlice is" if count == 1 else f"its {count} EndpointSlices are"
    if service.selector:
        selector = _selector_shown(service)
        sentence = f"{which} empty: no pod with an address was found for selector {selector}"
        hint = f"kubectl get {_pods_of(service)}"
    else:
        sentence = f"{which} empty"
        hint = "It has no selector: what created the slice must add endpoints"
    return Cause(CauseCode.SLICE_EMPTY, sentence, str(service.key), hint)


def port_missing(
    port: ServicePort, others: Sequence[str], names: Sequence[str], *, has_selector: bool = False
) -> Cause:
    """Return that no endpoint has the Service port.

    Args:
        others: Protocols for which endpoints have a port of this name.
        names: The first names of the endpoints' ports; empty if they have none.
        has_selector: The slices are made from pods.
    """
    wanted = f'port named "{port.name}"' if port.name else "unnamed port"
    if others:
        one = f"{'a' if port.name else 'an'} {wanted}"
        sentence = f"its endpoints have {one} only for {', '.join(others)}, not {port.protocol}"
        other = "the container's port" if has_selector else "the port of its EndpointSlice"
        hint = f"Give the Service's port and {other} the same protocol"
    elif names:
        shown = ", ".join(sorted(f'"{name}"' if name else "an unnamed one" for name in names))
        sentence = f"its endpoints have no {wanted}; they have {shown}"
        hint = "The port's name in the EndpointSlice (Endpoints) must be that in the Service"
    else:
        sentence = f"its endpoints have no {wanted}, nor any other"
        hint = "The ports of the EndpointSlice are empty: add those of the Service"
        if has_selector:
            # The EndpointSlice controller leaves a port out that it doesn't find in the pod.
            sentence += ": targetPort is a name that no container port of its pods has"
            hint = "Name a container port so, or set targetPort to its name or number"
    return Cause(CauseCode.PORT_NAME_MISSING, sentence, port.name, hint)


def none_ready(service: Service, total: int, ended: int = 0) -> Cause:
    """Return that no endpoint is ready, nor still serving.

    Args:
        service: Theirs; without a selector its slices aren't made from pods.
        ended: Of them, those that terminate and don't serve any more.
    """
    one, many = "its only endpoint is not ready", f"none of its {total:,} endpoints is ready"
    hint = f"kubectl describe {_pods_of(service)}"
    if ended:
        one = "its only endpoint is terminating and doesn't serve any more"
        are = "all are" if ended == total else f"{ended:,} of them {'is' if ended == 1 else 'are'}"
        many = f"{many}, and {are} terminating"
        hint = f"kubectl get {_pods_of(service)}"
    if not service.selector:
        hint = "It has no selector: what writes its EndpointSlice sets the conditions of endpoints"
    return Cause(CauseCode.NOT_READY, one if total == 1 else many, hint=hint)


def some_lack_port(port: ServicePort, have: int, total: int) -> Cause:
    """Return that only some of a Service's endpoints have the port, and serve it."""
    wanted = f'port named "{port.name}"' if port.name else "unnamed port"
    lack = total - have
    them = f"{lack:,} of its {total:,} endpoints {'has' if lack == 1 else 'have'}"
    return Cause(
        CauseCode.PORT_NAME_MISSING,
        f"{them} no {wanted}",
        port.name,
        "targetPort is a name: give a container port of each pod this name",
    )


def none_local(nodes: Collection[str], policy: str) -> Cause:
    """Return that no endpoint is on this node, and that the policy excludes all others.

    Args:
        nodes: The node of each endpoint; empty where its slice doesn't say.
        policy: The field with the policy.
    """
    total, unknown = len(nodes), sum(not node for node in nodes)
    if total == 1:
        what = f"is on node {next(iter(nodes))}" if not unknown else "has no nodeName"
        where = f"its only endpoint {what}"
    elif unknown == total:
        where = f"none of its {total:,} endpoints has a nodeName"
    else:
        or_not = " or have no nodeName" if unknown else ""
        where = f"its {total:,} endpoints are on other nodes{or_not}"
    hint = _USES_ALL.format(policy)
    if unknown:
        hint += "; nodeName in the EndpointSlice states where an endpoint is"
    return Cause(CauseCode.NOT_LOCAL, f"{where}, and the traffic policy is Local", hint=hint)


def none_usable(
    code: CauseCode,
    counts: Sequence[tuple[int, str]],
    total: int,
    *,
    policy: str = "",
    drained_of: ServiceKey | None = None,
) -> Cause:
    """Return that no endpoint is usable, for several reasons; the code is that of the first.

    Args:
        policy: The field with the policy, where that is the first.
        drained_of: The Service whose slices give some of them the weight 0; None: none do.
    """
    hint = _USES_ALL.format(policy) if policy else ""
    object_ = ""
    if drained_of is not None and not policy:
        object_ = f"{SLICES_OF} {drained_of}"
        hint = (
            f'{ANNOTATION_WEIGHT}: "0" on an EndpointSlice drains its endpoints: remove the '
            "annotation, or give it a weight above 0"
        )
    elif code is CauseCode.ENDPOINT_NOT_ALLOWED:
        hint = (
            "Endpoints must be addresses of pods or of other hosts, not of Services, and no node "
            "ports: correct the EndpointSlice"
        )
    if total == 1:
        what = f"its only endpoint is {counts[0][1]}"
        return Cause(code, what, object_, hint)
    # Each may name another Service.
    parts = ", ".join(f"{count} {reason}" for count, reason in counts[:NAMES_SHOWN])
    more = ", …" if len(counts) > NAMES_SHOWN else ""
    what = f"none of its {total:,} endpoints is usable: {parts}{more}"
    return Cause(code, what, object_, hint)


def external_ip_off(ip: str, why: str, *, is_allowed: bool = False) -> Cause:
    """Return that an external IP isn't served, though it may be one of those that are allowed."""
    sentence = f"external IP {ip} is not served: {why}"
    hint = "--allow-external-ips lists the networks whose external IPs are served"
    if is_allowed:
        hint = "Give the Service an external IP that no machine of the cluster has"
    return Cause(CauseCode.EXTERNAL_IP_OFF, sentence, ip, hint)


def not_followed(sentence: str, object_: str = "") -> Cause:
    """Return that a field or an annotation has no effect, or not the one intended."""
    return Cause(CauseCode.NOT_FOLLOWED, sentence, object_)


def first_notes(notes: Iterable[Cause]) -> tuple[Cause, ...]:
    """Return ``NOTES_MAX`` of them at most, and then one that states that there are more."""
    found = tuple(itertools.islice(notes, NOTES_MAX + 1))
    if len(found) <= NOTES_MAX:
        return found
    more = not_followed(f"there are further notes: the first {NOTES_MAX} are listed")
    return (*found[:NOTES_MAX], more)


def fault_on_purpose(endpoint: SocketAddress, faults: Sequence[str]) -> Cause:
    """Return that connections to an endpoint suffer faults because they were asked for.

    Args:
        faults: In words.
    """
    return Cause(
        CauseCode.FAULT_ON_PURPOSE,
        f"{endpoint} has a fault on purpose: {', '.join(faults)}",
        str(endpoint),
        "To end it, have the program or toxiproxy client that set it remove it",
    )


def not_ours(sentence: str) -> Cause:
    """Return that this proxy doesn't serve a Service, or a port of it."""
    return Cause(CauseCode.NOT_OURS, sentence)


def address_taken(sentence: str, address: str) -> Cause:
    """Return that another Service has the address."""
    return Cause(CauseCode.ADDRESS_TAKEN, sentence, address, "Give one of them another address")


def own_address(ip: str) -> Cause:
    """Return that a Service's cluster IP is an address of this node."""
    return Cause(
        CauseCode.ADDRESS_TAKEN,
        f"its clusterIP {ip} is an address of this node",
        ip,
        "Give it a clusterIP that no machine has, such as one of the cluster's range for Services",
    )


def selector_text(service: Service, most: int | None = None) -> str:
    """Return a Service's selector as kubectl takes it: ``app=web,tier=front``.

    Args:
        most: Without the labels after that many.
    """
    return ",".join(f"{key}={value}" for key, value in service.selector[:most])


def _pods_of(service: Service) -> str:
    """Return kubectl's words for a Service's pods; with many labels, for all of its namespace."""
    text = selector_text(service, _TEXT_MAX)
    labels = f" -l {text}" if len(text) <= _TEXT_MAX else ""
    return f"pods -n {service.key.namespace}{labels}"


def _selector_shown(service: Service) -> str:
    """Return the beginning of the selector, which is repeated for each port."""
    # Without looking at all of its labels: there may be thousands, and as many ports.
    text = selector_text(service, _TEXT_MAX)
    return text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}…"


def not_listening(problem: str, hint: str, chain: str = "") -> Cause:
    """Return that a frontend, or the proxy port behind it, can't be served.

    Args:
        chain: Family, table and name of the chain of another program that is to blame, if one is.
    """
    return Cause(CauseCode.NOT_LISTENING, problem, f"{CHAIN} {chain}" if chain else "", hint)


def may_not_listen(doubt: Doubt) -> Cause:
    """Return that a frontend may not be served."""
    return not_listening(doubt.what, doubt.hint, doubt.chain)


def out_of_ports() -> Cause:
    """Return that this node has no source port left towards an endpoint."""
    return Cause(
        CauseCode.OUT_OF_PORTS,
        "no source port was left for connections to an endpoint",
        hint="sysctl -w net.ipv4.tcp_tw_reuse=1",
    )


def out_of_client_ports() -> Cause:
    """Return that a client's own address has no port left towards an endpoint."""
    return Cause(
        CauseCode.OUT_OF_CLIENT_PORTS,
        "all ports 61000-65535 of a client's address towards an endpoint are in use: the endpoint "
        "sees this node's address, or the client is refused if the endpoint has not answered it",
        hint="Set the sysctl net.ipv4.tcp_timestamps=1 on this node and in the endpoint, or have "
        "the client keep fewer connections open",
    )
