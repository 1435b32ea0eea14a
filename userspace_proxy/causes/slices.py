"""Rows of causes for a Service port that has no usable endpoints, or too few.

no slice ─ empty slice ─ no such port ─ not ready ─ on other nodes ─ drained, refused ─ too many
"""

from __future__ import annotations

from ..model import ServiceKey, SliceKey
from ..model.annotations import ANNOTATION_WEIGHT
from ..model.mirroring import mirrored_name
from ..model.quoting import shell_command
from ..model.reading import LABEL_HEADLESS, LABEL_SERVICE_NAME
from .cause import Cause, CauseCode, cause
from .notes import not_to_mirror

NAMES_SHOWN = 5
"""The maximum number of names, networks and reasons in a sentence."""
_SLICES_OF = "EndpointSlices of {service}"
_USES_ALL = "{policy}: Cluster uses endpoints of all nodes"
_LABELLED = (
    f"an EndpointSlice with the label {LABEL_SERVICE_NAME}: {{name}}, and without {LABEL_HEADLESS}"
)


@cause(
    CauseCode.NO_SLICE,
    about="{service}",
    hint="Its pods have no {family} address, or its slices were written for {other} alone",
)
def no_slice_of_family(service: ServiceKey | str, family: str, other: str) -> str:
    """The Service's slices belong to the other family."""
    return f"no EndpointSlice of {family} belongs to {service}, only of {other}"


@cause(CauseCode.NO_SLICE, about="{service}", hint=f"Remove that, or create {_LABELLED}")
def not_mirrored(service: ServiceKey | str, name: str, mark: str) -> str:
    """The Service's Endpoints aren't mirrored because of a label or annotation."""
    return not_to_mirror.words(str(service), mark)


@cause(
    CauseCode.NO_SLICE,
    about="{service}",
    hint="The EndpointSlice controller creates one from the selector {selector}; manifests must "
    f"contain {_LABELLED}, or Endpoints, as selectors aren't evaluated there",
)
def no_slice(service: ServiceKey | str, name: str, selector: str) -> str:
    """The Service has a selector but no slice."""
    return f"no EndpointSlice belongs to {service}"


@cause(CauseCode.NO_SLICE, about="{service}", hint=f"Create {_LABELLED}")
def no_slice_nor_selector(service: ServiceKey | str, name: str) -> str:
    """The Service has neither selector nor slice."""
    return f"no EndpointSlice belongs to {service}, and it has no selector"


def _headless_hint(service: str, slice_: str, is_managed: bool) -> str:
    if is_managed:
        return f"Delete EndpointSlice {slice_}: its controller makes it anew, without the label"
    namespace, _, name = slice_.partition("/")
    remove = shell_command("kubectl", "label", "-n", namespace, "endpointslice", name)
    return f"Remove that label from EndpointSlice {slice_}: `{remove} {LABEL_HEADLESS}-`"


@cause(CauseCode.NO_SLICE, about="{service}", hint=_headless_hint)
def slice_headless(service: ServiceKey | str, slice_: SliceKey | str, is_managed: bool) -> str:
    """The slice has the label of headless Services; perhaps the Service was headless.

    Args:
        is_managed: Whether Kubernetes' controller writes the slice, and would make it anew.
    """
    return (
        f"no EndpointSlice belongs to {service}: {slice_} has the label {LABEL_HEADLESS}, that of "
        "headless Services"
    )


@cause(CauseCode.NO_SLICE, about="{slice_}", hint="Correct it: the Service has no other one")
def slice_rejected(slice_: str, line: str) -> str:
    """The slice, ``EndpointSlice shop/web-1``, has a mistake; ``line`` states it."""
    return f"{slice_} is rejected: {line}"


@cause(
    CauseCode.NO_SLICE,
    about="{slice_}",
    hint=f"If it is one, give it the label {LABEL_SERVICE_NAME}: {{name}}",
)
def unnamed_slice_rejected(slice_: str, line: str, name: str) -> str:
    """A slice that names no Service, but whose name begins with the Service's, has a mistake."""
    return f"{slice_}, by its name a slice of it, is rejected: {line}"


def _which(count: int) -> str:
    return "its EndpointSlice is" if count == 1 else f"its {count} EndpointSlices are"


@cause(CauseCode.SLICE_EMPTY, about="{service}", command="get {pods}")
def selects_no_pod(
    service: ServiceKey | str, count: int, selector: str, pods: tuple[str, ...]
) -> str:
    """The Service's slices are empty because no pod with an address matches its selector.

    Args:
        count: The number of slices.
        pods: The arguments for kubectl to list the pods.
    """
    return f"{_which(count)} empty: no pod with an address was found for selector {selector}"


@cause(
    CauseCode.SLICE_EMPTY,
    about="{service}",
    hint="It has no selector: what created the slice must add endpoints",
)
def slice_empty(service: ServiceKey | str, count: int) -> str:
    """The Service's slices are empty, and it has no selector."""
    return f"{_which(count)} empty"


def _written(item: SliceKey) -> str:
    """Return the user's object from which a slice was made."""
    if name := mirrored_name(item):
        return f"Endpoints {item.namespace}/{name}"
    return f"EndpointSlice {item}"


def _elsewhere_hint(slice_: str, namespace: str, is_mirrored: bool) -> str:
    which = "It belongs to the Service" if is_mirrored else "A slice belongs to Services"
    return f"{which} of its own namespace: move it to {namespace}"


@cause(CauseCode.SLICE_ELSEWHERE, about="{slice_}", hint=_elsewhere_hint)
def names_from_elsewhere(slice_: str, namespace: str, is_mirrored: bool) -> str:
    """A slice in another namespace, ``EndpointSlice web/cart-1``, names this Service."""
    return f"{slice_} names this Service, from another namespace"


def slice_elsewhere(key: ServiceKey, item: SliceKey) -> Cause:
    """Return the cause for a slice in another namespace that names a Service of this namespace."""
    return names_from_elsewhere(_written(item), key.namespace, bool(mirrored_name(item)))


def _orphaned_hint(slice_: str, named: str, name: str, is_mirrored: bool) -> str:
    if is_mirrored:
        return f"Its name must be the Service's: {name}"
    return f"Set its label {LABEL_SERVICE_NAME} to {name}"


@cause(CauseCode.SLICE_ORPHANED, about="{slice_}", hint=_orphaned_hint)
def names_nothing(slice_: str, named: str, name: str, is_mirrored: bool) -> str:
    """A slice names a nonexistent Service with a similar name."""
    return f'{slice_} names "{named}", which does not exist (did you mean "{name}"?)'


def slice_orphaned(key: ServiceKey, item: SliceKey, named: str) -> Cause:
    """Return the cause for a slice that names a nonexistent Service of its own namespace."""
    return names_nothing(_written(item), named, key.name, bool(mirrored_name(item)))


@cause(
    CauseCode.SLICE_ORPHANED,
    about="{slice_}",
    hint=f"If it is one of {{service}}, give it the label {LABEL_SERVICE_NAME}: {{name}}",
)
def names_none(service: ServiceKey | str, name: str, slice_: str) -> str:
    """A slice names no Service, but its name begins with this Service's name."""
    lacks = f"{slice_} has no label {LABEL_SERVICE_NAME}"
    return f"no EndpointSlice belongs to {service}: {lacks}, so it belongs to no Service"


def slice_unlabelled(key: ServiceKey, item: SliceKey) -> Cause:
    """Return the cause for a slice in this namespace that has a similar name and no Service."""
    return names_none(key, key.name, _written(item))


def _wanted(port: str) -> str:
    return f'port named "{port}"' if port else "unnamed port"


def _protocol_hint(port: str, protocol: str, others: tuple[str, ...], has_selector: bool) -> str:
    other = "the container's port" if has_selector else "the port of its EndpointSlice"
    return f"Give the Service's port and {other} the same protocol"


@cause(CauseCode.PORT_NAME_MISSING, about="{port}", hint=_protocol_hint)
def other_protocol(port: str, protocol: str, others: tuple[str, ...], has_selector: bool) -> str:
    """The endpoints' port of this name has another protocol."""
    one = f"{'a' if port else 'an'} {_wanted(port)}"
    return f"its endpoints have {one} only for {', '.join(others)}, not {protocol}"


@cause(
    CauseCode.PORT_NAME_MISSING,
    about="{port}",
    hint="The port's name in the EndpointSlice (Endpoints) must be that in the Service",
)
def other_port_names(port: str, names: tuple[str, ...]) -> str:
    """The endpoints' ports have other names; ``names`` are the first of these names."""
    shown = ", ".join(sorted(f'"{name}"' if name else "an unnamed one" for name in names))
    return f"its endpoints have no {_wanted(port)}; they have {shown}"


def _no_port_hint(port: str, has_selector: bool, target: str = "") -> str:
    if has_selector:
        return (
            f"Give a container port the name {target or 'in targetPort'} and the protocol of the "
            "Service's port, or set targetPort to its name or number"
        )
    return "The ports of the EndpointSlice are empty: add those of the Service"


@cause(CauseCode.PORT_NAME_MISSING, about="{port}", hint=_no_port_hint)
def no_port(port: str, has_selector: bool, target: str = "") -> str:
    """The endpoints have no ports.

    Args:
        target: The name in targetPort; empty if unknown.
    """
    sentence = f"its endpoints have no {_wanted(port)}, nor any other"
    if not has_selector:
        return sentence
    # The EndpointSlice controller omits ports that the pod doesn't have, so the target port's name
    # is wrong.
    name = f" {target}," if target else ""
    return (
        f"{sentence}: targetPort is{name} a name that no container port of its pods has with this "
        "protocol"
    )


@cause(
    CauseCode.PORT_NAME_MISSING,
    about="{port}",
    hint="targetPort is a name: give a container port of each pod this name, with the protocol of "
    "the Service's port",
)
def some_lack_port(port: str, have: int, total: int, target: str = "") -> str:
    """Only some endpoints have the port, and serve it.

    Args:
        target: The name in targetPort; empty if unknown.
    """
    lack = total - have
    them = f"{lack:,} of its {total:,} endpoints {'has' if lack == 1 else 'have'}"
    return f'{them} no container port named "{target}"' if target else f"{them} no {_wanted(port)}"


@cause(
    CauseCode.PORT_NAME_MISSING,
    about=_SLICES_OF,
    hint="Write its number into the EndpointSlice, which means all ports without it",
    is_of_slices=True,
)
def port_unnumbered(service: ServiceKey | str, port: str, slice_: SliceKey | str) -> str:
    """A slice lists the port without a number."""
    which = f'port "{port}"' if port else "the unnamed port"
    return f"{which} of EndpointSlice {slice_} has no number"


def _look_at_pods(total: int, ended: int, pods: tuple[str, ...], node: str = "") -> str:
    return shell_command("get" if ended else "describe", *pods) if pods else ""


@cause(
    CauseCode.NOT_READY,
    hint="It has no selector: what writes its EndpointSlice sets the conditions of endpoints",
    command=_look_at_pods,
)
def none_ready(total: int, ended: int, pods: tuple[str, ...], node: str = "") -> str:
    """No endpoint is ready or still serving.

    Args:
        ended: The number of endpoints that terminate and no longer serve.
        pods: The arguments after kubectl's verb that select the pods; empty without a selector.
        node: The node of all endpoints; empty if they are on several nodes, or it is unknown.
    """
    where = f",{' all' * (total > 1)} on node {node}," if node else ""
    if total == 1:
        if ended:
            return f"its only endpoint{where} is terminating and doesn't serve any more"
        return f"its only endpoint{where} is not ready"
    many = f"none of its {total:,} endpoints{where} is ready"
    if not ended:
        return many
    are = "all are" if ended == total else f"{ended:,} of them {'is' if ended == 1 else 'are'}"
    return f"{many}, and {are} terminating"


@cause(
    CauseCode.NOT_READY,
    about="{node}",
    is_predicate=True,
    short="has no ready endpoint",
    hint="See whether the Node is ready: if not, whether the machine and its kubelet run; if so, "
    "look at its pods: `kubectl get pods -A --field-selector spec.nodeName={node}`",
    kubectl="describe node {node}",
    shared=("node",),
)
def none_ready_on(node: str) -> str:
    """The node has all endpoints of several Services, and none is ready."""
    return "has all endpoints of these Services, and no endpoint on it is ready"


@cause(CauseCode.NOT_READY, command="get pods -n {namespace}")
def about_to_vanish(namespace: str, count: int) -> str:
    """All usable endpoints terminate."""
    are = "it is" if count == 1 else "all are"
    return f"{are} terminating and about to vanish, and no ready one is used here"


def _local_hint(total: int, unknown: int, node: str, policy: str) -> str:
    hint = _USES_ALL.format(policy=policy)
    if policy == "externalTrafficPolicy":
        hint = f"{hint}; pods use them anyway if --cluster-cidr contains their addresses"
    return f"{hint}; nodeName in the EndpointSlice states where an endpoint is" if unknown else hint


@cause(CauseCode.NOT_LOCAL, hint=_local_hint)
def none_local(total: int, unknown: int, node: str, policy: str) -> str:
    """No endpoint is on this node, and the policy excludes all others.

    Args:
        unknown: The number of endpoints whose node is unknown.
        node: The node of the only endpoint.
        policy: The field that sets the policy.
    """
    if total == 1:
        where = f"its only endpoint {'has no nodeName' if unknown else f'is on node {node}'}"
    elif unknown == total:
        where = f"none of its {total:,} endpoints has a nodeName"
    else:
        or_not = " or have no nodeName" if unknown else ""
        where = f"its {total:,} endpoints are on other nodes{or_not}"
    return f"{where}, and the traffic policy is Local"


def _none_usable(total: int, reasons: tuple[str, ...]) -> str:
    """Return why no endpoint is usable; reasons have counts unless there is only one endpoint."""
    if total == 1:
        return f"its only endpoint is {reasons[0]}"
    # Limit the list: each reason may name a different Service.
    more = ", …" if len(reasons) > NAMES_SHOWN else ""
    return f"none of its {total:,} endpoints is usable: {', '.join(reasons[:NAMES_SHOWN])}{more}"


@cause(CauseCode.NOT_LOCAL, hint=_USES_ALL)
def none_local_nor_usable(total: int, reasons: tuple[str, ...], policy: str) -> str:
    """No endpoint is usable, for several reasons, one of which is the policy."""
    return _none_usable(total, reasons)


_DRAINED_HINT = (
    f'{ANNOTATION_WEIGHT}: "0" on an EndpointSlice drains its endpoints: remove the annotation, or '
    "give it a weight above 0"
)


@cause(CauseCode.NOT_READY, about=_SLICES_OF, hint=_DRAINED_HINT, is_of_slices=True)
def none_undrained(total: int, reasons: tuple[str, ...], service: ServiceKey | str) -> str:
    """No endpoint is usable; the Service's slices drain some endpoints."""
    return _none_usable(total, reasons)


@cause(CauseCode.ENDPOINT_NOT_ALLOWED, about=_SLICES_OF, hint=_DRAINED_HINT, is_of_slices=True)
def none_allowed_undrained(total: int, reasons: tuple[str, ...], service: ServiceKey | str) -> str:
    """No endpoint is usable; the Service's slices drain some, and others aren't allowed."""
    return _none_usable(total, reasons)


@cause(
    CauseCode.ENDPOINT_NOT_ALLOWED,
    hint="Endpoints must be addresses of pods or of other hosts, not of Services, and no node "
    "ports: correct the EndpointSlice, or the Service or node (`ip addr`) that has a pod's address",
)
def none_allowed(total: int, reasons: tuple[str, ...]) -> str:
    """No endpoint is usable; some have addresses that must not be dialled."""
    return _none_usable(total, reasons)


@cause(CauseCode.NOT_READY)
def none_usable(total: int, reasons: tuple[str, ...]) -> str:
    """No endpoint is usable, for other reasons."""
    return _none_usable(total, reasons)


@cause(
    CauseCode.TOO_MANY_ENDPOINTS,
    about="{service}",
    hint="Divide the Service: its ports times their endpoints and ranges may be {limit:,}",
)
def too_many_at_all_ports(service: ServiceKey | str, limit: int) -> str:
    """The ports before this one, by name, use up the Service's limit of endpoints and ranges."""
    return (
        f"the ports of {service} together have more than {limit:,} endpoints and source ranges, so "
        "this port, which is not among the first by name, is not served"
    )


@cause(
    CauseCode.TOO_MANY_ENDPOINTS,
    about="namespace {namespace}",
    hint="Remove ports, endpoints or ranges from the largest Services of the namespace",
    shared=("namespace",),
)
def too_many_in_namespace(namespace: str, limit: int) -> str:
    """The Service is among the largest of a namespace with too many endpoints and ranges."""
    return (
        f"the Services of namespace {namespace} together have more than {limit:,} endpoints and "
        "source ranges, counted for each port, so the largest Services, this one among them, are "
        "not served"
    )


@cause(
    CauseCode.TOO_MANY_ENDPOINTS,
    hint="Divide the Service: a port of one Service may have {limit:,} endpoints of a family",
)
def too_many_endpoints(limit: int) -> str:
    """The Service port has more endpoints than this proxy uses for a port."""
    return f"it has more than {limit:,} endpoints, and the others are left out"
