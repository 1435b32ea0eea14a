"""Tests of waking workloads whose clients wait for pods."""

import asyncio
import dataclasses

import pytest

from tests.port_keys import port_key
from userspace_proxy.model import (
    Endpoint,
    EndpointSlice,
    Handling,
    Hold,
    IPFamily,
    Service,
    ServiceKey,
    ServicePort,
    SliceKey,
    SlicePort,
    Workload,
    WorkloadKind,
)
from userspace_proxy.plane.messages import WaitBegan
from userspace_proxy.scaling import waking
from userspace_proxy.scaling.cordons import ENDS_S, Cordons
from userspace_proxy.scaling.lease_notes import Vote
from userspace_proxy.scaling.rights import refusal_reason
from userspace_proxy.scaling.usage import Usage
from userspace_proxy.scaling.waking import Waking
from userspace_proxy.sources import MemorySource
from userspace_proxy.steering import Bind

from ..agent.samples import Cluster, service
from ..agent.watched import turn
from ..dataplane.waiting import until
from ..kept import kept_by
from ..plane.reports import report_to

POD = "192.0.2.1"
WEB = ServiceKey("shop", "web")
WORKLOAD = Workload(WorkloadKind.DEPLOYMENT, "web")
SELECTOR = (("app", "web"),)
ASLEEP = Handling(hold=Hold(60.0), wake=WORKLOAD)


class Recording(MemorySource):
    """A source that records calls and returns the answer of the test."""

    def __init__(self):
        super().__init__()
        self.happenings = []
        self.woken = []
        self.answer = ""
        self.labels = {"app": "web", "tier": "shop"}
        self.under_way = self.most_under_way = 0

    def record(self, happening):
        self.happenings.append(happening)

    async def wake(self, namespace, workload, may):
        if (refused := may(self.labels)) is not None:
            return refused
        self.woken.append(f"{namespace} {workload}")
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await turn()
        self.under_way -= 1
        return self.answer


class Rig:
    """The Service shop/web without endpoints, for which a worker reports waiting clients."""

    def __init__(self, plane, served_ports):
        self.plane = plane
        self.source = Recording()
        self.now = 100.0
        self.cluster = Cluster()
        self.served_ports = served_ports
        self.follow = served_ports.follow
        self.usage = Usage(served_ports, clock=lambda: self.now)
        self.cordons = Cordons(served_ports, clock=lambda: self.now)
        self.waking = self.make(is_allowed=True)
        self.serve()

    def make(self, *, is_allowed):
        return Waking(
            self.plane,
            self.served_ports,
            self.source,
            lambda: self.cluster.store.snapshot().services,
            self.usage,
            self.cordons,
            is_allowed=is_allowed,
            clock=lambda: self.now,
            pause=self.pause,
        )

    async def pause(self, seconds):
        self.now += seconds
        await turn()

    def serve(self, *pods, handling=ASLEEP, selector=SELECTOR):
        self.follow(
            self.cluster.serve("web", "10.96.0.1", *pods, handling=handling, selector=selector)
        )

    def sleep(self):
        """Scale the workload to zero, as after a unanimous vote."""
        self.cordons.cordon(WEB, "7", self.now + 20)
        assert self.cordons.end(Vote("7", (WEB,), is_over=True)) == [WEB]

    @property
    def endpoints(self):
        """The addresses of the endpoints that accept clients."""
        return [endpoint.ip for endpoint in self.served.group.serving.endpoints]

    @property
    def served(self):
        (served,) = (one for one in self.served_ports if one.plan.key.name.service == WEB)
        return served

    def begin(self):
        self.plane.receive(0, WaitBegan(self.served.group.number))

    def begin_many(self, count, workload="other-{}"):
        """Add this many other Services, each with a waiting client."""
        for number in range(count):
            name = Workload(WorkloadKind.DEPLOYMENT, workload.format(number))
            ip = f"10.97.{number // 250}.{number % 250 + 1}"
            handling = Handling(hold=Hold(60.0), wake=name)
            snapshot = self.cluster.serve(
                f"other-{number}", ip, handling=handling, selector=SELECTOR
            )
        self.served_ports.follow(snapshot)
        for served in self.served_ports:
            if served.plan.key.name.service != WEB:
                self.plane.receive(0, WaitBegan(served.group.number))
                self.report(1, served)

    def begin_of(self, namespace, name="web"):
        """Add a Service in another namespace with its first client; return its workload as text."""
        key = ServiceKey(namespace, name)
        ip = f"10.98.0.{len(self.cluster.store.snapshot().services) % 250 + 1}"
        wake = Workload(WorkloadKind.DEPLOYMENT, name)
        handling = Handling(hold=Hold(60.0), wake=wake)
        one = dataclasses.replace(service(name, ip, handling=handling, selector=SELECTOR), key=key)
        self.cluster.store.put_service(one)
        self.served_ports.follow(self.cluster.store.snapshot())
        (served,) = self.served_ports.of_service(key)
        self.plane.receive(0, WaitBegan(served.group.number))
        self.report(1, served)
        return f"{namespace} {wake}"

    def report(self, clients, served=None):
        report_to((served or self.served).group, self.now, clients)

    async def look_after(self, seconds):
        self.now += seconds
        await self.waking.look()


async def ended(task):
    """Cancel a task and wait for its end."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def rig(plane, make):
    return Rig(plane, make(Bind.PROXY_PORT))


async def test_a_waiting_client_causes_an_event_and_wakes_the_workload(rig):
    rig.begin()
    await rig.look_after(0)
    (happening,) = rig.source.happenings
    assert (happening.reason, happening.service, happening.is_warning) == ("NeedPods", WEB, False)
    assert happening.note == "The service-port shop/web needs pods."
    assert rig.source.woken == ["shop deployment/web"]
    assert rig.usage.demand() == {WEB: 1}


@pytest.mark.parametrize("answer", ["", "cannot scale deployment/web: forbidden"])
async def test_waking_a_workload_is_retried_after_5_s_doubling_up_to_a_minute(rig, answer):
    rig.source.answer = answer
    rig.begin()
    rig.report(1)
    tried_at = []
    for second in range(276):
        await rig.look_after(min(second, 1))
        tried_at += [second] * (len(rig.source.woken) - len(tried_at))
    assert tried_at == [0, 5, 15, 35, 75, 135, 195, 255]


async def test_while_clients_wait_an_event_is_recorded_each_minute(rig):
    rig.begin()
    rig.report(1)
    for _ in range(60):
        await rig.look_after(1)
    assert len(rig.source.happenings) == 1
    await rig.look_after(1)
    assert len(rig.source.happenings) == 2


async def test_a_workload_that_served_clients_after_failed_wakes_is_retried_after_5_s(rig):
    rig.begin()
    rig.report(1)
    for _ in range(36):
        await rig.look_after(1)
    assert len(rig.source.woken) == 4, "the next attempt would be 40 s later"
    rig.serve(POD)
    rig.report(0)
    await rig.look_after(1)
    rig.serve()
    rig.now += 4
    rig.begin()
    await rig.look_after(0)
    assert len(rig.source.woken) == 5


async def test_clients_that_arrive_and_leave_do_not_shorten_the_retry_delay(rig):
    rig.source.answer = "cannot scale deployment/web: forbidden"
    for _ in range(75):
        rig.begin()
        await rig.look_after(0)
        await rig.look_after(1)
    assert len(rig.source.woken) == 4


async def test_no_wake_is_requested_after_the_clients_are_served(rig):
    rig.begin()
    await rig.look_after(0)
    await rig.look_after(30)
    assert len(rig.source.woken) == len(rig.source.happenings) == 1


async def test_clients_of_a_service_with_endpoints_wake_no_workload(rig):
    rig.serve(POD)
    rig.begin()
    await rig.look_after(0)
    assert not rig.source.woken
    assert not rig.source.happenings


async def test_a_service_that_names_no_workload_has_demand_but_is_not_woken(rig):
    rig.serve(handling=Handling(hold=Hold(60.0)))
    rig.begin()
    await rig.look_after(0)
    assert rig.usage.demand() == {WEB: 1}
    assert not rig.source.woken
    assert not rig.source.happenings


async def test_a_wake_without_permission_causes_only_an_event_and_a_problem(rig):
    rig.waking = rig.make(is_allowed=False)
    rig.begin()
    await rig.look_after(0)
    assert len(rig.source.happenings) == 1
    assert not rig.source.woken
    assert rig.served.wake_problem == (
        "deployment/web is needed, but it isn't scaled by this proxy, which needs --allow-wake "
        "for that"
    )


async def test_a_workload_that_cannot_be_scaled_is_reported_until_it_can_be_scaled(rig):
    rig.source.answer = "cannot scale deployment/web: forbidden"
    rig.begin()
    rig.report(1)
    await rig.look_after(0)
    assert rig.served.wake_problem == rig.source.answer
    rig.source.answer = ""
    await rig.look_after(5)
    assert rig.served.wake_problem == ""


async def test_hundreds_of_unscalable_workloads_are_retried_one_at_a_time(rig):
    rig.source.answer = "cannot scale it: forbidden"
    rig.begin_many(335)
    began = rig.now
    while rig.now < began + 60:
        await rig.look_after(0.01)
    assert rig.source.most_under_way == 1
    assert 330 <= len(rig.source.woken) <= 6 * (rig.now - began) + 1, (
        "6 attempts a second, of at most two requests"
    )


@pytest.mark.parametrize("count", [1, 600])
async def test_the_first_client_in_another_namespace_does_not_wait_for_many_services(rig, count):
    """Issue 52: such a client waited for over a minute."""
    rig.source.answer = "cannot scale it: forbidden"
    rig.begin_many(count)
    await rig.look_after(0)
    for number in range(3):
        tenant = rig.begin_of(f"tenant-{number}")
        began = rig.now
        while tenant not in rig.source.woken:
            await rig.look_after(0.01)
            assert rig.now - began <= 2


async def test_namespaces_take_turns_regardless_of_their_number_of_workloads(rig):
    rig.source.answer = "cannot scale it: forbidden"
    rig.begin_many(40)
    for number in range(8):
        rig.begin_of("tenant", f"api-{number}")
    rig.source.woken.clear()
    while len(rig.source.woken) < 16:
        await rig.look_after(0.01)
    assert [text.split()[0] for text in rig.source.woken[:16]] == ["shop", "tenant"] * 8


@pytest.mark.parametrize("selector", [(), (("app", "api"),)])
async def test_a_service_cannot_wake_a_workload_without_selecting_its_pods(rig, selector):
    """Source: issue 52."""
    rig.serve(selector=selector)
    rig.begin()
    await rig.look_after(0)
    assert rig.source.woken == []
    assert rig.served.wake_problem == refusal_reason(selector, WORKLOAD, rig.source.labels)


async def test_a_copied_workload_annotation_does_not_delay_the_selecting_service(rig):
    """The other Service delays no attempt, and its wake problem isn't shared."""
    selector = (("app", "api"),)
    rig.serve(selector=selector)
    rig.begin()
    rig.report(1)
    for _ in range(40):
        await rig.look_after(1)
    rig.begin_many(1, workload="web")
    await rig.look_after(0)
    assert rig.source.woken == ["shop deployment/web"]
    problems = {one.plan.key.name.service.name: one.wake_problem for one in rig.served_ports}
    why = refusal_reason(selector, WORKLOAD, rig.source.labels)
    assert (problems["other-0"], problems["web"]) == ("", why)


async def test_services_of_one_workload_share_wake_attempts_and_failures(rig):
    rig.source.answer = "cannot scale deployment/web: forbidden"
    rig.begin_many(3, workload="web")
    await rig.look_after(0)
    assert rig.source.woken == ["shop deployment/web"]
    await rig.look_after(1)
    problems = [served.wake_problem for served in rig.served_ports]
    assert set(problems) == {"", rig.source.answer}
    assert problems.count("") == 1, "no client waits at web"


async def test_new_demand_takes_precedence_over_workloads_already_tried(rig):
    rig.source.answer = "cannot scale it: forbidden"
    rig.begin_many(6)
    await rig.look_after(0)
    assert len(rig.source.woken) == 6
    rig.source.woken.clear()
    rig.now += 5
    rig.begin()
    await rig.look_after(0)
    assert rig.source.woken[0] == "shop deployment/web"


async def test_demand_arising_during_a_wake_is_handled_next(rig):
    rig.begin_many(3)
    await rig.look_after(0)
    rig.source.woken.clear()
    rig.now += 5
    wake = rig.source.wake

    async def wake_and_begin(namespace, workload, may):
        rig.source.wake = wake
        rig.begin()
        return await wake(namespace, workload, may)

    rig.source.wake = wake_and_begin
    task = asyncio.ensure_future(rig.waking.run())
    await until(lambda: len(rig.source.woken) == 4)
    assert rig.source.woken[1] == "shop deployment/web"
    await ended(task)


async def test_a_port_without_endpoints_wakes_the_workload_although_another_port_has_endpoints(rig):
    ports = (ServicePort("http", 80, "TCP"), ServicePort("admin", 81, "TCP"))
    web = Service(WEB, ports, cluster_ips=("10.96.0.1",), handling=ASLEEP, selector=SELECTOR)
    rig.cluster.store.put_service(web)
    rig.cluster.store.put_slice(
        EndpointSlice(
            SliceKey("shop", "web-1"),
            WEB,
            IPFamily.IPV4,
            (SlicePort("admin", 8081, "TCP"),),
            (Endpoint(POD),),
        )
    )
    rig.served_ports.follow(rig.cluster.store.snapshot())
    for served in sorted(rig.served_ports, key=lambda served: not served.plan.serving.has_none):
        rig.plane.receive(0, WaitBegan(served.group.number))
    await rig.look_after(0)
    assert rig.source.woken == ["shop deployment/web"]


async def test_clients_that_have_left_leave_no_state(rig):
    rig.usage.note(rig.served)
    before = kept_by(rig.waking)
    rig.begin()
    rig.report(1)
    await rig.look_after(1)
    rig.report(0)
    await rig.look_after(600)
    assert kept_by(rig.waking) == before


async def test_a_removed_service_is_not_woken(rig):
    rig.begin()
    rig.served_ports.follow(rig.cluster.remove("web"))
    await rig.look_after(0)
    assert not rig.source.woken


async def test_waiting_clients_of_an_unknown_group_are_ignored(rig):
    rig.plane.on_waits(rig.plane.open_group(port_key("shop/other")))
    await rig.look_after(0)
    assert rig.usage.demand() == {WEB: 0}


async def test_a_new_client_wakes_a_workload_immediately_and_the_next_check_is_a_second_later(rig):
    look, looks = rig.waking.look, []

    def counted():
        looks.append(rig.now)
        return look()

    rig.waking.look = counted
    task = asyncio.ensure_future(rig.waking.run())
    rig.begin()
    await until(lambda: rig.source.woken)
    for _ in range(50):
        await turn()
    assert len(looks) <= 2
    await ended(task)


async def test_a_workload_is_not_woken_during_a_vote_on_its_scale_down(rig):
    rig.serve(POD)
    rig.cordons.cordon(WEB, "7", rig.now + 20)
    rig.begin()
    await rig.look_after(0)
    assert not rig.source.woken
    assert not rig.source.happenings, "other nodes would wake the workload, too"


@pytest.mark.parametrize("is_gone", [True, False], ids=["gone", "terminating"])
async def test_a_workload_is_woken_only_after_its_pods_end_or_begin_to_terminate(rig, is_gone):
    rig.serve(POD)
    rig.sleep()
    rig.begin()
    rig.report(1)
    await rig.look_after(ENDS_S - 1)
    assert not rig.source.woken
    rig.follow(rig.cluster.terminate("web", *[] if is_gone else [POD]))
    await rig.look_after(0)
    assert rig.source.woken == ["shop deployment/web"]
    assert rig.endpoints == []


async def test_surviving_pods_serve_once_the_workload_has_a_replica(rig):
    rig.serve(POD)
    rig.sleep()
    rig.begin()
    rig.report(1)
    await rig.look_after(ENDS_S)
    assert rig.source.woken == ["shop deployment/web"]
    await rig.look_after(4)
    assert rig.endpoints == [], "the pods may still end"
    await rig.look_after(1)
    assert rig.endpoints == [POD]
    await rig.look_after(20)
    assert len(rig.source.woken) == 2, "the second attempt found a replica"


async def test_surviving_pods_get_no_clients_while_the_workload_cannot_be_woken(rig):
    rig.source.answer = "cannot scale deployment/web: forbidden"
    rig.serve(POD)
    rig.sleep()
    rig.begin()
    rig.report(1)
    for _ in range(60):
        await rig.look_after(1)
    assert len(rig.source.woken) == 4
    assert rig.endpoints == []


async def test_the_end_of_pods_is_detected_before_the_next_regular_check(rig, monkeypatch):
    monkeypatch.setattr(waking, "_LOOK_S", 3600.0)
    rig.serve(POD)
    rig.sleep()
    rig.begin()
    task = asyncio.ensure_future(rig.waking.run())
    await until(lambda: rig.waking._waits_for_ends)
    rig.serve()
    await until(lambda: rig.source.woken)
    assert not rig.waking._waits_for_ends, "checks would be frequent until no client waits"
    await ended(task)


async def test_after_scaling_to_zero_the_next_wake_is_not_delayed(rig):
    rig.begin()
    rig.report(1)
    await rig.look_after(0)
    await rig.look_after(1)
    assert len(rig.source.woken) == 1, "the next attempt would be 4 s later"
    rig.waking.hurry(WEB)
    await rig.look_after(0)
    assert len(rig.source.woken) == 2
    rig.waking.hurry(ServiceKey("shop", "unknown"))


async def test_clients_that_arrive_during_a_long_check_share_the_next_check(rig):
    looks, pauses, over = [], [], asyncio.Event()

    def services():
        looks.append(rig.now)
        rig.now += 2.0
        return rig.cluster.store.snapshot().services

    async def pause(seconds):
        pauses.append(seconds)
        await over.wait()

    plane = rig.plane, rig.served_ports, rig.source
    waking = Waking(
        *plane,
        services,
        rig.usage,
        rig.cordons,
        is_allowed=True,
        clock=lambda: rig.now,
        pause=pause,
    )
    task = asyncio.ensure_future(waking.run())
    rig.begin()
    await until(lambda: pauses)
    for _ in range(3):
        rig.begin()
        await turn()
    assert (len(looks), pauses) == (1, [2.0])
    over.set()
    await until(lambda: len(looks) > 1)
    await ended(task)
