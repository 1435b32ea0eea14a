"""The objects of a cluster, and the status that an agent reports about them."""

from userspace_proxy.facts import Level
from userspace_proxy.plan.digest import summary_of
from userspace_proxy_testing.fakes.agent_status import plan_digests, service_objects, status_of


def test_an_agent_serves_each_service_with_all_its_endpoints():
    status = status_of(service_objects(300, endpoints=2), "node-7", version="0.2.0")
    assert (status.node, status.version, status.level) == ("node-7", "0.2.0", Level.OK)
    assert len(status.ports) == 300
    assert {port.serving for port in status.ports} == {2}
    addresses = {one.address for port in status.ports for one in port.endpoints}
    assert len(addresses) == 600


def test_endpoints_are_spread_over_the_nodes():
    status = status_of(service_objects(2, endpoints=2, nodes=["a", "b"]), "a")
    assert [one.node for port in status.ports for one in port.endpoints] == ["a", "b"] * 2


def test_the_reported_plan_digest_matches_its_services():
    objects = service_objects(2)
    status, digests = status_of(objects, "a"), plan_digests(objects)
    assert digests.keys() == {"team-0/service-0", "team-1/service-1"}
    assert (status.plan.digest, tuple(status.plan.buckets)) == summary_of(digests)
    assert (status.plan.services, status.served) == (2, 2)
