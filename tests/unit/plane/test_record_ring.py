"""A worker's records, with real connections and flows."""

import socket

import pytest

from tests.port_keys import port_key
from userspace_proxy.dataplane import Tuning
from userspace_proxy.facts.connection import (
    ConnectionEvent,
    ConnectionFacts,
    ConnectionFilter,
    LeftOut,
    port_fields,
)
from userspace_proxy.facts.counters import GroupCounters
from userspace_proxy.model import Handling, Hold
from userspace_proxy.model.connection_ends import EndReason
from userspace_proxy.plane.messages import OBSERVED_MAX, GroupReport, Observed
from userspace_proxy.plane.record_ring import RecordRing

from ..dataplane.peers import exchange
from ..dataplane.rig import UNREACHABLE, Rig
from ..dataplane.waiting import until

ALL = ConnectionFilter()
WEB, DB, ALICE = port_key("shop/web:http"), port_key("shop/db"), "10.0.0.7"
HELD = Handling(hold=Hold(60.0))


class Observer:
    """Observes the connections of a rig that match a filter."""

    def __init__(self, rig, wanted=ALL):
        self.rig = rig
        self.wanted = wanted
        self.records = []
        self.left_out = []
        rig.plane.on_observed = self.take
        rig.plane.observe([wanted])

    def take(self, message):
        if isinstance(message, Observed):
            self.records += message.records
            self.left_out += message.left_out

    def ask(self):
        """Return the records so far."""
        self.rig.plane.observe([self.wanted])
        return self.records

    async def events(self, count):
        """Wait for this many records; return their events."""
        await until(lambda: len(self.ask()) >= count)
        return [str(one.event) for one in self.records]


@pytest.fixture
async def rig():
    rig = Rig()
    yield rig
    rig.close()
    assert rig.bugs == []


async def finished(rig, web, pod):
    """Finish a connection with a question and an answer; return its client's address."""
    client, server = await rig.pair(web, pod)
    await client.send(b"question")
    assert await server.read() == b"question"
    await server.send(b"answer!")
    server.close()
    assert await client.read_all() == b"answer!"
    address = str(client.address)
    client.close()
    return address


async def test_without_a_watcher_there_is_no_connection_log(rig):
    assert rig.engine.connection_log is None
    Observer(rig)
    assert rig.engine.connection_log is not None
    rig.plane.observe([])
    assert rig.engine.connection_log is None


async def test_a_configured_connection_log_stays_enabled_after_the_last_watcher_leaves():
    rig = Rig(Tuning(connection_log=1.0))
    Observer(rig)
    assert rig.engine.connection_log is not None
    assert rig.engine.connection_log.watch
    rig.plane.observe([])
    assert rig.engine.connection_log is not None
    assert not rig.engine.connection_log.watch
    rig.close()


async def test_a_connection_is_observed_when_it_ends(rig):
    observer = Observer(rig)
    pod, web = rig.served()
    client = await finished(rig, web, pod)
    assert await observer.events(1) == ["ended"]
    (one,) = observer.records
    assert (one.service, one.endpoint) == ("shop/web:http", str(pod.address))
    assert (one.client, one.frontend) == (client, str(web.address))
    assert (one.received_bytes, one.sent_bytes, one.dials) == (8, 7, 1)
    assert (one.cause, one.ended_by) == ("complete", "endpoint")
    assert one.at > 1e9


async def test_a_connection_whose_endpoint_sends_nothing_has_no_first_byte(rig):
    observer = Observer(rig)
    client, _ = await rig.both_ends()
    client.reset()
    await observer.events(1)
    assert observer.records[0].first_byte_s is None


async def test_an_endpoint_closing_before_reading_everything_counts_as_ending_first(rig):
    observer = Observer(rig)
    pod = rig.endpoint()
    # This is less than the client sends, so the rest stays in the proxy's socket.
    pod.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client, server = await rig.pair(rig.service(pod.address), pod)
    await client.send(bytes(100_000))
    client.finish()
    await until(lambda: all(c.up and c.up.is_ended for c in rig.connections.open))
    server.finish()
    await observer.events(1)
    (one,) = observer.records
    assert (one.cause, one.ended_by, one.is_failed) == ("complete", "endpoint", True)


async def test_a_saved_connection_is_observed_immediately_and_when_it_ends(rig):
    observer = Observer(rig, ConnectionFilter(saved=True))
    dead, pod = rig.refusing(), rig.endpoint()
    web = rig.service(dead, pod.address)
    client, _ = await rig.pair(web, pod)
    assert await observer.events(1) == ["saved"]
    (one,) = observer.records
    assert [str(failed) for failed in one.failed] == [f"{dead} endpoint-refuses"]
    assert (one.endpoint, one.dials, one.ended_by) == (str(pod.address), 2, "")
    client.reset()
    assert await observer.events(2) == ["saved", "ended"]


async def test_a_connection_reset_during_its_dial_has_no_endpoint_and_no_failed_dial(rig):
    observer = Observer(rig)
    silent = rig.silent()
    await rig.client(rig.service(silent))
    await until(lambda: rig.connections.open)
    rig.connections.reset_all()
    await observer.events(1)
    (one,) = observer.records
    assert (one.endpoint, one.failed, one.dials) == ("", (), 1)


async def test_a_client_leaving_during_a_failed_dial_does_not_count_as_saved():
    rig = Rig(Tuning(connect_timeout_s=0.1))
    observer = Observer(rig)
    silent, pod = rig.silent(), rig.endpoint()
    client = await rig.client(rig.service(silent, pod.address))
    await until(lambda: rig.connections.open)
    client.reset()
    await observer.events(1)
    (one,) = observer.records
    assert (one.event, one.endpoint, one.dials) == (ConnectionEvent.ENDED, "", 1)
    assert [failed.endpoint for failed in one.failed] == [str(silent)]
    assert not one.is_saved
    rig.close()


async def test_the_wait_of_a_client_is_observed_once(rig):
    observer = Observer(rig)
    dead, pod = rig.refusing(), rig.endpoint()
    web = rig.service(dead, handling=HELD)
    client = await rig.client(web)
    assert await observer.events(1) == ["held"]
    assert [str(failed) for failed in observer.records[0].failed] == [f"{dead} endpoint-refuses"]
    rig.update(web, pod.address, handling=HELD)
    await pod.accept()
    client.reset()
    assert await observer.events(2) == ["held", "ended"]


async def test_a_client_leaving_while_waiting_does_not_count_as_refused(rig):
    observer = Observer(rig)
    client = await rig.client(rig.service(handling=HELD))
    await observer.events(1)
    client.reset()
    assert await observer.events(2) == ["held", "ended"]
    assert (observer.records[1].cause, observer.records[1].ended_by) == ("left", "client")


async def test_a_flow_is_observed_when_saved_and_when_it_ends(rig):
    observer = Observer(rig)
    dead, pod = rig.refusing_udp(), rig.udp_peer()
    dns = rig.udp_service(dead, pod.address)
    await exchange(rig.udp_client(dns), pod, b"question", b"answer!")
    assert await observer.events(1) == ["saved"]
    dns.close()
    assert await observer.events(2) == ["saved", "ended"]
    one = observer.records[1]
    # The question was sent twice.
    assert (one.kind, one.received_bytes, one.sent_bytes) == ("flow", 16, 7)
    assert one.first_byte_s is not None
    assert one.is_saved


async def test_a_promptly_answered_flow_needs_only_plain_records(rig, monkeypatch):
    asked = []
    Observer(rig, ConnectionFilter(failed=True))
    ring = rig.link._worker._ring
    monkeypatch.setattr(ring, "has_room", lambda *_, is_plain=False: asked.append(is_plain))
    pod = rig.udp_peer()
    dns = rig.udp_service(pod.address)
    await exchange(rig.udp_client(dns), pod)
    rig.flow.end(EndReason.IDLE)
    assert asked == [True]


async def test_a_datagram_whose_only_endpoint_is_unreachable_is_observed_as_refused(rig):
    observer = Observer(rig)
    client = rig.udp_client(rig.udp_service(UNREACHABLE))
    client.send(b"question")
    assert await observer.events(1) == ["refused"]
    assert (observer.records[0].kind, observer.records[0].cause) == ("flow", "unanswered")


async def test_a_waiting_flow_is_observed(rig):
    observer = Observer(rig)
    rig.udp_client(rig.udp_service(handling=HELD)).send(b"question")
    assert await observer.events(1) == ["held"]


@pytest.mark.parametrize(
    ("filters", "takes"),
    [
        ([ALL], True),
        ([ConnectionFilter(failed=True)], False),
        ([ConnectionFilter(failed=True), ConnectionFilter(saved=True)], False),
        ([ConnectionFilter(failed=True), ConnectionFilter(client=ALICE)], True),
        ([ConnectionFilter(failed=True), ConnectionFilter(client="10.0.0.8")], False),
        ([ConnectionFilter(service="shop/db"), ConnectionFilter(service="shop/web")], True),
        ([ConnectionFilter(service="shop/db")], False),
        ([ConnectionFilter(failed=True, slow_s=1.0)], True),
    ],
)
async def test_record_fields_are_collected_only_if_a_filter_may_match(rig, filters, takes):
    ring = RecordRing(rig.engine)
    ring.observe(filters)
    assert ring.has_room(WEB.name.prefixes, ALICE, is_plain=True) is takes
    assert ring.observe(filters).left_out == []


async def test_a_promptly_served_connection_needs_only_plain_records(rig, monkeypatch):
    asked = []
    Observer(rig, ConnectionFilter(failed=True))
    ring = rig.link._worker._ring
    monkeypatch.setattr(ring, "has_room", lambda *_, is_plain=False: asked.append(is_plain))
    dead, pod = rig.refusing(), rig.endpoint()
    await finished(rig, rig.service(pod.address), pod)
    await until(lambda: asked == [True])
    assert await rig.resets_a_client(rig.service(dead))
    await until(lambda: asked == [True, False])


async def test_a_full_ring_counts_omitted_records(rig):
    ring, one = RecordRing(rig.engine), ConnectionFacts()
    ring.observe([ALL])
    for _ in range(OBSERVED_MAX + 5):
        if ring.has_room(WEB.name.prefixes, ALICE):
            ring.put(one, lambda: None)
    # Fields are collected although the ring is full, because the connection log needs them.
    ring.put(one, lambda: None)
    observed = ring.observe([ALL])
    assert (len(observed.records), observed.left_out) == (OBSERVED_MAX, [LeftOut(ALL, 6)])
    assert ring.observe([ALL]) == Observed([], [])


async def test_omitted_records_are_counted_for_filters_that_may_match(rig):
    ring = RecordRing(rig.engine)
    web, failed = ConnectionFilter(service="shop/web"), ConnectionFilter(failed=True)
    bob = ConnectionFilter(client="10.0.0.8")
    ring.observe([ALL, web, failed, bob])
    for _ in range(OBSERVED_MAX):
        ring.put(ConnectionFacts(**port_fields(WEB), event=ConnectionEvent.REFUSED), lambda: None)
    for key, is_plain in ((WEB, True), (DB, True), (DB, False)):
        assert not ring.has_room(key.name.prefixes, ALICE, is_plain=is_plain)
    left_out = ring.observe([bob]).left_out
    assert left_out == [LeftOut(ALL, 3), LeftOut(web, 1), LeftOut(failed, 1)]


async def test_a_match_all_filter_leaves_room_for_other_filters(rig):
    ring, refused = RecordRing(rig.engine), ConnectionFacts(event=ConnectionEvent.REFUSED)
    ring.observe([ALL, ConnectionFilter(failed=True)])
    for _ in range(500):
        if ring.has_room(WEB.name.prefixes, ALICE, is_plain=True):
            ring.put(ConnectionFacts(event=ConnectionEvent.HELD), lambda: None)
    for _ in range(2):
        assert ring.has_room(WEB.name.prefixes, ALICE)
        ring.put(refused, lambda: None)
    # A connection might have failed until its fields are collected, so has_room() is true. This one
    # matches only ALL, which has no room.
    assert ring.has_room(WEB.name.prefixes, ALICE)
    ring.put(ConnectionFacts(event=ConnectionEvent.HELD), lambda: None)
    observed = ring.observe([ALL])
    assert observed.records.count(refused) == 2
    kept = len(observed.records) - 2
    assert (kept, observed.left_out) == (OBSERVED_MAX - 2, [LeftOut(ALL, 501 - kept)])


async def test_a_full_ring_is_shared_equally_and_keeps_the_oldest_records_in_order(rig):
    ring = RecordRing(rig.engine)
    web, db, cart = (ConnectionFilter(service=f"shop/{name}") for name in ("web", "db", "cart"))
    ring.observe([web, db, cart])
    put_all(ring, {"shop/web": 100, "shop/db": 100, "shop/cart": 10})
    observed = ring.observe([])
    kept = [one.service for one in observed.records]
    assert kept == ["shop/web"] * 59 + ["shop/db"] * 59 + ["shop/cart"] * 10
    assert [one.count for one in observed.records] == [*range(59), *range(59), *range(10)]
    assert observed.left_out == [LeftOut(web, 41), LeftOut(db, 41)]
    ring.observe([web])
    put_all(ring, {"shop/web": 100})
    assert len(ring.observe([]).records) == 100


async def test_a_record_that_matches_several_filters_is_stored_once(rig):
    ring = RecordRing(rig.engine)
    web, db = (ConnectionFilter(service=f"shop/{name}") for name in ("web", "db"))
    ring.observe([ALL, web, db])
    put_all(ring, {"shop/web": OBSERVED_MAX, "shop/db": 1})
    observed = ring.observe([])
    assert [one.service for one in observed.records] == ["shop/web"] * 127 + ["shop/db"]
    assert observed.left_out == [LeftOut(ALL, 1), LeftOut(web, 1)]


def put_all(ring, numbers):
    for service, number in numbers.items():
        key = port_key(service)
        for each in range(number):
            if ring.has_room(key.name.prefixes, ALICE):
                ring.put(ConnectionFacts(**port_fields(key), count=each), lambda: None)


def drops(**figures):
    values = tuple(figures.get(name, 0) for name in GroupCounters.names)
    return GroupReport(7, values)


async def test_dropped_packets_are_recorded_with_their_number_and_cause(rig):
    ring = RecordRing(rig.engine)
    ring.note_drops(WEB, drops(denied=3))
    assert ring.observe([ConnectionFilter(failed=True)]).records == []
    ring.note_drops(WEB, drops(denied=4, dropped_datagrams=2))
    ring.note_drops(WEB, drops(refused=9))
    records = ring.observe([ALL]).records
    assert [(one.event, one.count, one.cause) for one in records] == [
        (
            ConnectionEvent.DROPPED,
            4,
            "packets that source ranges or traffic policy Local don't admit",
        ),
        (ConnectionEvent.DROPPED, 2, "datagrams (mostly because a buffer was full)"),
    ]
