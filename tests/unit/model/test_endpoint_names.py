import pytest

from userspace_proxy.errors import ConfigError
from userspace_proxy.model import Endpoint, EndpointSlice, IPFamily, ServiceKey, SliceKey
from userspace_proxy.model.endpoint_names import (
    NAMES_MAX,
    EndpointName,
    NameProblem,
    NameSlice,
    NameState,
    ResolvedSlice,
    is_below,
    read_endpoint_names,
    read_host,
)
from userspace_proxy.model.notes import NoteKind

from ..refusals import why


def test_an_annotation_lists_endpoint_names_with_their_ports():
    assert read_endpoint_names("db.example.com:5432, DB2.example.com.:5433") == (
        EndpointName("db.example.com", 5432),
        EndpointName("db2.example.com", 5433),
    )


def test_an_endpoint_name_may_be_limited_to_one_service_port():
    assert read_endpoint_names("sql=db.example.com:5432") == (
        EndpointName("db.example.com", 5432, "sql"),
    )


def test_a_repeated_endpoint_name_is_read_once():
    assert len(read_endpoint_names("a.example.com:1,a.example.com:1")) == 1


@pytest.mark.parametrize(
    ("text", "error"),
    [
        pytest.param("db.example.com:0", "0 is not in 1–65535", id="port-zero"),
        pytest.param("db.example.com:65536", "65536 is not in 1–65535", id="port-high"),
        pytest.param("192.0.2.1:80", why(read_host, "192.0.2.1"), id="ipv4"),
        pytest.param("[2001:db8::1]:80", why(read_host, "[2001:db8::1]"), id="ipv6"),
        pytest.param("127.1:80", "addresses belong in EndpointSlices", id="short-ipv4"),
        pytest.param("http://db.example.com:80", why(read_host, "http://db.example.com"), id="url"),
        pytest.param("db..example.com:80", why(read_host, "db..example.com"), id="empty-label"),
        pytest.param(f"{'a' * 64}.com:80", why(read_host, f"{'a' * 64}.com"), id="long-label"),
        pytest.param(f"{'a.' * 127}com:80", why(read_host, f"{'a.' * 127}com"), id="long-name"),
        pytest.param("db exam.com:80", why(read_host, "db exam.com"), id="blank"),
    ],
)
def test_an_invalid_endpoint_name_is_reported_in_one_line(text, error):
    with pytest.raises(ConfigError) as raised:
        read_endpoint_names(text)
    assert str(raised.value).endswith(error)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "item"),
    [
        pytest.param("db.example.com", "db.example.com", id="no-port"),
        pytest.param(":5432", ":5432", id="no-name"),
        pytest.param("=db.example.com:1", "=db.example.com:1", id="no-port-name"),
        pytest.param("db.example.com:http", "db.example.com:http", id="port-by-name"),
        pytest.param("a.example.com:1,,", "", id="empty"),
    ],
)
def test_an_endpoint_name_without_host_or_port_is_rejected_with_a_hint(text, item):
    with pytest.raises(ConfigError) as raised:
        read_endpoint_names(text)
    assert raised.value.message.startswith(f"{item!r} is not ")
    assert raised.value.hint == "write HOST:PORT"


def test_too_many_endpoint_names_are_an_error():
    text = ",".join(f"db{n}.example.com:1" for n in range(NAMES_MAX + 1))
    with pytest.raises(ConfigError, match="it has 17 items, and at most 16 are looked up"):
        read_endpoint_names(text)


def test_an_endpoint_name_of_the_maximum_length_is_accepted():
    name = ".".join(["a" * 63] * 3 + ["b" * 61])
    assert read_host(f"{name}.") == name


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [
        ("example.com", True),
        ("db.example.com", True),
        ("a.db.example.com", True),
        ("notexample.com", False),
        ("example.com.evil.test", False),
        ("com", False),
    ],
)
def test_an_allowed_domain_matches_only_whole_labels(host, is_allowed):
    assert is_below(host, ("example.com",)) is is_allowed


def test_a_name_slice_has_names_in_place_of_endpoints():
    item = EndpointSlice(
        SliceKey("shop", "db-x"),
        ServiceKey("shop", "db"),
        IPFamily.IPV4,
        (),
        (Endpoint("db.example.com", weight=7),),
        triggered_at=5.0,
        notes=(NoteKind.TOO_MANY_HINTS(1),),
    )
    made = NameSlice.of(item)
    assert made.endpoints == ()
    assert made.named == item.endpoints
    assert (made.key, made.service, made.triggered_at, made.notes) == (
        item.key,
        item.service,
        5.0,
        (NoteKind.TOO_MANY_HINTS(1),),
    )


@pytest.mark.parametrize(
    ("states", "needs_nodes"),
    [
        ((), True),
        ((NameState.NODES_UNKNOWN,), True),
        ((NameState.NOT_ALLOWED,), False),
        ((NameState.NETWORKS_UNKNOWN,), False),
        ((NameState.TOO_MANY,), False),
    ],
)
def test_a_name_slice_requires_known_nodes_unless_its_names_are_rejected(states, needs_nodes):
    item = ResolvedSlice(
        SliceKey("shop", "db-x"),
        ServiceKey("shop", "db"),
        IPFamily.IPV4,
        (),
        (),
        problems=tuple(NameProblem("db.example.com", state) for state in states),
    )
    assert item.needs_nodes is needs_nodes
