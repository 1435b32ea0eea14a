"""Explains why a Service port has no usable endpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from ..model import Cause, CauseCode, IPFamily, Service, ServicePort
from .causes import (
    no_slice,
    none_local,
    none_ready,
    none_usable,
    port_missing,
    slice_empty,
)
from .endpoint_index import EndpointIndex
from .mistake_causes import port_unnumbered
from .usable import DRAINED, HAS_ENDED, EndpointVerdict, Scope

_POLICIES = {
    Scope.LOCAL: "internalTrafficPolicy",
    Scope.LOCAL_FROM_OUTSIDE: "externalTrafficPolicy",
}


def why_none_usable(
    service: Service,
    port: ServicePort,
    family: IPFamily,
    scope: Scope,
    index: EndpointIndex,
    verdicts: Collection[EndpointVerdict],
) -> Cause:
    """Return why no endpoint is usable; by clients from outside where their policy differs.

    Args:
        index: Of the Service's slices.
        verdicts: Of all endpoints of the port and the family, none of which is usable.
    """
    if verdicts:
        return _none_usable(service, verdicts, scope)
    count = index.slice_count(family)
    if not count:
        return no_slice(service, family, index.slices)
    if index.has_endpoints(family):
        unnumbered = index.unnumbered(family, port.name)
        if unnumbered is not None:
            return port_unnumbered(service.key, port, unnumbered)
        others, names = index.protocols(family, port.name), index.first_names(family)
        return port_missing(port, others, names, has_selector=bool(service.selector))
    return slice_empty(service, count)


def _none_usable(service: Service, verdicts: Collection[EndpointVerdict], scope: Scope) -> Cause:
    codes = {verdict.code for verdict in verdicts}
    total = len(verdicts)
    is_drained = any(verdict.reason == DRAINED for verdict in verdicts)
    if codes == {CauseCode.NOT_READY} and not is_drained:
        return none_ready(service, total, sum(verdict.reason == HAS_ENDED for verdict in verdicts))
    if codes == {CauseCode.NOT_LOCAL}:
        return none_local([v.node for v in verdicts], _POLICIES[scope])
    counts = sorted(Counter(verdict.reason for verdict in verdicts).items())
    # Where other nodes have endpoints, the policy decides that clients get none.
    first = (CauseCode.NOT_LOCAL, CauseCode.ENDPOINT_NOT_ALLOWED)
    code = next((code for code in first if code in codes), CauseCode.NOT_READY)
    policy = _POLICIES[scope] if code is CauseCode.NOT_LOCAL else ""
    pairs = [(n, reason) for reason, n in counts]
    drained_of = service.key if is_drained else None
    return none_usable(code, pairs, total, policy=policy, drained_of=drained_of)
