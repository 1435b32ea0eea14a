"""Tests of arguments of an embedded proxy: accepted values, and errors for all others."""

import re
from dataclasses import replace

import pytest

from userspace_proxy.embedding.arguments import (
    free_loopback,
    make_slices,
    read_affinity,
    read_endpoint,
    read_handling,
    read_key,
    read_port,
)
from userspace_proxy.model import (
    Balance,
    Endpoint,
    Handling,
    Hold,
    ProxyProtocol,
    ServiceKey,
    SocketAddress,
)
from userspace_proxy.model.annotations import WITHOUT_SLOW_START

from ..agent.samples import service

WEB = ServiceKey("shop", "web")


@pytest.mark.parametrize(
    ("namespace", "name", "error", "words"),
    [
        pytest.param(
            "shop", "My_Service", ValueError, "name: 'My_Service' is not a DNS", id="name"
        ),
        pytest.param("Shop", "web", ValueError, "namespace: 'Shop' is not a DNS", id="namespace"),
        pytest.param("shop", "", ValueError, "name: '' is not a ", id="empty"),
        pytest.param("shop", 7, TypeError, "name: expected a str, got 7", id="number"),
    ],
)
def test_an_invalid_kubernetes_name_is_an_error(namespace, name, error, words):
    with pytest.raises(error, match=re.escape(words)):
        read_key(namespace, name)


@pytest.mark.parametrize(
    ("port", "protocol", "error", "words"),
    [
        pytest.param("80", "TCP", TypeError, "port: expected an int, got '80'", id="text"),
        pytest.param(True, "TCP", TypeError, "port: expected an int, got True", id="bool"),
        pytest.param(0, "TCP", ValueError, "port: 0 is not in 1–65535", id="zero"),
        pytest.param(65536, "TCP", ValueError, "port: 65536 is not in 1–65535", id="too-large"),
        pytest.param(80, ["TCP"], ValueError, "protocol: ['TCP'] is not TCP", id="list"),
        pytest.param(80, "tcp", ValueError, "protocol: 'tcp' is not TCP or UDP", id="protocol"),
    ],
)
def test_an_invalid_port_is_an_error(port, protocol, error, words):
    with pytest.raises(error, match=re.escape(words)):
        read_port(port, protocol)


def test_an_affinity_timeout_is_accepted_in_seconds():
    assert [read_affinity(seconds) for seconds in (None, 1, 86400)] == [None, 1, 86400]


@pytest.mark.parametrize(
    ("seconds", "error", "words"),
    [
        pytest.param(0, ValueError, "affinity_timeout_s: 0 is not in 1–86400", id="zero"),
        pytest.param(86401, ValueError, "86401 is not in 1–86400", id="more-than-a-day"),
        pytest.param(1.5, TypeError, "expected an int or None, got 1.5", id="float"),
    ],
)
def test_an_invalid_affinity_timeout_is_an_error(seconds, error, words):
    with pytest.raises(error, match=re.escape(words)):
        read_affinity(seconds)


def test_a_balance_argument_is_parsed():
    assert read_handling(balance="round-robin") == Handling()
    assert read_handling(7, balance="random") == Handling(balance=Balance.RANDOM, seed=7)
    assert read_handling(balance=Balance.LEAST_CONNECTIONS).balance is Balance.LEAST_CONNECTIONS


@pytest.mark.parametrize(
    ("balance", "seed", "error", "words"),
    [
        pytest.param(
            "by-lot",
            0,
            ValueError,
            "balance: 'by-lot' is not one of round-robin, random, least-connections, power-of-",
            id="unknown",
        ),
        pytest.param(["round-robin"], 0, TypeError, "balance: expected a str or an int", id="list"),
        pytest.param("round-robin", "7", TypeError, "seed: expected an int, got '7'", id="text"),
        pytest.param("round-robin", True, TypeError, "seed: expected an int, got True", id="bool"),
        pytest.param("round-robin", -1, ValueError, "seed: -1 is not in 0–4294967295", id="low"),
        pytest.param("round-robin", 2**32, ValueError, "4294967296 is not in 0–", id="high"),
    ],
)
def test_an_invalid_balance_argument_is_an_error(balance, seed, error, words):
    with pytest.raises(error, match=re.escape(words)):
        read_handling(seed, balance=balance)


def test_arguments_for_annotations_are_parsed_like_annotations():
    assert read_handling(hold="60s,16") == Handling(hold=Hold(60, 16))
    assert read_handling(slow_start="30s") == Handling(slow_start_s=30.0)
    assert read_handling(hold=None, on_endpoint_removal="30s") == Handling(removal_s=30.0)
    assert read_handling(proxy_protocol="v2") == Handling(proxy_protocol=ProxyProtocol.V2)
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'held' \(did you mean hold"):
        read_handling(held="60s")


@pytest.mark.parametrize(
    ("hold", "error", "words"),
    [
        pytest.param("60", ValueError, "hold: '60' ", id="no-unit"),
        pytest.param(60, ValueError, "hold: '60' ", id="int"),
        pytest.param(True, TypeError, "hold: expected a str or an int, got True", id="bool"),
    ],
)
def test_an_invalid_annotation_argument_is_an_error(hold, error, words):
    with pytest.raises(error, match=re.escape(words)):
        read_handling(hold=hold)


@pytest.mark.parametrize(
    ("given", "address"),
    [
        pytest.param("192.0.2.1:80", SocketAddress("192.0.2.1", 80), id="ipv4"),
        pytest.param("[2001:db8::1]:80", SocketAddress("2001:db8::1", 80), id="ipv6"),
        pytest.param(("192.0.2.1", 80), SocketAddress("192.0.2.1", 80), id="socket-name"),
        pytest.param(("2001:db8::1", 80, 0, 0), SocketAddress("2001:db8::1", 80), id="ipv6-tuple"),
        pytest.param(SocketAddress("192.0.2.1", 80), SocketAddress("192.0.2.1", 80), id="address"),
    ],
)
def test_an_endpoint_is_parsed(given, address):
    assert read_endpoint(given) == address


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        pytest.param("192.0.2.1", ValueError, "expected ip:port", id="no-port"),
        pytest.param("192.0.2.1:", ValueError, "expected ip:port", id="empty-port"),
        pytest.param("192.0.2.1:0", ValueError, "with a port in 1–65535", id="port-zero"),
        pytest.param("192.0.2.1:65536", ValueError, "with a port in 1–65535", id="large-port"),
        pytest.param("192.0.2.1:²", ValueError, "expected ip:port", id="odd-digit"),
        pytest.param(":80", ValueError, "expected an IP address", id="no-address"),
        pytest.param("192.0.2.01:80", ValueError, "expected an IP address", id="leading-zero"),
        pytest.param("web:80", ValueError, "expected an IP address, not a name", id="name"),
        pytest.param(
            "http://web:80/a", ValueError, "no scheme and no path: write web:80", id="url"
        ),
        pytest.param("localhost:80", ValueError, "write 127.0.0.1:80", id="localhost"),
        pytest.param(8081, TypeError, "endpoint 8081: expected ip:port, or a tuple", id="number"),
        pytest.param(("192.0.2.1", "80"), TypeError, "or a tuple of IP and port", id="text-port"),
        pytest.param(("192.0.2.1",), TypeError, "expected ip:port, or a tuple", id="short-tuple"),
    ],
)
def test_an_invalid_endpoint_is_an_error(given, error, words):
    with pytest.raises(error, match=re.escape(words)):
        read_endpoint(given)


def test_endpoints_are_grouped_into_slices_by_family_and_port():
    addresses = ["192.0.2.1:80", "192.0.2.2:80", "192.0.2.1:81", "[2001:db8::1]:80"]
    dual = replace(service("web", "127.99.0.1"), cluster_ips=("127.99.0.1", "fd00::1"))
    slices = make_slices(dual, addresses)
    assert [s.key.name for s in slices] == ["web-4-80", "web-4-81", "web-6-80"]
    assert [[e.ip for e in s.endpoints] for s in slices] == [
        ["192.0.2.1", "192.0.2.2"],
        ["192.0.2.1"],
        ["2001:db8::1"],
    ]
    assert all(s.service == WEB for s in slices)


@pytest.mark.parametrize("given", ["1.1.1.1:80", None, 7])
def test_endpoints_that_are_not_a_list_are_rejected(given):
    with pytest.raises(TypeError, match="endpoints: expected a list of ip:port, got"):
        make_slices(service("web", "127.99.0.1"), given)


def test_a_mapping_sets_weights_and_standbys_get_the_second_priority():
    web = service("web", "127.99.0.1")
    (item,) = make_slices(web, {"192.0.2.1:80": 10, ("192.0.2.2", 80): 0}, ["192.0.2.3:80"])
    assert item.endpoints == (
        Endpoint("192.0.2.1", weight=10),
        Endpoint("192.0.2.2", weight=0),
        Endpoint("192.0.2.3", priority=1),
    )


@pytest.mark.parametrize(
    ("endpoints", "standby", "error", "words"),
    [
        pytest.param({"1.1.1.1:80": -1}, (), ValueError, "weight: -1 is not in 0–65535", id="low"),
        pytest.param({"1.1.1.1:80": 65536}, (), ValueError, "65536 is not in 0–65535", id="high"),
        pytest.param({"1.1.1.1:80": True}, (), TypeError, "expected an int, got True", id="bool"),
        pytest.param((), "1.1.1.1:80", TypeError, "standby: expected a list of ip:port", id="text"),
        pytest.param(
            ["1.1.1.1:80"],
            ["1.1.1.1:80"],
            ValueError,
            "endpoint 1.1.1.1:80: expected in endpoints or standby, not both",
            id="both",
        ),
    ],
)
def test_invalid_weights_and_standbys_are_errors(endpoints, standby, error, words):
    with pytest.raises(error, match=re.escape(words)):
        make_slices(service("web", "127.99.0.1"), endpoints, standby)


def test_an_endpoint_of_another_family_is_an_error():
    words = "endpoint [::1]:80: expected an IPv4 address, as the Service's"
    with pytest.raises(ValueError, match=re.escape(words)):
        make_slices(service("web", "127.99.0.1"), ["[::1]:80"])


class Text(str):
    __slots__ = ()


class Number(int):
    pass


def test_arguments_of_str_and_int_subclasses_become_plain_str_and_int():
    port, key = read_port(Number(80), Text("TCP")), read_key(Text("shop"), Text("web"))
    (made,) = make_slices(service("web", "10.0.0.1"), {(Text("1.1.1.1"), Number(80)): Number(3)})
    texts = [port.protocol, *key, made.endpoints[0].ip]
    numbers = [port.port, read_affinity(Number(5)), read_handling(Number(7)).seed]
    numbers += [made.ports[0].port, made.endpoints[0].weight]
    assert (texts, numbers) == (["TCP", "shop", "web", "1.1.1.1"], [80, 5, 7, 80, 3])
    assert {type(value) for value in texts} == {str}
    assert {type(value) for value in numbers} == {int}


def test_slow_start_and_source_hash_are_mutually_exclusive():
    with pytest.raises(ValueError, match=f"slow_start: {WITHOUT_SLOW_START}"):
        read_handling(slow_start="30s", balance="source-hash")


def test_wake_without_hold_is_rejected():
    with pytest.raises(ValueError, match=r"wake: .* give both"):
        read_handling(wake="deployment/web")


def test_the_loopback_address_is_stable_and_skips_addresses_in_use():
    # For this seed, the first address ends in 255, and the second one in 0.
    first = free_loopback(WEB, (), "275")
    assert free_loopback(WEB, (), "275") == first == "127.107.164.1"
    assert free_loopback(WEB, {first}, "275") == "127.107.164.2"


def test_two_proxies_choose_different_addresses_for_a_service_of_the_same_name():
    assert free_loopback(WEB, (), "a") != free_loopback(WEB, (), "b")
