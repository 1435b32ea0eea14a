"""The endpoints among which the kernel path chooses, and the clients to which it applies."""

from dataclasses import replace

import pytest

from tests.port_keys import port_key
from userspace_proxy.agent.rounds.kernel_path import choices_of, kernel_targets
from userspace_proxy.balance import fill_slots
from userspace_proxy.model import (
    Balance,
    DataPath,
    Frontend,
    Handling,
    IPFamily,
    PortKey,
    Protocol,
    ServicePortName,
    SocketAddress,
)
from userspace_proxy.model.port_ranges import DialledRange
from userspace_proxy.model.serving import Serving
from userspace_proxy.plan import PortPlan
from userspace_proxy.steering import REFUSE, Affinity, Bind, EndpointChoice, KernelTarget

from ...port_numbers import is_listening
from ..samples import Cluster

A, B, C = (SocketAddress(f"10.244.1.{number}", 8080) for number in (1, 2, 3))
WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
HERE = Frontend("127.0.0.1", 30080, Protocol.TCP)
NAME = PortKey(ServicePortName("shop", "web", ""), IPFamily.IPV4)


def plan(**others):
    return PortPlan(NAME, Protocol.TCP, (WEB,), (), Serving((A, B), **others))


PLAN = plan()
POD = "192.0.2.1"
PODS, OFFICE = "10.244.0.0/16", "203.0.113.0/24"


def choices(*endpoints, **others):
    return tuple(choices_of(Serving(endpoints or (A, B), **others)))


def targets_of(plan, targets, *, is_in_kernel):
    made = tuple(choices_of(plan.serving, is_in_kernel=is_in_kernel))
    return kernel_targets(plan, targets, made, is_in_kernel=is_in_kernel)


def test_by_default_all_clients_may_reach_all_usable_endpoints():
    assert choices() == (EndpointChoice((A, B)),)


def test_only_clients_inside_the_source_ranges_have_an_endpoint_choice():
    assert choices(admits=(OFFICE,)) == (EndpointChoice((A, B), (OFFICE,)),)


def test_outside_clients_may_reach_other_endpoints_than_inside_clients():
    assert choices(outside=(B,), inside=(PODS,)) == (
        EndpointChoice((A, B), (PODS,)),
        EndpointChoice((B,)),
    )


def test_outside_clients_without_an_endpoint_use_the_proxy_port():
    assert choices(outside=(), inside=(PODS,), admits=(PODS,)) == (EndpointChoice((A, B), (PODS,)),)


def test_source_ranges_limit_inside_and_outside_clients():
    found = choices(outside=(B,), inside=(PODS,), admits=("10.244.1.0/24", OFFICE))
    assert found == (
        EndpointChoice((A, B), ("10.244.1.0/24",)),
        EndpointChoice((B,), ("10.244.1.0/24", OFFICE)),
    )


@pytest.mark.parametrize(
    "serving", [Serving(), Serving((A, B), admits=())], ids=["none", "all-dropped"]
)
def test_there_is_no_endpoint_choice_without_endpoints_or_admitted_clients(serving):
    assert tuple(choices_of(serving)) == ()


def test_only_endpoints_of_the_first_priority_are_chosen():
    assert choices(A, B, C, standbys=((A, 2), (B, 1))) == (EndpointChoice((C,)),)
    assert choices(A, B, standbys=((A, 2), (B, 1))) == (EndpointChoice((B,)),)


def test_endpoints_are_repeated_in_proportion_to_their_weights():
    assert choices(weights=((A, 200), (B, 100))) == (EndpointChoice((A, A, B)),)


@pytest.mark.parametrize("balance", [Balance.RANDOM, Balance.SOURCE_HASH])
def test_coarse_weights_use_few_slots(balance):
    serving = Serving((A, B), weights=((A, 199), (B, 100)), handling=Handling(balance=balance))
    fine, coarse = (next(choices_of(serving, is_coarse=is_one)) for is_one in (False, True))
    assert len(coarse.endpoints) < len(fine.endpoints)


def test_source_hash_fills_slots_in_proportion_to_their_weights():
    hashed = Handling(balance=Balance.SOURCE_HASH)
    (target,) = targets_of(plan(handling=hashed), {WEB: 20000}, is_in_kernel=True).values()
    slots = fill_slots((A, B), {})
    assert target == KernelTarget(
        20000, (EndpointChoice(slots),), by_client=True, name=port_key("shop/web")
    )
    (choice,) = choices(handling=hashed, weights=((A, 200), (B, 100)))
    assert choice.endpoints == fill_slots((A, B), {A: 200, B: 100})


def test_refusing_and_loopback_frontends_keep_their_targets_on_the_kernel_path():
    other = Frontend("10.96.7.2", 80, Protocol.TCP)
    targets = targets_of(PLAN, {WEB: 20000, other: REFUSE, HERE: 20000}, is_in_kernel=True)
    assert targets == {
        WEB: KernelTarget(20000, (EndpointChoice((A, B)),), name=port_key("shop/web")),
        other: REFUSE,
        HERE: 20000,
    }


def test_a_target_on_the_kernel_path_has_the_affinity_of_its_service_port():
    targets = targets_of(plan(affinity_timeout_s=60), {WEB: 20000}, is_in_kernel=True)
    affinity = Affinity("shop/web", 60)
    assert targets == {
        WEB: KernelTarget(20000, (EndpointChoice((A, B)),), affinity, name=port_key("shop/web"))
    }


def test_a_service_port_leaving_the_kernel_path_keeps_its_endpoints_for_open_flows():
    targets = targets_of(PLAN, {WEB: 20000}, is_in_kernel=False)
    assert targets == {
        WEB: KernelTarget(20000, (EndpointChoice((A, B)),), is_on=False, name=port_key("shop/web"))
    }


async def test_a_path_switch_changes_only_targets_and_keeps_the_listener(make):
    cluster, served_ports = Cluster(), make(Bind.PROXY_PORT)
    web = Frontend("10.96.0.1", 80, Protocol.TCP)
    choices = (EndpointChoice((SocketAddress(POD, 8080),)),)
    port = served_ports.follow(cluster.serve("web", web.ip, POD))[web]
    kernel = Handling(path=DataPath.KERNEL)
    targets = served_ports.follow(cluster.serve("web", web.ip, POD, handling=kernel))
    assert targets == {web: KernelTarget(port, choices, name=port_key("shop/web"))}
    (served,) = served_ports
    assert (served.path.now, served.path.why) == (DataPath.KERNEL, "its annotation asks for it")
    began = served.path.since
    assert is_listening(port)
    # UDP flows may still be translated to this Service's endpoints.
    targets = served_ports.follow(cluster.serve("web", web.ip, POD))
    assert targets == {web: KernelTarget(port, choices, is_on=False, name=port_key("shop/web"))}
    assert (served.path.now, served.path.why) == (DataPath.USERSPACE, "")
    assert served.path.since >= began > 0
    assert served_ports.follow(cluster.serve("web", web.ip)) == {web: REFUSE}


RTP = Frontend("10.96.7.1", 9000, Protocol.UDP, last=20000)
RANGES = (DialledRange("10.96.7.1", 9000, 20000, 10000),)


def test_endpoints_of_a_range_have_the_target_port_of_its_first_port():
    found = targets_of(plan(ranges=RANGES), {WEB: 1, RTP: 1}, is_in_kernel=True)
    (choice,) = found[RTP].choices
    assert choice.endpoints == (SocketAddress(A.ip, 7080), SocketAddress(B.ip, 7080))
    assert found[WEB].choices[0].endpoints == (A, B)


def test_udp_ports_of_a_range_have_no_proxy_port():
    found = targets_of(plan(ranges=RANGES), {WEB: 1, RTP: 1}, is_in_kernel=True)
    assert (found[WEB].port, found[RTP].port) == (1, REFUSE)
    held = kernel_targets(plan(ranges=RANGES), {WEB: 1, RTP: 1}, (), is_in_kernel=True)
    assert (held[WEB].port, held[RTP]) == (1, REFUSE), "a listener may wait for endpoints"
    here = replace(RTP, ip="127.0.0.1")
    assert targets_of(plan(ranges=RANGES), {here: 1}, is_in_kernel=True) == {here: REFUSE}
    tcp = replace(RTP, protocol=Protocol.TCP)
    assert targets_of(plan(ranges=RANGES), {tcp: 1}, is_in_kernel=True)[tcp].port == 1


def test_affinity_can_be_shared_by_all_ports_of_a_service():
    shared = plan(affinity_timeout_s=60, handling=Handling(shares_affinity=True))
    (target,) = targets_of(shared, {WEB: 1}, is_in_kernel=True).values()
    assert target.affinity == Affinity("shop/web (all ports)", 60, is_of_pods=True)
    ranged = plan(affinity_timeout_s=60, ranges=RANGES)
    found = targets_of(ranged, {WEB: 1, RTP: 1}, is_in_kernel=True)
    assert found[WEB].affinity == found[RTP].affinity == Affinity(str(NAME), 60, is_of_pods=True)
