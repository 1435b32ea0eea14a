"""Tests that the agent's objects satisfy the protocol of scaling."""

from userspace_proxy.model import Handling, SocketAddress, Workload, WorkloadKind
from userspace_proxy.scaling.served import Served, ServedByName, ready_endpoints, workload_of
from userspace_proxy.steering import Bind

from ..agent.samples import Cluster


def needed(protocol):
    names = (*vars(protocol), *protocol.__annotations__)
    return [name for name in names if not name.startswith("_")]


def test_the_agents_service_ports_satisfy_the_scaling_protocol(make):
    served_ports = make(Bind.PROXY_PORT)
    served_ports.follow(Cluster().serve("web", "10.96.0.1", "192.0.2.1"))
    assert "cordon" in needed(ServedByName)
    assert all(hasattr(served_ports, name) for name in needed(ServedByName))
    (served,) = served_ports
    assert all(hasattr(served, name) for name in needed(Served))


def test_workload_of_returns_the_workload_that_a_service_names(make):
    served_ports, web = make(Bind.PROXY_PORT), Workload(WorkloadKind.DEPLOYMENT, "web")
    served_ports.follow(Cluster().serve("web", "10.96.0.1", handling=Handling(wake=web)))
    (served,) = served_ports
    assert workload_of(served) == ("shop", web)
    served_ports.follow(Cluster().serve("web", "10.96.0.1"))
    (served,) = served_ports
    assert workload_of(served) is None


def test_a_terminating_endpoint_is_not_reported_to_scaling_as_ready(make):
    served_ports, cluster = make(Bind.PROXY_PORT), Cluster()
    served_ports.follow(cluster.serve("web", "10.96.0.1", "192.0.2.1"))
    (served,) = served_ports
    assert ready_endpoints(served) == (SocketAddress("192.0.2.1", 8080),)
    served_ports.follow(cluster.terminate("web", "192.0.2.1"))
    assert served.plan.serving.all_endpoints
    assert ready_endpoints(served) == ()
