"""Tests of selecting ports and endpoints of a Service by the labels of a name."""

import pytest

from tests.unit.model.samples import service, slice_of
from userspace_proxy.cluster import ServiceState, Slices
from userspace_proxy.model import Endpoint, ServicePort, SlicePort
from userspace_proxy.names import endpoints
from userspace_proxy.names.endpoints import Endpoints, NamedEndpoints, Ready, SamePorts

HTTP = SlicePort("http", 8080, "TCP")
ADMIN = SlicePort("Admin", 9090, "TCP")
DNS = SlicePort("dns", 5353, "UDP")


def index(*slices, ports=()):
    return NamedEndpoints(ServiceState(service(ports=ports), slices))


def pairs(endpoints):
    found = (endpoints.named.at(i) for i in range(len(endpoints.named)))
    return [(endpoint.ip, number) for endpoint, number in found]


MIXED = index(
    slice_of("10.0.0.1", Endpoint("10.0.0.2", ready=False), key="a", ports=(HTTP, ADMIN, DNS)),
    slice_of("10.0.0.3", key="b", ports=()),
    slice_of("10.0.0.4", "10.0.0.1", "fd00::4", key="c", ports=(HTTP,)),
    slice_of(Endpoint("10.0.0.5", ready=False), key="none-ready", ports=(HTTP,)),
)


@pytest.mark.parametrize(
    ("port", "protocol", "count", "expected"),
    [
        pytest.param("", "", 7, [
            ("10.0.0.1", 9090), ("10.0.0.1", 5353), ("10.0.0.1", 8080), ("10.0.0.4", 8080),
            ("fd00::4", 8080)], id="any"),
        pytest.param("admin", "tcp", 1, [("10.0.0.1", 9090)], id="in-any-case"),
        pytest.param("", "udp", 1, [("10.0.0.1", 5353)], id="any-of-a-protocol"),
        pytest.param("dns", "", 1, [("10.0.0.1", 5353)], id="any-protocol"),
        pytest.param("dns", "tcp", 0, [], id="another-protocol"),
    ],
)  # fmt: skip
def test_ready_endpoints_are_returned_once_per_port_number(port, protocol, count, expected):
    for _ in range(2):
        found = MIXED.endpoints(port, protocol)
        assert (len(found), pairs(found)) == (count, expected)


def test_two_ports_with_the_same_number_are_counted_twice_but_listed_once():
    found = index(slice_of("10.0.0.1", ports=(DNS, SlicePort("dns-tcp", 5353, "TCP"))))
    for some in (found.endpoints(), found.labelled("10-0-0-1")):
        assert (len(some), pairs(some)) == (2, [("10.0.0.1", 5353)])


def test_endpoints_with_too_many_ports_count_as_having_no_ports():
    """With 100 lists of 20,000 ports, a query once blocked the control process for 8 s."""

    def of_20_000(number):
        ports = tuple(SlicePort(f"p{i}", i + number, "TCP") for i in range(1, 20_001))
        return slice_of(f"10.0.0.{number}", key=f"s{number}", ports=ports)

    slices = [of_20_000(number) for number in (1, 2, 3, 4, 5)]
    again = slice_of("10.0.0.6", key="again", ports=slices[0].ports)
    found = index(*slices, again)
    expected = [("10.0.0.1", 8), ("10.0.0.6", 8), ("10.0.0.2", 9)]
    assert pairs(found.endpoints("p7", "tcp")) == expected
    assert list(found.endpoints().ips(is_ipv6=False)) == [
        f"10.0.0.{number}" for number in (1, 6, 2, 3, 4, 5)
    ]
    assert pairs(found.labelled("10-0-0-5")) == []
    assert list(found.labelled("10-0-0-5").ips(is_ipv6=False)) == ["10.0.0.5"]


def test_only_large_results_for_a_label_are_cached(monkeypatch):
    found = index(slice_of(*(Endpoint(f"10.0.0.{i}", hostname=f"w{i // 2}") for i in range(3))))
    monkeypatch.setattr(endpoints, "_REMEMBERED_FROM", 2)
    assert [found.labelled(each) is found.labelled(each) for each in ("w0", "w1")] == [True, False]


def test_each_port_number_of_a_name_is_listed_once():
    one, other = Endpoint("10.0.0.1", hostname="web"), Endpoint("fd00::1", hostname="web")
    web, alone = Endpoint("10.0.0.2", hostname="web"), Endpoint("10.0.0.3")
    found = Endpoints(
        [
            SamePorts([Ready([one, web])], [80], 2),
            SamePorts([Ready([other]), Ready([alone])], [80, 443], 2),
            SamePorts([Ready([web])], [443], 1),
        ]
    )
    assert len(found) == 9
    assert pairs(found) == [("10.0.0.2", 80), ("fd00::1", 443), ("10.0.0.3", 80), ("10.0.0.3", 443)]
    assert found.with_ports == [one, web, other, alone]


def test_above_the_limit_duplicates_are_removed_only_among_slices_with_equal_ports(monkeypatch):
    monkeypatch.setattr(endpoints, "_COMPARED_MAX", 3)
    web = Endpoint("10.0.0.1", hostname="web")
    assert pairs(
        Endpoints(
            [SamePorts([Ready([web, web])], [80], 1), SamePorts([Ready([web])], [80, 443], 2)]
        )
    ) == [
        ("10.0.0.1", 80),
        ("10.0.0.1", 443),
    ]
    monkeypatch.setattr(endpoints, "_COMPARED_MAX", 2)
    assert (
        len(
            Endpoints(
                [SamePorts([Ready([web, web])], [80], 1), SamePorts([Ready([web])], [80, 443], 2)]
            ).named
        )
        == 3
    )


def test_ips_returns_the_addresses_of_a_family_without_duplicates():
    ips = MIXED.endpoints("http", "tcp").ips
    assert (list(ips(is_ipv6=False)), list(ips(is_ipv6=True))) == (
        ["10.0.0.1", "10.0.0.4"],
        ["fd00::4"],
    )


def test_endpoints_are_selected_by_hostname_or_address():
    one, two = Endpoint("10.0.0.1", hostname="Web-0"), Endpoint("10.0.0.2", hostname="web-0")
    slices = slice_of(one, two, "10.0.0.3", key="a"), slice_of(one, key="b", ports=(DNS,))
    found = index(*slices)
    labelled = found.labelled("web-0")
    assert list(labelled.ips(is_ipv6=False)) == ["10.0.0.1", "10.0.0.2"]
    # Upper and lower case are equivalent in names.
    assert pairs(labelled) == [("10.0.0.1", 8080), ("10.0.0.2", 8080), ("10.0.0.1", 5353)]
    assert pairs(found.labelled("10-0-0-3")) == [("10.0.0.3", 8080)]
    assert not len(found.labelled("10-0-0-1"))


def test_lookups_of_missing_ports_and_labels_are_not_cached():
    found = index(slice_of("10.0.0.1"))
    for i in range(10):
        assert not len(found.endpoints(f"p{i}", "tcp"))
        assert not len(found.labelled(f"p{i}"))
        assert not found.ports_by_number(f"p{i}", "tcp")
    assert (found._found, found._by_number) == ({}, {})


def test_ports_of_a_service_are_selected_by_name_and_protocol():
    http, dns = ServicePort("HTTP", 80, "TCP"), ServicePort("dns", 53, "UDP")
    found = index(ports=(http, dns))
    assert list(found.ports("", "")) == [http, dns]
    assert list(found.ports("http", "tcp")) == [http]
    assert list(found.ports("", "udp")) == [dns]
    assert list(found.ports("dns", "tcp")) == []


def test_ports_of_a_service_with_the_same_number_are_grouped():
    tcp, udp, web = (ServicePort("dns-tcp", 53, "TCP"), ServicePort("dns", 53, "UDP"),
        ServicePort("web", 80, "TCP"))  # fmt: skip
    found = index(ports=(tcp, web, udp))
    for _ in range(2):
        assert found.ports_by_number("", "") == [[tcp, udp], [web]]
        assert found.ports_by_number("dns", "udp") == [[udp]]


def test_above_the_limit_duplicate_addresses_are_removed_only_within_a_slice(monkeypatch):
    monkeypatch.setattr(endpoints, "_COMPARED_MAX", 3)
    web, other = Endpoint("10.0.0.1", hostname="web"), Endpoint("10.0.0.2")
    twice = [Ready([web, other]), Ready([web, other])]
    assert list(Endpoints([SamePorts(twice, [80], 1)]).ips(is_ipv6=False)) == [web.ip, other.ip] * 2
    assert list(Endpoints([SamePorts(twice[:1], [80], 1)]).ips(is_ipv6=False)) == [web.ip, other.ip]


def test_expensive_queries_require_preparation_before_they_are_answered(monkeypatch):
    monkeypatch.setattr(endpoints, "AT_ONCE", 600)
    listed = (slice_of(*(f"10.{n}.0.{i}" for i in range(250)), key=f"s{n}") for n in "123")
    found = NamedEndpoints(ServiceState(service(), Slices.of(listed)))
    assert not found.is_ready("http", "tcp", "")
    found.endpoints("http", "tcp")
    assert found.is_ready("http", "tcp", "")
    assert index(slice_of("10.0.0.1")).is_ready("http", "tcp", "")
