"""The rows of what users have written and don't get: fields, annotations, and parts of objects.

Readers find most of it, as :class:`~userspace_proxy.model.notes.Note`; policy finds the rest.
"""

from __future__ import annotations

from ..model import SliceKey
from ..model.annotations import DOMAIN, WITHOUT_SLOW_START
from ..model.notes import Note
from ..model.source_ranges import ANNOTATION_SOURCE_RANGES
from .cause import ROWS, Cause, CauseCode, cause


def cause_of(note: Note) -> Cause:
    """Return the cause of a note; raises TypeError if its parameters aren't the row's."""
    return ROWS[note.kind](*note.params)


def cause_of_slice(note: Note, key: SliceKey) -> Cause:
    """Return the cause of a note of a slice, which names the slice."""
    return cause_of(note).replace(within=f"EndpointSlice {key}")


# Annotations.


@cause(CauseCode.NOT_FOLLOWED)
def annotation_wrong(key: str, why: str, otherwise: str) -> str:
    """Its value is none, so something else happens."""
    return f"annotation {key}: {why}: {otherwise}"


@cause(CauseCode.NOT_FOLLOWED)
def annotation_unknown(key: str, meant: str, known: tuple[str, ...]) -> str:
    """It was probably meant for this proxy, or to be the one that is meant."""
    rest = f"did you mean {meant}?" if meant else f"known: {', '.join(known)}"
    return f"annotation {key} is unknown ({rest})"


@cause(CauseCode.NOT_FOLLOWED)
def annotation_misplaced(key: str, kinds: str) -> str:
    """Objects of other kinds have it."""
    return f"annotation {key} has no effect here: it belongs on {kinds}"


@cause(CauseCode.NOT_FOLLOWED)
def slow_start_unused() -> str:
    """The balance doesn't depend on it."""
    return f"annotation {DOMAIN}slow-start: {WITHOUT_SLOW_START}"


@cause(CauseCode.NOT_FOLLOWED)
def wake_without_hold(otherwise: str) -> str:
    """Nothing is woken for a client that doesn't wait."""
    return f"annotation {DOMAIN}wake: no connection waits without {DOMAIN}hold: {otherwise}"


@cause(CauseCode.NOT_FOLLOWED)
def wake_without_selector(workload: str) -> str:
    """It selects no pods, so it may have none scaled."""
    what = (
        f"annotation {DOMAIN}wake: the Service has no selector, so {workload} isn't scaled for it"
    )
    return f"{what}: write in spec.selector labels of the selector of {workload}"


@cause(CauseCode.NOT_FOLLOWED)
def idle_without_wake(otherwise: str) -> str:
    """Which workload is meant isn't known."""
    return f"annotation {DOMAIN}idle-after: no workload is named by {DOMAIN}wake: {otherwise}"


@cause(CauseCode.NOT_FOLLOWED)
def header_without_tcp() -> str:
    """A PROXY header is for TCP alone."""
    return f"annotation {DOMAIN}proxy-protocol: no port is TCP: no header is sent"


@cause(CauseCode.NOT_FOLLOWED)
def path_not_allowed(path: str) -> str:
    """The operator doesn't allow the path that it chooses."""
    return f"annotation {DOMAIN}path is ignored: --allow-paths does not contain {path}"


@cause(CauseCode.NOT_FOLLOWED)
def kernel_path_unused(why: str) -> str:
    """It chooses the kernel path, which can't be had."""
    return f"path kernel is not used: {why}"


@cause(CauseCode.NOT_FOLLOWED)
def weights_coarse(why: str) -> str:
    """On the kernel path they would take too many parts or slots."""
    return f"weights are followed roughly on the kernel path: {why}"


# Load balancers and their clients.


@cause(CauseCode.NOT_FOLLOWED)
def no_balancer_address() -> str:
    """It has type LoadBalancer, and no address of one."""
    return "no load balancer has given it an address (status.loadBalancer is empty)"


@cause(
    CauseCode.NOT_FOLLOWED,
    about="{address}",
    hint="Give the Service a ClusterIP of {theirs}, too: spec.ipFamilyPolicy: PreferDualStack",
)
def of_other_family(address: str, theirs: str, own: str) -> str:
    """It has an address from outside of a family in which it isn't served."""
    return f"{address} is not served: it is of {theirs}, and the Service of {own}"


@cause(CauseCode.NOT_FOLLOWED)
def too_many_balanced(count: int, limit: int) -> str:
    """It has more addresses than are served."""
    what = f"status.loadBalancer.ingress: {count:,} addresses are listed"
    return f"{what}, and the first {limit} are served"


@cause(CauseCode.NOT_FOLLOWED)
def ranges_in_annotation() -> str:
    """Its source ranges stand in the old annotation."""
    what = f"annotation {ANNOTATION_SOURCE_RANGES} is ignored, as in kube-proxy"
    return f"{what}: write spec.loadBalancerSourceRanges"


@cause(CauseCode.NOT_FOLLOWED)
def range_wrong(why: str) -> str:
    """A source range is no network."""
    return f"spec.loadBalancerSourceRanges: {why}: no client is admitted"


@cause(CauseCode.NOT_FOLLOWED)
def too_many_ranges(count: int, limit: int) -> str:
    """It has more source ranges than a filter can have."""
    what = f"spec.loadBalancerSourceRanges: {count:,} networks are listed"
    return f"{what}, and {limit:,} are allowed: no client is admitted"


@cause(CauseCode.NOT_FOLLOWED)
def no_range_of_family(family: str) -> str:
    """All source ranges are of the other family, whose clients alone they limit."""
    return f"{family} clients of the load balancer aren't limited: no source range is {family}"


# Endpoints.


@cause(CauseCode.NOT_FOLLOWED)
def too_many_hints(limit: int) -> str:
    """The hints of a slice name more than are kept."""
    return f"hints name more than {limit:,} zones or nodes: others are left out"


@cause(CauseCode.NOT_FOLLOWED, hint="Have fewer Services select the same Pods")
def too_many_pods(limit: int) -> str:
    """The Services of a namespace select more Pods, counted for each of them."""
    what = "the selector has no effect: Services of the namespace with fewer Pods"
    return f"{what} have the {limit:,} Pods that all of it may select"


@cause(CauseCode.NOT_FOLLOWED)
def no_pod(why: str, address: str) -> str:
    """An endpoint's ``targetRef`` names no pod."""
    return f"{why}: {address} has no pod"


@cause(CauseCode.NOT_FOLLOWED)
def address_wrong(path: str, why: str) -> str:
    """An address of a Service or of an endpoint is none, or a name is none."""
    return f"{path}: {why}"


@cause(CauseCode.NOT_FOLLOWED)
def names_beside_selector(key: str) -> str:
    """Endpoints by name are wanted of a Service with pods."""
    why = "the Service has a selector, so its pods are its endpoints"
    return f"annotation {key}: {why}: no endpoint is found by name"


@cause(CauseCode.NOT_FOLLOWED)
def name_without_port(key: str, at: str, port: str) -> str:
    """A name isn't for a port of the Service; the port is quoted, or empty."""
    why = f"no port {port}" if port else "several ports: write PORT=HOST:PORT"
    return f"annotation {key}: {at}: the Service has {why}"


@cause(CauseCode.NOT_FOLLOWED)
def names_bug(bug: str) -> str:
    """An exception was raised while names were read."""
    return f"no endpoint is found by name because of a bug: {bug}"


@cause(CauseCode.NOT_FOLLOWED)
def not_to_mirror(service: str, mark: str) -> str:
    """The mark, a label or an annotation, keeps its Endpoints from being mirrored."""
    return f"Endpoints {service} has the {mark}, so no slice is made of it"


@cause(CauseCode.NOT_FOLLOWED)
def left_out_beside(service: str, ip: str) -> str:
    """Its Endpoints have an address that its slices don't have."""
    what = f"Endpoints {service} is left out, as there are slices of its Service"
    return f"{what}: {ip} isn't in these"


# Node ports.


@cause(CauseCode.NOT_FOLLOWED)
def node_port_named(path: str, number: str, owner: str) -> str:
    """Another Service names the number, ``30080/TCP``, and one is for health checks."""
    return f"{path}: {number} is already named by {owner}"


@cause(CauseCode.NOT_FOLLOWED)
def no_node_port_left(path: str, first: int, last: int) -> str:
    """All are allocated."""
    return f"{path}: no node port is left in {first}–{last}"


@cause(CauseCode.NOT_FOLLOWED)
def no_node_address(number: int, family: str) -> str:
    """Clients have no address of the node to dial it at."""
    return f"node port {number} is not served: this node has no {family} address for it"
