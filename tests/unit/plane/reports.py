"""Reports of workers, with figures by name."""

from userspace_proxy.facts import EndpointCounters, GroupCounters
from userspace_proxy.plane.messages import EndpointReport, GroupReport


def figures(kind, **counted):
    """Return figures in the order of their names; those that aren't given are 0."""
    assert counted.keys() <= set(kind.names)
    return tuple(counted.get(name, 0) for name in kind.names)


def endpoint_report(endpoint, dials=None, **counted):
    """Return what a worker reports of one endpoint."""
    return EndpointReport(endpoint, figures(EndpointCounters, **counted), dials)


def group_report(
    *endpoints, ejected=(), connect_times=None, waiting=None, mistakes=None, **counted
):
    """Return what a worker reports of group 7."""
    counted = figures(GroupCounters, **counted)
    others = {"waiting": waiting, "client_mistakes": mistakes or {}}
    return GroupReport(7, counted, list(endpoints), list(ejected), connect_times, **others)


def counted(report):
    """Return the endpoint of a report, and its figures by name but those that are 0."""
    named = zip(EndpointCounters.names, report.figures, strict=True)
    return report.endpoint, {name: figure for name, figure in named if figure}
