"""The path of Service ports with path ``auto``, by the results of probes."""

import errno
from dataclasses import replace

import pytest

from userspace_proxy.agent.rounds.auto_paths import NO_ENDPOINTS, NOT_PROBED, AutoPaths
from userspace_proxy.causes.endpoints import refuses
from userspace_proxy.causes.say import say
from userspace_proxy.causes.services import forwarding_unanswered
from userspace_proxy.errors import SteeringError
from userspace_proxy.model import (
    DataPath,
    DialFailure,
    Failure,
    Frontend,
    Handling,
    IPFamily,
    PortKey,
    Protocol,
    ServicePortName,
    SocketAddress,
)
from userspace_proxy.model.serving import Serving
from userspace_proxy.plan import PortPlan
from userspace_proxy.policy import PathDecision
from userspace_proxy.steering import Bind, KernelTarget

from ...plane.probed import Probed
from ..samples import Cluster
from ..watched import WatchedSteering, begin, settle, until

A, B, C = (SocketAddress(f"10.244.1.{number}", 8080) for number in (1, 2, 3))
REFUSED = DialFailure(Failure.REFUSED, errno.ECONNREFUSED)


def plan(*endpoints, name="web", protocol=Protocol.TCP, path=DataPath.AUTO, **others):
    return PortPlan(
        PortKey(ServicePortName("shop", name, ""), IPFamily.IPV4),
        protocol,
        (Frontend("10.96.7.1", 80, protocol),),
        (),
        Serving(endpoints, **others),
        path=PathDecision(path, "its annotation asks for it"),
    )


WEB = plan(A, B)
AUTO = Handling(path=DataPath.AUTO)
HERE, THERE = (Frontend(f"10.96.0.{number}", 80, Protocol.TCP) for number in (1, 2))


@pytest.fixture
def auto():
    auto = AutoPaths(Probed)
    auto.changes = []
    auto.on_change = lambda: auto.changes.append(1)
    return auto


def answer(auto, *endpoints):
    for endpoint in endpoints:
        auto.note(endpoint, None)


def test_a_service_port_starts_on_userspace_until_each_endpoint_has_answered_a_probe(auto):
    assert auto.follow(WEB) == (
        DataPath.USERSPACE,
        "auto, and 2 endpoints still to be probed",
        None,
    )
    answer(auto, A)
    assert not auto.changes
    assert auto.follow(WEB).why == "auto, and 1 endpoint still to be probed"
    answer(auto, B)
    assert auto.changes
    assert auto.take() == {WEB.key: (DataPath.KERNEL, "auto, and 2 endpoints answer probes", None)}
    assert auto.take() == {}


def test_the_first_failed_probe_moves_a_port_to_userspace_with_the_reason(auto):
    auto.follow(WEB)
    answer(auto, A, B)
    auto.take()
    auto.note(B, REFUSED)
    assert auto.take() == {
        WEB.key: (
            DataPath.USERSPACE,
            f"auto, and a probe failed: {say(refuses(B))}",
            None,
        )
    }


@pytest.mark.parametrize("protocol", Protocol)
def test_unanswered_clients_move_a_port_to_userspace_regardless_of_probes(auto, protocol):
    web = plan(A, B, protocol=protocol)
    auto.follow(web)
    answer(auto, *auto.probes.endpoints)
    auto.leave_kernel(web.key, forwarding_unanswered())
    wanted = PathDecision(
        DataPath.USERSPACE, f"auto, and not on the kernel path: {say(forwarding_unanswered())}"
    )
    assert auto.take() == {web.key: wanted}
    assert auto.follow(web) == wanted
    auto.changes.clear()
    auto.return_to_kernel(web.key)
    assert auto.changes
    assert auto.take()[web.key].path is DataPath.KERNEL
    auto.return_to_kernel(web.key)
    assert auto.take() == {}


def test_unanswered_clients_no_longer_count_after_another_path_was_configured(auto):
    auto.leave_kernel(WEB.key, forwarding_unanswered())
    auto.follow(plan(A, B, path=DataPath.USERSPACE))
    auto.follow(WEB)
    answer(auto, A, B)
    assert auto.follow(WEB).path is DataPath.KERNEL


def test_after_a_failure_two_answered_probes_in_a_row_restore_the_kernel_path(auto):
    auto.follow(WEB)
    answer(auto, A, B)
    auto.note(B, REFUSED)
    answer(auto, A, B)
    auto.note(B, REFUSED)
    answer(auto, A, B)
    assert auto.follow(WEB).path is DataPath.USERSPACE
    answer(auto, B)
    assert auto.take()[WEB.key].path is DataPath.KERNEL
    auto.note(B, REFUSED)
    answer(auto, B)
    assert auto.follow(WEB).path is DataPath.USERSPACE, "each failure requires two answers"


def test_a_port_returns_to_the_kernel_path_once_all_endpoints_answer_probes(auto):
    auto.follow(WEB)
    answer(auto, A, B)
    auto.note(A, REFUSED)
    auto.note(B, DialFailure(Failure.SILENT))
    assert auto.take()[WEB.key].why.endswith(" rejects them; 1 other failed")
    answer(auto, A, A)
    choice = auto.take()[WEB.key]
    assert choice.path is DataPath.USERSPACE
    assert "10.244.1.2:8080 does not answer" in choice.why
    answer(auto, B, B)
    assert auto.take()[WEB.key].path is DataPath.KERNEL


def test_only_a_different_error_changes_the_reason(auto):
    auto.follow(WEB)
    auto.note(A, REFUSED)
    auto.take()
    auto.note(A, REFUSED)
    assert auto.take() == {}
    auto.note(A, DialFailure(Failure.HOST_UNREACHABLE))
    assert "10.244.1.1:8080 is unreachable" in auto.take()[WEB.key].why


def test_a_shared_endpoint_is_probed_once_for_all_service_ports(auto):
    other = plan(B, C, name="cart")
    auto.follow(WEB)
    auto.follow(other)
    assert sorted(auto.probes.endpoints) == [A, B, C]
    answer(auto, A, B, C)
    assert {choice.path for choice in auto.take().values()} == {DataPath.KERNEL}
    auto.note(B, REFUSED)
    assert auto.take().keys() == {WEB.key, other.key}
    auto.forget(WEB.key)
    auto.forget(WEB.key)
    assert sorted(auto.probes.endpoints) == [B, C]
    auto.forget(other.key)
    assert auto.probes.endpoints == []


def test_a_new_endpoint_without_an_answer_moves_a_port_to_userspace_until_removed(auto):
    auto.follow(WEB)
    answer(auto, A, B)
    auto.take()
    assert auto.follow(plan(A, B, C)).path is DataPath.USERSPACE
    auto.note(C, REFUSED)
    assert auto.follow(WEB).path is DataPath.KERNEL
    assert sorted(auto.probes.endpoints) == [A, B]


def test_endpoints_for_outside_clients_are_also_probed(auto):
    auto.follow(plan(A, outside=(B,), inside=("10.244.0.0/16",)))
    assert sorted(auto.probes.endpoints) == [A, B]


def test_a_standby_endpoint_is_not_probed(auto):
    auto.follow(plan(A, B, standbys=((B, 1),)))
    assert auto.probes.endpoints == [A]


def test_udp_ports_use_the_kernel_path_without_probes_while_they_have_endpoints(auto):
    assert auto.follow(plan(A, protocol=Protocol.UDP)) == NOT_PROBED
    assert auto.follow(plan(protocol=Protocol.UDP)) == NO_ENDPOINTS
    assert auto.follow(plan()) == NO_ENDPOINTS
    assert auto.probes.begun == 0
    auto.close()


def test_a_service_port_leaving_auto_is_no_longer_probed_and_its_results_are_deleted(auto):
    auto.follow(WEB)
    answer(auto, A, B)
    asked = replace(WEB, path=PathDecision(DataPath.KERNEL, "its annotation asks for it"))
    assert auto.follow(asked) == asked.path
    assert auto.probes.endpoints == []
    assert auto.take() == {}
    assert auto.follow(WEB).why == "auto, and 2 endpoints still to be probed"
    assert auto.follow(plan()) == NO_ENDPOINTS
    assert auto.probes.endpoints == []
    auto.close()
    assert auto.probes.is_closed


async def test_endpoints_of_a_removed_service_are_no_longer_probed(make):
    cluster, served_ports = Cluster(), make(Bind.PROXY_PORT)
    auto = served_ports.auto_paths
    auto.probes = Probed(auto.note)
    served_ports.follow(cluster.serve("web", HERE.ip, A.ip, handling=AUTO))
    assert auto.probes.endpoints == [A]
    served_ports.follow(cluster.remove("web"))
    assert auto.probes.endpoints == []


async def test_a_switch_reverted_before_taking_effect_is_not_counted(make):
    cluster, served_ports = Cluster(), make(Bind.PROXY_PORT)
    served_ports.auto_paths.probes = Probed(served_ports.auto_paths.note)
    served_ports.follow(cluster.serve("web", HERE.ip, A.ip, handling=AUTO))
    for result in (None, REFUSED):
        served_ports.auto_paths.note(A, result)
        served_ports.switch_paths()
    (served,) = served_ports
    assert served_ports.steered.mark(served_ports.steered.change()) == []
    assert served.path.now is DataPath.USERSPACE


async def test_a_path_is_shown_and_reported_after_the_steering_has_changed(start):
    shown = []

    class Looking(WatchedSteering):
        async def change(self, changed, gone):
            await super().change(changed, gone)
            shown.append([(one.path.now, len(switched)) for one in start.served_ports])

    steering, switched = Looking(), []
    loop, cluster = await start(steering), Cluster()
    loop.rules.on_switch = switched.extend
    auto = start.served_ports.auto_paths
    auto.probes = Probed(auto.note)
    await settle(loop, cluster.serve("web", HERE.ip, A.ip, handling=AUTO))
    for count, result in enumerate((None, REFUSED), 1):
        auto.note(A, result)
        await until(lambda count=count: len(switched) == count)
    assert shown == [[(DataPath.USERSPACE, 0)], [(DataPath.KERNEL, 1)]]
    assert [one.path.now for one in start.served_ports] == [DataPath.USERSPACE]


async def test_probes_switch_a_path_without_waiting_for_a_sync_round(start, caplog):
    caplog.set_level("INFO")
    steering = WatchedSteering()
    # The next periodic round is an hour later.
    loop, cluster = await start(steering, min_period_s=3600.0), Cluster()
    auto = start.served_ports.auto_paths
    auto.probes = Probed(auto.note)
    switched = []
    loop.rules.on_switch = switched.extend
    await settle(loop, cluster.serve("web", HERE.ip, A.ip, handling=AUTO))
    loop.publish(cluster.serve("cart", THERE.ip, A.ip))
    auto.note(A, None)
    await until(lambda: is_on(steering))
    auto.note(A, REFUSED)
    await until(lambda: not is_on(steering))
    await until(lambda: not steering.has_stale_flows)
    assert len(switched) == 2
    assert loop.counters.rounds == 1
    assert THERE not in steering.kernel
    said = [message for message in caplog.messages if "path" in message]
    assert said[0] == "shop/web: switched to data path kernel: auto, and 1 endpoint answers probes"
    assert said[1].startswith(
        "shop/web: switched to data path userspace: auto, and a probe failed: 10.244.1.1"
    )


async def test_a_path_switch_is_retried_after_the_kernel_rejects_it(start):
    steering, loop, cluster = await begin(start)
    auto = start.served_ports.auto_paths
    auto.probes = Probed(auto.note)
    await settle(loop, cluster.serve("web", HERE.ip, A.ip, handling=AUTO))
    auto.note(A, None)
    await until(lambda: is_on(steering))
    steering.fails_with = SteeringError("cannot commit: Device or resource busy")
    auto.note(A, REFUSED)
    await until(lambda: loop.counters.failures)
    steering.fails_with = None
    await until(lambda: not is_on(steering))


async def test_at_most_twenty_path_switches_are_logged(start, caplog):
    caplog.set_level("INFO")
    steering, loop, cluster = await begin(start)
    auto = start.served_ports.auto_paths
    auto.probes = Probed(auto.note)
    for number in range(30):
        snapshot = cluster.serve(f"web-{number}", f"10.96.1.{number}", A.ip, handling=AUTO)
    await settle(loop, snapshot)
    calls = len(steering.calls)
    auto.note(A, None)
    await until(lambda: any("path kernel" in message for message in caplog.messages))
    assert all(isinstance(target, KernelTarget) for target in steering.kernel.values())
    assert len(steering.calls) == calls + 1, "one transaction"
    assert len([message for message in caplog.messages if "path kernel" in message]) == 20


def is_on(steering):
    """Return whether the kernel translates new connections of the Service web."""
    target = steering.kernel[HERE]
    return isinstance(target, KernelTarget) and target.is_on
