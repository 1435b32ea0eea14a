"""The counters of one Service."""

import pytest

from tests.unit.status.views import make_endpoint, make_port
from userspace_proxy_testing.stats import stats_of

ONE = make_endpoint("10.244.0.1:80", connections=3, failures=1)
TWO = make_endpoint("10.244.0.2:80", connections=4)


def test_counters_of_both_families_are_summed():
    ports = [
        make_port(endpoints=(ONE, TWO), connections=7, failures=1, active=2, saved=1, refused=5),
        make_port(endpoints=(), connections=1, failures=2, active=1, saved=2, refused=1),
    ]
    stats = stats_of("shop/web", ports, {})
    assert (stats.connections, stats.failures, stats.active) == (8, 3, 3)
    assert (stats.saved, stats.refused) == (3, 6)
    received, sent = ports[0].received_bytes, ports[0].sent_bytes
    assert (stats.received_bytes, stats.sent_bytes) == (2 * received, 2 * sent)
    assert received != sent


def test_endpoints_are_found_by_the_names_of_backends_or_by_address():
    stats = stats_of("shop/web", [make_port(endpoints=(ONE, TWO))], {"10.244.0.1:80": "web-1"})
    assert list(stats.endpoints) == ["web-1", "10.244.0.2:80"]
    assert (stats["web-1"].failures, stats["10.244.0.2:80"].connections) == (1, 4)


def test_an_unserved_service_has_no_counters():
    stats = stats_of("shop/web", [], {})
    assert (stats.connections, stats.state, dict(stats.endpoints)) == (0, "not served", {})


def test_an_unknown_endpoint_is_reported_with_the_known_endpoints():
    stats = stats_of("shop/web", [make_port(endpoints=(ONE,))], {"10.244.0.1:80": "web-1"})
    with pytest.raises(KeyError, match="'web-2' is not one of web-1"):
        stats["web-2"]
