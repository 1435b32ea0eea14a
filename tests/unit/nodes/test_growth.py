import pytest

from tests.unit.nodes.dashboard.clusters import look_at, sick_cluster
from userspace_proxy.status.history import Figures
from userspace_proxy.status.selection import SORTS
from userspace_proxy_kubectl.nodes.growth import ORDERS, growth_of, in_order, rates_of

from .views import NOW, at, merged_of


def test_rates_of_nodes_are_computed_by_their_own_clocks_and_summed():
    before, now = at(NOW, 100, 500), at(NOW + 4, 140, 502)
    (rates,) = rates_of(now, before).values()
    assert rates == Figures(connections=10.5)


def test_the_rate_of_a_restarted_agent_is_computed_since_its_restart():
    before = at(NOW, 100)
    now = at(NOW + 4, 30, started=[NOW + 2])
    (rates,) = rates_of(now, before).values()
    assert rates.connections == 15.0


def test_counters_without_a_previous_value_add_nothing_to_a_rate():
    first = at(NOW, 100)
    assert rates_of(at(NOW + 1, 100, 100), first).popitem()[1] == Figures()
    assert rates_of(first, merged_of()) == {}


def test_a_nodes_stopped_or_impossible_clock_yields_no_rate():
    assert rates_of(at(NOW, 200), at(NOW, 100)).popitem()[1] == Figures()
    slewed = at(NOW, 200, started=NOW - 999.5)
    assert rates_of(slewed, at(NOW, 100)).popitem()[1] == Figures()
    later = at(NOW + 1, 200, started=[NOW + 9])
    assert rates_of(later, at(NOW, 100)).popitem()[1] == Figures()


@pytest.mark.parametrize("set_by", [5.0, -5.0, 1e9])
def test_setting_an_agents_clock_does_not_count_as_a_restart(set_by):
    before = at(NOW, 100)
    now = at(NOW + 4 + set_by, 140, started=NOW - 1000 + set_by)
    assert list(growth_of(now, before).values()) == [Figures(connections=40)]
    assert [rates.connections for rates in rates_of(now, before).values()] == [10.0]


def test_growth_adds_the_differences_of_all_nodes():
    before, now = at(NOW, 100, 500), at(NOW + 4, 140, 502)
    assert list(growth_of(now, before).values()) == [Figures(connections=42)]
    assert list(growth_of(now, now).values()) == [Figures()]
    before = at(NOW, 100, received_bytes=1, sent_bytes=2, saved=3)
    now = at(NOW + 4, 140, received_bytes=11, sent_bytes=22, saved=33)
    assert list(growth_of(now, before).values()) == [Figures(40, 10, 20, 30)]


PORTS = look_at(sick_cluster()).merged.ports
RATES = {port.key: Figures(number, 10 - number, number) for number, port in enumerate(PORTS)}


def test_sort_orders_cover_every_column_of_a_proxys_page():
    assert ORDERS.keys() == SORTS.keys()


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        pytest.param("state", ["cart", "search", "web", "quiet"], id="worst-first"),
        pytest.param("name", ["cart", "quiet", "search", "web"], id="name"),
        pytest.param("address", ["cart", "search", "web", "quiet"], id="address"),
        pytest.param("-nodes", ["web", "cart", "search", "quiet"], id="unhealthy-on-most-nodes"),
        pytest.param("-endpoints", ["search", "web", "cart", "quiet"], id="most-endpoints"),
        pytest.param("-rate", ["quiet", "web", "search", "cart"], id="rate"),
        pytest.param("-in", ["cart", "search", "web", "quiet"], id="in"),
        pytest.param("out", ["cart", "search", "web", "quiet"], id="out"),
        pytest.param("-open", ["cart", "search", "web", "quiet"], id="open"),
    ],
)
def test_ports_are_sorted_by_the_selected_column_and_then_by_name(sort, names):
    found = in_order(PORTS[::-1], sort, RATES.__getitem__)
    assert [port.key.service for port in found] == names
