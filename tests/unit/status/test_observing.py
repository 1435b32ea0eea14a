import asyncio
import contextlib

import pytest

from tests.port_keys import port_key
from userspace_proxy.facts.connection import (
    FILTERS_MAX,
    ConnectionEvent,
    ConnectionFacts,
    ConnectionFilter,
    LeftOut,
    port_fields,
)
from userspace_proxy.facts.edges import Calls
from userspace_proxy.model import DataPath, Handling, Hold
from userspace_proxy.policy import PathDecision
from userspace_proxy.status.observing import (
    RING,
    Collector,
    Observing,
    TooManyWatched,
    Watcher,
    unseen,
)

from ..dataplane.waiting import turns
from .views import make_endpoint, make_port, make_view

ALL, FAILED = ConnectionFilter(), ConnectionFilter(failed=True)
IN_KERNEL = PathDecision(DataPath.KERNEL)
WEB, DB = (
    ConnectionFacts(**port_fields(port_key(f"shop/{name}")), client="10.0.0.7:1")
    for name in ("web", "db")
)


async def test_a_watcher_receives_matching_connections():
    observing = Observing()
    with observing.watch(Watcher(ConnectionFilter(service="shop/web"))) as watcher:
        observing.deliver([WEB, DB])
        assert await watcher.take(10.0) == [WEB]


async def test_a_watcher_without_connections_takes_an_empty_list_after_a_timeout():
    assert await Watcher(ALL).take(0.001) == []


async def test_a_watcher_waits_for_the_next_connection():
    watcher = Watcher(ALL)
    for _ in range(2):
        taking = asyncio.create_task(watcher.take(60.0))
        await turns(2)
        assert not taking.done()
        watcher.put([WEB])
        assert await taking == [WEB]


async def test_a_slow_watcher_loses_the_oldest_records_and_gets_their_number():
    watcher = Watcher(ALL)
    watcher.put([DB] * 3 + [WEB] * RING, 4)
    *records, note = await watcher.take(10.0)
    assert records == [WEB] * RING
    assert (note.event, note.count) == (ConnectionEvent.LEFT_OUT, 7)
    watcher.put([WEB])
    assert await watcher.take(10.0) == [WEB]


async def test_a_watcher_is_notified_only_of_omitted_connections_that_may_match():
    observing, web, failed = Observing(), ConnectionFilter(service="shop/web"), FAILED
    with observing.watch(Watcher(web)) as of_web, observing.watch(Watcher(failed)) as of_failed:
        observing.deliver([], [LeftOut(ALL, 9), LeftOut(failed, 3)])
        observing.deliver([], [LeftOut(failed, 1)])
        assert await of_web.take(0.001) == []
        (note,) = await of_failed.take(10.0)
    assert (note.event, note.count) == (ConnectionEvent.LEFT_OUT, 4)
    assert note.cause == "too many at a time; not all of them may have failed, been saved or slow"


def test_the_number_of_filters_is_bounded():
    observing = Observing()
    with contextlib.ExitStack() as watching:
        for n in range(FILTERS_MAX):
            of_one = Watcher(ConnectionFilter(service=f"shop/{n}"))
            watching.enter_context(observing.watch(of_one))
        watching.enter_context(observing.watch(Watcher(of_one.wanted)))
        with pytest.raises(TooManyWatched, match="64 different filters"):
            watching.enter_context(observing.watch(Watcher(ALL)))
        assert len(observing.filters()) == FILTERS_MAX


async def test_a_connection_list_is_bounded_and_drops_the_oldest_connections(monkeypatch):
    observing = Observing()
    with observing.watch(Collector(ALL)) as collector:
        observing.deliver([WEB])
        records = collector.records
        assert records == [WEB]
        observing.deliver([DB] * RING, [LeftOut(ALL, 3)])
    observing.deliver([WEB])
    assert records[:-1] == [DB] * (RING - 1)
    assert (records[-1].event, records[-1].count) == (ConnectionEvent.LEFT_OUT, 3)


async def test_workers_are_queried_only_while_a_watcher_exists():
    observing = Observing()
    assert (observing.filters(), observing.is_on.is_set()) == ([], False)
    with observing.watch(Watcher(ALL)):
        with observing.watch(Watcher(ALL)):
            pass
        assert (observing.filters(), observing.is_on.is_set()) == ([ALL], True)
    assert (observing.filters(), observing.is_on.is_set()) == ([], False)


async def test_the_client_table_has_pods_and_call_times():
    observing = Observing(lambda: 17.0)
    observing.add_calls([Calls(port_key("shop/web"), "10.0.0.7", 2)], 1, lambda _ip: "shop/cart-1")
    edges = observing.edges(ALL)
    assert [(edge.client_pod, edge.last_at) for edge in edges.edges] == [("shop/cart-1", 17.0)]
    assert edges.others == 1
    assert observing.edges(ConnectionFilter(service="db")).edges == ()


def reasons(*ports, wanted=ALL, announcing=()):
    notes = unseen(make_view(*ports, announcing=announcing), wanted, 17.0)
    return [(note.service, note.cause, note.count) for note in notes]


def test_connections_through_the_proxy_are_observable():
    assert reasons(make_port("web")) == []


def test_kernel_path_connections_are_not_observable():
    (note,) = reasons(make_port("web", path=IN_KERNEL), make_port("cart"))
    assert note[0] == "shop/web:http"
    assert "the kernel leads its connections straight to endpoints" in note[1]


def test_kernel_path_connections_translated_by_rules_are_not_observable():
    (note,) = reasons(make_port("web", path=IN_KERNEL, socket_connections=0))
    assert note[1].startswith("rules lead them past this proxy")


def test_connections_refused_by_the_kernel_are_not_observable():
    port = make_port("web", endpoints=(), reason="It has no endpoints")
    assert reasons(port) == [("shop/web:http", port.state.sentence, 0)]
    assert reasons(port, wanted=ConnectionFilter(service="shop/db")) == []


@pytest.mark.parametrize(
    ("kinds", "shown"),
    [
        pytest.param({"saved": True}, [], id="neither-path-saves-a-connection"),
        pytest.param({"slow_s": 1.0}, ["shop/fast:http"], id="refused-clients-do-not-wait"),
        pytest.param({"failed": True}, ["shop/fast:http", "shop/web:http"], id="both-may-fail"),
        pytest.param(
            {"failed": True, "saved": True}, ["shop/fast:http", "shop/web:http"], id="either"
        ),
    ],
)
def test_only_ports_that_may_match_are_named_as_unobservable(kinds, shown):
    ports = (
        make_port("fast", path=IN_KERNEL),
        make_port("web", endpoints=(), reason="It has no endpoints"),
        make_port("cart"),
    )
    assert [service for service, *_ in reasons(*ports, wanted=ConnectionFilter(**kinds))] == shown


def test_all_unobservable_ports_are_listed_if_no_connection_can_match():
    ports = make_port("fast", path=IN_KERNEL), make_port("web", endpoints=(), reason="None")
    notes = reasons(*ports, wanted=ConnectionFilter(saved=True))
    assert [service for service, *_ in notes] == ["shop/fast:http", "shop/web:http"]


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        pytest.param(
            {"saved": True},
            "it has one usable endpoint: there is no other to save a connection",
            id="nothing-to-save-with",
        ),
        pytest.param(
            {"client": "fd00::1"},
            "it has no IPv6 address that fd00::1 could dial",
            id="client-of-another-family",
        ),
        pytest.param(
            {"client": "10.0.0.7"},
            "packets from 10.0.0.7 are dropped, as it isn't admitted",
            id="client-that-is-not-admitted",
        ),
    ],
)
def test_a_filter_that_cannot_match_is_reported(wanted, why):
    one = make_endpoint("10.244.1.7:80")
    port = make_port("web", endpoints=(one,), admits=("192.0.2.0/24",))
    assert reasons(port, wanted=ConnectionFilter(**wanted)) == [("shop/web:http", why, 0)]


@pytest.mark.parametrize("client", ["fd00::1", "10.0.0.7"])
def test_a_client_announced_by_a_load_balancer_may_have_any_address(client):
    wanted = ConnectionFilter(client=client)
    admitted, balancer = ("192.0.2.0/24",), ("192.0.2.10/32",)
    for port in make_port("web", admits=admitted), make_port("web"):
        assert reasons(port, wanted=wanted, announcing=balancer) == []
    assert reasons(port, wanted=ConnectionFilter(client="fd00::1"), announcing=("2001:db8::/32",))


@pytest.mark.parametrize(
    ("port", "announcing"),
    [
        pytest.param({"protocol": "UDP"}, "192.0.2.10/32", id="udp-has-no-header"),
        pytest.param({}, "198.51.100.10/32", id="not-admitted"),
        pytest.param({}, "2001:db8::10/128", id="other-family"),
    ],
)
def test_udp_and_load_balancers_that_cannot_reach_a_port_announce_no_clients(port, announcing):
    one = make_port("web", admits=("192.0.2.0/24",), **port)
    ((_, why, _),) = reasons(
        one, wanted=ConnectionFilter(client="10.0.0.7"), announcing=(announcing,)
    )
    assert why == "packets from 10.0.0.7 are dropped, as it isn't admitted"


def test_waiting_clients_are_observable():
    held = Handling(hold=Hold(30.0))
    assert reasons(make_port("web", endpoints=(), reason="None", handling=held)) == []


def test_only_the_first_ten_unobservable_ports_are_named():
    notes = reasons(*(make_port(f"web-{n:02}", path=IN_KERNEL) for n in range(12)))
    assert [service for service, *_ in notes[9:]] == ["shop/web-09:http", ""]
    assert notes[10][2] == 2
