from tests.unit.nodes.dashboard.clusters import look_at, sick_cluster
from userspace_proxy.status.history import Figures
from userspace_proxy.status.selection import SORTS
from userspace_proxy_kubectl.nodes.sorted_port import SortedPort


def test_a_port_of_all_nodes_can_be_sorted_by_each_column():
    (web,) = (port for port in look_at(sick_cluster()).merged.ports if port.key.service == "web")
    one = SortedPort(web, Figures(7, 1, 2))
    found = {name: key(one) for name, key in SORTS.items()}
    assert (found["rate"], found["in"], found["out"]) == (7, 1, 2)
    assert (found["nodes"], found["endpoints"]) == (web.ill, len(web.endpoints)) == (3, 2)
    assert found["name"] == web.key
    assert (found["open"], found["saved"], found["failed"]) == (
        web.sums.active,
        web.sums.saved,
        web.sums.failed,
    )
