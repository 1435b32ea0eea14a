"""Tests of responses for names of Services; tests/cluster compares them with CoreDNS."""

import pytest

from tests.unit.model.samples import service, slice_of
from userspace_proxy.cluster import Store
from userspace_proxy.model import (
    Endpoint,
    IPFamily,
    ServiceKey,
    ServicePort,
    ServiceType,
    SlicePort,
    SocketAddress,
)
from userspace_proxy.names import (
    Code,
    NameIndex,
    Record,
    ServiceNames,
    endpoints,
    index,
    resolver,
)
from userspace_proxy.names.question import hostname_of

HTTP = ServicePort("http", 80, "TCP")
DNS = ServicePort("dns", 53, "UDP")
TARGETS = (SlicePort("http", 8080, "TCP"), SlicePort("dns", 5353, "UDP"))


def key(name):
    return ServiceKey("shop", name)


def external(name, target):
    return service(key(name), (), (), type=ServiceType.EXTERNAL_NAME, external_name=target)


def shop():
    store = Store()
    store.put_service(service(key("web"), (HTTP, DNS), ("10.96.0.10", "fd00:96::10")))
    store.put_slice(slice_of("10.244.0.3", key="web-1", of=key("web"), ports=TARGETS))
    store.put_service(service(key("db"), (HTTP,), (), is_headless=True))
    store.put_slice(
        slice_of(
            Endpoint("10.244.0.4", hostname="db-0"),
            "10.244.0.5",
            Endpoint("10.244.0.6", ready=False),
            key="db-1",
            of=key("db"),
            ports=TARGETS,
        )
    )
    store.put_slice(
        slice_of("fd00:244::4", key="db-2", of=key("db"), ports=TARGETS, family=IPFamily.IPV6)
    )
    store.put_service(service(key("empty"), (HTTP,), (), is_headless=True))
    store.put_service(service(key("portless"), (), (), is_headless=True))
    store.put_slice(slice_of("10.244.0.7", key="portless-1", of=key("portless"), ports=()))
    store.put_service(external("search", "search.example.com"))
    store.put_service(external("alias", "web.shop.svc.cluster.local"))
    store.put_service(external("second", "search.shop.svc.cluster.local"))
    store.put_service(external("dangling", "none.shop.svc.cluster.local"))
    store.put_service(external("misspelt", "web.shop.svc.svc.cluster.local"))
    store.put_service(external("loop", "loop.shop.svc.cluster.local"))
    store.put_service(external("number", "192.0.2.1"))
    return store.snapshot()


def ask(name, type_="A", **options):
    if not name.endswith("."):
        name = f"{name}.cluster.local."
    return ServiceNames(shop(), **options).answer(name, type_)


def data(name, type_="A", **options):
    answer = ask(name, type_, **options)
    assert answer.code is Code.NOERROR
    return [record.data for record in answer.records]


@pytest.mark.parametrize(
    ("name", "type_", "expected"),
    [
        pytest.param("web.shop.svc", "A", ["10.96.0.10"], id="cluster-ip"),
        pytest.param("WEB.shop.svc", "A", ["10.96.0.10"], id="in-any-case"),
        pytest.param("web.shop.svc", "AAAA", ["fd00:96::10"], id="cluster-ip-of-ipv6"),
        pytest.param("_http._tcp.web.shop.svc", "A", ["10.96.0.10"], id="address-of-a-port"),
        pytest.param("10-244-0-3.web.shop.svc", "A", ["10.244.0.3"], id="endpoint"),
        pytest.param("db.shop.svc", "A", ["10.244.0.4", "10.244.0.5"], id="headless"),
        pytest.param("db.shop.svc", "AAAA", ["fd00:244::4"], id="headless-of-ipv6"),
        pytest.param("db-0.db.shop.svc", "A", ["10.244.0.4"], id="hostname"),
        pytest.param("10-244-0-5.db.shop.svc", "A", ["10.244.0.5"], id="name-made-of-an-address"),
        pytest.param("portless.shop.svc", "A", ["10.244.0.7"], id="headless-without-ports"),
        pytest.param("10-9-8-7.shop.pod", "A", ["10.9.8.7"], id="pod"),
        pytest.param("search.shop.svc", "CNAME", ["search.example.com."], id="external-name"),
        pytest.param("alias.shop.svc", "A", ["web.shop.svc.cluster.local.", "10.96.0.10"],
            id="external-name-in-the-cluster"),
        pytest.param("dns-version", "TXT", ['"1.1.0"'], id="version"),
        pytest.param("10.0.96.10.in-addr.arpa.", "PTR", ["web.shop.svc.cluster.local."],
            id="reverse-of-a-cluster-ip"),
        pytest.param("4.0.244.10.in-addr.arpa.", "PTR", ["db-0.db.shop.svc.cluster.local."],
            id="reverse-of-an-endpoint"),
        pytest.param("_dns._udp.web.shop.svc", "SRV", ["0 50 53 web.shop.svc.cluster.local."],
            id="port"),
        pytest.param("_http._tcp.db.shop.svc", "SRV",
            ["0 33 8080 db-0.db.shop.svc.cluster.local.",
             "0 33 8080 10-244-0-5.db.shop.svc.cluster.local.",
             "0 33 8080 fd00-244--4.db.shop.svc.cluster.local."], id="port-of-headless"),
    ],
)  # fmt: skip
def test_names_resolve_to_their_records(name, type_, expected):
    assert data(name, type_) == expected


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        pytest.param("cluster.local.", "A", id="the-domain"),
        pytest.param("svc", "A", id="all-services"),
        pytest.param("shop.svc", "A", id="a-namespace"),
        pytest.param("shop.pod", "A", id="a-namespace-of-pods"),
        pytest.param("web.shop.svc", "MX", id="another-type"),
        pytest.param("web.shop.svc", "TXT", id="text-of-a-service"),
        pytest.param("web.shop.svc", "CNAME", id="no-external-name"),
        pytest.param("web.shop.svc", "PTR", id="not-a-reverse-name"),
        pytest.param("portless.shop.svc", "SRV", id="no-port-to-name"),
        pytest.param("search.shop.svc", "SRV", id="external-name-has-no-ports"),
        pytest.param("dangling.shop.svc", "A", id="external-name-of-a-missing-service"),
        pytest.param("misspelt.shop.svc", "A", id="external-name-of-an-impossible-service"),
        pytest.param("loop.shop.svc", "A", id="external-name-of-itself"),
        pytest.param("none.shop.svc", "SOA", id="coredns-ignores-the-name"),
        pytest.param("ns.dns", "A", id="the-servers-name"),
        pytest.param("in-addr.arpa.", "A", id="the-reverse-zone"),
    ],
)
def test_a_name_without_records_of_the_type_returns_noerror_with_the_soa(name, type_):
    answer = ask(name, type_)
    assert (answer.code, answer.records) == (Code.NOERROR, ())
    assert [str(record.type) for record in answer.authority] == ["SOA"]


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        pytest.param("none.shop.svc", "A", id="no-service"),
        pytest.param("web.none.svc", "A", id="no-namespace"),
        pytest.param("none.svc", "A", id="no-namespace-alone"),
        pytest.param("web.shop", "A", id="too-short"),
        pytest.param("_ftp._tcp.web.shop.svc", "SRV", id="no-port"),
        pytest.param("_http._udp.web.shop.svc", "SRV", id="another-protocol"),
        pytest.param("empty.shop.svc", "A", id="headless-without-endpoints"),
        pytest.param("_http._tcp.portless.shop.svc", "SRV", id="headless-without-ports"),
        pytest.param("10-244-0-6.db.shop.svc", "A", id="endpoint-that-is-not-ready"),
        pytest.param("x.search.shop.svc", "A", id="endpoint-of-an-external-name"),
        pytest.param("number.shop.svc", "A", id="external-name-that-is-an-address"),
        pytest.param("web.shop.pod", "A", id="no-address-of-a-pod"),
        pytest.param("svc", "TXT", id="text-of-a-domain"),
        pytest.param("1.1.1.1.in-addr.arpa.", "PTR", id="an-address-of-nothing"),
        pytest.param("1.1.in-addr.arpa.", "PTR", id="not-an-address"),
        pytest.param("web.shop.svc.in-addr.arpa.", "A", id="not-a-reverse-name"),
    ],
)
def test_a_nonexistent_name_returns_nxdomain_with_the_soa(name, type_):
    answer = ask(name, type_)
    assert (answer.code, answer.records) == (Code.NXDOMAIN, ())
    assert [str(record.type) for record in answer.authority] == ["SOA"]


@pytest.mark.parametrize("name", ["www.example.com.", "web.mycluster.local."])
def test_a_query_for_a_name_outside_the_cluster_is_refused(name):
    answer = ask(name)
    assert (answer.code, answer.is_authoritative) == (Code.REFUSED, False)


def test_a_record_has_its_name_in_the_case_of_the_query():
    (record,) = ask("Web.Shop.svc").records
    assert str(record) == "Web.Shop.svc.cluster.local. 5 IN A 10.96.0.10"


def test_the_soa_serial_is_the_revision():
    revision = shop().revision
    assert data("cluster.local.", "SOA") == [
        f"ns.dns.cluster.local. hostmaster.cluster.local. {revision} 7200 1800 86400 5"
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("search.shop.svc", ["search.example.com."], id="at-once"),
        pytest.param("second.shop.svc", ["search.shop.svc.cluster.local.", "search.example.com."],
            id="after-another-name"),
    ],
)  # fmt: skip
def test_the_caller_must_resolve_an_external_name_outside_the_cluster(name, expected):
    answer = ask(name)
    assert [record.data for record in answer.records] == expected
    assert answer.elsewhere == "search.example.com."


def test_the_cluster_domain_is_configurable():
    assert data("web.shop.svc.test.", domain="test") == ["10.96.0.10"]
    assert ask("web.shop.svc", domain="test").code is Code.REFUSED


def test_records_contain_the_actual_address_and_port_of_a_cluster_ip():
    def dialled_address(frontend):
        return SocketAddress("127.0.0.1" if frontend.port == 80 else frontend.ip, 17001)

    assert data("_http._tcp.web.shop.svc", "A", dialled_address=dialled_address) == ["127.0.0.1"]
    assert data("_http._tcp.web.shop.svc", "SRV", dialled_address=dialled_address) == [
        "0 50 17001 web.shop.svc.cluster.local."
    ]


def test_a_port_of_an_unsupported_protocol_keeps_its_number():
    store = Store()
    sctp = ServicePort("sctp", 9000, "SCTP")
    store.put_service(service(key("web"), (sctp,), ("10.96.0.10",)))
    names = ServiceNames(store.snapshot(), dialled_address=lambda _: SocketAddress("127.0.0.1", 1))
    (record,) = names.answer("_sctp._sctp.web.shop.svc.cluster.local.", "SRV").records
    assert record.data == "0 100 9000 web.shop.svc.cluster.local."


def many():
    """Return names of Services with 300 ports, 300 endpoints, or 300 names of one address."""
    store, number = Store(), 300
    ports = [ServicePort(f"p{i}", i + 1, "TCP") for i in range(number)]
    store.put_service(service(key("ports"), ports, ("10.96.0.10",)))
    store.put_service(service(key("db"), (HTTP,), (), is_headless=True))
    ips = [f"10.0.{i // 250}.{i % 250}" for i in range(number)]
    store.put_slice(slice_of(*ips, key="db-1", of=key("db"), ports=TARGETS[:1]))
    for i in range(number):
        store.put_slice(slice_of("10.1.1.1", key=f"s{i}", of=key(f"s{i}")))
        store.put_service(service(key(f"s{i}")))
    return ServiceNames(store.snapshot())


@pytest.mark.parametrize(
    ("name", "type_", "expected"),
    [
        pytest.param("db.shop.svc.cluster.local.", "A", ["10.0.0.7", "10.0.1.1"], id="endpoints"),
        pytest.param("db.shop.svc.cluster.local.", "SRV",
            ["0 1 8080 10-0-0-7.db.shop.svc.cluster.local.",
             "0 1 8080 10-0-1-1.db.shop.svc.cluster.local."], id="ports-of-endpoints"),
        pytest.param("ports.shop.svc.cluster.local.", "SRV",
            ["0 1 8 ports.shop.svc.cluster.local.",
             "0 1 252 ports.shop.svc.cluster.local."], id="ports"),
        pytest.param("1.1.1.10.in-addr.arpa.", "PTR", 2, id="names-of-an-address"),
    ],
)  # fmt: skip
def test_only_the_picked_records_are_created(name, type_, expected):
    asked = []

    def pick(count):
        asked.append(count)
        return [7, 251]

    answer = many().answer(name, type_, pick)
    assert (set(asked), answer.is_partial) == ({300}, True)
    found = [record.data for record in answer.records]
    assert (len(found) if type_ == "PTR" else found) == expected
    assert not many().answer(name, type_).is_partial


def test_the_cost_of_a_query_does_not_grow_with_the_service(monkeypatch):
    made = []
    monkeypatch.setattr(resolver, "Record", lambda *values: made.append(values) or Record(*values))
    for name in ("db", "ports"):
        many().answer(f"{name}.shop.svc.cluster.local.", "SRV", lambda _: [7, 251])
    assert len(made) == 4


def first(most):
    """Return a pick function that selects the first records, at most this many."""
    return lambda count: range(min(count, most))


def srv(cluster_ips, ports, slices, most=100, name="web.shop.svc"):
    store = Store()
    store.put_service(service(key("web"), ports, cluster_ips, is_headless=not cluster_ips))
    for each in slices:
        store.put_slice(each)
    names = ServiceNames(store.snapshot())
    return names.answer(f"{name}.cluster.local.", "SRV", first(most))


def texts(records):
    return [(record.type, record.name.split(".")[0], record.data) for record in records]


def test_a_port_with_two_protocols_has_one_srv_record():
    """The pick once chose among ports, so that complete responses were marked as truncated."""
    both = [ServicePort(f"{p}-{i}".lower(), i, p) for p in ("TCP", "UDP") for i in (53, 80)]
    found = srv(("10.96.0.10", "fd00:96::10"), both, (), 2)
    assert [record.data for record in found.records] == [
        "0 12 53 web.shop.svc.cluster.local.",
        "0 12 80 web.shop.svc.cluster.local.",
    ]
    assert texts(found.additional) == [("A", "web", "10.96.0.10"), ("AAAA", "web", "fd00:96::10")]
    assert not found.is_partial
    assert srv(("10.96.0.10",), both, (), 1).is_partial


def dual_stack(ports_of_ipv6=TARGETS, number=2):
    """Return the slices of pods with hostnames, one for each family."""
    return [
        slice_of(
            *(Endpoint(f"{start}{i}", hostname=f"web-{i}") for i in range(number)),
            key=start,
            of=key("web"),
            ports=ports,
            family=family,
        )
        for start, ports, family in (
            ("10.244.0.", TARGETS, IPFamily.IPV4),
            ("fd00:244::", ports_of_ipv6, IPFamily.IPV6),
        )
    ]


@pytest.mark.parametrize("ports", [TARGETS, TARGETS[::-1], TARGETS[:1]])
def test_a_hostnames_addresses_share_a_record_per_port(ports):
    found = srv((), (HTTP, DNS), dual_stack(ports), 4)
    numbers = {tuple(record.data.split()[2:]) for record in found.records}
    assert numbers == {
        (port, f"web-{i}.web.shop.svc.cluster.local.") for port in ("8080", "5353") for i in (0, 1)
    }
    assert (len(found.records), found.is_partial) == (4, False)
    assert sorted(texts(found.additional)) == [
        ("A", "web-0", "10.244.0.0"),
        ("A", "web-1", "10.244.0.1"),
        ("AAAA", "web-0", "fd00:244::0"),
        ("AAAA", "web-1", "fd00:244::1"),
    ]
    assert srv((), (HTTP, DNS), dual_stack(ports), 3).is_partial


def test_additional_addresses_of_a_hostname_are_limited_to_the_pick():
    endpoints = [Endpoint(f"10.0.{i // 250}.{i % 250}", hostname="web") for i in range(10_000)]
    found = srv((), (HTTP,), [slice_of(*endpoints, key="a", of=key("web"))], 18)
    assert (len(found.records), found.is_partial) == (1, False)
    assert len(found.additional) == 18


def test_addresses_of_a_cname_target_are_limited_to_the_pick():
    store = Store()
    store.put_service(external("alias", "db.shop.svc.cluster.local"))
    store.put_service(service(key("db"), (HTTP,), (), is_headless=True))
    store.put_slice(slice_of(*(f"10.0.0.{i}" for i in range(9)), key="db-1", of=key("db")))
    names = ServiceNames(store.snapshot())
    answer = names.answer("alias.shop.svc.cluster.local.", "A", lambda _: [3])
    assert [record.data for record in answer.records] == ["db.shop.svc.cluster.local.", "10.0.0.3"]
    assert answer.is_partial


def test_an_overlong_cname_chain_has_no_address():
    store, most = Store(), resolver._CNAMES_MAX
    store.put_service(service(key("web0"), (HTTP,), ("10.96.0.10",)))
    for number in range(1, 2 * most):
        store.put_service(external(f"web{number}", f"web{number - 1}.shop.svc.cluster.local"))
    names = ServiceNames(store.snapshot())
    counts = [
        len(names.answer(f"web{number}.shop.svc.cluster.local.", "A").records)
        for number in range(2 * most)
    ]
    assert counts == [*range(1, most + 2), *[0] * (most - 1)]


def forwarded():
    """Return a snapshot of a Service whose endpoints are Services, one without a ready pod."""
    store = Store()
    parts = (key("db-0.db"), key("db-1.db"))
    store.put_service(service(key("db"), (HTTP,), ("127.0.0.5",), of_endpoints=parts))
    for i, part in enumerate(parts):
        store.put_service(service(part, (HTTP,), (f"127.0.0.{6 + i}",), of_endpoints=()))
        ready = Endpoint(f"10.244.0.{4 + i}", ready=i == 0)
        store.put_slice(slice_of(ready, key=f"db-{i}", of=part, ports=TARGETS))
    return store.snapshot()


@pytest.mark.parametrize(
    ("name", "type_", "expected"),
    [
        pytest.param("db.shop.svc", "A", ["127.0.0.5"], id="the-service"),
        pytest.param("db-0.db.shop.svc", "A", ["127.0.0.6"], id="a-ready-part"),
        pytest.param("db-1.db.shop.svc", "A", [], id="a-part-that-is-not-ready"),
        pytest.param("db-2.db.shop.svc", "A", [], id="no-part"),
        pytest.param("10-244-0-4.shop.pod", "A", [], id="a-pod"),
        pytest.param(
            "_http._tcp.db.shop.svc",
            "SRV",
            ["0 100 80 db-0.db.shop.svc.cluster.local.", "127.0.0.6"],
            id="ports",
        ),
        pytest.param("_other._tcp.db-0.db.shop.svc", "SRV", [], id="another-port"),
    ],
)
def test_names_resolve_to_local_addresses_if_pods_are_unreachable(name, type_, expected):
    answer = ServiceNames(forwarded()).answer(f"{name}.cluster.local.", type_)
    assert [record.data for record in (*answer.records, *answer.additional)] == expected


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        pytest.param("db.shop.svc.cluster.local.", "A", id="addresses"),
        pytest.param("_http._tcp.db.shop.svc.cluster.local.", "SRV", id="ports"),
        pytest.param("10-0-7-1.db.shop.svc.cluster.local.", "A", id="endpoint"),
        pytest.param("same.db.shop.svc.cluster.local.", "A", id="hostname-of-many"),
        pytest.param("1.7.0.10.in-addr.arpa.", "PTR", id="address"),
    ],
)
def test_a_changed_slice_rereads_few_endpoints(name, type_, monkeypatch):
    """With 100,000 endpoints, a query once took 0.45 s."""
    store, names, read = Store(), NameIndex(), []
    store.put_service(service(key("db"), (), (), is_headless=True))

    def current():
        return ServiceNames(store.snapshot(), index=names)

    def put(s, *ips):
        same = [Endpoint(f"10.1.{s}.{i}", hostname="same") for i in range(1, 51)]
        ips += tuple(f"10.0.{s}.{i}" for i in range(1, 51))
        store.put_slice(slice_of(*ips, *same, key=f"s{s:03}", of=key("db"), ports=TARGETS))

    for s in range(200):
        put(s)
    current().preparation(name, type_)()
    made = endpoints.Ready.__init__
    monkeypatch.setattr(
        endpoints.Ready,
        "__init__",
        lambda ready, some, *more: read.extend(some) or made(ready, some, *more),
    )
    monkeypatch.setattr(
        index, "hostname_of", lambda ip, host: read.append(ip) or hostname_of(ip, host)
    )
    put(100, "192.0.2.1")
    pick = lambda count: range(min(count, 10))  # noqa: E731 - it is given as a Pick
    assert current().preparation(name, type_) is None
    assert current().answer(name, type_, pick).records
    assert len(read) < 2000


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        pytest.param("kubernetes.io.", "A", id="elsewhere"),
        pytest.param("shop.svc.cluster.local.", "A", id="a-namespace"),
        pytest.param("10-0-0-1.shop.pod.cluster.local.", "A", id="a-pod"),
        pytest.param("missing.shop.svc.cluster.local.", "A", id="no-service"),
        pytest.param("web.shop.svc.cluster.local.", "A", id="cluster-ip"),
        pytest.param("db.shop.svc.cluster.local.", "A", id="small"),
    ],
)
def test_cheap_queries_need_no_preparation(name, type_):
    assert ServiceNames(shop()).preparation(name, type_) is None
