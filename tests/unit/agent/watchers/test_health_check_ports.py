"""Health check node ports in the facts; ``test_agent`` queries them."""

from userspace_proxy.agent.watchers.health_check_ports import HealthChecks, facts_of_checks
from userspace_proxy.facts import HealthCheckFacts, StatusFacts
from userspace_proxy.model import ServiceType
from userspace_proxy.plan import Plan, Planner
from userspace_proxy.policy import NodeFacts

from ..samples import Cluster


def test_health_checks_are_shown_with_their_endpoints_and_problems():
    cluster = Cluster()
    snapshot = cluster.serve(
        "web",
        "10.96.0.1",
        "192.0.2.1",
        type=ServiceType.LOAD_BALANCER,
        is_external_local=True,
        health_check_node_port=31000,
    )
    plan = Planner(NodeFacts(node_name="node-a")).plan(snapshot)
    (key,) = plan.health_checks
    (shown,) = facts_of_checks(plan, {key: "in use"})
    local = plan.health_checks[key].local_endpoints
    assert shown == HealthCheckFacts(str(key), 31000, local, "in use")


async def test_without_a_health_check_no_port_is_opened():
    checks = HealthChecks(Planner(NodeFacts()), StatusFacts)
    await checks.apply(Plan.empty())
    assert checks.facts_of(Plan.empty()) == ()
    await checks.close()
