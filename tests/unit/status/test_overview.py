from userspace_proxy.diagnosis.paths import PathView
from userspace_proxy.facts import Level
from userspace_proxy.model import DataPath
from userspace_proxy.status.history import History
from userspace_proxy.status.overview import make_overview

from .views import make_endpoint, make_port, replace


def overview_of(*ports):
    return make_overview(ports, History())


def cells(area):
    return "".join(run.cells for run in area.runs)


CART = make_port("cart", endpoints=(), reason="it has no endpoints")
DEAD = make_port("dead", endpoints=(make_endpoint("10.244.1.1:80", ejected_for_s=4.0),))


def test_cells_are_grouped_by_namespace_and_sorted_by_name():
    overview = overview_of(
        make_port("web"), make_port("dns", namespace="kube-system", active=0), DEAD, CART
    )
    assert [area.namespace for area in overview.areas] == ["kube-system", "shop"]
    assert [cells(area) for area in overview.areas] == ["▫", "▲✖■"]
    assert [(area.count, area.unhealthy) for area in overview.areas] == [(1, 0), (3, 2)]


def test_states_are_counted_in_order_of_severity():
    counts = overview_of(make_port("a"), make_port("b"), CART, DEAD).counts
    assert counts == (
        ("not answering", Level.TROUBLE, 1),
        ("refused", Level.ATTENTION, 1),
        ("served", Level.OK, 2),
    )


def test_a_port_of_unknown_state_counts_as_neither_ok_nor_unhealthy():
    unseen = replace(make_port("b"), path=PathView(DataPath.KERNEL))
    dropped = make_port("c", is_dropping=True, reason="none is on this node")
    overview = overview_of(make_port("a"), unseen, dropped)
    (area,) = overview.areas
    assert ([(run.kind, run.cells) for run in area.runs], area.unhealthy) == (
        [("busy", "■"), ("unused", "··")],
        0,
    )
    assert overview.counts == (
        ("served", Level.OK, 1),
        ("unknown", None, 1),
        ("dropped", None, 1),
    )


def test_the_cells_of_a_larger_cluster_are_smaller():
    ports = [make_port(f"web-{n:05}", endpoints=(), reason="none") for n in range(1500)]
    overview = overview_of(*ports)
    assert overview.size == "small"
    (area,) = overview.areas
    assert [run.cells for run in area.runs] == ["▲" * 1500]
    assert overview_of(make_port("a")).size == "large"
    assert overview_of(*ports[:500]).size == "medium"
