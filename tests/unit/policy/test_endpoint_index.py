"""Tests of indexing a Service's endpoint addresses by port."""

from dataclasses import replace

import pytest

from userspace_proxy.model import (
    DEFAULT_WEIGHT,
    Endpoint,
    IPFamily,
    Protocol,
    SlicePort,
)
from userspace_proxy.policy import EndpointIndex

from ..model.samples import POD_A, POD_B, slice_of

V4, V6 = IPFamily.IPV4, IPFamily.IPV6
DNS = SlicePort("dns", 5353, "UDP")
DNS_TCP = SlicePort("dns", 5354, "TCP")
METRICS = SlicePort("metrics", 9153, "TCP")
SCTP = SlicePort("dns", 5355, "SCTP")
NAMELESS = SlicePort("", 8080, "TCP")
PORTS = (DNS, DNS_TCP, METRICS, SCTP, NAMELESS)


@pytest.mark.parametrize(
    ("family", "name", "protocol"),
    [
        pytest.param(V4, "metrics", Protocol.UDP, id="other-protocol"),
        pytest.param(V4, "http", Protocol.TCP, id="other-name"),
        pytest.param(V4, "", Protocol.UDP, id="no-name-is-not-any-name"),
        pytest.param(V6, "dns", Protocol.UDP, id="other-family"),
    ],
)
def test_a_service_port_without_a_matching_slice_port_has_no_addresses(family, name, protocol):
    index = EndpointIndex([slice_of("192.0.2.1", ports=PORTS)])
    assert list(index.addresses(family, name, protocol)) == []
    assert index.count(family, name, protocol) == 0


def test_endpoint_addresses_are_listed_in_the_order_of_their_slices():
    slices = [slice_of(POD_B.ip), slice_of(POD_A.ip, POD_B.ip, key="cart-2")]
    index = EndpointIndex(slices)
    found = [address for address, _ in index.addresses(V4, "http", Protocol.TCP)]
    assert found == [POD_B, POD_A, POD_B]
    assert index.count(V4, "http", Protocol.TCP) == 3
    assert index.slices is slices


def test_protocols_and_port_names_are_indexed_only_for_slices_with_endpoints():
    six = [SlicePort(name, 80, "TCP") for name in "fedcba"]
    index = EndpointIndex(
        [slice_of(POD_A.ip, ports=PORTS), slice_of(ports=six, key="cart-2", family=V6)]
    )
    assert index.protocols(V4, "dns") == ["SCTP", "TCP", "UDP"]
    assert index.protocols(V4, "http") == []
    assert (index.first_names(V4), index.first_names(V6)) == (("", "dns", "metrics"), ())
    assert (index.slice_count(V4), index.slice_count(V6)) == (1, 1)
    assert (index.has_endpoints(V4), index.has_endpoints(V6)) == (True, False)
    assert EndpointIndex([slice_of(POD_A.ip, ports=six)]).first_names(V4) == tuple("abcde")


def test_slices_with_an_unnumbered_port_and_endpoints_are_found():
    one = replace(slice_of(POD_A.ip, ports=()), unnumbered=("http",))
    empty = replace(slice_of(ports=(), key="cart-2"), unnumbered=("dns",))
    index = EndpointIndex([one, empty])
    assert index.unnumbered(V4, "http") == one.key
    assert (index.unnumbered(V6, "http"), index.unnumbered(V4, "dns")) == (None, None)


class Ports(tuple):
    """The ports of a slice; the class counts how often they are read."""

    reads = 0

    def __iter__(self):
        type(self).reads += 1
        return super().__iter__()


def test_the_ports_of_a_slice_are_read_once_for_many_lookups():
    ports = [SlicePort(f"p{number}", number, "TCP") for number in range(1, 1_001)]
    item = slice_of("192.0.2.1", ports=ports)
    object.__setattr__(item, "ports", Ports(ports))
    Ports.reads = 0
    index = EndpointIndex([item])
    for number in range(1, 1_001):
        found = [a.port for a, _ in index.addresses(V4, f"p{number}", Protocol.TCP)]
        assert found == [number]
        assert index.first_names(V4)[0] == "p1"
    assert Ports.reads == 1


def test_a_service_port_has_the_weights_from_all_its_slices():
    index = EndpointIndex(
        [
            slice_of("192.0.2.1", "192.0.2.2", key="a", ports=(DNS, METRICS)),
            slice_of(Endpoint("192.0.2.3", weight=7), key="b", ports=(METRICS,)),
        ]
    )
    assert index.weights(V4, "metrics", Protocol.TCP) == {DEFAULT_WEIGHT, 7}
    assert index.weights(V4, "dns", Protocol.UDP) == {DEFAULT_WEIGHT}
    assert index.weights(V6, "dns", Protocol.UDP) == set()


def test_slices_with_many_ports_are_read_one_per_turn():
    ports = tuple(SlicePort(f"p{number}", number, "TCP") for number in range(1, 20_001))
    slices = [slice_of(f"192.0.2.{number}", key=f"s{number}", ports=ports) for number in range(5)]
    read = []

    def read_all():
        read.append((yield from EndpointIndex.in_turns(slices)))

    assert sum(1 for _ in read_all()) == len(slices)
    for index in (*read, EndpointIndex(slices)):
        assert index.count(V4, "p20000", Protocol.TCP) == len(slices)


@pytest.mark.parametrize(
    ("slices", "expected"),
    [
        pytest.param([("192.0.2.1", PORTS), ("192.0.2.2", PORTS)], (0, 0), id="port-in-all"),
        pytest.param([("192.0.2.1", PORTS), ("192.0.2.2", (METRICS,))], (1, 2), id="port-in-one"),
        pytest.param([("192.0.2.1", PORTS), ("192.0.2.1", (METRICS,))], (0, 0), id="other-slice"),
        pytest.param([("192.0.2.1", (METRICS,))], (0, 1), id="port-in-none"),
    ],
)
def test_addresses_lacking_a_service_port_are_counted(slices, expected):
    listed = [slice_of(ip, ports=ports, key=f"s-{n}") for n, (ip, ports) in enumerate(slices)]
    index = EndpointIndex([*listed, slice_of("fd00::1", ports=(METRICS,), family=V6, key="six")])
    assert index.lacking(V4, "dns", Protocol.TCP) == expected
    assert index.lacking(V6, "dns", Protocol.TCP) == (0, 1)


def test_slices_with_the_headless_label_are_ignored():
    labelled = replace(slice_of("192.0.2.1", ports=PORTS), is_headless=True)
    index = EndpointIndex([labelled, slice_of("192.0.2.2", ports=PORTS, key="cart-2")])
    assert [at.ip for at, _ in index.addresses(V4, "dns", Protocol.UDP)] == ["192.0.2.2"]
    assert index.headless == labelled
    assert index.slice_count(V4) == 1
