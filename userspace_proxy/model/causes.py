"""The names of what can be wrong for the clients of a Service, and what follows from a name alone.

    CauseCode ──▶ traits: is it counted of dials? are clients served nevertheless? what shows more?
    Taken, Doubt: rules of other programs

Rule 1: whatever must be known of each code is one of its traits, never a list of codes elsewhere.
What a cause says depends on more than its code: ``userspace_proxy.causes``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

_SLICES = "get endpointslices -n {namespace} -l kubernetes.io/service-name={name} -o yaml"
_SELECTOR = "edit service -n {namespace} {name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What follows from the code of a cause; each default is what most causes have.

    The words of commands have places: ``{namespace}`` and ``{name}`` of the Service, ``{pod}`` and
    ``{ip}`` of what the cause is about.
    """

    is_of_endpoint: bool = False
    """It is about an endpoint, which a dial may show more of."""
    is_of_now: bool = False
    """Its remedy looks at what is so at this moment."""
    is_dial: bool = False
    """A dial fails with it, so it is counted of each endpoint."""
    is_slow: bool = False
    """Such a dial lasts until its time is up."""
    serves: bool = False
    """Clients get to the endpoint in spite of it."""
    accepts: bool = False
    """The endpoint accepts the connections that it is the cause of."""
    is_unanswered: bool = False
    """Clients leave without a byte: an observation, not a failure."""
    may_be_header: bool = False
    """A PROXY header that the program doesn't expect looks the same."""
    is_of_address: bool = False
    """Some addresses of the Service port aren't served, perhaps all."""
    is_mistake: bool = False
    """A user has written something that has no effect; other notes are as intended."""
    is_by_design: bool = False
    """The Service, or this address, isn't this proxy's to serve."""
    is_of_pods: bool = False
    """The pods themselves show more."""
    kubectl: str = ""
    """Words after ``kubectl`` that show more; empty: for an endpoint, the pod with its address."""
    kubectl_of_pod: str = ""
    """The same for one pod that was named."""
    on_node: str = ""
    """A command on the node that shows more."""


_PLAIN = Traits()


class CauseCode(enum.StrEnum):
    """The names of causes in metrics, JSON and docs/troubleshooting.md; they never change."""

    traits: Traits

    def __new__(cls, value: str, traits: Traits = _PLAIN) -> CauseCode:
        """Return the code of a row."""
        code = str.__new__(cls, value)
        code._value_, code.traits = value, traits
        return code

    ENDPOINT_REFUSES = "endpoint-refuses", Traits(is_of_endpoint=True, is_dial=True)
    ENDPOINT_SILENT = (
        "endpoint-silent",
        Traits(is_of_endpoint=True, is_of_now=True, is_dial=True, is_slow=True),
    )
    ENDPOINT_UNREACHABLE = (
        "endpoint-unreachable",
        Traits(is_of_endpoint=True, is_of_now=True, is_dial=True),
    )
    ENDPOINT_NO_HOST = (
        "endpoint-no-host",
        Traits(is_of_endpoint=True, is_of_now=True, is_dial=True, is_slow=True),
    )
    """On the endpoint's link no host has its address: ARP or neighbour discovery isn't answered."""
    ENDPOINT_RESETS = (
        "endpoint-resets",
        Traits(is_of_endpoint=True, is_dial=True, accepts=True, may_be_header=True),
    )
    """It accepts connections and ends them without having sent a byte."""
    ENDPOINT_SENDS_NOTHING = (
        "endpoint-sends-nothing",
        Traits(is_of_endpoint=True, accepts=True, is_unanswered=True, may_be_header=True),
    )
    """It accepts connections, and sends nothing until the clients give up."""
    ENDPOINT_ANSWERS_LATE = (
        "endpoint-answers-late",
        Traits(is_of_endpoint=True, accepts=True, is_unanswered=True, may_be_header=True),
    )
    """Its first byte comes after the clients have given up."""
    ENDPOINT_DENIES = (
        "endpoint-denies",
        Traits(
            is_of_endpoint=True,
            serves=True,
            accepts=True,
            kubectl="get networkpolicies -n {namespace} -o yaml",
        ),
    )
    """It answers this node, or other clients, and doesn't answer some clients."""
    ENDPOINT_CUTS_OFF = (
        "endpoint-cuts-off",
        Traits(is_of_endpoint=True, serves=True, accepts=True, may_be_header=True),
    )
    """It resets connections after it has sent bytes."""
    PACKETS_LOST = "packets-lost", Traits(accepts=True)
    """Behind the handshake, packets to or from an endpoint, or to a client, don't arrive."""
    ENDPOINT_FAILS = "endpoint-fails", Traits(is_of_endpoint=True, is_of_now=True, is_dial=True)
    """A dial failed with another error."""
    ENDPOINT_NOT_ALLOWED = "endpoint-not-allowed", Traits(kubectl=_SLICES)
    """Its address is this node's, or reserved (CVE-2021-25737)."""
    NAME_NOT_ALLOWED = "name-not-allowed"
    """The operator doesn't allow the name of an endpoint, or not as many."""
    NAME_UNRESOLVED = "name-unresolved"
    """DNS has no address for the name of an endpoint, or none now."""
    NO_SLICE = "no-slice", Traits(is_of_pods=True, kubectl=_SLICES)
    SLICE_EMPTY = (
        "slice-empty",
        Traits(
            is_of_pods=True,
            kubectl="get pods -n {namespace} --show-labels",
            kubectl_of_pod=_SELECTOR,
        ),
    )
    SLICE_ELSEWHERE = (
        "slice-elsewhere",
        Traits(kubectl="get endpointslices -A -l kubernetes.io/service-name={name}"),
    )
    """A slice of another namespace names a Service of this name."""
    SLICE_ORPHANED = (
        "slice-orphaned",
        Traits(kubectl="get endpointslices -n {namespace} --show-labels"),
    )
    """A slice names a Service that doesn't exist and whose name is similar, or names none."""
    PORT_NAME_MISSING = (
        "port-name-missing",
        Traits(is_of_pods=True, kubectl=_SLICES, kubectl_of_pod=_SELECTOR),
    )
    NOT_READY = (
        "not-ready",
        Traits(
            is_of_pods=True,
            kubectl="describe pods -n {namespace}",
            kubectl_of_pod="describe pod -n {namespace} {pod}",
        ),
    )
    NOT_LOCAL = "not-local", Traits(kubectl="get pods -n {namespace} -o wide")
    NOT_FOR_THIS_NODE = "not-for-this-node", Traits(kubectl=_SLICES)
    """Topology hints send this node's clients to other endpoints."""
    SOURCE_DENIED = "source-denied"
    NO_PROXY_HEADER = "no-proxy-header"
    """A client that ``--accept-proxy-protocol`` contains sends no PROXY header."""
    HOP_LIMIT = "hop-limit"
    """Datagrams of clients arrive with a hop limit (TTL) that is used up."""
    EXTERNAL_IP_OFF = "external-ip-off", Traits(is_of_address=True)
    ADDRESS_TAKEN = "address-taken", Traits(is_of_address=True, kubectl="get services -A -o wide")
    NOT_OURS = "not-ours", Traits(is_by_design=True)
    """This proxy doesn't serve such Services or ports."""
    NOT_FOLLOWED = "not-followed", Traits(is_mistake=True)
    """A field or annotation has no effect."""
    TOO_MANY_ENDPOINTS = "too-many-endpoints"
    TOO_MANY_FRONTENDS = "too-many-frontends"
    """A Service, or those of a namespace, have too many ports and addresses."""
    NOT_LISTENING = "not-listening", Traits(on_node="ss -Hlntup")
    """A proxy port or node port can't be opened, or a frontend can't be steered to it."""
    FAULT_ON_PURPOSE = "fault-on-purpose", Traits(is_dial=True, serves=True, accepts=True)
    """A call, a toxiproxy client or an annotation asked for a fault, and it is in force."""
    OUT_OF_PORTS = "out-of-ports"
    OUT_OF_CLIENT_PORTS = "out-of-client-ports"
    FIREWALL_DROPS = "firewall-drops"
    AGENT_BEHIND = "agent-behind"
    """A node's plan isn't that of the API server; said by a reader of all nodes."""
    NODES_DIFFER = "nodes-differ"
    """A node differs from the others, or has what it shouldn't; likewise."""
    SOURCE_AWAY = "source-away"
    """The API server or the manifests can't be read."""
    AGENT_MISSING = "agent-missing"
    """No proxy runs on a node; said by a reader of all nodes."""
    AGENT_UNREAD = "agent-unread"
    """The proxy of a node has no answer that can be read."""

    def __reduce_ex__(self, _protocol: object) -> tuple[Any, ...]:
        # Python 3.11.2 looks a member up by its name; one of _missing_ has none that it knows.
        return CauseCode, (str(self),)

    @classmethod
    def _missing_(cls, value: object) -> CauseCode:
        """Return the code of a newer proxy, whose JSON this one reads; it has no other name."""
        code = str.__new__(cls, value)
        code._name_ = code._value_ = str(value)
        code.traits = _PLAIN
        return code


_FAILS = CauseCode.ENDPOINT_FAILS
DIAL_CAUSES = (*(one for one in CauseCode if one.traits.is_dial and one is not _FAILS), _FAILS)
"""Why dials fail; the last one is of all other errors."""


@dataclass(frozen=True, slots=True)
class Taken:
    """That a chain of another program takes the packets of a frontend's clients."""

    what: str
    hint: str = ""
    """What to do about it."""
    chain: str = ""
    """Family, table and name."""

    def __str__(self) -> str:
        return f"{self.what}; {self.hint}" if self.hint else self.what


class Doubt(Taken):
    """That it may take them, or takes those of some clients."""

    __slots__ = ()
