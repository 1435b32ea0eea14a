import pytest

from userspace_proxy.causes.services import external_ip_off, unsupported_protocol
from userspace_proxy.diagnosis.judge import judge
from userspace_proxy.facts import FrontendFacts, RejectedFacts
from userspace_proxy.facts.node import ObjectKey
from userspace_proxy.model import Protocol
from userspace_proxy.status import search
from userspace_proxy.status.search import MAX_LENGTH, Search, Term

from .views import (
    make_endpoint,
    make_frontend,
    make_health_check,
    make_ignored,
    make_port,
    make_troubled_view,
    make_two_sides,
)

WEB = make_port(
    "web",
    frontends=(make_frontend("10.96.0.1:80", "ClusterIP", "proxy port 20001"),),
    endpoints=(
        make_endpoint("10.244.1.7:8080", node="node-1"),
        make_endpoint("10.244.2.7:8080", node="node-2", ejected_for_s=0.0),
    ),
    notes=(external_ip_off("203.0.113.7", "external IPs are off"),),
)
CART = make_port("cart", endpoints=(), reason="no EndpointSlice")
LATE = make_port("late", problem="the kernel refused it")
DNS = make_port(
    "dns",
    namespace="kube-system",
    protocol=Protocol.UDP,
    frontends=(FrontendFacts("10.96.0.2:5000–6000", "ClusterIP"),),
)
PORTS = {"web": WEB, "cart": CART, "dns": DNS}


def found(text):
    parsed = Search.parse(text)
    return [
        name for name, port in PORTS.items() if parsed.matches_port(port, is_busy=name == "dns")
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", ["web", "cart", "dns"], id="nothing"),
        pytest.param("WEB", ["web"], id="name-in-any-case"),
        pytest.param("shop/cart:http", ["cart"], id="whole-name"),
        pytest.param("10.96.0.1", ["web"], id="frontend"),
        pytest.param("10.244.2.7", ["web"], id="endpoint"),
        pytest.param("5353", ["dns"], id="port-within-a-range"),
        pytest.param("10.96.0.2:6000", ["dns"], id="address-within-a-range"),
        pytest.param("ip:10.96.0.2:5000", ["dns"], id="ip-within-a-range"),
        pytest.param("10.96.0.1:5353", [], id="address-of-no-range"),
        pytest.param("6001", [], id="port-beside-a-range"),
        pytest.param("-5353", ["web", "cart"], id="port-excluded"),
        pytest.param("node-2", ["web"], id="node"),
        pytest.param("refused", ["cart"], id="state"),
        pytest.param("endpointslice", ["cart"], id="cause"),
        pytest.param("203.0.113.7", ["web"], id="external-ip-that-is-not-served"),
        pytest.param("shop http", ["web", "cart"], id="all-words"),
        pytest.param("shop -cart", ["web"], id="excluded"),
        pytest.param("-", ["web", "cart", "dns"], id="excluded-nothing-yet"),
        pytest.param("is:refused", ["cart"], id="is-state"),
        pytest.param("is:partly-answering", ["web"], id="is-state-of-two-words"),
        pytest.param("is:ejected", ["web"], id="is-ejected"),
        pytest.param("is:problem", ["web", "cart"], id="is-problem"),
        pytest.param("is:busy", ["dns"], id="is-busy"),
        pytest.param("is:udp", ["dns"], id="is-protocol"),
        pytest.param("ns:kube", ["dns"], id="namespace"),
        pytest.param("name:web", ["web"], id="name"),
        pytest.param("name:10.96", [], id="name-is-no-address"),
        pytest.param("service:shop/web", ["web"], id="service"),
        pytest.param("service:Shop/Web:http", ["web"], id="port-of-a-service"),
        pytest.param("service:shop/we", [], id="part-of-a-service"),
        pytest.param("-service:shop/web", ["cart", "dns"], id="all-but-a-service"),
        pytest.param("ip:10.96.0.1", ["web"], id="ip"),
        pytest.param("endpoint:10.244.2.7", ["web"], id="endpoint-alone"),
        pytest.param("is:partly node:node-1", ["web"], id="two-qualifiers"),
        pytest.param("-node:node-1", ["cart", "dns"], id="excluded-qualifier"),
        pytest.param("cause:external-ip-off", ["web"], id="code-of-a-cause"),
        pytest.param("is:", ["web", "cart", "dns"], id="unfinished-qualifier"),
        pytest.param("cart:http", ["cart"], id="unknown-qualifier"),
    ],
)
def test_search_words_and_qualifiers_select_ports(text, expected):
    assert found(text) == expected


@pytest.mark.parametrize("word", ["served", "serv", "not-served", "not"])
def test_a_search_matches_a_state_by_its_prefix(word):
    is_late = word.startswith("not")
    for port, is_found in ((LATE, is_late), (DNS, not is_late)):
        assert Search.parse(f"is:{word}").matches_port(port, is_busy=False) is is_found


def test_a_plain_search_word_matches_anywhere_in_a_state():
    # Only the words for the state of LATE contain "trouble".
    assert Search.parse("rouble").matches_port(LATE, is_busy=False)
    assert not Search.parse("-rouble").matches_port(LATE, is_busy=False)
    assert not Search.parse("is:rouble").matches_port(LATE, is_busy=False)


def test_invalid_objects_are_matched_by_the_affected_services():
    key = ObjectKey("EndpointSlice", "night", "zeroip-a")
    item = RejectedFacts.at("m.yaml:171", "spec.clusterIP: 0", key, ("night/zeroip",))
    texts = ("zeroip", "service:night/zeroip", "service:night/ZeroIP:80", "ns:night", "0", "name:s")
    assert all(Search.parse(text).matches_rejected(item) for text in texts)
    texts = ("service:night/zero", "service:zeroip", "is:served", "node:a", "service:night/x:80")
    assert not any(Search.parse(text).matches_rejected(item) for text in texts)


def test_ignored_services_are_matched_by_name_state_and_cause():
    item = make_ignored("voice/media", "rtp", unsupported_protocol("SCTP"))
    texts = ("media:rtp", "service:voice/media", "service:voice/media:rtp", "is:ignored")
    texts += ("sctp", "ns:voice", "cause:not-ours")
    assert all(Search.parse(text).matches_ignored(item) for text in texts)
    assert not Search.parse("node:a").matches_ignored(item)


def test_health_checks_are_matched_by_name():
    item = make_health_check("shop/front", 31_044, 1)
    assert Search.parse("front:31044").matches_health_check(item)
    assert not Search.parse("is:refused").matches_health_check(item)


def test_long_searches_are_truncated():
    assert Search.parse("a" * 2 * MAX_LENGTH) == Search((Term("", "a" * MAX_LENGTH),))


def test_a_row_with_many_endpoints_is_read_once_for_all_words(monkeypatch):
    """A search of 10,000 Service ports for 67 words once took 16 s."""
    read = []
    texts = search._texts_of_port
    monkeypatch.setattr(
        search, "_texts_of_port", lambda *args, **more: read.append(args[1]) or texts(*args, **more)
    )
    words = Search.parse("-q " * MAX_LENGTH)
    assert len(words.terms) > 60
    assert words.matches_port(WEB, is_busy=False)
    assert sorted(read) == sorted(search.QUALIFIERS)


def test_every_state_of_a_port_can_be_searched():
    sides = make_two_sides()
    for port in (*make_troubled_view().ports, *sides, *PORTS.values(), LATE):
        state = judge(port)
        word = state.word.replace(" ", "-")
        for text in (word, state.level, port.plan.protocol, f"{port.plan.key.family}"):
            assert Search.parse(f"is:{text}").unknown == ""
    assert Search.parse("is:busy is:idle is:ejected is:problem is:ignored is:ext is:").unknown == ""


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("web -is:servd", "there is no state is:servd (did you mean is:served?)"),
        ("is:xyzzy", "there is no state is:xyzzy (one of served, unknown, partly-"),
    ],
)
def test_an_unknown_state_in_a_search_is_reported(text, unknown):
    assert Search.parse(text).unknown.startswith(unknown)
