"""Rows of causes for fields, annotations and objects that have no effect, or only part of it.

Parsers report most of them as :class:`~userspace_proxy.model.notes.Note`; policy finds the rest.
"""

from __future__ import annotations

from ..model import SliceKey
from ..model.annotations import DOMAIN, WITHOUT_SLOW_START
from ..model.notes import Note
from ..model.source_ranges import ANNOTATION_SOURCE_RANGES
from .cause import ROWS, Cause, CauseCode, cause


def cause_of(note: Note) -> Cause:
    """Return the cause of a note; raise TypeError if its parameters don't fit the row."""
    return ROWS[note.kind](*note.params)


def cause_of_slice(note: Note, key: SliceKey) -> Cause:
    """Return the cause of a slice's note; it names the slice."""
    return cause_of(note).replace(within=f"EndpointSlice {key}")


@cause(CauseCode.NOT_FOLLOWED)
def annotation_wrong(key: str, why: str, otherwise: str) -> str:
    """The value is invalid, so ``otherwise`` happens."""
    return f"annotation {key}: {why}: {otherwise}"


@cause(CauseCode.NOT_FOLLOWED)
def annotation_unknown(key: str, meant: str, known: tuple[str, ...]) -> str:
    """The annotation is unknown; ``meant`` is the name that was probably meant, or empty."""
    rest = f"did you mean {meant}?" if meant else f"known: {', '.join(known)}"
    return f"annotation {key} is unknown ({rest})"


@cause(CauseCode.NOT_FOLLOWED)
def annotation_misplaced(key: str, kinds: str) -> str:
    """The annotation belongs on objects of other kinds."""
    return f"annotation {key} has no effect here: it belongs on {kinds}"


@cause(CauseCode.NOT_FOLLOWED)
def slow_start_unused() -> str:
    """The chosen balance ignores slow start."""
    return f"annotation {DOMAIN}slow-start: {WITHOUT_SLOW_START}"


@cause(CauseCode.NOT_FOLLOWED)
def wake_without_hold(otherwise: str) -> str:
    """Nothing wakes the workload, because clients don't wait for it."""
    return f"annotation {DOMAIN}wake: no connection waits without {DOMAIN}hold: {otherwise}"


@cause(CauseCode.NOT_FOLLOWED)
def wake_without_selector(workload: str) -> str:
    """The Service selects no pods, so it isn't allowed to scale a workload."""
    what = (
        f"annotation {DOMAIN}wake: the Service has no selector, so {workload} isn't scaled for it"
    )
    return f"{what}: write in spec.selector labels of the selector of {workload}"


@cause(CauseCode.NOT_FOLLOWED)
def idle_without_wake(otherwise: str) -> str:
    """Without the wake annotation, the workload to scale is unknown."""
    return f"annotation {DOMAIN}idle-after: no workload is named by {DOMAIN}wake: {otherwise}"


@cause(CauseCode.NOT_FOLLOWED)
def header_without_tcp() -> str:
    """A PROXY header is sent only over TCP."""
    return f"annotation {DOMAIN}proxy-protocol: no port is TCP: no header is sent"


@cause(CauseCode.NOT_FOLLOWED, hint="Write spec.sessionAffinity: ClientIP")
def scope_without_affinity() -> str:
    """Ports share the entries of session affinity, but the Service has no affinity."""
    what = f"annotation {DOMAIN}affinity-scope: service has no effect"
    return f"{what} without spec.sessionAffinity: ClientIP"


@cause(CauseCode.NOT_FOLLOWED)
def path_not_allowed(path: str) -> str:
    """The operator doesn't allow the chosen path."""
    return f"annotation {DOMAIN}path is ignored: --allow-paths does not contain {path}"


@cause(CauseCode.NOT_FOLLOWED)
def kernel_path_unused(why: str) -> str:
    """The chosen kernel path isn't available."""
    return f"path kernel is not used: {why}"


@cause(CauseCode.NOT_FOLLOWED)
def weights_coarse(why: str) -> str:
    """On the kernel path, exact weights would take too many parts or slots."""
    return f"weights are followed roughly on the kernel path: {why}"


@cause(CauseCode.NOT_FOLLOWED)
def range_without_port(asked: str, known: tuple[str, ...]) -> str:
    """The range is for a port that the Service doesn't have."""
    what = f"annotation {DOMAIN}port-ranges: {asked}: the Service has no such TCP or UDP port"
    return f"{what} (it has {', '.join(known) or 'none'})"


@cause(CauseCode.NOT_FOLLOWED)
def range_without_number(asked: str, number: int) -> str:
    """The range doesn't contain the number of its Service port."""
    return f"annotation {DOMAIN}port-ranges: {asked} does not contain {number}, the port's number"


@cause(CauseCode.NOT_FOLLOWED)
def range_overlaps(asked: str, other: str) -> str:
    """Two ranges of the Service overlap for one protocol; the first is served."""
    what = f"annotation {DOMAIN}port-ranges: {asked} overlaps {other}"
    return f"{what}: of {asked.partition('=')[0]}, only the port itself is served"


@cause(CauseCode.NOT_FOLLOWED)
def range_not_allowed(asked: str, address: str, allowed: str) -> str:
    """The operator doesn't allow ranges at such addresses."""
    what = f"range {asked} is not served at {address}: --allow-port-ranges is {allowed}"
    return f"{what}; the port itself is served there"


@cause(CauseCode.NOT_FOLLOWED)
def all_at_external(asked: str, address: str) -> str:
    """``all`` ports are served only at ClusterIPs, because Services may share other addresses."""
    return f"range {asked} is not served at {address}: all ports of an address are for ClusterIPs"


@cause(CauseCode.NOT_FOLLOWED)
def range_at_node(asked: str, address: str, whose: str) -> str:
    """The range would take ports from programs of a node, as with k3s' ServiceLB."""
    what = f"range {asked} is not served at {address}: it is an address of {whose}"
    return f"{what}; the port itself is served there"


@cause(CauseCode.NOT_FOLLOWED)
def range_without_node_port(asked: str, number: int) -> str:
    """Node ports have no ranges."""
    return f"range {asked} has no node ports: node port {number} leads to the port itself"


@cause(CauseCode.NOT_FOLLOWED)
def range_not_possible(asked: str, why: str) -> str:
    """No path can serve the range, or the endpoints' ports aren't in 1–65535."""
    return f"range {asked} is not served, only the port itself: {why}"


@cause(CauseCode.NOT_FOLLOWED)
def range_without_proxy(asked: str, settings: str) -> str:
    """The kernel serves a range of UDP ports, so settings that need the proxy have no effect."""
    return f"range {asked} is served by the kernel, which does not follow {settings}"


@cause(CauseCode.NOT_FOLLOWED)
def no_balancer_address() -> str:
    """The Service has type LoadBalancer, but no load balancer address."""
    return "no load balancer has given it an address (status.loadBalancer is empty)"


@cause(
    CauseCode.NOT_FOLLOWED,
    about="{address}",
    hint="Give the Service a ClusterIP of {theirs}, too: spec.ipFamilyPolicy: PreferDualStack",
)
def of_other_family(address: str, theirs: str, own: str) -> str:
    """An external address belongs to a family in which the Service isn't served."""
    return f"{address} is not served: it is of {theirs}, and the Service of {own}"


@cause(CauseCode.NOT_FOLLOWED)
def too_many_balanced(count: int, limit: int) -> str:
    """The Service has more load balancer addresses than are served."""
    what = f"status.loadBalancer.ingress: {count:,} addresses are listed"
    return f"{what}, and the first {limit} are served"


@cause(CauseCode.NOT_FOLLOWED)
def ranges_in_annotation() -> str:
    """The source ranges are in the deprecated annotation, which is ignored."""
    what = f"annotation {ANNOTATION_SOURCE_RANGES} is ignored, as in kube-proxy"
    return f"{what}: write spec.loadBalancerSourceRanges"


@cause(CauseCode.NOT_FOLLOWED)
def range_wrong(why: str) -> str:
    """A source range isn't a valid network."""
    return f"spec.loadBalancerSourceRanges: {why}: no client is admitted"


@cause(CauseCode.NOT_FOLLOWED)
def too_many_ranges(count: int, limit: int) -> str:
    """The Service has more source ranges than a filter can contain."""
    what = f"spec.loadBalancerSourceRanges: {count:,} networks are listed"
    return f"{what}, and {limit:,} are allowed: no client is admitted"


@cause(CauseCode.NOT_FOLLOWED)
def no_range_of_family(family: str) -> str:
    """All source ranges belong to the other family, so they limit only that family's clients."""
    return f"{family} clients of the load balancer aren't limited: no source range is {family}"


@cause(CauseCode.NOT_FOLLOWED)
def too_many_hints(limit: int) -> str:
    """The hints of a slice name more zones or nodes than are kept."""
    return f"hints name more than {limit:,} zones or nodes: others are left out"


@cause(CauseCode.NOT_FOLLOWED, hint="Have fewer Services select the same Pods")
def too_many_pods(limit: int) -> str:
    """The Services of a namespace select too many Pods; each Pod is counted once per Service."""
    what = "the selector has no effect: Services of the namespace with fewer Pods"
    return f"{what} have the {limit:,} Pods that all of it may select"


@cause(CauseCode.NOT_FOLLOWED)
def no_pod(why: str, address: str) -> str:
    """An endpoint's ``targetRef`` doesn't name a pod."""
    return f"{why}: {address} has no pod"


@cause(CauseCode.NOT_FOLLOWED)
def address_wrong(path: str, why: str) -> str:
    """An address, or a name, of a Service or an endpoint is invalid."""
    return f"{path}: {why}"


@cause(CauseCode.NOT_FOLLOWED)
def names_beside_selector(key: str) -> str:
    """Endpoints by name are requested for a Service that has pods."""
    why = "the Service has a selector, so its pods are its endpoints"
    return f"annotation {key}: {why}: no endpoint is found by name"


@cause(CauseCode.NOT_FOLLOWED)
def name_without_port(key: str, at: str, port: str) -> str:
    """A name is for a port that the Service lacks, or for no port although it has several."""
    why = f"no port {port}" if port else "several ports: write PORT=HOST:PORT"
    return f"annotation {key}: {at}: the Service has {why}"


@cause(CauseCode.NOT_FOLLOWED)
def names_bug(bug: str) -> str:
    """Reading the names raised an exception, which is a bug."""
    return f"no endpoint is found by name because of a bug: {bug}"


@cause(CauseCode.NOT_FOLLOWED)
def not_to_mirror(service: str, mark: str) -> str:
    """A label or annotation excludes the Endpoints from mirroring."""
    return f"Endpoints {service} has the {mark}, so no slice is made of it"


@cause(CauseCode.NOT_FOLLOWED)
def left_out_beside(service: str, ip: str) -> str:
    """The Endpoints are ignored beside the Service's slices, which lack one of their addresses."""
    what = f"Endpoints {service} is left out, as there are slices of its Service"
    return f"{what}: {ip} isn't in these"


@cause(CauseCode.NOT_FOLLOWED)
def node_port_named(path: str, number: str, owner: str) -> str:
    """Two Services request one node port, ``30080/TCP``, at least one of them for health checks."""
    return f"{path}: {number} is already named by {owner}"


@cause(CauseCode.NOT_FOLLOWED)
def no_node_port_left(path: str, first: int, last: int) -> str:
    """All node ports are allocated."""
    return f"{path}: no node port is left in {first}–{last}"


@cause(
    CauseCode.NOT_FOLLOWED,
    hint="Change --nodeport-addresses (nodePortAddresses in the configuration), or give this node "
    "such an address",
)
def no_node_address(number: int, family: str, allowed: tuple[str, ...] = ()) -> str:
    """The node has no address on which clients could dial the node port.

    Args:
        allowed: The networks of ``--nodeport-addresses``; empty if all addresses are allowed.
    """
    which = f" in --nodeport-addresses={','.join(allowed)}" if allowed else " for it"
    return f"node port {number} is not served: this node has no {family} address{which}"
