"""Judges endpoints, and reads the verdicts, in one call each."""

from userspace_proxy.model import IPFamily, Protocol
from userspace_proxy.policy import (
    EndpointIndex,
    NodeFacts,
    PortName,
    Refusals,
    Scope,
    usable_endpoints,
)


def judge(
    *slices,
    port="http",
    protocol=Protocol.TCP,
    family=IPFamily.IPV4,
    frontends=(),
    node_ports=(),
    cluster_ips=None,
    scope=Scope.CLUSTER,
    may_be_node=True,
    **facts,
):
    """Judge the endpoints of one Service port, by default TCP ``http``."""
    refusals = Refusals(NodeFacts(**facts), frontends, node_ports, cluster_ips or {}, may_be_node)
    return usable_endpoints(
        EndpointIndex(slices), PortName(family, port, protocol), refusals, scope
    )


def reasons(usable):
    """Return the reason of each verdict, in order."""
    return [verdict.reason for verdict in usable.verdicts]


def usable_ips(usable):
    """Return the IPs of the usable endpoints, in order."""
    return [address.ip for address in usable.serving.endpoints]
