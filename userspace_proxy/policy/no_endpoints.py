"""Explains why a Service port has no usable endpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from ..causes.cause import Cause, CauseCode
from ..causes.notes import cause_of_slice
from ..causes.slices import (
    no_port,
    no_slice,
    no_slice_nor_selector,
    no_slice_of_family,
    none_allowed,
    none_allowed_undrained,
    none_local,
    none_local_nor_usable,
    none_ready,
    none_undrained,
    none_usable,
    not_mirrored,
    other_port_names,
    other_protocol,
    port_unnumbered,
    selects_no_pod,
    slice_empty,
    slice_headless,
)
from ..model import IPFamily, Service, ServicePort
from ..model.notes import NoteKind
from .endpoint_index import EndpointIndex
from .usable import EndpointState, EndpointVerdict, Scope

_POLICIES = {
    Scope.LOCAL: "internalTrafficPolicy",
    Scope.LOCAL_FROM_OUTSIDE: "externalTrafficPolicy",
}


# The maximum length of a selector that is shown; a selector may have any number of labels.
_TEXT_MAX = 100


def none_usable_reason(
    service: Service,
    port: ServicePort,
    family: IPFamily,
    scope: Scope,
    index: EndpointIndex,
    verdicts: Collection[EndpointVerdict],
) -> Cause:
    """Return why clients, or for an external policy clients from outside, have no usable endpoint.

    Args:
        index: The Service's slices.
        verdicts: The verdicts on the port's endpoints in the family, none of which is usable.
    """
    if verdicts:
        return _none_usable(service, verdicts, scope)
    count = index.slice_count(family)
    if not count:
        return _no_slice(service, family, index)
    if index.has_endpoints(family):
        return _no_port(service, port, family, index)
    for item in index.slices:
        for note in item.notes if item.family is family else ():
            if note.kind is NoteKind.ADDRESS_WRONG:
                return cause_of_slice(note, item.key)
    if not service.selector:
        return slice_empty(service.key, count)
    return selects_no_pod(service.key, count, _selector_shown(service), _pods_of(service))


def _no_slice(service: Service, family: IPFamily, index: EndpointIndex) -> Cause:
    key = service.key
    if index.slices:
        return no_slice_of_family(key, str(family), str(index.slices[0].family))
    if index.headless is not None:
        return slice_headless(key, index.headless.key, index.headless.is_managed)
    for note in service.notes:
        if note.kind is NoteKind.NOT_TO_MIRROR:
            return not_mirrored(key, key.name, str(note.params[1]))
    if service.selector:
        return no_slice(key, key.name, _selector_shown(service))
    return no_slice_nor_selector(key, key.name)


def _no_port(service: Service, port: ServicePort, family: IPFamily, index: EndpointIndex) -> Cause:
    """Return why none of the existing endpoints has a Service port."""
    unnumbered = index.unnumbered(family, port.name)
    if unnumbered is not None:
        return port_unnumbered(service.key, port.name, unnumbered)
    has_selector = bool(service.selector)
    if others := index.protocols(family, port.name):
        return other_protocol(port.name, port.protocol, tuple(others), has_selector)
    if names := index.first_names(family):
        return other_port_names(port.name, tuple(names))
    return no_port(port.name, has_selector, port.target_name)


def _none_usable(service: Service, verdicts: Collection[EndpointVerdict], scope: Scope) -> Cause:
    codes = {verdict.code for verdict in verdicts}
    total = len(verdicts)
    nodes = [verdict.node for verdict in verdicts]
    is_drained = any(verdict.reason == EndpointState.DRAINED for verdict in verdicts)
    if codes == {CauseCode.NOT_READY} and not is_drained:
        pods = _pods_of(service) if service.selector else ()
        ended = sum(verdict.reason == EndpointState.HAS_ENDED for verdict in verdicts)
        return none_ready(total, ended, pods, nodes[0] if len({*nodes}) == 1 else "")
    if codes == {CauseCode.NOT_LOCAL}:
        return none_local(total, nodes.count(""), nodes[0], _POLICIES[scope])
    counts = sorted(Counter(verdict.reason for verdict in verdicts).items())
    reasons = tuple(why if total == 1 else f"{count} {why}" for why, count in counts)
    if CauseCode.NOT_LOCAL in codes:
        # If other nodes have endpoints, only the policy prevents clients from using them.
        return none_local_nor_usable(total, reasons, _POLICIES[scope])
    is_refused = CauseCode.ENDPOINT_NOT_ALLOWED in codes
    if is_drained:
        row = none_allowed_undrained if is_refused else none_undrained
        return row(total, reasons, service.key)
    return none_allowed(total, reasons) if is_refused else none_usable(total, reasons)


def selector_text(service: Service, most: int | None = None) -> str:
    """Return a Service's selector in kubectl's syntax: ``app=web,tier=front``.

    Args:
        most: The maximum number of labels to include; None for all.
    """
    return ",".join(f"{key}={value}" for key, value in service.selector[:most])


def _pods_of(service: Service) -> tuple[str, ...]:
    """Return arguments for kubectl: ``pods -n shop -l app=web``; no labels if these are long."""
    text = selector_text(service, _TEXT_MAX)
    labels = ("-l", text) if len(text) <= _TEXT_MAX else ()
    return "pods", "-n", service.key.namespace, *labels


def _selector_shown(service: Service) -> str:
    """Return the selector, truncated if it is long."""
    # Read only some labels: a Service may have thousands of labels, and thousands of ports.
    text = selector_text(service, _TEXT_MAX)
    return text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}…"
