import msgspec
import pytest

from tests.port_keys import port_key
from userspace_proxy.facts import edges as module
from userspace_proxy.facts.edges import (
    CALLS_MAX,
    EDGES_MAX,
    EDGES_OF_A_PORT,
    STALE_S,
    CallCounts,
    Calls,
    Edges,
)

ALICE, BOB = "10.244.0.7", "10.244.0.8"
WEB, DB = port_key("shop/web:http"), port_key("shop/db")


class Group:
    """The attributes of an endpoint group that CallCounts requires."""

    def __init__(self, key):
        self.key = key


def rows(edges):
    return [(row.client, port_key(row.service), row.connections) for row in edges.facts().edges]


def test_calls_are_counted_by_service_and_client_until_taken():
    counts, web, db = CallCounts(), Group(WEB), Group(DB)
    for client in (ALICE, BOB, ALICE):
        counts.add(web, client)
    counts.add(db, ALICE)
    assert counts.take() == (
        [Calls(WEB, ALICE, 2), Calls(WEB, BOB, 1), Calls(DB, ALICE, 1)],
        0,
    )
    assert counts.take() == ([], 0)


def test_failed_calls_are_counted_when_they_end_even_for_reported_clients():
    counts, web = CallCounts(), Group(WEB)
    counts.add(web, ALICE)
    counts.take()
    counts.fail(web, ALICE)
    counts.add(web, BOB)
    counts.fail(web, BOB)
    calls, _ = counts.take()
    assert calls == [Calls(WEB, ALICE, 0, 1), Calls(WEB, BOB, 1, 1)]
    assert counts.take() == ([], 0)
    edges = Edges()
    edges.add([Calls(WEB, ALICE, 2)], 0, 10.0)
    edges.add(calls, 0, 12.0)
    assert [(row.client, row.failed, row.last_at) for row in edges.facts().edges] == [
        (ALICE, 1, 10.0),
        (BOB, 1, 12.0),
    ]


def test_failed_calls_add_no_entry_to_a_full_table():
    counts, web = CallCounts(), Group(WEB)
    for number in range(CALLS_MAX):
        counts.add(web, str(number))
    counts.fail(web, ALICE)
    counts.fail(web, "0")
    calls, left_out = counts.take()
    assert (len(calls), calls[0].failed, left_out) == (CALLS_MAX, 1, 0)
    assert sum(one.failed for one in calls) == 1


def test_calls_beyond_a_full_table_are_counted_together():
    counts, web = CallCounts(), Group(WEB)
    for number in range(CALLS_MAX + 3):
        counts.add(web, str(number))
    counts.add(web, "0")
    calls, left_out = counts.take()
    assert (len(calls), calls[0].number, left_out) == (CALLS_MAX, 2, 3)
    assert counts.take() == ([], 0)


def test_the_client_table_lists_the_busiest_clients_first_with_pods():
    edges, pod_of = Edges(), {ALICE: "shop/cart-1", BOB: ""}.__getitem__
    edges.add([Calls(WEB, BOB, 1), Calls(WEB, ALICE, 2)], 0, 10.0, pod_of)
    edges.add([Calls(WEB, ALICE, 3)], 4, 12.0, pod_of)
    facts = edges.facts()
    assert rows(edges) == [(ALICE, WEB, 5), (BOB, WEB, 1)]
    assert [(row.client_pod, row.last_at) for row in facts.edges] == [
        ("shop/cart-1", 12.0),
        ("", 10.0),
    ]
    assert facts.others == 4


def test_calls_belong_to_the_pod_that_had_the_address_at_the_time():
    edges = Edges()
    for connections, pod in ((4, "shop/cart-1"), (3, ""), (2, "shop/api-9"), (1, "shop/cart-1")):
        edges.add([Calls(WEB, ALICE, connections)], 0, 10.0, {ALICE: pod}.__getitem__)
    assert [(row.client, row.client_pod, row.connections) for row in edges.facts().edges] == [
        (ALICE, "shop/cart-1", 5),
        (ALICE, "", 3),
        (ALICE, "shop/api-9", 2),
    ]


def test_the_client_table_contains_only_the_selected_services():
    edges = Edges()
    edges.add([Calls(WEB, BOB, 1), Calls(DB, BOB, 1)], 0, 10.0)
    shown = edges.facts(lambda prefixes: "shop/web" in prefixes).edges
    assert [row.service for row in shown] == ["shop/web:http"]


def test_a_flood_of_clients_of_a_port_causes_only_one_search_for_an_entry_to_evict(monkeypatch):
    searched, has_place = [], Edges._has_place

    def search(edges, key, now):
        searched.append(key)
        return has_place(edges, key, now)

    edges = Edges()
    edges.add([Calls(WEB, str(n), 1) for n in range(EDGES_OF_A_PORT)], 0, 10.0)
    monkeypatch.setattr(Edges, "_has_place", search)
    flood = [Calls(WEB, f"new {n}", 1) for n in range(1000)]
    edges.add([*flood, Calls(DB, ALICE, 1)], 0, 20.0)
    assert searched == [WEB, DB]
    facts = edges.facts()
    assert (len(facts.edges), facts.others) == (EDGES_OF_A_PORT + 1, 1000)


@pytest.mark.parametrize(
    ("service", "most"), [("shop/web:http", EDGES_OF_A_PORT), ("shop/{}", EDGES_MAX)]
)
def test_a_full_table_evicts_its_longest_inactive_client_once_stale(service, most, monkeypatch):
    edges, keys = Edges(), [port_key(service.format(n)) for n in range(most)]
    edges.add([Calls(key, str(n), 2) for n, key in enumerate(keys)], 0, 10.0)
    edges.add([Calls(keys[0], "0", 1)], 0, 20.0)
    newcomer = Calls(WEB if WEB in keys else port_key("shop/new"), ALICE, 1)
    edges.add([newcomer], 0, 10.0 + STALE_S - 1)
    assert edges.facts().others == 1
    edges.add([newcomer], 0, 10.0 + STALE_S)
    facts = edges.facts()
    assert (len(facts.edges), facts.others) == (most, 3)
    clients = {row.client for row in facts.edges}
    assert ALICE in clients
    assert "0" in clients
    assert "1" not in clients


def test_evicting_an_entry_also_lowers_the_count_of_its_service_port(monkeypatch):
    monkeypatch.setattr(module, "EDGES_MAX", 1)
    monkeypatch.setattr(module, "EDGES_OF_A_PORT", 1)
    edges = Edges()
    edges.add([Calls(WEB, ALICE, 1)], 0, 0.0)
    edges.add([Calls(DB, ALICE, 1)], 0, STALE_S)
    edges.add([Calls(WEB, ALICE, 1)], 0, 2 * STALE_S)
    assert rows(edges) == [(ALICE, WEB, 1)]


def test_a_call_count_with_an_overlong_service_name_is_rejected():
    sent = msgspec.json.encode(Calls(WEB, ALICE, 1)).replace(b"web", b"w" * 1100)
    with pytest.raises(msgspec.ValidationError, match="more than 1024 characters"):
        msgspec.json.decode(sent, type=Calls)
