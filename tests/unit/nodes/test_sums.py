from userspace_proxy.facts import PortFacts, Waits
from userspace_proxy_kubectl.nodes.sums import (
    NOTHING,
    Sums,
    added,
    of_endpoint,
    of_port,
    since,
)

from .views import answering


def test_counters_of_all_nodes_are_summed():
    assert added([Sums(1, 10), Sums(2, 20, failed=3)]) == Sums(3, 30, failed=3)
    assert added([]) == NOTHING


def test_sums_contain_the_counters_of_a_service_port_or_an_endpoint():
    port = PortFacts(active=1, connections=2, refused=3, saved=4, waits=Waits(waiting=5))
    assert of_port(port) == Sums(1, 2, failed=3, refused=3, saved=4, waiting=5)
    endpoint = answering(failures=2, connections=9, sent_bytes=7)
    assert of_endpoint(endpoint) == Sums(connections=9, failed=2, sent_bytes=7)


def test_impossible_counter_values_are_ignored():
    port = PortFacts(active=-1, received_bytes=7)
    assert of_port(port) == Sums(received_bytes=7)


def test_a_decreased_counter_counts_as_not_grown():
    assert since(Sums(5, 10, 1), Sums(4, 20, 1)) == Sums(1, 0, 0)
