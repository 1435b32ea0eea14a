import pytest

from tests.unit.nodes.dashboard.clusters import look_at, sick_cluster
from userspace_proxy.status.history import Figures
from userspace_proxy.status.selection import SORTS
from userspace_proxy_kubectl.nodes.order import ORDERS, in_order

PORTS = look_at(sick_cluster()).merged.ports
RATES = {port.key: Figures(number, 10 - number, number) for number, port in enumerate(PORTS)}


def test_each_column_of_a_proxys_page_has_an_order():
    assert ORDERS.keys() == SORTS.keys()


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        pytest.param("state", ["cart", "search", "web", "quiet"], id="worst-first"),
        pytest.param("name", ["cart", "quiet", "search", "web"], id="name"),
        pytest.param("address", ["cart", "search", "web", "quiet"], id="address"),
        pytest.param("-nodes", ["web", "cart", "search", "quiet"], id="sick-on-most-nodes"),
        pytest.param("-endpoints", ["search", "web", "cart", "quiet"], id="most-endpoints"),
        pytest.param("-rate", ["quiet", "web", "search", "cart"], id="rate"),
        pytest.param("-in", ["cart", "search", "web", "quiet"], id="in"),
        pytest.param("out", ["cart", "search", "web", "quiet"], id="out"),
        pytest.param("-open", ["cart", "search", "web", "quiet"], id="open"),
    ],
)
def test_equal_ports_are_in_the_order_of_their_names(sort, names):
    found = in_order(PORTS[::-1], sort, RATES.__getitem__)
    assert [port.key.service for port in found] == names
