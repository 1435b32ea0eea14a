"""Tests of looking up endpoints' names, with a clock that the test advances."""

import asyncio
import logging
from dataclasses import replace

import pytest

from userspace_proxy.agent.rounds.tasks import Supervisor, first_of
from userspace_proxy.cluster import Store
from userspace_proxy.cluster.forbidden import ClusterNetworks, ForbiddenAddresses
from userspace_proxy.cluster.host_queue import SLOTS
from userspace_proxy.lookup.endpoint_lookups import EndpointLookups
from userspace_proxy.model import Handling, IPFamily, ServiceKey
from userspace_proxy.model.endpoint_names import EndpointName, Lookup, NameState

from ..agent.samples import service
from ..agent.watched import until

V4 = IPFamily.IPV4
DB = "db.example.com"
SILENT_S = 5.0
GONE = Lookup({V4: ()}, why="no such name")
UNANSWERABLE = "198.51.100."
"""The check for the node's own addresses raises an exception for these addresses."""


class Rig:
    """Endpoint look-ups with responses and a clock that the test controls."""

    def __init__(self, look_up=None):
        self.published = None
        self.store = Store()
        self.now = 100.0
        self.moved = asyncio.Event()
        self.asked = []
        self.answers = {}
        self.own = set()
        self.gate = None
        self.gates = {}
        """By name: an event that its look-up awaits."""
        self.silent = ""
        """The prefix of names whose look-ups time out."""
        self.turns = 0
        """The number of updates that had to wait for their turn."""
        self.turning = asyncio.Event()
        self.turning.set()
        self.waits = []
        self.supervisor = Supervisor()
        self.lookups = EndpointLookups(
            ("example.com",),
            ForbiddenAddresses(ClusterNetworks(), self._is_own),
            self.publish,
            look_up=look_up or self._look_up,
            turn=self._turn,
            wait=self._wait,
            clock=lambda: self.now,
        )

    def _is_own(self, ip):
        if ip.startswith(UNANSWERABLE):
            raise ZeroDivisionError(ip)
        return ip in self.own

    async def __aenter__(self):
        self.supervisor.start("derivation", self.lookups.follow)
        for _ in range(SLOTS):
            self.supervisor.start("lookups", self.lookups.work)
        return self

    async def __aexit__(self, *_exc):
        await self.supervisor.stop()

    async def publish(self, snapshot):
        self.published = snapshot

    async def _turn(self):
        self.turns += not self.turning.is_set()
        await self.turning.wait()

    async def _look_up(self, host, families):
        self.asked.append((host, families))
        if (gate := self.gates.get(host, self.gate)) is not None:
            await gate.wait()
        if self.silent and host.startswith(self.silent):
            await self._pass(self.now + SILENT_S)
            return Lookup({}, why="no server answers")
        answer = self.answers.get(host, GONE)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _wait(self, event, seconds):
        self.waits.append(seconds)
        await first_of(event.wait(), self._pass(self.now + seconds))

    async def _pass(self, until):
        while self.now < until:
            await self.moved.wait()

    def advance(self, seconds):
        """Advance the clock."""
        self.now += seconds
        self.moved.set()
        self.moved = asyncio.Event()

    async def pass_by(self, seconds):
        """Advance the clock in small steps, and run everything that becomes due."""
        until = self.now + seconds
        while self.now < until:
            self.advance(0.25)
            for _ in range(30):
                turn = asyncio.Event()
                asyncio.get_running_loop().call_soon(turn.set)
                await turn.wait()

    async def put(self, *hosts, name="db", namespace="shop"):
        names = tuple(EndpointName(host, 5433) for host in hosts or (DB,))
        made = service(name, "10.96.0.1", handling=Handling(names=names))
        self.store.put_service(replace(made, key=ServiceKey(namespace, name)))
        self.lookups.take(self.store.snapshot())
        await until(lambda: not self.lookups.is_behind)

    def ips(self):
        slices = [item for state in self.published.services.values() for item in state.slices]
        return [endpoint.ip for item in slices for endpoint in item.endpoints]

    def states(self):
        slices = [item for state in self.published.services.values() for item in state.slices]
        return [problem.state for item in slices for problem in item.problems]


async def test_a_name_is_looked_up_again_after_its_ttl():
    async with Rig() as rig:
        rig.answers[DB] = Lookup({V4: ("203.0.113.1",)}, 30)
        await rig.put()
        await until(rig.ips)
        await until(lambda: rig.waits)
        assert set(rig.waits) == {30.0}
        rig.answers[DB] = Lookup({V4: ("203.0.113.2",)}, 30)
        rig.advance(30)
        await until(lambda: rig.ips() == ["203.0.113.2"])
        assert len(rig.asked) == 2


async def test_a_failure_keeps_the_addresses_and_its_start_and_end_are_logged_once(caplog):
    caplog.set_level(logging.INFO)
    async with Rig() as rig:
        rig.answers[DB] = Lookup({V4: ("203.0.113.1",)}, 30)
        await rig.put()
        await until(rig.ips)
        rig.answers[DB] = GONE
        rig.advance(30)
        await until(lambda: rig.states() == [NameState.STALE])
        assert rig.ips() == ["203.0.113.1"]
        rig.answers[DB] = Lookup({V4: ("203.0.113.1",)}, 30)
        rig.advance(30)
        await until(lambda: not rig.states())
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("WARNING", f"{DB}: cannot resolve endpoint host name, keeping its addresses: {GONE.why}"),
        ("INFO", f"{DB}: endpoint host name resolves now"),
    ]


async def test_a_never_resolved_name_is_logged(caplog):
    async with Rig() as rig:
        await rig.put()
        await until(lambda: rig.states() == [NameState.UNRESOLVED])
    message = f"{DB}: endpoint host name has no usable address: {GONE.why}"
    assert [r.getMessage() for r in caplog.records] == [message]


async def test_services_are_updated_in_turns_and_a_newer_snapshot_is_picked_up():
    async with Rig() as rig:
        await rig.put()
        before = rig.published
        rig.turning.clear()
        names = (EndpointName(DB, 5433),)
        for name in ("one", "two"):
            rig.store.put_service(service(name, "10.96.0.2", handling=Handling(names=names)))
            rig.lookups.take(rig.store.snapshot())
            await until(lambda: rig.turns)
        assert rig.published is before
        assert rig.lookups.is_behind
        rig.turning.set()
        await until(lambda: len(rig.published.services) == 3)
        await until(lambda: not rig.lookups.is_behind)


async def follow(rig, ip):
    """Change the address of a name; return the seconds until it is published."""
    rig.answers[DB] = Lookup({V4: (ip,)}, 5)
    began = rig.now
    while ip not in rig.ips() and rig.now < began + 60:
        await rig.pass_by(0.5)
    return rig.now - began


async def put_silent(rig):
    """Add six Services with 96 endpoint names whose look-ups time out."""
    rig.silent = "s"
    for n in range(6):
        await rig.put(*(f"s{n}-{m}.example.com" for m in range(16)), name=f"silent{n}")


@pytest.mark.parametrize("namespace", ["other", "shop"])
async def test_a_changed_name_is_published_within_ten_seconds_despite_silent_names(namespace):
    async with Rig() as rig:
        await rig.put(DB, namespace=namespace)
        await follow(rig, "203.0.113.1")
        await put_silent(rig)
        late = []
        for change in range(2, 22):
            late.append(await follow(rig, f"203.0.113.{change}"))
            # This pause varies the phase between the changes and the silent names' look-ups.
            await rig.pass_by(7.5)
    assert max(late) <= 10


async def test_a_released_lookup_slot_can_admit_a_name_of_each_namespace():
    async with Rig() as rig:
        for host, ttl_s in (("a1.example.com", 5), ("a2.example.com", 10)):
            rig.answers[host] = Lookup({V4: ("203.0.113.1",)}, ttl_s)
        await rig.put("a1.example.com", "a2.example.com", namespace="a")
        failing = [f"s{number}.example.com" for number in range(3)]
        await rig.put(*failing, name="s", namespace="a")
        await rig.put("b.example.com", namespace="b")
        await until(lambda: len(rig.asked) == 6)
        held = [*failing, *(f"{host}.example.com" for host in ("a1", "a2", "b", "c"))]
        rig.gates = {host: asyncio.Event() for host in held}
        await rig.pass_by(10)
        # s0 to s2, b and a1 are being looked up, four of them in namespace a: a2 and c wait.
        await rig.put("c.example.com", namespace="c")
        await rig.pass_by(1)
        assert len(rig.asked) == 11
        rig.gates[failing[0]].set()
        await until(lambda: len(rig.asked) == 13)
        assert {host for host, _ in rig.asked[11:]} == {"a2.example.com", "c.example.com"}


async def test_after_an_unexpected_exception_the_name_is_looked_up_again(caplog):
    async with Rig() as rig:
        rig.answers[DB] = RuntimeError("a bug")
        await rig.put()
        await until(lambda: rig.asked)
        await until(lambda: rig.lookups._endpoints.hosts.next_at() is not None)
        rig.answers[DB] = Lookup({V4: ("203.0.113.1",)}, 30)
        rig.advance(30)
        await until(rig.ips)
    assert "bug: background task lookups failed" in caplog.text


async def test_each_bug_of_a_service_is_logged_once_and_other_services_continue(caplog):
    async with Rig() as rig:
        rig.answers["bad.example.com"] = Lookup({V4: (f"{UNANSWERABLE}1",)}, 30)
        rig.answers[DB] = Lookup({V4: ("203.0.113.1",)}, 30)
        await rig.put("bad.example.com", name="bad")
        await rig.put()
        await until(rig.ips)
        await until(lambda: caplog.records)
        rig.answers[DB] = Lookup({V4: ("203.0.113.2",)}, 30)
        rig.advance(30)
        await until(lambda: rig.ips() == ["203.0.113.2"])
        rig.answers["bad.example.com"] = Lookup({V4: (f"{UNANSWERABLE}2",)}, 30)
        rig.advance(30)
        await until(lambda: len(caplog.records) == 2)
    for number, record in enumerate(caplog.records, 1):
        assert (record.levelname, record.service) == ("ERROR", "shop/bad")
        assert record.cause.startswith(f"ZeroDivisionError('{UNANSWERABLE}{number}') at ")
        assert record.getMessage().startswith("bug: ")


async def test_an_address_assigned_to_the_node_stops_being_an_endpoint():
    async with Rig() as rig:
        rig.answers[DB] = Lookup({V4: ("203.0.113.1",)}, 30)
        await rig.put()
        await until(rig.ips)
        rig.own.add("203.0.113.1")
        rig.lookups.look_again()
        await until(lambda: rig.states() == [NameState.FORBIDDEN])
        assert rig.ips() == []
