"""Decides which Services may scale a workload: only Services that select its pods.

    labels of all pods of a workload ─┬─▶ which Services that name the workload may scale it
                                      └─▶ which other Services select it, and keep it running

Rule 1: a Service selects a workload if it has a selector, and the workload's pod labels match it.
Naming a workload (annotation ``wake``) doesn't give the right to scale it.
Rule 2: endpoints also count: a Service whose endpoints are the workload's pods keeps the workload
running, whatever its selector. A Service of another namespace doesn't, because it can't select
these pods, and its tenant listed them at their own risk.
Rule 3: no proxy counts the clients of a headless Service. If the headless Service has the same
``wake``, its owner has declared these clients irrelevant.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from ..cluster.store import ServiceState
from ..model import Service, ServiceKey, ServiceType, Workload
from ..model.annotations import DOMAIN
from ..sources.base import Labels
from .served import Served

Services = Mapping[ServiceKey, ServiceState]
"""All known Services of the cluster."""
Selector = tuple[tuple[str, str], ...]


def selector_of(services: Services, key: ServiceKey) -> Selector:
    """Return a Service's selector; empty if it selects no pods."""
    state = services.get(key)
    return () if state is None else _selector(state.service)


def refusal_reason(selector: Selector, workload: Workload, labels: Labels) -> str:
    """Return why a Service with this selector may not scale a workload; empty if it may."""
    if not selector:
        what = "it has no selector"
    elif missing := [f"{key}={value}" for key, value in selector if labels.get(key) != value]:
        what = f"it selects {missing[0]}, which the selector of {workload} doesn't require"
    else:
        return ""
    return (
        f"{workload} isn't scaled for this Service: {what} (have the Service select the pods of "
        f"{workload} by labels of its selector, or name another workload in {DOMAIN}wake)"
    )


def other_user(
    services: Services,
    served_ports: Iterable[Served],
    asked: Collection[ServiceKey],
    workload: Workload,
    labels: Labels,
) -> str:
    """Return which other Service keeps a workload running; empty if none does.

    Args:
        asked: The Services on which all nodes vote; at least one.
    """
    namespace = next(iter(asked)).namespace
    for key, state in services.items():
        if key.namespace != namespace or key in asked:
            continue
        of_pods = state.service.is_headless and state.service.handling.wake == workload
        selector = _selector(state.service)
        if selector and not of_pods and not refusal_reason(selector, workload, labels):
            return _leads_there(key)
    own: set[str] = set()
    others: list[Served] = []
    for port in served_ports:
        service = port.plan.key.name.service
        if service in asked:
            own.update(verdict.address.ip for verdict in port.plan.verdicts)
        elif service.namespace == namespace:
            others.append(port)
    for port in others:
        # Compare only IP addresses: scaling to zero also removes a pod's other ports.
        if not own.isdisjoint(verdict.address.ip for verdict in port.plan.verdicts):
            return _leads_there(port.plan.key.name.service)
    return ""


def _leads_there(service: ServiceKey) -> str:
    return (
        f"Service {service} leads to the same pods, without {DOMAIN}hold and the same {DOMAIN}wake"
    )


def _selector(service: Service) -> Selector:
    # Source: core/v1, ServiceSpec.selector: ignored if type is ExternalName.
    return () if service.type is ServiceType.EXTERNAL_NAME else service.selector
