"""Which addresses of a slice serve a Service port."""

import pytest

from userspace_proxy.model import Endpoint, IPFamily, Protocol, SlicePort, SocketAddress

from .samples import slice_of

DNS = SlicePort("dns", 5353, "UDP")
DNS_TCP = SlicePort("dns", 5354, "TCP")
METRICS = SlicePort("metrics", 9153, "TCP")
SCTP = SlicePort("dns", 5355, "SCTP")
NAMELESS = SlicePort("", 8080, "TCP")
PORTS = (DNS, DNS_TCP, METRICS, SCTP, NAMELESS)


@pytest.mark.parametrize(
    ("name", "protocol", "port"),
    [
        pytest.param("dns", Protocol.UDP, 5353, id="name-and-udp"),
        pytest.param("dns", Protocol.TCP, 5354, id="same-name-and-tcp"),
        pytest.param("metrics", Protocol.TCP, 9153, id="another-name"),
        pytest.param("", Protocol.TCP, 8080, id="no-name"),
    ],
)
def test_a_service_port_is_served_where_name_and_protocol_match(name, protocol, port):
    item = slice_of("192.0.2.1", ports=PORTS)
    found = item.addresses(name, protocol)
    assert found == [(SocketAddress("192.0.2.1", port), Endpoint("192.0.2.1"))]


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        pytest.param("metrics", Protocol.UDP, id="other-protocol"),
        pytest.param("http", Protocol.TCP, id="other-name"),
        pytest.param("", Protocol.UDP, id="no-name-is-not-any-name"),
    ],
)
def test_a_service_port_that_no_slice_port_matches_is_not_served(name, protocol):
    assert slice_of("192.0.2.1", ports=PORTS).addresses(name, protocol) == []


class Name(str):
    """A name that counts comparisons."""

    count = 0

    def __lt__(self, other):
        type(self).count += 1
        return str.__lt__(self, other)

    __hash__ = str.__hash__


def test_a_port_is_found_among_thousands_without_a_look_at_each():
    ports = tuple(SlicePort(Name(f"p{number}"), number, "TCP") for number in range(20_000, 0, -1))
    item = slice_of("192.0.2.1", ports=ports)
    Name.count = 0
    assert [a.port for a, _ in item.addresses(Name("p777"), Protocol.TCP)] == [777]
    assert 0 < Name.count < 100


def test_addresses_come_in_the_order_of_the_slice():
    ips = ["2001:db8::9", "2001:db8::1", "2001:db8::5"]
    item = slice_of(*ips, family=IPFamily.IPV6)
    assert [address.ip for address, _ in item.addresses("http", Protocol.TCP)] == ips


def test_an_endpoint_without_conditions_is_ready():
    endpoint = Endpoint("192.0.2.1")
    assert (endpoint.ready, endpoint.serving, endpoint.terminating) == (True, True, False)
