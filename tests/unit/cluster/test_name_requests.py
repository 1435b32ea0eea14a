import pytest

from userspace_proxy.cluster import ServiceState
from userspace_proxy.cluster.name_requests import (
    derived_key,
    host_of,
    read_request,
    without_names,
)
from userspace_proxy.model import (
    Endpoint,
    EndpointSlice,
    Handling,
    IPFamily,
    Service,
    ServiceKey,
    ServicePort,
    SliceKey,
    SlicePort,
)
from userspace_proxy.model.endpoint_names import NAMES_MAX, EndpointName, NameSlice
from userspace_proxy.model.mirroring import mirror_endpoints
from userspace_proxy.model.notes import NoteKind
from userspace_proxy.model.wire import WireEndpoints, convert

KEY = ServiceKey("shop", "db")
PORTS = (ServicePort("", 5432, "TCP"),)
SQL, REST = ServicePort("sql", 5432, "TCP"), ServicePort("rest", 80, "TCP")
DB = EndpointName("db.example.com", 5433)


def service(*names, ports=PORTS, cluster_ips=("10.96.0.1",), **fields):
    return Service(
        KEY, ports, cluster_ips=cluster_ips, handling=Handling(names=tuple(names)), **fields
    )


def item(name="db-x", *endpoints):
    key, ports = SliceKey("shop", name), (SlicePort("", 5433, "TCP"),)
    return EndpointSlice(key, KEY, IPFamily.IPV4, ports, endpoints)


def request(*slices, of):
    return read_request(ServiceState(of, slices))


def test_a_name_without_a_port_name_uses_the_only_port():
    found = request(of=service(DB))
    (named,) = found.named
    assert named.ports == (SlicePort("", 5433, "TCP"),)
    assert named.named == (Endpoint("db.example.com"),)
    assert (found.hosts, found.families, found.notes) == (
        ("db.example.com",),
        (IPFamily.IPV4,),
        (),
    )


def test_each_endpoint_name_is_assigned_to_its_own_port():
    sql, rest = EndpointName("a.test", 1, "sql"), EndpointName("b.test", 2, "rest")
    found = request(of=service(sql, rest, ports=(SQL, REST)))
    assert [(each.ports, each.named) for each in found.named] == [
        ((SlicePort("sql", 1, "TCP"),), (Endpoint("a.test"),)),
        ((SlicePort("rest", 2, "TCP"),), (Endpoint("b.test"),)),
    ]


@pytest.mark.parametrize(
    ("name", "ports", "port"),
    [
        (DB, (SQL, REST), ""),
        (EndpointName("a.test", 1, "sq"), (SQL, REST), "'sq'"),
        (EndpointName("a.test", 1, "sq"), (SQL,), "'sq'"),
    ],
)
def test_a_name_for_a_nonexistent_service_port_becomes_a_note(name, ports, port):
    found = request(of=service(name, ports=ports))
    assert found.named == ()
    at = f"{name.host}:{name.port}"
    assert found.notes == (NoteKind.NAME_WITHOUT_PORT("userspace-proxy.io/endpoints", at, port),)


def test_an_endpoint_name_can_include_the_name_of_the_only_port():
    found = request(of=service(EndpointName("a.test", 1, "sql"), ports=(SQL,)))
    assert found.named[0].ports == (SlicePort("sql", 1, "TCP"),)


def test_a_service_with_a_selector_ignores_the_endpoints_annotation():
    found = request(of=service(DB, selector=(("app", "db"),)))
    assert found.named == ()
    assert found.notes == (NoteKind.NAMES_BESIDE_SELECTOR("userspace-proxy.io/endpoints"),)


@pytest.mark.parametrize(
    "of",
    [
        pytest.param(service(), id="no-names"),
        pytest.param(service(DB, cluster_ips=()), id="headless"),
    ],
)
def test_headless_services_and_services_without_names_have_no_name_request(of):
    assert request(item("db-x", Endpoint("192.0.2.1")), of=of) is None


def test_slices_mirrored_from_endpoints_objects_have_no_name_request():
    subset = {"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 5432}]}
    wire = {"metadata": {"namespace": "shop", "name": "db"}, "subsets": [subset]}
    mirrored = mirror_endpoints(convert(wire, WireEndpoints))
    assert mirrored
    assert request(*mirrored, of=service()) is None


def test_slices_of_names_and_slices_of_addresses_are_separated():
    plain = item("db-y", Endpoint("192.0.2.1"))
    names = NameSlice.of(item("db-x", Endpoint("db.example.com", weight=7)))
    found = request(plain, names, of=service())
    assert (found.plain, found.named) == ((plain,), (names,))
    assert found.names == (DB,)


def test_names_beyond_the_limit_are_ignored():
    hosts = [Endpoint(f"db-{number}.example.com") for number in range(NAMES_MAX)]
    names = NameSlice.of(item("db-x", *hosts))
    assert len(request(names, of=service(DB)).names) == NAMES_MAX


def test_the_key_of_a_derived_slice_cannot_collide_with_an_object():
    key = derived_key(SliceKey("shop", "db-x"), "db.example.com", IPFamily.IPV6)
    assert key == SliceKey("shop", "db-x@db.example.com@6")
    assert host_of(item(key.name)) == "db.example.com"
    assert host_of(item("db-x")) == ""


def test_slices_derived_by_a_previous_run_are_read_as_their_originals():
    found_by_name = Endpoint("203.0.113.1", weight=7, host="db.example.com")
    first = item("db-x@db.example.com@4", found_by_name)
    second = item("db-x@a.test@4")
    found = request(first, second, of=service(DB, EndpointName("a.test", 5433)))
    (named,) = found.named
    assert named.key == SliceKey("shop", "db-x")
    assert named.named == (Endpoint("db.example.com", weight=7), Endpoint("a.test"))
    assert found.plain == ()
    assert list(found.earlier) == [("db.example.com", first), ("a.test", second)]


def test_an_endpoint_name_has_the_weight_of_the_family_with_an_endpoint():
    of_4 = item("db-x@db.example.com@4")
    of_6 = item("db-x@db.example.com@6", Endpoint("2001:db8::1", weight=7))
    (named,) = request(of_4, of_6, of=service(DB)).named
    assert named.named == (Endpoint("db.example.com", weight=7),)


def test_a_service_without_endpoint_names_keeps_its_address_slices():
    plain, earlier = item(), item("db@db.example.com@4", Endpoint("203.0.113.1"))
    named = NameSlice.of(item("db-y"))
    left = without_names(ServiceState(service(DB), (plain, named, earlier)), "a bug")
    assert left.slices == (plain,)
    assert left.service.notes == (NoteKind.NAMES_BUG("a bug"),)


def test_the_note_about_a_bug_in_an_earlier_run_is_removed():
    of = service(DB, notes=(NoteKind.HEADER_WITHOUT_TCP(),))
    kept = without_names(ServiceState(of, ()), "a bug")
    assert read_request(kept).state.service == of
    assert without_names(kept, "another bug").service.notes == (
        *of.notes,
        NoteKind.NAMES_BUG("another bug"),
    )
