"""Reports of workers, from figures by name."""

import msgspec

from userspace_proxy.facts import EndpointCounters, GroupCounters
from userspace_proxy.model import SocketAddress
from userspace_proxy.plane.messages import EndpointReport, GroupReport, WaitingReport


def figures(kind, **counted):
    """Return figures in the order of their names; missing ones are 0."""
    assert counted.keys() <= set(kind.names)
    return tuple(counted.get(name, 0) for name in kind.names)


def endpoint_report(endpoint, dials=None, **counted):
    """Return a worker's report about one endpoint."""
    return EndpointReport(endpoint, figures(EndpointCounters, **counted), dials)


def group_report(
    *endpoints, ejected=(), connect_times=None, waiting=None, mistakes=None, **counted
):
    """Return a worker's report about group 7."""
    counted = figures(GroupCounters, **counted)
    others = {"waiting": waiting, "client_mistakes": mistakes or {}}
    return GroupReport(7, counted, list(endpoints), list(ejected), connect_times, **others)


def counted(report):
    """Return the endpoint of a report, and its non-zero figures by name."""
    named = zip(EndpointCounters.names, report.figures, strict=True)
    return report.endpoint, {name: figure for name, figure in named if figure}


def report_to(group, now, clients=0, pod="192.0.2.1", waits=0, **counted):
    """Report a group's waiting clients and waits, and a pod's figures, like a worker."""
    waiting = WaitingReport(clients, 1.0) if clients else None
    endpoints = [endpoint_report(SocketAddress(pod, 8080), **counted)] if counted else []
    report = group_report(*endpoints, waiting=waiting, **{"waits.total": waits})
    group.add(0, msgspec.structs.replace(report, group=group.number), now)
